/** What to paste into a shell for the same answer. The token is not in it. */
export function commandLines(origin: string, tenant: string, view: string, query: { filter: string; orderBy: string }): { curl: string; buf: string } {
  const wanted = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ""));
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  const auth = `-H "authorization: Bearer $TOKEN" -H ${quote(`x-tenant-id: ${tenant}`)}`;
  return {
    curl: `curl -s ${origin}/v1/query/${view} ${auth} --json ${quote(JSON.stringify({ query: wanted }))}`,
    buf: `buf curl --http2-prior-knowledge --protocol grpc --reflect-header "authorization: Bearer $TOKEN" ${auth} -d ${quote(JSON.stringify({ view, query: wanted }))} ${origin}/projection.gateway.v1.QueryService/Query`,
  };
}
