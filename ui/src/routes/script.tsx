import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useMatchRoute, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { createContext, useContext, useEffect, useMemo } from "react";
import { ApiFailure } from "../api/client";
import { scriptQuery } from "../api/queries";
import type { ScriptDetail, ScriptName } from "../api/types";
import { StatusBadge } from "../components/Badge";
import { Choice } from "../components/Choice";
import { Copy } from "../components/Copy";
import { RangePicker } from "../components/RangePicker";
import { Failure, Stale } from "../components/States";
import { ZoneContext } from "../components/Time";
import { localZone } from "../lib/format";
import { useKeys } from "../lib/keys";
import { elsewhere, rangeOf, sameRows, type ViewSearch, withRange, withZone, zoneOf } from "../lib/search";

export interface ScriptPlace {
  script: ScriptName;
  /** What is known of it; none while it is asked for. */
  detail: ScriptDetail | undefined;
  search: ViewSearch;
  setSearch: (change: (search: ViewSearch) => ViewSearch, replace?: boolean) => void;
}

const PlaceContext = createContext<ScriptPlace | null>(null);

/** The script of the page, and what the URL says beside it. */
export function usePlace(): ScriptPlace {
  const place = useContext(PlaceContext);
  if (!place) throw new Error("this is part of a script's page");
  return place;
}

export const TABS = [
  ["runs", "All Runs", "R"],
  ["logs", "Logs", "L"],
  ["errors", "Errors", "E"],
  ["versions", "Versions", "V"],
] as const;
type Tab = (typeof TABS)[number][0];

/** Those that show the same runs, so that a filter goes along. */
const OF_RUNS: Tab[] = ["runs", "errors"];

export function ScriptLayout() {
  const { namespace, name } = useParams({ from: "/scripts/$namespace/$name" });
  const search = useSearch({ from: "/scripts/$namespace/$name" });
  const navigate = useNavigate();
  const matches = useMatchRoute();
  const script = useMemo(() => ({ namespace, name }), [namespace, name]);
  const detail = useQuery(scriptQuery(script));
  const zone = zoneOf(search);
  useEffect(() => {
    document.title = `${name} – ScriptScope`;
  }, [name]);
  const place = useMemo<ScriptPlace>(
    () => ({
      script,
      detail: detail.data,
      search,
      setSearch: (change, replace = false) =>
        void navigate({
          to: ".",
          search: (now: Record<string, unknown>) => change(now as ViewSearch) as never,
          replace,
          resetScroll: false,
        }),
    }),
    [script, detail.data, search, navigate],
  );
  const ofRuns = OF_RUNS.some((tab) =>
    matches({ to: `/scripts/$namespace/$name/${tab}`, params: script, fuzzy: true }),
  );
  const searchOf = (tab: Tab) =>
    (ofRuns && OF_RUNS.includes(tab) ? sameRows(search) : elsewhere(search)) as never;
  const go = (tab: Tab) =>
    void navigate({ to: `/scripts/$namespace/$name/${tab}`, params: script, search: searchOf(tab) });
  useKeys({
    r: () => go("runs"),
    l: () => go("logs"),
    e: () => go("errors"),
    v: () => go("versions"),
    t: () => place.setSearch((now) => withZone(now, zone === "utc" ? "local" : "utc")),
  });
  // Without a right to the runs there may still be one to the logs: those say so themselves.
  const missing = detail.error instanceof ApiFailure && detail.error.code === "ScriptNotFound";
  if (missing) {
    return (
      <div className="page">
        <Failure error={detail.error} />
      </div>
    );
  }
  return (
    <PlaceContext.Provider value={place}>
      <ZoneContext.Provider value={zone}>
        <div className="page">
          <ScriptHead script={script} detail={detail.data} />
          {detail.isError && detail.data && <Stale error={detail.error} />}
          <div className="page-bar">
            <nav className="tabs" aria-label="Parts of the script">
              {TABS.map(([tab, text]) => (
                <Link
                  key={tab}
                  to={`/scripts/$namespace/$name/${tab}`}
                  params={script}
                  search={searchOf(tab)}
                  aria-current={
                    matches({ to: `/scripts/$namespace/$name/${tab}`, params: script, fuzzy: true })
                      ? "page"
                      : undefined
                  }
                  className="tab"
                  activeProps={{ className: "tab" }}
                >
                  {text}
                </Link>
              ))}
            </nav>
            <div className="page-tools">
              <Choice
                label="Time zone"
                value={zone}
                options={[
                  ["local", localZone() === "UTC" ? "Local time" : localZone()],
                  ["utc", "UTC"],
                ]}
                onChange={(next) => place.setSearch((now) => withZone(now, next === "utc" ? "utc" : "local"))}
              />
              {!matches({ to: "/scripts/$namespace/$name/versions", params: script }) && (
                <RangePicker
                  range={rangeOf(search)}
                  zone={zone}
                  onChange={(range) => place.setSearch((now) => withRange(now, range))}
                />
              )}
            </div>
          </div>
          <Outlet />
        </div>
      </ZoneContext.Provider>
    </PlaceContext.Provider>
  );
}

function ScriptHead({ script, detail }: { script: ScriptName; detail: ScriptDetail | undefined }) {
  return (
    <div className="page-head script-head">
      <h1>{script.name}</h1>
      {detail ? (
        <>
          <StatusBadge status={detail.exists ? (detail.phase ?? "Draft") : "Deleted"} />
          {detail.version !== null && <span className="soft num">version {detail.version}</span>}
          {detail.endpoint && (
            <span className="endpoint">
              <code>{detail.endpoint}</code>
              <Copy text={detail.endpoint} label="Copy the endpoint" />
            </span>
          )}
        </>
      ) : (
        <span className="skeleton skeleton-b" />
      )}
    </div>
  );
}
