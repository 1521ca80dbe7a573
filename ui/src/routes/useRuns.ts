import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useCallback, useMemo } from "react";
import { newestRunsQuery, runsByIdQuery, runsQuery, slowestRunsQuery } from "../api/queries";
import type { Run } from "../api/types";
import { joinNewest } from "../lib/newest";
import { isPast } from "../lib/range";
import { rangeOf, runParams, zoneOf } from "../lib/search";
import { usePlace } from "./script";

const NONE: Run[] = [];
/** Ids that one request asks for. */
const AT_ONCE = 50;

/** What the API is asked for about the runs of the page's range and filter. */
export function useRunParams(): Record<string, string> {
  const { search } = usePlace();
  const asked = JSON.stringify(runParams(search, new Date()));
  return useMemo(() => JSON.parse(asked) as Record<string, string>, [asked]);
}

/** The runs of the page's range and filter: those read so far, with what is new since. */
export function useRuns() {
  const { script, search } = usePlace();
  const zone = zoneOf(search);
  const range = rangeOf(search);
  const now = new Date();
  const params = useRunParams();
  const bySlowness = search.sort === "slowest";
  const past = isPast(range, zone, now);
  const slow = useQuery({ ...slowestRunsQuery(script, params, past), enabled: bySlowness });
  const pages = useInfiniteQuery({ ...runsQuery(script, params), enabled: !bySlowness });
  const newest = useQuery({
    ...newestRunsQuery(script, params, past),
    enabled: pages.isSuccess || slow.isSuccess,
  });
  const loaded = useMemo(() => pages.data?.pages.flatMap((page) => page.items) ?? [], [pages.data]);
  const joined = useMemo(
    () =>
      newest.data
        ? joinNewest(newest.data.items, loaded, (run) => run.runId, newest.data.next === null)
        : { rows: loaded, fresh: 0, complete: true },
    [newest.data, loaded],
  );
  // Those that had not ended when they were read, further down.
  const open = useMemo(() => {
    const seen = new Set(newest.data?.items.map((run) => run.runId));
    return joined.rows
      .filter((run) => run.status === "In Progress" && !seen.has(run.runId))
      .slice(0, AT_ONCE)
      .map((run) => run.runId);
  }, [joined.rows, newest.data]);
  const ended = useQuery(runsByIdQuery(script, open));
  const rows = useMemo(() => {
    if (!ended.data || open.length === 0) return joined.rows;
    const latest = new Map(ended.data.items.map((run): [string, Run] => [run.runId, run]));
    return joined.rows.map((run) => (run.status === "In Progress" ? (latest.get(run.runId) ?? run) : run));
  }, [joined.rows, ended.data, open.length]);
  const { fetchNextPage, hasNextPage, isFetchingNextPage, isFetchNextPageError } = pages;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage && !isFetchNextPageError) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage]);
  const { isPending, isError, isSuccess, error, refetch } = bySlowness ? slow : pages;
  return {
    isPending,
    isError,
    isSuccess,
    error,
    refetch,
    rows: bySlowness ? (slow.data?.rows ?? NONE) : rows,
    more,
    hasNextPage: !bySlowness && hasNextPage,
    isFetchingNextPage,
    total: newest.data?.total,
    complete: bySlowness || joined.complete,
    params,
    /** Of what the rows are the slowest; none where the newest come first. */
    slowest: bySlowness ? slow.data : undefined,
  };
}
