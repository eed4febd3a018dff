import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertThrows,
} from "@std/assert";
import {
  BATCH_RECORDS_MAX,
  EXPLAIN_ENTRIES_MAX,
  SYNC_FRAME_BYTES_MAX,
  SYNC_TEXT_BYTES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../../src/limits.ts";
import { ErrProtocol } from "../../src/sync/errors.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import { decodeFromClient } from "../../src/sync/server/hello.ts";
import type { EndReason, Message } from "../../src/sync/messages.ts";
import { random32 } from "../support/random.ts";

const seed = Number(
  Deno.env.get("SEED") ?? Math.floor(Math.random() * 2 ** 31),
);

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(
    text.split(/\s+/).filter((byte) => byte !== ""),
    (byte) => parseInt(byte, 16),
  );
}

const bytes = new Uint8Array([0xaa, 0xbb]);
const epoch = 0x0102030405060708n;

/** One message of each type, with its frame. */
const GOLDEN: { readonly [type in Message["type"]]: [Message, string] } = {
  hello: [{
    type: "hello",
    first: 2,
    last: 2,
    token: "tok",
    credit: 300,
    frameBytesMax: 1024,
    renews: true,
  }, "98 01 02 02 c0 00 00 c0 c5 00 0a 01 03 74 6f 6b ac 02 80 08 01"],
  welcome: [{
    type: "welcome",
    version: 2,
    principal: "ann",
    credit: 300,
    frameBytesMax: 1024,
    commandBytesMax: 1000,
    heartbeatMs: 15000,
  }, "02 02 03 61 6e 6e ac 02 80 08 e8 07 98 75"],
  open: [
    { type: "open", channel: 1, clusterID: 1n, nodeID: 2n ** 64n - 1n },
    "03 01 01 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff",
  ],
  opened: [
    { type: "opened", channel: 1, last: 128, trusted: 7n },
    "04 01 80 01 07 00 00 00 00 00 00 00",
  ],
  refused: [
    { type: "refused", channel: 1, code: 4404, reason: "é" },
    "05 01 b4 22 02 c3 a9",
  ],
  close: [{ type: "close", channel: 1 }, "06 01"],
  read: [{
    type: "read",
    channel: 1,
    stream: 2,
    after: Number.MAX_SAFE_INTEGER,
    epochIndex: 3,
    epochID: epoch,
    far: true,
    references: true,
  }, "07 01 02 ff ff ff ff ff ff ff 0f 03 08 07 06 05 04 03 02 01 01 01"],
  reading: [{ type: "reading", stream: 2, last: 9 }, "08 02 09"],
  entries: [
    {
      type: "entries",
      stream: 2,
      follows: 4,
      first: 6,
      last: 9,
      lengths: [1, 70, 1],
      references: [{ at: 1, count: 1, session: 300, series: 4, digest: epoch }],
      bytes,
    },
    "09 02 04 06 09 03 01 46 01 01 01 01 ac 02 04 08 07 06 05 04 03 02 01 aa bb",
  ],
  end: [
    { type: "end", stream: 2, reason: "diverged", first: 5, message: "no" },
    "0a 02 03 05 02 6e 6f",
  ],
  stop: [{ type: "stop", stream: 2 }, "0b 02"],
  append: [
    { type: "append", channel: 1, stream: 3, lengths: [2], bytes },
    "0c 01 03 01 02 aa bb",
  ],
  appended: [{
    type: "appended",
    stream: 3,
    first: 7,
    refused: [0, 2],
    reasons: ["no", ""],
  }, "0d 03 07 02 00 02 02 02 6e 6f 00"],
  failed: [
    { type: "failed", stream: 3, unknown: true, message: "no" },
    "0e 03 01 02 6e 6f",
  ],
  held: [{ type: "held", channel: 1, reason: "wait" }, "1a 01 04 77 61 69 74"],
  waits: [
    { type: "waits", channel: 1, code: 2, retryMs: 250, reason: "wait" },
    "22 01 02 fa 01 04 77 61 69 74",
  ],
  unable: [
    { type: "unable", channel: 1, code: 1, reason: "full" },
    "1b 01 01 04 66 75 6c 6c",
  ],
  readIndex: [{ type: "readIndex", channel: 1, stream: 4 }, "0f 01 04"],
  verify: [{
    type: "verify",
    channel: 1,
    stream: 4,
    index: 9,
    epochIndex: 3,
    epochID: epoch,
  }, "1c 01 04 09 03 08 07 06 05 04 03 02 01"],
  index: [{ type: "index", stream: 4, index: 9 }, "10 04 09"],
  checkpoint: [
    {
      type: "checkpoint",
      channel: 1,
      nodeID: 7n,
      index: 9,
      state: epoch,
      sessions: 1n,
      stateVersion: 2,
    },
    "11 01 07 00 00 00 00 00 00 00 09 01 08 07 06 05 04 03 02 01 01 00 00 00 00 00 00 00 02",
  ],
  explain: [
    { type: "explain", channel: 1, stream: 5, after: 1, upTo: 3 },
    "12 01 05 01 03",
  ],
  hashes: [
    {
      type: "hashes",
      stream: 5,
      indexes: [2, 3],
      states: [1n, 2n],
      sessions: [3n, 4n],
      stateVersions: [1, 2],
    },
    "13 05 02 02 03 02 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 02 03 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00 02 01 02",
  ],
  fetch: [{ type: "fetch", channel: 1, stream: 6 }, "14 01 06"],
  snapshot: [
    {
      type: "snapshot",
      stream: 6,
      nodeID: 7n,
      machine: 1,
      index: 9,
      epochIndex: 3,
      epochID: epoch,
      compression: "gzip",
      files: 2,
      size: 70000,
    },
    "15 06 07 00 00 00 00 00 00 00 01 09 03 08 07 06 05 04 03 02 01 04 67 7a 69 70 02 f0 a2 04",
  ],
  chunk: [{ type: "chunk", stream: 6, bytes }, "16 06 aa bb"],
  credit: [{ type: "credit", bytes: 300 }, "17 ac 02"],
  ping: [{ type: "ping" }, "18"],
  pong: [{ type: "pong" }, "19"],
  part: [{ type: "part", isLast: true, bytes }, "1e 01 aa bb"],
  renew: [{ type: "renew", withinMs: 1000 }, "1f e8 07"],
  token: [{ type: "token", token: undefined }, "20 00"],
};

for (const [type, [message, frame]] of Object.entries(GOLDEN)) {
  Deno.test(`encodeMessage() and decodeFromClient() keep the bytes of a ${type}`, () => {
    assertEquals(hex(encodeMessage(message)), frame);
    assertEquals(decodeFromClient(fromHex(frame)), message);
  });
}

type Random = () => number;

const END_REASONS: readonly EndReason[] = [
  "done",
  "compacted",
  "far",
  "diverged",
  "none",
  "failed",
];

/** Another value of the same kind, near a bound or anywhere. */
function anyValue(random: Random, name: string, value: unknown): unknown {
  const pick = <T>(...values: readonly T[]): T =>
    values[random() % values.length]!;
  const number = (): number =>
    pick(0, 1, 127, 128, random(), 2 ** 40 + random(), 2 ** 53 - 1);
  if (name === "reason" && END_REASONS.includes(value as EndReason)) {
    return pick(...END_REASONS);
  }
  if (name === "first" && value === 2) return 1 + random() % 2;
  if (name === "last" && value === 2) return 2 + random() % 126;
  if (name === "token") return pick(undefined, "", "ö".repeat(8192), "a");
  switch (typeof value) {
    case "number":
      return number();
    case "bigint":
      return pick(0n, 1n, BigInt(random()), 2n ** 64n - 1n);
    case "string":
      return pick("", "é€😀\ufeff\0", "x".repeat(random() % 1025));
    case "boolean":
      return random() % 2 === 0;
    case "undefined":
      return value;
  }
  if (value instanceof Uint8Array) {
    return Uint8Array.from({ length: random() % 300 }, random);
  }
  if (!Array.isArray(value)) {
    return anyFields(random, value as Readonly<Record<string, unknown>>);
  }
  const values: readonly unknown[] = value;
  const length = (name === "lengths" ? 1 : 0) + random() % 20;
  return Array.from({ length }, () => anyValue(random, "", values[0]));
}

function anyFields(
  random: Random,
  fields: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      name === "type" ? value : anyValue(random, name, value),
    ]),
  );
}

function anyMessage(random: Random): Message {
  const all = Object.values(GOLDEN);
  const [golden] = all[random() % all.length]!;
  return anyFields(random, { ...golden }) as unknown as Message;
}

Deno.test("decodeFromClient() returns what encodeMessage() was given, for messages of any content", () => {
  const random = random32(seed);
  for (let i = 0; i < 5_000; i++) {
    const message = anyMessage(random);
    // `u64?`: the hash of a machine without one.
    if (message.type === "checkpoint" && random() % 2 === 0) {
      Object.assign(message, { state: undefined });
    }
    assertEquals(decodeFromClient(encodeMessage(message)), message, `${seed}`);
  }
});

Deno.test("decodeFromClient() takes no damaged frame for a message, or one whose encoding it is [H11]", () => {
  const random = random32(seed);
  let refused = 0;
  for (let i = 0; i < 6_000; i++) {
    let frame = encodeMessage(anyMessage(random)).slice();
    switch (random() % 3) {
      case 0:
        frame = frame.slice(0, random() % frame.length);
        break;
      case 1:
        frame = new Uint8Array([...frame, random()]);
        break;
      default:
        for (let j = random() % 3; j >= 0; j--) {
          frame[random() % frame.length] = random();
        }
    }
    let message: Message;
    try {
      message = decodeFromClient(frame);
    } catch (error) {
      assertInstanceOf(error, ErrProtocol, `${seed}`);
      refused++;
      continue;
    }
    // Later versions may append fields to these two; of a hello of version 1 only the versions are read.
    if (message.type === "hello" || message.type === "welcome") continue;
    assertEquals(hex(encodeMessage(message)), hex(frame), `${seed}`);
  }
  assert(refused > 1_500, `${refused} were refused`);
});

Deno.test("decodeFromClient() refuses each frame that is not exactly a message, and says why [H11]", () => {
  const cases: readonly (readonly [frame: string, words: string])[] = [
    ["", "Frame has 0 bytes"],
    ["63", "unknown message code 99"],
    ["01 00", "unknown message code 1"],
    ["18 00", "Message ping is followed by 1 more byte"],
    ["06", "Field channel of message close is malformed"],
    ["06 80 00", "not in its shortest form"],
    ["06 ff ff ff ff ff ff ff 7f", "too large"],
    ["06 80 80 80 80 80 80 80 80 01", "too large"],
    ["03 01 01 00 00 00 00 00 00", "Field clusterID of message open"],
    ["07 01 02 05 03 08 07 06 05 04 03 02 01 02 00", "Flag is 2"],
    ["09 02 04 06 09 01 46 02 00 01 01", "Array of 2 values"],
    ["0a 02 06 05 00", "6 is not a reason"],
    ["05 01 01 02 c3 28", "Field reason of message refused"],
    ["05 01 01 02 c3", "Field reason of message refused"],
    ["09 02 04 06 09 00", "Array has 0 lengths"],
    ["0c 01 03 81 08 01", "Array of 1025 values is over the limit of 1024"],
    ["0d 03 07 05 00", "Array of 5 values"],
    ["13 05 00 05 01", "Array of 5 values"],
    ["98 01 03 02 c0 00 00 c0 c5 00 04 00 00 00 00", "versions 3 to 2"],
    ["98 01 02 80 c0 00 00 c0 c5 00 04 00 00 00 00", "versions 2 to 128"],
    ["98 01 02 02 c1 00 00 c0 c5 00 04 00 00 00 00", "no valid preamble"],
    ["98 01 02 02 c0 00 00 c0 c5 00 05 00 00 00 00", "no valid preamble"],
    ["98 01 02 02 c0 00 00 c0 c5 00", "no valid preamble"],
    ["98 01 02 02 c0 00 00 c0 c5 00 03 00 00 00", "Field renews"],
  ];
  for (const [frame, words] of cases) {
    assertThrows(() => decodeFromClient(fromHex(frame)), ErrProtocol, words);
  }
});

Deno.test("decodeFromClient() bounds texts, tokens and arrays before it allocates anything for them [H11]", () => {
  const text = (length: number): Uint8Array =>
    encodeMessage({ type: "held", channel: 1, reason: "€".repeat(length) });
  decodeFromClient(text(SYNC_TEXT_BYTES_MAX));
  assertThrows(
    () => decodeFromClient(text(SYNC_TEXT_BYTES_MAX + 1)),
    ErrProtocol,
    "over the limit",
  );
  assertThrows(
    () =>
      decodeFromClient(
        encodeMessage({
          type: "held",
          channel: 1,
          reason: "x".repeat(SYNC_TEXT_BYTES_MAX + 1),
        }),
      ),
    ErrProtocol,
    "Text of 1025 characters is over the limit of 1024",
  );
  const token = (length: number): Uint8Array =>
    encodeMessage({ type: "token", token: "x".repeat(length) });
  decodeFromClient(token(SYNC_TOKEN_BYTES_MAX));
  assertThrows(
    () => decodeFromClient(token(SYNC_TOKEN_BYTES_MAX + 1)),
    ErrProtocol,
    "Length 16385 is over the limit of 16384",
  );
  const hashes = (count: number): Uint8Array =>
    encodeMessage({
      type: "hashes",
      stream: 1,
      indexes: new Array<number>(count).fill(1),
      states: [],
      sessions: [],
      stateVersions: [],
    });
  decodeFromClient(hashes(EXPLAIN_ENTRIES_MAX));
  assertThrows(
    () => decodeFromClient(hashes(EXPLAIN_ENTRIES_MAX + 1)),
    ErrProtocol,
    "over the limit",
  );
  const entries = (count: number): Uint8Array =>
    encodeMessage({
      type: "entries",
      stream: 1,
      follows: 0,
      first: 1,
      last: count,
      lengths: new Array<number>(count).fill(0),
      references: [],
      bytes,
    });
  decodeFromClient(entries(BATCH_RECORDS_MAX));
  assertThrows(
    () => decodeFromClient(entries(BATCH_RECORDS_MAX + 1)),
    ErrProtocol,
    "over the limit",
  );
  // A count of 2^53-1 in a large frame.
  const bomb = new Uint8Array(SYNC_FRAME_BYTES_MAX);
  bomb.set(fromHex("13 05 ff ff ff ff ff ff ff 0f"));
  assertThrows(() => decodeFromClient(bomb), ErrProtocol, "over the limit");
});

Deno.test("a welcome and a hello with fields that a later version appends are read without them [U14]", () => {
  const [welcome, frame] = GOLDEN.welcome;
  assertEquals(decodeFromClient(fromHex(`${frame} 01 02 03`)), welcome);
  assertEquals(
    decodeFromClient(
      fromHex("98 01 02 03 c0 00 00 c0 c5 00 07 00 05 80 08 00 ff ff"),
    ),
    {
      type: "hello",
      first: 2,
      last: 3,
      token: undefined,
      credit: 5,
      frameBytesMax: 1024,
      renews: false,
    },
  );
});

Deno.test("encodeMessage() replaces a lone surrogate of a text that is shown", () => {
  const frame = encodeMessage({ type: "held", channel: 1, reason: "a\ud800" });
  assertEquals(decodeFromClient(frame), {
    type: "held",
    channel: 1,
    reason: "a\ufffd",
  });
});
