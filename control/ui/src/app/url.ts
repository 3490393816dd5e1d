import { useNavigate, useSearch } from "@tanstack/react-router";

/** What the address says after the question mark, all strings. */
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

/** The state of a screen, which is its address: every place can be linked to. */
export function useUrl(): [(name: string) => string, (patch: Search) => void] {
  const search = useSearch({ strict: false }) as Search;
  const navigate = useNavigate();
  return [
    (name) => search[name] ?? "",
    (patch) => void navigate({ to: ".", search: (before: Search) => ({ ...before, ...patch }), replace: true }),
  ];
}
