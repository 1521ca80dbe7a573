/** What charts are drawn from: a column of times, and a column for each line or bar. Pure. */
import type { Bucket } from "../../api/types";

export interface ChartLine {
  label: string;
  /** Custom property of the colour. */
  colour: string;
  dash?: number[];
  /** Shows a value. */
  show: (value: number | null | undefined) => string;
  values: (number | null)[];
}

export interface ChartData {
  /** Seconds since 1970, the beginning of each bucket. */
  times: number[];
  lines: ChartLine[];
  kind: "bars" | "lines";
}

export interface Marker {
  /** Seconds since 1970. */
  time: number;
  label: string;
}

/** Buckets in order, with those in between that nothing happened in, so that a quiet time looks quiet. */
export function filled(buckets: Bucket[], step: "Hour" | "Day"): (Bucket | number)[] {
  const width = step === "Hour" ? 3_600_000 : 86_400_000;
  const all: (Bucket | number)[] = [];
  let before: number | null = null;
  for (const bucket of buckets) {
    const from = new Date(bucket.from).getTime();
    // Days of a zone may be an hour longer or shorter.
    while (before !== null && from - before > width * 1.5 && all.length < 2_000) {
      before += width;
      all.push(before);
    }
    all.push(bucket);
    before = from;
  }
  return all;
}

export function chartData(
  kind: ChartData["kind"],
  buckets: (Bucket | number)[],
  lines: (Omit<ChartLine, "values"> & { of: (bucket: Bucket) => number | null | undefined })[],
): ChartData {
  const times = buckets.map((one) => (typeof one === "number" ? one : new Date(one.from).getTime()) / 1000);
  const empty = kind === "bars" ? 0 : null;
  return {
    kind,
    times,
    lines: lines.map(({ of, ...line }) => ({
      ...line,
      values: buckets.map((one) => (typeof one === "number" ? empty : (of(one) ?? empty))),
    })),
  };
}

/** Sums from the bottom up, for bars that stand on each other: the first line lies lowest. */
export function stacked(lines: { values: (number | null)[] }[]): number[][] {
  const sums: number[][] = [];
  for (const line of lines) {
    const below = sums.at(-1);
    sums.push(line.values.map((value, i) => (value ?? 0) + (below?.[i] ?? 0)));
  }
  return sums;
}
