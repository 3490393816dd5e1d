import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { Chart } from "./chart";

const plotted = vi.hoisted(() => vi.fn());
vi.mock("./plot", () => ({ default: plotted.mockReturnValue(null) }));
afterEach(cleanup);

it("a chart shows its unit and its last measured values; gaps reach the plot as such", async () => {
  const lines = [
    { name: "p99", color: "--series-1", values: [12, null, 7.126, null] },
    { name: "p50", color: "--series-2", values: [null, null, null, null] },
  ];
  render(<Chart title="Latency" unit="ms" at={[15, 30, 45, 60]} lines={lines} partial={[true, false, false, false]} window={15} />);
  const items = screen.getByRole("list", { name: "Last values of Latency" });
  expect(items.textContent).toBe("p99 7.13p50 –");
  expect(screen.getByRole("heading", { name: "Latency ms" })).toBeTruthy();
  await vi.waitFor(() => expect(plotted).toHaveBeenCalled());
  expect(plotted.mock.calls[0]?.[0]).toMatchObject({ lines, at: [15, 30, 45, 60], partial: [true, false, false, false] });
});

it("without a measured value there is no empty plot", () => {
  render(<Chart title="Lag" unit="events" at={[15, 30]} lines={[{ name: "lag", color: "--series-1", values: [null, null] }]} window={15} />);
  expect(screen.getByText(/Nothing was measured yet/)).toBeTruthy();
});
