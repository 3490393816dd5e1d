import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, it, vi } from "vitest";
import { Button, Dangerous } from "./action";

afterEach(cleanup);

it("a button that may not be used says why", () => {
  render(<Button refusal="you lack the right fleet.admin">Create</Button>);
  const button = screen.getByRole("button", { name: "Create" });
  expect(button).toHaveProperty("disabled", true);
  expect(screen.getByTitle("you lack the right fleet.admin")).toBeTruthy();
});

it("what is dangerous waits until the name is typed, and shows what went wrong", async () => {
  const user = userEvent.setup();
  const run = vi.fn().mockRejectedValueOnce(new Error("no")).mockResolvedValueOnce(undefined);
  render(
    <Dangerous title="Suspend" what="Its calls are refused." name="acme" run={run}>
      Suspend…
    </Dangerous>,
  );
  await user.click(screen.getByRole("button", { name: "Suspend…" }));
  const go = screen.getByRole("button", { name: "Suspend" });
  await user.type(screen.getByRole("textbox"), "acm");
  expect(go).toHaveProperty("disabled", true);
  await user.type(screen.getByRole("textbox"), "e");
  await user.click(go);
  expect(await screen.findByRole("alert")).toBeTruthy();
  await user.click(go);
  expect(run).toHaveBeenCalledTimes(2);
  expect(screen.queryByRole("dialog")).toBeNull();
});
