import { useSyncExternalStore } from "react";

const key = "headgate.theme";
const listeners = new Set<() => void>();

function chosen(): "dark" | "light" {
  const stored = localStorage.getItem(key);
  if (stored === "dark" || stored === "light") return stored;
  return matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

export function applyTheme(): void {
  document.documentElement.dataset["theme"] = chosen();
  for (const listener of listeners) listener();
}

export function toggleTheme(): void {
  localStorage.setItem(key, chosen() === "dark" ? "light" : "dark");
  applyTheme();
}

/** The theme, for what cannot take its colours from the style sheet. */
export function useTheme(): string {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => document.documentElement.dataset["theme"] ?? "",
  );
}
