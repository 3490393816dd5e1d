import { Circle, CircleCheck, CircleDot } from "lucide-react";
import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { FleetService, NodeState } from "../gen/control/v1/fleet_pb";
import { PlacementService, MoveStep, type PlanMoveResponse, type Move } from "../gen/control/v1/placement_pb";
import { enumName, instant, number } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button, Confirm } from "../parts/action";
import { Choice } from "../parts/field";
import { Answered, Badge, Empty, Notice, Problem, Skeleton } from "../parts/state";
import { Drawer, Page } from "../parts/page";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";
import { Placements } from "./placements";

export function Moves() {
  const [get, set] = useUrl();
  const all = useQuery(PlacementService.method.listMoves, {}, { refetchInterval: 3_000 });
  const chosen = get("move");
  const running = (all.data?.moves ?? []).filter((move) => move.step !== MoveStep.DONE && move.step !== MoveStep.ABORTED).length;
  return (
    <Page
      title="Moves"
      tenant
      summary={all.data ? (running > 0 ? `${running} in progress` : "None in progress") : null}
      detail={chosen ? <Progress key={chosen} id={chosen} onClose={() => set({ move: "" })} /> : null}
    >
      <Wizard onStarted={(move) => { set({ move }); void all.refetch(); }} />
      <Answered of={all}>
        {(data) => (
          <Table
            label="Moves"
            rows={data.moves}
            id={(move) => move.id}
            selected={chosen}
            onSelect={(move) => set({ move: move.id })}
            empty={<Empty title="No tenant has been moved.">A move takes a tenant from one node to another while calls continue: plan one above.</Empty>}
            columns={[
              { name: "Tenant", value: (move) => move.tenantId },
              { name: "Kind", width: 110, value: (move) => move.kind },
              { name: "From", value: (move) => move.source || "all nodes" },
              { name: "To", value: (move) => move.target },
              { name: "State", width: 130, value: (move) => enumName(MoveStep, move.step), cell: (move) => <Step move={move} /> },
              { name: "By", value: (move) => move.by },
              { name: "Started", width: timeWidth, value: (move) => instant(move.started), cell: (move) => <Time of={move.started} /> },
            ]}
          />
        )}
      </Answered>
      <Placements />
    </Page>
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
      <h2>Move {tenant || "a tenant"}</h2>
      <div className="flex flex-wrap items-end gap-4">
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
        {plan.events === undefined ? "" : `, which reads at most ${number(plan.events)} events of the journal`}.
      </p>
      <ol className="ml-4 list-decimal">
        {plan.steps.map((step) => (
          <li key={step}>{step}</li>
        ))}
      </ol>
      {plan.obstacles.map((obstacle) => (
        <div key={obstacle} role="alert">
          <Notice tone="bad">Obstacle: {obstacle}</Notice>
        </div>
      ))}
      <div>
        <Confirm
          title="Start"
          strong
          refusal={refusal}
          disabled={plan.obstacles.length > 0}
          what={`${tenant} moves to ${target}. Calls go on meanwhile, and the move can be aborted until the old node releases the tenant.`}
          run={async () => {
            const answer = await start.mutateAsync({ tenantId: tenant, kind, target });
            onStarted(answer.move?.id ?? "");
          }}
        >
          Start…
        </Confirm>
      </div>
    </>
  );
}

const way = [MoveStep.PLANNED, MoveStep.WARMING, MoveStep.CATCHING_UP, MoveStep.FENCED, MoveStep.FLIPPED, MoveStep.VERIFYING, MoveStep.RETIRING, MoveStep.DONE];

function Progress({ id, onClose }: { id: string; onClose: () => void }) {
  const watched = useWatch(PlacementService.method.watchMove, { id }, { once: true });
  const refusal = useRefusal("fleet.admin");
  const abort = useMutation(PlacementService.method.abortMove);
  const move = watched.last?.move;
  if (!move)
    return (
      <Drawer title="Move" label="Move" onClose={onClose}>
        {watched.error ? <Problem error={watched.error} /> : <Skeleton />}
      </Drawer>
    );
  const over = move.step === MoveStep.DONE || move.step === MoveStep.ABORTED;
  const entered = new Map(move.history.map((entry) => [entry.step, entry]));
  const steps = entered.has(MoveStep.ABORTING) || move.step === MoveStep.ABORTED ? move.history.map((entry) => entry.step) : way;
  return (
    <Drawer
      title={`${move.tenantId}: ${move.source || "all nodes"} → ${move.target}`}
      label={`Move of ${move.tenantId}`}
      badge={<Step move={move} />}
      onClose={onClose}
      actions={
        over ? null : (
          <Confirm
            title="Abort"
            danger
            refusal={refusal}
            disabled={move.step === MoveStep.RETIRING}
            what={`${move.tenantId} stays where it was, and the new node's work is removed. Calls go on meanwhile.`}
            run={async () => {
              await abort.mutateAsync({ id });
              toast(`The move of ${move.tenantId} is being aborted.`);
            }}
          >
            Abort…
          </Confirm>
        )
      }
    >
      <ol className="flex flex-col gap-1" aria-label="Steps">
        {steps.map((step) => {
          const done = entered.has(step);
          const now = move.step === step && !over;
          const Icon = now ? CircleDot : done ? CircleCheck : Circle;
          return (
            <li key={step} aria-current={move.step === step ? "step" : undefined} className={`flex items-center gap-2 ${done ? "" : "text-muted"}`}>
              <Icon className={`size-4 shrink-0 ${now ? "text-warn" : done ? "text-ok" : "text-muted"}`} aria-hidden />
              <span className="flex-1">{enumName(MoveStep, step)}</span>
              <span className="text-muted text-sm">{done ? <Time of={entered.get(step)?.time} /> : null}</span>
            </li>
          );
        })}
      </ol>
      {move.waitingFor && !over ? <Notice tone="info">Waiting until {move.waitingFor}.</Notice> : null}
      {move.reason ? <p>Reason: {move.reason}</p> : null}
      {move.fenceSequence !== undefined && move.checkpoint !== undefined && move.fenceSequence > 0n ? (
        <label className="flex flex-col gap-1">
          Journal read by {move.target}: {number(move.checkpoint)} of {number(move.fenceSequence)}
          <progress className="w-full" max={Number(move.fenceSequence)} value={Math.min(Number(move.checkpoint), Number(move.fenceSequence))} />
        </label>
      ) : null}
      {watched.error ? <Problem error={watched.error} /> : null}
    </Drawer>
  );
}
