import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useQueryClient } from "@tanstack/react-query";
import { FleetService, type Node, type NodeDrain } from "../gen/control/v1/fleet_pb";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Confirm } from "../parts/action";
import { toast } from "../parts/toast";

/** Drains a gateway, aggregate, projection or control node, and brings it back. */
export function DrainActions({ node, drain }: { node: Node; drain: NodeDrain }) {
  const [get, set] = useUrl();
  const ask = get("ask"); // what the address asks to be confirmed
  const refusal = useRefusal("fleet.admin");
  const queries = useQueryClient();
  const fleet = useQuery(FleetService.method.getFleet, {}, { enabled: false });
  const start = useMutation(FleetService.method.drainNode);
  const end = useMutation(FleetService.method.resumeNode);
  const shown = async () => {
    await Promise.all([queries.invalidateQueries(), fleet.refetch()]);
  };
  if (drain.drained)
    return (
      <Confirm
        title="Resume"
        strong
        refusal={refusal}
        what={`${node.id} is ready again, and takes new calls.`}
        run={async () => {
          await end.mutateAsync({ node: node.id });
          toast(`${node.id} takes calls again.`);
          await shown();
        }}
      >
        Resume…
      </Confirm>
    );
  return (
    <Confirm
      key={ask}
      title="Drain"
      danger
      reason
      refusal={refusal}
      asked={ask === "drain"}
      {...(ask === "" ? {} : { onClose: () => set({ ask: "" }, { replace: true }) })}
      what={
        <>
          <p>
            {node.id} takes no new calls. {drain.effect}
          </p>
          {drain.obstacle === "" ? null : <p className="text-warn mt-2">{drain.obstacle}</p>}
        </>
      }
      run={async (reason) => {
        await start.mutateAsync({ node: node.id, reason, force: drain.obstacle !== "" });
        toast(`${node.id} takes no new calls.`);
        await shown();
      }}
    >
      Drain…
    </Confirm>
  );
}
