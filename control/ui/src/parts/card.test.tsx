import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, it } from "vitest";
import { Meter } from "./card";

afterEach(cleanup);

it.each([
  [10, 100, "10 of 100", "10 %"],
  [85, 100, "85 of 100", "85 %"],
  [120, 100, "120 of 100", "120 %"],
])("a meter shows %i of %i in words, too", (used, limit, words, percent) => {
  render(<Meter name="Events" used={used} limit={limit} show={String} />);
  const meter = screen.getByRole("meter", { name: "Events" });
  expect(meter.getAttribute("aria-valuetext")).toBe(words);
  expect(Number(meter.getAttribute("aria-valuenow"))).toBeLessThanOrEqual(limit);
  expect(screen.getByText(percent)).toBeTruthy();
});

it("without a limit there is no bar", () => {
  render(<Meter name="Events" used={10} limit={0} show={String} />);
  expect(screen.queryByRole("meter")).toBeNull();
  expect(screen.getByText("default limit")).toBeTruthy();
});
