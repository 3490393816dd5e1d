// Calls a gateway with the types that openapi-typescript makes, by openapi-fetch: URL and TOKEN are
// its arguments. It prints what is answered.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[]; exit(code: number): never };

const [, , baseUrl = "", token = ""] = process.argv;
const client = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });

function fail(what: string, error: unknown): never {
  console.error(what, JSON.stringify(error));
  process.exit(1);
}

async function submit(key: string, command: string, payload: Record<string, unknown>) {
  return client.POST("/v1/commands/{aggregate_type}/{aggregate_id}/{command}", {
    params: { path: { aggregate_type: "wallet", aggregate_id: "typescript", command }, header: { "Idempotency-Key": key } },
    body: { payload },
  });
}

for (const key of ["t1", "t1"]) {
  const { data, error } = await submit(key, "open", { owner: "Cyd & Söhne" });
  if (error) fail("submit", error);
  console.log("submit", data.events?.[0]?.type, data.version, data.replayed ?? false);
}
const refused = await submit("t2", "withdraw", { amount: 1 });
if (!refused.error) fail("submit", refused.data);
console.log("refused", refused.response.status, refused.error.code, refused.error.message);
const paid = await submit("t3", "deposit", { amount: 5 });
if (paid.error) fail("submit", paid.error);

const filter = 'owner = "Cyd & Söhne"';
const query = { "query.filter": filter, "query.page_size": 1, "query.fields": ["owner", "balance"], metadata: { of: "a test" } };
const page = await client.GET("/v1/query/{view}", { params: { path: { view: "wallets" }, query: { ...query, min_position: paid.data.position } } });
if (page.error) fail("query", page.error);
console.log("query", page.data.rows?.[0]?.["owner"], page.data.rows?.[0]?.["balance"]);
const tag = page.response.headers.get("etag") ?? "";
const same = await client.GET("/v1/query/{view}", { params: { path: { view: "wallets" }, query, header: { "If-None-Match": tag } } });
console.log("unchanged", same.response.status);

const watched = await client.GET("/v1/watch/{view}", {
  params: { path: { view: "wallets" }, query: { filter } },
  headers: { accept: "text/event-stream" },
  parseAs: "stream",
});
if (!watched.data) fail("watch", watched.error);
let text = "";
const decoder = new TextDecoder();
for await (const part of watched.data as unknown as AsyncIterable<Uint8Array>) {
  text += decoder.decode(part, { stream: true });
  const event = text.split("\n").find((line) => line.startsWith("data: ") && line.includes('"balance":5') && line.endsWith("}"));
  if (event) {
    const change: components["schemas"]["projection.gateway.v1.WatchResponse"] = JSON.parse(event.slice(6));
    console.log("watch", change.changes?.[0]?.key);
    break;
  }
}

const shaped = await client.GET("/shapes/v1/items/{name}", {
  params: {
    path: { name: "a/b c" },
    query: { an_int64: "9007199254740993", bool_value: true, color: "COLOR_RED", tags: ["a,b", "c&d"], labels: { "a b": "c=d" } },
  },
});
if (shaped.error) fail("shapes", shaped.error);
console.log("shapes", JSON.stringify([shaped.data.name, shaped.data.anInt64, shaped.data.boolValue, shaped.data.color, shaped.data.tags, shaped.data.labels]));
process.exit(0);
