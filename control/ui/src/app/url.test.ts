// @vitest-environment jsdom
import { act, renderHook } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { pause, usePaused } from "./url";

afterEach(() => void vi.useRealTimers());

it("a value is followed once it has not changed for a pause", () => {
  vi.useFakeTimers();
  const seen: string[] = [];
  const { result, rerender } = renderHook(
    ({ typed }) => {
      const paused = usePaused(typed);
      if (seen.at(-1) !== paused) seen.push(paused);
      return paused;
    },
    { initialProps: { typed: "" } },
  );
  for (const typed of ["a", "ad", "ada"]) {
    rerender({ typed });
    act(() => void vi.advanceTimersByTime(pause - 1));
  }
  expect(result.current).toBe("");
  act(() => void vi.advanceTimersByTime(1));
  expect(seen).toEqual(["", "ada"]);
});
