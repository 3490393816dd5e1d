import { useInfiniteQuery, useTransport, callUnaryMethod } from "@connectrpc/connect-query";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { EventService } from "../gen/aggregate/gateway/v1/event_pb";
import { instant, number } from "../app/format";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Choice, FilterBox, UrlText } from "../parts/field";
import { Page } from "../parts/page";
import { Answered, Empty } from "../parts/state";
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
  if (tenant !== "" && id !== "" && type !== "") return <Aggregate key={`${tenant} ${type} ${id}`} tenant={tenant} type={type} id={id} />;
  return (
    <Page title="Aggregates" tenant summary="Search by type and by the beginning of the id; the history of each is its events.">
      <div className="flex flex-wrap items-end gap-3">
        {types ? <Choice label="Type" value={type} options={types} onChange={(next) => set({ type: next, open: "", id: "" })} /> : <UrlText label="Type" name="type" />}
      </div>
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : id !== "" ? <Find tenant={tenant} id={id} types={types} /> : type === "" ? <Empty title="No type is chosen." /> : <List key={`${tenant} ${type}`} tenant={tenant} type={type} />}
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

/** Aggregates of a page, and how far a search goes by itself. */
const pageSize = 200;
const searchedPages = 10;

function List({ tenant, type }: { tenant: string; type: string }) {
  const [get, set] = useUrl();
  const prefix = get("q");
  const listed = useInfiniteQuery(
    EventService.method.listAggregates,
    { tenantId: tenant, aggregateType: type, idPrefix: prefix, newestFirst: true, pageSize, pageToken: "" },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, placeholderData: keepPreviousData },
  );
  const { data, hasNextPage, isFetching, fetchNextPage, error } = listed;
  const loaded = data?.pages.flatMap((page) => page.aggregates) ?? [];
  const searches = hasNextPage && !error && loaded.length === 0 && (data?.pages.length ?? 0) < searchedPages;
  useEffect(() => {
    if (searches && !isFetching) void fetchNextPage();
  }, [searches, isFetching, fetchNextPage]);
  return (
    <>
      <Answered of={listed}>
        {() => (
          <>
            <Table
              label="Aggregates"
              tools={<FilterBox label="Id begins with" />}
              rows={loaded}
              id={(one) => one.aggregateId}
              onSelect={(one) => set({ type, id: one.aggregateId })}
              empty={searches ? <Empty title="Searching…" /> : prefix !== "" ? <Empty title={`No ${type} has an id that begins with ${prefix}.`} /> : <Empty title={`${tenant} has no ${type}.`}>The first event of a command makes one.</Empty>}
              columns={[
                { name: "Id", width: 320, value: (one) => one.aggregateId },
                { name: "First event", width: 160, value: (one) => one.firstEventType },
                { name: "Created", width: timeWidth, value: (one) => instant(one.created), cell: (one) => <Time of={one.created} /> },
              ]}
            />
            <div className="flex flex-wrap items-center gap-3">
              <Button disabled={!hasNextPage || isFetching} onClick={() => void fetchNextPage()}>
                Load older
              </Button>
              <p className="text-muted" role="status">
                {number(loaded.length)} are loaded, the newest first{hasNextPage ? "; there may be older ones." : ": these are all."}
              </p>
            </div>
          </>
        )}
      </Answered>
    </>
  );
}
