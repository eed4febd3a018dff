import { assert, assertEquals } from "@std/assert";
import { kv } from "../../mod.ts";
import { SYNC_FRAME_BYTES_MAX } from "../../src/limits.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import type { Message } from "../../src/sync/messages.ts";
import { CloseCode } from "../../src/sync/transport.ts";
import { checked } from "../support/environment.ts";
import { random32 } from "../support/random.ts";
import {
  claimRecord,
  packRecords,
  proposal,
  type RawClient,
  registerRecord,
  sessionProposal,
  type World,
  world,
} from "./server_support.ts";

const seed = Number(
  Deno.env.get("SEED") ?? Math.floor(Math.random() * 2 ** 31),
);

const CODES: ReadonlySet<number> = new Set(Object.values(CloseCode));

type Random = () => number;

/** Valid message of a client, possibly out of turn. */
function anyMessage(random: Random): Message {
  const small = (): number => random() % 4;
  const index = (): number =>
    [0, 1, small(), random() % 50, 2 ** 40, Number.MAX_SAFE_INTEGER][
      random() % 6
    ]!;
  const u64 = (): bigint =>
    [0n, 1n, BigInt(random()), 2n ** 64n - 1n][small()]!;
  const [channel, stream] = [small(), random() % 8];
  switch (random() % 15) {
    case 11:
      return {
        type: "verify",
        channel,
        stream,
        index: index(),
        epochIndex: small(),
        epochID: u64(),
      };
    case 12:
      return { type: "token", token: `bad ${small()}` };
    case 13: {
      const whole = encodeMessage(anyMessage(random));
      const bytes = random() % 2 === 0 ? whole : new Uint8Array(600);
      return { type: "part", isLast: random() % 2 === 0, bytes };
    }
    case 0:
      return {
        type: "open",
        channel,
        clusterID: BigInt(small()),
        nodeID: u64(),
      };
    case 1:
      return { type: "close", channel };
    case 2:
      return {
        type: "read",
        channel,
        stream,
        after: index(),
        epochIndex: small(),
        epochID: u64(),
        far: random() % 2 === 0,
        references: random() % 2 === 0,
      };
    case 3:
      return { type: "stop", stream };
    case 4:
    case 5: {
      const { bytes, ends } = packRecords(
        ...Array.from({ length: 1 + small() }, () => anyRecord(random)),
      );
      const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
      if (random() % 8 === 0) lengths[0] = index();
      return { type: "append", channel, stream, lengths, bytes };
    }
    case 6:
      return { type: "readIndex", channel, stream };
    case 7:
      return {
        type: "checkpoint",
        channel,
        nodeID: u64(),
        index: index(),
        state: random() % 2 === 0 ? undefined : u64(),
        sessions: u64(),
        stateVersion: 0,
      };
    case 8:
      return {
        type: "explain",
        channel,
        stream,
        after: index(),
        upTo: index(),
      };
    case 9:
      return { type: "fetch", channel, stream };
    case 10:
      return { type: "credit", bytes: index() };
    default:
      return { type: "ping" };
  }
}

/** Record that is valid, another client's, or malformed. */
function anyRecord(random: Random): Uint8Array {
  const session = random() % 40;
  switch (random() % 8) {
    case 0:
      return registerRecord(
        BigInt(random()),
        randomBytes(random, random() % 300),
      );
    case 1:
      return sessionProposal(session, 1 + random() % 5, kv.put("x", "y"));
    case 2:
      return sessionProposal(session, 1 + random() % 5, undefined);
    case 3:
      return claimRecord(session, BigInt(random()), BigInt(random()));
    case 4:
      return new Uint8Array([0x13, session]);
    case 5:
      return new Uint8Array([0x10 + random() % 16, ...randomBytes(random, 12)]);
    case 6:
      return randomBytes(random, random() % 20);
    default:
      return proposal(kv.put(`k${random() % 10}`, "v"));
  }
}

function randomBytes(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random());
}

/** Damaged bytes of a message. */
function damaged(random: Random): Uint8Array {
  const frame = encodeMessage(anyMessage(random)).slice();
  switch (random() % 6) {
    case 0:
      return frame.subarray(0, random() % (frame.length + 1));
    case 1:
      return new Uint8Array([
        ...frame,
        ...randomBytes(random, 1 + random() % 5),
      ]);
    case 2:
      return randomBytes(random, random() % 200);
    case 3:
      // An append that announces more records than it has.
      return new Uint8Array([
        12,
        1,
        1,
        ...randomBytes(random, 4),
      ]);
    default:
      for (let i = 0; i <= random() % 3; i++) {
        frame[random() % frame.length] = random();
      }
      return frame;
  }
}

/** Client that sends random messages until it is disconnected or has sent enough. */
async function attack(w: World, random: Random): Promise<RawClient> {
  const client = w.connect();
  await client.until("opened", () => client.isOpen);
  if (random() % 8 > 0) {
    const hello = { token: `bad ${random() % 3}`, renews: random() % 2 === 0 };
    // A principal may expire before its welcome.
    await client.hello(hello).catch(() => {});
    if (random() % 2 === 0) await client.open().catch(() => {});
  }
  if (random() % 10 === 0) client.server.isStuck = true;
  for (let i = 0; i < 30 && client.ending === undefined; i++) {
    const kind = random() % 40;
    if (kind === 0) {
      client.transport.send(new Uint8Array(SYNC_FRAME_BYTES_MAX + 1));
    } else if (kind < 3) client.transport.send(damaged(random));
    else client.send(anyMessage(random));
    if (random() % 3 === 0) await w.env.advance(random() % 20);
    assert(client.server.bufferedBytes < 10 * (1 << 20));
  }
  await w.env.advance(50);
  if (client.ending === undefined) client.transport.close(1000, "");
  else {
    assert(CODES.has(client.ending.code), `${client.ending.code}`);
    assert(client.ending.reason.length > 0);
  }
  client.server.isStuck = false;
  return client;
}

Deno.test(
  "H11 hostile, damaged, oversized and out-of-turn frames harm only their sender",
  checked(async () => {
    // deno-lint-ignore no-console
    console.log(`SEED=${seed}`);
    const random = random32(seed);
    let revocation = new AbortController();
    const w = await world({
      seed,
      config: { hashEntries: 16, snapshotEntries: 100 },
      authenticate: (request) => {
        const id = request.headers.get("authorization") ?? "anonymous";
        // Some principals are revoked or expire while they send.
        return id.endsWith("1")
          ? { id, validMs: 1 + random() % 50 }
          : id.endsWith("2")
          ? { id, signal: revocation.signal }
          : { id };
      },
      validate: (_principal, cmd) => cmd.length > 40 ? "Too long" : undefined,
    });
    const good = await w.client("good");
    good.append(1, packRecords(registerRecord(1n, new Uint8Array())));
    const session = (await good.next("appended")).first;
    const reader = await w.client("reader");
    reader.read(1, 0);
    await reader.next("reading");
    let position = 0;
    let closed = 0;
    for (let round = 0; round < 60; round++) {
      const attacked = attack(w, random);
      if (round % 4 === 0) {
        revocation.abort();
        revocation = new AbortController();
      }
      const { ending } = await attacked;
      if (ending?.code !== 1000) closed++;
      // The correct client is unaffected.
      good.append(
        2 + round,
        packRecords(
          sessionProposal(session, 1 + round, kv.put(`good${round}`, "v"), 0),
        ),
      );
      const appended = await good.next("appended");
      assertEquals(appended.refused, []);
      await reader.entriesUpTo(appended.first, position);
      position = appended.first;
    }
    assert(closed > 10, `${closed} were closed`);
    await w.env.advance(1_000);
    assertEquals(w.replica.error, undefined);
    assertEquals(w.replica.sessionInfo(session)!.next, 61);
    for (let round = 0; round < 60; round++) {
      assert(await w.replica.read(kv.get(`good${round}`)) !== undefined);
    }
    assertEquals(good.ending, undefined);
    assertEquals(reader.ending, undefined);
    // The disconnected clients leave nothing behind.
    assertEquals(w.core.telemetry.counts.connections, 2);
    assertEquals(w.core.quotas.transfers, 0);
    assert(w.env.timers < 10, `${w.env.timers} timers`);
    await w.stop();
  }),
);
