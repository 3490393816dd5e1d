import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { duration } from "../app/format";

const day = 86_400_000;

/** The time before the end of a certificate from which on it is a warning: as long as the alert HeadgateCertificateExpires. */
const soon = 14 * day;

/** When a certificate expires, in words, and how urgent that is. Times are in milliseconds. */
export function expiry(end: number, now = Date.now()): { tone: "bad" | "warn" | "ok"; words: string } {
  if (end <= now) return { tone: "bad", words: `expired ${duration(now - end)} ago` };
  return { tone: end - now < soon ? "warn" : "ok", words: `in ${duration(end - now)}` };
}

/** The text for a certificate that has expired or expires soon; "" for others. */
export function expires(end: Timestamp): string {
  const { tone, words } = expiry(timestampMs(end));
  return tone === "ok" ? "" : tone === "bad" ? words : `expires ${words}`;
}
