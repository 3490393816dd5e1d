import { cleanup, renderHook } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { useSearching, type Paged } from "./searching";

afterEach(cleanup);

/** A list with a number of loaded pages. */
function list(pages: number, of: Partial<Paged> = {}) {
  const fetchNextPage = vi.fn(() => Promise.resolve());
  return { fetchNextPage, listed: { data: { pages: Array.from({ length: pages }) }, error: null, hasNextPage: true, isFetching: false, isPlaceholderData: false, fetchNextPage, ...of } };
}

it.each([
  ["while it has too few rows", 1, {}, true, true],
  ["not with enough rows", 1, {}, false, false],
  ["not beyond its bound", 3, {}, true, false],
  ["not after the last page", 1, { hasNextPage: false }, true, false],
  ["not after an error", 1, { error: new Error("away") }, true, false],
  ["not from the pages of the question before", 1, { isPlaceholderData: true }, true, false],
] as const)("the next page is loaded %s", (_, pages, of, tooFew, want) => {
  const { listed, fetchNextPage } = list(pages, of);
  const { result } = renderHook(() => useSearching(listed, { tooFew, pages: 3 }));
  expect(result.current).toBe(want);
  expect(fetchNextPage).toHaveBeenCalledTimes(want ? 1 : 0);
});

it("a page that is on its way is awaited", () => {
  const { listed, fetchNextPage } = list(1, { isFetching: true });
  expect(renderHook(() => useSearching(listed, { tooFew: true, pages: 3 })).result.current).toBe(true);
  expect(fetchNextPage).not.toHaveBeenCalled();
});
