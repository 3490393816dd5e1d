import { useEffect } from "react";

/** A list whose pages are loaded one after the other. */
export interface Paged {
  data: { pages: readonly unknown[] } | undefined;
  error: unknown;
  hasNextPage: boolean;
  isFetching: boolean;
  isPlaceholderData: boolean;
  fetchNextPage: () => Promise<unknown>;
}

/**
 * Loads the next pages of a list by itself while it has too few rows, up to a number of pages: a page may have few
 * rows, or none, without being the last. Returns whether it searches.
 */
export function useSearching({ data, error, hasNextPage, isFetching, isPlaceholderData, fetchNextPage }: Paged, { tooFew, pages }: { tooFew: boolean; pages: number }): boolean {
  const searches = tooFew && hasNextPage && !error && !isPlaceholderData && (data?.pages.length ?? 0) < pages;
  useEffect(() => {
    if (searches && !isFetching) void fetchNextPage();
  }, [searches, isFetching, fetchNextPage]);
  return searches;
}
