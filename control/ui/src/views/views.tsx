import type { JsonObject } from "@bufbuild/protobuf";
import { useQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { QueryService, ViewState, type View } from "../gen/projection/gateway/v1/query_pb";
import { Link } from "@tanstack/react-router";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { useTypes } from "../data/types";
import { aggregateColumn } from "./source";
import { useWatch } from "../app/watch";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { Check, Choice, Text } from "../parts/field";
import { Code, Drawer, Page } from "../parts/page";
import { Answered, Badge, Empty, Notice, Problem } from "../parts/state";
import { Table, type Column } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { Failed, Skips } from "./failed";
import { Builder } from "./builder";
import { commandLines } from "./lines";
import { applyMessages, noRows, type Followed } from "./live";

type Row = JsonObject;

export function Views() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const views = useQuery(QueryService.method.listViews, { tenantId: tenant }, { enabled: tenant !== "", refetchInterval: 10_000 });
  const all = views.data?.views ?? [];
  const view = all.find((one) => one.name === get("view")) ?? all[0];
  const failed = all.filter((one) => one.state === ViewState.FAILED);
  return (
    <Page
      title="Views"
      tenant
      summary={views.data ? (failed.length > 0 ? `${failed.map((one) => one.name).join(", ")} failed; the other views continue` : `${all.length} ${all.length === 1 ? "view" : "views"} of ${tenant}, none failed`) : null}
      actions={<Choice label="View" value={view?.name ?? ""} options={all.map((one) => one.name)} onChange={(next) => set({ view: next, filter: "", order: "", page: "", open: "" })} />}
    >
      {tenant === "" ? <Empty title="There is no tenant.">Create one on the screen Tenants.</Empty> : null}
      {views.data?.generations
        .filter((generation) => !generation.shown)
        .map((generation) => (
          <Notice key={generation.model} tone={generation.failing ? "bad" : "info"}>
            The views of model {generation.model} are built beside these: {generation.percent} %{generation.failing ? ", and do not advance" : ""}.
          </Notice>
        ))}
      {tenant === "" ? null : (
        <Answered of={views}>
          {() =>
            view ? (
              <>
                {view.skipped > 0 ? (
                  <Notice tone="warn">
                    The view is incomplete: operators have skipped {view.skipped} {view.skipped === 1 ? "event" : "events"}.
                  </Notice>
                ) : null}
                {view.failure ? <Failed tenant={tenant} view={view.name} failure={view.failure} again={() => void views.refetch()} /> : <Console key={tenant + view.name} tenant={tenant} view={view} />}
                <Skips tenant={tenant} view={view.name} />
              </>
            ) : (
              <Empty title="The model has no view.">Add one to the model on the screen Models.</Empty>
            )
          }
        </Answered>
      )}
    </Page>
  );
}

function Console({ tenant, view }: { tenant: string; view: View }) {
  const [get, set] = useUrl();
  const [filter, setFilter] = useState(get("filter"));
  const [order, setOrder] = useState(get("order"));
  const live = get("live") === "yes";
  const token = get("page");
  const asked = { filter: get("filter"), orderBy: get("order"), pageSize: 100, pageToken: token };
  const rows = useQuery(QueryService.method.query, { tenantId: tenant, view: view.name, query: asked }, { enabled: !live, placeholderData: keepPreviousData });
  const watched = useLive(tenant, view.name, get("filter"), live);
  const run = () => {
    set({ filter, order, page: "", open: "" });
  };
  const lines = commandLines(location.origin, tenant, view.name, { filter: get("filter"), orderBy: get("order") });
  return (
    <>
      <form
        className="flex flex-wrap items-end gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          run();
        }}
      >
        <Text wide label="Filter (AIP-160)" value={filter} onChange={setFilter} placeholder={example(view)} />
        <Text label="Order" value={order} onChange={setOrder} placeholder={view.columns[0] ? `${view.columns[0].name} desc` : ""} />
        <Button type="submit" strong>
          Run
        </Button>
        <Check label="Live" checked={live} onChange={(on) => set({ live: on ? "yes" : "", page: "", open: "" })} />
      </form>
      <div className="flex flex-wrap items-start justify-between gap-2">
        <Builder fields={view.columns} filter={filter} onChange={setFilter} />
        <span className="flex flex-wrap gap-2">
          <Copy text={lines.curl}>Copy as curl</Copy>
          <Copy text={lines.buf}>Copy as buf curl</Copy>
        </span>
      </div>
      {live ? (
        <>
          {watched.error ? <Problem error={watched.error} /> : <p role="status"><Badge tone="ok">live</Badge></p>}
          <Rows view={view} rows={watched.rows} />
        </>
      ) : (
        <Answered of={rows}>
          {(data) => (
            <>
              <Stored view={view} rows={data.rows} />
              <div className="flex gap-2">
                <Button disabled={token === ""} onClick={() => set({ page: "", open: "" })}>
                  First page
                </Button>
                <Button disabled={data.nextPageToken === ""} onClick={() => set({ page: data.nextPageToken, open: "" })}>
                  Next page
                </Button>
              </div>
            </>
          )}
        </Answered>
      )}
    </>
  );
}

/** Leads from a row to the events of the aggregate that one of its columns names. */
function History({ row, column, type }: { row: Row; column: string; type: string }) {
  const id = text(row[column]);
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(id)) return null;
  return (
    <Link to="/aggregates" search={{ type, id }} aria-label={`History of ${type === "" ? "" : `${type}/`}${id}`}>
      History
    </Link>
  );
}

const unchanged = {};

function Stored({ view, rows }: { view: View; rows: Row[] }) {
  return <Rows view={view} rows={useMemo(() => rows.map((row, n) => ({ id: String(n), row, changes: unchanged })), [rows])} />;
}

function Rows({ view, rows }: { view: View; rows: Followed[] }) {
  const [get, set] = useUrl();
  const refusal = useRefusal("events.read", "tenant");
  const types = useTypes();
  const source = refusal === "" ? aggregateColumn(view.columns, types ?? []) : undefined;
  const open = get("open") === "" ? undefined : rows.find((one) => one.id === get("open"))?.row;
  return (
    <>
      <Table
        label={`Rows of ${view.name}`}
        rows={rows}
        id={({ id }) => id}
        changes={({ changes }, column) => changes[column] ?? 0}
        selected={get("open")}
        onSelect={({ id }) => set({ open: id })}
        empty={<Empty title="No row matches.">{get("filter") === "" ? "The view has no rows: none of its events have happened yet." : "Change the filter and run it again."}</Empty>}
        columns={[...view.columns.map((column): Column<Followed> => ({
          name: column.name,
          number: column.type === "int" || column.type === "double",
          value: ({ row }) => scalar(row[column.name]),
          ...(column.type === "int" || column.type === "double" || column.type === "bool" ? { width: 110 } : {}),
          ...(column.type === "timestamp" ? { width: timeWidth, cell: ({ row }: Followed) => (typeof row[column.name] === "string" ? <Time of={new Date(String(row[column.name]))} /> : "") } : {}),
        })), ...(source ? [{ name: "History", width: 84, value: () => "", cell: ({ row }: Followed) => <History row={row} {...source} /> }] : [])]}
      />
      {open ? (
        <Drawer title={text(open[view.columns[0]?.name ?? ""])} label={`Row of ${view.name}`} onClose={() => set({ open: "" })}>
          <Code label="Row">{JSON.stringify(open, null, 2)}</Code>
        </Drawer>
      ) : null}
    </>
  );
}

/** A value that sorts as what it is: numbers as numbers. */
function scalar(value: unknown): string | number | boolean | undefined {
  if (value === null || value === undefined) return undefined;
  return typeof value === "number" || typeof value === "boolean" ? value : text(value);
}

function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The current rows of a view, updated with its changes. */
function useLive(tenant: string, view: string, filter: string, on: boolean) {
  const [live, setLive] = useState(noRows);
  const watched = useWatch(QueryService.method.watch, on ? { tenantId: tenant, view, filter } : undefined, {
    take: (messages) => setLive((before) => applyMessages(before, messages)),
  });
  const { rows, keys } = live;
  const followed = useMemo(() => keys.flatMap((id) => rows.get(id) ?? []), [rows, keys]);
  return { rows: followed, error: watched.error };
}

function condition(name: string, type: string): string {
  if (type === "int" || type === "double") return `${name} > 0`;
  if (type === "bool") return `${name} = true`;
  if (type === "timestamp") return `${name} > "2026-01-01T00:00:00Z"`;
  return `${name} = ""`;
}

function example(view: View): string {
  const column = view.columns.find((one) => one.indexed) ?? view.columns[0];
  return column ? condition(column.name, column.type) : "";
}
