/** A part of a model's document that has a name. */
export interface Entry {
  section: "aggregates" | "views" | "workflows";
  name: string;
  /** The aggregate of a command; "" for other parts. */
  aggregate: string;
  line: number;
}

const key = /^(\s*)([A-Za-z_][\w-]*)\s*:\s*([|>]?)/;

/** The aggregates with their commands, the views and the workflows of a document, in its order. */
export function outline(text: string): Entry[] {
  const out: Entry[] = [];
  const path: { indent: number; name: string }[] = [];
  let folded: number | undefined; // the indentation of a text of several lines
  text.split("\n").forEach((line, n) => {
    const indent = line.length - line.trimStart().length;
    if (line.trim() === "" || (folded !== undefined && indent > folded)) return;
    folded = undefined;
    const [found, , name = "", block = ""] = key.exec(line) ?? [];
    if (found === undefined) return;
    while (path.length > 0 && (path.at(-1)?.indent ?? 0) >= indent) path.pop();
    path.push({ indent, name });
    if (block !== "") folded = indent;
    const [section, first = "", part, second = ""] = path.map((one) => one.name);
    if (section !== "aggregates" && section !== "views" && section !== "workflows") return;
    if (path.length === 2) out.push({ section, name: first, aggregate: "", line: n + 1 });
    if (path.length === 4 && section === "aggregates" && part === "commands") out.push({ section, name: second, aggregate: first, line: n + 1 });
  });
  return out;
}
