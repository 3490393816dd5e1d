import { timestampDate } from "@bufbuild/protobuf/wkt";
import { useQuery } from "@connectrpc/connect-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { Dialog } from "radix-ui";
import { useState, type ReactNode } from "react";
import { FleetService } from "../gen/control/v1/fleet_pb";
import { ModelService } from "../gen/control/v1/model_pb";
import { QueryService } from "../gen/projection/gateway/v1/query_pb";
import { useTenant, useTenants } from "../parts/tenant";
import { instanceName, instancePath } from "../workflows/instance-name";
import { moment, unknown } from "./format";
import { locked, screens } from "./navigation";
import { leave } from "./arrival";
import { useFound } from "./found";
import { rank } from "./rank";
import { useRefusal, useWhoAmI } from "./session";
import { toggleTheme } from "./theme";
import type { Search } from "./url";
import { currentZone, setZone } from "./zone";

/** Finds what has a name, and runs actions: opened by Ctrl K. */
export function Palette({ onClose, onHelp }: { onClose: () => void; onHelp: () => void }) {
  const who = useWhoAmI().data;
  const tenant = useTenant();
  const tenants = useTenants();
  const navigate = useNavigate();
  const [typed, setTyped] = useState("");
  const noFleet = useRefusal("fleet.read");
  const noQuery = useRefusal("query.read", "tenant");
  const noEvents = useRefusal("events.read", "tenant");
  const noAdmin = useRefusal("runner.admin");
  const fleet = useQuery(FleetService.method.getFleet, {}, { enabled: noFleet === "" });
  const model = useQuery(ModelService.method.getModel, {}, { enabled: noFleet === "", staleTime: 30_000 });
  const views = useQuery(QueryService.method.listViews, { tenantId: tenant }, { enabled: noQuery === "" && tenant !== "" });
  const found = useFound(typed, tenant);
  const go = (to: string, search: Search = {}) => {
    onClose();
    void navigate({ to, search });
  };
  const act = (run: () => void) => () => {
    onClose();
    run();
  };
  const id = typed.trim();
  const [workflow = "", aggregate = ""] = id.split("/", 2);
  return (
    <Dialog.Root open onOpenChange={onClose}>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content className="menu appear fixed top-[12vh] left-1/2 w-[min(36rem,94vw)] -translate-x-1/2 p-0" aria-describedby={undefined}>
          <Dialog.Title className="sr-only">Search or jump to</Dialog.Title>
          <Command label="Search or jump to" loop filter={rank}>
            <Command.Input className="border-border placeholder:text-muted w-full border-b bg-transparent px-4 py-3 text-lg outline-none" placeholder="A screen, tenant, node, view, command, instance, or an id" value={typed} onValueChange={setTyped} />
            <Command.List className="max-h-[50vh] overflow-auto p-2">
              {id.length >= 4 ? null : <Command.Empty className="text-muted px-2 py-4">Nothing has this name. A correlation, trace or request id of four characters or more opens its timeline.</Command.Empty>}
              <Group heading="Screens">
                {screens
                  .filter((screen) => locked(who, screen) === "")
                  .map((screen) => (
                    <Item key={screen.to} value={`screen ${screen.name}`} onSelect={() => go(screen.to)}>
                      {screen.name}
                    </Item>
                  ))}
              </Group>
              <Group heading="Switch to a tenant">
                {tenants.map((one) => (
                  <Item key={one} value={`tenant ${one}`} onSelect={act(() => void navigate({ to: ".", search: { tenant: one } }))}>
                    {one}
                  </Item>
                ))}
              </Group>
              {typed === "" ? null : (
                <>
                  <Group heading="Nodes">
                    {(fleet.data?.fleet?.nodes ?? []).map((node) => (
                      <Item key={node.id} value={`node ${node.id}`} onSelect={() => go("/fleet", { open: node.id })}>
                        {node.id}
                      </Item>
                    ))}
                  </Group>
                  {noAdmin === "" ? (
                    <Group heading="Runners">
                      {(fleet.data?.fleet?.nodes ?? [])
                        .filter((node) => node.kind === "runner")
                        .map((node) => (
                          <Item key={node.id} value={`drain ${node.id}`} onSelect={() => go("/fleet", { open: node.id, ask: "drain" })}>
                            Drain {node.id}…
                          </Item>
                        ))}
                    </Group>
                  ) : null}
                  <Group heading={`Views of ${tenant}`}>
                    {(views.data?.views ?? []).map((view) => (
                      <Item key={view.name} value={`view ${view.name}`} onSelect={() => go("/views", { view: view.name })}>
                        {view.name}
                      </Item>
                    ))}
                  </Group>
                  <Group heading="Commands">
                    {(model.data?.aggregates ?? []).flatMap((type) =>
                      type.commands.map((command) => (
                        <Item key={`${type.name} ${command.name}`} value={`command ${type.name} ${command.name}`} onSelect={() => go("/commands", { type: type.name, command: command.name })}>
                          {type.name} {command.name}
                        </Item>
                      )),
                    )}
                  </Group>
                  <Group heading={`Workflow instances of ${tenant}`}>
                    {found.instances.map((one) => (
                      <Item key={instancePath(one)} value={`instance ${instanceName(one)} ${one.instanceId}`} onSelect={() => go("/workflows", { instance: instancePath(one) })}>
                        {instanceName(one)}
                      </Item>
                    ))}
                    {found.moreInstances ? (
                      <Item value={`instances ${id} search more`} onSelect={() => go("/workflows", { q: id })}>
                        Search more instances that begin with {found.id}…
                      </Item>
                    ) : null}
                  </Group>
                  <Group heading={`Aggregates of ${tenant}`}>
                    {found.aggregates.map((one) => (
                      <Item key={`${one.aggregateType}/${one.aggregateId}`} value={`aggregate ${one.aggregateType}/${one.aggregateId}`} onSelect={() => go("/aggregates", { type: one.aggregateType, id: one.aggregateId })}>
                        {one.aggregateType}/{one.aggregateId} <span className="text-muted">since {one.created ? moment(timestampDate(one.created)).slice(0, 16) : unknown}</span>
                      </Item>
                    ))}
                    {found.more.map((one) => (
                      <Item key={one.type} value={`aggregates ${one.type}/${one.id} all`} onSelect={() => go("/aggregates", { type: one.type, q: one.id })}>
                        All {one.type} aggregates that begin with {one.id}…
                      </Item>
                    ))}
                  </Group>
                </>
              )}
              <Group heading="Actions">
                <Item value="action switch theme dark light" onSelect={act(toggleTheme)}>
                  Switch between the dark and the light theme
                </Item>
                <Item value="action time zone utc local" onSelect={act(() => setZone(currentZone() === "utc" ? "local" : "utc"))}>
                  Show times in {currentZone() === "utc" ? "the browser's time zone" : "UTC"}
                </Item>
                <Item value="action keyboard shortcuts help" onSelect={act(onHelp)}>
                  Show the keyboard shortcuts
                </Item>
                <Item value="action sign out" onSelect={act(() => void leave())}>
                  Sign out
                </Item>
              </Group>
              {id.length >= 4 ? (
                <Group heading="Ids" forceMount>
                  <Item value={`timeline ${id}`} forceMount onSelect={() => go("/timeline", { id })}>
                    Timeline of {id} at {tenant}
                  </Item>
                  {noEvents === "" && /^[A-Za-z0-9_-]{1,128}$/.test(aggregate || id) ? (
                    <Item value={`aggregate ${id}`} forceMount onSelect={() => go("/aggregates", aggregate === "" ? { id } : { type: workflow, id: aggregate })}>
                      Aggregate {id} of {tenant}
                    </Item>
                  ) : null}
                  {aggregate !== "" ? (
                    <Item value={`instance ${id}`} forceMount onSelect={() => go("/workflows", { instance: `${workflow}/${aggregate}` })}>
                      Workflow instance {id}
                    </Item>
                  ) : null}
                </Group>
              ) : null}
            </Command.List>
            <div role="status" className="text-muted text-sm">
              {found.notes.length > 0 ? <p className="border-border border-t px-4 py-2">{found.notes.join(" ")}</p> : found.searching ? <p className="sr-only">Searching ids…</p> : null}
            </div>
          </Command>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Group({ heading, forceMount = false, children }: { heading: string; forceMount?: boolean; children: ReactNode }) {
  return (
    <Command.Group heading={heading} forceMount={forceMount} className="[&_[cmdk-group-heading]]:text-muted [&_[cmdk-group-heading]]:px-2 [&_[cmdk-group-heading]]:py-1 [&_[cmdk-group-heading]]:text-xs">
      {children}
    </Command.Group>
  );
}

function Item(props: { value: string; forceMount?: boolean; onSelect: () => void; children: ReactNode }) {
  return <Command.Item {...props} className="aria-selected:bg-raised cursor-pointer truncate rounded px-2 py-1.5" />;
}
