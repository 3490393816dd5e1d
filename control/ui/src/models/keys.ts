/** The keys of a model's document by place; "*" is a name that the document gives, "[]" an entry of a list. */
const grammar: Record<string, readonly string[]> = {
  "": ["model", "description", "aggregates", "views", "workflows"],
  "aggregates.*": ["description", "commands", "evolve", "events"],
  "aggregates.*.commands.*": ["description", "internal", "payload", "require", "emit"],
  "aggregates.*.commands.*.require.[]": ["that", "else"],
  "aggregates.*.commands.*.emit.[]": ["event", "when", "data"],
  "aggregates.*.commands.*.payload": ["type", "additionalProperties", "required", "properties"],
  "aggregates.*.commands.*.payload.properties.*": ["type", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum"],
  "aggregates.*.events.*": ["version", "upcasts"],
  "aggregates.*.events.*.upcasts.[]": ["from", "set", "drop"],
  "views.*": ["description", "key", "columns", "on"],
  "views.*.columns.*": ["type", "index", "description"],
  "views.*.on.*": ["upsert", "patch", "delete", "fold"],
  "workflows.*": ["description", "on", "from", "when", "steps", "on_failure", "migrate"],
  "workflows.*.migrate.[]": ["from", "rename", "drop"],
};

const step = ["name", "submit", "webhook", "retry", "undo", "wait", "parallel"];
const command = ["aggregate", "id", "command", "payload"];
const inStep: Record<string, readonly string[]> = { "": step, submit: command, undo: command, webhook: ["url", "body"], retry: ["for", "attempts"], "parallel.[]": step, "parallel.[].submit": command, "parallel.[].undo": command, "parallel.[].webhook": ["url", "body"], "parallel.[].retry": ["for", "attempts"] };
for (const steps of ["steps", "on_failure"]) for (const [place, keys] of Object.entries(inStep)) grammar[["workflows.*", steps, "[]", ...(place === "" ? [] : [place])].join(".")] = keys;

/** The values that a key can have, where they are few. */
const values: Record<string, readonly string[]> = {
  "aggregates.*.commands.*.internal": ["true", "false"],
  "views.*.columns.*": ["string", "int", "double", "bool", "timestamp", "json"],
  "views.*.columns.*.type": ["string", "int", "double", "bool", "timestamp", "json"],
  "views.*.columns.*.index": ["true", "false"],
  "workflows.*.from": ["now", "beginning"],
};

const name = /^(\s*)((?:- )*)([^\s:#'"{[][^:]*)?(:)?/;

/** The path of the place where a line would stand with this indentation: the keys and entries above it. */
function pathOf(lines: readonly string[], indent: number): string[] {
  const path: string[] = [];
  let below = indent;
  for (let n = lines.length - 1; n >= 0 && below > 0; n--) {
    const line = lines[n] ?? "";
    const found = name.exec(line);
    if (!found || line.trim() === "" || line.trim().startsWith("#")) continue;
    const [, space = "", dashes = "", key = "", colon] = found;
    let at = space.length + dashes.length;
    if (key !== "" && colon && at < below) {
      path.unshift(key.trim());
      below = at;
    }
    // An entry of a list stands below the key of the list, which has the same indentation or less.
    while (dashes !== "" && at > space.length) {
      at -= 2;
      if (at + 1 < below) {
        path.unshift("[]");
        below = at + 1;
      }
    }
  }
  return path;
}

/** The path with the names that the document gives as "*". */
function place(path: readonly string[]): string {
  const out: string[] = [];
  for (const part of path) {
    const next = [...out, part].join(".");
    const known = Object.keys(grammar).concat(Object.keys(values));
    const isKnown = part === "[]" || known.some((key) => key === next || key.startsWith(`${next}.`)) || (grammar[out.join(".")] ?? []).includes(part);
    out.push(isKnown ? part : "*");
  }
  return out.join(".");
}

/** What can be written at the end of the text: keys of the place, or values of the key on the line. */
export function suggestions(text: string): { from: number; options: readonly string[]; kind: "key" | "value" } | undefined {
  const lines = text.split("\n");
  const line = lines.pop() ?? "";
  const start = text.length - line.length;
  const value = /^(\s*(?:- )*)([\w-]+):\s+(\w*)$/.exec(line);
  if (value) {
    const [, lead = "", key = "", typed = ""] = value;
    const options = values[place([...pathOf([...lines, ...(lead.includes("-") ? [lead] : [])], lead.length), key])];
    return options && { from: text.length - typed.length, options, kind: "value" };
  }
  const found = /^(\s*(?:- )*)([\w]*)$/.exec(line);
  if (!found) return undefined;
  const [, lead = "", typed = ""] = found;
  const options = grammar[place(pathOf([...lines, ...(lead.includes("-") ? [lead] : [])], lead.length))];
  return options && { from: start + lead.length, options: options.filter((one) => one.startsWith(typed)), kind: "key" };
}
