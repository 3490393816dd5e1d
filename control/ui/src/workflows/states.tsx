import { WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { enumName } from "../app/format";
import { Badge, type Tone } from "../parts/state";

const tones: Record<WorkflowState, Tone> = {
  [WorkflowState.UNSPECIFIED]: "muted",
  [WorkflowState.RUNNING]: "info",
  [WorkflowState.COMPENSATING]: "warn",
  [WorkflowState.COMPLETED]: "ok",
  [WorkflowState.COMPENSATED]: "warn",
  [WorkflowState.FAILED]: "bad",
  [WorkflowState.STUCK]: "bad",
  [WorkflowState.CANCELLED]: "muted",
};

/** The states, those first that need an operator. */
export const states = [WorkflowState.STUCK, WorkflowState.FAILED, WorkflowState.COMPENSATING, WorkflowState.RUNNING, WorkflowState.COMPENSATED, WorkflowState.COMPLETED, WorkflowState.CANCELLED] as const;

export function stateName(state: WorkflowState): string {
  return enumName(WorkflowState, state);
}

/** A state as a badge. An instance whose step has failed and is tried again is running, but not well. */
export function State({ state, retrying = false }: { state: WorkflowState; retrying?: boolean }) {
  if (retrying && state === WorkflowState.RUNNING) return <Badge tone="warn">running, retries</Badge>;
  return <Badge tone={tones[state]}>{stateName(state)}</Badge>;
}
