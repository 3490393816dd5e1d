import { useMutation, useQuery } from "@connectrpc/connect-query";
import { useState } from "react";
import { SessionService, type MethodPolicy } from "../gen/gateway/v1/session_pb";
import { ms } from "../app/format";
import { useUrl } from "../app/url";
import { Button } from "../parts/action";
import { Text } from "../parts/field";
import { Answered, Badge, Problem } from "../parts/state";
import { FilterBox, matches, Table } from "../parts/table";

export function Policy() {
  const [get, set] = useUrl();
  const methods = useQuery(SessionService.method.listMethods, {});
  const filter = get("q");
  return (
    <div className="flex flex-col gap-4">
      <h1>Routing &amp; policy</h1>
      <Answered of={methods}>
        {(data) => (
          <>
            <Tester methods={data.methods} />
            <div className="flex items-end gap-4">
              <h2>Methods served</h2>
              <FilterBox value={filter} onChange={(q) => set({ q })} />
            </div>
            <Table
              label="Methods served"
              rows={data.methods.filter((method) => matches(filter, method.procedure, method.right, method.upstream, ...method.http))}
              id={(method) => method.procedure}
              selected={get("procedure")}
              onSelect={(method) => set({ procedure: method.procedure })}
              empty="No method fits the filter."
              columns={[
                { name: "Method", cell: (method) => method.procedure.slice(1) },
                { name: "Right", cell: (method) => method.right || "open to all" },
                { name: "For", cell: (method) => (method.tenantScoped ? "a tenant" : "the platform") },
                { name: "Answered by", cell: (method) => method.upstream },
                { name: "At most", number: true, cell: (method) => ms(Number(method.timeoutMs)) },
                { name: "Audited", cell: (method) => (method.audit ? "each call" : "denials") },
                { name: "HTTP", cell: (method) => method.http.join(", ") },
              ]}
            />
          </>
        )}
      </Answered>
    </div>
  );
}

const list = (text: string) => text.split(/[\s,]+/).filter((word) => word !== "");

function Tester({ methods }: { methods: MethodPolicy[] }) {
  const [get, set] = useUrl();
  const [rights, setRights] = useState("query.read");
  const [tenants, setTenants] = useState("acme");
  const [tenantId, setTenantId] = useState("acme");
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
        <Text label="The caller's rights" value={rights} onChange={setRights} placeholder="query.read:orders*" />
        <Text label="The caller's tenants" value={tenants} onChange={setTenants} placeholder="acme or *" />
        <Text label="Tenant of the call" value={tenantId} onChange={setTenantId} />
        <Text label="Resource of the call" value={resource} onChange={setResource} placeholder="a view" />
        <Button type="submit" strong disabled={get("procedure") === ""}>
          Decide
        </Button>
      </form>
      {decide.error ? <Problem error={decide.error} /> : null}
      {decide.data ? (
        <p role="status">
          {decide.data.allowed ? <Badge tone="ok">allowed</Badge> : <Badge tone="bad">denied</Badge>} {decide.data.reason}
          {decide.data.node ? `; ${decide.data.node} would answer` : "; no node would answer now"}.
        </p>
      ) : null}
    </section>
  );
}
