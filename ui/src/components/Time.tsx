import { createContext, useContext } from "react";
import { exactTime, minuteTime } from "../lib/format";
import type { Zone } from "../lib/range";

export const ZoneContext = createContext<Zone>("local");

export function useZone(): Zone {
  return useContext(ZoneContext);
}

/** A moment in the chosen time zone, to the minute where that is enough; its tip says it in UTC. */
export function Time({ at, toMinute = false }: { at: string; toMinute?: boolean }) {
  const zone = useZone();
  return (
    <time dateTime={at} title={`${exactTime(at, "utc")} UTC`} className="num">
      {toMinute ? minuteTime(at, zone) : exactTime(at, zone)}
    </time>
  );
}
