import { expect, it } from "vitest";
import { outline } from "./outline";

const document = `model: m
description: |
  aggregates:
    not: one
aggregates:
    wallet: # four spaces
        description: >
            commands:
                none: of this
        commands:
            open: {payload: {}}
            deposit:
                require:
                    - that: "true"
    transfer:
        commands:
            request: {}
views:
  wallets:
    on:
      wallet.opened: {upsert: {}}

workflows:
  pay:
    on: wallet.opened
    steps:
      - name: debit
        submit: {}
`;

it("an outline has what a model names, with its lines", () => {
  expect(outline(document).map(({ section, aggregate, name, line }) => `${line} ${section} ${aggregate === "" ? "" : `${aggregate}.`}${name}`)).toEqual([
    "6 aggregates wallet",
    "11 aggregates wallet.open",
    "12 aggregates wallet.deposit",
    "15 aggregates transfer",
    "17 aggregates transfer.request",
    "19 views wallets",
    "24 workflows pay",
  ]);
});

it.each(["", "model: m", "aggregates: [", "\t\n:::\n- a"])("of %j an outline is empty", (text) => expect(outline(text)).toEqual([]));
