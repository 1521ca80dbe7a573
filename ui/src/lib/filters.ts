/** Filters: which columns there are, how each can be compared, and how the URL and the API say it. */

export type Table = "runs" | "logs";
export type Operator =
  | "Equals"
  | "NotEquals"
  | "Contains"
  | "LessThan"
  | "GreaterThan"
  | "AtMost"
  | "AtLeast";
export type Match = "All" | "Any";

export interface Condition {
  column: string;
  operator: Operator;
  values: string[];
}

export interface Filter {
  match: Match;
  conditions: Condition[];
}

export const NO_FILTER: Filter = { match: "All", conditions: [] };

export const OPERATOR_NAMES: Record<Operator, string> = {
  Equals: "is",
  NotEquals: "is not",
  Contains: "contains",
  LessThan: "<",
  GreaterThan: ">",
  AtMost: "≤",
  AtLeast: "≥",
};

interface ColumnKind {
  name: string;
  operators: Operator[];
  /** The values there are, where they are known. */
  options?: string[];
  /** What to type, where that is not plain. */
  hint?: string;
}

const TEXT: Operator[] = ["Equals", "NotEquals", "Contains"];
const CHOICE: Operator[] = ["Equals", "NotEquals"];
const NUMBER: Operator[] = ["Equals", "NotEquals", "LessThan", "GreaterThan", "AtMost", "AtLeast"];

const RUN_ID: ColumnKind = { name: "Run ID", operators: TEXT };

export const COLUMNS: Record<Table, ColumnKind[]> = {
  runs: [
    { name: "Status", operators: CHOICE, options: ["Success", "Failed", "In Progress"] },
    RUN_ID,
    { name: "Deployment Version", operators: TEXT },
    { name: "Response Time", operators: NUMBER, hint: "in milliseconds, such as 250" },
    { name: "Function", operators: TEXT },
    { name: "Source Type", operators: CHOICE, options: ["Tool", "API", "Test"] },
    { name: "Source", operators: TEXT },
  ],
  logs: [
    {
      name: "Log Level",
      operators: CHOICE,
      options: ["Stdout", "Stderr", "Info", "Debug", "Warning", "Error"],
    },
    { name: "Log Message", operators: TEXT },
    { name: "Log ID", operators: TEXT },
    RUN_ID,
  ],
};

export function columnOf(table: Table, name: string): ColumnKind | undefined {
  return COLUMNS[table].find((column) => column.name === name);
}

function isCondition(table: Table, value: unknown): value is Condition {
  if (typeof value !== "object" || value === null) return false;
  const { column, operator, values } = value as Partial<Condition>;
  const kind = columnOf(table, String(column));
  return (
    kind?.operators.includes(operator as Operator) === true &&
    Array.isArray(values) &&
    values.length > 0 &&
    values.every((one) => typeof one === "string")
  );
}

/** Reads a filter of the URL; conditions that make no sense for the table are left out. */
export function parseFilter(table: Table, text: string | undefined): Filter {
  if (!text) return NO_FILTER;
  try {
    const { match, conditions } = JSON.parse(text) as { match?: unknown; conditions?: unknown };
    return {
      match: match === "Any" ? "Any" : "All",
      conditions: Array.isArray(conditions) ? conditions.filter((one) => isCondition(table, one)) : [],
    };
  } catch {
    return NO_FILTER;
  }
}

/** A filter for the URL and the API; none where it lets everything through. */
export function filterText(filter: Filter): string | undefined {
  return filter.conditions.length ? JSON.stringify(filter) : undefined;
}

/** With one more condition. An equal column and operator takes the values in, so that "is" means "one of". */
export function withCondition(filter: Filter, added: Condition): Filter {
  const same = filter.conditions.findIndex(
    (one) => one.column === added.column && one.operator === added.operator,
  );
  if (same < 0) return { ...filter, conditions: [...filter.conditions, added] };
  const conditions = filter.conditions.map((one, i) =>
    i === same ? { ...one, values: [...new Set([...one.values, ...added.values])] } : one,
  );
  return { ...filter, conditions };
}

export function withoutCondition(filter: Filter, index: number): Filter {
  return { ...filter, conditions: filter.conditions.filter((_, i) => i !== index) };
}

/** A condition for people. */
export function conditionText({ column, operator, values }: Condition): string {
  return `${column} ${OPERATOR_NAMES[operator]} ${values.join(" or ")}`;
}

const SEARCHED = ["Run ID", "Function", "Source"];

/** Whether there can be a search beside this filter: the API joins conditions by All or by Any, never both. */
export function isSearchable({ conditions, match }: Filter): boolean {
  return match === "All" || conditions.length < 2;
}

/** What a search looks through. */
export function searched(table: Table, filter: Filter): string {
  if (table === "logs") return "messages";
  return filter.conditions.length ? "run ids" : "run ids, functions and sources";
}

/** The filter and the search as one filter: all of the former, and the latter. */
export function withSearch(table: Table, filter: Filter, search: string): Filter {
  if (!search || !isSearchable(filter)) return filter;
  const contains = (column: string): Condition => ({ column, operator: "Contains", values: [search] });
  if (table === "runs" && filter.conditions.length === 0) {
    return { match: "Any", conditions: SEARCHED.map(contains) };
  }
  const added = contains(table === "runs" ? "Run ID" : "Log Message");
  return { match: "All", conditions: [...filter.conditions, added] };
}

/** What the API is asked for. */
export function filterParams(table: Table, filter: Filter, search: string): { filter?: string } {
  const text = filterText(withSearch(table, filter, search));
  return text ? { filter: text } : {};
}
