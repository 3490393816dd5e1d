import { timestampMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { WorkflowState, type GetWorkflowResponse, type WorkflowAttempt } from "../gen/runner/admin/v1/admin_pb";

/** A piece of an instance's time: what was done, attempts that failed, a wait, or the attempt to come. */
export interface Bar {
  step: string;
  kind: "done" | "refused" | "skipped" | "failing" | "waiting" | "next";
  /** Milliseconds of the epoch. */
  from: number;
  to: number;
  /** The text that describes it. */
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
 * Lays an instance out in time. The bar of a step is its last attempt, after the failed ones. Where a
 * record has no start, the bar begins where the record before it ended: it holds the time that the step
 * has waited for its turn, too.
 */
export function layOut(instance: GetWorkflowResponse, now: number): Steps {
  const from = at(instance.started, now);
  const bars: Bar[] = [];
  let before = from;
  for (const step of instance.steps) {
    bars.push(...failures(step.name, step.failedAttempts));
    const to = Math.max(at(step.time, before), before);
    const since = Math.min(Math.max(at(step.started, before), from), to);
    bars.push({ step: step.name, kind: step.outcome === "refused" ? "refused" : step.outcome === "skipped" ? "skipped" : "done", from: since, to, text: step.message });
    before = to;
  }
  const { attempts, waiting } = instance;
  if (attempts) {
    const first = at(attempts.first, before);
    const last = Math.max(at(attempts.last, first), first);
    const failed = attempts.failed === 1 ? "1 attempt failed" : `${attempts.failed} attempts failed`;
    bars.push({ step: attempts.step, kind: "failing", from: first, to: last, text: `${failed}: ${attempts.lastError}` });
    if (attempts.next) bars.push({ step: attempts.step, kind: "next", from: at(attempts.next, last), to: at(attempts.next, last), text: "next attempt" });
  }
  if (waiting) bars.push({ step: waiting.step, kind: "waiting", from: at(waiting.since, before), to: Math.max(at(waiting.until, before), before), text: "waits" });
  const last = Math.max(...bars.map((bar) => bar.to), from, ended(instance.state) ? from : now);
  return { bars, from, to: Math.max(last, from + 1) };
}

/** The failed attempts before a step's last one. */
function failures(step: string, attempts: readonly WorkflowAttempt[]): Bar[] {
  return attempts.flatMap(({ started, ended, error }) => (started && ended ? [{ step, kind: "failing" as const, from: timestampMs(started), to: Math.max(timestampMs(ended), timestampMs(started)), text: error }] : []));
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
