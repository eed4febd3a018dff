/**
 * Worker with misbehaving connections of several kinds.
 *
 * This module needs Deno.
 *
 * @module
 */

/// <reference lib="webworker" />

import { kv } from "../../mod.ts";
import { SYNC_FRAME_BYTES_MAX } from "../../src/limits.ts";
import type { Message } from "../../src/sync/messages.ts";
import { random } from "../support/random.ts";
import {
  clientFrame as frame,
  helloFrame as hello,
  messageFrame as message,
  UPGRADE,
  writeAll,
} from "./raw_frames.ts";
import { packRecords, proposal, registerRecord } from "./server_support.ts";

/** Parameters of an attack by one worker. */
export interface Attack {
  /** Port of the server. */
  readonly port: number;
  /** Number of connections. */
  readonly count: number;
  /** Seed of all random choices. */
  readonly seed: number;
  /** Number of valid tokens; the connections share them. */
  readonly tokens: number;
}

/** Kinds of misbehaviour. */
export const MISBEHAVIORS = [
  "never ask",
  "ask for half",
  "never say hello",
  "send garbage",
  "send garbage after hello",
  "stall in a frame",
  "stall in a large frame",
  "send too large a frame",
  "never read",
  "ask and never read",
  "flood",
  "flood appends",
  "close at once",
  "close after the upgrade",
] as const;

type Misbehavior = typeof MISBEHAVIORS[number];

type Random = () => number;

const CHUNK_BYTES = 64 * 1024;

function read(channel: number, stream: number): Message {
  return {
    type: "read",
    channel,
    stream,
    after: 0,
    epochIndex: 0,
    epochID: 0n,
    far: false,
    references: false,
  };
}

function open(channel: number, clusterID: bigint): Message {
  return { type: "open", channel, clusterID, nodeID: 9n };
}

/** Makes a valid message that is abusive only by its frequency. */
function anyMessage(random: Random, stream: number): Message {
  const channel = 1 + Math.floor(random() * 3);
  switch (Math.floor(random() * 9)) {
    case 0:
      return { type: "ping" };
    case 1:
      return { type: "credit", bytes: 2 ** 40 };
    case 2:
      return open(channel, BigInt(Math.floor(random() * 3)));
    case 3:
      return { type: "close", channel };
    case 4:
      return read(channel, stream);
    case 5:
      return { type: "readIndex", channel, stream };
    case 6:
      return { type: "fetch", channel, stream };
    case 7:
      return { type: "explain", channel, stream, after: 0, upTo: 1000 };
    default:
      return { type: "stop", stream: Math.floor(random() * stream) };
  }
}

function appendOf(random: Random, stream: number): Message {
  const records = Array.from(
    { length: 1 + Math.floor(random() * 50) },
    (_, i) =>
      random() < 0.02
        ? registerRecord(BigInt(stream), new Uint8Array())
        : proposal(
          kv.put(`k${stream}`, new Uint8Array(Math.floor(random() * 1000))),
          i + 1,
          stream,
        ),
  );
  const { bytes, ends } = packRecords(...records);
  const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
  return { type: "append", channel: 1, stream, lengths, bytes };
}

/** Raw connection that is aborted at the end of the attack. */
class Hostile {
  readonly #conn: Deno.TcpConn;
  readonly #over: AbortSignal;

  constructor(conn: Deno.TcpConn, over: AbortSignal) {
    this.#conn = conn;
    this.#over = over;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#conn, bytes);
  }

  async upgrade(): Promise<void> {
    await this.write(UPGRADE);
    await this.hear();
  }

  /** Reads the next bytes. */
  async hear(): Promise<void> {
    await this.#conn.read(new Uint8Array(1024));
  }

  /** Reads everything and answers nothing, not even a close frame. */
  async listen(): Promise<void> {
    const bytes = new Uint8Array(CHUNK_BYTES);
    while (await this.#conn.read(bytes) !== null);
  }

  /** Waits until the end of the attack. */
  async stay(): Promise<void> {
    if (this.#over.aborted) return;
    await new Promise((resolve) =>
      this.#over.addEventListener("abort", resolve)
    );
  }
}

async function misbehave(
  hostile: Hostile,
  kind: Misbehavior,
  token: string,
  random: Random,
): Promise<void> {
  const garbage = (size: number): Uint8Array =>
    Uint8Array.from({ length: size }, () => random() * 256);
  if (kind === "close at once") return;
  if (kind === "never ask") return await hostile.stay();
  if (kind === "ask for half") {
    await hostile.write(new TextEncoder().encode("GET /sync HTTP/1.1\r\nHo"));
    return await hostile.stay();
  }
  await hostile.upgrade();
  switch (kind) {
    case "close after the upgrade":
      return;
    case "never say hello":
      return await hostile.stay();
    case "send garbage":
      // Fragmented garbage, or garbage in whole frames.
      await hostile.write(
        random() < 0.5 ? garbage(1000) : frame(garbage(1000)),
      );
      return await hostile.listen();
    case "send too large a frame":
      await hostile.write(frame(new Uint8Array(2 * SYNC_FRAME_BYTES_MAX)));
      return await hostile.listen();
    case "stall in a large frame":
      await hostile.write(frame(new Uint8Array(CHUNK_BYTES), 60 << 20));
      return await hostile.stay();
  }
  await hostile.write(hello(token));
  await hostile.hear();
  if (kind === "send garbage after hello") {
    await hostile.write(frame(garbage(1000)));
    return await hostile.listen();
  }
  if (kind === "stall in a frame") {
    await hostile.write(frame(new Uint8Array(100), 200));
    return await hostile.stay();
  }
  await hostile.write(message(open(1, 1n)));
  await hostile.hear();
  if (kind === "never read") {
    for (let i = 1; i < 8; i++) await hostile.write(message(read(1, i)));
    return await hostile.stay();
  }
  // Answers are read, or left in the socket's buffer.
  if (kind !== "ask and never read") hostile.listen().catch(() => {});
  for (let stream = 1;; stream++) {
    await hostile.write(message(
      kind === "flood appends"
        ? appendOf(random, stream)
        : anyMessage(random, stream),
    ));
  }
}

async function attack({ port, count, seed, tokens }: Attack): Promise<void> {
  const next = random(seed);
  const over = new AbortController();
  const conns = new Set<Deno.TcpConn>();
  self.onmessage = (): void => {
    over.abort();
    for (const conn of conns) conn.close();
    conns.clear();
    self.postMessage("over");
  };
  for (let i = 0; i < count; i++) {
    const kind = MISBEHAVIORS[Math.floor(next() * MISBEHAVIORS.length)]!;
    const token = next() < 0.9
      ? `mob ${Math.floor(next() * tokens)}`
      : `unknown ${i}`;
    const own = random(Math.floor(next() * 2 ** 32));
    const conn = await Deno.connect({ hostname: "127.0.0.1", port });
    conns.add(conn);
    misbehave(new Hostile(conn, over.signal), kind, token, own)
      // The server closed the connection, or the attack ended.
      .catch(() => {})
      .then(() => {
        if (conns.delete(conn)) conn.close();
      });
  }
  self.postMessage("all");
}

self.onmessage = ({ data }: MessageEvent<Attack>): void => void attack(data);
