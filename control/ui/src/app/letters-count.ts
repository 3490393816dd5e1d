import { createClient, type Transport } from "@connectrpc/connect";
import { RunnerAdmin } from "../gen/runner/admin/v1/admin_pb";

/** The largest page of dead letters: more are shown as "500+". */
const most = 500;

/** The number of a tenant's dead letters, and whether there are more. */
export async function countLetters(transport: Transport, tenant: string, signal: AbortSignal): Promise<{ count: number; more: boolean }> {
  const { letters, nextPageToken } = await createClient(RunnerAdmin, transport).listDeadLetters({ tenantId: tenant, pageSize: most }, { signal });
  return { count: letters.length, more: nextPageToken !== "" };
}
