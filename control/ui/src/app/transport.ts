import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { setToken, token } from "./session";

// Every call goes to where the pages come from, under the operator's own credential.
const credential: Interceptor = (next) => async (req) => {
  req.header.set("authorization", `Bearer ${token()}`);
  try {
    return await next(req);
  } catch (err) {
    if (ConnectError.from(err).code === Code.Unauthenticated) setToken("");
    throw err;
  }
};

export const transport = createConnectTransport({ baseUrl: "/", interceptors: [credential] });
