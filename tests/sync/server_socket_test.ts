import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv, KVStateMachine, MemoryLogDB, NodeHost } from "../../mod.ts";
import { serve, type ServeOptions, type Server } from "../../src/sync/mod.ts";
import { socketTransport } from "../../src/sync/transport.ts";
import type { ServerLogRecord } from "../../src/sync/server/options.ts";
import {
  packRecords,
  proposal,
  RawClient,
  realTime,
} from "./server_support.ts";

interface Running {
  host: NodeHost;
  server: Server;
  log: ServerLogRecord[];
  connect(headers?: Record<string, string>): RawClient;
  stop(): Promise<void>;
}

/** What Deno takes in place of the protocols, and the types of a browser do not know. */
function withHeaders(headers: Record<string, string>): string[] {
  return { headers } as unknown as string[];
}

async function run(options: ServeOptions = {}): Promise<Running> {
  const logDB = new MemoryLogDB();
  const host = new NodeHost({ logDB });
  await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  const log: ServerLogRecord[] = [];
  const server = serve(host, { log: (record) => log.push(record), ...options });
  return {
    host,
    server,
    log,
    connect: (headers = {}) =>
      new RawClient(
        socketTransport(new WebSocket(server.url, withHeaders(headers))),
        realTime,
      ),
    stop: async () => {
      await server.shutdown();
      await host.stop();
      await logDB.close();
    },
  };
}

Deno.test("H5 serve() serves a cluster over real sockets, and says where", async () => {
  const r = await run();
  assertMatch(r.server.url, /^ws:\/\/127\.0\.0\.1:\d+\/sync$/);
  const one = r.connect();
  const two = r.connect();
  for (const client of [one, two]) {
    assertEquals((await client.hello()).principal, "anybody");
    assertEquals((await client.open()).trusted, 1n);
    client.read(1, 0);
  }
  one.append(2, packRecords(proposal(kv.put("boat", "sampan"))));
  assertEquals((await one.next("appended")).first, 2);
  await two.entriesUpTo(2);
  assertEquals(await r.host.replica(1n)!.read(kv.count()), 1);
  one.transport.close(1000, "");
  await two.until("gone", () => r.server.counts.connections === 1);
  const stopped = r.stop();
  assertEquals((await two.end()).code, 1001);
  await stopped;
  await r.server.finished;
  await r.server.shutdown();
});

Deno.test("H11 serve() lets in pages of its own origin or of those it is told, and tells others why not", async () => {
  const own = await run();
  const { host } = new URL(own.server.httpURL);
  const same = own.connect({ origin: `http://${host}` });
  await same.hello();
  const foreign = own.connect({ origin: "https://evil.example" });
  const { code, reason } = await foreign.end();
  assertEquals(code, 4403);
  assertMatch(reason, /https:\/\/evil\.example are not allowed/);
  const odd = own.connect({ origin: "null" });
  assertEquals((await odd.end()).code, 4403);
  await own.stop();
  const told = await run({ origins: ["https://app.example"] });
  await told.connect({ origin: "https://app.example" }).hello();
  const url = `${told.server.httpURL}clusters/1/snapshot`;
  const answers = await Promise.all(
    ["https://app.example", "https://evil.example"].map((origin) =>
      fetch(url, { headers: { origin } })
    ),
  );
  assertEquals(answers.map(({ status }) => status), [200, 403]);
  assertEquals(
    answers.map(({ headers }) => headers.get("access-control-allow-origin")),
    ["https://app.example", null],
  );
  for (const answer of answers) await answer.body?.cancel();
  const preflight = await fetch(url, {
    method: "OPTIONS",
    headers: { origin: "https://app.example" },
  });
  assertEquals(preflight.status, 204);
  await told.stop();
});

Deno.test("U34 serve() asks who it is with the headers of the upgrade and the token", async () => {
  const r = await run({
    authenticate: (request) => {
      const { pathname } = new URL(request.url);
      const id = request.headers.get("authorization")?.slice(7) ??
        request.headers.get("cookie");
      return id === null ? undefined : { id: `${id} at ${pathname}` };
    },
  });
  const cookie = await r.connect({ cookie: "ann" }).hello();
  assertEquals(cookie.principal, "ann at /sync");
  const token = await r.connect().hello({ token: "bob" });
  assertEquals(token.principal, "bob at /sync");
  const nobody = r.connect();
  nobody.hello().catch(() => {});
  assertEquals((await nobody.end()).code, 4401);
  const response = await fetch(`${r.server.httpURL}clusters/1/snapshot`);
  assertEquals(response.status, 401);
  await response.body?.cancel();
  await r.stop();
});

Deno.test("H9 serve() exports a cluster and imports it elsewhere, and refuses what is not to be", async () => {
  const from = await run();
  const replica = from.host.replica(1n)!;
  for (let i = 0; i < 50; i++) await replica.propose(kv.put(`k${i}`, "v"));
  const got = await fetch(`${from.server.httpURL}clusters/1/snapshot`);
  assertEquals(got.status, 200);
  const snapshot = new Uint8Array(await got.arrayBuffer());
  const missing = await fetch(`${from.server.httpURL}clusters/2/snapshot`);
  assertEquals(missing.status, 404);
  await missing.body?.cancel();
  await from.stop();

  const to = await run({
    authorize: (_principal, clusterID) => clusterID !== 3n,
  });
  const put = async (
    cluster: number,
    body: Uint8Array<ArrayBuffer>,
  ): Promise<number> => {
    const url = `${to.server.httpURL}clusters/${cluster}/snapshot`;
    const response = await fetch(url, { method: "PUT", body });
    await response.body?.cancel();
    return response.status;
  };
  const damaged = snapshot.slice();
  damaged[damaged.length >> 1]! ^= 1;
  assertEquals(await put(3, snapshot), 403);
  // It is of cluster 1, which is started here.
  assertEquals(await put(1, snapshot), 409);
  assertEquals(await put(2, snapshot), 422);
  await to.host.stopCluster(1n);
  assertEquals(await put(1, damaged), 422);
  assertEquals(await put(1, new Uint8Array(200_000)), 422);
  await to.stop();

  const small = await run({
    authorize: () => true,
    limits: { uploadBytes: 300 },
  });
  await small.host.stopCluster(1n);
  const tooMuch = await fetch(`${small.server.httpURL}clusters/1/snapshot`, {
    method: "PUT",
    body: snapshot,
  });
  assertEquals(tooMuch.status, 413);
  assertMatch(await tooMuch.text(), /over the limit of 300 bytes/);
  await small.stop();

  const empty = new NodeHost();
  const server = serve(empty, { authorize: () => true });
  const url = `${server.httpURL}clusters/1/snapshot`;
  const cut = await fetch(url, {
    method: "POST",
    body: snapshot.subarray(0, 100),
  });
  assertEquals(cut.status, 422);
  await cut.body?.cancel();
  const done = await fetch(url, { method: "POST", body: snapshot });
  assertEquals(done.status, 201);
  await done.body?.cancel();
  const imported = await empty.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  assertEquals(await imported.read(kv.count()), 50);
  await server.shutdown();
  await empty.stop();

  const plain = await run();
  const forbidden = await fetch(`${plain.server.httpURL}clusters/9/snapshot`, {
    method: "PUT",
    body: snapshot,
  });
  assertEquals(forbidden.status, 403);
  assertMatch(await forbidden.text(), /may not upload/);
  await plain.stop();
});

Deno.test("H11 serve() answers for its health, hands on what is not its own, and refuses what is no socket", async () => {
  const r = await run({
    fetch: (request) => new Response(`page ${new URL(request.url).pathname}`),
  });
  const health = await fetch(`${r.server.httpURL}health`);
  assertEquals(await health.json(), { status: "ok", connections: 0 });
  const page = await fetch(`${r.server.httpURL}app.html`);
  assertEquals(await page.text(), "page /app.html");
  const sync = await fetch(`${r.server.httpURL}sync`);
  assertEquals(sync.status, 426);
  await sync.body?.cancel();
  const wrong = await fetch(`${r.server.httpURL}clusters/1/snapshot`, {
    method: "DELETE",
  });
  assertEquals(wrong.status, 405);
  await wrong.body?.cancel();
  await r.stop();
});

Deno.test("H11 a frame that is text, or far too large, ends its connection and no other", async () => {
  const r = await run();
  const good = r.connect();
  await good.hello();
  await good.open();
  const text = new WebSocket(r.server.url);
  const ended = Promise.withResolvers<CloseEvent>();
  text.onopen = () => text.send("hello");
  text.onclose = ended.resolve;
  assertEquals((await ended.promise).code, 4400);
  const large = r.connect();
  await large.until("opened", () => large.isOpen);
  large.transport.send(new Uint8Array(8 << 20));
  assertEquals((await large.end()).code, 4413);
  const huge = r.connect();
  await huge.until("opened", () => huge.isOpen);
  // More than the runtime itself takes.
  huge.transport.send(new Uint8Array(65 << 20));
  await huge.end();
  good.append(1, packRecords(proposal(kv.put("a", "b"))));
  await good.next("appended");
  await r.stop();
});

Deno.test("U40 serve() shuts down when its signal aborts, and lets an append under way end", async () => {
  const abort = new AbortController();
  const held = Promise.withResolvers<undefined>();
  const r = await run({ signal: abort.signal, validate: () => held.promise });
  const client = r.connect();
  await client.hello();
  await client.open();
  client.append(1, packRecords(proposal(kv.put("a", "b"))));
  // It is there once the one after it was answered.
  client.send({ type: "readIndex", channel: 1, stream: 2 });
  await client.next("index");
  abort.abort();
  const health = fetch(`${r.server.httpURL}health`);
  held.resolve(undefined);
  await client.next("appended");
  assertEquals((await client.end()).code, 1001);
  await r.server.finished;
  await (await health.catch(() => undefined))?.body?.cancel();
  await r.stop();
});

Deno.test("U40 serve() drains on SIGTERM, and the program ends by itself", async () => {
  const root = new URL("../../", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      new URL("./server_program.ts", import.meta.url).href,
    ],
    cwd: root,
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  while (!said.includes("\n")) said += (await reader.read()).value ?? "\n";
  const url = said.split("\n")[0]!;
  const client = new RawClient(socketTransport(new WebSocket(url)), realTime);
  await client.hello();
  await client.open();
  client.append(1, packRecords(proposal(kv.put("a", "b"))));
  client.send({ type: "readIndex", channel: 1, stream: 2 });
  await client.next("index");
  child.kill("SIGTERM");
  // Each command takes this program 100 ms.
  assertEquals((await client.next("appended")).refused, []);
  assertEquals((await client.end()).code, 1001);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    said += value;
  }
  assert(said.includes("1 key\n"), said);
  assertEquals((await child.status).code, 0);
});
