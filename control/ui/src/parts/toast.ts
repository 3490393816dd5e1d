import { useSyncExternalStore } from "react";

export interface Notice {
  id: number;
  tone: "ok" | "bad";
  text: string;
}

let notices: Notice[] = [];
let next = 1;
const listeners = new Set<() => void>();

function set(list: Notice[]): void {
  notices = list;
  for (const listener of listeners) listener();
}

/** Shows the result of an action for a few seconds, and announces it. */
export function toast(text: string, tone: "ok" | "bad" = "ok"): void {
  set([...notices.slice(-3), { id: next++, tone, text }]);
}

export function dismiss(id: number): void {
  set(notices.filter((one) => one.id !== id));
}

export function useNotices(): Notice[] {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => notices,
  );
}
