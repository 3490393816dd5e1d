import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { ListWorkflowsResponseSchema } from "../gen/runner/admin/v1/admin_pb";
import { findInstances } from "./find";

const page = (ids: string[], nextPageToken: string) => create(ListWorkflowsResponseSchema, { instances: ids.map((instanceId) => ({ workflow: "transfer", instanceId })), nextPageToken });

/** Answers with these pages, one after the other, and notes the tokens. */
function pages(...answers: ReturnType<typeof page>[]) {
  const tokens: string[] = [];
  const read = (token: string) => {
    const answer = answers[tokens.push(token) - 1];
    return answer ? Promise.resolve(answer) : Promise.reject(new Error("more pages are read than there are"));
  };
  return { tokens, read };
}

it("empty pages are followed to the first that has an instance", async () => {
  const { tokens, read } = pages(page([], "b"), page([], "c"), page(["one"], "d"));
  const found = await findInstances(read, 5);
  expect(found.instances.map((one) => one.instanceId)).toEqual(["one"]);
  expect(found.complete).toBe(false);
  expect(tokens).toEqual(["", "b", "c"]);
});

it("the last page ends the search, with instances and without", async () => {
  expect(await findInstances(pages(page(["one"], "")).read, 5)).toMatchObject({ complete: true });
  expect(await findInstances(pages(page([], "b"), page([], "")).read, 5)).toEqual({ instances: [], complete: true });
});

it("a search is bounded, and then it is not complete", async () => {
  const { tokens, read } = pages(page([], "b"), page([], "c"), page(["one"], ""));
  expect(await findInstances(read, 2)).toEqual({ instances: [], complete: false });
  expect(tokens).toEqual(["", "b"]);
});
