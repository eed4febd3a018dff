import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import {
  SYNC_FRAME_BYTES_MAX,
  SYNC_FRAME_BYTES_MIN,
  SYNC_FRAME_GROW_FIRST_MS,
  SYNC_FRAME_GROW_LAST_MS,
  SYNC_PARTS_TOTAL_BYTES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../../src/limits.ts";
import { RemoteLogDB, serve } from "../../src/sync/mod.ts";
import { ErrProtocol } from "../../src/sync/errors.ts";
import { decodeMessage, encodeMessage } from "../../src/sync/message_codec.ts";
import type { Message, Part } from "../../src/sync/messages.ts";
import { Assembler, sendInParts } from "../../src/sync/parts.ts";
import { ServerAddress } from "../../src/sync/client/server_address.ts";
import { checked, ManualEnv } from "../support/environment.ts";
import { FrameGateway, type Refusal } from "./proxy.ts";
import {
  packRecords,
  proposal,
  type RawClient,
  world,
} from "./server_support.ts";

const GATEWAY_BYTES = 32 * 1024;

for (const refusal of ["1009", "reset"] satisfies Refusal[]) {
  Deno.test(
    `case A7: a client syncs through a gateway that ends connections with frames over 32 KiB, ${
      refusal === "1009" ? "with code 1009" : "without a word"
    }: many commands at once, a large one, and a snapshot [U38]`,
    async () => {
      await using host = new NodeHost();
      const origin = await host.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 1n,
      });
      await using server = serve(host, {
        sigterm: false,
        limits: { farEntries: 100 },
      });
      const target = Number(new URL(server.url).port);
      await using gateway = new FrameGateway(target, GATEWAY_BYTES, refusal);
      await using logDB = new RemoteLogDB(gateway.url);
      await using page = new NodeHost({ logDB });
      const replica = await page.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 2n,
      });
      const session = await replica.openSession();
      // Random: frames with repetitions are packed.
      const random = (length: number): Uint8Array => {
        const bytes = new Uint8Array(length);
        for (let at = 0; at < length; at += 65_536) {
          crypto.getRandomValues(bytes.subarray(at, at + 65_536));
        }
        return bytes;
      };
      const value = random(100);
      await Promise.all([
        ...Array.from(
          { length: 2_000 },
          (_, i) => replica.propose(kv.put(`k${i}`, value), { session }),
        ),
        replica.propose(kv.put("large", random(40 * 1024)), {
          session,
        }),
      ]);
      assert(gateway.refused.length > 0);
      // The other way: entries of the log, and a snapshot for a newcomer.
      await origin.propose(kv.put("larger", random(600 * 1024)));
      assertEquals(await replica.read(kv.count()), 2_002);
      await using otherDB = new RemoteLogDB(gateway.url);
      await using other = new NodeHost({ logDB: otherDB });
      const newcomer = await other.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 3n,
      });
      assertEquals(await newcomer.read(kv.count()), 2_002);
    },
  );
}

Deno.test("case A7: the largest frame of either end can be configured, and neither sends a larger one [U38]", async () => {
  for (const side of ["client", "server"]) {
    const frameBytes = 16 * 1024;
    await using host = new NodeHost();
    await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    await using server = serve(host, {
      sigterm: false,
      limits: side === "server" ? { frameBytes } : {},
    });
    const target = Number(new URL(server.url).port);
    await using gateway = new FrameGateway(target, frameBytes, "reset");
    await using logDB = new RemoteLogDB(
      gateway.url,
      side === "client" ? { frameBytes } : {},
    );
    await using page = new NodeHost({ logDB });
    const replica = await page.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 2n,
    });
    await replica.propose(
      kv.put("large", new Uint8Array(300 * 1024).map((_, i) => i * i * i >> 9)),
    );
    assertEquals(await replica.read(kv.count()), 1);
    assertEquals(gateway.refused, [], side);
  }
  for (const frameBytes of [0, 1.5, SYNC_FRAME_BYTES_MAX + 1]) {
    assertThrows(
      () => new RemoteLogDB("ws://127.0.0.1:1", { frameBytes } as never),
      RangeError,
      "frameBytes",
    );
  }
});

Deno.test("case A7: a message in parts is the same message, and too many parts are none [H11]", () => {
  for (const length of [0, 1, 100, 5_000]) {
    const frame = crypto.getRandomValues(new Uint8Array(length));
    const sent: Uint8Array[] = [];
    sendInParts(frame, SYNC_FRAME_BYTES_MIN, (bytes) => sent.push(bytes));
    for (const { length } of sent) assert(length <= SYNC_FRAME_BYTES_MIN);
    if (length <= SYNC_FRAME_BYTES_MIN) {
      assertEquals(sent, [frame]);
      continue;
    }
    const assembler = new Assembler();
    for (let time = 0; time < 2; time++) {
      const made = sent.map((part) =>
        assembler.add(decodeMessage(part) as Part)
      );
      assertEquals(made.pop(), frame);
      assertEquals(made.filter((part) => part !== undefined), []);
    }
  }
  const assembler = new Assembler();
  const bytes = new Uint8Array(SYNC_FRAME_BYTES_MAX / 2);
  assembler.add({ type: "part", isLast: false, bytes });
  assembler.add({ type: "part", isLast: false, bytes });
  assertThrows(
    () =>
      assembler.add({
        type: "part",
        isLast: true,
        bytes: new Uint8Array(1),
      }),
    ErrProtocol,
    "over the limit",
  );
});

Deno.test(
  "case A7: parts that are no message, or that were not granted, end the connection [H11]",
  checked(async () => {
    const w = await world({
      limits: { creditBytes: 2_000 },
      validate: () => new Promise(() => {}),
    });
    const odd = await w.client();
    odd.send({ type: "part", isLast: true, bytes: new Uint8Array([0xff, 1]) });
    assertEquals((await odd.end()).code, 4400);
    const early = w.connect();
    await early.until("opened", () => early.isOpen);
    early.send({ type: "part", isLast: false, bytes: new Uint8Array(1_000) });
    assertEquals((await early.end()).code, 4400);
    const greedy = await w.client();
    greedy.append(1, packRecords(proposal(kv.put("k", new Uint8Array(3_000)))));
    const bytes = new Uint8Array(SYNC_TOKEN_BYTES_MAX);
    greedy.send({ type: "part", isLast: false, bytes });
    greedy.send({ type: "part", isLast: false, bytes });
    const { code, reason } = await greedy.end();
    assertEquals(code, 4413);
    assertMatch(reason, /was sent without credit/);
    await w.stop();
  }),
);

/** Sends a message in parts of so many bytes, up to one of them. */
function sendParts(
  client: RawClient,
  message: Message,
  size: number,
  upTo = Infinity,
): void {
  const frame = encodeMessage(message);
  for (let at = 0; at < Math.min(frame.length, upTo); at += size) {
    const bytes = frame.subarray(at, at + size);
    const isLast = at + size >= frame.length;
    client.send({ type: "part", isLast, bytes });
  }
}

function largeAppend(stream: number): Message {
  const { bytes } = packRecords(
    proposal(kv.put("k", new Uint8Array(60 * 1024))),
  );
  const lengths = [bytes.length];
  return { type: "append", channel: 1, stream, lengths, bytes };
}

Deno.test(
  "case A12: messages in parts cost a server no more than whole ones: no messages in between, no tiny parts, no messages of the server [H11, U26]",
  checked(async () => {
    const w = await world();
    const between = await w.client();
    sendParts(between, largeAppend(1), 1016, 10_000);
    between.send({ type: "ping" });
    assertMatch((await between.end()).reason, /ping came between/);
    const tiny = await w.client();
    sendParts(tiny, largeAppend(1), 1, 10);
    assertMatch((await tiny.end()).reason, /has 1 byte/);
    // What only a server sends is not kept until it is its turn.
    const posing = await w.client();
    const bytes = new Uint8Array(1_000_000);
    posing.send({ type: "chunk", stream: 1, bytes });
    assertMatch(
      (await posing.end()).reason,
      /chunk may only be sent by the server/,
    );
    await w.stop();
  }),
);

Deno.test(
  "case A12: what a server has of messages in parts is bounded for all connections together, and the oldest has to go [H11, U26]",
  checked(async () => {
    const w = await world();
    const good = await w.client();
    const half = 600 * 1024;
    const large: Message = {
      type: "append",
      channel: 1,
      stream: 1,
      lengths: [1_000_000],
      bytes: new Uint8Array(1_000_000),
    };
    const count = Math.floor(SYNC_PARTS_TOTAL_BYTES_MAX / half) + 2;
    const mob: RawClient[] = [];
    for (let i = 0; i < count; i++) {
      const client = await w.client();
      sendParts(client, large, 64 * 1024, half);
      mob.push(client);
      await w.env.advance(10);
    }
    const cut = mob.filter(({ ending }) => ending !== undefined);
    assert(cut.length > 0 && cut.length < 10, `${cut.length} of ${count}`);
    assertEquals(mob.slice(0, cut.length), cut);
    assertEquals(cut[0]!.ending!.code, 4503);
    sendParts(good, largeAppend(2), 8 * 1024);
    assertEquals((await good.next("appended", 2)).refused, []);
    await w.stop();
  }),
);

Deno.test(
  "case A23: a long token in parts is taken also while nothing more may be appended [U34]",
  checked(async () => {
    const w = await world({
      limits: { creditBytes: 1 },
      validate: () => new Promise(() => {}),
    });
    const client = await w.client();
    client.append(1, packRecords(proposal(kv.put("a", "b"))));
    const token = "t".repeat(10_000);
    sendParts(client, { type: "token", token }, 1016);
    client.send({ type: "readIndex", channel: 1, stream: 2 });
    await client.next("index", 2);
    await w.stop();
  }),
);

Deno.test("case A7: frames that were reduced grow again after a while, and shrink at once, and for longer, if that fails [U38, H18]", async () => {
  const env = new ManualEnv(1);
  const most = SYNC_FRAME_BYTES_MAX;
  const address = new ServerAddress("wss://one/sync", env, most);
  const small = Math.floor(most / 8);
  address.ended(1006, true);
  assertEquals(address.nextFrameBytes(), most);
  address.ended(1006, true);
  assertEquals(address.nextFrameBytes(), small);
  // Not while the reason may still be there.
  await env.advance(SYNC_FRAME_GROW_FIRST_MS - 1);
  assertEquals(address.nextFrameBytes(), small);
  await env.advance(1);
  assertEquals(address.nextFrameBytes(), 8 * small);
  // Once is enough this time.
  address.ended(1006, true);
  assertEquals(address.nextFrameBytes(), small);
  await env.advance(2 * SYNC_FRAME_GROW_FIRST_MS - 1);
  assertEquals(address.nextFrameBytes(), small);
  address.ended(1009, true);
  const tiny = Math.floor(small / 8);
  assertEquals(address.nextFrameBytes(), tiny);
  // On another network all goes well, a step at a time.
  await env.advance(SYNC_FRAME_GROW_LAST_MS);
  assertEquals(address.nextFrameBytes(), 8 * tiny);
  address.ended(1001, true);
  assertEquals(address.nextFrameBytes(), 8 * tiny);
  await env.advance(SYNC_FRAME_GROW_LAST_MS);
  assertEquals(address.nextFrameBytes(), 64 * tiny);
  await env.advance(SYNC_FRAME_GROW_LAST_MS);
  assertEquals(address.nextFrameBytes(), most);
  assertEquals(address.nextFrameBytes(), most);
});
