import { memo, useMemo } from "react";
import type { LogLevel } from "../api/types";
import { count, minuteTime } from "../lib/format";
import { rangeLabel } from "../lib/range";
import { rangeOf } from "../lib/search";
import { usePlace } from "../routes/script";
import { ChartCard } from "./chart/ChartCard";
import { chartData, filled } from "./chart/data";
import { useDeploymentMarkers, useSeries, useZoom } from "./RunsCharts";
import { Failure } from "./States";
import { Tiles } from "./Tiles";

const LEVELS: [LogLevel, string][] = [
  ["Stdout", "--chart-plain"],
  ["Debug", "--chart-debug"],
  ["Info", "--chart-1"],
  ["Warning", "--chart-busy"],
  ["Stderr", "--chart-stderr"],
  ["Error", "--chart-bad"],
];

/**
 * All lines of the range by level; a filter does not change it, and it says so. Drawn anew only when the place changes, not with
 * each line that comes in.
 */
export const LogsChart = memo(function LogsChart() {
  const { search } = usePlace();
  const series = useSeries(false);
  const zoom = useZoom();
  const markers = useDeploymentMarkers();
  const { data, step, zone } = series;
  const chart = useMemo(
    () =>
      data &&
      chartData(
        "bars",
        filled(
          data.buckets.filter((one) => Object.keys(one.logs).length > 0),
          step,
        ),
        LEVELS.map(([label, colour]) => ({ label, colour, show: count, of: (one) => one.logs[label] })),
      ),
    [data, step],
  );
  if (series.isError && !data) return <Failure error={series.error} onRetry={() => void series.refetch()} />;
  const of = (level: LogLevel) => (data?.buckets ?? []).reduce((sum, one) => sum + (one.logs[level] ?? 0), 0);
  const total = LEVELS.reduce((sum, [level]) => sum + of(level), 0);
  const window = rangeLabel(rangeOf(search), (time) => minuteTime(time, zone));
  return (
    <div className="log-figures">
      <Tiles
        label={`Log lines, ${window}`}
        pending={series.isPending}
        tiles={[
          { name: "Total Logs", value: count(total), note: window },
          { name: "Errors", value: count(of("Error") + of("Stderr")), note: "Error and Stderr" },
          { name: "Warnings", value: count(of("Warning")), note: "Warning" },
        ]}
      />
      <ChartCard
        title="Lines by level"
        note={step === "Hour" ? "by hour · all lines of the range" : "by day · all lines of the range"}
        data={chart ?? null}
        zone={zone}
        step={step}
        markers={markers}
        onZoom={zoom}
      />
    </div>
  );
});
