/** Loads a screen's code. The first load may begin before the screen is known to be shown. */
interface Page<T> {
  begin: () => void;
  load: () => Promise<T>;
}

function page<T>(load: () => Promise<T>): Page<T> {
  let begun: Promise<T> | undefined;
  return {
    begin: () => {
      begun = load();
      begun.catch(() => undefined); // the screen that is shown reports it
    },
    load: () => {
      const first = begun ?? load();
      begun = undefined;
      return first;
    },
  };
}

/** The code of the screens by their paths. */
export const pages = {
  "/overview": page(() => import("../overview/overview")),
  "/fleet": page(() => import("../fleet/fleet")),
  "/fleet/node": page(() => import("../fleet/node-page")),
  "/tenants": page(() => import("../tenants/tenants")),
  "/tenants/detail": page(() => import("../tenants/tenant")),
  "/aggregates": page(() => import("../data/aggregates")),
  "/events": page(() => import("../data/events")),
  "/views": page(() => import("../views/views")),
  "/commands": page(() => import("../commands/commands")),
  "/workflows": page(() => import("../workflows/workflows")),
  "/dead-letters": page(() => import("../letters/letters")),
  "/moves": page(() => import("../moves/moves")),
  "/models": page(() => import("../models/models")),
  "/timeline": page(() => import("../timeline/timeline")),
  "/audit": page(() => import("../audit/audit")),
  "/access": page(() => import("../access/access")),
  "/credentials": page(() => import("../credentials/credentials")),
  "/api": page(() => import("../explorer/explorer")),
};

/** Begins to load the screen of a path. */
export function beginPage(path: string): void {
  if (path in pages) pages[path as keyof typeof pages].begin();
}
