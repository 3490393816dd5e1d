import { lazy, type ComponentType } from "react";

/** A part of the console that the gateway answers for but does not have: after an upgrade the new page names the new parts. */
export class MissingPart extends Error {
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = "MissingPart";
  }
}

/**
 * Loads a part of the console. While the gateway does not answer or the browser is offline it
 * tries again, every two seconds and as soon as the browser is online: an error would replace a
 * page whose content is still of use. It fails with MissingPart if the gateway answers but has no such part.
 */
export async function part<T>(load: () => Promise<T>): Promise<T> {
  let away = false;
  for (;;) {
    try {
      return await load();
    } catch (err) {
      const answers = await reachable();
      // The gateway may be back since the load has failed: that it has no such part shows the next one.
      if (answers && !away) throw new MissingPart(err);
      away = !answers;
      if (away) await moment();
    }
  }
}

async function reachable(): Promise<boolean> {
  try {
    const page = await fetch(import.meta.env.BASE_URL, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5_000) });
    return page.status < 500; // a proxy answers for a gateway that is down
  } catch {
    return false;
  }
}

function moment(): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      removeEventListener("online", over);
      resolve();
    };
    const timer = setTimeout(over, 2_000);
    addEventListener("online", over);
  });
}

function idle(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof requestIdleCallback === "undefined") resolve();
    else requestIdleCallback(() => resolve(), { timeout: 2_000 });
  });
}

function loaded(): Promise<void> {
  return new Promise((resolve) => {
    if (document.readyState === "complete") resolve();
    else addEventListener("load", () => resolve(), { once: true });
  });
}

/** Resolves once the page is there and the browser idle. */
export async function whenIdle(): Promise<void> {
  await loaded();
  await idle();
}

/** A component that is loaded when it is first shown. */
export function onDemand<P extends object>(load: () => Promise<{ default: ComponentType<P> }>) {
  return lazy(() => part(load));
}

/** A component that the first view does without: it is loaded once the page is there and the browser idle. */
export function later<P extends object>(load: () => Promise<{ default: ComponentType<P> }>) {
  return lazy(async () => {
    await whenIdle();
    return part(load);
  });
}
