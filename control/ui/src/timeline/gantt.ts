import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Span } from "../gen/control/v1/timeline_pb";

export interface Bar {
  span: Span;
  /** Where it begins and how long it is, in hundredths of the whole. */
  left: number;
  width: number;
  /** Milliseconds after the first. */
  after: number;
}

const nanos = (span: Span) => (span.started ? timestampMs(span.started) + (span.started.nanos % 1_000_000) / 1e6 : 0);

/** Lays spans out on one line of time. A span without a length is a point, and still to be seen. */
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
