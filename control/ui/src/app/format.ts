import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";

/** What stands where something is not known. */
export const unknown = "–";

export function number(value: number | bigint | undefined, digits = 0): string {
  if (value === undefined) return unknown;
  return typeof value === "bigint" ? value.toLocaleString("en") : value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function ms(value: number | undefined): string {
  if (value === undefined || value === 0) return unknown;
  if (value >= 1000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 1 : 0)} ms`;
}

export function bytes(value: bigint | undefined): string {
  if (value === undefined || value === 0n) return unknown;
  return `${number(Number(value) / (1 << 20))} MiB`;
}

export function time(value: Timestamp | undefined): string {
  return value ? timestampDate(value).toISOString().replace("T", " ").slice(0, 23) : unknown;
}

/** How long ago, or how long something has run. */
export function since(value: Timestamp | undefined, now = Date.now()): string {
  if (!value) return unknown;
  const seconds = Math.max(0, Math.round((now - timestampDate(value).getTime()) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The last part of an enum's name: NODE_STATE_NOT_READY of NODE_STATE is "not ready". */
export function enumName(names: Record<number, string | undefined>, value: number): string {
  return (names[value] ?? unknown).toLowerCase().replaceAll("_", " ");
}
