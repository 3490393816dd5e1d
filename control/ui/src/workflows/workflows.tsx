import { useInfiniteQuery, useQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { useMemo } from "react";
import { ModelService } from "../gen/control/v1/model_pb";
import { RunnerAdmin, type WorkflowInstance, type WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { instant, number } from "../app/format";
import { parsePrefix } from "../app/prefix";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Choice, FilterBox, UrlText } from "../parts/field";
import { Page } from "../parts/page";
import { useSearching } from "../parts/searching";
import { Answered, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { all, useStateCounts } from "./counts";
import { Instance } from "./instance";
import { instanceName, instancePath } from "./instance-name";
import { State, stateName, states } from "./states";

export function Workflows() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  return (
    <Page title="Workflows" tenant summary={<Summary tenant={isOfAll(get) ? all : tenant} />} detail={get("instance").includes("/") ? <Instance tenant={tenant} name={get("instance")} onClose={() => set({ instance: "" })} /> : null}>
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : <Instances key={`${isOfAll(get) ? all : tenant} ${get("state")}`} tenant={tenant} />}
    </Page>
  );
}

/** Whether the address asks for the instances of all tenants. */
function isOfAll(get: (name: string) => string): boolean {
  return get("of") === all;
}

/** Whether something needs an operator, in a sentence. */
function Summary({ tenant }: { tenant: string }) {
  const counts = useStateCounts(tenant).data;
  if (!counts) return null;
  const [stuck, failed] = [counts.of.get(states[0]) ?? 0, counts.of.get(states[1]) ?? 0];
  const whose = tenant === all ? " of all tenants" : "";
  const among = counts.complete ? `${number(counts.counted)} instances${whose}` : `the ${number(counts.counted)} instances${whose} that changed last`;
  if (stuck + failed === 0) return `Of ${among}, none is stuck or failed`;
  return `Of ${among}, ${stuck} stuck and ${failed} failed: they wait for an operator`;
}

/** Instances of a page, and how far a search goes back by itself: the platform reads 5,000 instances per page of a search. */
const pageSize = 200;
const searchedPages = 25;
const searchedBy = 5;

/** How often what is loaded is loaded again, in milliseconds: a search reads thousands of instances per page. */
function refreshed(pages: number, search: boolean): number | false {
  if (pages > 2) return search ? false : 20_000;
  return search ? 20_000 : 5_000;
}

const none: { pages: { instances: never[]; scanned: number }[] } = { pages: [] };

/** The instances of the tenant, or of all: the selection of the address, which the platform searches. */
function useInstances(tenant: string, ofAll: boolean, isValid: boolean, idPrefix: string, workflow: string) {
  const [get] = useUrl();
  const search = idPrefix !== "" || get("text") !== "";
  const selection = { state: Number(get("state") || "0") as WorkflowState, workflow, idPrefix, contains: get("text").trim().slice(0, 128), pageSize, pageToken: "" };
  const options = { pageParamKey: "pageToken" as const, getNextPageParam: (last: { nextPageToken: string }) => last.nextPageToken || undefined, placeholderData: keepPreviousData, refetchInterval: (query: { state: { data: { pages: unknown[] } | undefined } }) => refreshed(query.state.data?.pages.length ?? 0, search) };
  const own = useInfiniteQuery(RunnerAdmin.method.listWorkflows, { tenantId: tenant, ...selection }, { ...options, enabled: isValid && !ofAll });
  const ofEach = useInfiniteQuery(RunnerAdmin.method.listAllWorkflows, selection, { ...options, enabled: isValid && ofAll });
  return ofAll ? ofEach : own;
}

/** How far a list or a search goes, in words. */
function extent(loaded: number, scanned: number, search: boolean, more: boolean): string {
  if (!search) return `${number(loaded)} instances are loaded, the last changed ones first${more ? "; there are older ones." : ": these are all."}`;
  return `${number(loaded)} found in ${more ? `the ${number(scanned)} instances that changed last; older ones are not searched yet.` : `all ${number(scanned)} instances.`}`;
}

function Instances({ tenant }: { tenant: string }) {
  const [get, set] = useUrl();
  const state = Number(get("state") || "0") as WorkflowState;
  const filter = get("text");
  const begins = get("q").trim();
  const wanted = parsePrefix(begins, "instance");
  const refusal = useRefusal("workflow.read");
  const ofAll = isOfAll(get);
  const counts = useStateCounts(ofAll ? all : tenant).data;
  const listed = useInstances(tenant, ofAll, wanted !== undefined, wanted?.id ?? "", wanted?.name || get("workflow"));
  const { hasNextPage, isFetching, isPlaceholderData, fetchNextPage } = listed;
  const data = wanted ? listed.data : none;
  const loaded = useMemo(() => data?.pages.flatMap((page): WorkflowInstance[] => page.instances) ?? [], [data]);
  const scanned = data?.pages.reduce((sum, page) => sum + page.scanned, 0) ?? 0;
  const isSearch = filter !== "" || begins !== "";
  const searches = useSearching({ ...listed, data }, { tooFew: loaded.length === 0, pages: isSearch ? searchedBy : searchedPages });
  const identify = (one: WorkflowInstance) => (ofAll ? `${one.tenantId} ${instancePath(one)}` : instancePath(one));
  return (
    <>
      <div className="flex flex-wrap items-end gap-3">
        {refusal === "" || ofAll ? <Choice label="Instances of" value={ofAll ? all : ""} options={[["", tenant], [all, "all tenants"]]} onChange={(of) => set({ of, instance: "" })} /> : null}
        <FilterBox label="Id begins with" />
        <Workflow value={get("workflow")} onChange={(next) => set({ workflow: next })} />
        <UrlText label="Error or step contains" name="text" />
      </div>
      <div className="flex flex-wrap gap-2" role="group" aria-label="States">
        <Chip name="all" count={counts?.counted} more={counts?.complete === false} pressed={state === 0} onClick={() => set({ state: "" })} />
        {states.map((one) => (
          <Chip key={one} name={stateName(one)} count={counts ? (counts.of.get(one) ?? 0) : undefined} more={counts?.complete === false} pressed={state === one} onClick={() => set({ state: String(one) })} />
        ))}
      </div>
      <Answered of={{ ...listed, data }}>
        {() => (
          <>
            <Table
              label="Workflow instances"
              rows={loaded}
              id={identify}
              selected={ofAll ? `${tenant} ${get("instance")}` : get("instance")}
              onSelect={(one) => set({ instance: instancePath(one), ...(ofAll ? { tenant: one.tenantId } : {}) })}
              empty={
                !wanted ? (
                  <Empty title={`No instance has an id that begins with ${begins}.`}>Enter the beginning of an instance’s id, or of the id of the aggregate that started it; a workflow’s name and a slash may stand before it.</Empty>
                ) : searches || isPlaceholderData ? (
                  <Empty title="Searching…" />
                ) : isSearch ? (
                  <Empty title={`No instance${state > 0 ? ` that is ${stateName(state)}` : ""} ${[begins === "" ? "" : `has an id that begins with ${begins}`, filter === "" ? "" : `has “${filter}” in its error, step or name`].filter((one) => one !== "").join(" and ")}${hasNextPage ? ", of those searched so far" : ""}.`} />
                ) : state > 0 ? (
                  <Empty title={`No instance is ${stateName(state)}.`} />
                ) : (
                  <Empty title={`No workflow has run for ${ofAll ? "any tenant" : tenant}.`}>An event that a workflow of the model is “on” starts an instance.</Empty>
                )
              }
              columns={[
                { name: "Instance", width: 180, value: instanceName },
                ...(ofAll ? [{ name: "Tenant", width: 110, value: (one: WorkflowInstance) => one.tenantId }] : []),
                { name: "State", width: 146, value: (one) => stateName(one.state), cell: (one) => <State state={one.state} retrying={one.attempts !== undefined} /> },
                { name: "Step", width: 110, value: (one) => one.attempts?.step ?? one.waiting?.step ?? "" },
                { name: "Failed attempts", width: 130, number: true, value: (one) => one.attempts?.failed, cell: (one) => (one.attempts ? number(one.attempts.failed) : "") },
                { name: "Error", width: ofAll ? 126 : 236, value: (one) => one.attempts?.lastError || one.failure },
                { name: "Next attempt", width: timeWidth, hidden: true, value: (one) => instant(one.attempts?.next), cell: (one) => (one.attempts?.next ? <Time of={one.attempts.next} /> : "") },
                { name: "Started", width: timeWidth, hidden: true, value: (one) => instant(one.started), cell: (one) => <Time of={one.started} /> },
                { name: "Updated", width: timeWidth, value: (one) => instant(one.updated), cell: (one) => <Time of={one.updated} /> },
                { name: "Instance id", hidden: true, value: (one) => one.instanceId },
                { name: "Model", hidden: true, value: (one) => one.model },
              ]}
            />
            <div className="flex flex-wrap items-center gap-3">
              <p className="text-muted" role="status">
                {searches || isPlaceholderData ? "Searching…" : extent(loaded.length, scanned, isSearch, hasNextPage)}
              </p>
              {hasNextPage ? (
                <Button disabled={isFetching} onClick={() => void fetchNextPage()}>
                  {isSearch ? "Search older" : "Load older"}
                </Button>
              ) : null}
            </div>
          </>
        )}
      </Answered>
    </>
  );
}

/** The choice between the workflows of the model; without the right to read it there is none. */
function Workflow({ value, onChange }: { value: string; onChange: (next: string) => void }) {
  const refusal = useRefusal("fleet.read");
  const names = useQuery(ModelService.method.getModel, {}, { enabled: refusal === "", staleTime: 30_000 }).data?.workflows ?? [];
  if (names.length === 0 && value === "") return null;
  const offered = value === "" || names.includes(value) ? names : [value, ...names];
  return <Choice label="Workflow" value={value} options={[["", "all"], ...offered]} onChange={onChange} />;
}

function Chip({ name, count, more, pressed, onClick }: { name: string; count: number | undefined; more: boolean; pressed: boolean; onClick: () => void }) {
  return (
    <button type="button" className={`button h-7 rounded-full px-3 ${pressed ? "border-accent bg-accent-soft" : ""}`} aria-pressed={pressed} onClick={onClick}>
      {name} {count === undefined ? null : <span className="text-muted">{number(count)}{more ? "+" : ""}</span>}
    </button>
  );
}
