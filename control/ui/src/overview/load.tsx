import type { ReactNode } from "react";
import type { SeriesPoint } from "../gen/control/v1/metrics_pb";
import { ms, number } from "../app/format";
import { useZone } from "../app/zone";
import type { StatTone } from "../parts/card";
import { Spark } from "../parts/spark";
import { Chart, type Line, type Mark } from "./chart";
import { useSpan } from "./range";
import { availability, column, ends, isLowerBound, latest, partial, percent, values, windowName, type Read } from "./series";
import { within } from "./span";

export interface Series {
  seconds: number;
  points: SeriesPoint[];
}

/** A number of now or of the whole range, with its course below it. */
export function Tile({ name, value, note, tone = "plain", spark }: { name: string; value: ReactNode; note: string; tone?: StatTone; spark?: ReactNode }) {
  const color = { plain: "", warn: "text-warn", bad: "text-bad" }[tone];
  return (
    <div className="border-border bg-surface flex min-w-0 flex-col rounded-lg border px-4 py-3">
      <dt className="text-muted truncate text-sm">{name}</dt>
      <dd className="flex items-center justify-between gap-2">
        <span className={`text-xl font-semibold whitespace-nowrap ${color}`}>{value}</span>
        {spark}
      </dd>
      <dd className="text-muted truncate text-sm" title={note}>
        {note}
      </dd>
    </div>
  );
}

/** Tiles in rows of four, or of six. */
export function Tiles({ label, six = false, children }: { label: string; six?: boolean; children: ReactNode }) {
  return (
    <dl aria-label={label} className={`grid grid-cols-2 gap-3 ${six ? "md:grid-cols-3 min-[1400px]:grid-cols-6" : "lg:grid-cols-4"}`}>
      {children}
    </dl>
  );
}

export const course = ({ points }: Series, read: Read, name: string) => <Spark values={points.map(read)} label={`${name} over the range`} width={72} />;

/** Availability, calls, latency and what was rejected: of the platform or of a tenant. */
export function CallTiles({ series, range }: { series: Series; range: string }) {
  const { points, seconds } = series;
  const now = (read: Read) => latest(points, read);
  const recent = `per second, last ${windowName(seconds)}`;
  const least = isLowerBound(points) ? "≥ " : "";
  const { span } = useSpan();
  const share = availability(within(points, span));
  const errors = now(values.errors) ?? 0;
  const limited = now(values.limited) ?? 0;
  return (
    <>
      <Tile name="Availability" value={percent(share)} note={span ? (share === undefined ? "no calls in the chosen time" : "of calls, in the chosen time") : share === undefined ? `no calls in the ${range}` : `of calls, ${range}`} tone={share !== undefined && share < 0.999 ? (share < 0.99 ? "bad" : "warn") : "plain"} />
      <Tile name="Calls" value={`${least}${number(now(values.calls), 1)}/s`} note={`${number(now(values.commands), 1)} commands, ${number(now(values.queries), 1)} queries/s`} spark={course(series, values.calls, "Calls")} />
      <Tile name="p99" value={ms(now(values.p99))} note={`p50 ${ms(now(values.p50))}, p95 ${ms(now(values.p95))}`} spark={course(series, values.p99, "p99")} />
      <Tile name="Failed by the platform" value={`${least}${number(now(values.errors), 2)}/s`} note={recent} tone={errors > 0 ? "bad" : "plain"} spark={course(series, values.errors, "Failed calls")} />
      <Tile name="Rejected by limits" value={`${least}${number(now(values.limited), 2)}/s`} note={recent} tone={limited > 0 ? "warn" : "plain"} spark={course(series, values.limited, "Rejected calls")} />
    </>
  );
}

/** How many events the views and workflows have not processed yet. */
export function LagTile({ series }: { series: Series }) {
  return <Tile name="Lag" value={number(latest(series.points, values.lag))} note="events not yet processed" spark={course(series, values.lag, "Lag")} />;
}

/** What only the whole platform has: dead letters, failed views; and its lag. */
export function PlatformTiles({ series }: { series: Series }) {
  const now = (read: Read) => latest(series.points, read);
  const [letters, failed] = [now(values.letters), now(values.failed)];
  return (
    <>
      <LagTile series={series} />
      <Tile name="Dead letters" value={number(letters)} note="of all tenants" tone={letters ? "bad" : "plain"} spark={course(series, values.letters, "Dead letters")} />
      <Tile name="Failed views" value={number(failed)} note="of all tenants" tone={failed ? "bad" : "plain"} spark={course(series, values.failed, "Failed views")} />
    </>
  );
}

/** What is measured of a series: of gateways the calls that clients make, of other nodes the calls that they answer; lag of nodes that process events. */
export interface Measured {
  edge: boolean;
  lag: boolean;
}

/** The charts of calls, latency, rejected calls and lag, of the part of the time that the address names. */
export function Charts({ series, marks = [], measured = { edge: true, lag: true } }: { series: Series; marks?: readonly Mark[]; measured?: Measured }) {
  // Times on the charts follow the console's zone.
  useZone();
  const { span } = useSpan();
  const { seconds } = series;
  const points = within(series.points, span);
  const at = ends(points);
  const line = (name: string, color: string, read: Read): Line => ({ name, color, values: column(points, read) });
  // Lag is measured at the window's end: it is whole.
  const counted = { partial: partial(points) };
  const isIncomplete = counted.partial.includes(true);
  const shared = { at, marks, window: seconds, ...(span ? { empty: "Nothing was measured in this part of the time." } : {}) };
  return (
    <>
    <div className={`grid gap-4 ${measured.lag ? "lg:grid-cols-2" : "lg:grid-cols-3"}`}>
      <Chart title="Throughput" unit="per second" lines={[line("calls", "--series-2", values.calls), ...(measured.edge ? [line("commands", "--series-1", values.commands), line("queries", "--series-3", values.queries)] : [])]} {...shared} {...counted} />
      <Chart title="Latency" unit="ms" lines={[line("p99", "--series-1", values.p99), line("p95", "--series-2", values.p95), line("p50", "--series-3", values.p50)]} {...shared} {...counted} />
      {measured.edge ? <Chart title="Failed and rejected calls" unit="per second" lines={[line("failed", "--bad", values.errors), line("rejected by limits", "--series-1", values.limited)]} {...shared} {...counted} /> : <Chart title="Failed calls" unit="per second" lines={[line("failed", "--bad", values.errors)]} {...shared} {...counted} />}
      {measured.lag ? <Chart title="Lag" unit="events" lines={[line("not yet processed", "--series-4", values.lag)]} {...shared} /> : null}
    </div>
    {isIncomplete ? <p className="text-muted text-sm">Shaded: a {measured.edge ? "gateway" : "node"} began to count within the window, so that calls are lower bounds.</p> : null}
    </>
  );
}
