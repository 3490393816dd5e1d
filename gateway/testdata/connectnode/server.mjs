// Serves test.Plain by connect-node over clear-text HTTP/2, without the gRPC health service.
// argv[2] is the file of a descriptor set. Prints the port, and ends with its standard input.
import { readFileSync } from "node:fs";
import { createServer } from "node:http2";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

const set = fromBinary(FileDescriptorSetSchema, readFileSync(process.argv[2]));
const registry = createFileRegistry(set);
const service = registry.getService("test.Plain");
const Note = registry.getMessage("test.Note");
const note = (text) => create(Note, { text });

const implementation = {
  echo: (request) => note(request.text),
  async *count(request) {
    for (const part of request.text.split(" ")) yield note(part);
  },
  async join(requests) {
    const parts = [];
    for await (const request of requests) parts.push(request.text);
    return note(parts.join(" "));
  },
  async *talk(requests) {
    for await (const request of requests) yield note(request.text);
  },
  fail(request) {
    throw new ConnectError("no such note", Code.NotFound, undefined, [{ desc: Note, value: { text: request.text } }]);
  },
};

const server = createServer(connectNodeAdapter({ routes: (router) => router.service(service, implementation) }));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
