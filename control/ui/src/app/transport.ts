import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { SessionService } from "../gen/gateway/v1/session_pb";
import { answerReceived } from "./pulse";
import { checkTokensWith, expire, hasEnded, token } from "./session";

const unanswered = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Unknown];

// Every call goes to where the pages come from, under the operator's own credential.
const credential: Interceptor = (next) => async (req) => {
  if (hasEnded()) throw new ConnectError("your session has ended: sign in again", Code.Unauthenticated);
  const used = token();
  req.header.set("authorization", `Bearer ${used}`);
  try {
    const res = await next(req);
    answerReceived();
    return res;
  } catch (err) {
    const { code, rawMessage } = ConnectError.from(err);
    if (!unanswered.includes(code)) answerReceived();
    if (code === Code.Unauthenticated) expire(used, rawMessage);
    throw err;
  }
};

export const transport = createConnectTransport({ baseUrl: "/", interceptors: [credential], defaultTimeoutMs: 35_000 });

checkTokensWith((typed) => {
  const bearer: Interceptor = (next) => (req) => {
    req.header.set("authorization", `Bearer ${typed}`);
    return next(req);
  };
  const plain = createConnectTransport({ baseUrl: "/", interceptors: [bearer], defaultTimeoutMs: 10_000 });
  return createClient(SessionService, plain).whoAmI({});
});
