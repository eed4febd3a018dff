import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { toText } from "@std/streams";
import { kv, NodeHost } from "../../mod.ts";
import * as otel from "@opentelemetry/api";
import { SqliteLogDB } from "../../src/sqlite/mod.ts";
import { ErrStoreFailed } from "../../src/store/errors.ts";
import { RemoteLogDB, serve } from "../../src/sync/mod.ts";
import type { Identity } from "../../src/sync/server/hooks.ts";
import { networkOf, Quota } from "../../src/sync/server/quota.ts";
import type { TransferSlot } from "../../src/sync/server/transfer_slots.ts";
import { run, type Running } from "./running_server.ts";
import { packRecords, proposal, realTime, world } from "./server_support.ts";
import { test, testInMemory } from "../support/log_tests.ts";

/** Sends a raw request, and returns the raw response. */
async function ask({ server }: Running, text: string): Promise<string> {
  const { hostname, port } = new URL(server.httpURL);
  const connection = await Deno.connect({
    hostname: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port),
  });
  await connection.write(Uint8Array.from(text, (c) => c.charCodeAt(0)));
  return await toText(connection.readable);
}

const statusOf = (answer: string): number => Number(answer.split(" ")[1]);

/** True if a page of a host is accepted; raw, as Deno's WebSocket does not let a test set the Host header. */
async function connects({ server }: Running, host: string): Promise<boolean> {
  const { port } = new URL(server.httpURL);
  const connection = await Deno.connect({ port: Number(port) });
  const { connections, closed } = server.counts;
  const request = [
    "GET /sync HTTP/1.1",
    `host: ${host}`,
    `origin: http://${host}`,
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    "",
    "",
  ].join("\r\n");
  await connection.write(new TextEncoder().encode(request));
  while (
    server.counts.connections === connections &&
    server.counts.closed === closed
  ) await realTime();
  const isTaken = server.counts.closed === closed;
  connection.close();
  while (server.counts.connections > connections) await realTime();
  return isTaken;
}

const get = (path: string, ...headers: string[]): string =>
  [`GET ${path} HTTP/1.1`, ...headers, "connection: close", "", ""]
    .join("\r\n");

test("case A5: a malformed request is answered with 400 and counted, and is neither logged nor an error [H11, H21]", async () => {
  const r = await run({ fetch: () => new Response("page") });
  const hosts = ["a b", "user@a", "u:p@a", "a/x", "a?x", "a#x", "", "a:99999"]
    .concat("a:x", "[::1", "::1", "\xe4", "%zz", "a\\x", "xn--", "<x>", "a,b")
    .concat("1.2.3.4.5", "999.1.1.1", "a:1:2", "[::1]x", "a\x80b");
  for (const path of ["/health", "/sync", "/clusters/1/snapshot", "/page"]) {
    for (const host of hosts) {
      const count = r.server.counts.malformed;
      const answer = await ask(r, get(path, `host: ${host}`));
      assertEquals(statusOf(answer), 400, `${path} at ${host}`);
      assertEquals(r.server.counts.malformed, count + 1);
    }
    for (
      const target of [
        `http://other.example${path}`,
        `http://user@localhost${path}`,
      ]
    ) {
      assertEquals(statusOf(await ask(r, get(target, "host: localhost"))), 400);
    }
  }
  // The runtime rejects some itself.
  for (
    const request of [
      "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
      "GET health HTTP/1.1\r\nhost: a\r\n\r\n",
      "GET /health HTTP/1.1\r\nhost: a\x01b\r\n\r\n",
      "G\x01T /health HTTP/1.1\r\nhost: a\r\n\r\n",
      "PUT /health HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    ]
  ) assertEquals(statusOf(await ask(r, request)), 400, request);
  const handshake = ["host: localhost", "upgrade: websocket"];
  assertEquals(statusOf(await ask(r, get("/sync", ...handshake))), 400);
  // The same target in absolute form, and unusual spellings of hosts.
  for (
    const host of ["localhost", "LOCALHOST.", "127.1", "[::1]", "localhost:"]
  ) {
    assertEquals(statusOf(await ask(r, get("/health", `host: ${host}`))), 200);
  }
  const { host } = new URL(r.server.httpURL);
  const long = get(`http://${host}/health`, `host: ${host}`);
  assertEquals(statusOf(await ask(r, long)), 200);
  assertEquals(r.log.filter(({ level }) => level !== "info"), []);
  await r.stop();
});

test("case A19: a server on every address without authenticate rejects a page whose name was rebound to it [H11]", async () => {
  const path = "/clusters/1/snapshot";
  const of = async (r: Running, host: string): Promise<unknown[]> => {
    const at = `${host}:${new URL(r.server.httpURL).port}`;
    return [
      statusOf(await ask(r, get(path, `host: ${at}`))),
      statusOf(await ask(r, get(path, `host: ${at}`, `origin: http://${at}`))),
      statusOf(await ask(r, get("/sync", `host: ${at}`))),
      await connects(r, at),
    ];
  };
  const taken = [200, 200, 426, true];
  const refused = [403, 403, 403, false];
  const open = await run({ hostname: "0.0.0.0" });
  for (
    const name of ["localhost", "app.localhost", "127.0.0.1", "192.168.7.7"]
      .concat("[::1]", "[fe80::7]")
  ) assertEquals(await of(open, name), taken, name);
  for (
    const name of ["evil.example", "127.0.0.1.nip.io", "evillocalhost"]
      .concat("192-168-7-7.evil.example", "1.2.3.4.evil.example")
  ) assertEquals(await of(open, name), refused, name);
  // A client that is not a page sends no origin, and may use any name.
  await open.connect({ host: "some.example" }).hello();
  await open.stop();

  // The name of a configured origin is accepted.
  const told = await run({
    hostname: "0.0.0.0",
    origins: ["https://app.example"],
  });
  assertEquals(
    statusOf(await ask(told, get(path, "host: app.example"))),
    200,
  );
  assertEquals(
    statusOf(await ask(told, get(path, "host: evil.example"))),
    403,
  );
  await told.stop();

  // Credentials are bound to a name, so a rebound page does not have them.
  const asked = await run({
    hostname: "0.0.0.0",
    authenticate: () => ({ id: "ann" }),
  });
  assertEquals(await of(asked, "app.example"), taken);
  await asked.stop();
});

test("case A20: HTTP responses follow the standard: HEAD, OPTIONS, 405 with Allow, and CORS for permitted origins [H11]", async () => {
  const origin = "https://app.example";
  let isKnown = true;
  let may = true;
  const r = await run({
    origins: [origin],
    authenticate: () => isKnown && { id: "ann" },
    authorize: () => may,
  });
  const url = `${r.server.httpURL}clusters/1/snapshot`;
  const request = async (
    url: string,
    method: string,
    headers: Record<string, string> = { origin },
  ): Promise<Response> => {
    const response = await fetch(url, { method, headers });
    await response.body?.cancel();
    return response;
  };
  const head = await request(url, "HEAD");
  assertEquals(head.status, 200);
  assertEquals(head.headers.get("content-type"), "application/octet-stream");
  assertMatch(head.headers.get("content-disposition")!, /cluster-1-\d+/);
  // The size is not known before the export.
  assertEquals(head.headers.get("content-length"), null);
  const none = url.replace("clusters/1", "clusters/9");
  assertEquals((await request(none, "HEAD")).status, 404);

  const methods: Record<string, [allow: string, others: string[]]> = {
    [url]: ["GET, HEAD, PUT, POST", ["DELETE", "PATCH"]],
    [`${r.server.httpURL}health`]: ["GET, HEAD", ["DELETE", "POST", "PUT"]],
    [`${r.server.httpURL}sync`]: ["GET, HEAD", ["DELETE", "POST", "PUT"]],
  };
  for (const [url, [allow, others]] of Object.entries(methods)) {
    for (const method of others) {
      const wrong = await request(url, method);
      assertEquals(wrong.status, 405, `${method} ${url}`);
      assertEquals(wrong.headers.get("allow"), `${allow}, OPTIONS`);
    }
    const preflight = await request(url, "OPTIONS", {
      origin,
      "access-control-request-method": "GET",
      "access-control-request-headers": "authorization",
    });
    assertEquals(preflight.status, 204);
    const { headers } = preflight;
    assertEquals(headers.get("access-control-allow-origin"), origin);
    assertEquals(headers.get("access-control-allow-methods"), allow);
    assertMatch(headers.get("access-control-allow-headers")!, /authorization/);
    // A page of another origin cannot read the response.
    const evil = await request(url, "OPTIONS", {
      origin: "https://evil.example",
    });
    assertEquals(evil.headers.get("access-control-allow-origin"), null);
  }

  const answers = async (): Promise<[number, string | null][]> => {
    const found: [number, string | null][] = [];
    for (const path of ["sync", "health", "clusters/1/snapshot"]) {
      for (const page of [origin, "https://evil.example"]) {
        const { status, headers } = await request(
          `${r.server.httpURL}${path}`,
          "GET",
          { origin: page },
        );
        found.push([status, headers.get("access-control-allow-origin")]);
        assertMatch(headers.get("vary")!, /origin/);
      }
    }
    return found;
  };
  const sync = [[426, origin], [403, null]];
  const health = [[200, origin], [200, null]];
  const get = (status: number): unknown[] => [[status, origin], [403, null]];
  assertEquals(await answers(), [...sync, ...health, ...get(200)]);
  may = false;
  assertEquals(await answers(), [...sync, ...health, ...get(403)]);
  isKnown = false;
  assertEquals(await answers(), [...sync, ...health, ...get(401)]);
  await r.stop();
});

test("case A1: the limits of a principal do not apply to anonymous clients: 70 of them connect and transfer [H11]", async () => {
  const r = await run({
    limits: { principalConnections: 2, principalTransfers: 1 },
  });
  const clients = [];
  for (let i = 0; i < 70; i++) {
    const client = r.connect();
    await client.hello();
    await client.open();
    client.append(1, packRecords(proposal(kv.put(`k${i}`, "v"), 1, i)));
    assertEquals((await client.next("appended")).refused, []);
    clients.push(client);
  }
  for (const client of clients.slice(0, 3)) {
    client.send({ type: "fetch", channel: 1, stream: 2 });
  }
  for (const client of clients.slice(0, 3)) await client.next("snapshot");
  assertEquals(r.server.counts.connections, 70);
  await r.stop();

  // The limits of the whole server apply to them.
  const small = await run({ limits: { connections: 1 } });
  await small.connect().hello();
  const { code, reason } = await small.connect().end();
  assertEquals(code, 4429);
  assertMatch(reason, /Server has 1 connections already/);
  await small.stop();

  // Each principal has its own limits, also one with the id of the anonymous principal.
  const known = await run({
    limits: { principalConnections: 1 },
    authenticate: () => ({ id: "anybody" }),
  });
  await known.connect().hello();
  const second = known.connect();
  second.hello().catch(() => {});
  assertEquals((await second.end()).code, 4429);
  await known.stop();
});

testInMemory(
  "case A1: connections and transfers of one remote address are limited if so configured, and released [H11]",
  async () => {
    const r = await run({
      limits: { addressConnections: 2, addressTransfers: 1 },
    });
    const first = r.connect();
    await first.hello();
    await r.connect().hello();
    const third = r.connect();
    const { code, reason } = await third.end();
    assertEquals(code, 4429);
    assertMatch(reason, /Your address has 2 connections already/);
    first.transport.close(1000, "");
    await first.end();
    await r.connect().hello();
    await r.stop();

    const w = await world({
      limits: { addressTransfers: 1, principalTransfers: 1 },
    });
    const anyone = await w.core.hooks.authenticate(new Request("http://a"));
    const [here, there] = ["192.0.2.1", "192.0.2.2"];
    const take = (
      identity: Identity,
      address: string,
    ): TransferSlot | undefined =>
      w.core.quotas.takeTransfer({ identity, address });
    const slot = take(anyone, here)!;
    assertEquals(take(anyone, here), undefined);
    assert(take(anyone, there) !== undefined);
    slot.release();
    const ann = { ...anyone, id: "ann", isAnonymous: false };
    const hers = take(ann, here)!;
    // A transfer that one quota rejects does not use up the other.
    assertEquals(take(ann, "192.0.2.3"), undefined);
    assert(take(anyone, "192.0.2.3") !== undefined);
    hers.release();
    assert(take(ann, here) !== undefined);
    await w.stop();
  },
);

test("case A1: Quota.take() bounds the units of each key, and networkOf() returns the network of a client [H11]", () => {
  const quota = new Quota(1);
  const free = quota.take("a")!;
  assertEquals(quota.take("a"), undefined);
  assert(quota.take("b") !== undefined);
  free();
  free();
  assert(quota.take("a") !== undefined);
  assertEquals(quota.take("a"), undefined);
  assert(quota.take(undefined) !== undefined);
  assert(quota.take(undefined) !== undefined);
  for (
    const [address, network] of [
      ["192.0.2.1", "192.0.2.1"],
      ["::ffff:192.0.2.1", "192.0.2.1"],
      ["2001:db8:0:7::1", "2001:db8:0:7"],
      ["2001:0db8::7:1:2:3:4", "2001:db8:0:7"],
      ["2001:db8::1", "2001:db8:0:0"],
      ["::1", "0:0:0:0"],
      ["fe80::7", "fe80::7"],
    ]
  ) assertEquals(networkOf(address), network);
  assertEquals(networkOf(undefined), undefined);
});

test("case A20: a token over the limit is reported with the limit, by the client and by the server [H11]", async () => {
  const r = await run();
  const client = r.connect();
  client.hello({ token: "t".repeat(16_385) }).catch(() => {});
  const { code, reason } = await client.end();
  assertEquals(code, 4400);
  assertMatch(
    reason,
    /token.*Length 16385 is over the limit of 16384/,
  );
  await r.connect().hello({ token: "t".repeat(16_384) });
  // A malformed token is reported as such, not as a fault of the server.
  const odd = r.connect();
  odd.hello({ token: "a\nb" }).catch(() => {});
  const end = await odd.end();
  assertEquals(end.code, 4401);
  assertMatch(end.reason, /token is malformed/);

  for (
    const [token, words] of [
      [
        "\u00e9".repeat(8_193),
        /token has 16386 bytes, over the limit of 16384/,
      ],
      [
        42 as unknown as string,
        /token function returned 42; it must return a string/,
      ],
    ] as const
  ) {
    await using logDB = new RemoteLogDB(r.server.url, { token: () => token });
    const told = Promise.withResolvers<string>();
    logDB.watch(({ reason }) => {
      if (reason?.code === "token-failed") told.resolve(reason.message);
    });
    logDB.open(1n, 2n).catch(() => {});
    assertMatch(await told.promise, words);
  }
  await r.stop();
});

test("case A20: a database that cannot be written is reported with its path [H11]", async () => {
  const folder = await Deno.makeTempDir();
  // Root can write everywhere, but not into a folder.
  const path = `${folder}/log.db`;
  await Deno.mkdir(`${path}-wal`);
  await using host = new NodeHost({ logDB: new SqliteLogDB(path) });
  const error = await assertRejects(
    () => Promise.resolve(host.logDB.open(1n, 1n)),
    ErrStoreFailed,
  );
  assertEquals(error.path, path);
  assert(error.message.startsWith(`${path}: Database cannot be used (`));
  assertMatch(error.message, /must be readable and writable$/);
  await Deno.remove(folder, { recursive: true });
});

testInMemory(
  "case A21: two servers of one process have separate counters [H18]",
  async () => {
    const callbacks = new Map<string, Set<otel.ObservableCallback>>();
    const observable = (name: string): otel.Observable => ({
      addCallback: (callback) => {
        const of = callbacks.get(name) ?? new Set();
        callbacks.set(name, of.add(callback));
      },
      removeCallback: (callback) => void callbacks.get(name)?.delete(callback),
    });
    const noop = otel.createNoopMeter();
    const meter: otel.Meter = Object.assign(Object.create(noop), {
      createObservableCounter: observable,
      createObservableUpDownCounter: observable,
    });
    const exported = (name: string): Record<string, number> => {
      const seen: Record<string, number> = {};
      for (const callback of callbacks.get(name) ?? []) {
        callback({
          observe: (value, attributes): void => {
            seen[JSON.stringify(attributes)] = value;
          },
        });
      }
      return seen;
    };
    otel.metrics.setGlobalMeterProvider({ getMeter: () => meter });
    try {
      const r = await run();
      const other = serve(r.host);
      await r.connect().hello();
      await r.connect().hello();
      await r.connect({}, other).hello();
      const key = (url: string): string =>
        JSON.stringify({
          "server.address": "127.0.0.1",
          "server.port": Number(new URL(url).port),
        });
      assertEquals(exported("sampan.sync.connections"), {
        [key(r.server.url)]: 2,
        [key(other.url)]: 1,
      });
      await other.shutdown();
      assertEquals(Object.keys(exported("sampan.sync.received")), [
        key(r.server.url),
      ]);
      await r.stop();
      // Servers without a listener have separate attributes, too.
      const worlds = [await world(), await world()];
      assertEquals(Object.keys(exported("sampan.sync.closed")).length, 2);
      for (const w of worlds) await w.stop();
    } finally {
      otel.metrics.disable();
    }
  },
);
