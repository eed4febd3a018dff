import { assert, assertEquals, assertThrows } from "@std/assert";
import { ErrNodeIDTaken, kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { packRecords } from "../../src/ports/mod.ts";
import type { ReasonCode, RemoteStatus } from "../../src/sync/client/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrRemote,
  ErrServerURL,
  ErrTooManyClusters,
  ErrUnauthenticated,
} from "../../src/sync/errors.ts";
import { serve } from "../../src/sync/mod.ts";
import { SYNC_CHANNELS_MAX, SYNC_LINKS_MAX } from "../../src/limits.ts";
import { bytes } from "../support/bytes.ts";
import { checked, peek, rejection, settle } from "../support/environment.ts";
import {
  closeAndCheck,
  CloseCode,
  entries,
  reading,
  Script,
  world,
} from "./client_support.ts";

const one = packRecords(bytes("a"));
const HEADER = { "x-sampan": "2-4" };

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

// ------------------------------------------------------------------ addresses

Deno.test("case B1: an address that is not a server's is refused at once, with words that name it [H11, H18]", () => {
  for (
    const url of [
      "",
      "/sync",
      "example.com",
      "example.com:8000/sync",
      "ftp://example.com/sync",
      "wss://",
      "wss://user:secret@example.com/sync",
      "wss://example.com/sync#top",
      7 as unknown as string,
      undefined as unknown as string,
    ]
  ) {
    const error = assertThrows(() => new RemoteLogDB(url), ErrServerURL);
    assertEquals(error.url, String(url));
    assert(error.message.includes(String(url)), error.message);
  }
  assertThrows(() => new RemoteLogDB([]), RangeError);
  assertThrows(() => new RemoteLogDB(["wss://a", "b"]), ErrServerURL);
});

Deno.test("case B1: an address without a path means /sync [H11]", () => {
  for (
    const [given, used] of [
      ["wss://example.com", "wss://example.com/sync"],
      ["wss://example.com/", "wss://example.com/sync"],
      ["wss://example.com?a=1", "wss://example.com/sync?a=1"],
      ["https://Example.com:443/app/sync", "wss://example.com/app/sync"],
      ["http://[::1]:8000", "ws://[::1]:8000/sync"],
    ] as const
  ) {
    const db = new RemoteLogDB(given);
    assertEquals(db.status.addresses, [{ url: used }]);
  }
});

// -------------------------------------------------------- why there is no way

/** Responses of different servers at an address, as a page sees them. */
const ANSWERS: readonly [ReasonCode, string, () => Response][] = [
  [
    "websocket-blocked",
    "proxy",
    () => new Response("", { status: 426, headers: HEADER }),
  ],
  ["not-sampan", "/sync", () => new Response("", { status: 404 })],
  ["not-sampan", "path", () => new Response("", { status: 426 })],
  ["not-sampan", "403", () => new Response("", { status: 403 })],
  ["needs-auth", "sign in", () => new Response("", { status: 401 })],
  [
    "forbidden",
    "origins",
    () => new Response("", { status: 403, headers: HEADER }),
  ],
  ["gateway", "502", () => new Response("", { status: 502 })],
  [
    "intercepted",
    "sign in to the network",
    () => new Response("<html>", { headers: { "content-type": "text/html" } }),
  ],
  [
    "intercepted",
    "web page",
    () => new Response(null, { status: 302, headers: { location: "/login" } }),
  ],
  ["unreachable", "network", () => {
    throw new TypeError("fetch() failed");
  }],
];

for (const [code, words, answer] of ANSWERS) {
  test(`case B1: ${code} is distinguished from other reasons by an HTTP request: ${words} [H18]`, async () => {
    const asked: string[] = [];
    const w = world({
      fetch: (url) => {
        asked.push(url);
        return new Promise((resolve) => resolve(answer()));
      },
    });
    w.script.isDown = true;
    await w.db.open(1n, 1n);
    await settle();
    const { reason, error, state, retryAt } = w.db.status;
    assertEquals(reason?.code, code);
    assertEquals(reason?.url, "wss://one/sync");
    assert(reason!.message.includes(words), reason!.message);
    assertEquals(error?.message, reason!.message);
    assertEquals(asked, ["https://one/sync"]);
    assert(retryAt !== undefined);
    const own = {
      "needs-auth": ["needs-auth", ErrUnauthenticated],
      "forbidden": ["forbidden", ErrForbidden],
    }[code as string] ?? ["offline", ErrConnectionLost];
    assertEquals<unknown>([state, error!.constructor], own);
    // At the pace of the attempts, and no more.
    const states = new Set<string>();
    const end = w.db.watch(({ reason }) => void states.add(reason!.code));
    await w.env.advance(20_000);
    end();
    assertEquals([...states], [code]);
    assert(asked.length > 5 && asked.length < 40, `${asked.length}`);
    w.script.isDown = false;
    w.db.reconnect();
    await w.script.open();
    assertEquals(w.db.status.reason, undefined);
    assertEquals(w.db.state, "catching up");
    await closeAndCheck(w);
  });
}

test("case B1: an HTTP probe that hangs ends with the client, and delays no attempt [H10]", async () => {
  let signal: AbortSignal | null | undefined;
  let count = 0;
  const w = world({
    fetch: (_, init) => {
      count++;
      signal = init.signal;
      return new Promise((_, reject) => {
        signal!.addEventListener("abort", () => reject(signal!.reason));
      });
    },
  });
  w.script.isDown = true;
  await w.db.open(1n, 1n);
  await w.env.advance(10_000);
  assertEquals([count, signal!.aborted], [1, false]);
  assertEquals(w.db.status.reason?.code, "unreachable");
  await w.env.advance(10_000);
  assert(count > 1);
  await closeAndCheck(w);
  assertEquals(signal!.aborted, true);
});

Deno.test("case B1: over real sockets, each reason is distinguished from the others [H18]", async () => {
  const answers: Record<string, () => Response> = {
    "/portal": () =>
      new Response("<html>", { headers: { "content-type": "text/html" } }),
    "/login": () => new Response("", { status: 401 }),
    "/gone": () => new Response("", { status: 502 }),
    "/blocked": () => new Response("", { status: 426, headers: HEADER }),
  };
  await using listener = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen(): void {} },
    (request) =>
      answers[new URL(request.url).pathname]?.() ??
        new Response("", { status: 404 }),
  );
  const { port } = listener.addr;
  for (
    const [path, code] of [
      ["/portal", "intercepted"],
      ["/login", "needs-auth"],
      ["/gone", "gateway"],
      ["/blocked", "websocket-blocked"],
      ["/other", "not-sampan"],
    ]
  ) {
    await using db = new RemoteLogDB(`ws://127.0.0.1:${port}${path}`);
    const seen = new Promise<void>((resolve) =>
      db.watch(({ reason }) => void (reason?.code === code && resolve()))
    );
    await db.open(1n, 2n);
    await seen;
  }
});

test("case B1: the reason of a lost connection is a sentence for users, for any close code [H18]", async () => {
  for (const code of [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1015, 4400]) {
    const w = world();
    await w.db.open(1n, 1n);
    await w.script.open();
    w.script.peer.cut(code);
    const { reason, error } = w.db.status;
    assert(reason !== undefined);
    assert(!/\b\d{4}\b/.test(reason.message), reason.message);
    assert(reason.message.includes("one/sync"), reason.message);
    assertEquals(error?.message, reason.message);
    await closeAndCheck(w);
  }
});

test("case B1: a failing token function is reported as such [H21, H18]", async () => {
  const w = world({
    token: () => Promise.reject(new Error("no such user (404)")),
  });
  await w.db.open(1n, 1n);
  await settle();
  const { reason, state, retryAt } = w.db.status;
  assertEquals([reason?.code, state], ["token-failed", "offline"]);
  assert(reason!.message.includes("no such user (404)"));
  assert(retryAt !== undefined);
  await closeAndCheck(w);
});

test("case B1: an address that the platform does not let a page use is reported as such [H18]", async () => {
  const w = world({
    connect: () => {
      throw new DOMException("An insecure WebSocket", "SecurityError");
    },
  });
  await w.db.open(1n, 1n);
  await settle();
  assertEquals(w.db.status.reason?.code, "not-allowed");
  assert(w.db.status.reason!.message.includes("An insecure WebSocket"));
  await closeAndCheck(w);
});

// ------------------------------------------------------------ times of attempts

test("case B8: a page reconnects within 3 s to a server that was away for half a minute [H18, U38]", async () => {
  for (const downMs of [300, 1_000, 3_000, 10_000, 30_000]) {
    const w = world();
    await w.db.open(1n, 1n);
    await w.script.open();
    await w.env.advance(60_000);
    w.script.isDown = true;
    w.script.peer.cut();
    const before = w.script.peers.length;
    await w.env.advance(downMs);
    w.script.isDown = false;
    await w.env.advance(3_000);
    assertEquals(w.script.peers.length, before + 1, `${downMs}`);
    await closeAndCheck(w);
  }
});

test("case B8: the time of the next attempt is reported, and reconnect() makes it now [H18]", async () => {
  const w = world();
  w.script.isDown = true;
  const told: RemoteStatus[] = [];
  w.db.watch((status) => told.push(status));
  await w.db.open(1n, 1n);
  await w.env.advance(600_000);
  for (const { state, retryAt, reason } of told) {
    // A watcher knows the reason and the time of the next attempt.
    if (state === "offline") assert(retryAt !== undefined && reason);
    else assertEquals([state, retryAt], ["connecting", undefined]);
  }
  const { retryAt, retryInMs } = w.db.status;
  assertEquals(retryAt! - w.env.now(), retryInMs);
  assert(retryInMs! <= 30_000);
  await w.env.advance(retryInMs! - 1);
  const before = w.db.status.retryAt;
  assertEquals(before, retryAt);
  await w.env.advance(2);
  assert(w.db.status.retryAt! > before!);
  w.script.isDown = false;
  w.db.reconnect();
  assertEquals(w.db.status.retryAt, undefined);
  await w.script.open();
  assertEquals(w.db.status.reason, undefined);
  await closeAndCheck(w);
});

test("case B8: a hint does not put off an attempt that is due [U38]", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  await w.script.open();
  w.script.isDown = true;
  w.script.peer.cut();
  const due = w.db.status.retryAt!;
  w.wake();
  await settle(1);
  assert(w.db.status.retryAt! <= due);
  await closeAndCheck(w);
});

test("case A8: an address that cannot be used does not delay the others [U38]", async () => {
  for (
    const code of [CloseCode.Version, CloseCode.Forbidden, CloseCode.TooBig]
  ) {
    const urls: string[] = [];
    const script = new Script();
    const bad = new Script();
    bad.refusal = code;
    const w = world({
      connect: (url) => {
        urls.push(url);
        return (url.includes("//bad/") ? bad : script).connect(url);
      },
    }, ["wss://bad", "wss://good"]);
    const log = await w.db.open(1n, 1n);
    const appended = Promise.resolve(log.append(one));
    appended.catch(() => {});
    await w.env.advance(500);
    assertEquals(urls, ["wss://bad/sync", "wss://good/sync"]);
    // Nothing fails while another address may take it.
    assertEquals(await peek(appended), "pending");
    await script.open();
    assertEquals(w.db.status.error, undefined);
    assert(script.peer.has("append"));
    // It is gone, and back soon: the other one is left alone all the while.
    script.isDown = true;
    script.peer.cut();
    await w.env.advance(2_000);
    script.isDown = false;
    await w.env.advance(2_000);
    await script.open();
    assertEquals(bad.peers.length, 1);
    await closeAndCheck(w);
  }
});

test("case A8: the outcome at each address is reported, and one that requires action by the user comes first [H18]", async () => {
  const bad = new Script();
  bad.refusal = CloseCode.Unauthenticated;
  const down = new Script();
  down.isDown = true;
  const w = world({
    connect: (url) => (url.includes("//bad/") ? bad : down).connect(url),
  }, ["wss://down", "wss://bad"]);
  await w.db.open(1n, 1n);
  await w.env.advance(60_000);
  const { state, addresses, reason } = w.db.status;
  assertEquals(
    addresses.map(({ reason }) => reason?.code),
    ["unreachable", "needs-auth"],
  );
  assertEquals([state, reason?.code], ["needs-auth", "needs-auth"]);
  await closeAndCheck(w);
});

// ------------------------------------------------------- state of a connection

test("case A15: a server that cannot store is reported, and is live again once it can [H18]", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 0);
  const peer = await w.script.open({}, 1);
  const { stream } = peer.take("read");
  const next = Promise.resolve(reader.next());
  peer.send({ type: "reading", stream, last: 1 }, entries(stream, 1, "x"));
  await next;
  assertEquals(w.db.state, "live");
  const told: RemoteStatus[] = [];
  w.db.watch((status) => told.push(status));
  const unable = { type: "unable", channel: 1 } as const;
  peer.send({ ...unable, code: 1, reason: "Disk of the server is full" });
  await settle(1);
  const { state, reason, error, clusters: [cluster] } = told.at(-1)!;
  assertEquals(state, "not accepting");
  assertEquals(reason, {
    code: "storage",
    message: "Disk of the server is full",
  });
  assert(error instanceof ErrRemote);
  assertEquals(cluster!.state, "not accepting");
  peer.send({ ...unable, code: 0, reason: "" });
  await settle(1);
  assertEquals(told.at(-1)!.state, "live");
  assertEquals(told.at(-1)!.reason, undefined);
  reader.close();
  await closeAndCheck(w);
});

test("H18 a cluster that is forbidden, or waits, is not live, and the status says why", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  const peer = await w.script.welcome();
  const { channel } = peer.take("open");
  const refused = { type: "refused", channel } as const;
  peer.send({ ...refused, code: CloseCode.NotFound, reason: "No cluster 1" });
  await settle(1);
  assertEquals(w.db.status.state, "catching up");
  assertEquals(w.db.status.reason, {
    code: "no-cluster",
    message: "No cluster 1",
  });
  assert(w.db.status.clusters[0]!.retryAt! > w.env.now());
  await w.env.advance(1_000);
  peer.send({ ...refused, code: CloseCode.Forbidden, reason: "Not yours" });
  await settle(1);
  assertEquals(w.db.status.state, "forbidden");
  assertEquals(w.db.status.reason?.code, "forbidden");
  assert(w.db.status.error instanceof ErrForbidden);
  await closeAndCheck(w);
});

Deno.test("case B3: a device with the node id of the server's replica is refused with words [H12, H11]", async () => {
  await using there = new NodeHost();
  const config = { clusterID: 1n, nodeID: 1n };
  await there.startCluster(() => new KVStateMachine(), config);
  await using server = serve(there);
  await using logDB = new RemoteLogDB(server.url);
  const { promise, resolve } = Promise.withResolvers<unknown>();
  await using here = new NodeHost({
    logDB,
    onEvent: (event) => void (event.type === "failed" && resolve(event.error)),
  });
  const replica = await here.startCluster(() => new KVStateMachine(), config);
  const error = await promise;
  assert(error instanceof ErrNodeIDTaken);
  assertEquals([error.clusterID, error.nodeID], [1n, 1n]);
  assert(error.message.includes("deviceID()"));
  assert(replica.error instanceof ErrNodeIDTaken);
});

for (const [channels, connections] of [[64, 2], [20, 4]] as const) {
  Deno.test(`case A9: 70 clusters are live at once, ${channels} on a connection [H18]`, async () => {
    await using there = new NodeHost();
    const clusters = Array.from({ length: 70 }, (_, i) => BigInt(i + 1));
    for (const clusterID of clusters) {
      const config = { clusterID, nodeID: 1n };
      await there.startCluster(() => new KVStateMachine(), config);
    }
    await using server = serve(there, { limits: { channels } });
    await using logDB = new RemoteLogDB(server.url);
    await using here = new NodeHost({ logDB });
    for (const clusterID of clusters) {
      const config = { clusterID, nodeID: 2n };
      const replica = await here.startCluster(
        () => new KVStateMachine(),
        config,
      );
      await replica.propose(kv.put("a", "b"));
    }
    await new Promise<void>((resolve) => {
      const look = (): void => void (logDB.state === "live" && resolve());
      logDB.watch(look);
      look();
    });
    assertEquals(server.counts.connections, connections);
    // Connections without channels are closed.
    for (const clusterID of clusters.slice(10)) {
      await here.stopCluster(clusterID);
    }
    assertEquals(logDB.state, "live");
    while (server.counts.connections > 1) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
}

test("case A9: clusters for which no connection has room are reported in state and status [H18]", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reason = "No more than 0 clusters on one connection";
  const peer = await w.script.welcome();
  const { channel } = peer.take("open");
  peer.send({ type: "refused", channel, code: CloseCode.TooMany, reason });
  await settle(1);
  assertEquals(w.script.peers.length, 1);
  const { state, reason: told, error, retryAt } = w.db.status;
  assertEquals([state, told], ["catching up", {
    code: "too-many-clusters",
    message: reason,
  }]);
  assert(error instanceof ErrRemote);
  assert(retryAt !== undefined);
  await log.close();
  await closeAndCheck(w);
});

test("case A9: open() refuses a cluster beyond what all connections carry [H11, H18]", async () => {
  const w = world();
  const most = SYNC_LINKS_MAX * SYNC_CHANNELS_MAX;
  for (let i = 0; i < most; i++) await w.db.open(BigInt(i), 1n);
  const error = await rejection(w.db.open(BigInt(most), 1n));
  assert(error instanceof ErrTooManyClusters);
  assert(error.message.includes(`${most} clusters`));
  await closeAndCheck(w);
});

Deno.test("case B1: a server identifies itself to pages of the allowed origins only [H18]", async () => {
  await using there = new NodeHost();
  const origins = ["https://app.example"];
  await using server = serve(there, { origins });
  const ask = async (origin: string): Promise<Headers> => {
    const url = server.url.replace("ws:", "http:");
    const response = await fetch(url, { headers: { origin } });
    await response.body?.cancel();
    return response.headers;
  };
  const own = await ask("https://app.example");
  assertEquals(own.get("x-sampan"), "2-4");
  assertEquals(own.get("access-control-allow-origin"), "https://app.example");
  assert(own.get("access-control-expose-headers")!.includes("x-sampan"));
  const other = await ask("https://other.example");
  assertEquals(other.get("access-control-allow-origin"), null);
});
