import { describe, expect, test } from "vitest";
import {
  bounds,
  DEFAULT_RANGE,
  isPast,
  PRESETS,
  parseRange,
  rangeLabel,
  rangeParams,
  rangeText,
  stepOf,
} from "./range";

const NOW = new Date("2026-11-25T10:30:00Z"); // a Wednesday
const day = (from: string, to: string) => ({
  from: new Date(`${from}T00:00:00Z`),
  to: new Date(`${to}T00:00:00Z`),
});

describe("a range", () => {
  test("of the URL comes back as it went", () => {
    for (const text of [
      "15m",
      "24h",
      "2w",
      "Today",
      "AllTime",
      "2026-01-01T00:00:00.000Z..2026-01-02T12:30:00.000Z",
    ]) {
      expect(rangeText(parseRange(text))).toBe(text);
    }
    expect(rangeText(parseRange("7d"))).toBeUndefined();
  });

  test("that makes no sense is the last seven days", () => {
    for (const text of [undefined, "", "x", "0d", "7y", "Tomorrow", "2026-01-02..2026-01-01", "a..b"]) {
      expect(parseRange(text)).toEqual(DEFAULT_RANGE);
    }
  });

  test.each([
    ["Today", day("2026-11-25", "2026-11-26")],
    ["Yesterday", day("2026-11-24", "2026-11-25")],
    ["ThisWeek", day("2026-11-23", "2026-11-30")],
    ["ThisMonth", day("2026-11-01", "2026-12-01")],
    ["LastMonth", day("2026-10-01", "2026-11-01")],
    ["Last30Days", day("2026-10-27", "2026-11-26")],
    ["Last90Days", day("2026-08-28", "2026-11-26")],
    ["ThisYear", day("2026-01-01", "2027-01-01")],
    ["LastYear", day("2025-01-01", "2026-01-01")],
    ["AllTime", {}],
  ] as const)("%s is made of whole days", (preset, expected) => {
    expect(bounds({ kind: "preset", preset }, "utc", NOW)).toEqual(expected);
  });

  test("in UTC is the API's own preset, elsewhere two moments", () => {
    const today = parseRange("Today");
    expect(rangeParams(today, "utc", NOW)).toEqual({ preset: "Today" });
    const local = rangeParams(today, "local", NOW);
    expect(Object.keys(local)).toEqual(["from", "to"]);
    expect(new Date(local["from"] ?? "").getHours()).toBe(0);
    expect(rangeParams(parseRange("AllTime"), "local", NOW)).toEqual({ preset: "AllTime" });
    expect(rangeParams(parseRange("36h"), "local", NOW)).toEqual({ last: "36h" });
  });

  test("within a day is shown by the hour, a longer one by the day", () => {
    for (const [text, step] of [
      ["24h", "Hour"],
      ["Today", "Hour"],
      ["Yesterday", "Hour"],
      ["7d", "Day"],
      ["25h", "Day"],
      ["AllTime", "Day"],
      ["ThisYear", "Day"],
      ["2026-11-01T00:00:00Z..2026-11-01T06:00:00Z", "Hour"],
      ["2026-11-01T00:00:00Z..2026-11-03T00:00:00Z", "Day"],
    ]) {
      expect(stepOf(parseRange(text), "utc", NOW), text).toBe(step);
    }
  });

  test("is past once nothing can come into it", () => {
    expect(isPast(parseRange("Yesterday"), "utc", NOW)).toBe(true);
    for (const text of ["Today", "7d", "AllTime"])
      expect(isPast(parseRange(text), "utc", NOW), text).toBe(false);
  });

  test("has a name for people", () => {
    const show = (time: Date) => time.toISOString().slice(0, 10);
    expect(rangeLabel(DEFAULT_RANGE, show)).toBe("Last 7 days");
    expect(rangeLabel(parseRange("3h"), show)).toBe("Last 3 hours");
    expect(rangeLabel(parseRange("1w"), show)).toBe("Last 1 week");
    expect(rangeLabel(parseRange("2026-01-01..2026-01-05"), show)).toBe("2026-01-01 – 2026-01-05");
    expect(PRESETS.map(([name]) => rangeLabel({ kind: "preset", preset: name }, show))).toContain(
      "Last 30 days",
    );
  });
});
