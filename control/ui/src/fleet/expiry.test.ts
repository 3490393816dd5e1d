// @vitest-environment jsdom
import { expect, it } from "vitest";
import { expiry } from "./expiry";

const day = 86_400_000;

it.each([
  [90 * day, { tone: "ok", words: "in 90 d" }],
  [14 * day, { tone: "ok", words: "in 14 d" }],
  [14 * day - 1000, { tone: "warn", words: "in 13 d" }],
  [3_600_000, { tone: "warn", words: "in 1 h" }],
  [0, { tone: "bad", words: "expired 0 s ago" }],
  [-2 * day, { tone: "bad", words: "expired 2 d ago" }],
])("a certificate that ends in %d ms", (left, want) => {
  const now = Date.parse("2026-03-01T00:00:00Z");
  expect(expiry(now + left, now)).toEqual(want);
});
