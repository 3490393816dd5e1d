import { lazy, type ComponentType } from "react";

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

/** A component that the first view does without: it is loaded once the page is there and the browser idle. */
export function later<P extends object>(load: () => Promise<{ default: ComponentType<P> }>) {
  return lazy(async () => {
    await whenIdle();
    return load();
  });
}
