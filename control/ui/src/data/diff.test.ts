import { expect, it } from "vitest";
import { differences } from "./diff";

it("finds what was changed, added and removed, at any depth", () => {
  expect(differences({ a: 1, b: { c: [1, 2], d: null }, gone: true }, { a: 2, b: { c: [1, 3, 4], d: null }, "a b": {} })).toEqual([
    { path: "a", before: 1, after: 2 },
    { path: '["a b"]', before: undefined, after: {} },
    { path: "b.c[1]", before: 2, after: 3 },
    { path: "b.c[2]", before: undefined, after: 4 },
    { path: "gone", before: true, after: undefined },
  ]);
});

it("tells null from absent, and types from each other", () => {
  expect(differences({ a: null }, {})).toEqual([{ path: "a", before: null, after: undefined }]);
  expect(differences({ a: 1 }, { a: "1" })).toHaveLength(1);
  expect(differences({ a: [] }, { a: {} })).toHaveLength(1);
  expect(differences(undefined, { a: 1 })).toEqual([{ path: "", before: undefined, after: { a: 1 } }]);
  expect(differences({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] })).toEqual([]);
});
