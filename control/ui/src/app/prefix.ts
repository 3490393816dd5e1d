/** The ids that a search asks for: all that begin with `id`, under a name such as an aggregate's type, or under any (""). */
export interface Prefix {
  name: string;
  id: string;
}

/** What the platform accepts as the beginning of an id. */
const beginnings = { aggregate: /^[A-Za-z0-9_-]{0,128}$/, instance: /^[A-Za-z0-9_=-]{0,150}$/ };
const names = /^[a-z][a-z0-9_]{0,62}$/;

/** Reads "ada" or "wallet/ada". Undefined: no id begins like this, and the platform would reject it. */
export function parsePrefix(text: string, of: keyof typeof beginnings): Prefix | undefined {
  const typed = text.trim();
  const slash = typed.indexOf("/");
  const [name, id] = slash < 0 ? ["", typed] : [typed.slice(0, slash), typed.slice(slash + 1)];
  if (slash >= 0 && !names.test(name)) return undefined;
  return beginnings[of].test(id) ? { name, id } : undefined;
}

/** Whether rights include a right for a resource; a right may be narrowed to resources, "aggregate.read:wallet" or "aggregate.read:w*". */
export function covers(rights: readonly string[], right: string, resource: string): boolean {
  return rights.some((held) => {
    if (held === right) return true;
    if (!held.startsWith(`${right}:`)) return false;
    const pattern = held.slice(right.length + 1);
    return pattern.endsWith("*") ? resource.startsWith(pattern.slice(0, -1)) : pattern === resource;
  });
}
