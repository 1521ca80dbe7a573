import { createContext, useContext } from "react";
import { exactTime } from "../lib/format";
import type { Zone } from "../lib/range";

export const ZoneContext = createContext<Zone>("local");

export function useZone(): Zone {
  return useContext(ZoneContext);
}

/** A moment in the chosen time zone; its tip says it in UTC. */
export function Time({ at }: { at: string }) {
  const zone = useZone();
  return (
    <time dateTime={at} title={`${exactTime(at, "utc")} UTC`} className="num">
      {exactTime(at, zone)}
    </time>
  );
}
