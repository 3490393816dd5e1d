/** A column that conditions are about. */
export interface Field {
  name: string;
  type: string;
}

/** A comparison of a condition, as the builder offers it. */
export type Comparison = "=" | "!=" | "<" | "<=" | ">" | ">=" | "begins" | "contains" | "set" | "unset";

export interface Condition {
  column: string;
  comparison: Comparison;
  value: string;
}

const words: Record<Comparison, string> = { "=": "is", "!=": "is not", "<": "<", "<=": "≤", ">": ">", ">=": "≥", begins: "begins with", contains: "contains", set: "has a value", unset: "has no value" };

const ordered: Comparison[] = ["=", "!=", "<", "<=", ">", ">="];

/** The comparisons that a column's type has, each with its words. */
export function comparisons(type: string): [Comparison, string][] {
  const own: Comparison[] = { string: ["=", "!=", "begins", "contains"] as Comparison[], bool: ["="] as Comparison[], json: ["contains"] as Comparison[] }[type] ?? ordered;
  return [...own, "set" as const, "unset" as const].map((one) => [one, words[one]]);
}

/** A comparison that needs no value. */
export function isAlone(comparison: Comparison): boolean {
  return comparison === "set" || comparison === "unset";
}

/** Whether a value can be compared with a column of a type. */
export function isComplete({ comparison, value }: Condition, type: string): boolean {
  if (isAlone(comparison)) return true;
  if (type === "int") return /^-?\d+$/.test(value);
  if (type === "double") return /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(value);
  if (type === "bool") return value === "true" || value === "false";
  if (type === "timestamp") return /^\d{4}-\d\d-\d\d/.test(value) && !/[\s"\\]/.test(value);
  return comparison === "=" || comparison === "!=" || value !== "";
}

/** The filter (AIP-160) for which all conditions hold; conditions that are not complete are left out. */
export function print(conditions: readonly Condition[], fields: readonly Field[]): string {
  const types = new Map(fields.map((one) => [one.name, one.type]));
  return conditions
    .filter((one) => isComplete(one, types.get(one.column) ?? ""))
    .map(({ column, comparison, value }) => {
      const type = types.get(column) ?? "";
      const literal = type === "string" || type === "json" ? quote(value) : type === "timestamp" ? `"${value}"` : value;
      switch (comparison) {
        case "begins":
          return `${column} = ${literal.slice(0, -1)}*"`;
        case "contains":
          return `${column}:${literal}`;
        case "set":
          return `${column} != null`;
        case "unset":
          return `${column} = null`;
        default:
          return `${column} ${comparison} ${literal}`;
      }
    })
    .join(" AND ");
}

function quote(text: string): string {
  return JSON.stringify(text).replaceAll("*", "\\*");
}

const condition = /^\s*([A-Za-z_]\w*)\s*(<=|>=|!=|=|<|>|:)\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"()<>=!:,]+))\s*(?:AND\b|$)/;

/** The conditions of a filter; undefined: it is more than conditions that are joined by AND. */
export function parse(filter: string, fields: readonly Field[]): Condition[] | undefined {
  const types = new Map(fields.map((one) => [one.name, one.type]));
  const out: Condition[] = [];
  let rest = filter.trim();
  if (/\bAND$/.test(rest)) return undefined;
  while (rest !== "") {
    const found = condition.exec(rest);
    if (!found) return undefined;
    const [all, column = "", operator = "", quoted, bare] = found;
    const one = read(column, types.get(column), operator, quoted, bare, types);
    if (!one) return undefined;
    out.push(one);
    rest = rest.slice(all.length).trim();
  }
  return out;
}

function read(column: string, type: string | undefined, operator: string, quoted: string | undefined, bare: string | undefined, types: ReadonlyMap<string, string>): Condition | undefined {
  if (type === undefined) return undefined;
  if (bare === "*" && operator === ":") return { column, comparison: "set", value: "" };
  if (bare === "null") return operator === "=" || operator === "!=" ? { column, comparison: operator === "=" ? "unset" : "set", value: "" } : undefined;
  // Without quotes, the name of a column is that column.
  if (bare !== undefined && types.has(bare)) return undefined;
  const text = quoted === undefined ? (bare ?? "") : unquote(quoted);
  if (text === undefined) return undefined;
  const begins = type === "string" && text.endsWith(wildcard);
  const value = begins ? text.slice(0, -1) : text;
  if (value.includes(wildcard) || (begins && operator !== "=")) return undefined;
  const comparison = begins ? "begins" : operator === ":" ? "contains" : (operator as Comparison);
  const one = { column, comparison, value };
  return comparisons(type).some(([offered]) => offered === comparison) && isComplete(one, type) ? one : undefined;
}

/** Stands for an asterisk that is one of the pattern's, not of the text. */
const wildcard = "\uE000";

function unquote(text: string): string | undefined {
  const pattern = text.replaceAll(/\\.|\*/g, (found) => (found === "*" ? wildcard : found === "\\*" ? "*" : found));
  try {
    return JSON.parse(`"${pattern}"`) as string;
  } catch {
    return undefined;
  }
}
