import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, expect, it } from "vitest";
import { Builder } from "./builder";

afterEach(cleanup);

const fields = [
  { name: "owner", type: "string", indexed: false },
  { name: "balance", type: "int", indexed: true },
  { name: "closed", type: "bool", indexed: false },
];

function Filter({ initial = "" }: { initial?: string }) {
  const [filter, setFilter] = useState(initial);
  return (
    <>
      <input aria-label="Filter" value={filter} onChange={(event) => setFilter(event.target.value)} />
      <Builder fields={fields} filter={filter} onChange={setFilter} />
    </>
  );
}
const filter = () => (screen.getByLabelText("Filter") as HTMLInputElement).value;

it("conditions make the filter as they become complete, and change and leave it", async () => {
  const user = userEvent.setup();
  render(<Filter />);
  await user.click(screen.getByRole("button", { name: "Condition" }));
  // The indexed column is offered first; a value that is no number is marked, and is not in the filter.
  expect(screen.getByLabelText("Column of condition 1")).toHaveProperty("value", "balance");
  await user.type(screen.getByLabelText("Value of condition 1"), "1x");
  expect(screen.getByLabelText("Value of condition 1").getAttribute("aria-invalid")).toBe("true");
  expect(filter()).toBe("");
  await user.type(screen.getByLabelText("Value of condition 1"), "{Backspace}0");
  expect(filter()).toBe("balance = 10");
  await user.selectOptions(screen.getByLabelText("Comparison of condition 1"), ">=");
  await user.click(screen.getByRole("button", { name: "Condition" }));
  await user.selectOptions(screen.getByLabelText("Column of condition 2"), "closed");
  await user.selectOptions(screen.getByLabelText("Value of condition 2"), "false");
  expect(filter()).toBe("balance >= 10 AND closed = false");
  // A column of another type has other comparisons.
  await user.selectOptions(screen.getByLabelText("Column of condition 2"), "owner");
  await user.selectOptions(screen.getByLabelText("Comparison of condition 2"), "begins");
  await user.type(screen.getByLabelText("Value of condition 2"), 'a"b');
  expect(filter()).toBe('balance >= 10 AND owner = "a\\"b*"');
  await user.click(screen.getByRole("button", { name: "Remove condition 1" }));
  expect(filter()).toBe('owner = "a\\"b*"');
  await user.selectOptions(screen.getByLabelText("Comparison of condition 1"), "unset");
  expect(filter()).toBe("owner = null");
  expect(screen.queryByLabelText("Value of condition 1")).toBeNull();
});

it("a filter that was typed is shown as conditions, or left to the text", async () => {
  const user = userEvent.setup();
  render(<Filter initial='owner = "b*"' />);
  expect(screen.getByLabelText("Comparison of condition 1")).toHaveProperty("value", "begins");
  await user.type(screen.getByLabelText("Filter"), " OR balance = 1");
  expect(screen.queryByRole("button", { name: "Condition" })).toBeNull();
  expect(screen.getByText(/The filter is more than conditions/)).toBeTruthy();
});
