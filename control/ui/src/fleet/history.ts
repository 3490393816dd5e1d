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
