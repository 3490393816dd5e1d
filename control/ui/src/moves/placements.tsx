import { useMutation, useQuery } from "@connectrpc/connect-query";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { PlacementService, type Placement } from "../gen/control/v1/placement_pb";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button, Confirm } from "../parts/action";
import { Card } from "../parts/card";
import { Answered, Badge, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { toast } from "../parts/toast";
import { suggestions } from "./suggest";

/** Moves that are worth planning, and the tenants that are placed: a placement is released here. */
export function Placements() {
  const placements = useQuery(PlacementService.method.listPlacements, {}, { refetchInterval: 5_000 });
  const fleet = useQuery(FleetService.method.getFleet, {}, { refetchInterval: 5_000 });
  const [, set] = useUrl();
  const placed = placements.data?.placements.filter((one) => one.node !== "") ?? [];
  const found = suggestions(placed, fleet.data?.fleet?.nodes ?? []);
  return (
    <>
      {found.length > 0 ? (
        <Card title="Suggestions">
          <ul className="divide-border divide-y">
            {found.map((one) => (
              <li key={`${one.kind} ${one.tenant}`} className="flex flex-wrap items-center gap-3 py-1.5">
                <span className="min-w-0 flex-1 break-words">
                  Move <strong>{one.tenant}</strong> ({one.kind}) from {one.source} to {one.target}: <span className="text-muted">{one.why}</span>
                </span>
                <Button onClick={() => set({ tenant: one.tenant, kind: one.kind, target: one.target })}>Prepare</Button>
              </li>
            ))}
          </ul>
        </Card>
      ) : null}
      <section aria-label="Placements" className="flex flex-col gap-2">
        <h2>Placed tenants</h2>
        <Answered of={placements}>
          {() => (
            <Table
              label="Placed tenants"
              rows={placed}
              id={(one) => `${one.kind} ${one.tenantId}`}
              empty={<Empty title="No tenant is placed.">All nodes of a kind serve each tenant. A move places a tenant on one node.</Empty>}
              columns={[
                { name: "Tenant", value: (one) => one.tenantId },
                { name: "Kind", width: 110, value: (one) => one.kind },
                { name: "Node", value: (one) => one.node },
                { name: "State", width: 120, value: (one) => (one.move ? "moving" : "placed"), cell: (one) => (one.move ? <Badge tone="warn">moving</Badge> : <Badge tone="ok">placed</Badge>) },
                { name: "Action", width: 190, value: () => "", cell: (one) => <Release placement={one} done={() => placements.refetch()} /> },
              ]}
            />
          )}
        </Answered>
      </section>
    </>
  );
}

function Release({ placement, done }: { placement: Placement; done: () => Promise<unknown> }) {
  const refusal = useRefusal("fleet.admin");
  const remove = useMutation(PlacementService.method.removePlacement);
  const { tenantId, kind, node } = placement;
  return (
    <Confirm
      title="Release"
      refusal={refusal || (placement.move ? "the tenant is moving" : "")}
      what={`All ${kind} nodes serve ${tenantId} again, not ${node} alone. Calls go on meanwhile.`}
      run={async () => {
        await remove.mutateAsync({ tenantId, kind });
        toast(`The placement of ${tenantId} is released.`);
        await done();
      }}
    >
      Release placement…
    </Confirm>
  );
}
