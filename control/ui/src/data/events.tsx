import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { useInfiniteQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { EventService, type JournalEvent } from "../gen/aggregate/gateway/v1/event_pb";
import { instant, number } from "../app/format";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button } from "../parts/action";
import { Check, Choice, UrlText } from "../parts/field";
import { Drawer, Page } from "../parts/page";
import { useSearching } from "../parts/searching";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { dataText, EventDetail, typeName } from "./event";
import { useTypes } from "./types";

const hour = 3_600_000;
const ranges: Record<string, number> = { "15m": hour / 4, "1h": hour, "24h": 24 * hour, "7d": 7 * 24 * hour };

/** A tenant's journal, the newest events first, and each new event. */
export function Events() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const types = useTypes();
  const following = get("follow") === "yes";
  return (
    <Page title="Events" tenant summary={tenant === "" ? null : `The journal of ${tenant}: what has happened, and by whom.`}>
      <div className="flex flex-wrap items-end gap-3">
        {types ? (
          <Choice label="Aggregate" value={get("type")} options={[["", "all types"], ...types.map((type): [string, string] => [type, type])]} onChange={(type) => set({ type, open: "" })} />
        ) : (
          <UrlText label="Aggregate" name="type" clears={["open"]} />
        )}
        <UrlText label="Event types" name="events" clears={["open"]} placeholder="opened, deposited" />
        {following ? null : <Choice label="Time" value={get("range")} options={[["", "all that is stored"], ["15m", "last 15 minutes"], ["1h", "last hour"], ["24h", "last 24 hours"], ["7d", "last 7 days"]]} onChange={(range) => set({ range, open: "" })} />}
        <Check label="Live" checked={following} onChange={(on) => set({ follow: on ? "yes" : "", open: "" })} />
      </div>
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : following ? <Tail key={`${tenant} ${get("type")} ${get("events")}`} tenant={tenant} /> : <Stored key={`${tenant} ${get("range")}`} tenant={tenant} />}
    </Page>
  );
}

function useFilter(tenant: string) {
  const [get] = useUrl();
  return { tenantId: tenant, aggregateType: get("type"), eventTypes: get("events").split(/[\s,]+/).filter((one) => one !== "") };
}

const pageSize = 200;
const searchedPages = 10;

function Stored({ tenant }: { tenant: string }) {
  const [get] = useUrl();
  const filter = useFilter(tenant);
  const [now] = useState(() => Date.now());
  const range = ranges[get("range")];
  const listed = useInfiniteQuery(
    EventService.method.readEvents,
    { ...filter, newestFirst: true, pageSize, pageToken: "", ...(range ? { since: timestampFromMs(now - range) } : {}) },
    { pageParamKey: "pageToken", getNextPageParam: (last) => last.nextPageToken || undefined, placeholderData: keepPreviousData },
  );
  const { data, hasNextPage, isFetching, fetchNextPage } = listed;
  const loaded = useMemo(() => data?.pages.flatMap((page) => page.events) ?? [], [data]);
  const searches = useSearching(listed, { tooFew: loaded.length === 0, pages: searchedPages });
  return (
    <Answered of={listed}>
      {() => (
        <>
          <List tenant={tenant} events={loaded} empty={searches ? "Searching older events…" : "No event matches."} />
          <div className="flex flex-wrap items-center gap-3">
            <Button disabled={isFetching} onClick={() => void listed.refetch()}>
              Refresh
            </Button>
            <Button disabled={!hasNextPage || isFetching} onClick={() => void fetchNextPage()}>
              Load older
            </Button>
            <p className="text-muted" role="status">
              {number(loaded.length)} events are loaded{hasNextPage ? "; there may be older ones." : ": these are all."}
            </p>
          </div>
        </>
      )}
    </Answered>
  );
}

const most = 500;

/** Events as they are appended; after an interruption the tail continues where it was. */
function Tail({ tenant }: { tenant: string }) {
  const filter = useFilter(tenant);
  const [events, setEvents] = useState<JournalEvent[]>([]);
  const watched = useWatch(EventService.method.subscribe, filter, {
    take: (messages) => {
      const appended = messages.flatMap((message) => message.events);
      if (appended.length > 0) setEvents((before) => [...appended.toReversed(), ...before].slice(0, most));
    },
    resume: (message) => (message.position === "" ? {} : { after: message.position }),
  });
  return (
    <>
      {watched.error ? <Problem error={watched.error} /> : <p role="status">{watched.last ? <Badge tone="ok">live</Badge> : "Connecting…"} <span className="text-muted">New events appear on top, at most the last {most}.</span></p>}
      <List tenant={tenant} events={events} empty="No event since this was opened." flash />
    </>
  );
}

function List({ tenant, events, empty, flash = false }: { tenant: string; events: JournalEvent[]; empty: string; flash?: boolean }) {
  const [get, set] = useUrl();
  const open = events.find((event) => event.position === get("open"));
  return (
    <>
      <Table
        label="Events"
        rows={events}
        id={(event) => event.position}
        selected={get("open")}
        onSelect={(event) => set({ open: event.position })}
        empty={<Empty title={empty} />}
        columns={[
          { name: "Event", width: 170, value: typeName, cell: (event) => <span className={flash ? "flash" : ""}>{event.unreadable ? "no event" : typeName(event)}</span> },
          { name: "Aggregate", width: 170, value: (event) => event.aggregateId },
          { name: "Version", width: 74, number: true, value: (event) => event.version },
          { name: "Data", width: 250, value: dataText, cell: (event) => <code>{JSON.stringify(event.data ?? {})}</code> },
          { name: "By", width: 110, value: (event) => event.principal },
          { name: "Time", width: timeWidth, value: (event) => instant(event.time), cell: (event) => <Time of={event.time} /> },
          { name: "Event id", hidden: true, value: (event) => event.id },
          { name: "Correlation id", hidden: true, value: (event) => event.correlationId },
          { name: "Causation id", hidden: true, value: (event) => event.causationId },
          { name: "Position", hidden: true, value: (event) => event.position },
        ]}
      />
      {open ? (
        <Drawer
          title={open.unreadable ? "No event" : typeName(open)}
          label="Event"
          badge={
            open.aggregateId === "" ? null : (
              <Link to="/aggregates" search={{ tenant, type: open.aggregateType, id: open.aggregateId, version: String(open.version) }}>
                {open.aggregateType}/{open.aggregateId}, version {String(open.version)}
              </Link>
            )
          }
          onClose={() => set({ open: "" })}
        >
          <EventDetail tenant={tenant} event={open} />
        </Drawer>
      ) : null}
    </>
  );
}
