import { useEffect, useMemo, useRef, useState } from "react";
import type { Params } from "../api/client";
import { followLogs } from "../api/stream";
import type { LogLine, ScriptName } from "../api/types";
import { LineBuffer } from "../lib/lineBuffer";

/** Lines kept of a log that is followed; older ones are in the store. */
const CAPACITY = 10_000;

export interface Live {
  /** The newest first. */
  lines: LogLine[];
  /** Lines that have come while the page was held still. */
  waiting: number;
  state: "off" | "connecting" | "live" | "broken";
  error: Error | null;
  /** Whether so much came that older new lines were let go. */
  dropped: boolean;
}

const OFF: Live = { lines: [], waiting: 0, state: "off", error: null, dropped: false };

/** Follows a log. While `held`, lines are gathered and not shown. */
export function useLive(
  script: ScriptName,
  params: Params,
  on: boolean,
  held: boolean,
  onOpen: () => void,
): Live {
  const [live, setLive] = useState<Live>(OFF);
  const holding = useRef(held);
  holding.current = held;
  const opened = useRef(onOpen);
  opened.current = onOpen;
  const paint = useRef<() => void>(() => {});
  const key = useMemo(() => JSON.stringify(params), [params]);
  useEffect(() => {
    if (!on) {
      setLive(OFF);
      return;
    }
    const stop = new AbortController();
    const buffer = new LineBuffer<LogLine>(CAPACITY);
    let shown = 0;
    let total = 0;
    let frame = 0;
    // At most once a frame, however many events come.
    const show = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        if (holding.current) {
          setLive((now) => ({ ...now, waiting: total - shown }));
          return;
        }
        shown = total;
        setLive((now) => ({ ...now, lines: buffer.newestFirst(), waiting: 0, dropped: buffer.dropped > 0 }));
      });
    };
    paint.current = show;
    setLive({ ...OFF, state: "connecting" });
    followLogs(script, JSON.parse(key) as Params, stop.signal, {
      onOpen: () => {
        setLive((now) => ({ ...now, state: "live" }));
        opened.current();
      },
      onLines: (lines) => {
        buffer.push(lines);
        total += lines.length;
        show();
      },
      onBreak: (error) => setLive((now) => ({ ...now, state: "broken", error })),
      onResume: () => setLive((now) => ({ ...now, state: "live", error: null })),
    }).catch((error: Error) => {
      if (!stop.signal.aborted) setLive((now) => ({ ...now, state: "broken", error }));
    });
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
      paint.current = () => {};
    };
  }, [script, key, on]);
  useEffect(() => {
    if (!held) paint.current();
  }, [held]);
  return live;
}
