/** An answer that is an error, or no answer. */
export class ApiFailure extends Error {
  constructor(
    /** HTTP status; 0 where the operator could not be reached. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field?: string,
  ) {
    super(message);
    this.name = "ApiFailure";
  }
}

interface ErrorBody {
  error?: { code?: string; message?: string; field?: string };
}

const UNREACHABLE = "The operator can not be reached. It is tried again every few seconds.";

/** Asks the API; `path` begins behind `/api/v1`. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(`/api/v1${path}`, { credentials: "same-origin", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiFailure(0, "Unreachable", UNREACHABLE);
  }
  if (answer.ok) return answer;
  const body = (await answer.json().catch(() => ({}))) as ErrorBody;
  const error = body.error ?? {};
  throw new ApiFailure(
    answer.status,
    error.code ?? "Unknown",
    error.message ?? `The operator answered ${answer.status}.`,
    error.field,
  );
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await ask(path, { signal: signal ?? null });
  return (await answer.json()) as T;
}

export type Params = Record<string, string | string[] | undefined>;

/** Keys and values as a query string, with its question mark; empty where there are none. */
export function queryString(params: Params): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "") search.append(key, one);
    }
  }
  const text = search.toString();
  return text && `?${text}`;
}

/** Path of a script's routes. */
export function scriptPath(script: { namespace: string; name: string }, rest = ""): string {
  return `/namespaces/${encodeURIComponent(script.namespace)}/scripts/${encodeURIComponent(script.name)}${rest}`;
}
