import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import uPlot from "uplot";
import { moment, number } from "../app/format";
import { useTheme } from "../app/theme";
import { useZone } from "../app/zone";
import type { Line, Mark } from "./chart";
import { useSpan } from "./range";
import { moved, spanOf } from "./span";

/** All plots of a page share the crosshair, and the part that is being chosen. */
const crosshair = "page";
const height = 132;

/** The pixels from which on a pointer draws a part of the time, instead of pointing at a moment. */
const drawn = 6;

/** A moment of an axis, without its date. */
const clock = (seconds: number, length = 16) => moment(new Date(seconds * 1000)).slice(11, length);

/** What a value of an incomplete window is. */
const counted = "counted in part: at least";

/** The opacity of the area under a line, in hexadecimal. */
const area = "14";

/** A uPlot whose crosshair is moved for all plots that share it; its types leave the last argument out. */
interface Moves {
  setCursor: (to: { left: number; top: number }, fire: boolean, publish: boolean) => void;
}

interface Props {
  title: string;
  at: readonly number[];
  lines: readonly Line[];
  marks: readonly Mark[];
  /** Which windows are counted in part alone. */
  partial: readonly boolean[];
  window: number;
  unit: string;
}

/** The plot in which a pointer draws; the others of the page show what it draws, and do not act on it. */
let drawing: uPlot | undefined;

/** The moment under the crosshair, and where it is in the plot, in pixels. */
interface Under {
  index: number;
  left: number;
  width: number;
}

/**
 * Values over time, from zero, with gaps where nothing was measured; marks are dashed lines. Dragging
 * chooses a part of the time for the page. By the keyboard: arrows move the crosshair, with Shift they
 * choose a part, Enter shows it, Escape gives it up.
 */
export default function Plot({ title, at, lines, marks, partial, window, unit }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const latest = useRef({ at, marks, partial, window });
  const anchor = useRef<number>(undefined);
  const [under, setUnder] = useState<Under>();
  const theme = useTheme();
  const zone = useZone();
  const { show, reset } = useSpan();
  const act = useRef({ show, reset });
  useEffect(() => {
    act.current = { show, reset };
  });
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
        cursor: {
          y: false,
          sync: { key: crosshair },
          drag: { x: true, y: false, setScale: false, dist: drawn },
          points: { size: 6 },
          bind: {
            mousedown: (self, _, handler) => (event) => {
              if (event.button !== 0) return null;
              drawing = self;
              return handler(event);
            },
            // A pointer that draws and leaves has come to the edge; it may come back.
            mouseleave: (self, _, handler) => (event) => {
              if (drawing !== self || (event.buttons & 1) === 0) return handler(event);
              const box = self.over.getBoundingClientRect();
              (self as unknown as Moves).setCursor({ left: Math.max(0, Math.min(box.width, event.clientX - box.left)), top: 0 }, true, true);
              return null;
            },
            dblclick: () => () => {
              act.current.reset();
              return null;
            },
          },
        },
        scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.05, 1)] } },
        axes: [
          { ...axis, size: 24, values: (_, splits) => splits.map((second) => clock(second)), grid: { show: false } },
          { ...axis, size: 48, space: 36, values: (_, splits) => splits.map((value) => number(value, 1)) },
        ],
        series: [{}, ...lines.map((line) => ({ label: line.name, stroke: color(line.color), fill: color(line.color) + area, width: 1.5, points: { show: true, filter: alone, size: 4 } }))],
        hooks: {
          setCursor: [(self) => setUnder((before) => pointed(self, before))],
          setSelect: [
            (self) => {
              const { left, width } = self.select;
              unselect(self);
              if (drawing !== self) return;
              const span = spanOf(latest.current.at, self.posToVal(left, "x"), self.posToVal(left + width, "x"));
              drawing = undefined;
              if (!self.over.matches(":hover")) (self as unknown as Moves).setCursor({ left: -10, top: -10 }, true, true);
              if (span) act.current.show(span);
            },
          ],
          drawClear: [(self) => shade(self, latest.current, color("--warn-soft"))],
          draw: [(self) => drawMarks(self, latest.current.marks, color("--muted"))],
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
    latest.current = { at, marks, partial, window };
    plot.current?.setData([[...at], ...lines.map((line) => [...line.values])]);
  }, [at, lines, marks, partial, window, theme, zone, names]);

  const point = (index: number) => {
    const self = plot.current;
    const second = at[index];
    if (self && second !== undefined) (self as unknown as Moves).setCursor({ left: self.valToPos(second, "x"), top: 0 }, true, true);
  };
  const leave = () => {
    anchor.current = undefined;
    if (!plot.current) return;
    unselect(plot.current);
    (plot.current as unknown as Moves).setCursor({ left: -10, top: -10 }, true, true);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const self = plot.current;
    const index = under?.index ?? at.length - 1;
    const chosen = anchor.current;
    const to = moved(event.key, index, at.length);
    if (!self || event.ctrlKey || event.metaKey || event.altKey) return;
    if (to !== undefined) {
      event.preventDefault();
      anchor.current = event.shiftKey ? (chosen ?? index) : undefined;
      point(to);
      const [one, other] = [at[anchor.current ?? to] ?? 0, at[to] ?? 0].map((second) => self.valToPos(second, "x")) as [number, number];
      self.setSelect({ left: Math.min(one, other), width: Math.abs(one - other), top: 0, height: self.over.clientHeight }, false);
    } else if (chosen !== undefined && (event.key === "Enter" || event.key === "Escape")) {
      event.preventDefault();
      anchor.current = undefined;
      unselect(self);
      const span = spanOf(at, at[chosen] ?? 0, at[index] ?? 0);
      if (event.key === "Enter" && span) show(span);
    }
  };
  const second = under === undefined ? undefined : at[under.index];
  const marked = second === undefined ? [] : marks.filter((mark) => Math.abs(mark.at - second) <= window);
  const isPartial = under !== undefined && partial[under.index] === true;
  const description = second === undefined || under === undefined ? "no moment is chosen" : [clock(second, 19), ...(isPartial ? [counted] : []), ...lines.map((line) => `${line.name} ${value(line, under)}`), unit, ...marked.map((mark) => mark.text)].join(", ");
  return (
    <div className="relative min-w-0">
      <div
        ref={place}
        className="min-w-0"
        role="slider"
        tabIndex={0}
        aria-label={`${title}: moment`}
        aria-description="Arrow keys move through the moments. With Shift they choose a part of the time, Enter shows it, Escape goes back."
        aria-valuemin={0}
        aria-valuemax={Math.max(0, at.length - 1)}
        aria-valuenow={under?.index ?? Math.max(0, at.length - 1)}
        aria-valuetext={description}
        onKeyDown={onKeyDown}
        onFocus={(event) => {
          if (event.currentTarget.matches(":focus-visible") && !under) point(at.length - 1);
        }}
        onBlur={leave}
      />
      {second === undefined || under === undefined ? null : (
        <div
          aria-hidden="true"
          className="menu pointer-events-none absolute top-1 max-w-64 min-w-0 px-2 py-1.5 text-sm"
          style={under.left > under.width / 2 ? { right: under.width - under.left + 12 } : { left: under.left + 12 }}
        >
          <p className="text-muted">
            {clock(second, 19)} <span className="float-right pl-3">{unit}</span>
          </p>
          <ul>
            {lines.map((line) => (
              <li key={line.name} className="flex items-center gap-1.5">
                <span className="h-0.5 w-3 shrink-0 rounded" style={{ background: `var(${line.color})` }} />
                <span className="text-muted flex-1">{line.name}</span> <span className="pl-2">{value(line, under)}</span>
              </li>
            ))}
            {isPartial ? <li className="text-warn">{counted}</li> : null}
            {marked.map((mark) => (
              <li key={`${mark.at} ${mark.text}`} className="border-border mt-1 border-t pt-1 break-words">
                {mark.text}
              </li>
            ))}
          </ul>
        </div>
      )}
    </div>
  );
}

function value(line: Line, { index }: Under): string {
  return number(line.values[index] ?? undefined, 2);
}

/** The moment under the crosshair of a plot; the one before if it is the same. */
function pointed(self: uPlot, before: Under | undefined): Under | undefined {
  const index = self.cursor.idx ?? undefined;
  const second = index === undefined || (self.cursor.left ?? -1) < 0 ? undefined : self.data[0][index];
  if (index === undefined || second === undefined) return undefined;
  const left = Math.round(self.over.offsetLeft + self.valToPos(second, "x"));
  return before?.index === index && before.left === left ? before : { index, left, width: self.width };
}

function unselect(self: uPlot): void {
  self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
}

/** Values between two gaps have no line: they are shown as points. */
function alone(self: uPlot, series: number): number[] {
  const values = Array.from<number | null | undefined>(self.data[series] ?? []);
  const missing = (index: number) => (values[index] ?? null) === null;
  return values.flatMap((_, index) => (!missing(index) && missing(index - 1) && missing(index + 1) ? [index] : []));
}

/** Shades the windows that are counted in part alone, below the grid and the lines. */
function shade(self: uPlot, { at, partial, window }: { at: readonly number[]; partial: readonly boolean[]; window: number }, color: string): void {
  const { ctx, bbox } = self;
  ctx.save();
  ctx.fillStyle = color;
  at.forEach((second, n) => {
    if (!partial[n]) return;
    const [left, right] = [self.valToPos(second - window / 2, "x", true), self.valToPos(second + window / 2, "x", true)].map((x) => Math.min(Math.max(x, bbox.left), bbox.left + bbox.width)) as [number, number];
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
  });
  ctx.restore();
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
