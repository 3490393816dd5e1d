import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { token } from "../app/session";
import { useUrl } from "../app/url";
import { isRead } from "../audit/reads";
import { Button, Confirm } from "../parts/action";
import { Copy } from "../parts/copy";
import { FilterBox, matches, Text } from "../parts/field";
import { Code, Facts, Page } from "../parts/page";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";
import { filled, operations, type Document, type Field, type Operation } from "./openapi";
import { message, snippets } from "./snippets";

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
      return operations(JSON.parse(text) as Document);
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

/** What the fields of a request are. */
function Fields({ of }: { of: Field[] }) {
  if (of.length === 0) return <p className="text-muted">The body has no fields.</p>;
  return (
    <details open>
      <summary className="cursor-pointer">Fields of the body ({of.length})</summary>
      <dl className="mt-2 grid grid-cols-[max-content_minmax(0,1fr)] gap-x-4 gap-y-1">
        {of.map((field) => (
          <div key={field.name} className="contents">
            <dt>
              <code>{field.name}</code>
              {field.required ? " *" : ""}
            </dt>
            <dd className="min-w-0 break-words">
              <span className="text-muted">{field.type}.</span> {field.description}
            </dd>
          </div>
        ))}
      </dl>
    </details>
  );
}

function Try({ operation }: { operation: Operation }) {
  const [values, setValues] = useState<Record<string, string>>({});
  const chosen = useTenant();
  const [typedTenant, setTenant] = useState<string>();
  const tenant = typedTenant ?? chosen;
  const [typed, setBody] = useState("{}");
  const [language, setLanguage] = useState("curl");
  const body = operation.body ? typed : undefined;
  const of = (place: string) => operation.parameters.filter((one) => one.in === place);
  const query = new URLSearchParams(of("query").flatMap(({ name }) => (values[name] ? [[name, values[name]]] : []))).toString();
  const path = filled(operation.path, values) + (query === "" ? "" : `?${query}`);
  const headers = Object.fromEntries(of("header").flatMap(({ name }) => (values[name] ? [[name, values[name]]] : [])));
  const send = useMutation({
    mutationFn: () =>
      ask(path, {
        method: operation.verb,
        headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }), ...(tenant === "" ? {} : { "x-tenant-id": tenant }) },
        ...(body === undefined ? {} : { body }),
      }),
  });
  const procedure = operation.method === "" ? "" : `/${operation.service}/${operation.method}`;
  const changes = operation.verb !== "GET" && !isRead(procedure);
  const named = Object.fromEntries([...of("path"), ...of("query")].map(({ name }) => [name, values[name] ?? ""]));
  const made = snippets({ origin: location.origin, verb: operation.verb, path, tenant, body, procedure, message: message(body, named) });
  const missing = of("path").some(({ name }) => !values[name]);
  return (
    <section className="panel flex flex-col gap-3" aria-label="Try it">
      <h2 className="break-words">
        {operation.verb} {operation.path}
      </h2>
      <p className="whitespace-pre-wrap">{operation.description || operation.summary}</p>
      <Facts
        of={[
          ["Method", procedure && <code key="m" className="break-all">{procedure}</code>],
          ["Right", operation.right],
          ["Time limit", operation.timeout],
          ["Effect", changes ? "It changes something: sending it is confirmed first." : "It only reads."],
        ]}
      />
      <div className="flex flex-wrap gap-3">
        {operation.parameters.map((one) => (
          <Text key={`${one.in} ${one.name}`} label={one.in === "path" ? one.name : `${one.name} (${one.in})`} placeholder={one.description} value={values[one.name] ?? ""} onChange={(next) => setValues((before) => ({ ...before, [one.name]: next }))} />
        ))}
        <Text label="x-tenant-id" value={tenant} onChange={setTenant} />
      </div>
      {operation.body ? (
        <>
          <Fields of={operation.body} />
          <label className="flex flex-col gap-1">
            <span className="text-muted">Body (JSON)</span>
            <textarea className="field h-24 font-mono text-xs" value={typed} spellCheck={false} onChange={(event) => setBody(event.target.value)} />
          </label>
        </>
      ) : null}
      <div className="flex gap-2">
        {changes ? (
          <Confirm
            title="Send"
            strong
            disabled={missing || send.isPending}
            what={
              <>
                <code className="break-all">
                  {operation.verb} {path}
                </code>{" "}
                is sent under your credential{tenant === "" ? "" : `, for the tenant ${tenant}`}. {operation.summary}
              </>
            }
            run={() => send.mutateAsync()}
          >
            Send…
          </Confirm>
        ) : (
          <Button strong disabled={missing || send.isPending} onClick={() => send.mutate()}>
            Send
          </Button>
        )}
      </div>
      {send.error ? <Problem error={send.error} /> : null}
      {send.data ? (
        <div role="status" className="flex flex-col gap-2">
          <p>
            <Badge tone={send.data.status < 400 ? "ok" : "bad"}>{send.data.status}</Badge>
          </p>
          <Code label="Answer">{pretty(send.data.text)}</Code>
        </div>
      ) : null}
      <section aria-label="As code" className="flex flex-col gap-2">
        <div className="flex flex-wrap items-center gap-2">
          <h3 className="mr-2">As code</h3>
          {Object.keys(made).map((name) => (
            <button key={name} type="button" className={`button h-7 ${name === language ? "border-accent bg-accent-soft" : ""}`} aria-pressed={name === language} onClick={() => setLanguage(name)}>
              {name}
            </button>
          ))}
          <Copy text={made[language] ?? made["curl"] ?? ""}>Copy</Copy>
        </div>
        <Code label="Code">{made[language] ?? made["curl"] ?? ""}</Code>
      </section>
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
