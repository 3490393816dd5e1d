import { timestampDate } from "@bufbuild/protobuf/wkt";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { moment, unknown } from "../app/format";
import { useTheme } from "../app/theme";
import { useZone } from "../app/zone";
import type { Fleet } from "../gen/control/v1/fleet_pb";
import { lastMinute } from "./history";

/** Seconds without data that are shown as a gap. */
const gap = 10;

/** A moment of an axis, without its date. */
const clock = (seconds: number) => moment(new Date(seconds * 1000)).slice(11, 19);

/** Calls and latency at the gateways since the screen was opened. */
export default function Chart({ history }: { history: Fleet[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const theme = useTheme();
  const zone = useZone();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const color = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name);
    const axis = { stroke: color("--muted"), font: "12px Inter", labelFont: "12px Inter", grid: { stroke: color("--border"), width: 1 }, ticks: { stroke: color("--border") } };
    plot.current = new uPlot(
      {
        width: element.clientWidth,
        height: 180,
        // The axis is in the console's time zone, as every other time.
        tzDate: (seconds) => (zone === "utc" ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
        scales: { ms: { range: (_, __, max) => [0, Math.max(max, 1)] }, y: { range: (_, __, max) => [0, Math.max(max, 1)] } },
        axes: [{ ...axis, values: (_, splits) => splits.map(clock) }, { ...axis, label: "calls/s" }, { ...axis, side: 1, scale: "ms", label: "p99, ms", grid: { show: false } }],
        series: [{ label: "Time", value: (_, seconds: number | null) => (seconds === null ? unknown : clock(seconds)) }, { label: "calls/s", stroke: color("--series-2"), width: 1.5 }, { label: "p99 of the slowest gateway, ms", stroke: color("--series-1"), width: 1.5, scale: "ms" }],
      },
      [[], [], []],
      element,
    );
    const resize = () => plot.current?.setSize({ width: element.clientWidth, height: 180 });
    addEventListener("resize", resize);
    return () => {
      removeEventListener("resize", resize);
      plot.current?.destroy();
    };
  }, [theme, zone]);
  useEffect(() => {
    const at: number[] = [];
    const calls: (number | null)[] = [];
    const slowest: (number | null)[] = [];
    for (const fleet of history) {
      const seconds = fleet.taken ? timestampDate(fleet.taken).getTime() / 1000 : 0;
      const before = at.at(-1);
      // Missing data is a gap, never a line.
      if (before !== undefined && seconds - before > gap) {
        at.push(before + 1);
        calls.push(null);
        slowest.push(null);
      }
      const gateways = fleet.nodes.filter((node) => node.kind === "gateway");
      at.push(seconds);
      calls.push(gateways.reduce((sum, node) => sum + (node.load?.callsPerSecond ?? 0), 0));
      slowest.push(Math.max(0, ...gateways.map((node) => node.load?.p99Ms ?? 0)));
    }
    if (lastMinute(at)) {
      calls.unshift(null);
      slowest.unshift(null);
    }
    plot.current?.setData([at, calls, slowest]);
  }, [history, theme, zone]);
  return (
    <section aria-label="Gateways since this screen was opened" className="panel">
      <h2>Gateways since this screen was opened</h2>
      <div ref={place} />
    </section>
  );
}
