import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Link } from "@tanstack/react-router";
import { RunnerAdmin, WorkflowState, type WorkflowSubject } from "../gen/runner/admin/v1/admin_pb";
import { enumName, number, time } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Dangerous } from "../parts/action";
import { Choice, Text } from "../parts/field";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { FilterBox, matches, Table } from "../parts/table";
import { TenantPicker, useTenant } from "../parts/tenant";

export function Workflows() {
  const tenant = useTenant();
  return (
    <div className="flex flex-col gap-4">
      <h1>Workflows</h1>
      <div>
        <TenantPicker />
      </div>
      {tenant === "" ? (
        <Empty>Choose a tenant.</Empty>
      ) : (
        <>
          <Instances tenant={tenant} />
          <DeadLetters tenant={tenant} />
        </>
      )}
    </div>
  );
}

const tones = { [WorkflowState.COMPLETED]: "ok", [WorkflowState.COMPENSATED]: "warn", [WorkflowState.FAILED]: "bad" } as const;

function State({ state }: { state: WorkflowState }) {
  return <Badge tone={tones[state as keyof typeof tones] ?? "muted"}>{enumName(WorkflowState, state)}</Badge>;
}

function Instances({ tenant }: { tenant: string }) {
  const [get, set] = useUrl();
  const state = Number(get("state") || "0") as WorkflowState;
  const instances = useQuery(RunnerAdmin.method.listWorkflows, { tenantId: tenant, state, pageSize: 200, pageToken: get("page") }, { refetchInterval: 3_000 });
  const filter = get("q");
  return (
    <section className="flex flex-col gap-2" aria-label="Instances">
      <div className="flex flex-wrap items-end gap-4">
        <h2>Instances</h2>
        <Choice
          label="State"
          value={String(state)}
          options={[["0", "all"], ...Object.values(WorkflowState).filter((one): one is WorkflowState => typeof one === "number" && one > 0).map((one): [string, string] => [String(one), enumName(WorkflowState, one)])]}
          onChange={(next) => set({ state: next === "0" ? "" : next, page: "" })}
        />
        <FilterBox value={filter} onChange={(q) => set({ q })} />
      </div>
      <Answered of={instances}>
        {(data) => (
          <>
            <Table
              label="Workflow instances"
              rows={data.instances.filter((one) => matches(filter, label(one), one.instanceId, one.failure))}
              id={(one) => `${one.workflow}/${one.instanceId}`}
              selected={get("instance")}
              onSelect={(one) => set({ instance: `${one.workflow}/${one.instanceId}` })}
              empty={data.instances.length > 0 ? "None fits the filter." : data.nextPageToken ? "None of this state among these; the next page has older ones." : state || get("page") ? "There are none." : "No workflow has run for this tenant."}
              columns={[
                { name: "Instance", cell: label },
                { name: "State", cell: (one) => <State state={one.state} /> },
                { name: "Why", cell: (one) => one.failure },
                { name: "Started", cell: (one) => time(one.started) },
                { name: "Updated", cell: (one) => time(one.updated) },
              ]}
            />
            {data.nextPageToken ? (
              <button type="button" className="button self-start" onClick={() => set({ page: data.nextPageToken })}>
                Next page
              </button>
            ) : null}
          </>
        )}
      </Answered>
      {get("instance").includes("/") ? <Instance tenant={tenant} name={get("instance")} /> : null}
    </section>
  );
}

/** The name of an instance for readers: the workflow, and the aggregate whose event started it, with the version from the second on. */
function label({ workflow, instanceId, subject }: { workflow: string; instanceId: string; subject?: WorkflowSubject | undefined }): string {
  if (!subject) return `${workflow}/${instanceId}`;
  return `${workflow}/${subject.aggregateId}${subject.version > 1n ? `=${String(subject.version)}` : ""}`;
}

function Instance({ tenant, name }: { tenant: string; name: string }) {
  const [workflow = "", instanceId = ""] = name.split("/", 2);
  const instance = useQuery(RunnerAdmin.method.getWorkflow, { tenantId: tenant, workflow, instanceId }, { refetchInterval: 3_000 });
  return (
    <section className="panel" aria-label={`Instance ${instance.data ? label(instance.data) : name}`}>
      <Answered of={instance}>
        {(data) => (
          <>
            <h2>
              {label(data)} <State state={data.state} />
            </h2>
            <p className="text-muted">{data.instanceId}</p>
            {data.attempts ? (
              <p>
                Step {data.attempts.step}: {number(data.attempts.failed)} attempts have failed, the last at {time(data.attempts.last)}: {data.attempts.lastError}. {data.attempts.next ? `The next is at ${time(data.attempts.next)}.` : "None follows by itself."}
              </p>
            ) : null}
            {data.waiting ? (
              <p>
                It waits in {data.waiting.step} until {time(data.waiting.until)}.
              </p>
            ) : null}
            <ol className="my-2 ml-4 list-decimal">
              {data.steps.map((step) => (
                <li key={step.name}>
                  <strong>{step.name}</strong> <Badge tone={step.outcome === "done" ? "ok" : "warn"}>{step.outcome}</Badge> {step.message} <span className="text-muted">{time(step.time)}</span>
                </li>
              ))}
            </ol>
            {data.steps.length === 0 ? <p className="text-muted">No step is done yet.</p> : null}
            <p>Started by</p>
            <pre>{JSON.stringify(data.trigger, null, 2)}</pre>
          </>
        )}
      </Answered>
    </section>
  );
}

function DeadLetters({ tenant }: { tenant: string }) {
  const [get, set] = useUrl();
  const refusal = useRefusal("runner.admin");
  const cause = get("cause");
  const letters = useQuery(RunnerAdmin.method.listDeadLetters, { tenantId: tenant, cause, pageSize: 100 }, { refetchInterval: 5_000 });
  const replay = useMutation(RunnerAdmin.method.replayDeadLetters, { onSuccess: () => void letters.refetch() });
  return (
    <section className="flex flex-col gap-2" aria-label="Dead letters">
      <div className="flex flex-wrap items-end gap-4">
        <h2>Dead letters</h2>
        <Text label="Cause holds" value={cause} onChange={(next) => set({ cause: next })} />
        <Dangerous
          title="Replay"
          name={tenant}
          danger={false}
          strong
          refusal={refusal}
          disabled={(letters.data?.letters.length ?? 0) === 0}
          what={`The work of every dead letter of ${tenant}${cause ? ` whose cause holds “${cause}”` : ""} is done again, the oldest first. What succeeds is removed.`}
          run={() => replay.mutateAsync({ tenantId: tenant, cause })}
        >
          Replay all that fit…
        </Dangerous>
      </div>
      {replay.data ? (
        <p role="status">
          {number(replay.data.replayed)} replayed{replay.data.failure ? `; letter ${String(replay.data.failedId)} fails again: ${replay.data.failure}` : ""}.
        </p>
      ) : null}
      {replay.error ? <Problem error={replay.error} /> : null}
      <Answered of={letters}>
        {(data) => (
          <Table
            label="Dead letters"
            rows={data.letters}
            id={(letter) => String(letter.id)}
            empty={cause ? "No dead letter has such a cause." : "There is none: all work could be done."}
            columns={[
              { name: "No.", number: true, cell: (letter) => String(letter.id) },
              { name: "Event", cell: (letter) => `${letter.eventType} of ${letter.aggregateType}/${letter.aggregateId}` },
              { name: "Cause", cell: (letter) => letter.cause },
              { name: "Given up", cell: (letter) => time(letter.time) },
              {
                name: "Timeline",
                cell: (letter) => (
                  <Link to="/timeline" search={{ tenant, id: letter.correlationId }}>
                    {letter.correlationId.slice(0, 13)}…
                  </Link>
                ),
              },
            ]}
          />
        )}
      </Answered>
    </section>
  );
}
