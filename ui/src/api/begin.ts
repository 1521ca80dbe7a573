/** Has what a place shows asked for before the place is drawn, or the reader is known. */
import type { QueryClient } from "@tanstack/react-query";
import { logParams, runParams, seriesParams, type ViewSearch } from "../lib/search";
import { figuresQuery, logsQuery, runQuery, runsQuery, scriptQuery, seriesQuery } from "./queries";
import type { ScriptName } from "./types";

interface Asked {
  queryKey: readonly unknown[];
}

/** What was asked for before is left to those who show it. */
const isNew = (client: QueryClient, { queryKey }: Asked) => client.getQueryState(queryKey) === undefined;

export function beginScript(client: QueryClient, script: ScriptName): void {
  const query = scriptQuery(script);
  if (isNew(client, query)) void client.prefetchQuery(query);
}

export function beginRuns(client: QueryClient, script: ScriptName, search: ViewSearch): void {
  const now = new Date();
  const rows = runsQuery(script, runParams(search, now));
  if (search.sort === undefined && isNew(client, rows)) void client.prefetchInfiniteQuery(rows);
  const figures = figuresQuery(script, runParams(search, now));
  if (isNew(client, figures)) void client.prefetchQuery(figures);
  const series = seriesQuery(script, seriesParams(search, now, true));
  if (isNew(client, series)) void client.prefetchQuery(series);
}

export function beginLogs(client: QueryClient, script: ScriptName, search: ViewSearch): void {
  const now = new Date();
  const rows = logsQuery(script, logParams(search, now));
  if (isNew(client, rows)) void client.prefetchInfiniteQuery(rows);
  const series = seriesQuery(script, seriesParams(search, now, false));
  if (isNew(client, series)) void client.prefetchQuery(series);
}

export function beginRun(client: QueryClient, script: ScriptName, runId: string): void {
  const query = runQuery(script, runId);
  if (isNew(client, query)) void client.prefetchQuery(query);
}
