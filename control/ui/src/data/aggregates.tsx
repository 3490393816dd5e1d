import { useInfiniteQuery, useTransport, callUnaryMethod } from "@connectrpc/connect-query";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useEffect, type ReactNode } from "react";
import { EventService, type AggregateRef } from "../gen/aggregate/gateway/v1/event_pb";
import { QueryService, type FoundAggregate } from "../gen/projection/gateway/v1/query_pb";
import { instant, number } from "../app/format";
import { parsePrefix } from "../app/prefix";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Choice, FilterBox, UrlText } from "../parts/field";
import { Page } from "../parts/page";
import { useSearching } from "../parts/searching";
import { Answered, Empty, Notice } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { Aggregate } from "./aggregate";
import { useTypes } from "./types";

/** The aggregates of a type, and one of them with its history. */
export function Aggregates() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const types = useTypes();
  const id = get("id");
  const type = get("type") || (id === "" ? (types?.[0] ?? "") : "");
  // A search by id is what the index is for; without one, the newest are of more interest.
  const order = get("order") || (get("q") === "" ? "newest" : "id");
  if (tenant !== "" && id !== "" && type !== "") return <Aggregate key={`${tenant} ${type} ${id}`} tenant={tenant} type={type} id={id} />;
  return (
    <Page title="Aggregates" tenant summary="Search by type and by the beginning of the id; the history of each is its events.">
      <div className="flex flex-wrap items-end gap-3">
        {types ? <Choice label="Type" value={type} options={types} onChange={(next) => set({ type: next, open: "", id: "" })} /> : <UrlText label="Type" name="type" />}
        <Choice label="Order" value={order} options={[["newest", "newest first, from the events"], ["id", "by id, from the index"]]} onChange={(next) => set({ order: next })} />
        <FilterBox label="Id begins with" />
      </div>
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : id !== "" ? <Find tenant={tenant} id={id} types={types} /> : type === "" ? <Empty title="No type is chosen." /> : <List key={`${tenant} ${type}`} tenant={tenant} type={type} newest={order === "newest"} />}
    </Page>
  );
}

/** Looks for an id among all types of the model, and leads on if one type has it. */
function Find({ tenant, id, types }: { tenant: string; id: string; types: string[] | undefined }) {
  const transport = useTransport();
  const [, set] = useUrl();
  const found = useQuery({
    queryKey: ["aggregate of any type", tenant, id, types],
    enabled: types !== undefined,
    queryFn: async ({ signal }) => {
      const answers = await Promise.all((types ?? []).map(async (type) => ({ type, events: (await callUnaryMethod(transport, EventService.method.listEvents, { tenantId: tenant, aggregateType: type, aggregateId: id, pageSize: 1 }, { signal })).events.length })));
      return answers.filter((one) => one.events > 0).map((one) => one.type);
    },
  });
  const only = found.data?.length === 1 ? found.data[0] : undefined;
  useEffect(() => {
    if (only) set({ type: only }, { replace: true });
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [only]);
  return (
    <Answered of={found}>
      {(data) =>
        data.length === 0 ? (
          <Empty title={`No aggregate of ${tenant} has the id ${id}.`}>
            <button type="button" className="button" onClick={() => set({ id: "" })}>
              Search
            </button>
          </Empty>
        ) : (
          <div className="panel flex flex-wrap items-center gap-2">
            Aggregates of several types have the id {id}:
            {data.map((type) => (
              <Button key={type} onClick={() => set({ type })}>
                {type}/{id}
              </Button>
            ))}
          </div>
        )
      }
    </Answered>
  );
}

/** Aggregates of a page, and how far a search of the events goes by itself. */
const pageSize = 200;
const searchedPages = 10;

/** How often an index that is being filled is asked again, in milliseconds. */
const fillingEvery = 2_000;

function List({ tenant, type, newest }: { tenant: string; type: string; newest: boolean }) {
  const [get] = useUrl();
  const wanted = parsePrefix(get("q"), "aggregate");
  if (!wanted || (wanted.name !== "" && wanted.name !== type))
    return <Found of={type} rows={[]} empty={<Empty title={`No ${type} has an id that begins with ${get("q").trim()}.`}>Ids have letters, digits, hyphens and underscores only.</Empty>} />;
  return newest ? <Newest tenant={tenant} type={type} prefix={wanted.id} /> : <ById tenant={tenant} type={type} prefix={wanted.id} />;
}

/** The aggregates whose ids begin with a text, by id, from the index of the views' nodes. */
function ById({ tenant, type, prefix }: { tenant: string; type: string; prefix: string }) {
  const [, set] = useUrl();
  const listed = useInfiniteQuery(
    QueryService.method.findAggregates,
    { tenantId: tenant, aggregateType: type, idPrefix: prefix, pageSize, pageToken: "" },
    {
      pageParamKey: "pageToken",
      getNextPageParam: (last) => last.nextPageToken || undefined,
      placeholderData: keepPreviousData,
      refetchInterval: (query) => (query.state.data?.pages.some((page) => page.incomplete) ? fillingEvery : false),
    },
  );
  const { data, hasNextPage, isFetching, isPlaceholderData, fetchNextPage, error } = listed;
  const loaded = data?.pages.flatMap((page) => page.aggregates) ?? [];
  const filling = data?.pages.find((page) => page.incomplete);
  const byEvents = (
    <Button onClick={() => set({ order: "newest" })}>Search the events instead</Button>
  );
  return (
    <>
      {filling ? (
        <Notice tone="warn">
          <span className="flex flex-wrap items-center gap-3">
            The index of ids covers {filling.percent} % of the journal so far: aggregates whose first event is after that are missing. {byEvents}
          </span>
        </Notice>
      ) : null}
      {error ? <div>{byEvents}</div> : null}
      <Answered of={listed}>
        {() => (
          <>
            <Found
              of={type}
              rows={loaded}
              empty={
                isPlaceholderData ? (
                  <Empty title="Searching…" />
                ) : prefix === "" ? (
                  <Empty title={`${tenant} has no ${type}${filling ? " so far" : ""}.`}>The first event of a command makes one.</Empty>
                ) : (
                  <Empty title={`No ${type}${filling ? " of the index so far" : ""} has an id that begins with ${prefix}.`} />
                )
              }
            />
            <More more={hasNextPage} busy={isFetching} load={() => void fetchNextPage()} label="Load more">
              {isPlaceholderData ? "Searching…" : `${number(loaded.length)} are loaded, by id${hasNextPage ? "; there are more." : filling ? "." : ": these are all."}`}
            </More>
          </>
        )}
      </Answered>
    </>
  );
}

/** The aggregates in the order of their first events, which are read for that. */
function Newest({ tenant, type, prefix }: { tenant: string; type: string; prefix: string }) {
  const listed = useInfiniteQuery(
    EventService.method.listAggregates,
    { tenantId: tenant, aggregateType: type, idPrefix: prefix, newestFirst: true, pageSize, pageToken: "" },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, placeholderData: keepPreviousData },
  );
  const { data, hasNextPage, isFetching, fetchNextPage } = listed;
  const loaded = data?.pages.flatMap((page) => page.aggregates) ?? [];
  const searches = useSearching(listed, { tooFew: loaded.length === 0, pages: searchedPages });
  return (
    <Answered of={listed}>
      {() => (
        <>
          <Found of={type} rows={loaded} empty={searches ? <Empty title="Searching…" /> : prefix !== "" ? <Empty title={`No ${type} has an id that begins with ${prefix}${hasNextPage ? ", of those searched so far" : ""}.`} /> : <Empty title={`${tenant} has no ${type}.`}>The first event of a command makes one.</Empty>} />
          <More more={hasNextPage} busy={isFetching} load={() => void fetchNextPage()} label="Load older">
            {number(loaded.length)} are loaded, the newest first{hasNextPage ? "; there may be older ones." : ": these are all."}
          </More>
        </>
      )}
    </Answered>
  );
}

function Found({ of, rows, empty }: { of: string; rows: (AggregateRef | FoundAggregate)[]; empty: ReactNode }) {
  const [, set] = useUrl();
  return (
    <Table
      label="Aggregates"
      rows={rows}
      id={(one) => one.aggregateId}
      onSelect={(one) => set({ type: of, id: one.aggregateId })}
      empty={empty}
      columns={[
        { name: "Id", width: 320, value: (one) => one.aggregateId },
        { name: "First event", width: 160, value: (one) => one.firstEventType },
        { name: "Created", width: timeWidth, value: (one) => instant(one.created), cell: (one) => <Time of={one.created} /> },
      ]}
    />
  );
}

function More({ more, busy, load, label, children }: { more: boolean; busy: boolean; load: () => void; label: string; children: ReactNode }) {
  return (
    <div className="flex flex-wrap items-center gap-3">
      {more ? (
        <Button disabled={busy} onClick={load}>
          {label}
        </Button>
      ) : null}
      <p className="text-muted" role="status">
        {children}
      </p>
    </div>
  );
}
