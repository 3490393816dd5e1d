import { useState } from "react";
import type { Fleet } from "../gen/control/v1/fleet_pb";

const most = 300;

/** The fleets that a screen has been shown since it was opened, at most the last 300. */
export function useHistory(fleet: Fleet | undefined): Fleet[] {
  const [history, setHistory] = useState<Fleet[]>([]);
  const last = history.at(-1);
  if (fleet && fleet !== last) {
    const next = [...history.slice(1 - most), fleet];
    setHistory(next);
    return next;
  }
  return history;
}

/** Lets moments in seconds begin a minute before the last one, if they do not yet: the scale of one moment alone would show years. */
export function lastMinute(at: number[]): boolean {
  const [first, last] = [at[0], at.at(-1)];
  if (first === undefined || last === undefined || last - first >= 60) return false;
  at.unshift(last - 60);
  return true;
}
