import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { RunnerAdmin, WorkflowState, type GetWorkflowResponse } from "../gen/runner/admin/v1/admin_pb";
import { number, since } from "../app/format";
import { useRefusal } from "../app/session";
import { Confirm } from "../parts/action";
import { Id } from "../parts/copy";
import { Code, Drawer, Facts } from "../parts/page";
import { Answered, Notice } from "../parts/state";
import { Time } from "../parts/time";
import { toast } from "../parts/toast";
import { Gantt } from "./gantt";
import { instanceName } from "./instance-name";
import { State, stateName } from "./states";
import { ended, operations } from "./steps";

/** An instance with its steps in time, and what may be done with it. */
export function Instance({ tenant, name, onClose }: { tenant: string; name: string; onClose: () => void }) {
  const [workflow = "", instanceId = ""] = name.split("/", 2);
  const instance = useQuery(RunnerAdmin.method.getWorkflow, { tenantId: tenant, workflow, instanceId }, { refetchInterval: (query) => (query.state.data && ended(query.state.data.state) ? false : 2_000) });
  const shown = instance.data ? instanceName(instance.data) : name;
  return (
    <Drawer
      title={shown}
      label={`Instance ${shown}`}
      badge={
        instance.data ? (
          <span className="flex items-center gap-2">
            <State state={instance.data.state} retrying={instance.data.attempts !== undefined} />
            <span className="text-muted text-sm">changed {since(instance.data.updated)} ago</span>
          </span>
        ) : null
      }
      onClose={onClose}
      actions={instance.data ? <Actions tenant={tenant} instance={instance.data} reload={() => instance.refetch()} /> : null}
    >
      <Answered of={instance}>{(data) => <Body instance={data} />}</Answered>
    </Drawer>
  );
}

function Body({ instance }: { instance: GetWorkflowResponse }) {
  const { attempts, waiting } = instance;
  const refused = instance.steps.find((step) => step.outcome === "refused");
  return (
    <>
      {attempts ? (
        <Notice tone={attempts.next ? "warn" : "bad"}>
          Step <strong>{attempts.step}</strong> has failed {attempts.failed === 1 ? "once" : `${number(attempts.failed)} times`}, last at <Time of={attempts.last} />: {attempts.lastError}.{" "}
          {attempts.next ? (
            <>
              The next attempt is at <Time of={attempts.next} />.
            </>
          ) : (
            "No further attempt follows: retry the step, skip it, undo the instance, or cancel it."
          )}
        </Notice>
      ) : refused ? (
        <Notice tone={instance.state === WorkflowState.FAILED ? "bad" : "warn"}>
          Step <strong>{refused.name}</strong> was refused: {refused.message || "no reason was given"}.{" "}
          {instance.state === WorkflowState.COMPENSATED ? "The steps before it are undone." : instance.state === WorkflowState.COMPENSATING ? "The steps before it are being undone." : ""}
        </Notice>
      ) : null}
      {waiting ? (
        <Notice tone="info">
          Waits in step <strong>{waiting.step}</strong> until <Time of={waiting.until} />.
        </Notice>
      ) : null}
      <section className="flex flex-col gap-2">
        <h3>Steps</h3>
        <Gantt instance={instance} />
      </section>
      <Facts
        of={[
          ["Instance id", <Id key="i" text={instance.instanceId} label="instance id" />],
          ["Started", <Time key="s" of={instance.started} />],
          ["Updated", <Time key="u" of={instance.updated} />],
          ["Model", <code key="m" className="break-all">{instance.model}</code>],
          ["Started by", instance.subject ? `version ${String(instance.subject.version)} of ${instance.subject.aggregateType}/${instance.subject.aggregateId}` : ""],
          ["Event id", instance.subject?.eventId ? <code key="e" className="break-all">{instance.subject.eventId}</code> : ""],
        ]}
      />
      <section className="flex flex-col gap-2">
        <h3>Data of the event</h3>
        <Code label="Data of the event">{JSON.stringify(instance.trigger ?? {}, null, 2)}</Code>
      </section>
      {instance.subject ? (
        <Link to="/aggregates" search={{ type: instance.subject.aggregateType, id: instance.subject.aggregateId, version: String(instance.subject.version) }}>
          History of {instance.subject.aggregateType}/{instance.subject.aggregateId}
        </Link>
      ) : null}
      <Link to="/dead-letters" search={{ q: instance.subject?.aggregateId ?? instance.instanceId }}>
        Dead letters of {instance.subject?.aggregateId ?? "the instance"}
      </Link>
    </>
  );
}

function Actions({ tenant, instance, reload }: { tenant: string; instance: GetWorkflowResponse; reload: () => Promise<unknown> }) {
  const lacking = useRefusal("runner.admin", "tenant");
  const may = operations(instance);
  const name = instanceName(instance);
  const retry = useMutation(RunnerAdmin.method.retryWorkflow);
  const cancel = useMutation(RunnerAdmin.method.cancelWorkflow);
  const compensate = useMutation(RunnerAdmin.method.compensateWorkflow);
  const skip = useMutation(RunnerAdmin.method.skipStep);
  const named = { tenantId: tenant, workflow: instance.workflow, instanceId: instance.instanceId };
  const done = async (what: string, { state }: { state: WorkflowState }) => {
    toast(`${name} ${what}: it is ${stateName(state)}.`);
    await reload();
  };
  const undone = instance.steps.filter((step) => step.outcome === "done").length;
  return (
    <>
      <Confirm title="Retry" strong refusal={lacking || may.retry} reason what={`${name} goes on now${may.step ? ` with step ${may.step}` : ""}. No step that is done is done again.`} run={async (reason) => done("was retried", await retry.mutateAsync({ ...named, reason }))}>
        Retry now…
      </Confirm>
      <Confirm title="Skip step" refusal={lacking || may.skip} reason what={`${name} goes on without step ${may.step}. The step counts as ended, and is not undone later.`} run={async (reason) => done(`skipped ${may.step}`, await skip.mutateAsync({ ...named, step: may.step, reason }))}>
        Skip step…
      </Confirm>
      <Confirm title="Compensate" refusal={lacking || may.compensate} danger reason what={`${name} undoes the ${undone === 1 ? "step that is" : `${undone} steps that are`} done. A step whose outcome is not known is not undone.`} run={async (reason) => done("is compensated", await compensate.mutateAsync({ ...named, reason }))}>
        Compensate…
      </Confirm>
      <Confirm title="Cancel instance" refusal={lacking || may.cancel} danger reason name={name} what={`${name} ends where it is: nothing of it is done or undone any more. This cannot be reverted.`} run={async (reason) => done("is cancelled", await cancel.mutateAsync({ ...named, reason }))}>
        Cancel instance…
      </Confirm>
    </>
  );
}
