import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { minuteTime } from "../../lib/format";
import type { Zone } from "../../lib/range";
import { type ChartData, type Marker, stacked } from "./data";

interface Props {
  data: ChartData;
  zone: Zone;
  /** Seconds that a bucket takes. */
  width: number;
  markers: Marker[];
  onZoom: (from: Date, to: Date) => void;
  /** The bucket under the pointer; none outside. */
  onHover: (index: number | null) => void;
}

const HEIGHT = 180;

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawMarkers(plot: uPlot, markers: Marker[]): void {
  const { ctx } = plot;
  const { top, height, left, width } = plot.bbox;
  ctx.save();
  ctx.strokeStyle = colour("--marker");
  ctx.fillStyle = colour("--ink-soft");
  ctx.lineWidth = devicePixelRatio;
  ctx.textAlign = "center";
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  let free = left;
  for (const { time, label } of markers) {
    const x = Math.round(plot.valToPos(time, "x", true));
    if (x < left || x > left + width) continue;
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    // A name that would lie on another one is left out; the tab Versions has all.
    if (x < free) continue;
    ctx.fillText(label, x, top - 4 * devicePixelRatio);
    free = x + ctx.measureText(label).width + 8 * devicePixelRatio;
  }
  ctx.restore();
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** A tick of the axis of time: the hour, or the day where one begins. */
function tick(seconds: number, zone: Zone): string {
  const [day, time] = minuteTime(new Date(seconds * 1000), zone).split(" ") as [string, string];
  const [, month, date] = day.split("-").map(Number) as [number, number, number];
  return time === "00:00" ? `${date} ${MONTHS[month - 1]}` : time;
}

/** `latest` is looked at when something happens, not when the plot is made. */
function options(latest: { current: Props }, data: ChartData, size: number): uPlot.Options {
  const { zone, width } = latest.current;
  const show = data.lines[0]?.show ?? String;
  const bars = data.kind === "bars";
  const paths = bars ? uPlot.paths.bars?.({ size: [0.78, 72], align: 1 }) : undefined;
  const axis = { stroke: colour("--ink-soft"), font: "11px system-ui, sans-serif" };
  const grid = { stroke: colour("--line-soft"), width: 1 };
  return {
    width: size,
    height: HEIGHT,
    ...(zone === "utc" && { tzDate: (time: number) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC") }),
    padding: [18, 20, 0, 0],
    legend: { show: false },
    cursor: { points: { show: !bars }, drag: { x: true, y: false, setScale: false }, y: false },
    scales: {
      x: { time: true, range: (_plot, min, max) => [min, bars || min === max ? max + width : max] },
      y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.12 : 1] },
    },
    axes: [
      {
        ...axis,
        size: 28,
        gap: 6,
        grid: { show: false },
        ticks: { show: false },
        values: (_plot, ticks) => ticks.map((one) => tick(one, zone)),
      },
      {
        ...axis,
        grid,
        ticks: { show: false },
        size: 64,
        values: (_plot, ticks) => ticks.map((tick) => show(tick)),
      },
    ],
    series: [
      {},
      // Of bars that stand on each other the highest is drawn first.
      ...[...data.lines].reverse().map(
        (line): uPlot.Series => ({
          label: line.label,
          stroke: colour(line.colour),
          width: bars ? 0 : 2,
          ...(bars && { fill: colour(line.colour) }),
          ...(paths && { paths }),
          ...(line.dash && { dash: line.dash }),
          points: { show: !bars && data.times.length < 40, size: 5 },
          spanGaps: false,
        }),
      ),
    ],
    hooks: {
      draw: [(plot) => drawMarkers(plot, latest.current.markers)],
      setCursor: [(plot) => latest.current.onHover(plot.cursor.idx ?? null)],
      setSelect: [
        (plot) => {
          if (plot.select.width < 4) return;
          const from = plot.posToVal(plot.select.left, "x");
          const to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          latest.current.onZoom(new Date(from * 1000), new Date(to * 1000));
        },
      ],
    },
  };
}

function columnsOf(data: ChartData): uPlot.AlignedData {
  const columns = data.kind === "bars" ? stacked(data.lines) : data.lines.map((line) => line.values);
  return [data.times, ...columns.reverse()];
}

/** The drawing itself. New figures go into the one that is there, so that they do not break off a drag. */
export default function Plot(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const { data, markers, zone, width } = props;
  const form = `${data.kind} ${data.lines.map((line) => line.label).join()} ${zone} ${width}`;
  // biome-ignore lint/correctness/useExhaustiveDependencies: it is made anew when its form is another
  useEffect(() => {
    const node = place.current;
    if (!node) return;
    const make = () => {
      plot.current?.destroy();
      const { data } = latest.current;
      plot.current = new uPlot(options(latest, data, node.clientWidth), columnsOf(data), node);
    };
    make();
    const size = new ResizeObserver(() => plot.current?.setSize({ width: node.clientWidth, height: HEIGHT }));
    size.observe(node);
    const theme = new MutationObserver(make);
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", make);
    return () => {
      size.disconnect();
      theme.disconnect();
      system.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [form]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: markers are drawn with the figures
  useEffect(() => {
    plot.current?.setData(columnsOf(data));
  }, [data, markers]);
  return <div className="plot" ref={place} />;
}
