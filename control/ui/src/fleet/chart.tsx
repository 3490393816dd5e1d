import { timestampDate } from "@bufbuild/protobuf/wkt";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { useTheme } from "../app/theme";
import type { Fleet } from "../gen/control/v1/fleet_pb";

/** What the gateways have answered since the screen was opened, and how slowly. */
export function Chart({ history }: { history: Fleet[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const theme = useTheme();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const color = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name);
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    plot.current = new uPlot(
      {
        width: element.clientWidth,
        height: 180,
        scales: { ms: { range: (_, __, max) => [0, Math.max(max, 1)] }, y: { range: (_, __, max) => [0, Math.max(max, 1)] } },
        axes: [axis, { ...axis, label: "calls/s" }, { ...axis, side: 1, scale: "ms", label: "p99, ms", grid: { show: false } }],
        series: [{}, { label: "calls/s", stroke: color("--accent"), width: 2 }, { label: "p99 of the slowest gateway, ms", stroke: color("--warn"), width: 2, scale: "ms" }],
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
  }, [theme]);
  useEffect(() => {
    const gateways = history.map((fleet) => fleet.nodes.filter((node) => node.kind === "gateway"));
    plot.current?.setData([
      history.map((fleet) => (fleet.taken ? timestampDate(fleet.taken).getTime() / 1000 : 0)),
      gateways.map((nodes) => nodes.reduce((sum, node) => sum + (node.load?.callsPerSecond ?? 0), 0)),
      gateways.map((nodes) => Math.max(0, ...nodes.map((node) => node.load?.p99Ms ?? 0))),
    ]);
  }, [history, theme]);
  return (
    <section aria-label="What the gateways have answered since this was opened">
      <h2>Gateways, since this was opened</h2>
      <div ref={place} />
    </section>
  );
}
