export interface TileFacts {
  name: string;
  value: string;
  note?: string;
  tip?: string;
}

/** Figures with their names; a placeholder of the same size while they are on their way. */
export function Tiles({ tiles, pending, label }: { tiles: TileFacts[]; pending: boolean; label: string }) {
  return (
    <dl className="tiles" aria-label={label} aria-busy={pending}>
      {tiles.map(({ name, value, note, tip }) => (
        <div className="tile" key={name} title={tip}>
          <dt>{name}</dt>
          <dd className="tile-value num">{pending ? <span className="skeleton skeleton-value" /> : value}</dd>
          {note !== undefined && <dd className="tile-note">{pending ? "\u00a0" : note}</dd>}
        </div>
      ))}
    </dl>
  );
}
