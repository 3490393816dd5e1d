import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { FleetService, NodeState } from "../gen/control/v1/fleet_pb";
import { PlacementService, MoveStep, type PlanMoveResponse, type Move } from "../gen/control/v1/placement_pb";
import { enumName, number, time } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button, Dangerous } from "../parts/action";
import { Choice } from "../parts/field";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { TenantPicker, useTenant } from "../parts/tenant";

export function Rebalances() {
  const [get, set] = useUrl();
  const all = useQuery(PlacementService.method.listMoves, {}, { refetchInterval: 3_000 });
  const chosen = get("move");
  return (
    <div className="flex flex-col gap-4">
      <h1>Rebalance</h1>
      <Wizard onStarted={(move) => { set({ move }); void all.refetch(); }} />
      {chosen ? <Progress key={chosen} id={chosen} /> : null}
      <section aria-label="Moves" className="flex flex-col gap-2">
        <h2>Moves of the last weeks</h2>
        <Answered of={all}>
          {(data) => (
            <Table
              label="Moves"
              rows={data.moves}
              id={(move) => move.id}
              selected={chosen}
              onSelect={(move) => set({ move: move.id })}
              empty="No tenant has been moved."
              columns={[
                { name: "Tenant", cell: (move) => move.tenantId },
                { name: "Kind", cell: (move) => move.kind },
                { name: "From", cell: (move) => move.source || "all nodes" },
                { name: "To", cell: (move) => move.target },
                { name: "State", cell: (move) => <Step move={move} /> },
                { name: "By", cell: (move) => move.by },
                { name: "Started", cell: (move) => time(move.started) },
              ]}
            />
          )}
        </Answered>
      </section>
    </div>
  );
}

function Step({ move }: { move: Move }) {
  const tone = move.step === MoveStep.DONE ? "ok" : move.step === MoveStep.ABORTED ? "bad" : "warn";
  return <Badge tone={tone}>{enumName(MoveStep, move.step)}</Badge>;
}

function Wizard({ onStarted }: { onStarted: (id: string) => void }) {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
  const kind = get("kind") || "projection";
  const nodes = (fleet.data?.fleet?.nodes ?? []).filter((node) => node.kind === kind && node.state !== NodeState.LOST);
  const target = nodes.find((node) => node.id === get("target"))?.id ?? nodes[0]?.id ?? "";
  const plan = useMutation(PlacementService.method.planMove);
  const asked = `${tenant} ${kind} ${target}`;
  const [planned, setPlanned] = useState<{ for: string; plan: PlanMoveResponse }>();
  return (
    <section className="panel flex flex-col gap-3" aria-label="Move a tenant">
      <h2>Move a tenant</h2>
      <div className="flex flex-wrap items-end gap-4">
        <TenantPicker />
        <Choice label="Kind" value={kind} options={["projection", "aggregate", "runner"]} onChange={(next) => set({ kind: next, target: "" })} />
        <Choice label="To node" value={target} options={nodes.map((node) => node.id)} onChange={(next) => set({ target: next })} />
        <Button
          strong
          disabled={tenant === "" || target === "" || plan.isPending}
          onClick={() => plan.mutate({ tenantId: tenant, kind, target }, { onSuccess: (answer) => setPlanned({ for: asked, plan: answer }) })}
        >
          Plan
        </Button>
      </div>
      {plan.error ? <Problem error={plan.error} /> : null}
      {planned?.for === asked ? <Plan tenant={tenant} kind={kind} target={target} plan={planned.plan} onStarted={onStarted} /> : <p className="text-muted">Planning changes nothing.</p>}
    </section>
  );
}

function Plan({ tenant, kind, target, plan, onStarted }: { tenant: string; kind: string; target: string; plan: PlanMoveResponse; onStarted: (id: string) => void }) {
  const refusal = useRefusal("fleet.admin");
  const start = useMutation(PlacementService.method.startMove);
  return (
    <>
      <p>
        {tenant} moves from {plan.source || "all nodes"} to {plan.target}
        {plan.events === undefined ? "" : `, which has ${number(plan.events)} of the journal's events to read at most`}.
      </p>
      <ol className="ml-4 list-decimal">
        {plan.steps.map((step) => (
          <li key={step}>{step}</li>
        ))}
      </ol>
      {plan.obstacles.map((obstacle) => (
        <p key={obstacle} role="alert" className="text-bad">
          In the way: {obstacle}
        </p>
      ))}
      <div>
        <Dangerous
          title="Start"
          name={tenant}
          danger={false}
          strong
          refusal={refusal}
          disabled={plan.obstacles.length > 0}
          what="Calls go on while it moves, and it can be aborted until the old node gives the tenant up."
          run={async () => {
            const answer = await start.mutateAsync({ tenantId: tenant, kind, target });
            onStarted(answer.move?.id ?? "");
          }}
        >
          Start…
        </Dangerous>
      </div>
    </>
  );
}

const way = [MoveStep.PLANNED, MoveStep.WARMING, MoveStep.CATCHING_UP, MoveStep.FENCED, MoveStep.FLIPPED, MoveStep.VERIFYING, MoveStep.RETIRING, MoveStep.DONE];

function Progress({ id }: { id: string }) {
  const watched = useWatch(PlacementService.method.watchMove, { id }, { once: true });
  const refusal = useRefusal("fleet.admin");
  const abort = useMutation(PlacementService.method.abortMove);
  const move = watched.last?.move;
  if (!move) return watched.error ? <Problem error={watched.error} /> : <p role="status">Loading…</p>;
  const over = move.step === MoveStep.DONE || move.step === MoveStep.ABORTED;
  const entered = new Map(move.history.map((entry) => [entry.step, entry]));
  const steps = entered.has(MoveStep.ABORTING) || move.step === MoveStep.ABORTED ? move.history.map((entry) => entry.step) : way;
  return (
    <section className="panel flex flex-col gap-2" aria-label={`Move of ${move.tenantId}`}>
      <h2>
        {move.tenantId}: {move.source || "all nodes"} → {move.target} <Step move={move} />
      </h2>
      <ol className="flex flex-wrap gap-2" aria-label="Steps">
        {steps.map((step) => (
          <li key={step} aria-current={move.step === step ? "step" : undefined} className={`rounded border px-2 py-1 ${entered.has(step) ? (move.step === step && !over ? "text-warn border-current" : "text-ok border-current") : "text-muted border-line"}`}>
            {enumName(MoveStep, step)}
            <br />
            <span className="text-xs">{entered.has(step) ? time(entered.get(step)?.time).slice(11) : "–"}</span>
          </li>
        ))}
      </ol>
      {move.waitingFor && !over ? <p role="status">Waits until {move.waitingFor}.</p> : null}
      {move.reason ? <p>Reason: {move.reason}</p> : null}
      {move.fenceSequence !== undefined && move.checkpoint !== undefined && move.fenceSequence > 0n ? (
        <label>
          Journal read by {move.target}: {number(move.checkpoint)} of {number(move.fenceSequence)}
          <progress className="ml-2" max={Number(move.fenceSequence)} value={Math.min(Number(move.checkpoint), Number(move.fenceSequence))} />
        </label>
      ) : null}
      {over ? null : (
        <div>
          <Dangerous title="Abort" name={move.tenantId} refusal={refusal} disabled={move.step === MoveStep.RETIRING} what="Everything is put back to where it was; calls go on meanwhile." run={() => abort.mutateAsync({ id })}>
            Abort…
          </Dangerous>
        </div>
      )}
      {move.history.length === 0 ? <Empty>Nothing has been done yet.</Empty> : null}
    </section>
  );
}
