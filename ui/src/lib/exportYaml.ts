/** A ScriptExport that writes what the page shows. */
import type { ScriptName } from "../api/types";
import type { ExportFormat } from "./exportFormat";
import { type Filter, type Table, withSearch } from "./filters";
import { bounds, type Range, type Zone } from "./range";

/** A YAML scalar that can not be mistaken for anything but text: JSON strings are YAML. */
const quoted = (text: string) => JSON.stringify(text);

function rangeLines(range: Range, zone: Zone, now: Date): string[] {
  if (range.kind === "last") return [`    last: ${range.age}`];
  // Presets are counted in days of UTC; those of another zone become moments.
  if (range.kind === "preset" && (zone === "utc" || range.preset === "AllTime"))
    return [`    preset: ${range.preset}`];
  const { from, to } = bounds(range, zone, now);
  return [
    ...(from ? [`    from: ${quoted(from.toISOString())}`] : []),
    ...(to ? [`    to: ${quoted(to.toISOString())}`] : []),
  ];
}

export interface ExportWish {
  script: ScriptName;
  table: Table;
  range: Range;
  zone: Zone;
  filter: Filter;
  search: string;
  format: ExportFormat;
}

export function exportYaml(wish: ExportWish, now: Date): string {
  const { script, table, range, zone, filter, search, format } = wish;
  const { match, conditions } = withSearch(table, filter, search);
  return [
    "apiVersion: scriptscope.dev/v1alpha1",
    "kind: ScriptExport",
    "metadata:",
    `  name: ${script.name}-${table}`,
    `  namespace: ${script.namespace}`,
    "spec:",
    "  scriptRef:",
    `    name: ${script.name}`,
    `  data: ${table === "runs" ? "Runs" : "Logs"}`,
    "  range:",
    ...rangeLines(range, zone, now),
    ...(conditions.length ? [`  match: ${match}`, "  filters:"] : []),
    ...conditions.flatMap(({ column, operator, values }) => [
      `    - column: ${column}`,
      `      operator: ${operator}`,
      `      values: [${values.map(quoted).join(", ")}]`,
    ]),
    ...format.spec.map((line) => `  ${line}`),
    "",
  ].join("\n");
}
