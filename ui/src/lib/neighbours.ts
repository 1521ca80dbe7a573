/** The runs next to one in time, for a record that was opened beyond the rows that are loaded. */

export interface Row {
  runId: string;
  executedOn: string;
}

/** Asks for the newest rows that began within bounds, `from` among them and `to` not. */
export type AskRows = (
  from: string | undefined,
  to: string,
  limit: number,
) => Promise<{ items: Row[]; next: string | null }>;

export interface Neighbours {
  newer: string | undefined;
  older: string | undefined;
}

/** Rows of one look at most. */
const LOOK = 100;
const LOOKS = 24;
const MINUTE = 60_000;

/** Rows come newest first, so that a newer one is looked for in stretches of time, longer or shorter ones until few are in it. */
async function newerRows(ask: AskRows, run: Row, end: Date): Promise<Row[]> {
  const begin = new Date(run.executedOn).getTime();
  let [short, long, length] = [0, Number.POSITIVE_INFINITY, MINUTE];
  for (let look = 0; look < LOOKS; look++) {
    const to = Math.min(begin + length, end.getTime());
    if (to <= begin) return [];
    const { items, next } = await ask(run.executedOn, new Date(to).toISOString(), LOOK);
    if (next === null) {
      if (items.some((row) => row.runId !== run.runId) || to === end.getTime()) return items;
      short = length;
      length = Number.isFinite(long) ? Math.sqrt(short * long) : length * 16;
    } else {
      long = length;
      length = short > 0 ? Math.sqrt(short * long) : length / 16;
    }
  }
  return [];
}

/** Those of the rows that `ask` finds from `from` until `end`. */
export async function neighbours(
  ask: AskRows,
  run: Row,
  from: Date | undefined,
  end: Date,
): Promise<Neighbours> {
  const begun = new Date(run.executedOn).getTime();
  const inRange = !from || from.getTime() < begun;
  const [newer, older] = await Promise.all([
    newerRows(ask, run, end),
    inRange ? ask(from?.toISOString(), run.executedOn, 1) : { items: [] },
  ]);
  const at = newer.findIndex((row) => row.runId === run.runId);
  // A filter of the page may leave the run itself out.
  const next = at < 0 ? newer.at(-1) : newer[at - 1];
  const same = at < 0 ? undefined : newer[at + 1];
  return { newer: next?.runId, older: (same ?? older.items[0])?.runId };
}
