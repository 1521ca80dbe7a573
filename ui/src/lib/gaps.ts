/** Why lines are missing, for people. */
import type { LogGap } from "../api/types";
import { bytes } from "./format";

const REASONS: Record<string, string> = {
  PodEndedUnread: "the pod ended before its log was read to the end",
  FileRotatedAway: "a log file was removed before it was read",
  FileTruncated: "a log file was cut short",
  WrittenAfterRotation: "a log file was written to after the next one was begun",
  Unreadable: "a log file is damaged",
  ApiFollowInterrupted: "reading the log was interrupted, and lines may have been missed",
  CarryUnreadable: "the beginning of a line was lost",
};

export function gapText(gap: LogGap): string {
  const size = gap.bytes > 0 ? `, at least ${bytes(gap.bytes)}` : "";
  return `Lines are missing here: ${REASONS[gap.reason] ?? gap.reason} (pod ${gap.pod}, version ${gap.version}${size})`;
}

/** Order of times as text; fractions of seconds may differ in length. */
export function compareTimes(a: string, b: string): number {
  const pad = (text: string) =>
    text.replace(/(?:\.(\d*))?Z$/, (_, digits: string | undefined) => `.${(digits ?? "").padEnd(9, "0")}`);
  const [one, other] = [pad(a), pad(b)];
  return one < other ? -1 : one > other ? 1 : 0;
}

export type LogRow<L> = { kind: "line"; line: L } | { kind: "gap"; gap: LogGap };

/** The rows of lines, each made once: a line that stays is the same row. */
const ROWS = new WeakMap<object, LogRow<never>>();

function rowOf<L extends object>(line: L): LogRow<L> {
  const known = ROWS.get(line) as LogRow<L> | undefined;
  if (known) return known;
  const row: LogRow<L> = { kind: "line", line };
  ROWS.set(line, row as LogRow<never>);
  return row;
}

/** Lines, newest first, with the gaps where the missing ones would be. */
export function withGaps<L extends { timestamp: string }>(lines: L[], gaps: LogGap[]): LogRow<L>[] {
  const left = [...gaps].sort((a, b) => compareTimes(b.time, a.time));
  const rows: LogRow<L>[] = [];
  for (const line of lines) {
    while (left[0] && compareTimes(left[0].time, line.timestamp) > 0) {
      rows.push({ kind: "gap", gap: left.shift() as LogGap });
    }
    rows.push(rowOf(line));
  }
  for (const gap of left) rows.push({ kind: "gap", gap });
  return rows;
}
