import { useQuery } from "@connectrpc/connect-query";
import { ModelService } from "../gen/control/v1/model_pb";
import { useRefusal } from "../app/session";

/** The aggregate types of the model in use; undefined while they are loaded, or if they may not be read. */
export function useTypes(): string[] | undefined {
  const refusal = useRefusal("fleet.read");
  const model = useQuery(ModelService.method.getModel, {}, { enabled: refusal === "", staleTime: 30_000 });
  return model.data?.aggregates.map((one) => one.name);
}
