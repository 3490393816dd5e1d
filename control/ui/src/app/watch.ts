import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { DescMethodServerStreaming } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { useEffect, useState } from "react";
import { transport } from "./transport";

export interface Watched<T> {
  last: T | undefined;
  error: ConnectError | undefined;
}

/**
 * Follows a stream as long as the component is shown, and comes back to it when it
 * ends; each message goes to take, the last one is returned. Nothing is followed
 * while input is undefined.
 */
export function useWatch<I extends DescMessage, O extends DescMessage>(
  method: DescMethodServerStreaming<I, O>,
  input: MessageInitShape<I> | undefined,
  options: { take?: (message: MessageShape<O>) => void; once?: boolean } = {},
): Watched<MessageShape<O>> {
  const [state, setState] = useState<Watched<MessageShape<O>>>({ last: undefined, error: undefined });
  const identity = JSON.stringify([method.parent.typeName, method.name, input]);
  useEffect(() => {
    if (input === undefined) return;
    const ended = new AbortController();
    const follow = async () => {
      let wait = 500;
      while (!ended.signal.aborted) {
        try {
          const call = await transport.stream(method, ended.signal, undefined, undefined, one(input));
          for await (const message of call.message) {
            wait = 500;
            options.take?.(message);
            setState({ last: message, error: undefined });
          }
          if (options.once) return;
        } catch (err) {
          const error = ConnectError.from(err);
          if (ended.signal.aborted) return;
          setState((before) => ({ last: before.last, error }));
          if (error.code === Code.PermissionDenied || error.code === Code.InvalidArgument || error.code === Code.NotFound) return;
        }
        await new Promise((resolve) => setTimeout(resolve, wait));
        wait = Math.min(wait * 2, 8000);
      }
    };
    void follow();
    return () => ended.abort();
    // What is followed is what its identity says; take may be another function each time.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [identity]);
  return state;
}

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value;
}
