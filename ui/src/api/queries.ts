import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { payloadText } from "../lib/json";
import { neighbours } from "../lib/neighbours";
import { slowest } from "../lib/slowest";
import { ask, get, type Params, queryString, scriptPath } from "./client";
import type {
  DeploymentDetail,
  DeploymentItem,
  ErrorGroups,
  Figures,
  LogLine,
  Page,
  Run,
  RunDetail,
  ScriptDetail,
  ScriptName,
  ScriptSummary,
  Series,
} from "./types";

/** How often what is shown is asked for again, milliseconds. */
export const EVERY = 5_000;
/** Rows of a page. */
export const PAGE = 100;
/** Rows kept in one list at most; the range or a filter leads further. */
export const MOST_ROWS = 20_000;

export const scriptsQuery = (namespace: string | undefined) =>
  queryOptions({
    queryKey: ["scripts", namespace ?? ""],
    queryFn: async ({ signal }) => {
      const items: ScriptSummary[] = [];
      let after: string | undefined;
      do {
        const page: { items: ScriptSummary[]; continue: string | null } = await get(
          `/scripts${queryString({ namespace, continue: after })}`,
          signal,
        );
        items.push(...page.items);
        after = page.continue ?? undefined;
      } while (after);
      return items;
    },
    refetchInterval: EVERY,
    placeholderData: keepPreviousData,
  });

export const scriptQuery = (script: ScriptName) =>
  queryOptions({
    queryKey: ["script", script.namespace, script.name],
    queryFn: ({ signal }) => get<ScriptDetail>(scriptPath(script), signal),
    refetchInterval: EVERY,
  });

const under = (script: ScriptName, what: string, params: Params) =>
  ["script", script.namespace, script.name, what, params] as const;

export const figuresQuery = (script: ScriptName, params: Params) =>
  queryOptions({
    queryKey: under(script, "figures", params),
    queryFn: ({ signal }) =>
      get<{ figures: Figures }>(scriptPath(script, `/figures${queryString(params)}`), signal),
    refetchInterval: EVERY,
    placeholderData: keepPreviousData,
  });

export const seriesQuery = (script: ScriptName, params: Params) =>
  queryOptions({
    queryKey: under(script, "series", params),
    queryFn: ({ signal }) => get<Series>(scriptPath(script, `/series${queryString(params)}`), signal),
    refetchInterval: EVERY * 3,
    placeholderData: keepPreviousData,
  });

/** Page after page of rows, newest first. */
const rowsQuery = <T>(script: ScriptName, table: string, params: Params) =>
  infiniteQueryOptions({
    queryKey: under(script, table, params),
    queryFn: ({ signal, pageParam }) => {
      const query = queryString({ ...params, limit: String(PAGE), cursor: pageParam ?? undefined });
      return get<Page<T>>(scriptPath(script, `/${table}${query}`), signal);
    },
    initialPageParam: null as string | null,
    getNextPageParam: (last, all) => (all.length * PAGE < MOST_ROWS ? last.next : null),
    // What is new comes by its own way; pages that were read stay.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 60_000,
  });

export const runsQuery = (script: ScriptName, params: Params) => rowsQuery<Run>(script, "runs", params);
export const logsQuery = (script: ScriptName, params: Params) => rowsQuery<LogLine>(script, "logs", params);

/** The newest rows, again and again. */
export const newestRunsQuery = (script: ScriptName, params: Params, ended: boolean) =>
  queryOptions({
    queryKey: under(script, "newest-runs", params),
    queryFn: ({ signal }) => {
      const query = queryString({ ...params, limit: String(PAGE), count: "true" });
      return get<Page<Run>>(scriptPath(script, `/runs${query}`), signal);
    },
    refetchInterval: ended ? false : EVERY,
    staleTime: 0,
  });

/** Runs that are read to find the slowest: the API has them by time. */
const READ_FOR_SLOWEST = 10_000;
const SLOWEST = 200;

export interface Slowest {
  /** The slowest first. */
  rows: Run[];
  /** Of so many runs, the newest. */
  read: number;
  /** There are older ones, too. */
  more: boolean;
}

/** The slowest runs. */
export const slowestRunsQuery = (script: ScriptName, params: Params, ended: boolean) =>
  queryOptions({
    queryKey: under(script, "slowest-runs", params),
    queryFn: async ({ signal }): Promise<Slowest> => {
      let rows: Run[] = [];
      let [read, next] = [0, null as string | null];
      do {
        const query = queryString({ ...params, limit: "1000", cursor: next ?? undefined });
        const page: Page<Run> = await get(scriptPath(script, `/runs${query}`), signal);
        rows = slowest([...rows, ...page.items], SLOWEST);
        read += page.items.length;
        next = page.next;
      } while (next && read < READ_FOR_SLOWEST);
      return { rows, read, more: next !== null };
    },
    refetchInterval: ended ? false : EVERY * 6,
  });

export const logCountQuery = (script: ScriptName, params: Params) =>
  queryOptions({
    queryKey: under(script, "log-count", params),
    queryFn: ({ signal }) => {
      const query = queryString({ ...params, limit: "1", count: "true" });
      return get<Page<LogLine>>(scriptPath(script, `/logs${query}`), signal);
    },
    refetchInterval: EVERY,
    placeholderData: keepPreviousData,
  });

/** Failed runs by what failed. */
export const errorsQuery = (script: ScriptName, params: Params) =>
  queryOptions({
    queryKey: under(script, "errors", params),
    queryFn: ({ signal }) => get<ErrorGroups>(scriptPath(script, `/errors${queryString(params)}`), signal),
    refetchInterval: EVERY * 3,
    placeholderData: keepPreviousData,
  });

/** Some runs by their ids. */
export const runsByIdQuery = (script: ScriptName, ids: string[]) =>
  queryOptions({
    queryKey: under(script, "runs-by-id", { ids }),
    queryFn: ({ signal }) => {
      const filter = JSON.stringify({
        match: "All",
        conditions: [{ column: "Run ID", operator: "Equals", values: ids }],
      });
      return get<Page<Run>>(scriptPath(script, `/runs${queryString({ preset: "AllTime", filter })}`), signal);
    },
    enabled: ids.length > 0,
    refetchInterval: EVERY,
    placeholderData: keepPreviousData,
  });

export const runQuery = (script: ScriptName, runId: string) =>
  queryOptions({
    queryKey: under(script, "run", { runId }),
    queryFn: async ({ signal }): Promise<RunDetail> => {
      const answer = await ask(scriptPath(script, `/runs/${encodeURIComponent(runId)}`), { signal });
      const text = await answer.text();
      const run = JSON.parse(text) as RunDetail;
      return { ...run, inputText: payloadText(text, "input"), outputText: payloadText(text, "output") };
    },
    refetchInterval: (query) => (query.state.data?.status === "In Progress" ? 2_000 : false),
    staleTime: 30_000,
  });

/** The runs before and after one, of those that pass a filter from a moment until another. */
export const neighboursQuery = (
  script: ScriptName,
  filter: Params,
  [from, to]: [Date | undefined, Date | undefined],
  run: Run | undefined,
) =>
  queryOptions({
    queryKey: under(script, "neighbours", { ...filter, runId: run?.runId }),
    queryFn: ({ signal }) => {
      const asked = (begin: string | undefined, end: string, limit: number) => {
        const query = queryString({ ...filter, from: begin, to: end, limit: String(limit) });
        return get<Page<Run>>(scriptPath(script, `/runs${query}`), signal);
      };
      return run ? neighbours(asked, run, from, to ?? new Date()) : { newer: undefined, older: undefined };
    },
    staleTime: 10_000,
  });

export const runLogsQuery = (script: ScriptName, runId: string, open: boolean) =>
  infiniteQueryOptions({
    queryKey: under(script, "run-logs", { runId }),
    queryFn: ({ signal, pageParam }) => {
      const query = queryString({ limit: "500", cursor: pageParam ?? undefined });
      return get<Page<LogLine>>(
        scriptPath(script, `/runs/${encodeURIComponent(runId)}/logs${query}`),
        signal,
      );
    },
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next,
    refetchInterval: open ? 2_000 : false,
    staleTime: 30_000,
  });

export const deploymentsQuery = (script: ScriptName) =>
  queryOptions({
    queryKey: under(script, "deployments", {}),
    queryFn: ({ signal }) =>
      get<{ items: DeploymentItem[] }>(scriptPath(script, "/deployments?limit=100"), signal),
    refetchInterval: EVERY * 3,
  });

export const deploymentQuery = (script: ScriptName, version: number) =>
  queryOptions({
    queryKey: under(script, "deployment", { version: String(version) }),
    queryFn: ({ signal }) => get<DeploymentDetail>(scriptPath(script, `/deployments/${version}`), signal),
    staleTime: 60_000,
  });
