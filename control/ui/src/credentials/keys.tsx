import { useInfiniteQuery, useMutation } from "@connectrpc/connect-query";
import { ApiKeyService, ApiKeyState, type ApiKey } from "../gen/control/v1/api_key_pb";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Confirm } from "../parts/action";
import { FilterBox, matches } from "../parts/field";
import { Drawer, Facts } from "../parts/page";
import { Answered, Badge, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";
import { Older, pageSize, paged } from "./older";
import { tenantNames } from "./tenant-names";

const { method } = ApiKeyService;

/** The API keys of the platform and of all tenants (scope ""), or of a tenant. */
export function Keys({ scope }: { scope: string }) {
  const [get, set] = useUrl();
  const all = useInfiniteQuery(method.listApiKeys, { pageSize, pageToken: "" }, { ...paged, enabled: scope === "" });
  const own = useInfiniteQuery(method.listTenantApiKeys, { tenantId: scope, pageSize, pageToken: "" }, { ...paged, enabled: scope !== "" });
  const keys = scope === "" ? all : own;
  const filter = get("q");
  return (
    <Answered<{ pages: readonly { apiKeys: ApiKey[] }[] }> of={keys}>
      {({ pages }) => {
        const loaded = pages.flatMap((page) => page.apiKeys);
        const open = loaded.find((one) => one.id === get("open"));
        return (
          <>
            <Table
              label="API keys"
              tools={<FilterBox />}
              rows={loaded.filter((one) => matches(filter, one.displayName, one.id, one.createdBy, ...one.tenants, ...one.rights))}
              id={(one) => one.id}
              selected={get("open")}
              onSelect={(one) => set({ open: one.id })}
              empty={filter === "" ? <Empty title="No API key has been issued.">Issue one for a program that calls the gateway. Keys of the setting gateway.auth.api_keys are not listed here.</Empty> : <Empty title="No key matches the filter." />}
              columns={[
                { name: "Name", width: 170, value: (one) => one.displayName },
                { name: "State", width: 112, value: (one) => stateName(one), cell: (one) => <State of={one} /> },
                { name: "Tenants", width: 120, value: (one) => tenantNames(one.tenants) },
                { name: "Rights", width: 220, value: (one) => one.rights.join(", ") },
                { name: "Expires", width: timeWidth, value: (one) => Number(one.expireTime?.seconds ?? 0), cell: (one) => <Time of={one.expireTime} /> },
                { name: "Issued by", width: 140, value: (one) => one.createdBy },
                { name: "Issued", width: timeWidth, hidden: true, value: (one) => Number(one.createTime?.seconds ?? 0), cell: (one) => <Time of={one.createTime} /> },
              ]}
            />
            <Older of={keys} />
            {open ? <Key of={open} scope={scope} onClose={() => set({ open: "" })} onRevoked={() => void keys.refetch()} /> : null}
          </>
        );
      }}
    </Answered>
  );
}

function stateName({ state }: ApiKey): string {
  return { [ApiKeyState.ACTIVE]: "active", [ApiKeyState.REVOKED]: "revoked", [ApiKeyState.EXPIRED]: "expired", [ApiKeyState.UNSPECIFIED]: "unknown" }[state];
}

function State({ of }: { of: ApiKey }) {
  return <Badge tone={of.state === ApiKeyState.ACTIVE ? "ok" : "muted"}>{stateName(of)}</Badge>;
}

function Key({ of, scope, onClose, onRevoked }: { of: ApiKey; scope: string; onClose: () => void; onRevoked: () => void }) {
  const refusal = useRefusal("key.admin", scope === "" ? "platform" : "tenant");
  const all = useMutation(method.revokeApiKey);
  const own = useMutation(method.revokeTenantApiKey);
  const revoke = async (reason: string) => {
    if (scope === "") await all.mutateAsync({ id: of.id, reason });
    else await own.mutateAsync({ tenantId: scope, id: of.id, reason });
    toast(`The key ${of.displayName} is revoked.`);
    onRevoked();
  };
  return (
    <Drawer
      title={of.displayName}
      label={`API key ${of.displayName}`}
      badge={<State of={of} />}
      onClose={onClose}
      actions={
        <Confirm title="Revoke" danger reason refusal={refusal === "" && of.state !== ApiKeyState.ACTIVE ? `the key is ${stateName(of)}` : refusal} what={`Calls with the key ${of.displayName} are rejected within seconds, and its streams end. This cannot be undone: issue another key instead.`} run={revoke}>
          Revoke…
        </Confirm>
      }
    >
      <Facts
        of={[
          ["Principal", <code key="p" className="break-all">key:{of.id}</code>],
          ["Tenants", tenantNames(of.tenants)],
          ["Rights", <code key="r" className="break-words">{of.rights.join(", ")}</code>],
          ["Issued", of.createTime ? <Time key="c" of={of.createTime} /> : ""],
          ["Issued by", of.createdBy],
          ["Managed by", of.tenantId === "" ? "the platform" : `administrators of ${of.tenantId}`],
          ["Expires", of.expireTime ? <Time key="e" of={of.expireTime} /> : ""],
          ["Revoked", of.revokeTime ? <Time key="v" of={of.revokeTime} /> : ""],
          ["Revoked by", of.revokedBy],
          ["Reason", of.reason],
        ]}
      />
    </Drawer>
  );
}
