/** Figures and times for people. */
import type { Zone } from "./range";

export const NONE = "–";

const GROUPED = new Intl.NumberFormat("en");

export function count(n: number | null | undefined): string {
  return GROUPED.format(n ?? 0);
}

/** Three significant digits, without zeros at the end. */
function short(value: number): string {
  return Number(value.toPrecision(3)).toString();
}

/** A duration of so many microseconds. */
export function duration(micros: number | null | undefined): string {
  if (micros === null || micros === undefined) return NONE;
  if (micros < 1e3) return `${Math.round(micros)} µs`;
  if (micros < 999_500) return `${short(micros / 1e3)} ms`;
  if (micros < 6e7) return `${(micros / 1e6).toFixed(2)} s`;
  const seconds = Math.round(micros / 1e6);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Hundredths of a per cent. */
export function percent(basisPoints: number | null | undefined): string {
  return basisPoints === null || basisPoints === undefined ? NONE : `${(basisPoints / 100).toFixed(2)} %`;
}

const two = (n: number) => String(n).padStart(2, "0");

function parts(date: Date, zone: Zone): [string, string, string, string] {
  const utc = zone === "utc";
  const day = utc
    ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate()];
  const time = utc ? [date.getUTCHours(), date.getUTCMinutes()] : [date.getHours(), date.getMinutes()];
  return [
    `${day[0]}-${two(day[1] ?? 0)}-${two(day[2] ?? 0)}`,
    time.map(two).join(":"),
    two(utc ? date.getUTCSeconds() : date.getSeconds()),
    String(utc ? date.getUTCMilliseconds() : date.getMilliseconds()).padStart(3, "0"),
  ];
}

/** 2026-11-23 06:39:12.123 */
export function exactTime(time: string | Date, zone: Zone): string {
  const [day, minute, second, milli] = parts(new Date(time), zone);
  return `${day} ${minute}:${second}.${milli}`;
}

/** 2026-11-23 06:39 */
export function minuteTime(time: string | Date, zone: Zone): string {
  const [day, minute] = parts(new Date(time), zone);
  return `${day} ${minute}`;
}

/** How long ago, roughly. */
export function ago(time: string, now: Date): string {
  const seconds = Math.max(0, Math.round((now.getTime() - new Date(time).getTime()) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

export function bytes(n: number): string {
  if (n < 1_000) return `${n} B`;
  if (n < 1_000_000) return `${short(n / 1_000)} kB`;
  return `${short(n / 1_000_000)} MB`;
}

/** The zone's name as people say it. */
export function zoneName(zone: Zone): string {
  return zone === "utc" ? "UTC" : localZone();
}

export function localZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}
