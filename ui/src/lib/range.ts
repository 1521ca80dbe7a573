/** Ranges of time: how the URL says them, what the API is asked for, and what people read. */

export type Zone = "local" | "utc";

export const PRESETS = [
  ["Today", "Today"],
  ["Yesterday", "Yesterday"],
  ["ThisWeek", "This week"],
  ["ThisMonth", "This month"],
  ["LastMonth", "Last month"],
  ["Last30Days", "Last 30 days"],
  ["Last90Days", "Last 90 days"],
  ["ThisYear", "This year"],
  ["LastYear", "Last year"],
  ["AllTime", "All time"],
] as const;
export type Preset = (typeof PRESETS)[number][0];

export const AGES = [
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
] as const;

export type Range =
  | { kind: "last"; age: string }
  | { kind: "preset"; preset: Preset }
  | { kind: "custom"; from: Date; to: Date };

export const DEFAULT_RANGE: Range = { kind: "last", age: "7d" };

const UNITS: Record<string, number> = { s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7, w: 6.048e8 };
const UNIT_NAMES: Record<string, string> = { s: "second", m: "minute", h: "hour", d: "day", w: "week" };

/** Reads a range of the URL; what is none is the default. */
export function parseRange(text: string | undefined): Range {
  if (!text) return DEFAULT_RANGE;
  if (/^[1-9]\d{0,5}[smhdw]$/.test(text)) return { kind: "last", age: text };
  const preset = PRESETS.find(([name]) => name === text);
  if (preset) return { kind: "preset", preset: preset[0] };
  const [from, to] = text.split("..").map((part) => new Date(part));
  if (from && to && from.getTime() < to.getTime()) return { kind: "custom", from, to };
  return DEFAULT_RANGE;
}

/** A range for the URL; the default is left out. */
export function rangeText(range: Range): string | undefined {
  switch (range.kind) {
    case "last":
      return range.age === "7d" ? undefined : range.age;
    case "preset":
      return range.preset;
    case "custom":
      return `${range.from.toISOString()}..${range.to.toISOString()}`;
  }
}

interface Bounds {
  from?: Date;
  to?: Date;
}

/** Midnight of a day in the zone; months and days may lie outside of their bounds. */
function midnight(zone: Zone, year: number, month: number, day: number): Date {
  return zone === "utc" ? new Date(Date.UTC(year, month, day)) : new Date(year, month, day);
}

function presetBounds(preset: Preset, zone: Zone, now: Date): Bounds {
  const utc = zone === "utc";
  const y = utc ? now.getUTCFullYear() : now.getFullYear();
  const m = utc ? now.getUTCMonth() : now.getMonth();
  const d = utc ? now.getUTCDate() : now.getDate();
  const weekday = ((utc ? now.getUTCDay() : now.getDay()) + 6) % 7;
  const at = (year: number, month: number, day: number) => midnight(zone, year, month, day);
  const days = (from: number, to: number): Bounds => ({ from: at(y, m, d + from), to: at(y, m, d + to) });
  switch (preset) {
    case "Today":
      return days(0, 1);
    case "Yesterday":
      return days(-1, 0);
    case "ThisWeek":
      return days(-weekday, 7 - weekday);
    case "ThisMonth":
      return { from: at(y, m, 1), to: at(y, m + 1, 1) };
    case "LastMonth":
      return { from: at(y, m - 1, 1), to: at(y, m, 1) };
    case "Last30Days":
      return days(-29, 1);
    case "Last90Days":
      return days(-89, 1);
    case "ThisYear":
      return { from: at(y, 0, 1), to: at(y + 1, 0, 1) };
    case "LastYear":
      return { from: at(y - 1, 0, 1), to: at(y, 0, 1) };
    case "AllTime":
      return {};
  }
}

export function ageMillis(age: string): number {
  return Number(age.slice(0, -1)) * (UNITS[age.slice(-1)] ?? 0);
}

export function bounds(range: Range, zone: Zone, now: Date): Bounds {
  switch (range.kind) {
    case "last":
      return { from: new Date(now.getTime() - ageMillis(range.age)) };
    case "preset":
      return presetBounds(range.preset, zone, now);
    case "custom":
      return { from: range.from, to: range.to };
  }
}

/** What the API is asked for. The same all through a day, so that answers can be kept. */
export function rangeParams(range: Range, zone: Zone, now: Date): Record<string, string> {
  if (range.kind === "last") return { last: range.age };
  // The API counts presets in days of UTC.
  if (range.kind === "preset" && (zone === "utc" || range.preset === "AllTime"))
    return { preset: range.preset };
  const { from, to } = bounds(range, zone, now);
  return { ...(from && { from: from.toISOString() }), ...(to && { to: to.toISOString() }) };
}

/** Whether nothing new can come into the range. */
export function isPast(range: Range, zone: Zone, now: Date): boolean {
  const { to } = bounds(range, zone, now);
  return to !== undefined && to.getTime() <= now.getTime();
}

/** Hours within a day, days otherwise. */
export function stepOf(range: Range, zone: Zone, now: Date): "Hour" | "Day" {
  const { from, to } = bounds(range, zone, now);
  if (!from) return "Day";
  const end = Math.min(to?.getTime() ?? now.getTime(), Math.max(now.getTime(), from.getTime()));
  const longest = range.kind === "preset" ? 25 : 24;
  return end - from.getTime() <= longest * 3.6e6 ? "Hour" : "Day";
}

/** A range for people. */
export function rangeLabel(range: Range, show: (time: Date) => string): string {
  switch (range.kind) {
    case "last": {
      const known = AGES.find(([age]) => age === range.age);
      if (known) return known[1];
      const count = Number(range.age.slice(0, -1));
      return `Last ${count} ${UNIT_NAMES[range.age.slice(-1)]}${count === 1 ? "" : "s"}`;
    }
    case "preset":
      return PRESETS.find(([name]) => name === range.preset)?.[1] ?? range.preset;
    case "custom":
      return `${show(range.from)} – ${show(range.to)}`;
  }
}
