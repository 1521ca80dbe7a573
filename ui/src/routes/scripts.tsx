import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { createColumnHelper } from "@tanstack/react-table";
import { useEffect, useMemo } from "react";
import { scriptsQuery } from "../api/queries";
import type { ScriptSummary } from "../api/types";
import { StatusBadge } from "../components/Badge";
import { Choice } from "../components/Choice";
import { DataTable } from "../components/DataTable";
import { SearchBox } from "../components/SearchBox";
import { Sparkline } from "../components/Sparkline";
import { Empty, Failure, SkeletonRows, Stale } from "../components/States";
import { ago, count, duration, NONE, percent } from "../lib/format";

const column = createColumnHelper<ScriptSummary>();

const COLUMNS = [
  column.accessor("name", {
    header: "Script",
    meta: { className: "cell-main" },
    cell: ({ row: { original: script } }) => (
      <Link
        to="/scripts/$namespace/$name/runs"
        params={{ namespace: script.namespace, name: script.name }}
        className="strong"
      >
        {script.name}
      </Link>
    ),
  }),
  column.accessor("namespace", { header: "Namespace", meta: { className: "soft cell-namespace" } }),
  column.accessor("phase", {
    header: "Phase",
    cell: ({ row: { original: script } }) => (
      <StatusBadge status={script.exists ? (script.phase ?? "Draft") : "Deleted"} />
    ),
  }),
  column.display({
    id: "days",
    header: "7 Days",
    meta: { className: "cell-spark" },
    cell: ({ row: { original: script } }) => <Sparkline script={script} />,
  }),
  column.accessor("version", {
    header: "Version",
    meta: { className: "cell-num", label: "Version" },
    cell: ({ getValue }) => getValue() ?? NONE,
  }),
  column.accessor((script) => script.figures.totalRuns, {
    id: "runs",
    header: "Runs",
    meta: { className: "cell-num", label: "Runs" },
    cell: ({ getValue }) => count(getValue()),
  }),
  column.accessor((script) => script.figures.inProgressRuns, {
    id: "progress",
    header: "In Progress",
    meta: { className: "cell-num", label: "In Progress" },
    cell: ({ getValue }) => count(getValue()),
  }),
  column.accessor((script) => script.figures.failureRateBasisPoints, {
    id: "failures",
    header: "Failure Rate",
    meta: { className: "cell-num", label: "Failure Rate" },
    cell: ({ getValue }) => percent(getValue()),
  }),
  column.accessor((script) => script.figures.p90Microseconds, {
    id: "p90",
    header: "P90",
    meta: { className: "cell-num", label: "P90" },
    cell: ({ getValue }) => duration(getValue()),
  }),
  column.accessor((script) => script.figures.p99Microseconds, {
    id: "p99",
    header: "P99",
    meta: { className: "cell-num", label: "P99" },
    cell: ({ getValue }) => duration(getValue()),
  }),
  column.accessor((script) => script.figures.lastRunTime, {
    id: "last",
    header: "Last Run",
    meta: { className: "cell-num", label: "Last Run" },
    cell: ({ getValue }) => {
      const time = getValue();
      return time ? (
        <time dateTime={time} title={time}>
          {ago(time, new Date())}
        </time>
      ) : (
        NONE
      );
    },
  }),
];

const idOf = (script: ScriptSummary) => `${script.namespace}/${script.name}`;

export function ScriptsList() {
  const { q = "", namespace } = useSearch({ from: "/scripts" });
  const navigate = useNavigate({ from: "/scripts" });
  // All of them, so that the namespaces to choose from are known.
  const all = useQuery(scriptsQuery(undefined));
  const scripts = all.data;
  useEffect(() => {
    document.title = "ScriptScope";
  }, []);
  const namespaces = useMemo(() => [...new Set((scripts ?? []).map((s) => s.namespace))].sort(), [scripts]);
  const shown = useMemo(() => {
    const wanted = q.toLowerCase();
    return (scripts ?? []).filter(
      (script) =>
        (!namespace || script.namespace === namespace) &&
        `${script.namespace}/${script.name}`.toLowerCase().includes(wanted),
    );
  }, [scripts, namespace, q]);
  const set = (search: { q?: string; namespace?: string }) =>
    void navigate({ search: { ...(q && { q }), ...(namespace && { namespace }), ...search }, replace: true });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Scripts</h1>
        <p className="soft">
          {scripts ? `${count(shown.length)} of ${count(scripts.length)}` : "\u00a0"} · figures over their
          whole life
        </p>
        <div className="page-tools">
          <SearchBox label="Search scripts" value={q} onChange={(text) => set({ q: text })} />
          <Choice
            label="Namespace"
            value={namespace ?? ""}
            options={[["", "All namespaces"], ...namespaces.map((name): [string, string] => [name, name])]}
            onChange={(name) => set({ namespace: name })}
          />
        </div>
      </div>
      {all.isError && scripts && <Stale error={all.error} />}
      {all.isPending ? (
        <SkeletonRows label="Loading the scripts" />
      ) : all.isError && !scripts ? (
        <Failure error={all.error} onRetry={() => void all.refetch()} />
      ) : shown.length ? (
        <DataTable
          rows={shown}
          columns={COLUMNS}
          idOf={idOf}
          label="Scripts"
          layout="grid-scripts"
          rowHeight={45}
        />
      ) : scripts?.length ? (
        <Empty title="No script matches">
          <p>Search for another name, or look in all namespaces.</p>
        </Empty>
      ) : (
        <Empty title="No scripts that you may see">
          <p>
            Create a <code>CustomScript</code> and it appears here. If there are some, ask for the right to{" "}
            <code>get</code> <code>customscripts/runs</code> in their namespace.
          </p>
          <pre className="example">kubectl apply -f examples/balance/customscript.yaml</pre>
        </Empty>
      )}
    </div>
  );
}
