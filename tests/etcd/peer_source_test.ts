import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { PeerSource } from "../../src/etcd/peer_source.ts";
import { ManualEnv } from "../support/environment.ts";

const SIZE = 400_000;
const BYTES = new Uint8Array(SIZE).map((_, i) => i * 7 & 0xff);

/** Answers of a server: its bytes from an offset on, in pieces, up to an end. */
interface Peer {
  readonly piece: number;
  /** Time between two pieces, in milliseconds. */
  readonly pauseMs?: number;
  /** Position at which it stops sending. */
  readonly end?: number;
  /** True if it stays open there. */
  readonly hangs?: boolean;
  readonly status?: number;
}

function setUp(
  peers: Readonly<Record<string, Peer>>,
  isSingle = false,
): {
  env: ManualEnv;
  source: PeerSource;
  faults: string[];
  asked: string[];
  read: () => Promise<Uint8Array>;
} {
  const env = new ManualEnv();
  const faults: string[] = [];
  const asked: string[] = [];
  const source = new PeerSource({
    env,
    size: SIZE,
    isSingle,
    waitMs: 15_000,
    signal: new AbortController().signal,
    holders: () => Promise.resolve(Object.keys(peers)),
    request: (url, offset) => {
      asked.push(`${url} ${offset}`);
      const { piece, pauseMs = 0, end = SIZE, hangs, status } = peers[url]!;
      if (status !== undefined) {
        return Promise.resolve(new Response("no", { status }));
      }
      let at = offset;
      const body = new ReadableStream<Uint8Array>({
        async pull(controller): Promise<void> {
          if (pauseMs > 0) {
            await new Promise<void>((resolve) =>
              void env.setTimer(resolve, pauseMs)
            );
          }
          const next = Math.min(at + piece, end);
          if (next > at) controller.enqueue(BYTES.slice(at, next));
          else if (hangs) return await new Promise(() => {});
          else controller.close();
          at = next;
        },
      }, { highWaterMark: 0 });
      return Promise.resolve(
        new Response(body, { status: offset === 0 ? 200 : 206 }),
      );
    },
    fault: (url, reason) => void faults.push(`${url}: ${reason}`),
  });
  const read = async (): Promise<Uint8Array> =>
    new Uint8Array(
      await new Response(
        source.readable as ReadableStream<Uint8Array<ArrayBuffer>>,
      ).arrayBuffer(),
    );
  return { env, source, faults, asked, read };
}

Deno.test("H8 a transfer that is cut in the middle continues at another server where it ended", async () => {
  for (const hangs of [false, true]) {
    const { env, source, faults, asked, read } = setUp({
      a: { piece: 50_000, end: 150_000, hangs },
      b: { piece: 50_000, end: 250_000, hangs },
      c: { piece: 50_000 },
    });
    assertEquals(await env.until(read(), 1_000), BYTES);
    assertEquals(source.received, SIZE);
    assertEquals(new Set(asked.map((one) => one[0])).has("c"), true);
    // Nothing is sent twice.
    assertEquals(
      asked.map((one) => Number(one.slice(2))),
      asked.map((one) => Number(one.slice(2))).sort((x, y) => x - y),
    );
    for (const fault of faults) {
      assertMatch(
        fault,
        hangs
          ? /Sent fewer than 65536 bytes in 10000 ms/
          : /Ended after \d+ of 400000 bytes/,
      );
    }
  }
});

Deno.test("H8 a server that sends less than 64 KiB in 10 s is left for another one; one that is slow and above is not", async () => {
  const slow = setUp({ a: { piece: 5_000, pauseMs: 1_000 } });
  const reading = slow.read();
  reading.catch(() => {});
  await slow.env.advance(9_000);
  assertEquals(slow.faults, []);
  await slow.env.advance(3_000);
  assertMatch(slow.faults[0]!, /^a: Sent fewer than 65536 bytes in 10000 ms/);
  // It is the only one: it is asked again for the rest.
  assertEquals(await slow.env.until(reading, 1_000), BYTES);
  assert(slow.asked.length > 5);
  const enough = setUp({ a: { piece: 8_000, pauseMs: 1_000 } });
  assertEquals(await enough.env.until(enough.read(), 1_000), BYTES);
  assertEquals(enough.faults, []);
});

Deno.test("a snapshot that no server sends fails after 15 s with the last reason", async () => {
  const { env, source, read } = setUp({ a: { piece: 1, status: 403 } });
  const error = await assertRejects(() => env.until(read(), 500), Error);
  assertMatch(error.message, /no byte for 1\d s .*a: Answered with status 403/);
  assert(source.hasFailed);
});

Deno.test("R5 an error answer of a server is read up to a bound, however much it sends", async () => {
  const env = new ManualEnv();
  const faults: string[] = [];
  let sent = 0;
  const source = new PeerSource({
    env,
    size: SIZE,
    isSingle: false,
    waitMs: 15_000,
    signal: new AbortController().signal,
    holders: () => Promise.resolve(["a"]),
    request: () =>
      Promise.resolve(
        new Response(
          new ReadableStream<Uint8Array>({
            pull(controller): void {
              if (sent > 1_000_000) throw new Error(`${sent} bytes were read`);
              sent += 1000;
              controller.enqueue(new Uint8Array(1000).fill(0x78));
            },
          }, { highWaterMark: 0 }),
          { status: 500 },
        ),
      ),
    fault: (url, reason) => void faults.push(`${url}: ${reason}`),
  });
  const reader = source.readable.getReader();
  const read = reader.read();
  read.catch(() => {});
  await env.advance(100);
  assertMatch(faults[0]!, /^a: Answered with status 500 x{200}$/);
  assert(sent / faults.length <= 3000, `${sent} bytes`);
  await reader.cancel();
});

Deno.test("where all bytes must be of one server, another one is not asked for the rest", async () => {
  const { env, source, asked, read } = setUp({
    a: { piece: 50_000, end: 150_000 },
    b: { piece: 50_000, end: 150_000 },
  }, true);
  const error = await assertRejects(() => env.until(read(), 500), Error);
  assertMatch(error.message, /Ended after 150000 of 400000 bytes/);
  assertEquals(asked.length, 1);
  assertEquals(source.contributors.size, 1);
});
