/** A call, as the explorer would send it. */
export interface Call {
  origin: string;
  verb: string;
  path: string;
  tenant: string;
  /** JSON; undefined for calls without a body. */
  body: string | undefined;
  /** The procedure, such as "/a.v1.S/Do", and its whole request as JSON; "" if it is no method. */
  procedure: string;
  message: string;
}

const shell = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
// JSON's escapes are those of string literals in TypeScript, Go and Python, too.
const literal = (text: string) => JSON.stringify(text);

/** What to paste into a program or a shell for the same call, by language. The token is not in it. */
export function snippets({ origin, verb, path, tenant, body, procedure, message }: Call): Record<string, string> {
  const url = origin + path;
  const headers: [string, string][] = [...(tenant === "" ? [] : [["x-tenant-id", tenant] as [string, string]]), ...(body === undefined ? [] : [["content-type", "application/json"] as [string, string]])];
  const out: Record<string, string> = {
    curl: [`curl -s -X ${verb} ${shell(url)}`, `-H "authorization: Bearer $TOKEN"`, ...headers.map(([name, value]) => `-H ${shell(`${name}: ${value}`)}`), ...(body === undefined ? [] : [`-d ${shell(body)}`])].join(" \\\n  "),
    TypeScript: [
      `const res = await fetch(${literal(url)}, {`,
      `  method: ${literal(verb)},`,
      `  headers: { authorization: \`Bearer \${token}\`${headers.map(([name, value]) => `, ${literal(name)}: ${literal(value)}`).join("")} },`,
      ...(body === undefined ? [] : [`  body: ${literal(body)},`]),
      "});",
      "console.log(res.status, await res.json());",
    ].join("\n"),
    Go: [
      `req, err := http.NewRequestWithContext(ctx, ${literal(verb)}, ${literal(url)}, ${body === undefined ? "nil" : `strings.NewReader(${literal(body)})`})`,
      "if err != nil {",
      "\treturn err",
      "}",
      'req.Header.Set("Authorization", "Bearer "+token)',
      ...headers.map(([name, value]) => `req.Header.Set(${literal(name)}, ${literal(value)})`),
      "res, err := http.DefaultClient.Do(req)",
      "if err != nil {",
      "\treturn err",
      "}",
      "defer res.Body.Close()",
    ].join("\n"),
    Python: [
      "import urllib.request",
      "",
      `request = urllib.request.Request(${literal(url)}, method=${literal(verb)}${body === undefined ? "" : `, data=${literal(body)}.encode()`})`,
      'request.add_header("authorization", f"Bearer {token}")',
      ...headers.map(([name, value]) => `request.add_header(${literal(name)}, ${literal(value)})`),
      "with urllib.request.urlopen(request) as response:",
      "    print(response.status, response.read().decode())",
    ].join("\n"),
  };
  if (procedure !== "") out["buf"] = [`buf curl --http2-prior-knowledge --protocol grpc`, `--reflect-header "authorization: Bearer $TOKEN"`, `-H "authorization: Bearer $TOKEN"`, ...(tenant === "" ? [] : [`-H ${shell(`x-tenant-id: ${tenant}`)}`]), `-d ${shell(message)}`, shell(origin + procedure)].join(" \\\n  ");
  return out;
}

/** The whole request of a method: its body, and what stands in the path and the query. */
export function message(body: string | undefined, values: Record<string, string>): string {
  let fields: unknown = {};
  try {
    fields = JSON.parse(body ?? "{}");
  } catch {
    // A body that is no JSON is left out.
  }
  const named = Object.entries(values).filter(([, value]) => value !== "");
  return JSON.stringify({ ...(typeof fields === "object" ? fields : {}), ...Object.fromEntries(named.map(([name, value]) => [name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), value])) });
}
