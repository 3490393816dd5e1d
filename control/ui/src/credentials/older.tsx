import { Button } from "../parts/action";

/** Entries per page: the most that control returns. */
export const pageSize = 500;

/** How the lists are read: page by page, and again every 10 seconds. */
export const paged = {
  refetchInterval: 10_000,
  pageParamKey: "pageToken" as const,
  getNextPageParam: (last: { nextPageToken: string }) => last.nextPageToken || undefined,
};

/** Loads entries older than the ones shown. */
export function Older({ of }: { of: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown } }) {
  if (!of.hasNextPage) return null;
  return (
    <div>
      <Button disabled={of.isFetchingNextPage} onClick={() => void of.fetchNextPage()}>
        Load older
      </Button>
    </div>
  );
}
