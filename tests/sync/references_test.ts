import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrLogCorrupted,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import {
  SYNC_OWN_RECORDS_BYTES_MAX,
  SYNC_REFERENCE_BYTES_MIN,
  SYNC_SENT_SESSIONS_MAX,
} from "../../src/limits.ts";
import type { LogBatch, Records } from "../../src/log/log.ts";
import { connectSocket, RemoteLogDB, serve } from "../../src/sync/mod.ts";
import { OwnRecords } from "../../src/sync/client/own_records.ts";
import type { Entries, Reference } from "../../src/sync/messages.ts";
import { digestOf } from "../../src/sync/references.ts";
import { SentRecords } from "../../src/sync/server/sent_records.ts";
import { checked, rejection, settle } from "../support/environment.ts";
import {
  closeAndCheck,
  reading,
  world as clientWorld,
} from "./client_support.ts";
import {
  packRecords,
  type RawClient,
  registerRecord,
  sessionProposal,
  world,
} from "./server_support.ts";

/** A proposal of a session whose command has about a hundred bytes. */
function large(session: number, series: number, value = "v"): Uint8Array {
  return sessionProposal(
    session,
    series,
    kv.put(`k${series}`, value.repeat(100)),
  );
}

async function sessionOf(client: RawClient): Promise<number> {
  client.append(100, packRecords(registerRecord(1n, new Uint8Array())));
  return (await client.next("appended", 100)).first;
}

/** The messages with entries up to an index. */
async function entriesTo(client: RawClient, index: number): Promise<Entries[]> {
  const all: Entries[] = [];
  for (let last = 0; last < index;) {
    const batch = await client.next("entries");
    all.push(batch);
    last = batch.first + batch.lengths.length - 1;
  }
  return all;
}

Deno.test(
  "a client is sent its own records as references, and every other reader all bytes",
  checked(async () => {
    const w = await world();
    const own = await w.client();
    const other = await w.client();
    const session = await sessionOf(own);
    own.read(1, session, { references: true });
    other.read(1, session, { references: true });
    const records = [1, 2, 3].map((series) => large(session, series));
    // Not the next series: a range of its own, which is too small.
    const small = sessionProposal(session, 5, kv.put("k", "v"));
    assert(small.length < SYNC_REFERENCE_BYTES_MIN);
    own.append(2, packRecords(...records, small));
    const { first } = await own.next("appended", 2);
    const mine = await entriesTo(own, first + 3);
    const references = mine.flatMap((batch) =>
      batch.references.map(({ at, ...rest }) => ({
        index: batch.first + at,
        ...rest,
      }))
    );
    const digest = digestOf(packRecords(...records).bytes);
    assertEquals(references, [{
      index: first,
      count: 3,
      session,
      series: 1,
      digest,
    }]);
    assertEquals(
      mine.reduce((sum, { bytes }) => sum + bytes.length, 0),
      small.length,
    );
    assertEquals(
      mine.flatMap(({ lengths }) => lengths),
      [...records, small].map(({ length }) => length),
    );
    assertEquals(await other.entriesUpTo(first + 3, session), [
      ...records,
      small,
    ]);
    await w.stop();
  }),
);

Deno.test(
  "a reader that does not ask for references, reads on another connection, or reads again, is sent all bytes",
  checked(async () => {
    const w = await world();
    const client = await w.client();
    const session = await sessionOf(client);
    const record = large(session, 1);
    client.append(2, packRecords(record));
    const { first } = await client.next("appended", 2);
    client.read(3, session);
    assertEquals(await client.entriesUpTo(first, session), [record]);
    client.send({ type: "stop", stream: 3 });
    await client.next("end", 3);
    client.read(4, session, { references: true });
    assertEquals((await entriesTo(client, first))[0]!.references.length, 1);
    client.send({ type: "stop", stream: 4 });
    await client.next("end", 4);
    client.read(5, session, { references: true });
    assertEquals(await client.entriesUpTo(first, session), [record]);
    const later = await w.client();
    later.read(1, session, { references: true });
    assertEquals(await later.entriesUpTo(first, session), [record]);
    await w.stop();
  }),
);

Deno.test(
  "a record that was replaced, since the application refused its command, is sent in full",
  checked(async () => {
    const w = await world({
      validate: (_principal, cmd) => cmd.length > 90 ? "Too long" : undefined,
    });
    const client = await w.client();
    const session = await sessionOf(client);
    client.read(1, session, { references: true });
    client.append(2, packRecords(large(session, 1)));
    const { first } = await client.next("appended", 2);
    const [entries] = await entriesTo(client, first);
    assertEquals(entries!.references, []);
    assertEquals(entries!.bytes.length, entries!.lengths[0]);
    await w.stop();
  }),
);

Deno.test("SentRecords keeps the newest sessions, of each channel its own, and refers to each series once", () => {
  const sent = new SentRecords();
  const batch = (from: number, count: number, session = 5): Records =>
    packRecords(
      ...Array.from({ length: count }, (_, i) => large(session, from + i)),
    );
  const taken = (...of: Parameters<typeof batch>): unknown =>
    sent.take(1, batch(...of)).map(({ at, series, count }) => [
      at,
      series,
      count,
    ]);
  sent.add(1, batch(1, 20));
  sent.add(1, batch(21, 20));
  assertEquals(sent.take(2, batch(1, 3)), []);
  assertEquals(taken(1, 25), [[0, 1, 25]]);
  assertEquals(taken(20, 10), [[6, 26, 4]]);
  assertEquals(taken(38, 10), [[0, 38, 3]]);
  assertEquals(taken(1, 45), []);
  // Sent again.
  sent.add(1, batch(41, 4));
  sent.add(1, batch(42, 4));
  assertEquals(taken(40, 6), [[1, 41, 5]]);
  for (let session = 1; session <= SYNC_SENT_SESSIONS_MAX + 10; session++) {
    sent.add(1, batch(1, 1, session));
  }
  assertEquals(taken(1, 1, 10), []);
  assertEquals(taken(1, 1, 11), [[0, 1, 1]]);
});

function message(
  lengths: number[],
  references: Reference[],
  bytes: Uint8Array,
): Entries {
  const [stream, follows, first, last] = [1, 0, 1, lengths.length];
  return {
    type: "entries",
    stream,
    follows,
    first,
    last,
    lengths,
    references,
    bytes,
  };
}

Deno.test("OwnRecords puts referenced records into their places, and refuses what does not fit", () => {
  const records = [1, 2, 3].map((series) => large(5, series));
  const [one, two, three] = records as [Uint8Array, Uint8Array, Uint8Array];
  const full = sessionProposal(6, 1, kv.put("a", "b"));
  const reference = (at: number, series: number): Reference => ({
    at,
    count: 1,
    session: 5,
    series,
    digest: digestOf(records[series - 1]!),
  });
  const all = [one, full, two].map(({ length }) => length);
  const fresh = (): OwnRecords => {
    const own = new OwnRecords();
    own.add(packRecords(...records));
    return own;
  };
  const both = [reference(0, 1), reference(2, 2)];
  const resolved = fresh().resolve(message(all, both, full));
  assertEquals(resolved, packRecords(one, full, two));
  const own = fresh();
  const last = message([three.length], [reference(0, 3)], new Uint8Array());
  assertEquals(own.resolve(last), packRecords(three));
  for (
    const [lengths, references, bytes] of [
      // Twice the same, out of order, beyond the end.
      [all, [reference(0, 1), reference(0, 1)], full],
      [all, [...both].reverse(), full],
      [all, [reference(3, 1)], full],
      // Bytes that are too few, or too many.
      [all, both, full.subarray(1)],
      [all, both, new Uint8Array([...full, 0])],
    ] satisfies [number[], Reference[], Uint8Array][]
  ) {
    assertEquals(
      fresh().resolve(message(lengths, references, bytes)),
      undefined,
    );
  }
  const wrong = { ...reference(0, 1), digest: 1n };
  const none = new Uint8Array();
  assertEquals(
    fresh().resolve(message([one.length], [wrong], none)),
    "missing",
  );
  // A length that promises too much is not allocated.
  const huge = message([2 ** 50], [reference(0, 1)], none);
  assertEquals(fresh().resolve(huge), "missing");
});

Deno.test("OwnRecords resolves ranges over several appends, of records that were sent twice, and after others that were read in full", () => {
  const own = new OwnRecords();
  const records = Array.from({ length: 8 }, (_, i) => large(5, i + 1));
  const again = large(5, 4, "again ");
  own.add(packRecords(...records.slice(0, 3)));
  own.add(packRecords(...records.slice(3, 6)));
  own.add(packRecords(again, ...records.slice(4)));
  const range = (from: number, ...these: Uint8Array[]): unknown =>
    own.resolve(message(
      these.map(({ length }) => length),
      [{
        at: 0,
        count: these.length,
        session: 5,
        series: from,
        digest: digestOf(packRecords(...these).bytes),
      }],
      new Uint8Array(),
    ));
  const [, two, three, four, five, six, seven, eight] = records as [
    ...[Uint8Array, Uint8Array, Uint8Array, Uint8Array],
    ...[Uint8Array, Uint8Array, Uint8Array, Uint8Array],
  ];
  assertEquals(range(2, two, three, four), packRecords(two, three, four));
  assertEquals(range(4, again, five), packRecords(again, five));
  const full = packRecords(six);
  assertEquals(own.resolve(message([six.length], [], six)), full);
  assertEquals(range(7, seven, eight), packRecords(seven, eight));
});

Deno.test("OwnRecords is bounded, and drops the oldest first", () => {
  const own = new OwnRecords();
  const value = new Uint8Array(SYNC_OWN_RECORDS_BYTES_MAX / 4 - 100);
  const records = [1, 2, 3, 4, 5].map((series) =>
    sessionProposal(5, series, kv.put("k", value))
  );
  for (const record of records) own.add(packRecords(record));
  const resolve = (series: number): unknown => {
    const record = records[series - 1]!;
    const digest = digestOf(record);
    const reference = { at: 0, count: 1, session: 5, series, digest };
    return own.resolve(
      message([record.length], [reference], new Uint8Array()),
    );
  };
  assertEquals(resolve(1), "missing");
  assertEquals(resolve(2), packRecords(records[1]!));
});

Deno.test("a client asks for the bytes of a record that it no longer has, or has otherwise, and takes references again on the next connection", async () => {
  const w = clientWorld();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open({ credit: 100_000 });
  const reader = await reading(w, log, 5);
  const first = peer.take("read");
  assertEquals([first.after, first.references], [5, true]);
  peer.send({ type: "reading", stream: first.stream, last: 5 });
  const own = large(5, 1);
  Promise.resolve(log.append(packRecords(own))).catch(() => {});
  await settle();
  peer.take("append");
  const entries = (
    stream: number,
    index: number,
    record: Uint8Array,
    reference?: Partial<Reference>,
  ): Entries => ({
    type: "entries",
    stream,
    follows: index - 1,
    first: index,
    last: index,
    lengths: [record.length],
    references: reference === undefined ? [] : [{
      at: 0,
      count: 1,
      session: 5,
      series: 1,
      digest: digestOf(record),
      ...reference,
    }],
    bytes: reference === undefined ? record : new Uint8Array(),
  });
  peer.send(entries(first.stream, 6, own, {}));
  const batch: LogBatch = await reader.next();
  assertEquals(batch.records, packRecords(own));
  // It has another one by that name.
  const other = large(5, 2, "w");
  Promise.resolve(log.append(packRecords(large(5, 2)))).catch(() => {});
  await settle();
  peer.send(entries(first.stream, 7, other, { series: 2 }));
  await settle();
  assertEquals(peer.take("stop").stream, first.stream);
  const second = peer.take("read");
  assertEquals([second.after, second.references], [6, false]);
  peer.send({ type: "reading", stream: second.stream, last: 7 });
  peer.send(entries(second.stream, 7, other));
  assertEquals((await reader.next()).records, packRecords(other));
  peer.cut();
  await w.env.advance(2_000);
  const next = await w.script.open({ credit: 100_000 });
  const third = next.take("read");
  assertEquals([third.after, third.references], [7, true]);
  // What was sent over the connection before is not referred to any more.
  next.send({ type: "reading", stream: third.stream, last: 8 });
  next.send(entries(third.stream, 8, own, {}));
  await settle();
  assertEquals(next.take("read").references, false);
  await closeAndCheck(w);
});

Deno.test("a client takes references that do not fit for a damaged log [H8]", async () => {
  const w = clientWorld();
  const log = await w.db.open(1n, 1n);
  const peer = await w.script.open();
  const reader = await reading(w, log, 5);
  const { stream } = peer.take("read");
  peer.send({ type: "reading", stream, last: 6 }, {
    ...message([1], [], new Uint8Array(2)),
    stream,
    follows: 5,
    first: 6,
  });
  const error = await rejection(Promise.try(() => reader.next()));
  assertInstanceOf(error, ErrLogCorrupted);
  await closeAndCheck(w);
});

interface Page {
  readonly replica: Replica;
  /** Bytes received so far. */
  received(): number;
  stop(): Promise<void>;
}

Deno.test("a client's own commands come back over a socket in a small part of their bytes, and its state is that of all others", async () => {
  await using host = new NodeHost();
  const origin = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  await using server = serve(host, { sigterm: false });
  const start = async (nodeID: bigint): Promise<Page> => {
    let bytes = 0;
    const logDB = new RemoteLogDB(server.url, {
      connect: (url) => {
        const transport = connectSocket(url);
        return {
          ...transport,
          get bufferedBytes(): number {
            return transport.bufferedBytes;
          },
          listen: (listener): void =>
            transport.listen({
              ...listener,
              frame: (frame) => {
                bytes += frame.length;
                listener.frame(frame);
              },
            }),
        };
      },
    });
    const page = new NodeHost({ logDB });
    const replica = await page.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID,
    });
    const stop = async (): Promise<void> => {
      await page.stop();
      await logDB.close();
    };
    return { replica, stop, received: () => bytes };
  };
  const own = await start(2n);
  const other = await start(3n);
  const session = await own.replica.openSession();
  // Random: frames with repetitions are packed.
  const value = (): Uint8Array => crypto.getRandomValues(new Uint8Array(1_000));
  await Promise.all(
    Array.from(
      { length: 300 },
      (_, i) => own.replica.propose(kv.put(`k${i}`, value()), { session }),
    ),
  );
  for (const { replica } of [own, other]) {
    assertEquals(await replica.read(kv.count()), 300);
    assertEquals(
      await replica.read(kv.get("k299")),
      await origin.read(kv.get("k299")),
    );
  }
  assert(other.received() > 300_000, `${other.received()}`);
  assert(own.received() < 30_000, `${own.received()}`);
  await own.stop();
  await other.stop();
});
