import { cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, expect, it, vi } from "vitest";
import { Button, Confirm } from "./action";

afterEach(cleanup);

it("a button that may not be used shows why", () => {
  render(<Button refusal="you lack the right fleet.admin">Create</Button>);
  const button = screen.getByRole("button", { name: "Create" });
  expect(button).toHaveProperty("disabled", true);
  expect(screen.getByTitle("you lack the right fleet.admin")).toBeTruthy();
});

it("what cannot be undone waits until the name is typed, shows what went wrong, and returns the focus", async () => {
  const user = userEvent.setup();
  const run = vi.fn().mockRejectedValueOnce(new Error("no")).mockResolvedValueOnce(undefined);
  render(
    <Confirm title="Cancel instance" what="It ends where it is." name="transfer/bad" danger run={run}>
      Cancel…
    </Confirm>,
  );
  await user.click(screen.getByRole("button", { name: "Cancel…" }));
  const go = screen.getByRole("button", { name: "Cancel instance" });
  await user.type(screen.getByRole("textbox"), "transfer/ba");
  expect(go).toHaveProperty("disabled", true);
  await user.type(screen.getByRole("textbox"), "d");
  await user.click(go);
  expect(await screen.findByRole("alert")).toBeTruthy();
  await user.click(go);
  expect(run).toHaveBeenCalledTimes(2);
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("button", { name: "Cancel…" })));
});

it("a reason is required where the audit record holds one", async () => {
  const user = userEvent.setup();
  const run = vi.fn().mockResolvedValue(undefined);
  render(
    <Confirm title="Retry" what="It continues now." reason run={run}>
      Retry now…
    </Confirm>,
  );
  await user.click(screen.getByRole("button", { name: "Retry now…" }));
  expect(screen.getByRole("button", { name: "Retry" })).toHaveProperty("disabled", true);
  await user.type(screen.getByLabelText("Reason, for the audit record"), "the receiver is back");
  await user.click(screen.getByRole("button", { name: "Retry" }));
  expect(run).toHaveBeenCalledWith("the receiver is back");
});

it("the focus goes to the page's title if the action has removed the button", async () => {
  const user = userEvent.setup();
  function Once() {
    const [done, setDone] = useState(false);
    return (
      <main>
        <h1 tabIndex={-1}>Tenants</h1>
        {done ? null : (
          <Confirm
            title="Suspend"
            what="Its calls are refused."
            run={() => {
              setDone(true);
              return Promise.resolve();
            }}
          >
            Suspend…
          </Confirm>
        )}
      </main>
    );
  }
  render(<Once />);
  await user.click(screen.getByRole("button", { name: "Suspend…" }));
  await user.click(screen.getByRole("button", { name: "Suspend" }));
  await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("heading", { name: "Tenants" })));
});
