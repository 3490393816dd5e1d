import { useMutation, useQuery } from "@connectrpc/connect-query";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { NodeState, RunnerAdmin, type NodeStatus } from "../gen/runner/admin/v1/admin_pb";
import { number } from "../app/format";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Confirm } from "../parts/action";
import { Problem } from "../parts/state";
import { toast } from "../parts/toast";

/** Drains a runner, and brings it back. `others` is the number of other runners that take work, `placed` are the tenants that this one alone serves. */
export function RunnerActions({ id, others, placed }: { id: string; others: number; placed: readonly string[] }) {
  const [get, set] = useUrl();
  const ask = get("ask"); // what the address asks to be confirmed
  const refusal = useRefusal("runner.admin");
  const status = useQuery(RunnerAdmin.method.status, { node: id }, { enabled: refusal === "", refetchInterval: 3_000 });
  const fleet = useQuery(FleetService.method.getFleet, {}, { enabled: false });
  const drain = useMutation(RunnerAdmin.method.drain);
  const resume = useMutation(RunnerAdmin.method.resume);
  const now = status.data?.status;
  const unknown = refusal === "" && !now ? "the runner has not reported its state" : "";
  const shown = async () => {
    await Promise.all([status.refetch(), fleet.refetch()]);
  };
  return (
    <>
      {now && now.state !== NodeState.RUNNING ? (
        <Confirm
          title="Resume"
          strong
          refusal={refusal}
          what={`${id} accepts work again, and goes on with the instances of its tenants.`}
          run={async () => {
            await resume.mutateAsync({ node: id });
            toast(`${id} accepts work again.`);
            await shown();
          }}
        >
          Resume…
        </Confirm>
      ) : (
        <Confirm
          key={ask === "" ? "drain" : `asked ${now !== undefined}`}
          title="Drain"
          refusal={refusal || unknown}
          danger
          asked={ask === "drain" && now !== undefined}
          {...(ask === "" ? {} : { onClose: () => set({ ask: "" }, { replace: true }) })}
          what={`${id} ${now?.inFlight ? `finishes ${inProgress(now)}` : "has nothing in progress"}, and takes no new work. ${others > 0 ? `The other ${others === 1 ? "runner takes" : `${number(others)} runners take`} its work over${placed.length > 0 ? `, except that of ${listed(placed)}, placed on ${id} alone: ${placed.length === 1 ? "its" : "their"} workflows wait; move ${placed.length === 1 ? "it" : "them"} before` : ""}.` : "No other runner takes work: workflows wait until this one is resumed, and the screens Workflows and Dead letters have no answer."}`}
          run={async () => {
            const answer = await drain.mutateAsync({ node: id });
            if (answer.status?.state === NodeState.DRAINED) toast(`${id} is drained.`);
            else toast(`${id} takes no new work, and still has ${inProgress(answer.status)} in progress.`);
            await shown();
          }}
        >
          Drain…
        </Confirm>
      )}
      {now?.state === NodeState.DRAINING ? <p className="text-muted self-center">Draining: {inProgress(now)} in progress.</p> : null}
      {status.error ? <Problem error={status.error} retry={() => void status.refetch()} /> : null}
    </>
  );
}

/** The first tenants by name, the others by their number. */
function listed(tenants: readonly string[]): string {
  const more = tenants.length - 3;
  return more > 0 ? `${tenants.slice(0, 3).join(", ")} and ${number(more)} more` : tenants.join(", ");
}

function inProgress(status: NodeStatus | undefined): string {
  const count = Number(status?.inFlight ?? 0n);
  return count === 1 ? "1 instance" : `${number(count)} instances`;
}
