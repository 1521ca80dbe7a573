import { describe, expect, test } from "vitest";
import { type AskRows, neighbours, type Row } from "./neighbours";

const at = (millis: number) => new Date(Date.UTC(2026, 0, 1) + millis).toISOString();
const END = new Date(Date.UTC(2026, 1, 1));

function store(rows: Row[]): { ask: AskRows; asked: () => number } {
  let asked = 0;
  const newest = [...rows].sort((a, b) => (a.executedOn + a.runId < b.executedOn + b.runId ? 1 : -1));
  const ask: AskRows = async (from, to, limit) => {
    asked += 1;
    const items = newest.filter((row) => (!from || row.executedOn >= from) && row.executedOn < to);
    return { items: items.slice(0, limit), next: items.length > limit ? "more" : null };
  };
  return { ask, asked: () => asked };
}

const row = (n: number, millis: number): Row => ({
  runId: `r${String(n).padStart(6, "0")}`,
  executedOn: at(millis),
});

describe("the neighbours of a run", () => {
  test.each([1, 50, 1_000, 3_600_000, 86_400_000])(
    "are found whether runs come every %d ms",
    async (every) => {
      const count = Math.min(5_000, Math.floor((20 * 86_400_000) / every));
      const rows = Array.from({ length: count }, (_, n) => row(n, n * every));
      const { ask, asked } = store(rows);
      const middle = Math.floor(count / 2);
      expect(await neighbours(ask, rows[middle] as Row, undefined, END)).toEqual({
        newer: rows[middle + 1]?.runId,
        older: rows[middle - 1]?.runId,
      });
      expect(asked()).toBeLessThan(12);
    },
  );

  test("end with the range", async () => {
    const rows = [row(0, 0), row(1, 10_000), row(2, 20_000)];
    const { ask } = store(rows);
    const middle = rows[1] as Row;
    expect(await neighbours(ask, middle, new Date(at(5_000)), new Date(at(15_000)))).toEqual({});
    expect(await neighbours(ask, rows[2] as Row, new Date(at(30_000)), new Date(at(40_000)))).toEqual({});
  });

  test("of one moment are told apart by their ids, and a run that is left out has some", async () => {
    const rows = [row(0, 0), row(1, 0), row(2, 0), row(3, 9_000)];
    const { ask } = store(rows);
    expect(await neighbours(ask, rows[1] as Row, undefined, END)).toEqual({
      newer: "r000002",
      older: "r000000",
    });
    const out = { runId: "x", executedOn: at(4_000) };
    expect(await neighbours(ask, out, undefined, END)).toEqual({ newer: "r000003", older: "r000002" });
  });
});
