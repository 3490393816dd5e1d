import type { JsonObject } from "@bufbuild/protobuf";

/** A row that is followed: how often each of its columns has changed since. */
export interface Followed {
  /** Names it in the address: its key, or its place on the page. */
  id: string;
  row: JsonObject;
  changes: Readonly<Record<string, number>>;
}

/** A change of a row; without a row, it is gone. */
export interface Change {
  key: string;
  row?: JsonObject | undefined;
}

/** A message of a view that is followed. */
export interface Message {
  reset: boolean;
  changes: readonly Change[];
  /** Empty within the initial rows. */
  position: string;
}

/** The rows of a view that is followed. */
export interface LiveRows {
  rows: ReadonlyMap<string, Followed>;
  /** The keys in their order. */
  keys: readonly string[];
  /** Whether further initial rows follow, which are no changes. */
  initial: boolean;
}

export const noRows: LiveRows = { rows: new Map(), keys: [], initial: true };

const order = new Intl.Collator("en");

/** The rows after messages. A reset replaces all of them. */
export function applyMessages(before: LiveRows, messages: readonly Message[]): LiveRows {
  let { initial } = before;
  const rows = new Map(before.rows);
  let sameKeys = true;
  for (const { reset, changes, position } of messages) {
    if (reset) {
      rows.clear();
      initial = true;
      sameKeys = false;
    }
    for (const { key, row } of changes) {
      const had = rows.get(key);
      if (row) rows.set(key, { id: key, row, changes: initial ? {} : counted(had, row) });
      else rows.delete(key);
      sameKeys &&= (had === undefined) === (row === undefined);
    }
    if (position !== "") initial = false;
  }
  return { rows, keys: sameKeys ? before.keys : [...rows.keys()].sort(order.compare), initial };
}

/** How often each column has changed, with a row that replaces another one. */
function counted(had: Followed | undefined, row: JsonObject): Followed["changes"] {
  const counts = { ...had?.changes };
  for (const name of Object.keys(row)) {
    if (JSON.stringify(had?.row[name]) !== JSON.stringify(row[name])) counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
