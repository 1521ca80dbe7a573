import type { ErrorGroups } from "../api/types";
import { minuteTime } from "../lib/format";
import { useZone } from "./Time";

const [HEIGHT, BAR, STEP] = [32, 5, 7];

/** How often an error came, over the range. */
export function ErrorBars({ counts, span }: { counts: number[]; span: ErrorGroups["counts"] }) {
  const zone = useZone();
  const width = Math.max(1, counts.length) * STEP - (STEP - BAR);
  const most = Math.max(1, ...counts);
  const high = (n: number) => (n === 0 ? 1 : Math.max(2, (n / most) * HEIGHT));
  const times = [span.from, span.to].map((time) => (time ? minuteTime(time, zone) : ""));
  return (
    <svg
      className="error-bars"
      viewBox={`0 0 ${width} ${HEIGHT}`}
      width={width}
      height={HEIGHT}
      role="img"
      aria-label={`Runs from ${times[0]} to ${times[1]} in ${counts.length} equal parts: ${counts.join(", ")}`}
    >
      {counts.map((n, i) => (
        <rect
          // biome-ignore lint/suspicious/noArrayIndexKey: they are parts of time in order
          key={i}
          className={n ? "spark-failed" : "spark-none"}
          x={i * STEP}
          y={HEIGHT - high(n)}
          width={BAR}
          height={high(n)}
        />
      ))}
    </svg>
  );
}
