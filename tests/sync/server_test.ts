import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
} from "@std/assert";
import {
  ConcurrentKVStateMachine,
  ErrCompacted,
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
  type Result,
} from "../../mod.ts";
import { ErrHookFailed, ErrUnauthenticated } from "../../src/sync/errors.ts";
import {
  COMMAND_BYTES_MAX,
  SYNC_BUFFERED_TOTAL_BYTES_MAX,
  SYNC_CREDIT_BYTES,
  SYNC_CREDIT_TOTAL_BYTES,
  SYNC_FRAME_BYTES_MAX,
  SYNC_ORIGINS_MAX,
} from "../../src/limits.ts";
import { sleep } from "../../src/async.ts";
import {
  putProposalHead,
  RecordCursor,
  unregisterRecord,
} from "../../src/rsm/record_codec.ts";
import { RecordKind } from "../../src/log/records.ts";
import { handle } from "../../src/sync/server/http.ts";
import { OriginPolicy } from "../../src/sync/server/origin_policy.ts";
import { checked, never, rejection, settle } from "../support/environment.ts";
import { text } from "../support/bytes.ts";
import {
  claimRecord,
  packRecords,
  proposal,
  type RawClient,
  registerRecord,
  sessionProposal,
  world,
} from "./server_support.ts";

const ORIGINS = new OriginPolicy(undefined, undefined);

/** Hook that returns the token as the id of the principal. */
const byToken = {
  authenticate: (request: Request): { id: string } | undefined => {
    const [, token] = request.headers.get("authorization")?.split(" ") ?? [];
    return token === undefined ? undefined : { id: token };
  },
};

Deno.test(
  "H5 an append of a client is committed, answered, and sent to every reader in order",
  checked(async () => {
    const w = await world();
    const a = await w.client();
    const b = await w.client();
    for (const client of [a, b]) client.read(1, 0);
    assertEquals((await b.next("reading")).last, 0);
    await a.next("reading");
    const puts = [1, 2, 3].map((i) => proposal(kv.put(`k${i}`, `v${i}`), i));
    a.append(2, packRecords(...puts));
    // The first record of the log is its epoch (H13).
    assertEquals((await a.next("appended")).first, 2);
    for (const client of [a, b]) {
      const records = await client.entriesUpTo(4);
      assertEquals(records.slice(1), puts);
    }
    assertEquals(await w.replica.read(kv.count()), 3);
    // Readers with the same stream number share the encoded frames.
    assertEquals(a.received > 0, true);
    a.send({ type: "readIndex", channel: 1, stream: 3 });
    assertEquals((await a.next("index")).index, 4);
    await w.stop();
    assertEquals((await a.end()).code, 1001);
  }),
);

Deno.test(
  "H15 read resumes from any index, from the log and from the recent batches",
  checked(async () => {
    const w = await world();
    const writer = await w.client();
    for (let i = 0; i < 60; i++) {
      writer.append(100 + i, packRecords(proposal(kv.put(`k${i}`, "v"), i)));
      await writer.next("appended");
    }
    for (let after = 0; after <= 61; after++) {
      const client = await w.client();
      client.read(after + 1, after);
      await client.next("reading");
      await client.entriesUpTo(61, after);
      client.transport.close(1000, "");
    }
    await w.stop();
  }),
);

Deno.test(
  "U33 read of a client with another history ends with diverged, and rewinds nothing",
  checked(async () => {
    const w = await world();
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await client.next("appended");
    client.read(2, 99);
    const beyond = await client.next("end");
    assertEquals([beyond.stream, beyond.reason, beyond.first], [
      2,
      "diverged",
      3,
    ]);
    client.read(3, 2, { epochIndex: 1, epochID: 42n });
    const foreign = await client.next("end");
    assertEquals([foreign.stream, foreign.reason], [3, "diverged"]);
    await w.stop();
  }),
);

Deno.test(
  "H7 read of compacted entries ends with compacted and the first index of the log",
  checked(async () => {
    const w = await world({ config: { snapshotEntries: 10 } });
    const client = await w.client();
    for (let i = 0; i < 50; i++) {
      client.append(100 + i, packRecords(proposal(kv.put(`k${i}`, "v"), i)));
      await client.next("appended");
      await w.env.advance(1);
    }
    await settle(50);
    client.read(1, 0);
    const end = await client.next("end");
    assertEquals(end.reason, "compacted");
    assert(end.first > 1);
    client.read(2, end.first - 1);
    assertEquals((await client.next("reading")).last, 51);
    await w.stop();
  }),
);

Deno.test(
  "U29 read of a client far behind ends with far if it accepts a snapshot, and continues otherwise",
  checked(async () => {
    const w = await world({ limits: { farEntries: 10 } });
    const client = await w.client();
    const puts = Array.from(
      { length: 11 },
      (_, i) => proposal(kv.put("k", "v"), i),
    );
    client.append(1, packRecords(...puts));
    await client.next("appended");
    client.read(2, 2, { far: true });
    await client.next("reading", 2);
    client.read(3, 1, { far: true });
    const end = await client.next("end");
    assertEquals([end.stream, end.reason], [3, "far"]);
    client.read(4, 1, { far: false });
    await client.next("reading", 4);
    await w.stop();
  }),
);

Deno.test(
  "U29 fetch sends a snapshot, and retains the log after it until the client reads on",
  checked(async () => {
    const w = await world();
    const client = await w.client();
    const puts = Array.from(
      { length: 30 },
      (_, i) => proposal(kv.put(`k${i}`, "v"), i),
    );
    client.append(1, packRecords(...puts));
    await client.next("appended");
    client.send({ type: "fetch", channel: 1, stream: 2 });
    const snapshot = await client.next("snapshot");
    assertEquals([snapshot.index, snapshot.epochIndex, snapshot.nodeID], [
      31,
      1,
      1n,
    ]);
    assertEquals((await client.next("end")).reason, "done");
    const chunks = client.messages.filter(({ type }) => type === "chunk");
    assert(chunks.length > 0);
    // The log is not compacted before the client reads on.
    const cutter = await w.host.logDB.open(1n, 77n);
    await cutter.compact!(31);
    client.read(3, snapshot.index, {
      epochIndex: snapshot.epochIndex,
      epochID: snapshot.epochID,
    });
    await client.next("reading", 3);
    // The stored snapshot serves the next client, too.
    const other = await w.client();
    other.send({ type: "fetch", channel: 1, stream: 2 });
    assert((await other.next("snapshot")).size > 0);
    await cutter.close();
    await w.stop();
  }),
);

Deno.test(
  "H14 a refused command becomes a skip record with its reason in the log, and its series continues",
  checked(async () => {
    const w = await world({
      validate: (_principal, cmd) =>
        text(cmd).includes("bad") ? "No bad words here" : undefined,
    });
    const client = await w.client();
    client.append(1, packRecords(registerRecord(5n, new Uint8Array())));
    const session = (await client.next("appended")).first;
    client.append(
      2,
      packRecords(
        sessionProposal(session, 1, kv.put("a", "good")),
        sessionProposal(session, 2, kv.put("b", "bad")),
        sessionProposal(session, 3, kv.put("c", "good")),
        proposal(kv.put("d", "bad")),
        proposal(kv.put("e", "good")),
      ),
    );
    const appended = await client.next("appended");
    assertEquals(appended.refused, [3]);
    assertEquals(appended.reasons, ["No bad words here"]);
    assertEquals(w.core.telemetry.counts.refused, 2);
    client.read(3, session);
    const records = await client.entriesUpTo(session + 4, session);
    assertEquals(
      records.map((record) => record[0]!.toString(16)),
      ["15", "16", "15", "14"],
    );
    assertMatch(text(records[1]), /No bad words here$/);
    await w.env.advance(10);
    assertEquals(await w.replica.read(kv.count()), 3);
    assertEquals(w.replica.sessionInfo(session)!.next, 4);
    await w.stop();
  }),
);

Deno.test(
  "H14 records of another principal's session are refused, and those of an evicted session are accepted",
  checked(async () => {
    const w = await world(byToken);
    const ann = await w.client("ann");
    const bob = await w.client("bob");
    // The server replaces the owner that a client names by its principal.
    ann.append(
      1,
      packRecords(registerRecord(5n, new TextEncoder().encode("bob"))),
    );
    const session = (await ann.next("appended")).first;
    bob.append(
      1,
      packRecords(
        sessionProposal(session, 1, kv.put("a", "b")),
        sessionProposal(session, 1, undefined),
        new Uint8Array([0x13, session]),
        claimRecord(session, 5n, 6n),
        sessionProposal(1, 1, kv.put("a", "b")),
        sessionProposal(9999, 1, kv.put("a", "b")),
      ),
    );
    const appended = await bob.next("appended");
    assertEquals(appended.refused, [0, 1, 2, 3, 5]);
    assertMatch(appended.reasons[0]!, /belongs to another principal/);
    assertMatch(appended.reasons[4]!, /no session 9999 yet/);
    ann.append(2, packRecords(sessionProposal(session, 1, kv.put("a", "b"))));
    assertEquals((await ann.next("appended")).refused, []);
    await w.env.advance(10);
    assertEquals(text(w.replica.sessionInfo(session)!.owner), "ann");
    assertEquals(await w.replica.read(kv.count()), 1);
    await w.stop();
  }),
);

Deno.test(
  "H1 a proposal with another client's origin is refused: it would answer that client's callers",
  checked(async () => {
    const w = await world(byToken);
    const ann = await w.client("ann");
    const bob = await w.client("bob");
    ann.append(1, packRecords(proposal(kv.put("a", "b"), 1, 42)));
    await ann.next("appended");
    bob.append(
      1,
      packRecords(
        proposal(kv.put("a", "c"), 1, 43),
        proposal(kv.put("a", "c"), 2, 42),
        proposal(kv.put("a", "c"), 3, 43),
      ),
    );
    const { refused, reasons } = await bob.next("appended");
    assertEquals(refused, [1]);
    assertMatch(reasons[0]!, /belongs to another principal/);
    ann.append(2, packRecords(proposal(kv.put("a", "d"), 2, 42)));
    assertEquals((await ann.next("appended")).refused, []);
    await w.stop();
  }),
);

Deno.test(
  "H14 records wait, in order, for a session that the server has not applied yet",
  checked(async () => {
    const w = await world();
    const client = await w.client();
    // The registration and its use arrive together: the replica has applied neither.
    client.append(1, packRecords(registerRecord(5n, new Uint8Array())));
    client.append(2, packRecords(sessionProposal(2, 1, kv.put("a", "b"))));
    client.append(3, packRecords(sessionProposal(2, 2, kv.put("c", "d"))));
    assertEquals((await client.next("appended")).first, 2);
    assertEquals((await client.next("appended")).first, 3);
    assertEquals((await client.next("appended")).first, 4);
    await w.stop();
  }),
);

Deno.test(
  "H11 commands over the size limit are refused, and the others committed",
  checked(async () => {
    const w = await world({ limits: { commandBytes: 100 } });
    const client = await w.client();
    client.append(
      1,
      packRecords(
        proposal(new Uint8Array(101)),
        proposal(kv.put("a", "b")),
      ),
    );
    const appended = await client.next("appended");
    assertEquals(appended.refused, [0]);
    assertMatch(appended.reasons[0]!, /101 bytes is over the limit of 100/);
    assertEquals(appended.first, 2);
    client.append(2, packRecords(proposal(new Uint8Array(102))));
    assertEquals((await client.next("appended")).first, 0);
    await w.env.advance(10);
    assertEquals(w.replica.error, undefined);
    assertEquals(await w.replica.read(kv.count()), 1);
    await w.stop();
  }),
);

Deno.test(
  "U34 a client whose token is invalid or revoked gets the reason, and may reconnect with another token",
  checked(async () => {
    const expiry = new AbortController();
    const w = await world({
      authenticate: (request) => {
        const token = request.headers.get("authorization");
        if (token === "Bearer late") throw new Error("LDAP directory is down");
        if (token === "Bearer never") return never();
        if (token === "Bearer null") return null as unknown as undefined;
        if (token === "Bearer off") {
          throw new ErrUnauthenticated("Account is locked (403)");
        }
        return token === "Bearer good"
          ? { id: "ann", signal: expiry.signal }
          : undefined;
      },
    });
    const endOf = async (token: string | undefined): Promise<number> => {
      const client = w.connect();
      client.stepMs = 10;
      client.hello({ token }).catch(() => {});
      return (await client.end()).code;
    };
    assertEquals(await endOf(undefined), 4401);
    assertEquals(await endOf("wrong"), 4401);
    assertEquals(await endOf("no\nheader"), 4401);
    assertEquals(await endOf("off"), 4401);
    assertEquals(await endOf("null"), 4401);
    assertEquals(w.core.telemetry.counts.hookFailures, 0);
    // A fault of the hook: the token may be valid.
    assertEquals(await endOf("late"), 1001);
    assertEquals(await endOf("never"), 1001);
    const failures = w.log.filter(({ event }) =>
      event === "authenticate failed"
    );
    assertEquals(failures.length, 2);
    const asks = new Request("http://sync.test/clusters/1/snapshot", {
      headers: { authorization: "Bearer late" },
    });
    assertEquals((await handle(w.core, asks, ORIGINS)!).status, 503);
    const client = await w.client("good");
    expiry.abort();
    const { code, reason } = await client.end();
    assertEquals(code, 4401);
    assertMatch(reason, /expired or was revoked/);
    assertEquals(await endOf("good"), 4401);
    await w.stop();
  }),
);

Deno.test(
  "U14 without a common version the connection ends with a remedy; otherwise both speak the newest common one",
  checked(async () => {
    const w = await world({ versions: { first: 2, last: 3 } });
    const old = w.connect();
    old.hello({ first: 1, last: 1 }).catch(() => {});
    const tooOld = await old.end();
    assertEquals(tooOld.code, 4406);
    assertMatch(tooOld.reason, /versions 2 to 3.*1 to 1: reload the page/);
    const young = w.connect();
    young.hello({ first: 4, last: 5 }).catch(() => {});
    assertMatch((await young.end()).reason, /update the server/);
    assertEquals((await w.connect().hello({ first: 1, last: 2 })).version, 2);
    assertEquals((await w.connect().hello({ first: 2, last: 9 })).version, 3);
    await w.stop();
  }),
);

Deno.test(
  "H11 opening a cluster that is unknown, stopped or not permitted is refused on its channel only",
  checked(async () => {
    const w = await world({
      ...byToken,
      authorize: ({ id }, clusterID, action) =>
        id !== "stranger" && (action === "read" || id !== "reader") &&
        clusterID < 10n,
    });
    const client = w.connect();
    await client.hello({ token: "reader" });
    client.send({ type: "open", channel: 1, clusterID: 2n, nodeID: 9n });
    assertEquals((await client.next("refused")).code, 4404);
    client.send({ type: "open", channel: 1, clusterID: 10n, nodeID: 9n });
    assertEquals((await client.next("refused")).code, 4403);
    await client.open();
    // Records of a principal that may not write are refused, and nothing waits.
    client.append(
      5,
      packRecords(
        proposal(kv.put("a", "b")),
        registerRecord(5n, new Uint8Array()),
      ),
    );
    const { refused, reasons } = await client.next("appended");
    assertEquals(refused, [0, 1]);
    assertMatch(reasons[0]!, /may not write/);
    client.read(6, 0);
    await client.next("reading");
    await w.env.until(w.host.stopCluster(1n), 10);
    const refusal = await client.next("refused");
    assertEquals([refusal.channel, refusal.code], [1, 1001]);
    // Messages that cross the refusal are answered, and do no harm.
    client.read(7, 0);
    assertEquals((await client.next("end")).reason, "failed");
    client.append(8, packRecords(proposal(kv.put("a", "b"))));
    assertEquals((await client.next("failed")).unknown, false);
    client.send({ type: "readIndex", channel: 1, stream: 9 });
    assertEquals((await client.next("failed")).stream, 9);
    client.send({ type: "fetch", channel: 1, stream: 10 });
    assertEquals((await client.next("end")).stream, 10);
    client.send({ type: "close", channel: 1 });
    client.send({ type: "stop", stream: 77 });
    client.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 9n });
    assertEquals((await client.next("refused")).code, 4404);
    await w.stop();
  }),
);

Deno.test(
  "H11 a message that is out of turn, unknown or a server's ends its own connection only",
  checked(async () => {
    const w = await world();
    const other = await w.client();
    const violate = async (
      act: (client: Awaited<ReturnType<typeof w.client>>) => void,
      isOpen = true,
    ): Promise<[number, string]> => {
      const client = isOpen ? await w.client() : w.connect();
      await client.until("opened", () => client.isOpen);
      act(client);
      const { code, reason } = await client.end();
      return [code, reason];
    };
    const none = new Uint8Array();
    for (
      const [act, isOpen, code, words] of [
        [(c) => c.read(1, 0), false, 4400, /read before the welcome/],
        [(c) => c.send({ type: "ping" }), false, 4400, /before the welcome/],
        [
          (c) => void c.hello().catch(() => {}),
          true,
          4400,
          /hello was sent a second time/,
        ],
        [(c) => c.transport.send(none), true, 4400, /Frame has 0 bytes/],
        [
          (c) => c.transport.send(new Uint8Array([99])),
          true,
          4400,
          /unknown message code 99/,
        ],
        [
          (c) => c.transport.send(new Uint8Array([24, 1])),
          true,
          4400,
          /ping is followed by 1 more byte/,
        ],
        [
          (c) => c.send({ type: "index", stream: 1, index: 1 }),
          true,
          4400,
          /only be sent by the server/,
        ],
        [
          (c) =>
            c.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 1n }),
          true,
          4400,
          /Channel 1 is open already/,
        ],
        [
          (c) => {
            c.read(1, 0);
            c.read(1, 0);
          },
          true,
          4400,
          /Stream 1 is open already/,
        ],
        [
          (c) => c.transport.send(new Uint8Array(SYNC_FRAME_BYTES_MAX + 1)),
          true,
          4413,
          /over the limit/,
        ],
        [
          (c) =>
            c.send({
              type: "append",
              channel: 1,
              stream: 1,
              lengths: [5],
              bytes: none,
            }),
          true,
          4400,
          /Append has 0 bytes/,
        ],
        [
          (c) => void c.hello({ frameBytesMax: 1000 }).catch(() => {}),
          false,
          4413,
          /frames of 1000 bytes/,
        ],
      ] as const satisfies readonly (readonly [
        (client: Awaited<ReturnType<typeof w.client>>) => void,
        boolean,
        number,
        RegExp,
      ])[]
    ) {
      const [was, reason] = await violate(act, isOpen);
      assertMatch(reason, words);
      assertEquals(was, code);
    }
    other.append(1, packRecords(proposal(kv.put("a", "b"))));
    await other.next("appended");
    assertEquals(other.ending, undefined);
    await w.stop();
  }),
);

Deno.test(
  "H11 connections, connections of a principal, channels, streams and transfers are bounded, each with a reason",
  checked(async () => {
    let held: Promise<undefined> | undefined = undefined;
    const w = await world({
      ...byToken,
      validate: () => held,
      limits: {
        connections: 3,
        principalConnections: 2,
        channels: 2,
        streams: 4,
        connectionTransfers: 1,
      },
    });
    const one = await w.client("ann");
    const two = await w.client("ann");
    const three = w.connect();
    three.hello({ token: "ann" }).catch(() => {});
    assertMatch((await three.end()).reason, /You have 2 connections already/);
    await w.client("bob");
    const five = w.connect();
    const { code, reason } = await five.end();
    assertEquals(code, 4429);
    assertMatch(reason, /Server has 3 connections already/);
    await one.open(2);
    one.send({ type: "open", channel: 3, clusterID: 1n, nodeID: 1n });
    const refused = await one.next("refused");
    assertEquals([refused.channel, refused.code], [3, 4429]);
    one.isReading = false;
    one.send({ type: "fetch", channel: 1, stream: 1 });
    one.send({ type: "fetch", channel: 1, stream: 2 });
    assertMatch((await one.next("end", 2)).message, /Too many snapshots/);
    for (const stream of [1, 2]) {
      two.read(stream, 0);
      await two.next("reading", stream);
    }
    two.read(3, 0);
    assertMatch((await two.next("end", 3)).message, /No more than 2 reads/);
    const late = Promise.withResolvers<undefined>();
    held = late.promise;
    for (const stream of [3, 4, 5]) {
      two.append(stream, packRecords(proposal(kv.put("a", "b"))));
    }
    assertEquals((await two.end()).code, 4429);
    late.resolve(undefined);
    // A closed connection frees its place.
    await w.client("ann");
    await w.stop();
  }),
);

Deno.test(
  "H11 appends beyond the credit end the connection; those within it are processed, and credit is granted again",
  checked(async () => {
    let held: Promise<undefined> | undefined = undefined;
    const w = await world({
      limits: { creditBytes: 1000 },
      validate: () => held,
    });
    const client = w.connect();
    assertEquals((await client.hello()).credit, 1000);
    await client.open();
    const records = packRecords(proposal(new Uint8Array(400)));
    let granted = 1000;
    for (let stream = 1; stream <= 20; stream++) {
      while (granted <= 0) granted += (await client.next("credit")).bytes;
      granted -= client.append(stream, records);
    }
    for (let i = 0; i < 20; i++) await client.next("appended");
    assertEquals(client.ending, undefined);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    held = promise;
    for (let stream = 21; stream <= 25; stream++) {
      client.append(stream, records);
    }
    const { code, reason } = await client.end();
    assertEquals(code, 4413);
    assertMatch(reason, /was sent without credit/);
    resolve(undefined);
    await w.stop();
  }),
);

Deno.test(
  "H11 a client over its rate of commands is granted credit later, and loses nothing",
  checked(async () => {
    const w = await world({
      limits: { creditBytes: 10_000, commandsPerSecond: 100 },
    });
    const client = await w.client();
    const records = packRecords(
      ...Array.from({ length: 100 }, (_, i) => proposal(kv.put("k", "v"), i)),
    );
    client.stepMs = 10;
    let granted = 10_000;
    let stream = 0;
    const from = w.env.now();
    while (stream < 20) {
      while (granted <= 0) granted += (await client.next("credit")).bytes;
      granted -= client.append(++stream, records);
    }
    // 2000 commands at 100 a second, less the initial burst.
    const took = w.env.now() - from;
    assert(took > 8_000, `${took} ms`);
    for (let i = 0; i < 20; i++) await client.next("appended");
    await w.stop();
  }),
);

Deno.test(
  "H11 a client over its rate of messages is disconnected; one that stays at the limit is answered",
  checked(async () => {
    const w = await world({ limits: { messagesPerSecond: 100 } });
    const [good, bad] = [await w.client(), await w.client()];
    await w.env.advance(1_000);
    for (let i = 0; i < 5; i++) {
      for (let n = 0; n < 90; n++) good.send({ type: "ping" });
      await w.env.advance(1_000);
    }
    assertEquals(good.ending, undefined);
    assertEquals(
      good.messages.filter(({ type }) => type === "pong").length,
      450,
    );
    for (let n = 0; n < 150; n++) bad.send({ type: "ping" });
    const { code, reason } = await bad.end();
    assertEquals(code, 4429);
    assertMatch(reason, /100 messages a second/);
    assertEquals(good.ending, undefined);
    await w.stop();
  }),
);

Deno.test(
  "U38 a silent connection gets a ping and is then closed; one without a hello is closed, too",
  checked(async () => {
    const w = await world();
    const mute = w.connect();
    await w.env.advance(9_000);
    assertEquals(mute.ending, undefined);
    await w.env.advance(3_000);
    assertEquals((await mute.end()).code, 4408);
    const client = await w.client();
    await w.env.advance(60_000);
    assertEquals(client.ending, undefined);
    // The client neither receives nor sends any more.
    client.server.isStuck = true;
    await w.env.advance(32_000);
    assert(w.log.some(({ code }) => code === 4408));
    assertEquals(w.core.telemetry.counts.connections, 0);
    await w.stop();
  }),
);

Deno.test(
  "U39 a reader that does not read is disconnected, its buffer is bounded until then, and others are not slower",
  checked(async () => {
    const w = await world({ limits: { slowMs: 5_000 } });
    const slow = await w.client();
    const stuck = await w.client();
    const good = await w.client();
    slow.isReading = false;
    for (const client of [slow, stuck, good]) client.read(1, 0);
    for (const client of [slow, stuck, good]) await client.next("reading");
    stuck.server.isStuck = true;
    const big = packRecords(proposal(kv.put("k", new Uint8Array(100_000))));
    for (let i = 1; i <= 200; i++) {
      good.append(i + 1, big);
      await good.next("appended");
      if (good.messages.length > 50) good.messages.length = 0;
    }
    // 20 MB were written: one client has no credit left, the other does not read.
    assert(slow.received < 1.5 * (1 << 20), `${slow.received}`);
    assert(
      stuck.server.bufferedBytes < 6 * (1 << 20),
      `${stuck.server.bufferedBytes}`,
    );
    assertEquals(good.ending, undefined);
    await w.env.advance(10_000);
    const { code, reason } = await slow.end();
    assertEquals(code, 4503);
    assertMatch(reason, /has read nothing/);
    assertEquals(w.log.filter(({ code }) => code === 4503).length, 2);
    assertEquals(good.ending, undefined);
    // It reconnects and continues at its position.
    const again = await w.client();
    again.read(1, 11);
    await again.entriesUpTo(201, 11);
    await w.stop();
  }),
);

Deno.test(
  "H11 a client that sends requests and reads no answers is disconnected before they fill the buffer",
  checked(async () => {
    const w = await world({ limits: { commandsPerSecond: 10_000_000 } });
    const client = await w.client();
    client.server.isStuck = true;
    // Refusals with different reasons are larger than their requests.
    const refused = packRecords(
      ...Array.from({ length: 1024 }, (_, i) => unregisterRecord(98 + i % 2)),
    );
    let most = 0;
    for (let i = 1; i < 1000 && w.core.telemetry.counts.connections > 0; i++) {
      client.append(i, refused);
      await w.env.advance(25);
      most = Math.max(most, client.server.bufferedBytes);
    }
    assertEquals(w.log.at(-1)!.code, 4503);
    assert(most < 9 * (1 << 20), `${most}`);
    await w.stop();
  }),
);

Deno.test(
  "U40 stop() completes appends in progress, rejects new ones, and closes every connection; it is idempotent",
  checked(async () => {
    const held = Promise.withResolvers<void>();
    const w = await world({
      validate: () => held.promise.then(() => undefined),
    });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await w.env.advance(20);
    const stopped = w.core.stop();
    client.append(2, packRecords(proposal(kv.put("c", "d"))));
    const failed = await client.next("failed");
    assertEquals([failed.stream, failed.unknown], [2, false]);
    const late = w.connect();
    assertEquals((await late.end()).code, 1001);
    client.send({ type: "open", channel: 2, clusterID: 1n, nodeID: 9n });
    assertEquals((await client.next("refused")).code, 1001);
    assertEquals(client.ending, undefined);
    held.resolve();
    assertEquals((await client.next("appended")).stream, 1);
    assertEquals((await client.end()).code, 1001);
    await w.env.until(stopped);
    await w.core.stop();
    assertEquals(await w.replica.read(kv.count()), 1);
    await w.stop();
  }),
);

Deno.test(
  "U40 stop() waits a bounded time for an append that is never decided",
  checked(async () => {
    const w = await world({ validate: () => new Promise(() => {}) });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await w.env.advance(20);
    await w.env.until(w.core.stop(), 1_000);
    assertEquals((await client.end()).code, 1001);
    assert(w.log.some(({ event }) => event === "drain failed"));
    await w.stop();
  }),
);

/** Types of the messages received and not taken. */
function typesTo(client: RawClient): string[] {
  return client.messages.map(({ type }) => type);
}

/** Command that consists of text. */
const word = (what: string): Uint8Array => new TextEncoder().encode(what);

for (
  const [how, fail] of [
    ["throws", (): never => {
      throw new RangeError("SQL database is down");
    }],
    ["rejects", () => Promise.reject(new TypeError("SQL database is down"))],
    ["never answers", () => never<undefined>()],
    ["answers nonsense", () => false as unknown as undefined],
  ] as const
) {
  Deno.test(
    `U17 validate() that ${how} queues that client's commands from that one on, and no other client's, until it answers`,
    checked(async () => {
      let isBroken = true;
      const w = await world({
        ...byToken,
        limits: { hookMs: 2_000 },
        config: { nodeID: 1n },
        validate: (_, cmd) =>
          isBroken && text(cmd) === "bad" ? fail() : undefined,
      });
      const client = await w.client("ann");
      const other = await w.client("bob");
      other.read(9, 0);
      client.append(
        1,
        packRecords(
          ...["a", "b", "bad", "c"].map((name, i) => proposal(word(name), i)),
        ),
      );
      client.append(2, packRecords(proposal(word("d"), 4)));
      client.stepMs = 10;
      const { channel, reason } = await client.next("held");
      assertEquals(channel, 1);
      assertMatch(reason, /queued and validated again/);
      other.append(1, packRecords(proposal(word("x"), 1, 8)));
      await other.next("appended");
      client.stepMs = 500;
      await w.env.advance(60_000);
      const commandsOf = (records: readonly Uint8Array[]): string[] =>
        records.flatMap((record) => {
          const cursor = new RecordCursor();
          cursor.read(record, 0, record.length);
          const isCommand = cursor.kind === RecordKind.Proposal;
          return isCommand ? [text(record.subarray(cursor.start))] : [];
        });
      const before = await other.entriesUpTo(w.replica.appliedIndex);
      assertEquals(commandsOf(before).sort().join(" "), "a b x");
      assertEquals(typesTo(client), [], "It was told more than once");
      const { hookFailures, refused } = w.core.telemetry.counts;
      // Retried with backoff.
      assert(hookFailures > 3 && hookFailures < 30, `${hookFailures} times`);
      assertEquals(refused, 0);
      const failures = w.log.filter(({ event }) => event === "validate failed");
      assertEquals(failures.length, hookFailures);
      assertInstanceOf(failures[0]!.error, ErrHookFailed);
      assertEquals(failures[0]!.principal, "ann");

      isBroken = false;
      assertEquals((await client.next("held")).reason, "");
      assertEquals((await client.next("appended", 1)).refused, []);
      await client.next("appended", 2);
      const after = await other.entriesUpTo(
        w.replica.appliedIndex,
        w.replica.appliedIndex - 3,
      );
      assertEquals(commandsOf(after), ["bad", "c", "d"]);
      assertEquals(w.core.telemetry.counts.appended, 6);
      await w.stop();
    }),
  );
}

Deno.test(
  "U17 authorize() that throws delays a client's writes, and a cluster can be opened later",
  checked(async () => {
    const broken = new Set<string>(["read"]);
    const w = await world({
      authorize: (_who, _cluster, action) => {
        if (broken.has(action)) throw new TypeError("SQL database is down");
        return true;
      },
    });
    const client = w.connect();
    await client.hello();
    client.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 100n });
    assertEquals((await client.next("refused")).code, 1001);
    broken.delete("read");
    await client.open();
    broken.add("write");
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await client.next("held");
    assertEquals(w.core.telemetry.counts.hookFailures, 2);
    assertEquals(
      w.log.filter(({ event }) => event === "authorize failed").length,
      2,
    );
    broken.delete("write");
    client.stepMs = 50;
    assertEquals((await client.next("appended")).refused, []);
    assertEquals(await w.replica.read(kv.count()), 1);
    await w.stop();
  }),
);

Deno.test(
  "U17 a blocked append is not appended once its channel is closed, its connection ends or the server stops, and its client is notified if possible",
  checked(async () => {
    const w = await world({
      validate: (_, cmd) => {
        if (text(cmd) === "bad") throw new TypeError("SQL database is down");
        return undefined;
      },
    });
    const bad = packRecords(proposal(word("bad")), proposal(word("c"), 2));
    const good = packRecords(proposal(word("d"), 3));
    const both = packRecords(proposal(word("a")), proposal(word("bad"), 2));
    const gone = await w.client();
    gone.append(1, bad);
    await gone.next("held");
    gone.transport.close(1000, "");
    const [closes, stays] = [await w.client(), await w.client()];
    for (const client of [closes, stays]) {
      client.append(1, client === closes ? bad : both);
      client.append(2, good);
      await client.next("held");
    }
    const last = w.replica.appliedIndex;
    closes.send({ type: "close", channel: 1 });
    for (const stream of [1, 2]) {
      assertEquals((await closes.next("failed", stream)).unknown, false);
    }
    const stopped = w.core.stop();
    // A part of the first append is in the log.
    assertEquals((await stays.next("failed", 1)).unknown, true);
    assertEquals((await stays.next("failed", 2)).unknown, false);
    assertEquals((await stays.end()).code, 1001);
    await w.env.until(stopped);
    assert(!w.log.some(({ event }) => event === "drain failed"));
    await w.env.advance(60_000);
    assertEquals(w.replica.appliedIndex, last);
    await w.stop();
  }),
);

Deno.test(
  "H12 checkpoints of the server's replica are sent to each client; one of a client that differs is counted and has no other effect",
  checked(async () => {
    const w = await world({ config: { hashEntries: 10 } });
    const client = await w.client();
    const puts = Array.from(
      { length: 20 },
      (_, i) => proposal(kv.put(`k${i}`, "v"), i),
    );
    client.append(1, packRecords(...puts));
    const first = await client.next("checkpoint");
    assertEquals([first.nodeID, first.index], [1n, 10]);
    const second = await client.next("checkpoint");
    assertEquals(second.index, 20);
    // A later client gets the checkpoints that are still kept.
    const late = await w.client();
    assertEquals((await late.next("checkpoint")).index, 10);
    client.send({ ...first, nodeID: 100n });
    await w.env.advance(20);
    assertEquals(w.core.telemetry.counts.diverged, 0);
    client.send({ ...second, nodeID: 100n, state: 42n });
    // A client may report its own replica only.
    client.send({ ...second, nodeID: 1n, state: 42n });
    await w.env.advance(20);
    assertEquals(w.core.telemetry.counts.diverged, 1);
    assertEquals(w.replica.error, undefined);
    assertEquals(await w.replica.read(kv.count()), 20);
    await w.stop();
  }),
);

Deno.test(
  "H12 explain returns the hashes of the server's replica after each entry, or fails",
  checked(async () => {
    const w = await world({ config: { hashEntries: 5 } });
    const client = await w.client();
    const puts = Array.from(
      { length: 20 },
      (_, i) => proposal(kv.put(`k${i}`, "v"), i),
    );
    client.append(1, packRecords(...puts));
    const checkpoint = await client.next("checkpoint");
    assertEquals(checkpoint.index, 5);
    const explain = (stream: number, after: number, upTo: number): void =>
      client.send({ type: "explain", channel: 1, stream, after, upTo });
    explain(2, 0, 10);
    explain(3, 0, 10);
    // One replay at a time.
    assertEquals((await client.next("failed")).stream, 3);
    const hashes = await client.next("hashes");
    const at = hashes.indexes.indexOf(5);
    assertEquals(hashes.indexes.length, 10);
    assertEquals(hashes.states[at], checkpoint.state);
    assertEquals(hashes.sessions[at], checkpoint.sessions);
    explain(4, 0, 22);
    assertEquals((await client.next("failed")).stream, 4);
    await w.stop();
  }),
);

Deno.test(
  "H12 a client that diverged gets a snapshot that covers the divergence, even if an older stored one is recent enough, and each later divergence is reported",
  checked(async () => {
    const w = await world({
      host: { snapshots: new MemorySnapshotStore() },
      config: { hashEntries: 10 },
    });
    const put = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await w.env.until(w.replica.propose(kv.put(`k${i}`, "v")), 1);
      }
    };
    await put(12);
    const kept = await w.env.until(w.replica.requestSnapshot(), 1);
    await put(20);
    const client = await w.client();
    const fetched = async (stream: number): Promise<number> => {
      client.send({ type: "fetch", channel: 1, stream });
      const { index } = await client.next("snapshot", stream);
      await client.next("end", stream);
      return index;
    };
    assertEquals(await fetched(1), kept.index);
    let right = await client.next("checkpoint");
    while (right.index < 30) right = await client.next("checkpoint");
    client.send({ ...right, nodeID: 100n, state: 42n });
    assert(await fetched(2) >= 30);
    await put(10);
    const next = await client.next("checkpoint");
    client.send({ ...next, nodeID: 100n, state: 42n });
    assert(await fetched(3) >= next.index);
    assertEquals(w.core.telemetry.counts.diverged, 2);
    await w.stop();
  }),
);

Deno.test(
  "H12 a client is sent a snapshot of the server's own replica, not an imported one",
  checked(async () => {
    const w = await world({ host: { snapshots: new MemorySnapshotStore() } });
    const old = new NodeHost({ env: w.env });
    const config = { clusterID: 2n, nodeID: 9n };
    const machine = (): KVStateMachine => new KVStateMachine();
    const before = await w.env.until(old.startCluster(machine, config));
    await w.env.until(before.propose(kv.put("a", "b")));
    await w.env.until(w.host.importSnapshot(2n, before.exportSnapshot()), 1);
    await w.env.until(old.stop(), 10);
    const replica = await w.env.until(
      w.host.startCluster(machine, { ...config, nodeID: 1n }),
    );
    await w.env.until(replica.propose(kv.put("c", "d")));
    const client = await w.client();
    await client.open(2, 2n);
    client.send({ type: "fetch", channel: 2, stream: 1 });
    assertEquals((await client.next("snapshot")).nodeID, 1n);
    await client.next("end");
    await w.stop();
  }),
);

Deno.test(
  "H9 an upload that stalls releases its cluster and its slot",
  checked(async () => {
    const w = await world({
      authorize: () => true,
      limits: { slowMs: 5_000 },
    });
    let isCancelled = false;
    const silent = new Request("http://sync.test/clusters/2/snapshot", {
      method: "PUT",
      body: new ReadableStream({
        start: (controller): void => controller.enqueue(new Uint8Array(3)),
        cancel: (): void => {
          isCancelled = true;
        },
      }),
    });
    const response = handle(w.core, silent, ORIGINS)!;
    await w.env.advance(1_000);
    assertEquals(w.core.quotas.transfers, 1);
    assertEquals((await w.env.until(response, 500)).status, 408);
    assertMatch(await (await response).text(), /too slowly/);
    assert(isCancelled);
    assertEquals(w.core.quotas.transfers, 0);
    await w.env.until(
      w.host.startCluster(() => new KVStateMachine(), {
        clusterID: 2n,
        nodeID: 1n,
      }),
    );
    await w.stop();
  }),
);

Deno.test(
  "H8 a damaged stored snapshot ends its transfer, and the next transfer gets another snapshot",
  checked(async () => {
    const snapshots = new MemorySnapshotStore();
    const open = snapshots.open.bind(snapshots);
    const w = await world({ host: { snapshots } });
    const client = await w.client();
    client.append(
      1,
      packRecords(...[1, 2, 3].map((i) => proposal(kv.put(`${i}`, "v"), i))),
    );
    await client.next("appended");
    await w.env.until(w.replica.requestSnapshot(), 1);
    client.append(2, packRecords(proposal(kv.put("4", "v"), 4)));
    await client.next("appended");
    snapshots.open = (info): ReadableStream<Uint8Array> => {
      const content = open(info) as ReadableStream<Uint8Array>;
      if (info.index > 4) return content;
      let at = 0;
      return content.pipeThrough(
        new TransformStream({
          transform(chunk, controller): void {
            const bytes = chunk.slice();
            const wrong = info.size - 3 - at;
            if (wrong >= 0 && wrong < bytes.length) bytes[wrong]! ^= 1;
            at += bytes.length;
            controller.enqueue(bytes);
          },
        }),
      );
    };
    client.send({ type: "fetch", channel: 1, stream: 3 });
    assertEquals((await client.next("snapshot")).index, 4);
    // The damaged block is not sent.
    assertEquals((await client.next("end")).reason, "failed");
    client.send({ type: "fetch", channel: 1, stream: 4 });
    assertEquals((await client.next("snapshot")).index, 5);
    assertEquals((await client.next("end")).reason, "done");
    assertEquals(w.core.quotas.transfers, 0);
    await w.stop();
  }),
);

Deno.test(
  "H11 one principal cannot use all transfer slots, and a stalled transfer releases its slot",
  checked(async () => {
    const w = await world({
      ...byToken,
      limits: { slowMs: 5_000, transfers: 4, principalTransfers: 2 },
    });
    const value = new Uint8Array(500_000);
    for (let i = 0; i < 8; i++) {
      await w.env.until(w.replica.propose(kv.put(`k${i}`, value)), 10);
    }
    const fetched = async (token: string): Promise<string> => {
      const client = await w.client(token);
      client.isReading = false;
      client.send({ type: "fetch", channel: 1, stream: 1 });
      const isOver = (): boolean =>
        typesTo(client).some((type) => type === "snapshot" || type === "end");
      await client.until("an answer", isOver);
      return typesTo(client).find((type) => type !== "checkpoint")!;
    };
    const get = (token: string): Promise<Response> =>
      w.env.until(
        handle(
          w.core,
          new Request("http://sync.test/clusters/1/snapshot", {
            headers: { authorization: `Bearer ${token}` },
          }),
          ORIGINS,
        )!,
        1,
      );
    assertEquals(await fetched("evil"), "snapshot");
    assertEquals(await fetched("evil"), "snapshot");
    assertEquals(await fetched("evil"), "end");
    assertEquals((await get("evil")).status, 503);
    assertEquals(await fetched("victim"), "snapshot");
    assertEquals(await fetched("other"), "snapshot");
    assertEquals(await fetched("late"), "end");
    await w.env.advance(12_000);
    assertEquals(w.log.filter(({ code }) => code === 4503).length, 4);
    assertEquals(w.core.quotas.transfers, 0);
    assertEquals(await fetched("evil"), "snapshot");
    await w.stop();
  }),
);

Deno.test(
  "H7 a download that is not read is aborted, so that the log can be compacted",
  checked(async () => {
    const w = await world({ limits: { slowMs: 5_000, transfers: 1 } });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await client.next("appended");
    const get = (): Promise<Response> =>
      w.env.until(
        handle(
          w.core,
          new Request("http://sync.test/clusters/1/snapshot"),
          ORIGINS,
        )!,
        1,
      );
    const response = await get();
    assertEquals(response.status, 200);
    const busy = await get();
    assertEquals(busy.status, 503);
    assertMatch(await busy.text(), /Too many snapshots/);
    await w.env.advance(6_000);
    const error = await rejection(response.arrayBuffer());
    assertMatch((error as Error).message, /too slowly/);
    assertEquals(w.core.quotas.transfers, 0);
    const again = await get();
    assertEquals((await again.arrayBuffer()).byteLength > 100, true);
    assertEquals(w.core.quotas.transfers, 0);
    await w.stop();
  }),
);

Deno.test(
  "H14 a principal whose id is too long for a record owns its sessions by a hash of it",
  checked(async () => {
    const w = await world(byToken);
    const long = "x".repeat(300);
    const ann = await w.client(long);
    const bob = await w.client(`${long}y`);
    ann.append(1, packRecords(registerRecord(5n, new Uint8Array())));
    const session = (await ann.next("appended")).first;
    const record = packRecords(sessionProposal(session, 1, kv.put("a", "b")));
    bob.append(1, record);
    assertEquals((await bob.next("appended")).refused, [0]);
    ann.append(2, record);
    assertEquals((await ann.next("appended")).refused, []);
    const { owner } = w.replica.sessionInfo(session)!;
    assertEquals([owner.length, owner[0]], [33, 0xff]);
    await w.stop();
  }),
);

Deno.test(
  "U39 a cluster whose replica fails is refused from then on, and other channels of the connection continue",
  checked(async () => {
    const w = await world();
    class Fragile extends KVStateMachine {
      override update(cmd: Uint8Array): Result {
        if (text(cmd).includes("poison")) throw new Error("Ouch");
        return super.update(cmd);
      }
    }
    const fragile = await w.host.startCluster(() => new Fragile(), {
      clusterID: 2n,
      nodeID: 1n,
    });
    const client = await w.client();
    await client.open(2, 2n);
    client.append(1, packRecords(proposal(kv.put("poison", "v"))), 2);
    const refused = await client.next("refused");
    assertEquals([refused.channel, refused.code], [2, 4500]);
    assert(fragile.error !== undefined);
    client.send({ type: "open", channel: 3, clusterID: 2n, nodeID: 9n });
    assertMatch((await client.next("refused")).reason, /has failed/);
    client.append(2, packRecords(proposal(kv.put("a", "v"))));
    await client.next("appended", 2);
    assertEquals(await w.replica.read(kv.count()), 1);
    await w.stop();
  }),
);

Deno.test(
  "U34 a principal that is revoked during its handshake is rejected, and uses no quota",
  checked(async () => {
    let isOver = true;
    const w = await world({
      authenticate: () => {
        const ends = new AbortController();
        return {
          signal: ends.signal,
          get id(): string {
            if (isOver) ends.abort();
            return "ann";
          },
        };
      },
      limits: { principalConnections: 1 },
    });
    const client = w.connect();
    client.hello().catch(() => {});
    assertEquals((await client.end()).code, 4401);
    assert(!w.log.some(({ event }) => event === "connected"));
    isOver = false;
    await w.client("ann");
    await w.stop();
  }),
);

Deno.test(
  "U34 an append that awaits validation when its principal is revoked is not appended",
  checked(async () => {
    const ends = new AbortController();
    const held = Promise.withResolvers<undefined>();
    const w = await world({
      authenticate: () => ({ id: "ann", signal: ends.signal }),
      validate: () => held.promise,
    });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    client.append(2, packRecords(proposal(kv.put("c", "d"), 2)));
    await w.env.advance(100);
    ends.abort();
    assertEquals((await client.end()).code, 4401);
    held.resolve(undefined);
    await w.env.advance(100);
    assertEquals(await w.replica.read(kv.count()), 0);
    await w.stop();
  }),
);

Deno.test(
  "H11 a channel that is closed and reopened while it is being opened leaks nothing",
  checked(async () => {
    const held = Promise.withResolvers<boolean>();
    const w = await world({ authorize: () => held.promise });
    const client = w.connect();
    await client.hello();
    for (let i = 0; i < 5; i++) {
      const open = { channel: 1, clusterID: 1n, nodeID: 9n };
      client.send({ type: "open", ...open });
      client.send({ type: "close", channel: 1 });
    }
    client.send({ type: "open", channel: 1, clusterID: 1n, nodeID: 9n });
    await w.env.advance(100);
    held.resolve(true);
    await client.next("opened");
    await w.env.advance(100);
    const cluster = await w.core.clusters.get(1n);
    assertEquals(cluster!.users.size, 1);
    assertEquals(
      client.messages.filter(({ type }) => type === "opened").length,
      0,
    );
    await w.stop();
  }),
);

Deno.test(
  "H7 a snapshot that is opened after its channel was closed does not retain the log",
  checked(async () => {
    const w = await world();
    const stays = await w.client();
    const goes = await w.client();
    const puts = [1, 2, 3].map((i) => proposal(kv.put(`k${i}`, "v"), i));
    stays.append(1, packRecords(...puts));
    await stays.next("appended");
    goes.send({ type: "fetch", channel: 1, stream: 1 });
    goes.send({ type: "close", channel: 1 });
    await goes.until("taken in", () => w.core.quotas.transfers > 0);
    await goes.until("over", () => w.core.quotas.transfers === 0);
    stays.append(2, packRecords(proposal(kv.put("more", "v"), 4)));
    await stays.next("appended");
    const cutter = await w.host.logDB.open(1n, 77n);
    await cutter.compact!(5);
    assertInstanceOf(
      await rejection((async () => await cutter.read(4))()),
      ErrCompacted,
    );
    await cutter.close();
    await w.stop();
  }),
);

Deno.test(
  "H11 snapshots that are requested and stopped at once count as transfers until they are closed",
  checked(async () => {
    const w = await world({ limits: { connectionTransfers: 2 } });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    await client.next("appended");
    for (let stream = 2; stream < 12; stream++) {
      client.send({ type: "fetch", channel: 1, stream });
      client.send({ type: "stop", stream });
    }
    let most = 0;
    let exports = 0;
    const { replica } = w;
    const original = replica.exportSnapshot.bind(replica);
    replica.exportSnapshot = () => {
      exports++;
      return original();
    };
    for (let i = 0; i < 100; i++) {
      await w.env.advance(1);
      most = Math.max(most, w.core.quotas.transfers);
    }
    assert(most <= 2, `${most} at one time`);
    assert(exports < 10, `${exports} were begun`);
    assertEquals(w.core.quotas.transfers, 0);
    await w.stop();
  }),
);

Deno.test(
  "H7 a log stream that ends as it starts, as its client reads nothing, does not retain the log",
  checked(async () => {
    const w = await world();
    const stays = await w.client();
    const goes = await w.client();
    stays.append(1, packRecords(proposal(kv.put("a", "v"))));
    await stays.next("appended");
    goes.read(1, 0);
    goes.server.bufferedBytes = 1 << 30;
    await w.env.advance(100);
    assertEquals((await goes.end()).code, 4503);
    assertEquals((await w.core.clusters.get(1n))!.followers.size, 0);
    const cutter = await w.host.logDB.open(1n, 77n);
    await cutter.compact!(2);
    assertInstanceOf(
      await rejection((async () => await cutter.read(0))()),
      ErrCompacted,
    );
    await cutter.close();
    await w.stop();
  }),
);

Deno.test(
  "H14 an append that its reasons make larger than a batch is split, and appended",
  checked(async () => {
    const reason = "no".repeat(256);
    const w = await world({
      validate: (_who, cmd) => cmd.length < 1000 ? reason : undefined,
    });
    const client = await w.client();
    client.append(1, packRecords(registerRecord(5n, new Uint8Array())));
    const session = (await client.next("appended")).first;
    const large = kv.put("large", new Uint8Array(COMMAND_BYTES_MAX - 100));
    const small = kv.put("k", "v");
    const records = [
      sessionProposal(session, 1, large),
      ...Array.from(
        { length: 500 },
        (_, i) => sessionProposal(session, 2 + i, small),
      ),
    ];
    client.append(2, packRecords(...records));
    const { first, refused } = await client.next("appended");
    assertEquals([first, refused], [session + 1, []]);
    assertEquals(w.replica.sessionInfo(session)!.next, 502);
    await w.stop();
  }),
);

Deno.test(
  "H1 a proposal with the origin of the server's own replica is refused",
  checked(async () => {
    const w = await world();
    await w.env.until(w.replica.propose(kv.put("a", "b")), 10);
    const client = await w.client();
    client.read(1, 0);
    const [, record] = await client.entriesUpTo(2);
    const cursor = new RecordCursor();
    cursor.read(record!, 0, record!.length);
    const forged = new Uint8Array(record!.length);
    const start = putProposalHead(
      forged,
      0,
      cursor.originLow,
      cursor.originHigh,
      cursor.series + 1,
    );
    forged.set(kv.put("a", "c"), start);
    client.append(2, packRecords(forged));
    assertEquals((await client.next("appended")).refused, [0]);
    await w.stop();
  }),
);

Deno.test(
  "U38 a server that was suspended pings its clients before it closes silent connections",
  checked(async () => {
    const w = await world();
    const client = await w.client();
    w.env.jump(300_000);
    await w.env.advance(5_000);
    assertEquals(client.ending, undefined);
    await w.stop();
  }),
);

Deno.test(
  "H11 a principal that may only read cannot fill the log with records without effect",
  checked(async () => {
    const w = await world({
      ...byToken,
      authorize: (_who, _cluster, action) => action === "read",
    });
    await w.env.until(w.replica.propose(kv.put("a", "b")), 10);
    const client = await w.client("ann");
    client.append(
      1,
      packRecords(
        sessionProposal(1, 1, undefined),
        sessionProposal(1, 1, kv.put("a", "b")),
        unregisterRecord(1),
        claimRecord(1, 1n, 2n),
      ),
    );
    assertEquals((await client.next("appended")).refused, [0, 1, 2, 3]);
    await w.stop();
  }),
);

Deno.test(
  "H14 an empty principal id is rejected, as it would own the sessions of the server",
  checked(async () => {
    const w = await world({ authenticate: () => ({ id: "" }) });
    const client = w.connect();
    client.hello().catch(() => {});
    assertEquals((await client.end()).code, 1001);
    await w.stop();
  }),
);

Deno.test(
  "U17 a command that is refused without a reason is reported as refused",
  checked(async () => {
    const w = await world({ validate: () => "" });
    const client = await w.client();
    client.append(1, packRecords(registerRecord(5n, new Uint8Array())));
    const session = (await client.next("appended")).first;
    client.append(2, packRecords(sessionProposal(session, 1, kv.put("a", ""))));
    await client.next("appended");
    client.read(3, session);
    const [record] = await client.entriesUpTo(session + 1, session);
    const cursor = new RecordCursor();
    cursor.read(record!, 0, record!.length);
    assert(cursor.reason().length > 0);
    await w.stop();
  }),
);

Deno.test(
  "H1 origins that one client makes up do not evict those of others, also while these are disconnected",
  checked(async () => {
    const w = await world(byToken);
    const ann = await w.client("ann");
    ann.append(1, packRecords(proposal(kv.put("a", "b"), 1, 42)));
    await ann.next("appended");
    ann.transport.close(1000, "");
    // No client is connected for a while.
    await w.env.advance(10_000);
    const bob = await w.client("bob");
    const forge = async (stream: number): Promise<void> => {
      bob.append(stream, packRecords(proposal(kv.put("a", "c"), 2, 42)));
      assertEquals((await bob.next("appended")).refused, [0]);
    };
    await forge(1);
    for (let i = 0; i < SYNC_ORIGINS_MAX / 1024; i++) {
      const made = Array.from(
        { length: 1024 },
        (_, j) => proposal(new Uint8Array(), 1, 1000 + i * 1024 + j),
      );
      bob.append(2 + i, packRecords(...made));
      await bob.next("appended");
    }
    await forge(1000);
    await w.stop();
  }),
);

Deno.test(
  "case A1: thousands of anonymous clients, each with a session and an origin, are refused nothing, and lose no session while the cluster has room [H4]",
  checked(async () => {
    const visitors = 5_000;
    const w = await world({ config: { sessionsMax: 2 * visitors } });
    const client = await w.client();
    const all = Array.from({ length: visitors }, (_, i) => i);
    let stream = 0;
    const appendAll = async (
      make: (visitor: number) => Uint8Array,
    ): Promise<number[]> => {
      const indexes: number[] = [];
      for (let i = 0; i < visitors; i += 1_000) {
        client.append(
          ++stream,
          packRecords(...all.slice(i, i + 1_000).map(make)),
        );
        const { first, refused } = await client.next("appended");
        assertEquals(refused, []);
        indexes.push(...all.slice(0, 1_000).map((at) => first + at));
      }
      return indexes;
    };
    const sessions = await appendAll((i) =>
      registerRecord(BigInt(i + 1), new Uint8Array())
    );
    // The second time, the first origins were evicted.
    for (const round of [1, 2]) {
      await appendAll((i) => proposal(kv.put("a", "b"), round, 100 + i));
      await appendAll((i) =>
        sessionProposal(sessions[i]!, round, kv.put("a", "b"))
      );
    }
    await w.env.advance(1_000);
    const kept = sessions.filter((session) =>
      w.replica.sessionInfo(session)?.next === 3
    );
    assertEquals(kept.length, visitors);
    await w.stop();
  }),
);

Deno.test(
  "H9 a snapshot that takes long to export is downloaded",
  checked(async () => {
    const w = await world();
    class Slow extends ConcurrentKVStateMachine {
      override async saveSnapshot(
        ...args: Parameters<ConcurrentKVStateMachine["saveSnapshot"]>
      ): Promise<void> {
        await super.saveSnapshot(...args);
        await sleep(w.env, 100_000, new AbortController().signal);
      }
    }
    const slow = await w.host.startConcurrentCluster(() => new Slow(), {
      clusterID: 2n,
      nodeID: 1n,
    });
    // More than a block, so that the first block arrives at once.
    const noise = crypto.getRandomValues(new Uint8Array(65_536));
    for (const key of ["a", "b", "c", "d"]) {
      await w.env.until(slow.propose(kv.put(key, noise)), 10);
    }
    const request = new Request("http://sync.test/clusters/2/snapshot");
    const response = await w.env.until(
      handle(w.core, request, ORIGINS)!,
      1_000,
    );
    assertEquals(response.status, 200);
    const bytes = await w.env.until(response.bytes(), 1_000);
    assert(bytes.length > 0);
    await w.stop();
  }),
);

Deno.test(
  "U26 the buffers of readers that do not read are bounded in total, however many there are",
  checked(async () => {
    const clients = 100;
    const w = await world({ limits: { principalConnections: clients } });
    const large = new Uint8Array(1 << 20).subarray(100);
    for (let i = 0; i < 8; i++) {
      await w.env.until(w.replica.propose(kv.put(`${i}`, large)), 10);
    }
    const stuck = [];
    for (let i = 0; i < clients; i++) {
      const client = await w.client();
      client.send({ type: "credit", bytes: 1 << 30 });
      client.read(1, 0);
      await client.next("reading");
      client.server.isStuck = true;
      stuck.push(client.server);
    }
    await w.env.until(w.replica.propose(kv.put("last", large)), 10);
    await w.env.advance(1_000);
    let sum = 0;
    for (const { bufferedBytes } of stuck) sum += bufferedBytes;
    // Each may exceed its share by a frame.
    const max = SYNC_BUFFERED_TOTAL_BYTES_MAX + clients * SYNC_FRAME_BYTES_MAX;
    assert(sum > 0 && sum <= max, `${sum} bytes`);
    for (const end of stuck) end.isStuck = false;
    await w.stop();
  }),
);

Deno.test(
  "U26 the credit of all clients together is bounded, however many there are",
  checked(async () => {
    const w = await world();
    const credits: number[] = [];
    for (let i = 0; i < 40; i++) {
      credits.push((await w.connect().hello()).credit);
    }
    assertEquals(credits[0], SYNC_CREDIT_BYTES);
    for (const [i, credit] of credits.entries()) {
      assert(credit * (i + 1) <= SYNC_CREDIT_TOTAL_BYTES, `${credit} for ${i}`);
    }
    await w.stop();
  }),
);

Deno.test("H14 a server on a loopback address rejects other host names, however its own address is written", () => {
  const inIPv4 = ["127.0.0.1", "127.1", "localhost", "LOCALHOST"];
  for (
    const hostname of [...inIPv4, "::1", "0:0:0:0:0:0:0:1"]
  ) {
    const pages = new OriginPolicy(undefined, hostname);
    for (const host of ["evil.example", "localhost"]) {
      const origin = `http://${host}`;
      const request = new Request(origin, { headers: { host, origin } });
      assertEquals(pages.allow(request), host === "localhost", hostname);
    }
  }
  const request = new Request("http://a.example", {
    headers: { host: "a.example", origin: "http://a.example" },
  });
  assert(new OriginPolicy(undefined, "0.0.0.0").allow(request));
});
