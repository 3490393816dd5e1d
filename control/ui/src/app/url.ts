import { useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";

/** The query of the address, all strings. */
export type Search = Record<string, string | undefined>;

export function parseSearch(text: string): Search {
  return Object.fromEntries(new URLSearchParams(text));
}

export function stringifySearch(search: Record<string, unknown>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    if (typeof value === "string" && value !== "") params.set(name, value);
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/**
 * The state of a screen is its address: every place can be linked to. A change is a step that Back
 * undoes, unless it replaces the place; the page does not scroll.
 */
export function useUrl(): [(name: string) => string, (patch: Search, options?: { replace?: boolean }) => void] {
  const search = useSearch({ strict: false }) as Search;
  const navigate = useNavigate();
  return [
    (name) => search[name] ?? "",
    (patch, { replace = false } = {}) => void navigate({ to: ".", search: (before: Search) => ({ ...before, ...patch }), replace, resetScroll: false }),
  ];
}

/** The time from the last key to the change of the address, or to the request, in milliseconds. */
export const pause = 350;

/** Follows a value once it has not changed for a pause: several keys are one request. */
export function usePaused<T>(value: T): T {
  const [paused, setPaused] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setPaused(value), pause);
    return () => clearTimeout(timer);
  }, [value]);
  return paused;
}

/**
 * A text of the address that is typed: the address follows when the typing pauses, or at commit. Texts
 * of the address in "clears" are removed with a change, such as the page of a list.
 */
export function useTyped(name: string, clears: readonly string[] = []): { text: string; type: (text: string) => void; commit: () => void } {
  const [get, set] = useUrl();
  const current = get(name);
  const [typed, setTyped] = useState<string>();
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const apply = (text: string) => {
    clearTimeout(timer.current);
    if (text !== current) set({ [name]: text, ...Object.fromEntries(clears.map((one) => [one, ""])) }, { replace: true });
    setTyped(undefined);
  };
  return {
    text: typed ?? current,
    type: (text) => {
      setTyped(text);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => apply(text), pause);
    },
    commit: () => {
      if (typed !== undefined) apply(typed);
    },
  };
}
