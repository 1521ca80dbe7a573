/** Formats of a file, as the menu, the API and a ScriptExport say them. */
import type { Table } from "./filters";

export interface ExportFormat {
  id: string;
  name: string;
  /** How the file's name ends. */
  extension: string;
  /** The route, behind the table's name, and its query. */
  route: "csv" | "parquet";
  query: Record<string, string>;
  /** Lines of a ScriptExport's spec; what is its default is left out. */
  spec: string[];
}

export const FORMATS: ExportFormat[] = [
  { id: "csv", name: "CSV", extension: "csv", route: "csv", query: {}, spec: [] },
  {
    id: "csv-gzip",
    name: "CSV, gzip",
    extension: "csv.gz",
    route: "csv",
    query: { compression: "Gzip" },
    spec: ["compression: Gzip"],
  },
  {
    id: "parquet",
    name: "Parquet",
    extension: "parquet",
    route: "parquet",
    query: {},
    spec: ["format: Parquet"],
  },
];

export const [CSV] = FORMATS as [ExportFormat];

export function formatOf(id: string): ExportFormat {
  return FORMATS.find((format) => format.id === id) ?? CSV;
}

export function fileName(script: string, table: Table, format: ExportFormat): string {
  return `${script}_${table}_data.${format.extension}`;
}
