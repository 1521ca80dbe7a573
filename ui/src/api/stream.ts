/** Log lines as they are stored: a reader of server-sent events that comes back where it was. */
import { ApiFailure, ask, type Params, queryString, scriptPath } from "./client";
import type { LogLine, ScriptName } from "./types";

export interface ServerEvent {
  name: string;
  id: string | undefined;
  data: string;
}

/** Takes text as it arrives, and gives the events that are complete. */
export function eventParser(): (text: string) => ServerEvent[] {
  let rest = "";
  return (text) => {
    rest += text;
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    return blocks.flatMap((block) => {
      const event: ServerEvent = { name: "message", id: undefined, data: "" };
      let some = false;
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon < 1) continue;
        const [field, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
        some = true;
        if (field === "event") event.name = value;
        else if (field === "id") event.id = value;
        else if (field === "data") event.data += event.data ? `\n${value}` : value;
      }
      return some ? [event] : [];
    });
  };
}

export interface Follower {
  /** The stream has begun: everything that is stored from now on comes as lines. Only for the first time. */
  onOpen: () => void;
  /** New lines, the oldest first. */
  onLines: (lines: LogLine[]) => void;
  /** It was broken off and is tried again. */
  onBreak: (error: Error) => void;
  /** It goes on. */
  onResume: () => void;
}

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

/** Errors that another try does not mend. */
function isFinal(error: unknown): boolean {
  return error instanceof ApiFailure && error.status >= 400 && error.status < 500;
}

const pause = (millis: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, millis);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });

/** Follows a log until `signal`; throws where there is no sense in going on. */
export async function followLogs(
  script: ScriptName,
  params: Params,
  signal: AbortSignal,
  to: Follower,
): Promise<void> {
  let last: string | undefined;
  let wait = FIRST_PAUSE;
  const read = async () => {
    const headers: HeadersInit = last === undefined ? {} : { "Last-Event-ID": last };
    const answer = await ask(scriptPath(script, `/logs/stream${queryString(params)}`), { signal, headers });
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    const parse = eventParser();
    if (last !== undefined) to.onResume();
    wait = FIRST_PAUSE;
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) return;
      for (const event of parse(part.value)) {
        if (event.name === "error") {
          const { error } = JSON.parse(event.data) as { error: { code: string; message: string } };
          const status = error.code === "Forbidden" || error.code === "Unauthenticated" ? 403 : 503;
          throw new ApiFailure(status, error.code, error.message);
        }
        if (event.name !== "lines") continue;
        const begins = last === undefined;
        last = event.id ?? last;
        if (begins) to.onOpen();
        const { items } = JSON.parse(event.data) as { items: LogLine[] };
        if (items.length) to.onLines(items);
      }
    }
  };
  while (!signal.aborted) {
    try {
      await read();
    } catch (error) {
      if (signal.aborted) return;
      if (isFinal(error)) throw error;
      to.onBreak(error instanceof Error ? error : new Error(String(error)));
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, LONGEST_PAUSE);
  }
}
