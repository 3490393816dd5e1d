import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { MissingPart, part } from "./later";

const missing = new TypeError("Failed to fetch dynamically imported module");

/** Whether the gateway answers, at each time it is asked. */
function gateway(...answers: boolean[]): void {
  vi.stubGlobal("fetch", () => (answers.shift() ? Promise.resolve(new Response()) : Promise.reject(new TypeError("Failed to fetch"))));
}

/** Loads that fail, and then one that does not. */
function fails(times: number): () => Promise<string> {
  return () => (times-- > 0 ? Promise.reject(missing) : Promise.resolve("the part"));
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("a part that the gateway does not have is missing", async () => {
  gateway(true);
  await expect(part(fails(1))).rejects.toBeInstanceOf(MissingPart);
});

it("a part is loaded when the gateway is back", async () => {
  gateway(false, false);
  const loaded = part(fails(2));
  await vi.advanceTimersByTimeAsync(4_000);
  await expect(loaded).resolves.toBe("the part");
});

it("a part is not missing because the gateway is back between its load and the question", async () => {
  gateway(false, true);
  const loaded = part(fails(2));
  await vi.advanceTimersByTimeAsync(2_000);
  await expect(loaded).resolves.toBe("the part");
});

it("a part that the gateway does not have is missing after an outage, too", async () => {
  gateway(false, true, true);
  const loaded = expect(part(fails(3))).rejects.toBeInstanceOf(MissingPart);
  await vi.advanceTimersByTimeAsync(2_000);
  await loaded;
});
