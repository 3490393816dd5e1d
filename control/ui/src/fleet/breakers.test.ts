import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { NodeSchema } from "../gen/control/v1/fleet_pb";
import { breakers } from "./breakers";

it("a breaker is of a node or of one of its methods, and of a node that has left by its address", () => {
  const nodes = [create(NodeSchema, { id: "gateway-1", openBreakers: ["10.0.0.1:7000", "10.0.0.1:7000 /x.Y/Z", "10.0.0.9:7000"] }), create(NodeSchema, { id: "aggregate-1", endpoint: "10.0.0.1:7000" })];
  expect(breakers(nodes).map(({ node, method }) => [node, method])).toEqual([
    ["aggregate-1", ""],
    ["aggregate-1", "/x.Y/Z"],
    ["10.0.0.9:7000", ""],
  ]);
});
