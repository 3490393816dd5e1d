import type { DescMessage, DescMethodServerStreaming, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { useEffect, useState } from "react";
import { answerReceived } from "./pulse";
import { token, useSession } from "./session";
import { transport } from "./transport";

export interface Watched<T> {
  last: T | undefined;
  error: ConnectError | undefined;
}

/** Milliseconds for which messages are collected: each is too soon after the one before to be seen by itself. */
const pause = 100;

/**
 * Follows a stream while the component is shown and the tab is visible, and reconnects when it ends;
 * take receives the messages in their order, some at a time; with it, the first one is returned in the place of
 * the last. resume makes the request after an interruption. Nothing is followed while input is undefined.
 * A hidden tab has no stream: browsers open six connections to a plain HTTP origin for all tabs together.
 */
export function useWatch<I extends DescMessage, O extends DescMessage>(
  method: DescMethodServerStreaming<I, O>,
  input: MessageInitShape<I> | undefined,
  options: { take?: (messages: readonly MessageShape<O>[]) => void; once?: boolean; resume?: (last: MessageShape<O>) => Partial<MessageInitShape<I>> } = {},
): Watched<MessageShape<O>> {
  const [state, setState] = useState<Watched<MessageShape<O>>>({ last: undefined, error: undefined });
  const { status } = useSession();
  const visible = useVisible();
  const identity = JSON.stringify([method.parent.typeName, method.name, input, status, visible]);
  useEffect(() => {
    if (input === undefined || status !== "in" || !visible) return;
    const ended = new AbortController();
    const { take } = options;
    let taken: MessageShape<O>[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const deliver = () => {
      clearTimeout(timer);
      timer = undefined;
      const messages = taken;
      taken = [];
      if (messages.length > 0) take?.(messages);
    };
    const collect = (message: MessageShape<O>) => {
      taken.push(message);
      timer ??= setTimeout(deliver, pause);
    };
    const follow = async () => {
      let wait = 500;
      let asked = input;
      while (!ended.signal.aborted) {
        const used = token();
        try {
          // A stream has no deadline of the browser's: 0 is none.
          const call = await transport.stream(method, ended.signal, 0, undefined, one(asked));
          for await (const message of call.message) {
            wait = 500;
            answerReceived();
            if (take) collect(message);
            if (options.resume) asked = { ...asked, ...options.resume(message) };
            // Who takes messages is rendered by what it does with them.
            setState((before) => (take && before.last && !before.error ? before : { last: message, error: undefined }));
          }
          if (options.once) return;
        } catch (err) {
          const error = ConnectError.from(err);
          if (ended.signal.aborted) return;
          // A stream ends with its token, and continues with the renewed one.
          if (error.code === Code.Unauthenticated && used !== token()) continue;
          setState((before) => ({ last: before.last, error }));
          if (error.code === Code.PermissionDenied || error.code === Code.InvalidArgument || error.code === Code.NotFound) return;
        }
        await new Promise((resolve) => setTimeout(resolve, wait));
        wait = Math.min(wait * 2, 8000);
      }
    };
    void follow();
    return () => {
      ended.abort();
      deliver();
    };
    // The identity determines what is followed; take may be another function each time.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [identity]);
  return state;
}

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value;
}

function useVisible(): boolean {
  const [visible, setVisible] = useState(() => document.visibilityState !== "hidden");
  useEffect(() => {
    const change = () => setVisible(document.visibilityState !== "hidden");
    document.addEventListener("visibilitychange", change);
    return () => document.removeEventListener("visibilitychange", change);
  }, []);
  return visible;
}
