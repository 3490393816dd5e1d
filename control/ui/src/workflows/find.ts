import type { ListWorkflowsResponse, WorkflowInstance } from "../gen/runner/admin/v1/admin_pb";

export interface FoundInstances {
  instances: WorkflowInstance[];
  /** Whether all instances of the tenant were searched. */
  complete: boolean;
}

/** Reads pages until one has an instance: a page may be empty without being the last. At most `pages` are read. */
export async function findInstances(read: (pageToken: string) => Promise<ListWorkflowsResponse>, pages: number): Promise<FoundInstances> {
  let pageToken = "";
  for (let page = 0; page < pages; page++) {
    const answer = await read(pageToken);
    pageToken = answer.nextPageToken;
    if (answer.instances.length > 0 || pageToken === "") return { instances: answer.instances, complete: pageToken === "" };
  }
  return { instances: [], complete: false };
}
