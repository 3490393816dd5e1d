/** A command that was submitted, or that is a template: what the form is filled with. */
export interface Entry {
  type: string;
  command: string;
  id: string;
  texts: Record<string, string>;
  /** When it was stored, in milliseconds of the browser's clock. */
  at: number;
  /** A template's name; "": it is in the history. */
  name: string;
  /** How a submitted command ended: "done" or the error's code. */
  outcome: string;
  /** By which what a submitted command has caused is found, and its tenant. */
  correlation?: string | undefined;
  tenant?: string | undefined;
}

/** What is stored of a principal, the latest first. */
export interface Stored {
  history: Entry[];
  templates: Entry[];
}

export const mostHistory = 30;
export const mostTemplates = 20;
const mostCharacters = 4_096; // of an entry's JSON

function isEntry(one: unknown): one is Entry {
  if (typeof one !== "object" || one === null) return false;
  const { type, command, id, name, outcome, at, texts, correlation = "", tenant = "" } = one as Partial<Entry>;
  const isTexts = typeof texts === "object" && texts !== null && Object.values(texts).every((text) => typeof text === "string");
  return [type, command, id, name, outcome, correlation, tenant].every((text) => typeof text === "string") && typeof at === "number" && isTexts;
}

function entries(list: unknown, most: number): Entry[] {
  return Array.isArray(list) ? list.filter(isEntry).slice(0, most) : [];
}

/** Reads what is stored; what is nothing of it is left out. */
export function parseStored(text: string | null): Stored {
  try {
    const { history, templates } = JSON.parse(text ?? "{}") as Partial<Stored>;
    return { history: entries(history, mostHistory), templates: entries(templates, mostTemplates) };
  } catch {
    return { history: [], templates: [] };
  }
}

/** Adds a submitted command, or a template, which replaces the one of its name. A large one is not stored. */
export function withEntry(stored: Stored, entry: Entry): Stored {
  if (JSON.stringify(entry).length > mostCharacters) return stored;
  if (entry.name === "") return { ...stored, history: [entry, ...stored.history].slice(0, mostHistory) };
  return { ...stored, templates: [entry, ...stored.templates.filter((one) => one.name !== entry.name)].slice(0, mostTemplates) };
}
