import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { SeriesPoint } from "../gen/control/v1/metrics_pb";

/** A part of a series, in seconds of the epoch. */
export interface Span {
  from: number;
  to: number;
}

/** Reads two moments of the address (RFC 3339). Undefined: they name no time. */
export function parseSpan(from: string, to: string): Span | undefined {
  const [first, last] = [Date.parse(from) / 1000, Date.parse(to) / 1000];
  return Number.isFinite(first) && Number.isFinite(last) && first < last ? { from: first, to: last } : undefined;
}

/** Writes a moment for the address, to the second. */
export function writeMoment(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");
}

/** The span between two moments, in either order, from the first window's end to the last one's. Undefined: fewer than two windows end in it. */
export function spanOf(at: readonly number[], one: number, other: number): Span | undefined {
  const [from, to] = [Math.min(one, other), Math.max(one, other)];
  const inside = at.filter((second) => second >= from && second <= to);
  const [first, last] = [inside[0], inside.at(-1)];
  return first === undefined || last === undefined || first === last ? undefined : { from: first, to: last };
}

/** The windows that end in a span; without one, all. */
export function within(points: readonly SeriesPoint[], span: Span | undefined): SeriesPoint[] {
  if (!span) return [...points];
  return points.filter(({ end }) => {
    const second = end ? timestampDate(end).getTime() / 1000 : 0;
    return second >= span.from && second <= span.to;
  });
}

/** The window that a key moves to, of a number of windows; undefined: the key does not move. */
export function moved(key: string, index: number, count: number): number | undefined {
  const to = { ArrowLeft: index - 1, ArrowRight: index + 1, PageUp: index - 10, PageDown: index + 10, Home: 0, End: count - 1 }[key];
  return to === undefined ? undefined : Math.max(0, Math.min(count - 1, to));
}
