import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Hop } from "../gen/control/v1/timeline_pb";

export interface Bar {
  hop: Hop;
  /** Where it begins and how long it is, in hundredths of the whole. */
  left: number;
  width: number;
  /** Milliseconds after the first. */
  after: number;
}

const nanos = (hop: Hop) => (hop.started ? timestampMs(hop.started) + (hop.started.nanos % 1_000_000) / 1e6 : 0);

/** Lays hops out on one line of time. A hop without a length is a point, and still to be seen. */
export function bars(hops: Hop[]): { bars: Bar[]; total: number } {
  const first = Math.min(...hops.map(nanos));
  const total = Math.max(...hops.map((hop) => nanos(hop) + hop.ms)) - first || 1;
  return {
    total,
    bars: hops.map((hop) => {
      const after = nanos(hop) - first;
      return { hop, after, left: (after / total) * 100, width: Math.max((hop.ms / total) * 100, 0.6) };
    }),
  };
}
