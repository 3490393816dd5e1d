import type { JsonValue } from "@bufbuild/protobuf";

/** A place at which two JSON documents differ; undefined is absent. */
export interface Difference {
  /** Such as "lines[2].amount"; "" is the whole. */
  path: string;
  before: JsonValue | undefined;
  after: JsonValue | undefined;
}

function isObject(value: JsonValue | undefined): value is Record<string, JsonValue> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function member(path: string, name: string): string {
  if (!/^[A-Za-z_]\w*$/.test(name)) return `${path}[${JSON.stringify(name)}]`;
  return path === "" ? name : `${path}.${name}`;
}

/** Where two documents differ, in the order of the members' names; elements of arrays are compared by place. */
export function differences(before: JsonValue | undefined, after: JsonValue | undefined, path = ""): Difference[] {
  if (isObject(before) && isObject(after)) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    return names.flatMap((name) => differences(before[name], after[name], member(path, name)));
  }
  if (Array.isArray(before) && Array.isArray(after)) {
    return Array.from({ length: Math.max(before.length, after.length) }, (_, n) => differences(before[n], after[n], `${path}[${n}]`)).flat();
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ path, before, after }];
}
