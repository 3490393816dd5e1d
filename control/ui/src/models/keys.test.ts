import { expect, it } from "vitest";
import { suggestions } from "./keys";

const head = `model: m
aggregates:
  wallet:
    commands:
      open:
        require:
          - that: "true"
            else: no
`;
const flows = `workflows:
  pay:
    on: wallet.opened
    steps:
      - name: debit
        submit:
          aggregate: wallet
`;

it.each([
  ["", ["model", "description", "aggregates", "views", "workflows"]],
  ["vi", ["views"]],
  [`${head}      `, undefined],
  [`${head}        em`, ["emit"]],
  [`${head}          - `, ["that", "else"]],
  [`${head}            e`, ["else"]],
  [`${head}    `, ["description", "commands", "evolve", "events"]],
  [`${head}views:\n  v:\n    columns:\n      a: `, ["string", "int", "double", "bool", "timestamp", "json"]],
  [`${head}views:\n  v:\n    on:\n      wallet.opened:\n        `, ["upsert", "patch", "delete", "fold"]],
  [`${flows}          `, ["aggregate", "id", "command", "payload"]],
  [`${flows}        re`, ["retry"]],
  [`${flows}      - n`, ["name"]],
  [`${flows}    from: b`, ["now", "beginning"]],
] as const)("after %j", (text, want) => {
  expect(suggestions(text)?.options).toEqual(want);
});

it("a text in quotes or braces has no suggestions", () => {
  expect(suggestions(`${head}        data: {a`)).toBeUndefined();
});
