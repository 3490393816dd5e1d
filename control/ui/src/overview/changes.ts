import { timestampDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createQueryOptions, useTransport } from "@connectrpc/connect-query";
import { useQueries } from "@tanstack/react-query";
import { useState } from "react";
import { AuditService, type AuditRecord } from "../gen/control/v1/audit_pb";
import { useRefusal } from "../app/session";

/** The procedures that change how the platform runs, in words. */
const words: readonly [procedure: string, what: string][] = [
  ["RunnerAdmin/Drain", "drained"],
  ["RunnerAdmin/Resume", "resumed"],
  ["FleetService/DrainNode", "drained"],
  ["FleetService/ResumeNode", "resumed"],
  ["RunnerAdmin/ResumeTenant", "resumed the workflows of"],
  ["ModelService/ApplyModel", "applied a model"],
  ["PlacementService/StartMove", "started to move"],
  ["PlacementService/AbortMove", "aborted the move"],
  ["PlacementService/AssignPlacement", "placed"],
  ["PlacementService/RemovePlacement", "released the placement of"],
  ["TenantService/CreateTenant", "created tenant"],
  ["TenantService/SuspendTenant", "suspended tenant"],
  ["TenantService/ResumeTenant", "resumed tenant"],
  ["TenantService/SetQuota", "set call limits of"],
  ["TenantService/SetStorageQuota", "set storage limits of"],
];

// One question per part: a page of all records would be full of what operators have read.
const parts = ["RunnerAdmin/Drain", "RunnerAdmin/Resume", "FleetService/", "ModelService/ApplyModel", "PlacementService/", "TenantService/"];

const day = 86_400_000;
/** The changes that are listed. */
export const most = 12;

/** The change that a record's principal made, in words; "" for one that changes nothing of the platform. */
export function inWords(record: AuditRecord): string {
  const [, what = ""] = words.find(([procedure]) => record.procedure.endsWith(procedure)) ?? [];
  if (what === "") return "";
  const ofNode = record.procedure.endsWith("/Drain") || record.procedure.endsWith("/Resume");
  const object = ofNode ? record.node : record.resource || record.tenantId;
  return [record.principal || "a caller", what, object].filter((word) => word !== "").join(" ");
}

/** What operators changed in the last day, the newest first, at most the last 12, once it is wanted; refusal is the reason why they are not known. */
export function useChanges(wanted: boolean): { changes: AuditRecord[]; refusal: string; loaded: boolean; error: unknown } {
  const refusal = useRefusal("audit.read");
  const transport = useTransport();
  const [since] = useState(() => timestampFromMs(Date.now() - day));
  const answers = useQueries({
    queries: parts.map((procedure) => ({
      ...createQueryOptions(AuditService.method.queryAudit, { procedure, decision: "allowed", pageSize: most, since }, { transport }),
      enabled: wanted && refusal === "",
      refetchInterval: 30_000,
    })),
  });
  const records = answers.flatMap((answer) => answer.data?.records ?? []).filter((record) => record.code === "" || record.code === "ok");
  const time = (record: AuditRecord) => (record.time ? timestampDate(record.time).getTime() : 0);
  return {
    changes: records.filter((record) => inWords(record) !== "").sort((a, b) => time(b) - time(a)).slice(0, most),
    refusal,
    loaded: answers.every((answer) => answer.data !== undefined),
    error: answers.find((answer) => answer.error)?.error,
  };
}
