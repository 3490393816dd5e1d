import type { DescService } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { CommandService } from "../gen/aggregate/gateway/v1/command_pb";
import { EventService } from "../gen/aggregate/gateway/v1/event_pb";
import { AuditService } from "../gen/control/v1/audit_pb";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { JournalService } from "../gen/control/v1/journal_pb";
import { MetricsService } from "../gen/control/v1/metrics_pb";
import { ModelService } from "../gen/control/v1/model_pb";
import { PlacementService } from "../gen/control/v1/placement_pb";
import { TenantService } from "../gen/control/v1/tenant_pb";
import { TimelineService } from "../gen/control/v1/timeline_pb";
import { ViewService } from "../gen/control/v1/view_pb";
import { SessionService } from "../gen/gateway/v1/session_pb";
import { QueryService } from "../gen/projection/gateway/v1/query_pb";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";

const services: DescService[] = [CommandService, EventService, AuditService, FleetService, JournalService, MetricsService, ModelService, PlacementService, TenantService, TimelineService, ViewService, SessionService, QueryService, RunnerAdmin];

const reads = new Set(services.flatMap((service) => service.methods.filter((method) => method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS).map((method) => `/${service.typeName}/${method.name}`)));

/** Whether a procedure is declared to change nothing (NO_SIDE_EFFECTS); an unknown one may change something. */
export function isRead(procedure: string): boolean {
  return reads.has(procedure);
}
