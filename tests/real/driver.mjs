// The npm SDK 1.x as a client, behind the same language of steps as driver.py.
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  LoggingMessageNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";

const events = [];
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function failure(error) {
  if (error?.name === "AbortError" || error?.code === -32001) return { kind: "timeout", message: String(error.message) };
  if (typeof error?.code === "number" && error?.name === "McpError") {
    return { kind: "rpc", code: error.code, message: error.message, data: error.data };
  }
  return { kind: error?.constructor?.name ?? "Error", message: String(error?.message ?? error) };
}

async function act(client, step) {
  const options = { timeout: (step.timeout_s ?? 120) * 1000, onprogress: (sent) => events.push({ progress: sent.progress, message: sent.message }) };
  if (step.cancel_after_s) options.signal = AbortSignal.timeout(step.cancel_after_s * 1000);
  switch (step.do) {
    case "list_tools": return client.listTools();
    case "list_resources": return client.listResources();
    case "list_prompts": return client.listPrompts();
    case "ping": return client.ping();
    case "read": return client.readResource({ uri: step.uri });
    case "prompt": return client.getPrompt({ name: step.name, arguments: step.arguments });
    case "call": return client.callTool({ name: step.name, arguments: step.arguments }, undefined, options);
  }
  throw new Error(step.do);
}

async function answer(client, step) {
  const began = performance.now();
  let outcome;
  try {
    const value = step.do === "parallel" ? await Promise.all(step.steps.map((inner) => answer(client, inner))) : await act(client, step);
    outcome = { ok: true, value };
  } catch (error) {
    outcome = { ok: false, error: step.cancel_after_s ? { kind: "timeout", message: String(error) } : failure(error) };
  }
  return { ...outcome, took_ms: performance.now() - began, events: events.splice(0) };
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const where = JSON.parse((await lines.next()).value);
const client = new Client({ name: "holdfast-tests", version: "1" }, { capabilities: { elicitation: {}, sampling: {} } });
client.setRequestHandler(ElicitRequestSchema, async (request) => {
  events.push({ elicitation: request.params.message });
  return { action: "accept", content: { text: "blue", response: "blue" } };
});
client.setRequestHandler(CreateMessageRequestSchema, async () => {
  events.push({ sampling: true });
  return { role: "assistant", model: "test", content: { type: "text", text: "a sample" } };
});
client.setNotificationHandler(LoggingMessageNotificationSchema, (note) => { events.push({ log: note.params.data }); });
const Transport = where.transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
const transport = new Transport(new URL(where.url), { requestInit: { headers: where.headers ?? {} } });
try {
  await client.connect(transport);
  say({ ok: true, value: { protocol: transport.protocolVersion ?? "", instructions: client.getInstructions() } });
  for await (const line of lines) say(await answer(client, JSON.parse(line)));
  await transport.terminateSession?.();
  await client.close();
} catch (error) {
  say({ ok: false, error: failure(error) });
}
process.exit(0);
