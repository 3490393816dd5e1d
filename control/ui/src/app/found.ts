import { ConnectError } from "@connectrpc/connect";
import { callUnaryMethod, createQueryOptions, useTransport } from "@connectrpc/connect-query";
import { useQueries, useQuery } from "@tanstack/react-query";
import { useTypes } from "../data/types";
import { QueryService, type FoundAggregate } from "../gen/projection/gateway/v1/query_pb";
import { RunnerAdmin, type WorkflowInstance } from "../gen/runner/admin/v1/admin_pb";
import { findInstances } from "../workflows/find";
import { covers, parsePrefix } from "./prefix";
import { useRefusal, useWhoAmI } from "./session";
import { usePaused } from "./url";

/** The characters from which on ids are searched, unless they follow a name and a slash. */
const least = 2;

/** The types that are searched with one text, and the results of each. */
const mostTypes = 8;
const perType = 5;

/** The pages of instances that are read for one text, and the results of a page. */
const mostPages = 3;
const perPage = 10;

export interface Found {
  aggregates: FoundAggregate[];
  instances: WorkflowInstance[];
  /** The searches that have more results than are here, each as a type and the beginning of an id. */
  more: { type: string; id: string }[];
  /** Whether there may be further instances. */
  moreInstances: boolean;
  /** The text that was searched, without a name before it. */
  id: string;
  searching: boolean;
  /** What the results lack. */
  notes: string[];
}

/** Searches the tenant's aggregates and workflow instances whose ids begin with a text, once its typing pauses. */
export function useFound(typed: string, tenant: string): Found {
  const text = usePaused(typed.trim());
  const waiting = text !== typed.trim();
  const aggregates = useAggregates(text, tenant);
  const instances = useInstances(text, tenant);
  return {
    aggregates: aggregates.found,
    more: aggregates.more,
    instances: instances.data?.instances ?? [],
    moreInstances: instances.data?.complete === false,
    id: parsePrefix(text, "instance")?.id ?? "",
    searching: waiting || aggregates.searching || instances.isFetching,
    notes: [...aggregates.notes, ...(instances.error ? [`Workflow instances were not searched: ${ConnectError.from(instances.error).rawMessage}.`] : [])],
  };
}

function searched(text: string, of: "aggregate" | "instance") {
  const wanted = parsePrefix(text, of);
  return wanted && (wanted.name !== "" || wanted.id.length >= least) ? wanted : undefined;
}

function useAggregates(text: string, tenant: string) {
  const transport = useTransport();
  const all = useTypes();
  const rights = useWhoAmI().data?.rights ?? [];
  const wanted = tenant === "" ? undefined : searched(text, "aggregate");
  // A call without the right would be a denial in the audit log.
  const types = (wanted === undefined ? [] : wanted.name === "" ? (all ?? []) : (all ?? [wanted.name]).filter((type) => type === wanted.name)).filter((type) => covers(rights, "aggregate.read", type));
  const asked = types.slice(0, mostTypes);
  const id = wanted?.id ?? "";
  const answers = useQueries({
    queries: asked.map((type) => ({
      ...createQueryOptions(QueryService.method.findAggregates, { tenantId: tenant, aggregateType: type, idPrefix: id, pageSize: perType }, { transport }),
      retry: false,
    })),
  });
  const notes = new Set<string>();
  for (const { data, error } of answers) {
    if (error) notes.add(`Aggregates were not searched: ${ConnectError.from(error).rawMessage}.`);
    if (data?.incomplete) notes.add(`The index of aggregates covers ${data.percent} % of the journal: later ones are missing.`);
  }
  if (types.length > mostTypes) notes.add(`Aggregates of ${mostTypes} of ${types.length} types were searched: TYPE/${id} searches one.`);
  return {
    found: answers.flatMap((answer) => answer.data?.aggregates ?? []),
    more: asked.filter((_, n) => answers[n]?.data?.nextPageToken).map((type) => ({ type, id })),
    searching: answers.some((answer) => answer.isFetching),
    notes: [...notes],
  };
}

function useInstances(text: string, tenant: string) {
  const transport = useTransport();
  const refusal = useRefusal("workflow.read", "tenant");
  const wanted = searched(text, "instance");
  return useQuery({
    queryKey: ["instances by id", tenant, wanted],
    enabled: refusal === "" && tenant !== "" && wanted !== undefined,
    retry: false,
    queryFn: ({ signal }) => findInstances((pageToken) => callUnaryMethod(transport, RunnerAdmin.method.listWorkflows, { tenantId: tenant, workflow: wanted?.name ?? "", idPrefix: wanted?.id ?? "", pageSize: perPage, pageToken }, { signal }), mostPages),
  });
}
