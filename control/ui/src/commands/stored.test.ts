import { expect, it } from "vitest";
import { mostHistory, mostTemplates, parseStored, withEntry, type Entry } from "./stored";

const entry = (patch: Partial<Entry> = {}): Entry => ({ type: "wallet", command: "deposit", id: "ada", texts: { amount: "5" }, at: 1, name: "", outcome: "done", ...patch });
const none = { history: [], templates: [] };

it("the history has the latest commands first, and a bound", () => {
  let stored = parseStored(null);
  for (let n = 0; n < mostHistory + 5; n++) stored = withEntry(stored, entry({ at: n }));
  expect(stored.history.map((one) => one.at)).toEqual(Array.from({ length: mostHistory }, (_, n) => mostHistory + 4 - n));
  expect(stored.templates).toEqual([]);
  expect(parseStored(JSON.stringify(stored))).toEqual(stored);
});

it("a template replaces the one of its name, and their number has a bound", () => {
  let stored = withEntry(withEntry(none, entry({ name: "usual", id: "ada" })), entry({ name: "usual", id: "bob" }));
  expect(stored.templates.map((one) => one.id)).toEqual(["bob"]);
  for (let n = 0; n < mostTemplates + 3; n++) stored = withEntry(stored, entry({ name: `t${n}` }));
  expect(stored.templates).toHaveLength(mostTemplates);
  expect(stored.history).toEqual([]);
});

it("a large command is not stored", () => expect(withEntry(none, entry({ texts: { note: "x".repeat(5_000) } }))).toEqual(none));

it.each(["", "{", "null", "[]", '{"history":{}}', '{"history":[1,null,{}],"templates":[{"name":"x"}]}', JSON.stringify({ history: [{ ...entry(), texts: { amount: 5 } }] }), JSON.stringify({ history: [{ ...entry(), correlation: 5 }] })])("%s has nothing that was stored", (text) => expect(parseStored(text)).toEqual(none));
