import { useInfiniteQuery, useQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";
import { ModelService } from "../gen/control/v1/model_pb";
import { RunnerAdmin, type WorkflowState } from "../gen/runner/admin/v1/admin_pb";
import { instant, number } from "../app/format";
import { parsePrefix } from "../app/prefix";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Choice, FilterBox, matches, UrlText } from "../parts/field";
import { Page } from "../parts/page";
import { Answered, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { useStateCounts } from "./counts";
import { Instance } from "./instance";
import { instanceName, instancePath } from "./instance-name";
import { State, stateName, states } from "./states";

export function Workflows() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  return (
    <Page title="Workflows" tenant summary={<Summary tenant={tenant} />} detail={get("instance").includes("/") ? <Instance tenant={tenant} name={get("instance")} onClose={() => set({ instance: "" })} /> : null}>
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : <Instances key={`${tenant} ${get("state")}`} tenant={tenant} />}
    </Page>
  );
}

/** Whether something needs an operator, in a sentence. */
function Summary({ tenant }: { tenant: string }) {
  const counts = useStateCounts(tenant).data;
  if (!counts) return null;
  const [stuck, failed] = [counts.of.get(states[0]) ?? 0, counts.of.get(states[1]) ?? 0];
  const among = counts.complete ? `${number(counts.counted)} instances` : `the ${number(counts.counted)} instances that changed last`;
  if (stuck + failed === 0) return `Of ${among}, none is stuck or failed`;
  return `Of ${among}, ${stuck} stuck and ${failed} failed: they wait for an operator`;
}

/** Instances of a page, and how far a search goes back by itself: of ids, at the platform, a page is the 5,000 instances that are read for it. */
const pageSize = 200;
const searchedPages = 25;
const searchedById = 5;
const enough = 20;

/** How often what is loaded is loaded again, in milliseconds: a search by id reads thousands of instances per page. */
function refreshed(pages: number, byId: boolean): number | false {
  if (pages > 2) return byId ? false : 20_000;
  return byId ? 20_000 : 5_000;
}

const none: { pages: { instances: never[] }[] } = { pages: [] };

function Instances({ tenant }: { tenant: string }) {
  const [get, set] = useUrl();
  const state = Number(get("state") || "0") as WorkflowState;
  const filter = get("text");
  const begins = get("q").trim();
  const wanted = parsePrefix(begins, "instance");
  const workflow = wanted?.name || get("workflow");
  const counts = useStateCounts(tenant).data;
  const listed = useInfiniteQuery(
    RunnerAdmin.method.listWorkflows,
    { tenantId: tenant, state, workflow, idPrefix: wanted?.id ?? "", pageSize, pageToken: "" },
    { enabled: wanted !== undefined, pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, placeholderData: keepPreviousData, refetchInterval: (query) => refreshed(query.state.data?.pages.length ?? 0, begins !== "") },
  );
  const { hasNextPage, isFetching, isPlaceholderData, fetchNextPage, error } = listed;
  const data = wanted ? listed.data : none;
  const loaded = useMemo(() => data?.pages.flatMap((page) => page.instances) ?? [], [data]);
  const shown = useMemo(() => loaded.filter((one) => matches(filter, instanceName(one), one.instanceId, one.failure, one.attempts?.lastError, one.attempts?.step)), [loaded, filter]);
  const pages = data?.pages.length ?? 0;
  // A text searches older pages until it has found enough; an empty page of a state or a prefix is not the end, either.
  const searches = hasNextPage && !error && !isPlaceholderData && pages < (begins === "" ? searchedPages : searchedById) && (filter === "" ? loaded.length === 0 : shown.length < enough);
  useEffect(() => {
    if (searches && !isFetching) void fetchNextPage();
  }, [searches, isFetching, fetchNextPage]);
  return (
    <>
      <div className="flex flex-wrap items-end gap-3">
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
              rows={shown}
              id={instancePath}
              selected={get("instance")}
              onSelect={(one) => set({ instance: instancePath(one) })}
              empty={
                !wanted ? (
                  <Empty title={`No instance has an id that begins with ${begins}.`}>Enter the beginning of an instance’s id, or of the id of the aggregate that started it; a workflow’s name and a slash may stand before it.</Empty>
                ) : searches || isPlaceholderData ? (
                  <Empty title="Searching…" />
                ) : loaded.length > 0 ? (
                  <Empty title="No instance matches." />
                ) : begins !== "" ? (
                  <Empty title={`No instance${state > 0 ? ` that is ${stateName(state)}` : ""} has an id that begins with ${begins}${hasNextPage ? ", of those searched so far" : ""}.`} />
                ) : state > 0 ? (
                  <Empty title={`No instance is ${stateName(state)}.`} />
                ) : (
                  <Empty title={`No workflow has run for ${tenant}.`}>An event that a workflow of the model is “on” starts an instance.</Empty>
                )
              }
              columns={[
                { name: "Instance", width: 180, value: instanceName },
                { name: "State", width: 146, value: (one) => stateName(one.state), cell: (one) => <State state={one.state} retrying={one.attempts !== undefined} /> },
                { name: "Step", width: 110, value: (one) => one.attempts?.step ?? one.waiting?.step ?? "" },
                { name: "Failed attempts", width: 130, number: true, value: (one) => one.attempts?.failed, cell: (one) => (one.attempts ? number(one.attempts.failed) : "") },
                { name: "Error", width: 236, value: (one) => one.attempts?.lastError || one.failure },
                { name: "Next attempt", width: timeWidth, hidden: true, value: (one) => instant(one.attempts?.next), cell: (one) => (one.attempts?.next ? <Time of={one.attempts.next} /> : "") },
                { name: "Started", width: timeWidth, hidden: true, value: (one) => instant(one.started), cell: (one) => <Time of={one.started} /> },
                { name: "Updated", width: timeWidth, value: (one) => instant(one.updated), cell: (one) => <Time of={one.updated} /> },
                { name: "Instance id", hidden: true, value: (one) => one.instanceId },
                { name: "Model", hidden: true, value: (one) => one.model },
              ]}
            />
            <div className="flex flex-wrap items-center gap-3">
              <p className="text-muted" role="status">
                {isPlaceholderData ? "Searching…" : filter !== "" ? `Searched ${number(loaded.length)} instances` : begins !== "" ? `${number(loaded.length)} found, the last changed ones first` : `${number(loaded.length)} instances are loaded, the last changed ones first`}
                {isPlaceholderData ? "" : hasNextPage ? (begins === "" ? "; there are older ones." : "; older ones are not searched yet.") : ": these are all."}
              </p>
              {hasNextPage ? (
                <Button disabled={isFetching} onClick={() => void fetchNextPage()}>
                  {filter === "" && begins === "" ? "Load older" : "Search older"}
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
  const all = value === "" || names.includes(value) ? names : [value, ...names];
  return <Choice label="Workflow" value={value} options={[["", "all"], ...all]} onChange={onChange} />;
}

function Chip({ name, count, more, pressed, onClick }: { name: string; count: number | undefined; more: boolean; pressed: boolean; onClick: () => void }) {
  return (
    <button type="button" className={`button h-7 rounded-full px-3 ${pressed ? "border-accent bg-accent-soft" : ""}`} aria-pressed={pressed} onClick={onClick}>
      {name} {count === undefined ? null : <span className="text-muted">{number(count)}{more ? "+" : ""}</span>}
    </button>
  );
}
