import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { useInfiniteQuery, useMutation } from "@connectrpc/connect-query";
import { useState } from "react";
import { RevocationService, type Revocation } from "../gen/control/v1/revocation_pb";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Confirm } from "../parts/action";
import { Choice, FilterBox, matches, Text } from "../parts/field";
import { Drawer, Facts } from "../parts/page";
import { Answered, Badge, Empty } from "../parts/state";
import { Table } from "../parts/table";
import { Time } from "../parts/time";
import { timeWidth } from "../parts/time-width";
import { toast } from "../parts/toast";
import { claimsOf } from "./jwt";
import { Older, pageSize, paged } from "./older";

const { method } = RevocationService;

/** The revocations of the platform and of all tenants (scope ""), or of a tenant. */
export function Revocations({ scope }: { scope: string }) {
  const [get, set] = useUrl();
  const all = useInfiniteQuery(method.listRevocations, { pageSize, pageToken: "" }, { ...paged, enabled: scope === "" });
  const own = useInfiniteQuery(method.listTenantRevocations, { tenantId: scope, pageSize, pageToken: "" }, { ...paged, enabled: scope !== "" });
  const revocations = scope === "" ? all : own;
  const filter = get("q");
  return (
    <>
      <Revoke scope={scope} onRevoked={() => void revocations.refetch()} />
      <Answered<{ pages: readonly { revocations: Revocation[] }[] }> of={revocations}>
        {({ pages }) => {
          const loaded = pages.flatMap((page) => page.revocations);
          const open = loaded.find((one) => one.id === get("open"));
          return (
            <>
              <Table
                label="Revoked tokens"
                tools={<FilterBox />}
                rows={loaded.filter((one) => matches(filter, one.subject, one.issuer, one.tokenId, one.by, one.reason))}
                id={(one) => one.id}
                selected={get("open")}
                onSelect={(one) => set({ open: one.id })}
                empty={filter === "" ? <Empty title="No token is revoked.">Above, revoke a token that leaked, or all tokens of a subject. Revocations of the file that gateway.auth.revocations names are not listed here.</Empty> : <Empty title="No revocation matches the filter." />}
                columns={[
                  { name: "Revoked", width: 290, value: what },
                  { name: "State", width: 110, value: (one) => (one.withdrawn ? "withdrawn" : "in force"), cell: (one) => <State of={one} /> },
                  { name: "Issuer", width: 140, hidden: true, value: (one) => one.issuer },
                  { name: "Tenant", width: 90, value: (one) => one.tenantId || "all" },
                  { name: "Changed", width: timeWidth, value: (one) => Number(one.time?.seconds ?? 0), cell: (one) => <Time of={one.time} /> },
                  { name: "By", width: 120, value: (one) => one.by },
                  { name: "Reason", width: 180, value: (one) => one.reason },
                ]}
              />
              <Older of={revocations} />
              {open ? <One of={open} scope={scope} onClose={() => set({ open: "" })} onChanged={() => void revocations.refetch()} /> : null}
            </>
          );
        }}
      </Answered>
    </>
  );
}

function what(one: Revocation): string {
  if (one.tokenId !== "") return `token ${one.tokenId}`;
  return one.subject === "" ? `all tokens of ${one.issuer}` : `tokens of ${one.subject}`;
}

function State({ of }: { of: Revocation }) {
  return of.withdrawn ? <Badge tone="muted">withdrawn</Badge> : <Badge tone="warn">in force</Badge>;
}

function useMay(scope: string): string {
  return useRefusal("token.revoke", scope === "" ? "platform" : "tenant");
}

function One({ of, scope, onClose, onChanged }: { of: Revocation; scope: string; onClose: () => void; onChanged: () => void }) {
  const refusal = useMay(scope);
  const all = useMutation(method.withdrawRevocation);
  const own = useMutation(method.withdrawTenantRevocation);
  const time = (value: Timestamp | undefined) => (value ? <Time of={value} /> : "");
  return (
    <Drawer
      title={what(of)}
      label="Revocation"
      badge={<State of={of} />}
      onClose={onClose}
      actions={
        <Confirm
          title="Withdraw"
          reason
          refusal={refusal === "" && of.withdrawn ? "the revocation is withdrawn" : refusal}
          what={`Gateways accept again what it covers (${what(of)}), unless it has expired or another revocation covers it.`}
          run={async (reason) => {
            if (scope === "") await all.mutateAsync({ id: of.id, reason });
            else await own.mutateAsync({ tenantId: scope, id: of.id, reason });
            toast("The revocation is withdrawn.");
            onChanged();
          }}
        >
          Withdraw…
        </Confirm>
      }
    >
      <Facts
        of={[
          ["Subject", of.subject],
          ["Issuer", of.issuer],
          ["Token id", of.tokenId],
          ["Issued before", time(of.issuedBefore)],
          ["Covers", of.tenantId === "" ? "all principals" : `principals of ${of.tenantId} alone`],
          ["Until", time(of.expireTime)],
          ["Changed", time(of.time)],
          ["By", of.by],
          ["Reason", of.reason],
        ]}
      />
    </Drawer>
  );
}

/** Revokes one token, which is read in the browser and not sent, or all tokens of a subject. */
function Revoke({ scope, onRevoked }: { scope: string; onRevoked: () => void }) {
  const refusal = useMay(scope);
  const [kind, setKind] = useState("token");
  const [token, setToken] = useState("");
  const [subject, setSubject] = useState("");
  const one = useMutation(method.revokeToken);
  const oneOfTenant = useMutation(method.revokeTenantToken);
  const all = useMutation(method.revokeSubject);
  const allOfTenant = useMutation(method.revokeTenantSubject);
  const claims = claimsOf(token);
  const unusable = token.trim() === "" ? "" : token.trim().startsWith("hgk_") ? "This is an API key: revoke it in the list of API keys." : !claims ? "This is not a token (JWT). Paste all of it, without “Bearer”." : claims.issuer === "" || claims.tokenId === "" ? "The token has no iss or no jti: revoke all tokens of its subject instead." : "";
  const isReady = kind === "token" ? claims !== undefined && unusable === "" : subject.trim() !== "";
  const target = kind === "token" ? `The token ${claims?.tokenId ?? ""} of ${claims?.subject ?? ""} is` : `All tokens of ${subject.trim()} issued until now are`;
  const run = async (reason: string) => {
    const tenantId = scope;
    if (kind === "token" && claims) {
      const named = { issuer: claims.issuer, tokenId: claims.tokenId, reason, ...(claims.expires === undefined ? {} : { expireTime: { seconds: BigInt(Math.ceil(claims.expires)) } }) };
      await (scope === "" ? one.mutateAsync(named) : oneOfTenant.mutateAsync({ ...named, tenantId }));
    } else {
      const named = { subject: subject.trim(), reason };
      await (scope === "" ? all.mutateAsync(named) : allOfTenant.mutateAsync({ ...named, tenantId }));
    }
    toast(kind === "token" ? "The token is revoked." : `The tokens of ${subject.trim()} are revoked.`);
    setToken("");
    setSubject("");
    onRevoked();
  };
  return (
    <section className="panel flex flex-col gap-2" aria-label="Revoke">
      <div className="flex flex-wrap items-end gap-3">
        <Choice
          label="Revoke"
          value={kind}
          options={[
            ["token", "one token"],
            ["subject", "all tokens of a subject"],
          ]}
          onChange={setKind}
        />
        {kind === "token" ? <Text wide label="Token (read in the browser, not sent)" value={token} onChange={setToken} placeholder="eyJ…" /> : <Text wide label="Subject, as in audit records" value={subject} onChange={setSubject} placeholder="corp:ada" />}
        <Confirm title="Revoke" danger reason refusal={refusal} disabled={!isReady} what={`${target} rejected within seconds, and streams that they admitted end.`} run={run}>
          Revoke…
        </Confirm>
      </div>
      {kind === "token" && unusable !== "" ? <p className="text-warn text-sm">{unusable}</p> : null}
      {kind === "token" && claims && unusable === "" ? (
        <p className="text-muted text-sm">
          <code>{claims.tokenId}</code> of <code>{claims.subject}</code>, issued by <code>{claims.issuer}</code>
        </p>
      ) : null}
    </section>
  );
}
