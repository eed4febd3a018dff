import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrUnknownOutcome,
} from "../../mod.ts";
import { ErrRecordsRefused, packRecords } from "../../src/ports/mod.ts";
import { epochRecord } from "../../src/log/records.ts";
import { SYNC_CREDIT_BYTES, SYNC_FRAME_BYTES_MIN } from "../../src/limits.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrProtocol,
  ErrUnauthenticated,
  ErrVersion,
} from "../../src/sync/errors.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import {
  RemoteLogDB,
  type RemoteLogOptions,
  type RemoteStatus,
} from "../../src/sync/client/mod.ts";
import { bytes } from "../support/bytes.ts";
import { checked, peek, rejection, settle } from "../support/environment.ts";
import {
  closeAndCheck,
  CloseCode,
  entries,
  reading,
  Script,
  textOf,
  world,
} from "./client_support.ts";

const one = packRecords(bytes("a"));

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

// ------------------------------------------------------------- the connection

test("H2 offline nothing fails: a log opens, reads and appends wait", async () => {
  const w = world();
  w.script.isDown = true;
  const log = await w.db.open(1n, 1n);
  const reader = await log.read(5);
  assertEquals(reader.lastAtStart, 5);
  const next = Promise.resolve(reader.next());
  const appended = Promise.resolve(log.append(one));
  const index = Promise.resolve(log.readIndex());
  const stopped = new AbortController();
  const aborted = Promise.resolve(log.readIndex({ signal: stopped.signal }));
  stopped.abort(new Error("enough"));
  assertEquals(await rejection(aborted), stopped.signal.reason);
  assertEquals(await log.snapshots!.list(1n), []);
  assertEquals(await log.isEmpty(), false);
  await w.env.advance(100_000);
  for (const waiting of [next, appended, index]) {
    assertEquals(await peek(waiting as Promise<unknown>), "pending");
  }
  w.script.isDown = false;
  w.db.reconnect();
  const peer = await w.script.open({}, 9);
  assertEquals(peer.take("read").after, 5);
  peer.send({ type: "index", stream: peer.take("readIndex").stream, index: 9 });
  assertEquals(await index, 9);
  peer.send({
    type: "appended",
    stream: peer.take("append").stream,
    first: 10,
    refused: [],
    reasons: [],
  });
  assertEquals(await appended, 10);
  next.catch(() => {});
  await closeAndCheck(w);
  assert(await rejection(next) instanceof ErrClusterClosed);
});

test("U38 attempts go to the addresses in turn, with growing backoff", async () => {
  let attempts = 0;
  const urls: string[] = [];
  const script = new Script();
  script.isDown = true;
  const v = world({
    connect: (url) => {
      attempts++;
      urls.push(url);
      return script.connect(url);
    },
  }, ["wss://one", "wss://two"]);
  await v.db.open(1n, 1n);
  await v.env.advance(60_000);
  const inTheFirstMinute = attempts;
  assert(inTheFirstMinute >= 5 && inTheFirstMinute < 40, `${attempts}`);
  const [one, two] = ["wss://one/sync", "wss://two/sync"];
  assertEquals(urls.slice(0, 4), [one, two, one, two]);
  await v.env.advance(600_000);
  assert(attempts - inTheFirstMinute < 60, `${attempts}`);
  await closeAndCheck(v);
});

test("U38 a client leaves a server that does not reach its log for another address at once, stays at the last one for a while, and at one that reaches it again", async () => {
  const urls: string[] = [];
  const script = new Script();
  const w = world({
    connect: (url) => {
      urls.push(url);
      return script.connect(url);
    },
  }, ["wss://one", "wss://two"]);
  await w.db.open(1n, 1n);
  const [one, two] = ["wss://one/sync", "wss://two/sync"];
  const open = await script.open({}, 0);
  open.send({ type: "unable", channel: 1, code: 2, reason: "cut off" });
  await w.env.advance(1_000);
  assertEquals(urls, [one, two]);
  // The other one says so before it opens a channel.
  const asked = await script.welcome({});
  asked.send({ type: "refused", channel: 1, code: 4504, reason: "cut off" });
  await settle();
  assertEquals(w.db.status.reason?.code, "cut-off");
  await w.env.advance(10_000);
  assertEquals(urls, [one, two]);
  for (let i = 0; i < 25 && urls.length < 3; i++) await w.env.advance(1_000);
  assertEquals(urls, [one, two, one]);
  const last = await script.open({}, 0);
  last.send({ type: "unable", channel: 1, code: 2, reason: "cut off" });
  await w.env.advance(4_000);
  assertEquals(urls, [one, two, one, two]);
  const healed = await script.open({}, 0);
  healed.send({ type: "unable", channel: 1, code: 2, reason: "cut off" });
  await w.env.advance(1_000);
  assertEquals(w.db.status.reason?.code, "cut-off");
  healed.send({ type: "unable", channel: 1, code: 0, reason: "" });
  await settle();
  assertEquals(w.db.status.reason, undefined);
  await closeAndCheck(w);
  assertEquals(urls.length, 4);
});

test("U38 a client waits less long for a silent server while another address was not tried", async () => {
  const urls: string[] = [];
  const script = new Script();
  const w = world({
    connect: (url) => {
      urls.push(url);
      return script.connect(url);
    },
  }, ["wss://one", "wss://two"]);
  await w.db.open(1n, 1n);
  await w.env.advance(6_000);
  assertEquals(urls, ["wss://one/sync", "wss://two/sync"]);
  await w.env.advance(10_000);
  assertEquals(urls.length, 2);
  await w.env.advance(10_000);
  assertEquals(urls.length, 3);
  await closeAndCheck(w);
});

test("case A7: a server with a tiny frame limit breaks the protocol, and one without a heartbeat is pinged rarely [H11]", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  for (const frameBytesMax of [0, 8, SYNC_FRAME_BYTES_MIN - 1]) {
    const peer = await w.script.welcome({ frameBytesMax });
    assertEquals(peer.how?.code, 4400);
    w.db.reconnect();
  }
  const peer = await w.script.open({ heartbeatMs: Number.MAX_SAFE_INTEGER });
  await w.env.advance(60_000);
  assertEquals(peer.how, undefined);
  await closeAndCheck(w);
});

test("case A23: a token that cannot be sent is not sent on the open connection either [U34, H21]", async () => {
  const tokens: unknown[] = [
    "good",
    "x".repeat(20_000),
    42,
    "\ud800",
    "better",
  ];
  const w = world({ token: () => tokens.shift() as string });
  await w.db.open(1n, 1n);
  const peer = await w.script.open();
  for (let i = 0; i < 4; i++) {
    peer.send({ type: "renew", withinMs: 1_000 });
    await settle(1);
    assertEquals(peer.has("token"), i === 3);
  }
  assertEquals(peer.take("token").token, "better");
  assertEquals(peer.how, undefined);
  await closeAndCheck(w);
});

test("U38 a hint connects at once, but not again and again", async () => {
  const w = world();
  w.script.isDown = true;
  await w.db.open(1n, 1n);
  await w.env.advance(300_000);
  w.script.isDown = false;
  w.wake();
  await settle();
  assertEquals(w.script.peers.length, 1);
  w.script.peer.cut();
  // As a page that is shown and hidden over and over.
  w.script.isDown = true;
  for (let i = 0; i < 50; i++) {
    w.wake();
    await settle(1);
  }
  w.script.isDown = false;
  assertEquals(w.script.peers.length, 1);
  await w.env.advance(1_000);
  assertEquals(w.script.peers.length, 2);
  await closeAndCheck(w);
});

test("U38 a hint asks a silent connection whether it is there, and soon gives it up", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  const peer = await w.script.open({ heartbeatMs: 1_000_000 });
  await w.env.advance(100_000);
  w.wake();
  await settle(1);
  peer.take("ping");
  peer.send({ type: "pong" });
  await w.env.advance(500_000);
  assertEquals(w.script.peers.length, 1);
  w.wake();
  await w.env.advance(6_000);
  assertEquals(peer.how?.code, CloseCode.Timeout);
  assertEquals(w.script.peers.length, 2);
  await closeAndCheck(w);
});

test("U38 what says nothing for too long is given up", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  const peer = await w.script.open({ heartbeatMs: 10_000 });
  await w.env.advance(10_000);
  peer.take("ping");
  peer.send({ type: "ping" });
  await w.env.advance(1_000);
  peer.take("pong");
  await w.env.advance(25_000);
  assertEquals(peer.how?.code, CloseCode.Timeout);
  await closeAndCheck(w);
});

test("U38 an attempt at a server that does not answer ends after a timeout", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  await w.env.advance(20_000);
  assert(w.script.peers.length >= 2);
  assertEquals(w.script.peers[0]!.how?.code, CloseCode.Timeout);
  await closeAndCheck(w);
});

test("U38 a token function that fails or hangs is called again", async () => {
  let count = 0;
  const w = world({
    token: () => {
      if (++count === 1) throw new Error("ENETUNREACH: no network");
      if (count === 2) {
        return Promise.reject(new Error("ENETUNREACH: no network"));
      }
      return count === 3 ? new Promise(() => {}) : `token ${count}`;
    },
  });
  await w.db.open(1n, 1n);
  await w.env.advance(60_000);
  assertEquals(count >= 4, true);
  await settle();
  assertEquals(w.script.peers[0]!.take("hello").token, "token 4");
  await closeAndCheck(w);
});

// --------------------------------------------------------------- being refused

test("U34 without a good token everything waits, and a new one lets it go on", async () => {
  let token = "old";
  const w = world({ token: () => token });
  w.script.refusal = CloseCode.Unauthenticated;
  const log = await w.db.open(1n, 1n);
  const reader = await log.read(0);
  const next = Promise.resolve(reader.next());
  const appended = Promise.resolve(log.append(one));
  await settle(1);
  assertEquals(w.db.state, "needs-auth");
  assert(w.db.status.error instanceof ErrUnauthenticated);
  await w.env.advance(600_000);
  const attempts = w.script.peers.length;
  assert(attempts > 5 && attempts < 60, `${attempts}`);
  assertEquals(await peek(appended), "pending");
  assertEquals(await peek(next), "pending");
  assertEquals(w.db.state, "needs-auth");
  w.script.refusal = undefined;
  token = "new";
  w.db.reconnect();
  await settle(1);
  const hello = w.script.peer.got[0];
  assertEquals(hello?.type === "hello" && hello.token, "new");
  const peer = await w.script.open();
  const { stream } = peer.take("append");
  peer.send({ type: "appended", stream, first: 3, refused: [], reasons: [] });
  assertEquals(await appended, 3);
  peer.send(entries(peer.take("read").stream, 1, "xyz"));
  assertEquals(textOf((await next).records), "xyz");
  await closeAndCheck(w);
});

test("U34 reconnect() requests a new token, also during an attempt", async () => {
  let token = "old";
  const w = world({ token: () => token });
  await w.db.open(1n, 1n);
  await settle(1);
  const old = w.script.peer;
  assertEquals(old.take("hello").token, "old");
  token = "new";
  w.db.reconnect();
  await settle(1);
  assertEquals(w.script.peers.length, 2);
  assertEquals(w.script.peer.take("hello").token, "new");
  assertEquals(old.how?.code, CloseCode.Normal);
  await closeAndCheck(w);
});

test("U34 calls wait while a token has expired, and settle with the next one", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open();
  peer.cut(CloseCode.Unauthenticated, "Token has expired or was revoked");
  const appended = Promise.resolve(log.append(one));
  await settle();
  assertEquals(w.db.state, "needs-auth");
  assertEquals(w.db.status.error?.message, "Token has expired or was revoked");
  assertEquals(await peek(appended), "pending");
  appended.catch(() => {});
  await closeAndCheck(w);
});

test("U14 versions without overlap are reported in words, and tried again very slowly", async () => {
  const w = world();
  w.script.refusal = CloseCode.Version;
  w.script.words =
    "This server speaks versions 5 to 6, this page 2 to 4: reload the page";
  await w.db.open(1n, 1n);
  await settle(1);
  const { error, state } = w.db.status;
  assert(error instanceof ErrVersion);
  assert(error.message.includes("reload the page"));
  assertEquals(state, "offline");
  await w.env.advance(25_000);
  assertEquals(w.script.peers.length, 1);
  await w.env.advance(65_000);
  assertEquals(w.script.peers.length, 2);
  await closeAndCheck(w);
});

test("U14 a server that answers with another version is disconnected", async () => {
  const w = world();
  await w.db.open(1n, 1n);
  const peer = await w.script.welcome({ version: 9 });
  assertEquals(peer.how?.code, CloseCode.Version);
  assert(w.db.status.error instanceof ErrVersion);
  await closeAndCheck(w);
});

test("H11 every call of a refused client rejects, until it is connected", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const appended = Promise.resolve(log.append(one));
  const reader = await log.read(0);
  const next = Promise.resolve(reader.next());
  appended.catch(() => {});
  next.catch(() => {});
  await settle(1);
  w.script.peer.cut(CloseCode.Forbidden, "You are not welcome");
  assert(await rejection(appended) instanceof ErrForbidden);
  assert(await rejection(next) instanceof ErrForbidden);
  assert(
    await rejection(Promise.resolve(log.append(one))) instanceof ErrForbidden,
  );
  assert(w.db.status.error instanceof ErrForbidden);
  w.db.reconnect();
  await w.script.open();
  const again = Promise.resolve(log.append(one));
  await settle(1);
  const { stream } = w.script.peer.take("append");
  w.script.peer.send({
    type: "appended",
    stream,
    first: 2,
    refused: [],
    reasons: [],
  });
  assertEquals(await again, 2);
  await closeAndCheck(w);
});

test("H11 a log that may not be opened fails, and is opened again later", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const other = await w.db.open(2n, 1n);
  const appended = Promise.resolve(log.append(one));
  appended.catch(() => {});
  const peer = await w.script.welcome();
  const { channel } = peer.take("open");
  const second = peer.take("open");
  peer.send(
    { type: "refused", channel, code: CloseCode.Forbidden, reason: "no" },
    { type: "opened", channel: second.channel, last: 0, trusted: 0n },
  );
  assert(await rejection(appended) instanceof ErrForbidden);
  const { clusters } = w.db.status;
  assert(clusters[0]!.error instanceof ErrForbidden);
  assertEquals(clusters[1]!.error, undefined);
  const reader = await log.read(0);
  assert(
    await rejection((async () => await reader.next())()) instanceof
      ErrForbidden,
  );
  reader.close();
  // The other one works.
  const index = Promise.resolve(other.readIndex());
  await settle(1);
  peer.send({ type: "index", stream: peer.take("readIndex").stream, index: 4 });
  assertEquals(await index, 4);
  assertEquals(peer.has("open"), false);
  await w.env.advance(6_000);
  const again = Promise.resolve(log.append(one));
  await settle(1);
  peer.send({
    type: "opened",
    channel: peer.take("open").channel,
    last: 0,
    trusted: 0n,
  });
  await settle(1);
  const { stream } = peer.take("append");
  peer.send({ type: "appended", stream, first: 2, refused: [], reasons: [] });
  assertEquals(await again, 2);
  await closeAndCheck(w);
});

test("H11 a client waits for a cluster that the server does not serve yet", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const appended = Promise.resolve(log.append(one));
  const peer = await w.script.welcome();
  const { channel } = peer.take("open");
  peer.send({ type: "refused", channel, code: 4404, reason: "not yet" });
  await w.env.advance(1_000);
  assertEquals(await peek(appended), "pending");
  assertEquals(peer.take("open").channel, channel);
  peer.send({ type: "opened", channel, last: 0, trusted: 0n });
  await settle(1);
  const { stream } = peer.take("append");
  peer.send({ type: "appended", stream, first: 2, refused: [], reasons: [] });
  assertEquals(await appended, 2);
  await closeAndCheck(w);
});

// ------------------------------------------------------------------- appending

test("H5 what is in flight on a lost connection is in doubt, and what comes behind it is not sent", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open({ credit: 1 });
  const sent = Promise.resolve(log.append(one));
  const behind = Promise.resolve(log.append(one));
  sent.catch(() => {});
  behind.catch(() => {});
  await settle(1);
  peer.take("append");
  assertEquals(peer.has("append"), false);
  peer.cut();
  assert(await rejection(sent) instanceof ErrUnknownOutcome);
  assert(await rejection(behind) instanceof ErrConnectionLost);
  const later = Promise.resolve(log.append(one));
  await w.env.advance(1_000);
  const again = await w.script.open();
  assertEquals(await peek(later), "pending");
  const { stream } = again.take("append");
  assertEquals(again.has("append"), false);
  again.send({ type: "appended", stream, first: 5, refused: [], reasons: [] });
  assertEquals(await later, 5);
  await closeAndCheck(w);
});

test("H1 appends are sent in their order, as far as credit goes", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const all = [..."abcdefgh"].map((letter) =>
    Promise.resolve(log.append(packRecords(bytes(letter.repeat(100)))))
  );
  const peer = await w.script.open({ credit: 150 });
  const sent: string[] = [];
  let index = 1;
  for (let i = 0; i < 20 && sent.length < 8; i++) {
    const before = sent.length;
    while (peer.has("append")) {
      const { bytes, stream } = peer.take("append");
      sent.push(String.fromCharCode(bytes[0]!));
      peer.send({
        type: "appended",
        stream,
        first: ++index,
        refused: [],
        reasons: [],
      });
    }
    assert(sent.length - before <= 2, "More than was granted");
    peer.send({ type: "credit", bytes: 120 });
    await settle(1);
  }
  assertEquals(sent.join(""), "abcdefgh");
  assertEquals(await Promise.all(all), [2, 3, 4, 5, 6, 7, 8, 9]);
  await closeAndCheck(w);
});

test("U18 refused records are named, and failures are reported", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open();
  const refused = Promise.resolve(
    log.append(packRecords(bytes("a"), bytes("b"))),
  );
  const unknown = Promise.resolve(log.append(one));
  const failed = Promise.resolve(log.append(one));
  for (const promise of [refused, unknown, failed]) promise.catch(() => {});
  await settle(1);
  const streams = [1, 2, 3].map(() => peer.take("append").stream);
  peer.send(
    {
      type: "appended",
      stream: streams[0]!,
      first: 2,
      refused: [0, 1],
      // An empty one is the same as the one before.
      reasons: ["too long", ""],
    },
    { type: "failed", stream: streams[1]!, unknown: true, message: "disk" },
    { type: "failed", stream: streams[2]!, unknown: false, message: "disk" },
  );
  const error = await rejection(refused);
  assert(error instanceof ErrRecordsRefused);
  assertEquals(error.refusals, [
    { at: 0, reason: "too long" },
    { at: 1, reason: "too long" },
  ]);
  assert(await rejection(unknown) instanceof ErrUnknownOutcome);
  assert(!(await rejection(failed) instanceof ErrUnknownOutcome));
  await closeAndCheck(w);
});

// --------------------------------------------------------------------- reading

test("H15 after a lost connection a reader continues at its position, with the last epoch it has seen", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 0);
  let peer = await w.script.open({}, 3);
  const read = peer.take("read");
  assertEquals([read.after, read.epochIndex, read.far], [0, 0, true]);
  peer.send({ type: "reading", stream: read.stream, last: 3 });
  const epoch = epochRecord(99n);
  peer.send({
    ...entries(read.stream, 1, ""),
    lengths: [epoch.length, 1],
    bytes: new Uint8Array([...epoch, 1]),
  }, entries(read.stream, 5, "cd", { follows: 2 }));
  await settle(1);
  assertEquals((await reader.next()).first, 1);
  peer.cut();
  await w.env.advance(1_000);
  peer = await w.script.open({}, 6);
  const again = peer.take("read");
  assertEquals(
    [again.after, again.epochIndex, again.epochID],
    [6, 1, 99n],
  );
  // What was received before the cut is not lost.
  const second = await reader.next();
  assertEquals([second.follows, second.first], [2, 5]);
  const third = Promise.resolve(reader.next());
  peer.send(entries(again.stream, 7, "e"));
  assertEquals((await third).follows, 6);
  await closeAndCheck(w);
});

test("U33 a server that was restored from a backup is noticed", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 10, { epoch: { index: 4, id: 8n } });
  const next = Promise.resolve(reader.next());
  next.catch(() => {});
  const peer = await w.script.open({}, 3);
  const { stream, epochIndex, epochID } = peer.take("read");
  assertEquals([epochIndex, epochID], [4, 8n]);
  peer.send({
    type: "end",
    stream,
    reason: "diverged",
    first: 4,
    message: "Log ends at 3",
  });
  const error = await rejection(next);
  assert(error instanceof ErrDiverged);
  assertEquals(error.upTo, 4);
  await closeAndCheck(w);
});

test("H15 a batch that does not follow is refused, and none of it is returned", async () => {
  for (
    const wrong of [
      entries(1, 3, "x"),
      entries(1, 2, "x", { follows: 0 }),
      { ...entries(1, 2, "xy"), lengths: [1, 2] },
      entries(1, 1, "x", { follows: 1 }),
    ]
  ) {
    const w = world();
    const log = await w.db.open(1n, 1n);
    const reader = await reading(w, log, 0);
    const peer = await w.script.open();
    const { stream } = peer.take("read");
    peer.send(entries(stream, 1, "a"), { ...wrong, stream });
    await settle(1);
    assertEquals(textOf((await reader.next()).records), "a");
    const error = await rejection((async () => await reader.next())());
    assert(error instanceof ErrLogCorrupted, `${error}`);
    assertEquals(peer.take("stop").stream, stream);
    await closeAndCheck(w);
  }
});

test("H7 a read of compacted entries, or of those for which a snapshot is faster, says so; the next read from there gets the entries", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open({}, 100_000);
  for (const reason of ["far", "compacted"] as const) {
    const reader = await reading(w, log, 10);
    const next = Promise.resolve(reader.next());
    next.catch(() => {});
    await settle(1);
    const { stream, far } = peer.take("read");
    assertEquals(far, reason === "far");
    peer.send({ type: "end", stream, reason, first: 11, message: "" });
    const error = await rejection(next);
    assert(error instanceof ErrCompacted);
    assertEquals(error.firstIndex, 11);
    reader.close();
  }
  await reading(w, log, 10);
  await settle(1);
  assertEquals(peer.take("read").far, true);
  await closeAndCheck(w);
});

test("H10 messages for a closed reader do not affect other readers", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const first = await reading(w, log, 0);
  const second = await reading(w, log, 0);
  const peer = await w.script.open();
  const one = peer.take("read").stream;
  const two = peer.take("read").stream;
  first.close();
  await settle(1);
  assertEquals(peer.take("stop").stream, one);
  peer.send(entries(one, 1, "abc"), entries(two, 1, "abc"));
  peer.send({
    type: "end",
    stream: one,
    reason: "done",
    first: 0,
    message: "",
  });
  await settle(1);
  assertEquals(textOf((await second.next()).records), "abc");
  assertEquals(w.db.state, "catching up");
  await closeAndCheck(w);
});

test("U26 unread received data is never more than the credit granted", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 0);
  await settle(1);
  const hello = w.script.peer.got[0];
  let credit = hello?.type === "hello" ? hello.credit : 0;
  assertEquals(credit, SYNC_CREDIT_BYTES);
  const peer = await w.script.open();
  const { stream } = peer.take("read");
  const big = "x".repeat(500);
  let index = 1;
  const send = (): void => {
    while (credit > 0) {
      const message = entries(stream, index, big.repeat(2));
      index += 1000;
      credit -= encodeMessage(message).length;
      peer.send(message);
    }
  };
  send();
  await settle(1);
  assertEquals(peer.has("credit"), false);
  let taken = 0;
  for (let i = 0; i < 4000; i++) {
    if (index <= taken + 1) break;
    taken += (await reader.next()).records.ends.length;
    await Promise.resolve();
    while (peer.has("credit")) credit += peer.take("credit").bytes;
    if (index < 6_000_000) send();
  }
  assert(taken > 3_000_000, `${taken}`);
  assertEquals(peer.how, undefined);
  // A server that sends without credit is disconnected.
  credit = 2 * SYNC_CREDIT_BYTES;
  send();
  await settle(1);
  assertEquals(peer.how?.code, CloseCode.TooBig);
  assertMatch(peer.how!.reason, /was sent without credit/);
  assert(w.db.status.error instanceof ErrProtocol);
  // The next connection is granted what is free.
  w.db.reconnect();
  await settle(1);
  const next = w.script.peer.take("hello");
  assert(next.credit < SYNC_CREDIT_BYTES / 4, `${next.credit}`);
  await closeAndCheck(w);
});

test("U39 a replica that reads nothing does not delay the others", async () => {
  const w = world();
  const stuck = await reading(w, await w.db.open(1n, 1n), 0);
  const other = await reading(w, await w.db.open(2n, 1n), 0);
  const peer = await w.script.welcome();
  for (let i = 0; i < 2; i++) {
    const { channel } = peer.take("open");
    peer.send({ type: "opened", channel, last: 0, trusted: 0n });
  }
  await settle(1);
  const streams = [peer.take("read").stream, peer.take("read").stream];
  let credit = SYNC_CREDIT_BYTES;
  let index = 1;
  while (credit > 0) {
    const message = entries(streams[0]!, index, "x".repeat(1000));
    index += 1000;
    credit -= encodeMessage(message).length;
    peer.send(message);
  }
  await w.env.advance(11_000);
  assertEquals(peer.take("stop").stream, streams[0]);
  while (peer.has("credit")) credit += peer.take("credit").bytes;
  assert(credit > SYNC_CREDIT_BYTES / 2);
  peer.send(entries(streams[1]!, 1, "abc"));
  await settle(1);
  assertEquals(textOf((await other.next()).records), "abc");
  // When it takes something again, it begins where it stood.
  const next = Promise.resolve(stuck.next());
  await settle(1);
  const again = peer.take("read");
  assertEquals(again.after, 0);
  peer.send(entries(again.stream, 1, "x"));
  assertEquals(textOf((await next).records), "x");
  await closeAndCheck(w);
});

// -------------------------------------------------------------------- the rest

test("U15 a watcher of the state that is removed while others are notified is not notified", async () => {
  const w = world();
  const told: string[] = [];
  const end = w.db.watch(() => {
    told.push("first");
    leave();
  });
  const leave = w.db.watch(() => told.push("second"));
  await w.db.open(1n, 1n);
  await settle(1);
  assert(told.includes("first"));
  assertEquals(told.includes("second"), false);
  end();
  await closeAndCheck(w);
});

test("U15 each change of the state is reported once, with the progress", async () => {
  const w = world();
  const told: RemoteStatus[] = [];
  const end = w.db.watch((status) => told.push(status));
  const states = (): string[] => told.splice(0).map(({ state }) => state);
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 0);
  await settle(1);
  assertEquals(states(), ["connecting"]);
  const peer = await w.script.open({}, 3);
  const { stream } = peer.take("read");
  peer.send({ type: "reading", stream, last: 3 });
  await w.env.advance(100);
  assertEquals(w.db.state, "catching up");
  states();
  peer.send(entries(stream, 1, "ab", { last: 3 }));
  await settle(1);
  await reader.next();
  await w.env.advance(100);
  assertEquals(told.at(-1)?.clusters, [{
    clusterID: 1n,
    nodeID: 1n,
    state: "catching up",
    received: 2,
    last: 3,
  }]);
  assertEquals(new Set(states()), new Set(["catching up"]));
  peer.send(entries(stream, 3, "c"));
  await settle(1);
  await reader.next();
  await w.env.advance(100);
  assertEquals(states().at(-1), "live");
  // However much comes at once, a watcher is told now and then.
  for (let i = 0; i < 200; i++) {
    peer.send(entries(stream, 4 + i, "d"));
    await settle(1);
    await reader.next();
  }
  await w.env.advance(1000);
  assert(told.length < 20, `${told.length}`);
  states();
  peer.cut();
  await settle(1);
  assertEquals(states(), ["offline"]);
  end();
  await closeAndCheck(w);
  assertEquals(states(), []);
});

test("H12 U33 checkpoints are exchanged over the protocol, and the server's is trusted once it has the reader's history", async () => {
  const w = world();
  const log = await w.db.open(1n, 5n);
  const board = log.checkpoints!;
  const seen: unknown[] = [];
  board.watch(5n, (checkpoint) => seen.push(checkpoint));
  const own = { nodeID: 5n, index: 10, state: 1n, sessions: 2n };
  board.publish(own);
  assertEquals(board.trusted, undefined);
  const peer = await w.script.open();
  assertEquals(board.trusted, 7n);
  const { channel, ...told } = peer.take("checkpoint");
  assertEquals(told, { type: "checkpoint", ...own, stateVersion: 0 });
  const other = {
    nodeID: 7n,
    index: 10,
    state: undefined,
    stateVersion: 2,
    sessions: 3n,
  };
  peer.send({ type: "checkpoint", channel, ...other });
  await settle(1);
  assertEquals(seen, []);
  const reader = await reading(w, log, 0);
  await settle(1);
  peer.send({
    type: "reading",
    stream: peer.take("read").stream,
    last: 0,
  });
  await settle(1);
  assertEquals(seen, [other]);
  reader.close();
  await settle(1);
  const { signal } = new AbortController();
  const hashes = board.explain!(3, 5, signal);
  await settle(1);
  const { stream, after, upTo } = peer.take("explain");
  assertEquals([after, upTo], [3, 5]);
  peer.send({
    type: "hashes",
    stream,
    indexes: [4, 5],
    states: [6n, 7n],
    sessions: [8n, 9n],
    stateVersions: [2, 3],
  });
  assertEquals(await hashes, [
    { index: 4, state: 6n, stateVersion: 2, sessions: 8n },
    { index: 5, state: 7n, stateVersion: 3, sessions: 9n },
  ]);
  const unknown = board.explain!(3, 5, signal);
  await settle(1);
  peer.send({
    type: "failed",
    stream: peer.take("explain").stream,
    unknown: false,
    message: "cannot",
  });
  assertEquals(await unknown, undefined);
  await closeAndCheck(w);
});

test("U29 a snapshot of the server is offered, and streams as it is read", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open({}, 50);
  const listed = Promise.resolve(log.snapshots!.list(1n));
  await settle(1);
  const { stream } = peer.take("fetch");
  peer.send({
    type: "snapshot",
    stream,
    nodeID: 7n,
    machine: 1,
    index: 40,
    epochIndex: 1,
    epochID: 9n,
    compression: "none",
    files: 0,
    size: 6,
  });
  const [info] = await listed;
  assertEquals(info!.index, 40);
  assertEquals(info!.epoch, { index: 1, id: 9n });
  peer.send({ type: "chunk", stream, bytes: bytes("abc") });
  const source = await log.snapshots!.open(info!);
  const reader = source.getReader();
  assertEquals((await reader.read()).value, bytes("abc"));
  assertEquals(w.db.status.clusters[0]!.snapshot, { received: 3, size: 6 });
  assertEquals(w.db.state, "catching up");
  peer.send(
    { type: "chunk", stream, bytes: bytes("def") },
    { type: "end", stream, reason: "done", first: 0, message: "" },
  );
  assertEquals((await reader.read()).value, bytes("def"));
  assertEquals((await reader.read()).done, true);
  assertEquals(w.db.status.clusters[0]!.snapshot, undefined);
  // None, and one whose connection is lost.
  const none = Promise.resolve(log.snapshots!.list(1n));
  await settle(1);
  peer.send({
    type: "end",
    stream: peer.take("fetch").stream,
    reason: "none",
    first: 0,
    message: "",
  });
  assertEquals(await none, []);
  const lost = Promise.resolve(log.snapshots!.list(1n));
  await settle(1);
  peer.cut();
  assertEquals(await lost, []);
  assertEquals(await log.snapshots!.list(1n), []);
  await closeAndCheck(w);
});

test("U29 a snapshot that is cut off fails, and one that is never opened is cancelled", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open({ heartbeatMs: 1_000_000 });
  const offer = async (): Promise<number> => {
    await settle(1);
    const { stream } = peer.take("fetch");
    peer.send({
      type: "snapshot",
      stream,
      nodeID: 7n,
      machine: 3,
      index: 40,
      epochIndex: 0,
      epochID: 0n,
      compression: "gzip",
      files: 1,
      size: 0,
    });
    return stream;
  };
  const listed = Promise.resolve(log.snapshots!.list(1n));
  const unwanted = await offer();
  const [info] = await listed;
  await w.env.advance(40_000);
  assertEquals(peer.take("stop").stream, unwanted);
  const opened = Promise.resolve(log.snapshots!.open(info!));
  await offer();
  const read = (await opened).getReader().read();
  await settle(1);
  peer.cut();
  assert(await rejection(read) instanceof ErrConnectionLost);
  await closeAndCheck(w);
});

test("H10 close() ends pending calls, and leaves no timer", async () => {
  for (const connected of [false, true]) {
    const w = world();
    const log = await w.db.open(1n, 1n);
    if (connected) await w.script.open();
    const reader = await log.read(0);
    const waiting = [
      (async () => await reader.next())(),
      (async () => await log.append(one))(),
      (async () => await log.readIndex())(),
      log.checkpoints!.explain!(1, 2, new AbortController().signal),
    ];
    for (const promise of waiting) promise.catch(() => {});
    await settle(1);
    if (connected) await log.close();
    else await w.db.close();
    for (const promise of waiting) {
      assert(await rejection(promise) instanceof ErrClusterClosed);
    }
    assert(
      await rejection((async () => await log.append(one))()) instanceof
        ErrClusterClosed,
    );
    await log.close();
    await closeAndCheck(w);
    await w.db.close();
    assert(await rejection(w.db.open(1n, 1n)) instanceof ErrClusterClosed);
  }
});

test("H11 a replica opens its log once", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  assert(await rejection(w.db.open(1n, 1n)) instanceof ErrClusterAlreadyExist);
  await w.db.open(1n, 2n);
  await log.close();
  const again = await w.db.open(1n, 1n);
  assert(
    await rejection(
      (async () => await again.startAt(1, undefined))(),
    ) instanceof
      ErrClusterAlreadyExist,
  );
  assertEquals(again.compact, undefined);
  await closeAndCheck(w);
});

test("H11 a server that sends invalid frames is disconnected", async () => {
  for (
    const frame of [
      new Uint8Array([1, 2, 3]),
      new Uint8Array(),
      encodeMessage({ type: "close", channel: 1 }),
    ]
  ) {
    const w = world();
    await w.db.open(1n, 1n);
    const peer = await w.script.open();
    peer.end.send(frame);
    await settle(1);
    assertEquals(peer.how?.code, CloseCode.Protocol);
    assert(w.db.status.error instanceof ErrProtocol);
    await closeAndCheck(w);
  }
});

test("U26 what is taken between the hello and the welcome is granted with it", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const reader = await reading(w, log, 0);
  const peer = await w.script.open();
  const { stream } = peer.take("read");
  let count = 0;
  for (let held = 0; held < SYNC_CREDIT_BYTES; count++) {
    const message = entries(stream, count * 1000 + 1, "x".repeat(1000));
    held += encodeMessage(message).length;
    peer.send(message);
  }
  await settle(1);
  peer.cut();
  w.db.reconnect();
  await settle(1);
  const [hello] = w.script.peer.got;
  assertEquals(hello?.type === "hello" && hello.credit, 0);
  // All of it is taken before the server answers.
  for (let i = 0; i < count; i++) await reader.next();
  const next = await w.script.welcome();
  let credit = 0;
  while (next.has("credit")) credit += next.take("credit").bytes;
  assert(credit > SYNC_CREDIT_BYTES / 4 * 3, `${credit}`);
  await closeAndCheck(w);
});

test("H2 a request that crosses with the refusal of its cluster is sent again", async () => {
  const w = world();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open();
  const index = Promise.resolve(log.readIndex());
  await settle(1);
  const { channel, stream } = peer.take("readIndex");
  peer.send({
    type: "refused",
    channel,
    code: 1001,
    reason: "Cluster restarts",
  }, {
    type: "failed",
    stream,
    unknown: false,
    message: "Channel is not open",
  });
  await settle(1);
  assertEquals(await peek(index), "pending");
  await w.env.advance(1_000);
  peer.take("open");
  peer.send({ type: "opened", channel, last: 3, trusted: 7n });
  await settle(1);
  peer.send({ type: "index", stream: peer.take("readIndex").stream, index: 3 });
  assertEquals(await index, 3);
  await closeAndCheck(w);
});

test("case C12: each option of a RemoteLogDB that cannot be used is refused, and named [R14]", async () => {
  const wrong: Record<string, readonly unknown[]> = {
    token: [42, null, {}],
    copy: ["store", {}, null],
    connect: ["ws", {}],
    fetch: ["https", {}],
    env: [{}, 1],
    hints: [{}, "online"],
    versions: [1, {}, { first: 2, last: 1 }, { first: 0, last: 1 }, null],
    frameBytes: ["9000", NaN, 1.5, 0, 2 ** 40, null],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const options = { [name]: value } as RemoteLogOptions;
      const error = await rejection(
        Promise.try(() => new RemoteLogDB("wss://one", options)),
      );
      assert(
        error instanceof TypeError || error instanceof RangeError,
        `${name}: ${String(value)}`,
      );
      assert(error.message.startsWith(name), error.message);
    }
  }
});
