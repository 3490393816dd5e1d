import { expect, it } from "vitest";
import { isRead } from "./reads";

it.each([
  ["/control.v1.FleetService/GetFleet", true],
  ["/control.v1.AuditService/QueryAudit", true],
  ["/control.v1.MetricsService/QueryTenantSeries", true],
  ["/runner.admin.v1.RunnerAdmin/Drain", false],
  ["/control.v1.ModelService/CheckModel", true],
  ["/control.v1.ModelService/ApplyModel", false],
  ["/some.other.v1.Service/Get", false],
] as const)("%s only reads: %s", (procedure, want) => {
  expect(isRead(procedure)).toBe(want);
});
