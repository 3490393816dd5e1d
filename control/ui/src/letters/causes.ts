import type { DeadLetter } from "../gen/runner/admin/v1/admin_pb";

/** Dead letters with one cause. */
export interface Cause {
  /** The cause, with all that may differ between letters left out: it names the group. */
  name: string;
  /** The cause, with only that left out which differs between the letters of the group. */
  text: string;
  letters: DeadLetter[];
}

// What may differ between letters: quoted texts, ids, numbers.
const varying = /"[^"]*"|'[^']*'|“[^”]*”|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b\w*\d[\w.]*\b/gi;

const placeholder = (part: string) => (/^["'“]/.test(part) ? "“…”" : "…");

/** A cause without what may differ between letters. */
export function general(cause: string): string {
  return cause.replaceAll(varying, placeholder);
}

/** A cause without what differs between causes that are the same in general. */
function common(causes: string[]): string {
  const parts = causes.map((cause) => cause.match(varying) ?? []);
  let n = -1;
  return (causes[0] ?? "").replaceAll(varying, (part) => {
    n++;
    return parts.every((of) => of[n] === part) ? part : placeholder(part);
  });
}

/** Groups letters by cause, the most frequent first. */
export function causes(letters: DeadLetter[]): Cause[] {
  const groups = new Map<string, DeadLetter[]>();
  for (const letter of letters) {
    const name = general(letter.cause);
    groups.set(name, [...(groups.get(name) ?? []), letter]);
  }
  return [...groups.entries()].map(([name, of]) => ({ name, text: common(of.map((letter) => letter.cause)), letters: of })).sort((a, b) => b.letters.length - a.letters.length);
}
