/** New rows in front of those that were read before. */

/** Joins the newest page with what is shown. `complete` is false where rows between the two may be missing. */
export function joinNewest<T>(
  newest: T[],
  shown: T[],
  id: (row: T) => string,
  newestIsAll: boolean,
): { rows: T[]; fresh: number; complete: boolean } {
  const known = new Set(shown.map(id));
  const fresh = newest.filter((row) => !known.has(id(row)));
  const meets = newestIsAll || fresh.length < newest.length || newest.length === 0;
  const latest = new Map(newest.map((row) => [id(row), row]));
  const rows = shown.map((row) => latest.get(id(row)) ?? row);
  return { rows: [...fresh, ...rows], fresh: fresh.length, complete: meets || shown.length === 0 };
}
