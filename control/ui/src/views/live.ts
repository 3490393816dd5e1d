import type { JsonObject } from "@bufbuild/protobuf";

/** A row that is followed: how often each of its columns has changed since. */
export interface Followed {
  row: JsonObject;
  changes: Readonly<Record<string, number>>;
}

/** A change of a row; without a row, it is gone. */
export interface Change {
  key: string;
  row?: JsonObject | undefined;
}

/** The rows after changes. A reset replaces all of them, which is no change. */
export function applyChanges(before: ReadonlyMap<string, Followed>, reset: boolean, changes: readonly Change[]): ReadonlyMap<string, Followed> {
  const next = new Map(reset ? [] : before);
  for (const { key, row } of changes) {
    if (!row) {
      next.delete(key);
      continue;
    }
    const had = next.get(key);
    const counts = { ...had?.changes };
    if (!reset) {
      for (const name of Object.keys(row)) {
        if (JSON.stringify(had?.row[name]) !== JSON.stringify(row[name])) counts[name] = (counts[name] ?? 0) + 1;
      }
    }
    next.set(key, { row, changes: counts });
  }
  return next;
}
