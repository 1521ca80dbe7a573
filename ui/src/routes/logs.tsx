import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useState } from "react";
import { Button, ToggleButton } from "react-aria-components";
import { logCountQuery, logsQuery } from "../api/queries";
import type { LogLine } from "../api/types";
import { DataTable } from "../components/DataTable";
import { ExportMenu } from "../components/ExportMenu";
import { FilterBar } from "../components/FilterBar";
import { Icon } from "../components/Icon";
import { LogsChart } from "../components/LogsChart";
import { Empty, Failure, SkeletonRows, Stale } from "../components/States";
import { useZone } from "../components/Time";
import { type Filter, filterParams, withCondition } from "../lib/filters";
import { count, minuteTime } from "../lib/format";
import { gapText, type LogRow, withGaps } from "../lib/gaps";
import { isPast, rangeLabel } from "../lib/range";
import { filterOf, logParams, rangeOf, type ViewSearch, withFilter, withText, zoneOf } from "../lib/search";
import { logColumns } from "./logColumns";
import { End } from "./runs";
import { usePlace } from "./script";
import { type Live, useLive } from "./useLive";

/** How far down the page new lines still come in by themselves, in pixels. */
const NEAR_TOP = 400;

function useScrolledAway(): boolean {
  const [away, setAway] = useState(false);
  useEffect(() => {
    const look = () => {
      const table = document.querySelector(".grid-logs");
      const top = table?.getBoundingClientRect().top ?? 0;
      setAway(top < -NEAR_TOP);
    };
    window.addEventListener("scroll", look, { passive: true });
    return () => window.removeEventListener("scroll", look);
  }, []);
  return away;
}

/** What is new, then what was read; each line once. */
function joined(live: LogLine[], read: LogLine[]): LogLine[] {
  if (live.length === 0) return read;
  const known = new Set(live.map((line) => line.logId));
  return [...live, ...read.filter((line) => !known.has(line.logId))];
}

export function LogsTab() {
  const { script, search, setSearch } = usePlace();
  const zone = zoneOf(search);
  const range = rangeOf(search);
  const filter = useMemo(() => filterOf(search, "logs"), [search]);
  const now = new Date();
  const past = isPast(range, zone, now);
  const asked = JSON.stringify(logParams(search, now));
  const byFilter = JSON.stringify(filterParams("logs", filter, search.q ?? ""));
  const params = useMemo(() => JSON.parse(asked) as Record<string, string>, [asked]);
  const streamed = useMemo(() => JSON.parse(byFilter) as Record<string, string>, [byFilter]);
  const logs = useInfiniteQuery(logsQuery(script, params));
  const total = useQuery(logCountQuery(script, params));
  const [paused, setPaused] = useState(false);
  const away = useScrolledAway();
  const on = search.live === "on" && !past;
  const refetch = logs.refetch;
  const live = useLive(script, streamed, on, paused || away, () => void refetch());
  const [wrap, setWrap] = useState(true);
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set());

  const read = useMemo(() => logs.data?.pages.flatMap((page) => page.items) ?? [], [logs.data]);
  const rows = useMemo(() => {
    const gaps = logs.data?.pages.flatMap((page) => page.gaps ?? []) ?? [];
    const once = new Map(gaps.map((gap) => [`${gap.pod} ${gap.restart} ${gap.offset}`, gap]));
    return withGaps(joined(live.lines, read), [...once.values()]);
  }, [live.lines, read, logs.data]);
  const change = useCallback(
    (next: (filter: Filter) => Filter) => setSearch((now) => withFilter(now, next(filterOf(now, "logs")))),
    [setSearch],
  );
  const toggle = useCallback(
    (id: string) =>
      setOpen((now) => {
        const next = new Set(now);
        if (!next.delete(id)) next.add(id);
        return next;
      }),
    [],
  );
  const columns = useMemo(
    () =>
      logColumns({
        search: search.q ?? "",
        script,
        open,
        toggle,
        onFilter: (column, value) =>
          change((now) => withCondition(now, { column, operator: "Equals", values: [value] })),
      }),
    [search.q, script, open, toggle, change],
  );
  const { fetchNextPage, hasNextPage, isFetchingNextPage, isFetchNextPageError } = logs;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage && !isFetchNextPageError) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage]);
  // What does not change while lines come in is not drawn anew with them.
  const filters = useMemo(
    () => (
      <FilterBar
        table="logs"
        filter={filter}
        search={search.q ?? ""}
        onFilter={(next) => change(() => next)}
        onSearch={(q) => setSearch((now) => withText(now, q), true)}
      />
    ),
    [filter, search.q, change, setSearch],
  );
  const exports = useMemo(() => <ExportMenu table="logs" params={params} />, [params]);
  const found = total.data?.total;
  return (
    <>
      <LogsChart />
      <div className="table-tools">
        {filters}
        <span className="soft num table-count" role="status">
          {found ? `${count(found.count)}${found.more ? "+" : ""} lines` : "\u00a0"}
        </span>
        <LiveControls live={live} past={past} paused={paused} onPause={setPaused} />
        <ToggleButton className="button" isSelected={wrap} onChange={setWrap} aria-label="Wrap long lines">
          <Icon name="wrap" />
        </ToggleButton>
        {exports}
      </div>
      {live.waiting > 0 && (
        <Button
          className="button button-main fresh"
          onPress={() => {
            setPaused(false);
            window.scrollTo({ top: 0 });
          }}
        >
          {count(live.waiting)} new lines
        </Button>
      )}
      {live.error && <Stale error={live.error} />}
      {live.dropped && (
        <p className="stale">
          More came than this page keeps: between the new lines and those below, some are in the store only.
        </p>
      )}
      {logs.isError && rows.length > 0 && <Stale error={logs.error} />}
      {logs.isPending ? (
        <SkeletonRows label="Loading the log lines" />
      ) : logs.isError && rows.length === 0 ? (
        <Failure error={logs.error} onRetry={() => void logs.refetch()} />
      ) : rows.length ? (
        <>
          <DataTable
            rows={rows}
            columns={columns}
            idOf={idOf}
            label="Log lines"
            layout={`grid-logs ${wrap ? "wrap" : "no-wrap"}`}
            rowHeight={31}
            rowClass={rowClass}
            whole={(row) => (row.kind === "gap" ? <GapRow row={row} /> : null)}
            onEnd={more}
          />
          <End pending={isFetchingNextPage} hasMore={hasNextPage} rows={rows.length} what="lines" />
        </>
      ) : (
        <NoLines narrowed={filter.conditions.length > 0 || Boolean(search.q)} />
      )}
    </>
  );
}

const idOf = (row: LogRow<LogLine>) =>
  row.kind === "line" ? row.line.logId : `gap ${row.gap.pod} ${row.gap.restart} ${row.gap.offset}`;

function rowClass(row: LogRow<LogLine>): string {
  if (row.kind === "gap") return "gap";
  const { level } = row.line;
  return level === "Error" || level === "Stderr" ? "row-bad" : level === "Warning" ? "row-warn" : "";
}

function GapRow({ row }: { row: LogRow<LogLine> & { kind: "gap" } }) {
  const zone = useZone();
  return (
    <span className="gap-text">
      <Icon name="warning" />
      {gapText(row.gap)}, about {minuteTime(row.gap.time, zone)}
    </span>
  );
}

interface LiveProps {
  live: Live;
  past: boolean;
  paused: boolean;
  onPause: (paused: boolean) => void;
}

const LIVE_NAMES = { off: "Live", connecting: "Connecting…", live: "Live", broken: "Reconnecting…" };

function LiveControls({ live, past, paused, onPause }: LiveProps) {
  const { search, setSearch } = usePlace();
  const on = search.live === "on" && !past;
  return (
    <>
      <ToggleButton
        className={`button live live-${live.state}`}
        isSelected={on}
        isDisabled={past}
        onChange={(next) =>
          setSearch((now) => {
            const { live: _, ...rest } = now;
            return (next ? { ...rest, live: "on" } : rest) as ViewSearch;
          }, true)
        }
      >
        <span className="live-dot" aria-hidden="true" />
        {LIVE_NAMES[live.state]}
      </ToggleButton>
      {on && (
        <ToggleButton className="button" isSelected={paused} onChange={onPause}>
          <Icon name={paused ? "play" : "pause"} />
          {paused ? "Resume" : "Pause"}
        </ToggleButton>
      )}
    </>
  );
}

function NoLines({ narrowed }: { narrowed: boolean }) {
  const { search, detail } = usePlace();
  const zone = useZone();
  if (detail && detail.figures.totalLogs === 0) {
    return (
      <Empty title="No log line yet">
        <p>What the script prints appears here when its run ends, korelogger's lines at once.</p>
        <pre className="example">{"import korelogger\nkorelogger.info('hello')"}</pre>
      </Empty>
    );
  }
  return (
    <Empty title="No log lines here">
      <p>
        None in the range “{rangeLabel(rangeOf(search), (time) => minuteTime(time, zone))}”
        {narrowed && " that passes the filters"}. Choose a longer range{narrowed && " or clear the filters"}.
      </p>
    </Empty>
  );
}
