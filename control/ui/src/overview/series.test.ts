// @vitest-environment jsdom
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { FleetSchema, NodeSchema, NodeState } from "../gen/control/v1/fleet_pb";
import { AuditRecordSchema } from "../gen/control/v1/audit_pb";
import { SeriesPointSchema, type SeriesPoint } from "../gen/control/v1/metrics_pb";
import { inWords } from "./changes";
import { problems } from "./problems";
import { availability, began, column, isLowerBound, latest, partial, percent, values } from "./series";

const point = (of: Partial<SeriesPoint>) => create(SeriesPointSchema, of);

describe("a series", () => {
  it("has gaps where nothing was measured, and zero where it was", () => {
    expect(column([point({ callsPerSecond: 2 }), point({}), point({ callsPerSecond: 0 })], values.calls)).toEqual([2, null, 0]);
  });

  it("has a last value only while it is recent: the window that ends now may not be announced yet", () => {
    const measured = point({ lag: 7n });
    expect(latest([measured, point({}), point({})], values.lag)).toBe(7);
    expect(latest([measured, point({}), point({}), point({})], values.lag)).toBeUndefined();
    expect(latest([], values.lag)).toBeUndefined();
  });

  it("is a lower bound where a gateway began to count within the window, as long as calls were counted in it", () => {
    const [whole, part, gap] = [point({ callsPerSecond: 2 }), point({ callsPerSecond: 1, partial: true }), point({ partial: true })];
    expect(partial([whole, part, gap])).toEqual([false, true, false]);
    expect(isLowerBound([whole, part, gap])).toBe(true);
    expect(isLowerBound([part, whole, gap])).toBe(false);
    expect(isLowerBound([gap])).toBe(false);
  });

  it("returns when the present trouble began, unless that was before the series", () => {
    const at = (seconds: number, deadLetters: bigint) => point({ end: timestampFromMs(seconds * 1000), deadLetters });
    expect(began([at(15, 2n), at(30, 0n), at(45, 1n), at(60, 3n), point({})], values.letters)?.getTime()).toBe(45_000);
    expect(began([at(15, 2n), at(30, 1n)], values.letters)).toBeUndefined();
    expect(began([at(15, 2n), at(30, 0n)], values.letters)).toBeUndefined();
  });

  it("weighs the availability of windows by their calls", () => {
    expect(availability([point({ callsPerSecond: 99, errorsPerSecond: 0 }), point({}), point({ callsPerSecond: 1, errorsPerSecond: 1 })])).toBeCloseTo(0.99);
    expect(availability([point({ callsPerSecond: 0, errorsPerSecond: 0 })])).toBeUndefined();
  });

  it.each([
    [1, "100 %"],
    [0.999999, "99.99 %"],
    [0.9, "90 %"],
    [0.58, "58 %"],
    [undefined, "–"],
  ])("%d of the calls are %s", (share, want) => {
    expect(percent(share)).toBe(want);
  });
});

describe("what is wrong", () => {
  const node = (id: string, of: object = {}) => create(NodeSchema, { id, kind: "gateway", state: NodeState.READY, answered: true, ...of });
  const texts = (nodes: ReturnType<typeof node>[], of: Partial<SeriesPoint> = {}, outage = "") => problems(create(FleetSchema, { nodes, outage }), [point(of)]).map(({ tone, text }) => [tone, text]);

  it("is nothing while all nodes are ready and nothing fails", () => {
    expect(texts([node("gateway-1"), node("runner-1")], { errorsPerSecond: 0, deadLetters: 0n })).toEqual([]);
  });

  it("is named, what fails before what is degraded", () => {
    const nodes = [
      node("runner-1", { state: NodeState.NOT_READY, reason: "the node is drained" }),
      node("gateway-1", { openBreakers: ["projection-1"] }),
      node("projection-1", { failingViews: [{ tenantId: "acme", view: "wallets" }] }),
      node("control-1", { answered: false }),
    ];
    expect(texts(nodes, { errorsPerSecond: 0.5, deadLetters: 3n }, "NATS is not reachable")).toEqual([
      ["bad", "NATS is not reachable"],
      ["bad", "control-1: no answer"],
      ["bad", "1 view cannot apply an event: acme/wallets"],
      ["bad", "0.5 calls per second fail by the platform's fault"],
      ["warn", "runner-1 is not ready: the node is drained"],
      ["warn", "1 gateway diverts calls: a breaker is open"],
      ["warn", "3 dead letters wait for an operator"],
    ]);
  });
});

it.each([
  ["/runner.admin.v1.RunnerAdmin/Drain", "ada drained runner-1"],
  ["/runner.admin.v1.RunnerAdmin/Resume", "ada resumed runner-1"],
  ["/runner.admin.v1.RunnerAdmin/ResumeTenant", "ada resumed the workflows of acme"],
  ["/control.v1.TenantService/SuspendTenant", "ada suspended tenant acme"],
  ["/control.v1.TenantService/ResumeTenant", "ada resumed tenant acme"],
  ["/control.v1.TenantService/SetStorageQuota", "ada set storage limits of acme"],
  ["/control.v1.PlacementService/StartMove", "ada started to move acme"],
  ["/control.v1.PlacementService/ListMoves", ""],
])("a change is described in words: %s", (procedure, want) => {
  expect(inWords(create(AuditRecordSchema, { procedure, principal: "ada", resource: "acme", node: "runner-1" }))).toBe(want);
});
