import { lazy, Suspense, useMemo, useRef, useState } from "react";
import { minuteTime } from "../../lib/format";
import type { Zone } from "../../lib/range";
import type { ChartData, Marker } from "./data";

const Plot = lazy(() => import("./Plot"));

interface Props {
  title: string;
  note: string;
  data: ChartData | null;
  zone: Zone;
  step: "Hour" | "Day";
  markers: Marker[];
  onZoom: (from: Date, to: Date) => void;
}

/** A chart with its legend, which shows the values under the pointer, and the same figures as a table. */
export function ChartCard({ title, note, data, zone, step, markers, onZoom }: Props) {
  const [hover, setHover] = useState<number | null>(null);
  const zoom = useRef(onZoom);
  zoom.current = onZoom;
  const plot = useMemo(
    () =>
      data && data.times.length > 0
        ? {
            data,
            zone,
            markers,
            width: step === "Hour" ? 3_600 : 86_400,
            onZoom: (from: Date, to: Date) => zoom.current(from, to),
            onHover: setHover,
          }
        : null,
    [data, zone, markers, step],
  );
  const at = hover !== null && data && hover < data.times.length ? hover : null;
  const when = (index: number) => {
    const text = minuteTime(new Date((data?.times[index] ?? 0) * 1000), zone);
    return step === "Day" ? text.slice(0, 10) : text;
  };
  return (
    <figure className="chart">
      <figcaption>
        <span className="chart-title">{title}</span>
        <span className="soft num">{at === null ? note : when(at)}</span>
      </figcaption>
      <ul className="legend">
        {data?.lines.map((line) => (
          <li key={line.label}>
            <span className={`swatch swatch-${data.kind} swatch${line.colour}`} aria-hidden="true" />
            {line.label}
            {at !== null && <span className="num strong">{line.show(line.values[at])}</span>}
          </li>
        ))}
      </ul>
      <div className="chart-place" aria-hidden="true">
        {plot ? (
          <Suspense fallback={<div className="skeleton skeleton-chart" />}>
            <Plot {...plot} />
          </Suspense>
        ) : data ? (
          <p className="soft chart-empty">Nothing in this range</p>
        ) : (
          <div className="skeleton skeleton-chart" />
        )}
      </div>
      {data && data.times.length > 0 && (
        <details className="chart-table">
          <summary>As a table</summary>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls */}
          <div className="scroll" role="region" aria-label={`${title} as a table`} tabIndex={0}>
            <table>
              <thead>
                <tr>
                  <th scope="col">{step === "Hour" ? "Hour" : "Day"}</th>
                  {data.lines.map((line) => (
                    <th scope="col" key={line.label}>
                      {line.label}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {data.times.map((time, i) => (
                  <tr key={time}>
                    <th scope="row">{when(i)}</th>
                    {data.lines.map((line) => (
                      <td key={line.label}>{line.show(line.values[i])}</td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
    </figure>
  );
}
