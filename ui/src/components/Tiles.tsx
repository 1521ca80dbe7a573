import { Button } from "react-aria-components";

export interface TileFacts {
  name: string;
  value: string;
  note?: string;
  tip?: string;
  /** What a press of the note does. */
  act?: { label: string; onPress: () => void };
}

/** Figures with their names; a placeholder of the same size while they are on their way. */
export function Tiles({ tiles, pending, label }: { tiles: TileFacts[]; pending: boolean; label: string }) {
  return (
    <dl className="tiles" aria-label={label} aria-busy={pending}>
      {tiles.map(({ name, value, note, tip, act }) => (
        <div className="tile" key={name} title={tip}>
          <dt>{name}</dt>
          <dd className="tile-value num">{pending ? <span className="skeleton skeleton-value" /> : value}</dd>
          {note !== undefined && (
            <dd className="tile-note">
              {pending ? (
                "\u00a0"
              ) : act ? (
                <Button className="tile-act" aria-label={`${note}: ${act.label}`} onPress={act.onPress}>
                  {note}
                </Button>
              ) : (
                note
              )}
            </dd>
          )}
        </div>
      ))}
    </dl>
  );
}
