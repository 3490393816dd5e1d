import { keepPreviousData } from "@tanstack/react-query";
import { SeriesRange } from "../gen/control/v1/metrics_pb";
import { useUrl } from "../app/url";
import { Choice } from "../parts/field";

/** The range of the series that the address names, and its words. */
export function useRange(): { range: SeriesRange; words: string } {
  const [get] = useUrl();
  return get("range") === "day" ? { range: SeriesRange.DAY, words: "last 24 hours" } : { range: SeriesRange.HOUR, words: "last hour" };
}

/** The choice between the ranges that control has. */
export function RangeChoice() {
  const [get, set] = useUrl();
  return (
    <Choice
      label="Time"
      value={get("range")}
      options={[
        ["", "last hour, by 15 s"],
        ["day", "last 24 hours, by 5 min"],
      ]}
      onChange={(range) => set({ range })}
    />
  );
}

/** How a series is loaded: again every five seconds, and the one before stays until the next is there. */
export const often = { refetchInterval: 5_000, placeholderData: keepPreviousData };
