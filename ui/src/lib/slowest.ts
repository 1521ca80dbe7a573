/** Which runs took longest. Pure. */

interface Timed {
  executedOn: string;
  finishedAt: string | null;
  responseTimeMicros: number | null;
}

/** How long a run took, failed or not, in microseconds; none while it goes on. */
export function tookMicros(run: Timed): number | null {
  if (run.responseTimeMicros !== null) return run.responseTimeMicros;
  if (run.finishedAt === null) return null;
  return Math.max(0, (Date.parse(run.finishedAt) - Date.parse(run.executedOn)) * 1_000);
}

/** The slowest of them, the longest first; those that go on are not among them. */
export function slowest<T extends Timed>(runs: T[], most: number): T[] {
  return runs
    .map((run) => ({ run, took: tookMicros(run) ?? -1 }))
    .filter(({ took }) => took >= 0)
    .sort((a, b) => b.took - a.took)
    .slice(0, most)
    .map(({ run }) => run);
}
