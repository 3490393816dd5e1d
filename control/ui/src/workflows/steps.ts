import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { WorkflowState, type GetWorkflowResponse } from "../gen/runner/admin/v1/admin_pb";

/** A piece of an instance's time: what was done, attempts that failed, a wait, or the attempt to come. */
export interface Bar {
  step: string;
  kind: "done" | "refused" | "skipped" | "failing" | "waiting" | "next";
  /** Milliseconds of the epoch. */
  from: number;
  to: number;
  /** What there is to say of it. */
  text: string;
}

export interface Steps {
  bars: Bar[];
  from: number;
  to: number;
}

const at = (time: Timestamp | undefined, otherwise: number) => (time ? timestampMs(time) : otherwise);

/** Whether nothing of the instance happens any more. */
export function ended(state: WorkflowState): boolean {
  return state === WorkflowState.COMPLETED || state === WorkflowState.COMPENSATED || state === WorkflowState.CANCELLED;
}

/**
 * Lays an instance out in time. The record of a step says when it ended; its bar begins where the record
 * before it ended, so that it holds the time that the step has waited for its turn, too.
 */
export function layOut(instance: GetWorkflowResponse, now: number): Steps {
  const from = at(instance.started, now);
  const bars: Bar[] = [];
  let before = from;
  for (const step of instance.steps) {
    const to = Math.max(at(step.time, before), before);
    bars.push({ step: step.name, kind: step.outcome === "refused" ? "refused" : step.outcome === "skipped" ? "skipped" : "done", from: before, to, text: step.message });
    before = to;
  }
  const { attempts, waiting } = instance;
  if (attempts) {
    const first = at(attempts.first, before);
    const last = Math.max(at(attempts.last, first), first);
    const failures = attempts.failed === 1 ? "1 attempt failed" : `${attempts.failed} attempts failed`;
    bars.push({ step: attempts.step, kind: "failing", from: first, to: last, text: `${failures}: ${attempts.lastError}` });
    if (attempts.next) bars.push({ step: attempts.step, kind: "next", from: at(attempts.next, last), to: at(attempts.next, last), text: "next attempt" });
  }
  if (waiting) bars.push({ step: waiting.step, kind: "waiting", from: before, to: Math.max(at(waiting.until, before), before), text: "waits" });
  const last = Math.max(...bars.map((bar) => bar.to), from, ended(instance.state) ? from : now);
  return { bars, from, to: Math.max(last, from + 1) };
}

/** What may be done with an instance; each is the reason why not, or "". */
export function operations(instance: GetWorkflowResponse): { retry: string; skip: string; compensate: string; cancel: string; step: string } {
  const { state } = instance;
  const over = ended(state) ? "the instance has ended" : "";
  const stopped = state === WorkflowState.STUCK || state === WorkflowState.FAILED;
  const undo = state === WorkflowState.FAILED ? instance.steps.findLast((step) => step.outcome === "refused" && step.name.startsWith("undo "))?.name : undefined;
  const step = instance.attempts?.step ?? instance.waiting?.step ?? undo ?? "";
  return {
    step,
    retry: over || (instance.attempts || stopped ? "" : "no step of the instance has failed"),
    skip: over || (step === "" ? "the instance is at no step that can be skipped" : ""),
    compensate: over || (state === WorkflowState.COMPENSATING || state === WorkflowState.FAILED ? "the instance is being undone already" : ""),
    cancel: over,
  };
}
