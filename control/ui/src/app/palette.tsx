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
  const noFleetAdmin = useRefusal("fleet.admin");
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
  const nodes = fleet.data?.fleet?.nodes ?? [];
  // Only what has been asked for: without a text, screens, tenants and actions.
  const named: Entries[] = [
    { heading: "Nodes", entries: nodes.map((node) => ({ value: `node ${node.id}`, text: node.id, run: () => go("/fleet", { open: node.id }) })) },
    { heading: "Drain nodes", entries: nodes.filter((node) => (node.kind === "runner" ? noAdmin : noFleetAdmin) === "" && ["gateway", "aggregate", "projection", "runner", "control"].includes(node.kind)).map((node) => ({ value: `drain ${node.id}`, text: `Drain ${node.id}…`, run: () => go("/fleet", { open: node.id, ask: "drain" }) })) },
    { heading: `Views of ${tenant}`, entries: (views.data?.views ?? []).map((view) => ({ value: `view ${view.name}`, text: view.name, run: () => go("/views", { view: view.name }) })) },
    { heading: "Commands", entries: (model.data?.aggregates ?? []).flatMap((type) => type.commands.map((command) => ({ value: `command ${type.name} ${command.name}`, text: `${type.name} ${command.name}`, run: () => go("/commands", { type: type.name, command: command.name }) }))) },
    {
      heading: `Workflow instances of ${tenant}`,
      entries: [
        ...found.instances.map((one) => ({ value: `instance ${instanceName(one)} ${one.instanceId}`, text: instanceName(one), run: () => go("/workflows", { instance: instancePath(one) }) })),
        ...(found.moreInstances ? [{ value: `instances ${id} search more`, text: `Search more instances that begin with ${found.id}…`, run: () => go("/workflows", { q: id }) }] : []),
      ],
    },
    {
      heading: `Aggregates of ${tenant}`,
      entries: [
        ...found.aggregates.map((one) => ({
          value: `aggregate ${one.aggregateType}/${one.aggregateId}`,
          text: (
            <>
              {one.aggregateType}/{one.aggregateId} <span className="text-muted">since {one.created ? moment(timestampDate(one.created)).slice(0, 16) : unknown}</span>
            </>
          ),
          run: () => go("/aggregates", { type: one.aggregateType, id: one.aggregateId }),
        })),
        ...found.more.map((one) => ({ value: `aggregates ${one.type}/${one.id} all`, text: `All ${one.type} aggregates that begin with ${one.id}…`, run: () => go("/aggregates", { type: one.type, q: one.id }) })),
      ],
    },
  ];
  const groups: Entries[] = [
    { heading: "Screens", entries: screens.filter((screen) => locked(who, screen) === "").map((screen) => ({ value: `screen ${screen.name}`, text: screen.name, run: () => go(screen.to) })) },
    { heading: "Switch to a tenant", entries: tenants.map((one) => ({ value: `tenant ${one}`, text: one, run: act(() => void navigate({ to: ".", search: { tenant: one } })) })) },
    ...(typed === "" ? [] : named),
    {
      heading: "Actions",
      entries: [
        ...(noFleet === "" && tenant !== "" ? [{ value: `action move tenant ${tenant}`, text: `Move ${tenant} to another node…`, run: () => go("/moves", {}) }, { value: `action limits quota suspend resume tenant ${tenant}`, text: `Limits of ${tenant}, suspend or resume it…`, run: () => go("/tenants/detail", {}) }] : []),
        { value: "action switch theme dark light", text: "Switch between the dark and the light theme", run: act(toggleTheme) },
        { value: "action time zone utc local", text: `Show times in ${currentZone() === "utc" ? "the browser's time zone" : "UTC"}`, run: act(() => setZone(currentZone() === "utc" ? "local" : "utc")) },
        { value: "action keyboard shortcuts help", text: "Show the keyboard shortcuts", run: act(onHelp) },
        { value: "action sign out", text: "Sign out", run: act(() => void leave()) },
      ],
    },
    {
      heading: "Ids",
      always: true,
      entries:
        id.length < 4
          ? []
          : [
              { value: `timeline ${id}`, text: `Timeline of ${id} at ${tenant}`, run: () => go("/timeline", { id }) },
              ...(noEvents === "" && /^[A-Za-z0-9_-]{1,128}$/.test(aggregate || id) ? [{ value: `id aggregate ${id}`, text: `Aggregate ${id} of ${tenant}`, run: () => go("/aggregates", aggregate === "" ? { id } : { type: workflow, id: aggregate }) }] : []),
              ...(aggregate !== "" ? [{ value: `id instance ${id}`, text: `Workflow instance ${id}`, run: () => go("/workflows", { instance: `${workflow}/${aggregate}` }) }] : []),
            ],
    },
  ];
  return (
    <Dialog.Root open onOpenChange={onClose}>
      <Dialog.Portal>
        <Dialog.Overlay className="appear fixed inset-0 z-40 bg-black/50" />
        <Dialog.Content className="menu appear fixed top-[12vh] left-1/2 w-[min(36rem,94vw)] -translate-x-1/2 p-0" aria-describedby={undefined}>
          <Dialog.Title className="sr-only">Search or jump to</Dialog.Title>
          {/* Entries are selected and ordered by Group: results that come late never change the order of the groups. */}
          <Command label="Search or jump to" loop shouldFilter={false}>
            <Command.Input className="border-border placeholder:text-muted w-full border-b bg-transparent px-4 py-3 text-lg outline-none" placeholder="A screen, tenant, node, view, command, instance, or an id" value={typed} onValueChange={setTyped} />
            <Command.List className="max-h-[50vh] overflow-auto p-2">
              {id.length >= 4 ? null : <Command.Empty className="text-muted px-2 py-4">Nothing has this name. A correlation, trace or request id of four characters or more opens its timeline.</Command.Empty>}
              {groups.map((group) => (
                <Group key={group.heading} {...group} typed={typed} />
              ))}
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

/** Something that can be chosen: its value, a kind and a name, is what the typed text is compared with. */
interface Entry {
  value: string;
  text: ReactNode;
  run: () => void;
}

interface Entries {
  heading: string;
  entries: Entry[];
  /** Whether all are shown, whichever text is typed. */
  always?: boolean;
}

/** The entries that match the typed text, the best first; without any, nothing. */
function Group({ heading, entries, always = false, typed }: Entries & { typed: string }) {
  const ranked = entries.map((entry) => ({ entry, rank: always ? 1 : rank(entry.value, typed) })).filter((one) => one.rank > 0);
  if (ranked.length === 0) return null;
  return (
    <Command.Group heading={heading} className="[&_[cmdk-group-heading]]:text-muted [&_[cmdk-group-heading]]:px-2 [&_[cmdk-group-heading]]:py-1 [&_[cmdk-group-heading]]:text-xs">
      {ranked
        .sort((a, b) => b.rank - a.rank)
        .map(({ entry }) => (
          <Command.Item key={entry.value} value={entry.value} onSelect={entry.run} className="aria-selected:bg-raised cursor-pointer truncate rounded px-2 py-1.5">
            {entry.text}
          </Command.Item>
        ))}
    </Command.Group>
  );
}
