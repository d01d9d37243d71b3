// `node plain.mjs PORT FILE`: node's own HTTP server, as lenient as it comes.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

const [port, file] = process.argv.slice(2);

createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const body = Buffer.concat(pieces).toString("latin1");
    const headers = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) headers.push([request.rawHeaders[at].toLowerCase(), request.rawHeaders[at + 1]]);
    appendFileSync(file, JSON.stringify({ method: request.method, target: request.url, headers, body }) + "\n");
    let id = null;
    try {
      id = JSON.parse(body).id ?? null;
    } catch {}
    const answer = JSON.stringify({ jsonrpc: "2.0", id, result: { content: [{ type: "text", text: "done" }] } });
    response.writeHead(200, { "content-type": "application/json" });
    response.end(answer);
  });
}).listen(Number(port), "127.0.0.1");
