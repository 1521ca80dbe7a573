import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { useCallback, useEffect, useLayoutEffect, useRef } from "react";
import { Button } from "react-aria-components";
import { neighboursQuery, runLogsQuery, runQuery } from "../api/queries";
import type { RunDetail } from "../api/types";
import { StatusBadge } from "../components/Badge";
import { Copy } from "../components/Copy";
import { Icon } from "../components/Icon";
import { RunBody } from "../components/RunBody";
import { Failure, SkeletonRows, Stale } from "../components/States";
import { filterParams } from "../lib/filters";
import { useKeys } from "../lib/keys";
import { bounds } from "../lib/range";
import { filterOf, rangeOf, type ViewSearch, zoneOf } from "../lib/search";
import { useRunList } from "./runs";
import { usePlace } from "./script";

/** What else the URL says stays. */
const keep = (search: Record<string, unknown>) => search as ViewSearch as never;

/** The runs next to one, of the page's range and filter. */
function useNeighbours(run: RunDetail | undefined, asked: boolean) {
  const { script, search } = usePlace();
  const { from, to } = bounds(rangeOf(search), zoneOf(search), new Date());
  const filter = filterParams("runs", filterOf(search, "runs"), search.q ?? "");
  return useQuery({
    ...neighboursQuery(script, filter, [from, to], run),
    enabled: asked && run !== undefined,
  }).data;
}

/** One run, beside the list that it was opened from. */
export function RecordRoute() {
  const { script } = usePlace();
  const { runId = "" } = useParams({ strict: false });
  const { rows, more, isSuccess } = useRunList();
  const navigate = useNavigate();
  const client = useQueryClient();
  const heading = useRef<HTMLHeadingElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const run = useQuery(runQuery(script, runId));
  const index = rows.findIndex((one) => one.runId === runId);
  // Opened by a link, or at the end of what is loaded: its neighbours are asked for.
  const beside = useNeighbours(run.data, isSuccess && (index < 0 || index === rows.length - 1));
  const previous = index < 0 ? beside?.newer : rows[index - 1]?.runId;
  const next = rows[index + 1 || rows.length]?.runId ?? beside?.older;
  const show = (id: string | undefined) => {
    if (!id) return;
    void navigate({
      to: "/scripts/$namespace/$name/runs/$runId",
      params: { ...script, runId: id },
      search: keep,
      replace: true,
      resetScroll: false,
    });
  };
  const close = useCallback(() => {
    void navigate({ to: "/scripts/$namespace/$name/runs", params: script, search: keep, resetScroll: false });
  }, [navigate, script]);
  const [older, newer] = [() => show(next), () => show(previous)];
  useKeys({
    j: older,
    ArrowDown: older,
    ArrowRight: older,
    k: newer,
    ArrowUp: newer,
    ArrowLeft: newer,
    Escape: close,
  });
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: each record begins at its top
  useLayoutEffect(() => {
    body.current?.scrollTo(0, 0);
  }, [runId]);
  useEffect(() => {
    // The neighbours are there before they are asked for.
    for (const id of [next, previous]) {
      if (!id) continue;
      void client.prefetchQuery(runQuery(script, id));
      void client.prefetchInfiniteQuery(runLogsQuery(script, id, false));
    }
    if (index >= 0 && index > rows.length - 10) more();
  }, [next, previous, client, script, index, rows.length, more]);
  return (
    <aside className="record" aria-label={`Run ${runId}`}>
      <div className="record-head">
        <h2 ref={heading} tabIndex={-1}>
          <span className="soft">Run</span> <span className="mono">{runId}</span>
        </h2>
        <Copy text={runId} label="Copy the run id" />
        {run.data && <StatusBadge status={run.data.status} />}
        <span className="grow" />
        <Button
          className="button-quiet"
          aria-label="Previous, newer run"
          isDisabled={!previous}
          onPress={newer}
        >
          <Icon name="up" />
          <kbd>K</kbd>
        </Button>
        <Button className="button-quiet" aria-label="Next, older run" isDisabled={!next} onPress={older}>
          <Icon name="chevron" />
          <kbd>J</kbd>
        </Button>
        <Button className="button-quiet" aria-label="Close the record" onPress={close}>
          <Icon name="cross" />
        </Button>
      </div>
      <div className="record-body" ref={body}>
        {run.isError && run.data && <Stale error={run.error} />}
        {run.data ? (
          <RunBody run={run.data} />
        ) : run.isError ? (
          <Failure error={run.error} onRetry={() => void run.refetch()} />
        ) : (
          <SkeletonRows label="Loading the run" rows={8} />
        )}
      </div>
    </aside>
  );
}
