import { useMutation, useQuery } from "@connectrpc/connect-query";
import { Lock } from "lucide-react";
import { useState } from "react";
import { ApiKeyService, ApiKeyState } from "../gen/control/v1/api_key_pb";
import { SessionService, type MethodPolicy } from "../gen/gateway/v1/session_pb";
import { ms } from "../app/format";
import { refusal } from "../app/rights";
import { useRefusal, useWhoAmI } from "../app/session";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Choice, FilterBox, matches, Text } from "../parts/field";
import { Answered, Badge, Empty, Problem } from "../parts/state";
import { Page } from "../parts/page";
import { Table } from "../parts/table";
import { useTenant } from "../parts/tenant";

export function Access() {
  const [get, set] = useUrl();
  const methods = useQuery(SessionService.method.listMethods, {});
  const filter = get("q");
  const right = get("right");
  const who = useWhoAmI().data;
  const principals = usePrincipals();
  const chosen = principals.find((one) => one.subject === get("principal"));
  const mine = (method: MethodPolicy) => (method.right === "" ? "" : chosen ? refusalOf(chosen, method) : refusal(who, method.right, method.tenantScoped ? "tenant" : "platform"));
  return (
    <Page title="Access" summary="The methods that the gateway serves, the right that each needs, and who could call one.">
      <Answered of={methods}>
        {(data) => (
          <>
            <Tester key={chosen?.subject ?? ""} methods={data.methods} principals={principals} chosen={chosen} />
            <Rights methods={data.methods} held={(chosen ?? who)?.rights ?? []} holder={chosen?.name ?? "You"} />
            <Table
              label="Methods"
              tools={<FilterBox />}
              rows={data.methods.filter((method) => (right === "" || method.right === right) && matches(filter, method.procedure, method.right, method.upstream, ...method.http))}
              id={(method) => method.procedure}
              selected={get("procedure")}
              onSelect={(method) => set({ procedure: method.procedure })}
              empty={<Empty title="No method matches the filter." />}
              columns={[
                { name: "Method", width: 300, value: (method) => method.procedure.slice(1) },
                { name: "Right", width: 130, value: (method) => method.right || "open to all" },
                { name: chosen?.name ?? "You", width: 120, value: (method) => mine(method) || "allowed", cell: (method) => (mine(method) === "" ? <Badge tone="ok">allowed</Badge> : <span title={mine(method)}><Badge tone="muted">denied</Badge></span>) },
                { name: "Scope", width: 90, value: (method) => (method.tenantScoped ? "tenant" : "platform") },
                { name: "Upstream", width: 100, value: (method) => method.upstream },
                { name: "Timeout", width: 90, number: true, value: (method) => method.timeoutMs, cell: (method) => ms(Number(method.timeoutMs)) },
                { name: "Audited", width: 90, value: (method) => (method.audit ? "each call" : "denials") },
                { name: "HTTP", width: 260, value: (method) => method.http.join(", ") },
              ]}
            />
          </>
        )}
      </Answered>
    </Page>
  );
}

/** A principal that has a name: of an API key that is accepted. */
interface Principal {
  subject: string;
  name: string;
  tenants: string[];
  rights: string[];
}

/** Why a principal may not call a method; "" when it may. */
function refusalOf({ name, rights, tenants }: Principal, { right, tenantScoped }: MethodPolicy): string {
  if (!rights.some((held) => held === right || held.startsWith(`${right}:`))) return `${name} lacks the right ${right}`;
  if (!tenantScoped && !tenants.includes("*")) return `it concerns the whole platform, and ${name} is not valid for all tenants`;
  return "";
}

/** The API keys that a choice offers. */
const mostKeys = 100;

/** The principals that can be chosen by name: the active API keys, of all tenants or of the console's. */
function usePrincipals(): Principal[] {
  const tenant = useTenant();
  const platform = useRefusal("credential.read");
  const own = useRefusal("credential.read", "tenant");
  const ofAll = useQuery(ApiKeyService.method.listApiKeys, { pageSize: mostKeys }, { enabled: platform === "", staleTime: 30_000, retry: false });
  const ofTenant = useQuery(ApiKeyService.method.listTenantApiKeys, { tenantId: tenant, pageSize: mostKeys }, { enabled: platform !== "" && own === "" && tenant !== "", staleTime: 30_000, retry: false });
  return (ofAll.data ?? ofTenant.data)?.apiKeys.filter((key) => key.state === ApiKeyState.ACTIVE).map((key) => ({ subject: `key:${key.id}`, name: key.displayName, tenants: key.tenants, rights: key.rights })) ?? [];
}

/** The rights, and how many methods each opens: pressed, it narrows the methods. */
function Rights({ methods, held, holder }: { methods: MethodPolicy[]; held: string[]; holder: string }) {
  const [get, set] = useUrl();
  const names = [...new Set(methods.map((method) => method.right))].filter((right) => right !== "").sort();
  return (
    <div className="flex flex-wrap items-center gap-2" role="group" aria-label="Rights">
      <span className="text-muted text-sm">Methods of a right</span>
      {names.map((right) => {
        const pressed = get("right") === right;
        const parts = held.filter((one) => one === right || one.startsWith(`${right}:`));
        return (
          <button key={right} type="button" className={`button h-7 rounded-full px-3 ${pressed ? "border-accent bg-accent-soft" : ""}`} aria-pressed={pressed} title={parts.length === 0 ? `${holder} lack${holder === "You" ? "" : "s"} this right` : `${holder} hold${holder === "You" ? "" : "s"} ${parts.join(", ")}`} onClick={() => set({ right: pressed ? "" : right })}>
            {parts.length === 0 ? <Lock className="text-muted size-3" aria-hidden /> : null}
            <code>{right}</code> <span className="text-muted">{methods.filter((method) => method.right === right).length}</span>
          </button>
        );
      })}
    </div>
  );
}

const list = (text: string) => text.split(/[\s,]+/).filter((word) => word !== "");

function Tester({ methods, principals, chosen }: { methods: MethodPolicy[]; principals: Principal[]; chosen: Principal | undefined }) {
  const [get, set] = useUrl();
  const who = useWhoAmI().data;
  const [rights, setRights] = useState(chosen?.rights.join(" ") ?? "query.read");
  const tenant = useTenant();
  // The console's tenant, until another one is typed.
  const [typedTenants, setTenants] = useState<string | undefined>(chosen?.tenants.join(" "));
  const [typedTenantId, setTenantId] = useState<string>();
  const tenants = typedTenants ?? tenant;
  const tenantId = typedTenantId ?? tenant;
  const [resource, setResource] = useState("");
  const decide = useMutation(SessionService.method.decide);
  return (
    <section className="panel flex flex-col gap-3" aria-label="Who can call this?">
      <h2>Who can call this?</h2>
      <form
        className="flex flex-wrap items-end gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          decide.mutate({ procedure: get("procedure"), rights: list(rights), tenants: list(tenants), tenantId, resource });
        }}
      >
        <Text wide label="Method" value={get("procedure")} onChange={(procedure) => set({ procedure })} list={methods.map((method) => method.procedure)} placeholder="/projection.gateway.v1.QueryService/Query" />
        {principals.length > 0 ? <Choice label="The caller" value={chosen?.subject ?? ""} options={[["", "as entered"], ...principals.map((one): [string, string] => [one.subject, one.name])]} onChange={(principal) => set({ principal })} /> : null}
        <Text label="The caller's rights" value={rights} onChange={setRights} placeholder="query.read:orders*" />
        <Text label="The caller's tenants" value={tenants} onChange={setTenants} placeholder="acme or *" />
        <Text label="Tenant of the call" value={tenantId} onChange={setTenantId} />
        <Text label="Resource of the call" value={resource} onChange={setResource} placeholder="a view" />
        <Button type="submit" strong disabled={get("procedure") === ""}>
          Decide
        </Button>
        <Button
          disabled={!who}
          onClick={() => {
            setRights(who?.rights.join(" ") ?? "");
            setTenants(who?.tenants.join(" ") ?? "");
          }}
        >
          Use my credential
        </Button>
      </form>
      {decide.error ? <Problem error={decide.error} /> : null}
      {decide.data ? (
        <p role="status" className="flex flex-wrap items-center gap-2">
          {decide.data.allowed ? <Badge tone="ok">allowed</Badge> : <Badge tone="bad">denied</Badge>} <span>
            {decide.data.reason}
            {decide.data.node ? `; ${decide.data.node} would answer` : "; no node would answer now"}.
          </span>
        </p>
      ) : null}
    </section>
  );
}
