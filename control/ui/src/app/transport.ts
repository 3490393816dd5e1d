import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { SessionService } from "../gen/gateway/v1/session_pb";
import { fetchOnce } from "./early";
import { answerReceived } from "./pulse";
import { fresh, renew } from "./renewal";
import { checkTokensWith, expire, hasEnded, token } from "./session";

const unanswered = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Unknown];

// Every call goes to where the pages come from, under the operator's own credential.
const credential: Interceptor = (next) => async (req) => {
  await fresh();
  if (hasEnded()) throw new ConnectError("your session has ended: sign in again", Code.Unauthenticated);
  let used = token();
  const send = async () => {
    req.header.set("authorization", `Bearer ${used}`);
    const res = await next(req);
    answerReceived();
    return res;
  };
  try {
    return await send().catch(async (err: unknown) => {
      // A call that was rejected for its token has not been executed. A stream is followed again by who reads it.
      if (req.stream || ConnectError.from(err).code !== Code.Unauthenticated || !(await renew())) throw err;
      used = token();
      return send();
    });
  } catch (err) {
    const { code, rawMessage } = ConnectError.from(err);
    if (!unanswered.includes(code)) answerReceived();
    if (code === Code.Unauthenticated && !(req.stream && (await renew()))) expire(used, rawMessage);
    throw err;
  }
};

export const transport = createConnectTransport({ baseUrl: "/", interceptors: [credential], defaultTimeoutMs: 35_000, fetch: fetchOnce });

checkTokensWith((typed) => {
  const bearer: Interceptor = (next) => (req) => {
    req.header.set("authorization", `Bearer ${typed}`);
    return next(req);
  };
  const plain = createConnectTransport({ baseUrl: "/", interceptors: [bearer], defaultTimeoutMs: 10_000 });
  return createClient(SessionService, plain).whoAmI({});
});
