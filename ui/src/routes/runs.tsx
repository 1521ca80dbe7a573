import { useQuery } from "@tanstack/react-query";
import { Outlet, useParams } from "@tanstack/react-router";
import { createColumnHelper } from "@tanstack/react-table";
import { createContext, memo, useCallback, useContext, useMemo } from "react";
import { Button, ToggleButton } from "react-aria-components";
import { figuresQuery, type Slowest } from "../api/queries";
import type { Figures, Run, ScriptDetail, ScriptName } from "../api/types";
import { StatusBadge } from "../components/Badge";
import { Copy } from "../components/Copy";
import { DataTable } from "../components/DataTable";
import { ExportMenu } from "../components/ExportMenu";
import { FilterBar } from "../components/FilterBar";
import { FilterCell } from "../components/FilterCell";
import { Icon } from "../components/Icon";
import { RunLink } from "../components/RunLink";
import { RunsCharts } from "../components/RunsCharts";
import { Empty, Failure, SkeletonRows, Stale } from "../components/States";
import { Tiles } from "../components/Tiles";
import { Time, useZone } from "../components/Time";
import { type Filter, withCondition } from "../lib/filters";
import { count, duration, minuteTime, percent } from "../lib/format";
import { useKeys } from "../lib/keys";
import { rangeLabel } from "../lib/range";
import { filterOf, rangeOf, type ViewSearch, withFilter, withSort, withText } from "../lib/search";
import { tookMicros } from "../lib/slowest";
import { usePlace } from "./script";
import { useRuns } from "./useRuns";

const column = createColumnHelper<Run>();
const idOf = (run: Run) => run.runId;
type OnFilter = (column: string, value: string) => void;

function columns(script: ScriptName, search: ViewSearch, onFilter: OnFilter) {
  const value = (name: string, text: string) => <FilterCell column={name} value={text} onFilter={onFilter} />;
  return [
    column.accessor("runId", {
      header: "Run ID",
      meta: { className: "cell-main cell-id" },
      cell: ({ getValue }) => (
        <>
          <RunLink script={script} runId={getValue()} search={search}>
            {getValue()}
          </RunLink>
          <Copy text={getValue()} label="Copy the run id" />
        </>
      ),
    }),
    column.accessor("status", {
      header: "Status",
      cell: ({ row: { original: run } }) => (
        <FilterCell column="Status" value={run.status} onFilter={onFilter}>
          <StatusBadge status={run.status} />
        </FilterCell>
      ),
    }),
    column.accessor("deploymentVersion", {
      header: "Deployment Version",
      meta: { className: "cell-num" },
      cell: ({ getValue }) => value("Deployment Version", String(getValue())),
    }),
    column.accessor("responseTimeMicros", {
      header: "Response Time",
      meta: { className: "cell-num" },
      cell: ({ row: { original: run } }) =>
        run.responseTimeMicros === null ? (
          <Ended run={run} />
        ) : (
          <span title={`${run.responseTimeMicros / 1000} ms`}>{duration(run.responseTimeMicros)}</span>
        ),
    }),
    column.accessor("function", {
      header: "Function",
      cell: ({ getValue }) => value("Function", getValue()),
    }),
    column.accessor("executedOn", {
      header: "Executed On",
      meta: { className: "cell-time" },
      cell: ({ getValue }) => <Time at={getValue()} />,
    }),
    column.accessor("sourceType", {
      header: "Source Type",
      cell: ({ getValue }) => value("Source Type", getValue()),
    }),
    column.accessor("source", {
      header: "Source",
      meta: { className: "cell-cut" },
      cell: ({ getValue }) => value("Source", getValue()),
    }),
  ];
}

/** Why a run failed, and after how long. */
function Ended({ run }: { run: Run }) {
  const took = tookMicros(run);
  return (
    <span className="soft">
      {run.reason ?? ""}
      {run.reason && took !== null && ", "}
      {took !== null && duration(took)}
    </span>
  );
}

const RunsContext = createContext<ReturnType<typeof useRuns> | null>(null);

/** The list that a record was opened from. */
export function useRunList() {
  const runs = useContext(RunsContext);
  if (!runs) throw new Error("this is part of the list of runs");
  return runs;
}

export function RunsTab() {
  const { script, search, setSearch, detail } = usePlace();
  const { runId } = useParams({ strict: false });
  const runs = useRuns();
  const filter = filterOf(search, "runs");
  const change = useCallback(
    (next: (filter: Filter) => Filter) => setSearch((now) => withFilter(now, next(filterOf(now, "runs")))),
    [setSearch],
  );
  const definitions = useMemo(
    () =>
      columns(script, search, (name, value) =>
        change((now) => withCondition(now, { column: name, operator: "Equals", values: [value] })),
      ),
    [script, search, change],
  );
  const chosenIndex = runId ? runs.rows.findIndex((run) => run.runId === runId) : -1;
  const { more } = runs;
  // Before the first run, how to get one is what there is to see.
  const isUnused = detail?.figures.totalRuns === 0 && runs.isSuccess && runs.rows.length === 0;
  const bySlowness = search.sort === "slowest";
  const sortBySlowness = (yes: boolean) => setSearch((now) => withSort(now, yes ? "slowest" : undefined));
  useKeys({ s: () => sortBySlowness(!bySlowness) });
  return (
    <RunsContext.Provider value={runs}>
      <div className={runId ? "with-record" : undefined}>
        <RunTiles params={runs.params} />
        {!isUnused && <RunsCharts />}
        {!isUnused && (
          <div className="table-tools">
            <FilterBar
              table="runs"
              filter={filter}
              search={search.q ?? ""}
              onFilter={(next) => change(() => next)}
              onSearch={(q) => setSearch((now) => withText(now, q), true)}
            />
            <span className="soft num table-count" role="status">
              {runs.total ? `${count(runs.total.count)}${runs.total.more ? "+" : ""} runs` : "\u00a0"}
            </span>
            <ToggleButton className="button" isSelected={bySlowness} onChange={sortBySlowness}>
              <Icon name="clock" />
              Slowest first
            </ToggleButton>
            <ExportMenu table="runs" params={runs.params} />
          </div>
        )}
        {!runs.complete && (
          <Button className="button fresh" onPress={() => void runs.refetch()}>
            Many new runs: show them
          </Button>
        )}
        {runs.isError && runs.rows.length > 0 && <Stale error={runs.error} />}
        {runs.isPending ? (
          <SkeletonRows label="Loading the runs" />
        ) : runs.isError && runs.rows.length === 0 ? (
          <Failure error={runs.error} onRetry={() => void runs.refetch()} />
        ) : runs.rows.length ? (
          <>
            <DataTable
              rows={runs.rows}
              columns={definitions}
              idOf={idOf}
              label="Runs"
              layout="grid-runs"
              rowHeight={41}
              chosenIndex={chosenIndex}
              isChosen={(run) => run.runId === runId}
              onEnd={more}
            />
            <End
              pending={runs.isFetchingNextPage}
              hasMore={runs.hasNextPage}
              rows={runs.rows.length}
              what="runs"
              {...(runs.slowest && { slowest: runs.slowest })}
            />
          </>
        ) : (
          <NoRuns narrowed={filter.conditions.length > 0 || Boolean(search.q)} detail={detail} />
        )}
      </div>
      <Outlet />
    </RunsContext.Provider>
  );
}

interface EndProps {
  pending: boolean;
  hasMore: boolean;
  rows: number;
  what: string;
  slowest?: Slowest;
}

export function End(props: EndProps) {
  const { slowest } = props;
  const text = slowest
    ? `The ${count(props.rows)} slowest of ${slowest.more ? "the newest " : ""}${count(slowest.read)} runs of this range`
    : props.pending
      ? "Loading more…"
      : props.hasMore
        ? ""
        : `${count(props.rows)} ${props.what}, all of this range`;
  return <p className="soft list-end">{text || "\u00a0"}</p>;
}

function NoRuns({ narrowed, detail }: { narrowed: boolean; detail: ScriptDetail | undefined }) {
  const { search } = usePlace();
  const zone = useZone();
  if (detail && detail.figures.totalRuns === 0) {
    return (
      <Empty title="No run yet">
        <p>Call a function of the script; the run appears here within seconds.</p>
        {detail.endpoint ? (
          <pre className="example">{`curl -H 'content-type: application/json' -d '{}' ${detail.endpoint}/FUNCTION`}</pre>
        ) : (
          <pre className="example">{`kubectl scriptscope invoke ${detail.name} FUNCTION -n ${detail.namespace}`}</pre>
        )}
      </Empty>
    );
  }
  const label = rangeLabel(rangeOf(search), (time) => minuteTime(time, zone));
  return (
    <Empty title="No runs here">
      <p>
        None in the range “{label}”{narrowed && " that passes the filters"}. Choose a longer range
        {narrowed && " or clear the filters"}.
      </p>
    </Empty>
  );
}

const RunTiles = memo(function RunTiles({ params }: { params: Record<string, string> }) {
  const { script, search, setSearch } = usePlace();
  const zone = useZone();
  const only = (status: string) => ({
    label: `show only the runs that are ${status}`,
    onPress: () =>
      setSearch((now) =>
        withFilter(
          now,
          withCondition(filterOf(now, "runs"), { column: "Status", operator: "Equals", values: [status] }),
        ),
      ),
  });
  const figures = useQuery(figuresQuery(script, params));
  const window = rangeLabel(rangeOf(search), (time) => minuteTime(time, zone));
  if (figures.isError && !figures.data) {
    return <Failure error={figures.error} onRetry={() => void figures.refetch()} />;
  }
  const f: Partial<Figures> = figures.data?.figures ?? {};
  const ended = (f.succeededRuns ?? 0) + (f.failedRuns ?? 0);
  return (
    <Tiles
      label={`Figures, ${window}`}
      pending={figures.isPending}
      tiles={[
        { name: "Total Runs", value: count(f.totalRuns), note: window },
        {
          name: "Response Time P90",
          value: duration(f.p90Microseconds),
          note: "successful runs",
          tip: "90 % of the successful runs took at most this long",
        },
        {
          name: "Response Time P99",
          value: duration(f.p99Microseconds),
          note: "successful runs",
          tip: "99 % of the successful runs took at most this long",
        },
        {
          name: "Failure Rate",
          value: percent(f.failureRateBasisPoints),
          note: `${count(f.failedRuns)} of ${count(ended)} ended`,
          tip: "Failed runs of all that ended",
          ...(f.failedRuns && { act: only("Failed") }),
        },
        {
          name: "In Progress",
          value: count(f.inProgressRuns),
          note: "begun, not ended",
          ...(f.inProgressRuns && { act: only("In Progress") }),
        },
      ]}
    />
  );
});
