import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv } from "../../mod.ts";
import {
  SYNC_BUFFERED_FRAMES_MAX,
  SYNC_FRAME_BYTES_MAX,
  SYNC_FRAME_BYTES_MIN,
  SYNC_LOG_RECORDS_MAX,
  SYNC_RECORD_CREDIT_BYTES,
  SYNC_SLICE_MS,
} from "../../src/limits.ts";
import { epochRecord } from "../../src/log/records.ts";
import {
  configRecord,
  skipEntryRecord,
  unregisterRecord,
} from "../../src/rsm/record_codec.ts";
import { handle } from "../../src/sync/server/http.ts";
import { OriginPolicy } from "../../src/sync/server/origin_policy.ts";
import { FairScheduler } from "../../src/sync/server/fair_scheduler.ts";
import { LoadLimiter } from "../../src/sync/server/load_limiter.ts";
import { checked, ManualEnv, settle } from "../support/environment.ts";
import {
  claimRecord,
  packRecords,
  proposal,
  registerRecord,
  type World,
  world,
} from "./server_support.ts";

function bearerOf(request: Request): { id: string } | undefined {
  const token = request.headers.get("authorization");
  return token === null ? undefined : { id: token.slice("Bearer ".length) };
}

function puts(count: number, origin = 7): ReturnType<typeof packRecords> {
  return packRecords(
    ...Array.from(
      { length: count },
      (_, i) => proposal(kv.put("k", "v"), i, origin),
    ),
  );
}

Deno.test(
  "case A12: a frame with a malformed record ends the connection and appends nothing [H11]",
  checked(async () => {
    const asked: number[] = [];
    const w = await world({
      validate: (_who, cmd) => {
        asked.push(cmd.length);
        return undefined;
      },
    });
    const good = proposal(kv.put("a", "b"));
    const bad: Uint8Array[] = [
      new Uint8Array(),
      new Uint8Array([0]),
      new Uint8Array([0xff, 1, 2]),
      new Uint8Array([0x12, 1]),
      claimRecord(1, 2n, 3n).subarray(0, 9),
      registerRecord(1n, new Uint8Array(5)).subarray(0, 10),
    ];
    for (const record of bad) {
      const client = await w.client();
      client.append(1, packRecords(good, record));
      const { code, reason } = await client.end();
      assertEquals(code, 4400);
      assertMatch(reason, /^Part 1 of an append is not a record: /);
    }
    await w.env.advance(100);
    assertEquals(asked, []);
    assertEquals(await w.replica.read(kv.count()), 0);
    await w.stop();
  }),
);

Deno.test(
  "case A12: a frame with a record that only a server writes ends the connection and appends nothing [H11]",
  checked(async () => {
    const w = await world();
    const good = proposal(kv.put("a", "b"));
    const bad = [
      epochRecord(1n),
      configRecord(5),
      skipEntryRecord(1, "Not wanted"),
    ];
    for (const record of bad) {
      const client = await w.client();
      client.append(1, packRecords(good, record));
      const { code, reason } = await client.end();
      assertEquals(code, 4400);
      assertMatch(reason, /^Part 1 .* only a server writes$/);
    }
    await w.env.advance(100);
    assertEquals(w.replica.error, undefined);
    assertEquals(await w.replica.read(kv.count()), 0);
    await w.stop();
  }),
);

Deno.test(
  "case A12: each record costs some tens of bytes of credit, however short it is [H11]",
  checked(async () => {
    const creditBytes = 100 * SYNC_RECORD_CREDIT_BYTES;
    const w = await world({
      limits: { creditBytes },
      validate: () => new Promise(() => {}),
    });
    const client = await w.client();
    assertEquals(client.append(1, puts(100)), creditBytes);
    client.append(2, puts(1));
    const { code, reason } = await client.end();
    assertEquals(code, 4413);
    assertMatch(reason, /was sent without credit/);
    await w.stop();
  }),
);

/** Time until a client has been granted the credit of `frames` appends of 100 commands, in milliseconds. */
Deno.test(
  "case A5: rejected requests are logged at a bounded rate [H11]",
  checked(async () => {
    const w = await world({ authenticate: () => undefined });
    const pages = new OriginPolicy(undefined, undefined);
    const ask = async (): Promise<void> => {
      const request = new Request("http://sync.test/clusters/1/snapshot");
      const response = await handle(w.core, request, pages)!;
      assertEquals(response.status, 401);
    };
    for (let i = 0; i < 3 * SYNC_LOG_RECORDS_MAX; i++) await ask();
    assertEquals(w.log.length, SYNC_LOG_RECORDS_MAX);
    await w.env.advance(1_000);
    await ask();
    const [more, last] = w.log.slice(SYNC_LOG_RECORDS_MAX);
    assertEquals(more!.reason, `${2 * SYNC_LOG_RECORDS_MAX} more refusals`);
    assertEquals(last!.event, "request failed");
    await w.stop();
  }),
);

Deno.test(
  "case A11: slow snapshot transfers are evicted when others need their slots, over HTTP and over WebSockets [H11, U26]",
  checked(async () => {
    const transfers = 2;
    const w = await world({ limits: { transfers } });
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    for (let i = 0; i < 20; i++) {
      await w.env.until(w.replica.propose(kv.put(`k${i}`, noise)), 10);
    }
    const pages = new OriginPolicy(undefined, undefined);
    const download = async (): Promise<Response> => {
      const request = new Request("http://sync.test/clusters/1/snapshot");
      return await w.env.until(handle(w.core, request, pages)!, 10);
    };
    const slow = w.connect();
    slow.isReading = false;
    await slow.hello({ credit: 1 });
    await slow.open();
    slow.send({ type: "fetch", channel: 1, stream: 1 });
    await slow.next("snapshot");
    const slower = await download();
    const reader = slower.body!.getReader();
    assertEquals((await download()).status, 503);
    for (let i = 0; i < 2; i++) {
      await w.env.advance(16_000);
      await w.env.until(reader.read(), 10);
      slow.send({ type: "credit", bytes: 70_000 });
    }
    const goods = [await download(), await download()];
    // Transfers that have just started keep their slots.
    assertEquals((await download()).status, 503);
    for (const good of goods) {
      assertEquals(good.status, 200);
      const bytes = await w.env.until(good.bytes(), 10);
      assert(bytes.length > 1_000_000);
    }
    const cut = await reader.read().then(() => "", (error) => error.message);
    assertMatch(cut, /too slow while others waited/);
    assertMatch(
      (await slow.next("end", 1)).message,
      /too slow while others waited/,
    );
    assertEquals(slow.ending, undefined);
    await reader.cancel().catch(() => {});
    await w.stop();
    assertEquals(w.core.quotas.transfers, 0);
  }),
);

Deno.test(
  "case A12: few frames are sent ahead to a client that accepts small frames only [H11, U26]",
  checked(async () => {
    const w = await world();
    for (let i = 0; i < 40; i++) {
      const value = new Uint8Array(60 * 1024);
      await w.env.until(w.replica.propose(kv.put(`k${i}`, value)), 10);
    }
    const client = w.connect();
    client.isReading = false;
    await client.hello({
      credit: 2 ** 40,
      frameBytesMax: SYNC_FRAME_BYTES_MIN,
    });
    await client.open();
    client.server.isStuck = true;
    client.read(1, 0);
    await w.env.advance(1_000);
    const { bufferedBytes } = client.server;
    const most = SYNC_BUFFERED_FRAMES_MAX * SYNC_FRAME_BYTES_MIN;
    // One more message may exceed the bound.
    assert(
      bufferedBytes < most + 1.1 * SYNC_FRAME_BYTES_MAX,
      `${bufferedBytes}`,
    );
    await w.stop();
  }),
);

async function sendAll(
  w: World,
  token: string,
  frames: number,
  connections: number,
  records = puts(100),
): Promise<number> {
  const from = w.env.now();
  await Promise.all(Array.from({ length: connections }, async () => {
    const client = await w.client(token);
    client.stepMs = 10;
    let granted = 10_000;
    for (let stream = 1; stream <= frames / connections; stream++) {
      while (granted <= 0) granted += (await client.next("credit")).bytes;
      granted -= client.append(stream, records);
    }
    client.transport.close(1000, "");
  }));
  return w.env.now() - from;
}

Deno.test(
  "case A12: a refused record costs as much as many commands, and equal reasons in a row are sent once [H11]",
  checked(async () => {
    const w = await world({
      limits: { creditBytes: 10_000, commandsPerSecond: 1_000 },
    });
    const client = await w.client();
    client.append(
      1,
      packRecords(
        unregisterRecord(98),
        unregisterRecord(99),
        unregisterRecord(99),
      ),
    );
    const { refused, reasons } = await client.next("appended");
    assertEquals(refused, [0, 1, 2]);
    assertEquals(reasons, [
      "There is no session 98 yet",
      "There is no session 99 yet",
      "",
    ]);
    const accepted = await sendAll(w, "ann", 20, 1);
    const gone = Array.from({ length: 100 }, () => unregisterRecord(1e9));
    const refusedMs = await sendAll(w, "ann", 20, 1, packRecords(...gone));
    assert(refusedMs > 10 * accepted, `${refusedMs} ms, ${accepted} ms`);
    await w.stop();
  }),
);

Deno.test(
  "case A12: commands per second are bounded for a principal across its connections and reconnects [H11]",
  checked(async () => {
    const w = await world({
      authenticate: bearerOf,
      limits: { creditBytes: 10_000, commandsPerSecond: 100 },
    });
    const alone = await sendAll(w, "ann", 20, 1);
    assert(alone > 8_000, `${alone} ms`);
    await w.env.advance(60_000);
    const many = await sendAll(w, "bob", 20, 4, puts(100, 8));
    assert(many > 8_000, `${many} ms`);
    // The messages before the reconnect are charged to this client only.
    const again = await sendAll(w, "bob", 3, 1);
    const other = await sendAll(w, "cid", 2, 1);
    assert(again > 2_000, `${again} ms`);
    assert(other < 500, `${other} ms`);
    await w.stop();
  }),
);

/** Environment whose clock advances with the work done. */
class WorkEnv extends ManualEnv {
  turns = 0;

  override turn(): Promise<void> {
    this.turns++;
    return super.turn();
  }
}

Deno.test("case A12: under load, the messages of all connections are handled in turn [H11, U26]", async () => {
  const env = new WorkEnv();
  const scheduler = new FairScheduler(env, new LoadLimiter(env));
  const done: string[] = [];
  const ends: unknown[] = [];
  const [bad, good] = [{}, {}];
  const send = (owner: object, name: string): void => {
    ends.push(scheduler.run(owner, () => {
      env.jump(SYNC_SLICE_MS * 3 / 8);
      done.push(name);
      return name;
    }));
  };
  // Many frames of one connection have arrived, then one of another.
  for (let i = 0; i < 20; i++) send(bad, `bad ${i}`);
  send(good, "good");
  assertEquals(done, ["bad 0", "bad 1", "bad 2"]);
  await settle();
  assertEquals(done.indexOf("good"), 4);
  assertEquals(done.length, 21);
  assertEquals(done.filter((name) => name !== "good"), [
    ...Array(20).keys().map((i) => `bad ${i}`),
  ]);
  assert(env.turns >= 6, `${env.turns} turns`);
  assertEquals(
    await Promise.all(ends),
    [...ends.keys()].map((i) => i === 20 ? "good" : `bad ${i}`),
  );
  // The debt is paid.
  await env.advance(1_000);
  send(bad, "later");
  assertEquals(done.at(-1), "later");
});

Deno.test(
  "case A13: a principal that may no longer read gets no entries after three seconds, and its channel is closed [H18]",
  checked(async () => {
    let may: unknown = true;
    let asked = 0;
    const w = await world({
      authorize: (_who, _cluster, action) => {
        if (action === "read") asked++;
        return may as boolean;
      },
    });
    const [reader, other] = [await w.client(), await w.client()];
    for (const client of [reader, other]) {
      client.read(1, 0);
      await client.next("reading");
    }
    for (let i = 0; i < 20; i++) {
      await w.env.until(w.replica.propose(kv.put("k", `${i}`)), 10);
      await w.env.advance(500);
    }
    // Not for each batch: once every two seconds for each channel.
    assert(asked >= 8 && asked <= 16, `${asked} times`);
    await reader.entriesUpTo(21);
    may = false;
    const from = w.env.now();
    while (!reader.messages.some(({ type }) => type === "refused")) {
      await w.env.until(w.replica.propose(kv.put("secret", "s")), 10);
      await w.env.advance(100);
    }
    assert(w.env.now() - from <= 3_000, `${w.env.now() - from} ms`);
    const refused = await reader.next("refused");
    assertEquals([refused.channel, refused.code], [1, 4403]);
    reader.messages.length = 0;
    await w.env.until(w.replica.propose(kv.put("later", "s")), 10);
    await w.env.advance(1_000);
    assertEquals(reader.messages, []);
    assertEquals(reader.ending, undefined);
    await w.stop();
  }),
);

for (const isSync of [true, false]) {
  Deno.test(
    `case A13: reads, snapshots, indexes and hashes are refused once the right to read is withdrawn, asked ${
      isSync ? "at once" : "with a wait"
    } [H11]`,
    checked(async () => {
      let may = true;
      const w = await world({
        authorize: () => isSync ? may : Promise.resolve(may),
      });
      const asks: ((client: Awaited<ReturnType<World["client"]>>) => void)[] = [
        (client) => client.read(5, 0),
        (client) => client.send({ type: "fetch", channel: 1, stream: 5 }),
        (client) => client.send({ type: "readIndex", channel: 1, stream: 5 }),
        (client) =>
          client.send({
            type: "explain",
            channel: 1,
            stream: 5,
            after: 0,
            upTo: 1,
          }),
      ];
      for (const ask of asks) {
        may = true;
        const client = await w.client();
        await w.env.advance(4_000);
        may = false;
        ask(client);
        assertEquals((await client.next("refused")).code, 4403);
        await w.env.advance(1_000);
        assertEquals(
          client.messages.filter(({ type }) => type !== "checkpoint"),
          [],
        );
        // The permission may return.
        may = true;
        await client.open();
        client.read(6, 0);
        await client.next("reading");
        client.transport.close(1000, "");
        await w.env.advance(100);
      }
      await w.stop();
    }),
  );
}

Deno.test(
  "case A13: while authorize() does not settle, or fails, no entry is sent later than three seconds after the last permission; sending resumes by itself [U17]",
  checked(async () => {
    let may: () => boolean | Promise<boolean> = () => true;
    const w = await world({ authorize: () => may() });
    const client = await w.client();
    client.stepMs = 100;
    client.read(1, 0);
    await client.next("reading");
    await w.env.until(w.replica.propose(kv.put("k", "v")), 10);
    await client.entriesUpTo(2);
    for (
      const hook of [
        (): Promise<boolean> => new Promise(() => {}),
        (): boolean => {
          throw new Error("LDAP directory is down");
        },
      ]
    ) {
      may = hook;
      await w.env.advance(3_001);
      const first = w.replica.appliedIndex + 1;
      await w.env.until(w.replica.propose(kv.put("k", "v")), 10);
      await w.env.advance(5_000);
      assertEquals(
        client.messages.filter(({ type }) => type === "entries"),
        [],
      );
      may = () => true;
      // A pending hook times out first.
      await w.env.advance(10_000);
      await client.entriesUpTo(first, first - 1);
    }
    assert(w.log.some(({ event }) => event === "authorize failed"));
    assertEquals(client.ending, undefined);
    await w.stop();
  }),
);

Deno.test(
  "case A13: a snapshot transfer ends when the permission to read is revoked, over a WebSocket and over HTTP [H11]",
  checked(async () => {
    let may = true;
    const w = await world({ authorize: () => may });
    for (let i = 0; i < 8; i++) {
      const value = crypto.getRandomValues(new Uint8Array(60_000));
      await w.env.until(w.replica.propose(kv.put(`${i}`, value)), 10);
    }
    const client = w.connect();
    await client.hello({ credit: 1_000 });
    await client.open();
    client.isReading = false;
    client.send({ type: "fetch", channel: 1, stream: 1 });
    await client.next("chunk");
    const download = await w.env.until(
      handle(
        w.core,
        new Request("http://sync.test/clusters/1/snapshot"),
        new OriginPolicy(undefined, undefined),
      )!,
    );
    const reader = download.body!.getReader();
    await w.env.until(reader.read(), 10);
    may = false;
    await w.env.advance(3_000);
    client.messages.length = 0;
    client.send({ type: "credit", bytes: 1 << 30 });
    assertEquals((await client.next("refused")).code, 4403);
    assertEquals(client.messages.filter(({ type }) => type === "chunk"), []);
    const end = await w.env.until(
      reader.read().then(() => "more", (error) => `${error.message}`),
      10,
    );
    assertMatch(end, /may no longer read this cluster/);
    await w.stop();
  }),
);
