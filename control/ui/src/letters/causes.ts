import type { DeadLetter } from "../gen/runner/admin/v1/admin_pb";

/** Dead letters with one cause. */
export interface Cause {
  /** The cause, with what differs between letters left out. */
  name: string;
  letters: DeadLetter[];
}

/** A cause without what differs between letters: quoted texts, ids, numbers. */
export function general(cause: string): string {
  return cause
    .replaceAll(/"[^"]*"|'[^']*'|“[^”]*”/g, "“…”")
    .replaceAll(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, "…")
    .replaceAll(/\b\w*\d[\w.]*\b/g, "…");
}

/** Groups letters by cause, the most frequent first. */
export function causes(letters: DeadLetter[]): Cause[] {
  const groups = new Map<string, DeadLetter[]>();
  for (const letter of letters) {
    const name = general(letter.cause);
    groups.set(name, [...(groups.get(name) ?? []), letter]);
  }
  return [...groups.entries()].map(([name, of]) => ({ name, letters: of })).sort((a, b) => b.letters.length - a.letters.length);
}
