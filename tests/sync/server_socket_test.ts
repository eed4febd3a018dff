import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { toText } from "@std/streams";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { RemoteLogDB, serve, type ServeOptions } from "../../src/sync/mod.ts";
import { socketTransport } from "../../src/sync/transport.ts";
import { makeCertificate } from "./certificate.ts";
import { run, type Running } from "./running_server.ts";
import {
  packRecords,
  proposal,
  RawClient,
  realTime,
} from "./server_support.ts";
import { test, testInMemory } from "../support/log_tests.ts";

testInMemory(
  "H5 serve() serves a cluster over real sockets, and reports its URLs",
  async () => {
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
  },
);

test("H11 serve() accepts pages of its own origin or of the configured ones, and rejects others with a reason", async () => {
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

test("H11 serve() on a loopback address rejects a page whose name was rebound to it, unless its origin is configured", async () => {
  const { hostname, port } = { hostname: "127.0.0.1", port: 0 };
  const ask = async (
    { server }: Running,
    host: string,
    origin?: string,
    more = "",
    path = "/clusters/1/snapshot",
  ): Promise<number> => {
    const conn = await Deno.connect({
      hostname,
      port: Number(new URL(server.httpURL).port),
    });
    const said = origin === undefined ? "" : `origin: ${origin}\r\n`;
    await conn.write(new TextEncoder().encode(
      `GET ${path} HTTP/1.1\r\nhost: ${host}\r\n${said}${more}connection: close\r\n\r\n`,
    ));
    const answer = await toText(conn.readable);
    return Number(answer.split(" ")[1]);
  };
  const own = await run({ hostname, port });
  const at = new URL(own.server.httpURL).port;
  for (
    const name of ["127.0.0.1", "127.9.9.9", "localhost", "app.localhost"]
      .concat("[::1]", "LOCALHOST.")
  ) {
    const host = `${name}:${at}`;
    assertEquals(await ask(own, host), 200, host);
    assertEquals(
      await ask(own, host.toLowerCase(), `http://${host.toLowerCase()}`),
      200,
      host,
    );
  }
  for (
    const name of ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io"]
      .concat("evillocalhost", "0.0.0.0")
  ) {
    const host = `${name}:${at}`;
    // A browser sends no Origin header with a GET to the page's own origin.
    assertEquals(await ask(own, host), 403, host);
    assertEquals(await ask(own, host, `http://${host}`), 403, host);
    const page = own.connect({ host, origin: `http://${host}` });
    assertEquals((await page.end()).code, 4403, host);
  }
  // A WebSocket of a page always has an Origin header.
  await own.connect({ host: `some.example:${at}` }).hello();
  assertEquals(
    await ask(own, `some.example:${at}`, undefined, "", "/health"),
    200,
  );
  await own.stop();

  const told = await run({ hostname, origins: ["https://app.example"] });
  assertEquals(await ask(told, "app.example", "https://app.example"), 200);
  assertEquals(await ask(told, "app.example"), 200);
  assertEquals(await ask(told, "localhost"), 200);
  assertEquals(await ask(told, "evil.example"), 403);
  assertEquals(await ask(told, "evil.example", "http://evil.example"), 403);
  await told.stop();

  const open = await run({
    hostname: "0.0.0.0",
    authenticate: () => ({ id: "ann" }),
  });
  assertEquals(await ask(open, "app.example", "http://app.example"), 200);
  assertEquals(await ask(open, "app.example"), 200);
  await open.stop();
});

test("U34 serve() calls authenticate with the headers of the upgrade request and the token", async () => {
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
  const anonymous = r.connect();
  anonymous.hello().catch(() => {});
  assertEquals((await anonymous.end()).code, 4401);
  const response = await fetch(`${r.server.httpURL}clusters/1/snapshot`);
  assertEquals(response.status, 401);
  await response.body?.cancel();
  await r.stop();
});

test("H5 two servers of one host, or of hosts with one log, serve the same cluster independently", async () => {
  const r = await run();
  const host = new NodeHost({ logDB: r.host.logDB });
  await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  const others = [serve(r.host), serve(host)];
  const clients = [r.server, ...others].map((server) => r.connect({}, server));
  for (const client of clients) {
    await client.hello();
    await client.open();
    client.read(1, 0);
  }
  for (const [i, client] of clients.entries()) {
    client.append(2, packRecords(proposal(kv.put(`k${i}`, "v"), 1, i)));
    await client.next("appended");
  }
  for (const client of clients) await client.entriesUpTo(4);
  assertEquals(await r.host.replica(1n)!.read(kv.count()), 3);
  // A server that stops does not affect the others.
  await r.server.shutdown();
  for (const client of clients.slice(1)) {
    client.append(3, packRecords(proposal(kv.put("k", "w"), 2, 9)));
    await client.next("appended");
  }
  for (const server of others) await server.shutdown();
  await host.stop();
  await r.stop();
});

test("H11 a proposal origin of a client of one server cannot be used by others on another server of the log", async () => {
  const options: ServeOptions = {
    authenticate: ({ headers }) => ({ id: headers.get("authorization")! }),
  };
  const r = await run(options);
  const other = serve(r.host, options);
  const ann = r.connect();
  const bob = r.connect({}, other);
  for (const [token, client] of Object.entries({ ann, bob })) {
    await client.hello({ token });
    await client.open();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
  }
  assertEquals((await ann.next("appended")).refused, []);
  assertEquals((await bob.next("appended")).refused, [0]);
  await other.shutdown();
  await r.stop();
});

test("H9 serve() exports a cluster and imports it elsewhere, and rejects invalid imports", async () => {
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
  // The snapshot is of cluster 1, which runs here.
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

test("H11 serve() reports its health, passes other requests to fetch, and rejects a plain request to sync", async () => {
  const r = await run({
    fetch: (request) => new Response(`page ${new URL(request.url).pathname}`),
  });
  const health = await fetch(`${r.server.httpURL}health`);
  // On logs of an engine, there is more.
  const { status, connections } = await health.json();
  assertEquals({ status, connections }, { status: "ok", connections: 0 });
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

test("H5 serve() with a certificate speaks TLS: clients, snapshots and pages of its own origin alike", async () => {
  const certificate = await makeCertificate();
  const r = await run({ ...certificate, hostname: "localhost" });
  assertMatch(r.server.url, /^wss:\/\/localhost:\d+\/sync$/);
  assertMatch(r.server.httpURL, /^https:\/\/localhost:\d+\/$/);
  using client = Deno.createHttpClient({ caCerts: [certificate.cert] });
  const trusting = { client } as unknown as string[];
  await using logDB = new RemoteLogDB(r.server.url, {
    connect: (url) => socketTransport(new WebSocket(url, trusting)),
  });
  await using host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  await replica.propose(kv.put("boat", "sampan"));
  assertEquals(await r.host.replica(1n)!.read(kv.count()), 1);

  // A page loaded over plain HTTP may have been injected; its origin has no port.
  const { origin, port } = new URL(r.server.httpURL);
  const plain = `http://localhost:${port}`;
  const url = `${r.server.httpURL}clusters/1/snapshot`;
  // HTTP/2 has no Host header.
  for (const http2 of [true, false]) {
    using client = Deno.createHttpClient({
      caCerts: [certificate.cert],
      http2,
    });
    const answers = await Promise.all([origin, plain].map((origin) => {
      const init: RequestInit & { client: Deno.HttpClient } = {
        headers: { origin },
        client,
      };
      return fetch(url, init);
    }));
    for (const answer of answers) await answer.body?.cancel();
    assertEquals(answers.map(({ status }) => status), [200, 403]);
  }
  await host.stop();
  await logDB.close();
  await r.stop();
});

test("H11 serve() with an invalid certificate, or without its key, starts nothing", async () => {
  const { cert, key } = await makeCertificate();
  await using host = new NodeHost();
  assertThrows(() => serve(host, { cert }), TypeError, "key");
  assertThrows(() => serve(host, { key }), TypeError, "cert");
  assertThrows(() => serve(host, { cert: "none", key }));
});

testInMemory(
  "H11 a text frame or an oversized one ends its own connection only",
  async () => {
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
    // More than the runtime itself accepts.
    huge.transport.send(new Uint8Array(65 << 20));
    await huge.end();
    good.append(1, packRecords(proposal(kv.put("a", "b"))));
    await good.next("appended");
    await r.stop();
  },
);

test("U40 serve() shuts down when its signal aborts, and completes an append in progress", async () => {
  const abort = new AbortController();
  const held = Promise.withResolvers<undefined>();
  const r = await run({ signal: abort.signal, validate: () => held.promise });
  const client = r.connect();
  await client.hello();
  await client.open();
  client.append(1, packRecords(proposal(kv.put("a", "b"))));
  // The append has arrived once a later request is answered.
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

test("U40 serve() drains on SIGTERM, and the process exits by itself", async () => {
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
  // Each command takes 100 ms in that program.
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
