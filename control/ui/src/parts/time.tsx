import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";
import { moment, unknown } from "../app/format";
import { useZone } from "../app/zone";

/** A moment in the console's time zone, which its reader can switch. */
export function Time({ of }: { of: Timestamp | Date | undefined }) {
  useZone();
  if (!of) return unknown;
  const date = of instanceof Date ? of : timestampDate(of);
  return <time dateTime={Number.isNaN(date.getTime()) ? undefined : date.toISOString()}>{moment(date)}</time>;
}
