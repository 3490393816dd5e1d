import type { JsonObject } from "@bufbuild/protobuf";
import { useQuery } from "@connectrpc/connect-query";
import { keepPreviousData } from "@tanstack/react-query";
import { useState } from "react";
import { QueryService, ViewState, type View } from "../gen/projection/gateway/v1/query_pb";
import { useUrl } from "../app/url";
import { useWatch } from "../app/watch";
import { Button, Copy } from "../parts/action";
import { Choice, Text } from "../parts/field";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { TenantPicker, useTenant } from "../parts/tenant";
import { Failed, Skips } from "./failed";
import { commandLines } from "./lines";

type Row = JsonObject;

export function Views() {
  const tenant = useTenant();
  const [get, set] = useUrl();
  const views = useQuery(QueryService.method.listViews, { tenantId: tenant }, { enabled: tenant !== "", refetchInterval: 10_000 });
  const all = views.data?.views ?? [];
  const view = all.find((one) => one.name === get("view")) ?? all[0];
  return (
    <div className="flex flex-col gap-4">
      <h1>Views</h1>
      <div className="flex flex-wrap items-end gap-4">
        <TenantPicker />
        <Choice label="View" value={view?.name ?? ""} options={all.map((one) => one.name)} onChange={(next) => set({ view: next, filter: "", order: "" })} />
      </div>
      {tenant === "" ? <Empty>Choose a tenant.</Empty> : null}
      {views.data?.generations
        .filter((generation) => !generation.shown)
        .map((generation) => (
          <p key={generation.model} className="panel">
            <Badge tone={generation.failing ? "bad" : "warn"}>{generation.failing ? "does not advance" : "being built"}</Badge> The views of model {generation.model} are built beside these: {generation.percent} %.
          </p>
        ))}
      {tenant === "" ? null : <Answered of={views}>{() =>
        view ? (
          <>
            {all.some((one) => one.state === ViewState.FAILED) ? (
              <p role="status">
                <Badge tone="bad">failed</Badge> {all.filter((one) => one.state === ViewState.FAILED).map((one) => one.name).join(", ")}: the other views continue.
              </p>
            ) : null}
            {view.skipped > 0 ? (
              <p role="status">
                <Badge tone="warn">incomplete</Badge> Operators have skipped {view.skipped} {view.skipped === 1 ? "event" : "events"} of this view.
              </p>
            ) : null}
            {view.failure ? <Failed tenant={tenant} view={view.name} failure={view.failure} again={() => void views.refetch()} /> : <Console key={tenant + view.name} tenant={tenant} view={view} />}
            <Skips tenant={tenant} view={view.name} />
          </>
        ) : (
          <Empty>The model has no view.</Empty>
        )
      }</Answered>}
    </div>
  );
}

function Console({ tenant, view }: { tenant: string; view: View }) {
  const [get, set] = useUrl();
  const [filter, setFilter] = useState(get("filter"));
  const [order, setOrder] = useState(get("order"));
  const [pages, setPages] = useState<string[]>([""]);
  const live = get("live") === "yes";
  const token = pages.at(-1) ?? "";
  const asked = { filter: get("filter"), orderBy: get("order"), pageSize: 50, pageToken: token };
  const rows = useQuery(QueryService.method.query, { tenantId: tenant, view: view.name, query: asked }, { enabled: !live, placeholderData: keepPreviousData });
  const watched = useLive(tenant, view.name, get("filter"), live);
  const run = () => {
    setPages([""]);
    set({ filter, order });
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
        <label className="flex items-center gap-1 py-1">
          <input type="checkbox" checked={live} onChange={(event) => set({ live: event.target.checked ? "yes" : "" })} /> Live
        </label>
        <Copy text={lines.curl}>Copy as curl</Copy>
        <Copy text={lines.buf}>Copy as buf curl</Copy>
      </form>
      <p className="flex flex-wrap gap-1" aria-label="Columns; choose one to filter by it">
        {view.columns.map((column) => (
          <button key={column.name} type="button" className="button text-xs" title={column.indexed ? "has an index" : "has no index"} onClick={() => setFilter((before) => (before === "" ? "" : `${before} AND `) + condition(column.name, column.type))}>
            {column.name}: {column.type}
            {column.indexed ? " ·" : ""}
          </button>
        ))}
      </p>
      {live ? (
        <>
          {watched.error ? <Problem error={watched.error} /> : <p role="status"><Badge tone="ok">live</Badge> {watched.rows.length} rows{watched.rows.length > 200 ? ", the first 200 are shown" : ""}</p>}
          <Rows view={view} rows={watched.rows.slice(0, 200)} />
        </>
      ) : (
        <Answered of={rows}>
          {(data) => (
            <>
              <Rows view={view} rows={data.rows} />
              <div className="flex gap-2">
                <Button disabled={pages.length < 2} onClick={() => setPages((before) => before.slice(0, -1))}>
                  Back
                </Button>
                <Button disabled={data.nextPageToken === ""} onClick={() => setPages((before) => [...before, data.nextPageToken])}>
                  Next page
                </Button>
                <span className="text-muted self-center">page {pages.length}</span>
              </div>
            </>
          )}
        </Answered>
      )}
    </>
  );
}

function Rows({ view, rows }: { view: View; rows: Row[] }) {
  return (
    <Table
      label={`Rows of ${view.name}`}
      rows={rows.map((row, n): [number, Row] => [n, row])}
      id={([n]) => String(n)}
      empty="No row fits."
      columns={view.columns.map((column) => ({
        name: column.name,
        number: column.type === "int" || column.type === "double",
        cell: ([, row]) => text(row[column.name]),
      }))}
    />
  );
}

function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The rows of a view as they are now, kept up with its changes. */
function useLive(tenant: string, view: string, filter: string, on: boolean) {
  const [rows, setRows] = useState<ReadonlyMap<string, Row>>(new Map());
  const watched = useWatch(QueryService.method.watch, on ? { tenantId: tenant, view, filter } : undefined, {
    take: (message) =>
      setRows((before) => {
        const next = new Map(message.reset ? [] : before);
        for (const change of message.changes) {
          if (change.row) next.set(change.key, change.row);
          else next.delete(change.key);
        }
        return next;
      }),
  });
  return { rows: [...rows.entries()].sort(([a], [b]) => a.localeCompare(b)).map(([, row]) => row), error: watched.error };
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
