import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { SeriesPoint } from "../gen/control/v1/metrics_pb";
import { number, unknown } from "../app/format";

/** A value of a window; undefined was not measured. */
export type Read = (point: SeriesPoint) => number | undefined;

/** The values that a window of 15 seconds or 5 minutes can have. */
export const values = {
  calls: (point) => point.callsPerSecond,
  commands: (point) => point.commandsPerSecond,
  queries: (point) => point.queriesPerSecond,
  errors: (point) => point.errorsPerSecond,
  limited: (point) => point.limitedPerSecond,
  p50: (point) => point.p50Ms,
  p95: (point) => point.p95Ms,
  p99: (point) => point.p99Ms,
  lag: (point) => (point.lag === undefined ? undefined : Number(point.lag)),
  letters: (point) => (point.deadLetters === undefined ? undefined : Number(point.deadLetters)),
  failed: (point) => (point.failedViews === undefined ? undefined : Number(point.failedViews)),
} satisfies Record<string, Read>;

/** The windows that count as now: the last one may not be announced yet. */
const recent = 3;

/** The last measured value, if it is recent. */
export function latest(points: readonly SeriesPoint[], read: Read): number | undefined {
  return points.slice(-recent).map(read).findLast((value) => value !== undefined);
}

/** When the last values above zero began; undefined if none is, or if they are older than the series. */
export function began(points: readonly SeriesPoint[], read: Read): Date | undefined {
  const measured = points.filter((point) => read(point) !== undefined);
  const before = measured.findLastIndex((point) => read(point) === 0);
  const first = before < 0 ? undefined : measured[before + 1];
  return first?.end ? timestampDate(first.end) : undefined;
}

/** The share of all calls that did not fail by the platform's fault; undefined without calls. */
export function availability(points: readonly SeriesPoint[]): number | undefined {
  let [calls, errors] = [0, 0];
  for (const point of points) {
    calls += point.callsPerSecond ?? 0;
    errors += point.errorsPerSecond ?? 0;
  }
  return calls > 0 ? 1 - errors / calls : undefined;
}

/** A share in percent, rounded down: one failed call of many is not 100 %. */
export function percent(share: number | undefined): string {
  return share === undefined ? unknown : `${number(Math.floor(share * 10_000 + 1e-6) / 100, 2)} %`;
}

/** The ends of the windows in seconds, for the axis of a chart. */
export function ends(points: readonly SeriesPoint[]): number[] {
  return points.map((point) => (point.end ? timestampDate(point.end).getTime() / 1000 : 0));
}

/** A value of each window; null is a gap of a chart. */
export function column(points: readonly SeriesPoint[], read: Read): (number | null)[] {
  return points.map((point) => read(point) ?? null);
}

/** The windows whose calls are counted in part alone: a gateway, or the node, began to count within them. */
export function partial(points: readonly SeriesPoint[]): boolean[] {
  return points.map((point) => point.partial && point.callsPerSecond !== undefined);
}

/** Whether the last measured value of the calls is a lower bound. */
export function isLowerBound(points: readonly SeriesPoint[]): boolean {
  return points.slice(-recent).findLast((point) => point.callsPerSecond !== undefined)?.partial ?? false;
}

/** The length of a window in words. */
export function windowName(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : `${seconds / 60} min`;
}
