import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { NodeSchema, NodeState } from "../gen/control/v1/fleet_pb";
import { PlacementSchema } from "../gen/control/v1/placement_pb";
import { suggestions } from "./suggest";

const node = (id: string, state = NodeState.READY) => create(NodeSchema, { id, kind: "projection", state, answered: state === NodeState.READY });
const placed = (tenantId: string, at: string, move = "") => create(PlacementSchema, { tenantId, kind: "projection", node: at, move });

it("a tenant on a node that is not ready is suggested to move to the emptiest", () => {
  const found = suggestions([placed("a", "p1"), placed("b", "p2"), placed("c", "p3")], [node("p1", NodeState.LOST), node("p2"), node("p3"), node("p4")]);
  expect(found.map(({ tenant, target }) => [tenant, target])).toEqual([["a", "p4"]]);
});

it("one tenant is suggested where nodes are uneven, and none that is moving", () => {
  const nodes = [node("p1"), node("p2")];
  expect(suggestions([placed("a", "p1", "m1"), placed("b", "p1")], nodes).map(({ tenant, target }) => [tenant, target])).toEqual([["b", "p2"]]);
  expect(suggestions([placed("a", "p1", "m1"), placed("b", "p1", "m2")], nodes)).toEqual([]);
  expect(suggestions([placed("a", "p1")], nodes)).toEqual([]);
});

it("nothing is suggested where no node takes calls", () => {
  expect(suggestions([placed("a", "p1")], [node("p1", NodeState.LOST)])).toEqual([]);
});
