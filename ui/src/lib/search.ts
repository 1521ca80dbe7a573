/** What the URL says beside its path: flat, readable keys. */
import { type Filter, filterParams, filterText, parseFilter, type Table } from "./filters";
import { localZone } from "./format";
import { parseRange, type Range, rangeParams, rangeText, stepOf, type Zone } from "./range";

/** What all places of a script share. Every value is text, as it stands in the URL. */
export interface ViewSearch {
  range?: string;
  tz?: "utc";
  filter?: string;
  q?: string;
  /** `off`: log lines are not followed. */
  live?: "on";
  /** The versions compared. */
  compare?: string;
  /** The slowest runs come first; otherwise the newest. */
  sort?: "slowest";
}

export interface ListSearch {
  q?: string;
  namespace?: string;
}

type Flat = Record<string, unknown>;

export function parseSearch(text: string): Flat {
  return Object.fromEntries(new URLSearchParams(text));
}

export function stringifySearch(search: object): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(search)) {
    if (typeof value === "string" && value !== "") params.set(key, value);
  }
  const text = params.toString();
  return text && `?${text}`;
}

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

/** Without keys that have no value, so that equal searches are equal. */
function tidy<T extends object>(search: T): T {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined)) as T;
}

export function viewSearch(search: Flat): ViewSearch {
  return tidy({
    range: text(search["range"]),
    tz: search["tz"] === "utc" ? "utc" : undefined,
    filter: text(search["filter"]),
    q: text(search["q"]),
    live: search["live"] === "on" ? "on" : undefined,
    compare: text(search["compare"]),
    sort: search["sort"] === "slowest" ? "slowest" : undefined,
  } as ViewSearch);
}

export function listSearch(search: Flat): ListSearch {
  return tidy({ q: text(search["q"]), namespace: text(search["namespace"]) } as ListSearch);
}

export const zoneOf = (search: ViewSearch): Zone => (search.tz === "utc" ? "utc" : "local");
export const rangeOf = (search: ViewSearch): Range => parseRange(search.range);
export const filterOf = (search: ViewSearch, table: Table): Filter => parseFilter(table, search.filter);

export const withRange = (search: ViewSearch, range: Range): ViewSearch =>
  tidy({ ...search, range: rangeText(range) } as ViewSearch);
export const withFilter = (search: ViewSearch, filter: Filter): ViewSearch =>
  tidy({ ...search, filter: filterText(filter) } as ViewSearch);
export const withZone = (search: ViewSearch, zone: Zone): ViewSearch =>
  tidy({ ...search, tz: zone === "utc" ? "utc" : undefined } as ViewSearch);
export const withText = (search: ViewSearch, q: string): ViewSearch =>
  tidy({ ...search, q: q || undefined } as ViewSearch);
export const withSort = (search: ViewSearch, sort: "slowest" | undefined): ViewSearch =>
  tidy({ ...search, sort } as ViewSearch);
/** For another view of the same rows. */
export const sameRows = ({ range, tz, filter, q }: ViewSearch): ViewSearch =>
  tidy({ range, tz, filter, q } as ViewSearch);
/** For another table: its range and zone stay, what names columns does not. */
export const elsewhere = ({ range, tz }: ViewSearch): ViewSearch => tidy({ range, tz } as ViewSearch);

const rowParams = (table: Table, search: ViewSearch, now: Date): Record<string, string> => ({
  ...rangeParams(rangeOf(search), zoneOf(search), now),
  ...filterParams(table, filterOf(search, table), search.q ?? ""),
});

/** What the API is asked for about the runs of the range and filter. */
export const runParams = (search: ViewSearch, now: Date) => rowParams("runs", search, now);

/** The same of log lines. */
export const logParams = (search: ViewSearch, now: Date) => rowParams("logs", search, now);

/** What it is asked for about the range over time; hours within a day, days otherwise. */
export function seriesParams(search: ViewSearch, now: Date, withFilter: boolean): Record<string, string> {
  const [range, zone] = [rangeOf(search), zoneOf(search)];
  return {
    ...(withFilter ? runParams(search, now) : rangeParams(range, zone, now)),
    step: stepOf(range, zone, now),
    timeZone: zone === "utc" ? "UTC" : localZone(),
  };
}
