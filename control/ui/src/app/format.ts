import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";
import { currentZone } from "./zone";

/** Stands for a value that is not known. */
export const unknown = "–";

// Made once for each number of digits: a format is expensive, its use is not.
const formats = new Map<number, Intl.NumberFormat>();

function format(digits: number): Intl.NumberFormat {
  let found = formats.get(digits);
  if (!found) formats.set(digits, (found = new Intl.NumberFormat("en", { maximumFractionDigits: digits })));
  return found;
}

export function number(value: number | bigint | undefined, digits = 0): string {
  return value === undefined ? unknown : format(digits).format(value);
}

export function ms(value: number | undefined): string {
  if (value === undefined || value === 0) return unknown;
  if (value >= 120_000) return `${number(value / 60_000, 1)} min`;
  if (value >= 1000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 1 : 0)} ms`;
}

/** Bytes in the largest binary unit of which there is one. */
export function bytes(value: bigint | undefined): string {
  if (value === undefined || value === 0n) return unknown;
  let size = Number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024) return `${number(size, size < 10 ? 1 : 0)} ${unit}`;
    size /= 1024;
  }
  return `${number(size, 1)} TiB`;
}

/** A moment in the chosen time zone, to the millisecond. */
export function moment(date: Date): string {
  if (Number.isNaN(date.getTime())) return unknown;
  const shown = currentZone() === "utc" ? date : new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return shown.toISOString().replace("T", " ").slice(0, 23);
}

/** A time for sorting and for export: RFC 3339 in UTC. */
export function instant(value: Timestamp | undefined): string {
  return value ? timestampDate(value).toISOString() : "";
}

/** How long ago, or how long something has run. */
export function since(value: Timestamp | undefined, now = Date.now()): string {
  if (!value) return unknown;
  return duration(now - timestampDate(value).getTime());
}

/** A length of time in its largest unit. */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The words of an enum's value: NODE_STATE_NOT_READY of NodeState is "not ready". */
export function enumName(names: Record<number, string | undefined>, value: number): string {
  return (names[value] ?? unknown).toLowerCase().replaceAll("_", " ");
}
