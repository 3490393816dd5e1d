import { Code as ErrorCode, ConnectError } from "@connectrpc/connect";
import { useInfiniteQuery, useQuery } from "@connectrpc/connect-query";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { keepPreviousData } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Tabs } from "radix-ui";
import { CommandService } from "../gen/aggregate/gateway/v1/command_pb";
import { EventService, type JournalEvent } from "../gen/aggregate/gateway/v1/event_pb";
import { QueryService } from "../gen/projection/gateway/v1/query_pb";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Code, Page } from "../parts/page";
import { Answered, Badge, Empty } from "../parts/state";
import { Time } from "../parts/time";
import { aggregateColumn } from "../views/source";
import { differences } from "./diff";
import { EventDetail } from "./event";

const pageSize = 100;

/** An aggregate's events, its state at any version, and what changed between two. */
export function Aggregate({ tenant, type, id }: { tenant: string; type: string; id: string }) {
  const [get, set] = useUrl();
  const listed = useInfiniteQuery(
    EventService.method.listEvents,
    { tenantId: tenant, aggregateType: type, aggregateId: id, newestFirst: true, pageSize, pageToken: "" },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, refetchInterval: (query) => ((query.state.data?.pages.length ?? 0) > 1 ? false : 5_000) },
  );
  const events = listed.data?.pages.flatMap((page) => page.events) ?? [];
  const latest = Number(events[0]?.version ?? 0n);
  const chosen = Math.min(Number(get("version")) || latest, latest);
  const event = events.find((one) => Number(one.version) === chosen);
  return (
    <Page
      title={`${type}/${id}`}
      tenant
      summary={
        <span className="flex flex-wrap items-center gap-2">
          <Link to="/aggregates" search={{ type }}>
            Aggregates
          </Link>
          {latest > 0 ? (
            <span>
              version {latest}, last changed <Time of={events[0]?.time} />
              {events[0]?.principal ? ` by ${events[0].principal}` : ""}
            </span>
          ) : null}
        </span>
      }
      actions={
        <Link to="/commands" search={{ tenant, type, id }} className="button no-underline">
          Send a command…
        </Link>
      }
    >
      <Rows tenant={tenant} type={type} id={id} />
      <Answered of={listed}>
        {() =>
          events.length === 0 ? (
            <Empty title={`${type}/${id} has no events.`}>Nothing with this type and id has been changed by a command of {tenant}.</Empty>
          ) : (
            <div className="grid gap-4 lg:grid-cols-[minmax(18rem,24rem)_minmax(0,1fr)]">
              <section aria-label="History" className="panel flex max-h-[calc(100dvh-12rem)] flex-col gap-2 overflow-y-auto p-2" tabIndex={0}>
                <ol className="flex flex-col">
                  {events.map((one) => (
                    <Entry key={one.position} event={one} chosen={one === event} choose={() => set({ version: String(one.version) })} />
                  ))}
                </ol>
                {listed.hasNextPage ? (
                  <Button disabled={listed.isFetching} onClick={() => void listed.fetchNextPage()}>
                    Load older
                  </Button>
                ) : null}
              </section>
              <At tenant={tenant} type={type} id={id} version={chosen} latest={latest} event={event} />
            </div>
          )
        }
      </Answered>
    </Page>
  );
}

/** Links to the rows of views, and to the workflow instances, that the aggregate's events have made. */
function Rows({ tenant, type, id }: { tenant: string; type: string; id: string }) {
  const noQuery = useRefusal("query.read", "tenant");
  const noWork = useRefusal("workflow.read", "tenant");
  const views = useQuery(QueryService.method.listViews, { tenantId: tenant }, { enabled: noQuery === "", staleTime: 30_000, retry: false });
  const rows = (views.data?.views ?? []).flatMap((view) => {
    const source = aggregateColumn(view.columns, [type]);
    return source?.type === type ? [{ view: view.name, filter: `${source.column} = "${id}"` }] : [];
  });
  if (rows.length === 0 && noWork !== "") return null;
  return (
    <p className="flex flex-wrap gap-x-4 gap-y-1" role="group" aria-label="What its events have made">
      {rows.map(({ view, filter }) => (
        <Link key={view} to="/views" search={{ tenant, view, filter }}>
          Rows of {view}
        </Link>
      ))}
      {noWork === "" ? (
        <Link to="/workflows" search={{ tenant, q: id }}>
          Workflow instances
        </Link>
      ) : null}
    </p>
  );
}

function Entry({ event, chosen, choose }: { event: JournalEvent; chosen: boolean; choose: () => void }) {
  return (
    <li>
      <button type="button" className={`flex w-full cursor-pointer items-baseline gap-3 rounded px-2 py-1 text-left ${chosen ? "bg-accent-soft" : "hover:bg-raised"}`} aria-pressed={chosen} onClick={choose}>
        <span className="text-muted w-8 shrink-0 text-right">{String(event.version)}</span>
        <span className="flex min-w-0 flex-1 flex-col">
          <span className="truncate font-semibold">{event.unreadable ? "no event" : event.type}</span>
          <span className="text-muted truncate text-sm">
            <Time of={event.time} />
            {event.principal ? ` by ${event.principal}` : ""}
          </span>
        </span>
      </button>
    </li>
  );
}

interface Version {
  tenant: string;
  type: string;
  id: string;
  version: number;
}

/** The state after a version's event; version 0 is before the first. */
function useStateAt({ tenant, type, id, version }: Version) {
  const refusal = useRefusal("aggregate.read", "tenant");
  const state = useQuery(CommandService.method.getAggregate, { tenantId: tenant, aggregateType: type, aggregateId: id, version: BigInt(version) }, { enabled: refusal === "" && version > 0, staleTime: 60_000, placeholderData: keepPreviousData });
  return { refusal, ...state, data: version === 0 ? { state: {} as JsonObject } : state.data };
}

function At({ event, latest, ...at }: Version & { latest: number; event: JournalEvent | undefined }) {
  const [get, set] = useUrl();
  const { version } = at;
  const tab = get("tab") || "change";
  const compared = Math.max(0, Math.min(Number(get("compare") === "" ? version - 1 : get("compare")), latest));
  return (
    <section aria-label={`Version ${version}`} className="panel flex min-w-0 flex-col gap-3">
      <div className="flex flex-wrap items-center gap-3">
        <h2>
          Version {version} {event && !event.unreadable ? <span className="text-muted font-normal">{event.type}</span> : null}
        </h2>
        {version === latest ? <Badge tone="ok">newest</Badge> : <Badge tone="muted">{latest - version} versions ago</Badge>}
        <span className="flex-1" />
        <Button disabled={version <= 1} onClick={() => set({ version: String(version - 1) })}>
          Previous
        </Button>
        <Button disabled={version >= latest} onClick={() => set({ version: String(version + 1) })}>
          Next
        </Button>
      </div>
      <input type="range" className="accent-accent w-full" aria-label="Version" min={1} max={latest} value={version} onChange={(input) => set({ version: input.target.value }, { replace: true })} />
      <Tabs.Root value={tab} onValueChange={(next) => set({ tab: next === "change" ? "" : next }, { replace: true })} className="flex min-w-0 flex-col gap-3">
        <Tabs.List aria-label="What is shown of the version" className="border-border flex gap-1 border-b">
          {[["change", "Change"], ["state", "State"], ["event", "Event"]].map(([value = "", name]) => (
            <Tabs.Trigger key={value} value={value} className="text-muted data-[state=active]:text-text data-[state=active]:border-accent -mb-px cursor-pointer border-b-2 border-transparent px-3 py-1.5">
              {name}
            </Tabs.Trigger>
          ))}
        </Tabs.List>
        <Tabs.Content value="change">
          <Change {...at} compared={compared} />
        </Tabs.Content>
        <Tabs.Content value="state">
          <State {...at} />
        </Tabs.Content>
        <Tabs.Content value="event" className="flex min-w-0 flex-col gap-3">
          {event ? <EventDetail tenant={at.tenant} event={event} /> : <p className="text-muted">The event of this version is not loaded: load older events.</p>}
        </Tabs.Content>
      </Tabs.Root>
    </section>
  );
}

function State(at: Version) {
  const state = useStateAt(at);
  if (state.refusal) return <p className="text-muted">Not shown: {state.refusal}.</p>;
  return <Answered of={state}>{(data) => <Code label={`State at version ${at.version}`}>{JSON.stringify(data.state ?? {}, null, 2)}</Code>}</Answered>;
}

function Change({ compared, ...at }: Version & { compared: number }) {
  const [get, set] = useUrl();
  const after = useStateAt(at);
  const before = useStateAt({ ...at, version: compared });
  const missing = before.error && ConnectError.from(before.error).code === ErrorCode.NotFound;
  if (after.refusal) return <p className="text-muted">Not shown: {after.refusal}.</p>;
  return (
    <div className="flex flex-col gap-3">
      <label className="flex items-center gap-2">
        <span className="text-muted">Compared with version</span>
        <input type="number" className="field w-24" min={0} value={compared} onChange={(input) => set({ compare: input.target.value }, { replace: true })} />
        {get("compare") === "" ? (
          <span className="text-muted text-sm">the one before</span>
        ) : (
          <button type="button" className="button" onClick={() => set({ compare: "" })}>
            The one before
          </button>
        )}
      </label>
      <Answered of={missing ? { data: { state: {} as JsonObject }, error: undefined } : before}>
        {(from) => <Answered of={after}>{(to) => <Differences before={from.state ?? {}} after={to.state ?? {}} />}</Answered>}
      </Answered>
    </div>
  );
}

function show(value: JsonValue | undefined): string {
  return value === undefined ? "absent" : JSON.stringify(value);
}

function Differences({ before, after }: { before: JsonObject; after: JsonObject }) {
  const found = differences(before, after);
  if (found.length === 0) return <p className="text-muted">The states are the same.</p>;
  return (
    <table aria-label="What changed" className="w-full table-fixed text-left">
      <thead>
        <tr className="text-muted text-sm">
          <th scope="col" className="w-1/4 py-1 font-normal">
            Member
          </th>
          <th scope="col" className="py-1 font-normal">
            Before
          </th>
          <th scope="col" className="py-1 font-normal">
            After
          </th>
        </tr>
      </thead>
      <tbody>
        {found.map((one) => (
          <tr key={one.path} className="border-border border-t align-top">
            <th scope="row" className="py-1.5 pr-3 font-normal">
              <code className="break-all">{one.path || "everything"}</code>
            </th>
            <td className="py-1.5 pr-3">
              <code className={`rounded px-1 break-all ${one.before === undefined ? "text-muted" : "bg-bad-soft text-bad"}`}>{show(one.before)}</code>
            </td>
            <td className="py-1.5">
              <code className={`rounded px-1 break-all ${one.after === undefined ? "text-muted" : "bg-ok-soft text-ok"}`}>{show(one.after)}</code>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
