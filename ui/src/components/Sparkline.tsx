import { useQuery } from "@tanstack/react-query";
import { seriesQuery } from "../api/queries";
import type { ScriptName } from "../api/types";
import { count, localZone } from "../lib/format";

const DAYS = 7;
const [WIDTH, HEIGHT, BAR, STEP] = [84, 22, 8, 12];

/** Days since 1970 of a moment, in the reader's zone. */
function dayOf(time: Date): number {
  return Math.round(Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) / 8.64e7);
}

/** Runs of the last days, the failed ones at the foot. Asked for only while the row can be seen. */
export function Sparkline({ script }: { script: ScriptName }) {
  const series = useQuery({
    ...seriesQuery(script, { last: `${DAYS}d`, step: "Day", timeZone: localZone() }),
    refetchInterval: 60_000,
    staleTime: 60_000,
  });
  if (series.isPending) return <span className="sparkline skeleton skeleton-spark" />;
  const today = dayOf(new Date());
  const days = Array.from({ length: DAYS }, () => ({ all: 0, failed: 0 }));
  for (const bucket of series.data?.buckets ?? []) {
    const day = days[DAYS - 1 - (today - dayOf(new Date(bucket.from)))];
    if (!day) continue;
    day.all = bucket.succeededRuns + bucket.failedRuns + bucket.inProgressRuns;
    day.failed = bucket.failedRuns;
  }
  const most = Math.max(1, ...days.map((day) => day.all));
  const high = (runs: number) => (runs === 0 ? 0 : Math.max(1, (runs / most) * HEIGHT));
  const label = `Runs of the last ${DAYS} days: ${days.map((day) => count(day.all)).join(", ")}`;
  return (
    <svg
      className="sparkline"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      width={WIDTH}
      height={HEIGHT}
      role="img"
      aria-label={label}
    >
      {days.map((day, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: they are days in order
        <g key={i}>
          <rect className="spark-none" x={i * STEP} y={HEIGHT - 1} width={BAR} height={1} />
          <rect
            className="spark-all"
            x={i * STEP}
            y={HEIGHT - high(day.all)}
            width={BAR}
            height={high(day.all)}
          />
          <rect
            className="spark-failed"
            x={i * STEP}
            y={HEIGHT - high(day.failed)}
            width={BAR}
            height={high(day.failed)}
          />
        </g>
      ))}
    </svg>
  );
}
