import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import { moment, number } from "../app/format";
import { useTheme } from "../app/theme";
import { useZone } from "../app/zone";
import type { Line, Mark } from "./chart";

/** All plots of a page share the crosshair. */
const crosshair = "page";
const height = 132;

/** A moment of an axis, without its date. */
const clock = (seconds: number, length = 16) => moment(new Date(seconds * 1000)).slice(11, length);

/** The opacity of the area under a line, in hexadecimal. */
const area = "14";

/** Values over time, from zero, with gaps where nothing was measured; marks are dashed lines. */
export default function Plot({ at, lines, marks, window, unit }: { at: readonly number[]; lines: readonly Line[]; marks: readonly Mark[]; window: number; unit: string }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const shownMarks = useRef(marks);
  const [under, setUnder] = useState<number | null>(null);
  const theme = useTheme();
  const zone = useZone();
  const names = lines.map((line) => `${line.name} ${line.color}`).join("\n");
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const color = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: color("--muted"), font: "12px Inter Variable, Inter, sans-serif", grid: { stroke: color("--border"), width: 1 }, ticks: { show: false } };
    const made = new uPlot(
      {
        width: element.clientWidth,
        height,
        // The axis is in the console's time zone, as every other time.
        tzDate: (seconds) => (zone === "utc" ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
        legend: { show: false },
        cursor: { sync: { key: crosshair }, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.05, 1)] } },
        axes: [
          { ...axis, size: 24, values: (_, splits) => splits.map((second) => clock(second)), grid: { show: false } },
          { ...axis, size: 48, space: 36, values: (_, splits) => splits.map((value) => number(value, 1)) },
        ],
        series: [{}, ...lines.map((line) => ({ label: line.name, stroke: color(line.color), fill: color(line.color) + area, width: 1.5, points: { show: true, filter: alone, size: 4 } }))],
        hooks: {
          setCursor: [(self) => setUnder(self.cursor.idx ?? null)],
          draw: [(self) => drawMarks(self, shownMarks.current, color("--muted"))],
        },
      },
      [[], ...lines.map(() => [])],
      element,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
    };
    // The lines are those of their names; their values are set below.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [theme, zone, names]);
  useEffect(() => {
    shownMarks.current = marks;
    plot.current?.setData([[...at], ...lines.map((line) => [...line.values])]);
  }, [at, lines, marks, theme, zone, names]);
  const second = under === null ? undefined : at[under];
  const marked = second === undefined ? [] : marks.filter((mark) => Math.abs(mark.at - second) <= window);
  return (
    <>
      <div ref={place} className="min-w-0" aria-hidden="true" />
      <p className="text-muted h-5 truncate text-sm">
        {second === undefined || under === null
          ? ""
          : [`${clock(second, 19)}`, ...lines.map((line) => `${line.name} ${number(line.values[under] ?? undefined, 2)}`), unit, ...marked.map((mark) => mark.text)].join(" · ")}
      </p>
    </>
  );
}

/** Values between two gaps have no line: they are shown as points. */
function alone(self: uPlot, series: number): number[] {
  const values = Array.from<number | null | undefined>(self.data[series] ?? []);
  const missing = (index: number) => (values[index] ?? null) === null;
  return values.flatMap((_, index) => (!missing(index) && missing(index - 1) && missing(index + 1) ? [index] : []));
}

function drawMarks(self: uPlot, marks: readonly Mark[], color: string): void {
  const { ctx, bbox } = self;
  const [first, last] = [self.scales["x"]?.min ?? 0, self.scales["x"]?.max ?? 0];
  ctx.save();
  ctx.strokeStyle = color;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of marks) {
    if (mark.at < first || mark.at > last) continue;
    const x = Math.round(self.valToPos(mark.at, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
