import { useSyncExternalStore } from "react";

/** The time zone of every time that is shown: the browser's, or UTC. */
export type Zone = "local" | "utc";

const key = "headgate.zone";
const listeners = new Set<() => void>();
let zone: Zone = localStorage.getItem(key) === "utc" ? "utc" : "local";

export function currentZone(): Zone {
  return zone;
}

export function setZone(next: Zone): void {
  zone = next;
  localStorage.setItem(key, next);
  for (const listener of listeners) listener();
}

export function useZone(): Zone {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => zone,
  );
}

let names: Intl.DateTimeFormat | undefined;

/** The zone's short name, such as "UTC" or "GMT+2". */
export function zoneName(of: Zone = zone): string {
  if (of === "utc") return "UTC";
  names ??= new Intl.DateTimeFormat("en", { timeZoneName: "short" });
  return names.formatToParts(new Date()).find((part) => part.type === "timeZoneName")?.value ?? "local";
}
