import { callUnaryMethod, useTransport } from "@connectrpc/connect-query";
import { useQuery } from "@tanstack/react-query";
import { RunnerAdmin, type WorkflowState } from "../gen/runner/admin/v1/admin_pb";

/** The counted pages, and the instances of each: the platform offers no count. */
const pages = 4;
const pageSize = 500;

/** Stands for all tenants; no tenant has this name. */
export const all = "*";

export interface StateCounts {
  of: ReadonlyMap<WorkflowState, number>;
  counted: number;
  /** Whether these are all instances. */
  complete: boolean;
}

/** How many instances of a tenant, or of all, are in each state, among the 2,000 that changed last. */
export function useStateCounts(tenant: string) {
  const transport = useTransport();
  return useQuery({
    queryKey: ["workflow states", tenant],
    enabled: tenant !== "",
    refetchInterval: 15_000,
    queryFn: async ({ signal }): Promise<StateCounts> => {
      const of = new Map<WorkflowState, number>();
      let counted = 0;
      let pageToken = "";
      for (let page = 0; page < pages; page++) {
        const answer = tenant === all ? await callUnaryMethod(transport, RunnerAdmin.method.listAllWorkflows, { pageSize, pageToken }, { signal }) : await callUnaryMethod(transport, RunnerAdmin.method.listWorkflows, { tenantId: tenant, pageSize, pageToken }, { signal });
        for (const { state } of answer.instances) of.set(state, (of.get(state) ?? 0) + 1);
        counted += answer.instances.length;
        pageToken = answer.nextPageToken;
        if (pageToken === "") break;
      }
      return { of, counted, complete: pageToken === "" };
    },
  });
}
