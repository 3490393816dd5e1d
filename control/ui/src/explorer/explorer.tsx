import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { token } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Copy } from "../parts/copy";
import { FilterBox, matches, Text } from "../parts/field";
import { Code, Page } from "../parts/page";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { filled, operations, type Operation } from "./openapi";

async function ask(path: string, init: RequestInit = {}): Promise<{ status: number; text: string }> {
  const res = await fetch(path, { ...init, headers: { ...init.headers, authorization: `Bearer ${token()}` } });
  return { status: res.status, text: await res.text() };
}

export function Explorer() {
  const [get, set] = useUrl();
  const document = useQuery({
    queryKey: ["openapi"],
    queryFn: async () => {
      const { status, text } = await ask("/openapi.json");
      if (status !== 200) throw new Error(`/openapi.json answers ${status}`);
      return operations(JSON.parse(text) as Parameters<typeof operations>[0]);
    },
  });
  const filter = get("q");
  return (
    <Page
      title="API"
      summary={
        <>
          Described by <a href="/openapi.json">/openapi.json</a>. The same methods answer gRPC, gRPC-Web and Connect; gRPC reflection describes them to <code>buf curl</code>.
        </>
      }
    >
      <Answered of={document}>
        {(all) => {
          const chosen = all.find((one) => `${one.verb} ${one.path}` === get("operation"));
          return (
            <>
              {chosen ? <Try key={get("operation")} operation={chosen} /> : null}
              <Table
                label="Operations"
                tools={<FilterBox />}
                rows={all.filter((one) => matches(filter, one.verb, one.path, one.summary))}
                id={(one) => `${one.verb} ${one.path}`}
                selected={get("operation")}
                onSelect={(one) => set({ operation: `${one.verb} ${one.path}` })}
                empty={<Empty title="No operation matches the filter." />}
                columns={[
                  { name: "Operation", width: 380, value: (one) => `${one.verb} ${one.path}` },
                  { name: "What it does", width: 460, value: (one) => one.summary.split("\n")[0] },
                ]}
              />
            </>
          );
        }}
      </Answered>
    </Page>
  );
}

function Try({ operation }: { operation: Operation }) {
  const [values, setValues] = useState<Record<string, string>>({});
  const [query, setQuery] = useState("");
  const [tenant, setTenant] = useState("");
  const [body, setBody] = useState("{}");
  const path = filled(operation.path, values) + (query === "" ? "" : `?${query}`);
  const send = useMutation({
    mutationFn: () =>
      ask(path, {
        method: operation.verb,
        headers: { ...(operation.hasBody ? { "content-type": "application/json" } : {}), ...(tenant === "" ? {} : { "x-tenant-id": tenant }) },
        ...(operation.hasBody ? { body } : {}),
      }),
  });
  const curl = `curl -s -X ${operation.verb} ${location.origin}${path} -H "authorization: Bearer $TOKEN"${tenant === "" ? "" : ` -H 'x-tenant-id: ${tenant}'`}${operation.hasBody ? ` --json '${body.replaceAll("'", `'\\''`)}'` : ""}`;
  return (
    <section className="panel flex flex-col gap-3" aria-label="Try it">
      <h2>
        {operation.verb} {operation.path}
      </h2>
      <p className="whitespace-pre-wrap">{operation.summary}</p>
      <form
        className="flex flex-col gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          send.mutate();
        }}
      >
        <div className="flex flex-wrap gap-3">
          {operation.parameters.map((name) => (
            <Text key={name} label={name} value={values[name] ?? ""} onChange={(next) => setValues((before) => ({ ...before, [name]: next }))} />
          ))}
          <Text label="x-tenant-id" value={tenant} onChange={setTenant} />
          <Text label="Query string" value={query} onChange={setQuery} />
        </div>
        {operation.hasBody ? (
          <label className="flex flex-col gap-1">
            <span className="text-muted">Body (JSON)</span>
            <textarea className="field h-24 font-mono text-xs" value={body} spellCheck={false} onChange={(event) => setBody(event.target.value)} />
          </label>
        ) : null}
        <div className="flex gap-2">
          <Button type="submit" strong disabled={send.isPending}>
            Send
          </Button>
          <Copy text={curl}>Copy as curl</Copy>
        </div>
      </form>
      {send.error ? <Problem error={send.error} /> : null}
      {send.data ? (
        <div role="status" className="flex flex-col gap-2">
          <Badge tone={send.data.status < 400 ? "ok" : "bad"}>{send.data.status}</Badge>
          <Code label="Answer">{pretty(send.data.text)}</Code>
        </div>
      ) : null}
    </section>
  );
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
