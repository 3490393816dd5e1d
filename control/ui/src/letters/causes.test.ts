import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { DeadLetterSchema } from "../gen/runner/admin/v1/admin_pb";
import { causes, general } from "./causes";

it.each([
  ['wallet "ada" is closed', "wallet “…” is closed"],
  ["event 0190a1b2-0000-7000-8000-0123456789ab at 10.0.0.7: 503", "event … at …: …"],
  ["the webhook answers", "the webhook answers"],
])("%s is %s in general", (cause, want) => {
  expect(general(cause)).toBe(want);
});

it("groups letters by cause, the most frequent first", () => {
  const letter = (id: bigint, cause: string) => create(DeadLetterSchema, { id, cause });
  const groups = causes([letter(1n, "no such view"), letter(2n, "HTTP 500 of a"), letter(3n, "HTTP 503 of a")]);
  expect(groups.map(({ name, letters }) => [name, letters.map((one) => one.id)])).toEqual([
    ["HTTP … of a", [2n, 3n]],
    ["no such view", [1n]],
  ]);
});

it("leaves out of a cause only what differs between its letters", () => {
  const letter = (id: bigint, cause: string) => create(DeadLetterSchema, { id, cause });
  const [group] = causes([letter(1n, "webhook 127.0.0.1:9: order 17: refused"), letter(2n, "webhook 127.0.0.1:9: order 18: refused")]);
  expect(group?.text).toBe("webhook 127.0.0.1:9: order …: refused");
  expect(causes([letter(1n, "webhook 127.0.0.1:9: order 17: refused")])[0]?.text).toBe("webhook 127.0.0.1:9: order 17: refused");
});
