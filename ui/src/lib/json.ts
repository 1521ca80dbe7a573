/** JSON text as the script wrote it: a number keeps its digits (1.0, large integers) where the browser can tell. */

interface RawJson {
  rawJSON?: (text: string) => unknown;
}

function exact(_key: string, value: unknown, context?: { source?: string }): unknown {
  const raw = (JSON as RawJson).rawJSON;
  return typeof value === "number" && context?.source && raw ? raw(context.source) : value;
}

/** A member of a JSON object, laid out for reading; none where it is null or missing. */
export function payloadText(json: string, member: string): string | null {
  const value = (JSON.parse(json, exact) as Record<string, unknown>)[member];
  return value === null || value === undefined ? null : JSON.stringify(value, null, 2);
}
