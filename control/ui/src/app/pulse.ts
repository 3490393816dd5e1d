import { useEffect, useState, useSyncExternalStore } from "react";

// When the platform last answered, by the browser's clock: a connection that hangs has no error.
let answered = Date.now();
let visible = Date.now();
const listeners = new Set<() => void>();

/** The time without an answer after which nothing that is shown counts as current. */
export const silence = 6_000;

/** Notes that the platform has answered just now. */
export function answerReceived(): void {
  answered = Date.now();
  for (const listener of listeners) listener();
}

if (typeof document !== "undefined") {
  // A hidden tab asks for nothing, which is no silence.
  document.addEventListener("visibilitychange", () => {
    visible = Date.now();
    for (const listener of listeners) listener();
  });
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  const timer = setInterval(listener, 1_000);
  return () => {
    listeners.delete(listener);
    clearInterval(timer);
  };
}

/** Whether the platform has been silent for too long, as it changes. */
export function useSilent(): boolean {
  return useSyncExternalStore(subscribe, () => Date.now() - Math.max(answered, visible) > silence);
}

/** Whole seconds since the platform last answered, as they change. */
export function useSecondsSinceAnswer(): number {
  return useSyncExternalStore(subscribe, () => Math.max(0, Math.floor((Date.now() - answered) / 1000)));
}

/** Whole seconds since a moment, in milliseconds of the browser's clock, as they change. */
export function useSecondsSince(moment: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  return Math.max(0, Math.floor((now - moment) / 1000));
}
