import type { WorkflowSubject } from "../gen/runner/admin/v1/admin_pb";

interface Named {
  workflow: string;
  instanceId: string;
  subject?: WorkflowSubject | undefined;
}

/** An instance's name for readers: the workflow, and the aggregate whose event started it, with the version from the second on. */
export function instanceName({ workflow, instanceId, subject }: Named): string {
  if (!subject) return `${workflow}/${instanceId}`;
  return `${workflow}/${subject.aggregateId}${subject.version > 1n ? `=${String(subject.version)}` : ""}`;
}

/** An instance in the address. */
export function instancePath({ workflow, instanceId }: Named): string {
  return `${workflow}/${instanceId}`;
}
