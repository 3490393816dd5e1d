import { useQueryClient } from "@tanstack/react-query";
import { Issue } from "./issue";
import { Keys } from "./keys";
import { Revocations } from "./revocations";
import { useRefusal } from "../app/session";
import { useUrl } from "../app/url";
import { Page } from "../parts/page";
import { Notice } from "../parts/state";
import { useTenant } from "../parts/tenant";

const lists = [
  ["", "API keys"],
  ["revocations", "Revoked tokens"],
] as const;

/** API keys that control has issued, and revocations of tokens: of the platform, or of the tenant for its administrators. */
export function Credentials() {
  const [get, set] = useUrl();
  const tenant = useTenant();
  const queries = useQueryClient();
  const platform = useRefusal("credential.read");
  const refusal = useRefusal("credential.read", "tenant");
  const scope = platform === "" ? "" : tenant;
  const list = get("list") === "revocations" ? "revocations" : "";
  return (
    <Page
      title="API keys and tokens"
      summary={scope === "" ? "API keys and revoked tokens of the platform and of all tenants." : `API keys and revoked tokens of ${scope}.`}
      tenant={scope !== ""}
      actions={
        <>
          <div className="flex" role="group" aria-label="Lists">
            {lists.map(([value, name]) => (
              <button key={value} type="button" className={`button first:rounded-r-none last:rounded-l-none last:border-l-0 ${list === value ? "bg-accent-soft font-semibold" : ""}`} aria-pressed={list === value} onClick={() => set({ list: value, open: "", q: "" })}>
                {name}
              </button>
            ))}
          </div>
          {list === "" ? <Issue key={scope} scope={scope} onIssued={() => void queries.invalidateQueries()} /> : null}
        </>
      }
    >
      {refusal !== "" ? <Notice tone="info">The lists are not shown: {refusal}. Ask an operator for it.</Notice> : list === "revocations" ? <Revocations key={scope} scope={scope} /> : <Keys key={scope} scope={scope} />}
    </Page>
  );
}
