import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Span } from "../gen/control/v1/timeline_pb";

export interface Bar {
  span: Span;
  /** Where it begins and how long it is, in percent of the whole. */
  left: number;
  width: number;
  /** Milliseconds after the first span. */
  after: number;
}

const nanos = (span: Span) => (span.started ? timestampMs(span.started) + (span.started.nanos % 1_000_000) / 1e6 : 0);

/** Whether a span has failed: anything that did not end well, or by an operator's decision. */
export function failed(span: Span): boolean {
  return !["", "ok", "done", "skipped"].includes(span.code);
}

/** Lays spans out on one axis of time. A span without a length is a point, and still visible. */
export function bars(spans: Span[]): { bars: Bar[]; total: number } {
  const first = Math.min(...spans.map(nanos));
  const total = Math.max(...spans.map((span) => nanos(span) + span.ms)) - first || 1;
  return {
    total,
    bars: spans.map((span) => {
      const after = nanos(span) - first;
      return { span, after, left: (after / total) * 100, width: Math.max((span.ms / total) * 100, 0.6) };
    }),
  };
}
