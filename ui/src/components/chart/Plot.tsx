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

function options(props: Props, size: number): uPlot.Options {
  const { data, zone, width, markers } = props;
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
      draw: [(plot) => drawMarkers(plot, markers)],
      setCursor: [(plot) => props.onHover(plot.cursor.idx ?? null)],
      setSelect: [
        (plot) => {
          if (plot.select.width < 4) return;
          const from = plot.posToVal(plot.select.left, "x");
          const to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          props.onZoom(new Date(from * 1000), new Date(to * 1000));
        },
      ],
    },
  };
}

/** The drawing itself. It is made anew when what it shows changes; a few hundred points take a millisecond or two. */
export default function Plot(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const node = place.current;
    if (!node) return;
    const { data } = props;
    const columns = data.kind === "bars" ? stacked(data.lines) : data.lines.map((line) => line.values);
    const make = () => new uPlot(options(props, node.clientWidth), [data.times, ...columns.reverse()], node);
    let plot = make();
    const size = new ResizeObserver(() => plot.setSize({ width: node.clientWidth, height: HEIGHT }));
    size.observe(node);
    const repaint = () => {
      plot.destroy();
      plot = make();
    };
    const theme = new MutationObserver(repaint);
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", repaint);
    return () => {
      size.disconnect();
      theme.disconnect();
      system.removeEventListener("change", repaint);
      plot.destroy();
    };
  }, [props]);
  return <div className="plot" ref={place} />;
}
