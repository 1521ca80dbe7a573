import { useQuery } from "@tanstack/react-query";
import { memo, useMemo } from "react";
import { seriesQuery } from "../api/queries";
import { count, duration } from "../lib/format";
import { stepOf } from "../lib/range";
import { rangeOf, seriesParams, withRange, zoneOf } from "../lib/search";
import { usePlace } from "../routes/script";
import { ChartCard } from "./chart/ChartCard";
import { chartData, filled } from "./chart/data";
import { Failure } from "./States";

/** Figures over time in the page's range; hours within a day, days otherwise. */
export function useSeries(withFilter: boolean) {
  const { script, search } = usePlace();
  const now = new Date();
  const [zone, step] = [zoneOf(search), stepOf(rangeOf(search), zoneOf(search), now)];
  return { ...useQuery(seriesQuery(script, seriesParams(search, now, withFilter))), step, zone };
}

export function useZoom() {
  const { setSearch } = usePlace();
  return (from: Date, to: Date) => {
    // Whole minutes, and at least one.
    const start = Math.floor(from.getTime() / 60_000) * 60_000;
    const end = Math.max(start + 60_000, Math.ceil(to.getTime() / 60_000) * 60_000);
    setSearch((now) => withRange(now, { kind: "custom", from: new Date(start), to: new Date(end) }));
  };
}

export function useDeploymentMarkers() {
  const { detail } = usePlace();
  const deployments = detail?.deployments;
  return useMemo(
    () =>
      (deployments ?? [])
        .map((one) => ({
          time: new Date(one.deployedAt ?? one.startedAt).getTime() / 1000,
          label: `v${one.version}${one.state === "Failed" ? " failed" : ""}`,
        }))
        .reverse(),
    [deployments],
  );
}

/** Drawn anew only when the place changes, not with each record. */
export const RunsCharts = memo(function RunsCharts() {
  const series = useSeries(true);
  const zoom = useZoom();
  const markers = useDeploymentMarkers();
  const { data, step, zone } = series;
  const charts = useMemo(() => {
    if (!data) return null;
    const buckets = filled(data.buckets, step);
    return {
      status: chartData("bars", buckets, [
        { label: "Success", colour: "--chart-good", show: count, of: (one) => one.succeededRuns },
        { label: "Failed", colour: "--chart-bad", show: count, of: (one) => one.failedRuns },
        { label: "In Progress", colour: "--chart-busy", show: count, of: (one) => one.inProgressRuns },
      ]),
      times: chartData("lines", buckets, [
        { label: "P50", colour: "--chart-1", show: duration, of: (one) => one.p50Microseconds },
        { label: "P90", colour: "--chart-2", dash: [7, 4], show: duration, of: (one) => one.p90Microseconds },
        { label: "P99", colour: "--chart-3", dash: [2, 3], show: duration, of: (one) => one.p99Microseconds },
      ]),
    };
  }, [data, step]);
  if (series.isError && !data) return <Failure error={series.error} onRetry={() => void series.refetch()} />;
  const note = step === "Hour" ? "by hour · drag to zoom" : "by day · drag to zoom";
  const common = { zone, step, markers, onZoom: zoom };
  return (
    <div className="charts">
      <ChartCard title="Runs by status" note={note} data={charts?.status ?? null} {...common} />
      <ChartCard title="Response time" note={note} data={charts?.times ?? null} {...common} />
    </div>
  );
});
