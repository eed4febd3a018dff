/**
 * Binary encoding of the messages of the sync protocol: a code of one byte, then
 * the fields in the order of `LAYOUTS`.
 *
 * Decoding checks every field: a frame that is not exactly the encoding of one
 * message is an `ErrProtocol`. A count or length is compared with the bytes that
 * are there before anything is allocated for it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, encodeShown, varintLength } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import {
  BATCH_RECORDS_MAX,
  EXPLAIN_ENTRIES_MAX,
  SYNC_TEXT_BYTES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../limits.ts";
import { ErrProtocol } from "./errors.ts";
import type {
  Append,
  EndReason,
  Hello,
  Message,
  Reference,
} from "./messages.ts";

/** Reasons why streams end, in the order of their numbers on the wire. */
const END_REASONS: readonly EndReason[] = [
  "done",
  "compacted",
  "far",
  "diverged",
  "none",
  "failed",
];

/** Encodings of fields; `protocol.md` defines each. */
type FieldType =
  | "uint"
  | "u64"
  | "u64?"
  | "flag"
  | "text"
  | "token"
  | "lengths"
  | "references"
  | "uints"
  | "u64s"
  | "texts"
  | "end"
  | "rest";

type Layout = readonly [
  code: number,
  ...fields: (readonly [name: string, type: FieldType])[],
];

/**
 * Code and fields of each message; no code is ever used for another message. A
 * hello begins with its preamble in place of a code.
 */
const LAYOUTS: { readonly [type in Message["type"]]: Layout } = {
  hello: [
    1,
    ["token", "token"],
    ["credit", "uint"],
    ["frameBytesMax", "uint"],
    ["renews", "flag"],
  ],
  welcome: [
    2,
    ["version", "uint"],
    ["principal", "text"],
    ["credit", "uint"],
    ["frameBytesMax", "uint"],
    ["commandBytesMax", "uint"],
    ["heartbeatMs", "uint"],
  ],
  open: [3, ["channel", "uint"], ["clusterID", "u64"], ["nodeID", "u64"]],
  opened: [4, ["channel", "uint"], ["last", "uint"], ["trusted", "u64"]],
  refused: [5, ["channel", "uint"], ["code", "uint"], ["reason", "text"]],
  close: [6, ["channel", "uint"]],
  read: [
    7,
    ["channel", "uint"],
    ["stream", "uint"],
    ["after", "uint"],
    ["epochIndex", "uint"],
    ["epochID", "u64"],
    ["far", "flag"],
    ["references", "flag"],
  ],
  reading: [8, ["stream", "uint"], ["last", "uint"]],
  entries: [
    9,
    ["stream", "uint"],
    ["follows", "uint"],
    ["first", "uint"],
    ["last", "uint"],
    ["lengths", "lengths"],
    ["references", "references"],
    ["bytes", "rest"],
  ],
  end: [
    10,
    ["stream", "uint"],
    ["reason", "end"],
    ["first", "uint"],
    ["message", "text"],
  ],
  stop: [11, ["stream", "uint"]],
  append: [
    12,
    ["channel", "uint"],
    ["stream", "uint"],
    ["lengths", "lengths"],
    ["bytes", "rest"],
  ],
  appended: [
    13,
    ["stream", "uint"],
    ["first", "uint"],
    ["refused", "uints"],
    ["reasons", "texts"],
  ],
  failed: [14, ["stream", "uint"], ["unknown", "flag"], ["message", "text"]],
  readIndex: [15, ["channel", "uint"], ["stream", "uint"]],
  index: [16, ["stream", "uint"], ["index", "uint"]],
  checkpoint: [
    17,
    ["channel", "uint"],
    ["nodeID", "u64"],
    ["index", "uint"],
    ["state", "u64?"],
    ["sessions", "u64"],
    ["stateVersion", "uint"],
  ],
  explain: [
    18,
    ["channel", "uint"],
    ["stream", "uint"],
    ["after", "uint"],
    ["upTo", "uint"],
  ],
  hashes: [
    19,
    ["stream", "uint"],
    ["indexes", "uints"],
    ["states", "u64s"],
    ["sessions", "u64s"],
    ["stateVersions", "uints"],
  ],
  fetch: [20, ["channel", "uint"], ["stream", "uint"]],
  snapshot: [
    21,
    ["stream", "uint"],
    ["nodeID", "u64"],
    ["machine", "uint"],
    ["index", "uint"],
    ["epochIndex", "uint"],
    ["epochID", "u64"],
    ["compression", "text"],
    ["files", "uint"],
    ["size", "uint"],
  ],
  chunk: [22, ["stream", "uint"], ["bytes", "rest"]],
  part: [30, ["isLast", "flag"], ["bytes", "rest"]],
  renew: [31, ["withinMs", "uint"]],
  token: [32, ["token", "token"]],
  credit: [23, ["bytes", "uint"]],
  ping: [24],
  pong: [25],
  held: [26, ["channel", "uint"], ["reason", "text"]],
  waits: [
    34,
    ["channel", "uint"],
    ["code", "uint"],
    ["retryMs", "uint"],
    ["reason", "text"],
  ],
  verify: [
    28,
    ["channel", "uint"],
    ["stream", "uint"],
    ["index", "uint"],
    ["epochIndex", "uint"],
    ["epochID", "u64"],
  ],
  unable: [27, ["channel", "uint"], ["code", "uint"], ["reason", "text"]],
};

const TYPES: ReadonlyMap<number, Message["type"]> = /* @__PURE__ */ new Map(
  (Object.keys(LAYOUTS) as Message["type"][])
    .filter((type) => type !== "hello")
    .map((type) => [LAYOUTS[type][0], type]),
);

/** Bytes of the varint of a record length at most. */
const LENGTH_BYTES = 3;

/** Encodes a message as one frame. */
export function encodeMessage(message: Message): Uint8Array {
  const [code, ...fields] = LAYOUTS[message.type];
  const values = message as unknown as Readonly<Record<string, unknown>>;
  const { bytes, lengths } = values as Partial<Append>;
  const writer = new ByteWriter(
    64 + (bytes?.length ?? 0) + LENGTH_BYTES * (lengths?.length ?? 0),
  );
  if (message.type !== "hello") writer.u8(code);
  for (const [name, type] of fields) write(writer, type, values[name]);
  return message.type === "hello"
    ? afterPreamble(message, writer.view())
    : writer.view();
}

function write(writer: ByteWriter, type: FieldType, value: unknown): void {
  switch (type) {
    case "uint":
      return void writer.varint(value as number);
    case "u64":
      return void writer.u64(value as bigint);
    case "u64?":
      writer.u8(value === undefined ? 0 : 1);
      return value === undefined ? undefined : write(writer, "u64", value);
    case "flag":
      return void writer.u8(value === true ? 1 : 0);
    case "text":
      return void writer.bytes(encodeShown(value as string));
    case "token":
      // An application may return null for no token.
      writer.u8(value === undefined || value === null ? 0 : 1);
      return value === undefined || value === null
        ? undefined
        : write(writer, "text", value);
    case "lengths":
    case "uints":
      return writeAll(writer, "uint", value);
    case "references":
      writer.varint((value as readonly Reference[]).length);
      for (const one of value as readonly Reference[]) {
        writer.varint(one.at).varint(one.count).varint(one.session)
          .varint(one.series).u64(one.digest);
      }
      return;
    case "u64s":
      return writeAll(writer, "u64", value);
    case "texts":
      return writeAll(writer, "text", value);
    case "end":
      return void writer.u8(END_REASONS.indexOf(value as EndReason));
    case "rest":
      return void writer.raw(value as Uint8Array);
  }
}

function writeAll(writer: ByteWriter, type: FieldType, value: unknown): void {
  const values = value as readonly unknown[];
  writer.varint(values.length);
  for (const one of values) write(writer, type, one);
}

/**
 * Decodes a frame, which is no hello: servers decode those. Its bytes must not change
 * afterwards: the message refers to them.
 *
 * @throws ErrProtocol if the frame is not the encoding of a message
 */
export function decodeMessage(frame: Uint8Array): Message {
  const code = frame[0];
  if (code === undefined) {
    throw new ErrProtocol("Frame has 0 bytes; a message has at least 1");
  }
  const type = TYPES.get(code);
  if (type === undefined) {
    throw new ErrProtocol(`Frame has the unknown message code ${code}`);
  }
  return decodeFields({ type }, new ByteReader(frame, 1));
}

/**
 * Decodes the fields of a message of a type.
 *
 * @throws ErrProtocol if they are malformed
 */
export function decodeFields(
  start: Pick<Message, "type">,
  reader: ByteReader,
): Message {
  const { type } = start;
  const message: Record<string, unknown> = { ...start };
  const [, ...fields] = LAYOUTS[type];
  for (const [name, type] of fields) {
    try {
      message[name] = read(reader, type);
    } catch (cause) {
      // A `RangeError` of the reader, or a `TypeError` of the text decoder.
      throw new ErrProtocol(
        `Field ${name} of message ${message.type} is malformed: ${
          messageOf(cause)
        }`,
        { cause },
      );
    }
  }
  // Later versions may append fields to the first two messages.
  const isFirst = type === "hello" || type === "welcome";
  if (reader.remaining > 0 && !isFirst) {
    throw new ErrProtocol(
      `Message ${type} is followed by ${reader.remaining} more bytes`,
    );
  }
  return message as unknown as Message;
}

function read(reader: ByteReader, type: FieldType): unknown {
  switch (type) {
    case "uint":
      return readUint(reader);
    case "u64":
      return reader.u64();
    case "u64?":
      return readFlag(reader) ? reader.u64() : undefined;
    case "flag":
      return readFlag(reader);
    case "text":
      return readText(reader);
    case "token":
      return readFlag(reader)
        ? decoder.decode(reader.bytes(SYNC_TOKEN_BYTES_MAX))
        : undefined;
    case "lengths": {
      const lengths = readAll(reader, BATCH_RECORDS_MAX, 1, readUint);
      if (lengths.length === 0) {
        throw new RangeError("Array has 0 lengths; it must have 1 or more");
      }
      return lengths;
    }
    case "references":
      return readAll(reader, BATCH_RECORDS_MAX, 12, readReference);
    case "uints":
      return readAll(reader, COUNT_MAX, 1, readUint);
    case "u64s":
      return readAll(reader, COUNT_MAX, 8, (reader) => reader.u64());
    case "texts":
      return readAll(reader, COUNT_MAX, 1, readText);
    case "end": {
      const number = reader.u8();
      const reason = END_REASONS[number];
      if (reason !== undefined) return reason;
      throw new RangeError(`${number} is not a reason`);
    }
    case "rest":
      return reader.raw(reader.remaining);
  }
}

/** Values of one array in a message at most. */
const COUNT_MAX = /* @__PURE__ */ Math.max(
  BATCH_RECORDS_MAX,
  EXPLAIN_ENTRIES_MAX,
);

/** Reads an array whose values have `bytesMin` bytes or more each. */
function readAll<T>(
  reader: ByteReader,
  countMax: number,
  bytesMin: number,
  readOne: (reader: ByteReader) => T,
): T[] {
  const count = readUint(reader);
  if (count > countMax || count * bytesMin > reader.remaining) {
    throw new RangeError(
      `Array of ${count} values is over the limit of ${countMax}, or of the ${reader.remaining} bytes left`,
    );
  }
  const values: T[] = [];
  for (let i = 0; i < count; i++) values.push(readOne(reader));
  return values;
}

/** Reads a varint, which must be in its shortest form: equal messages have equal bytes. */
function readUint(reader: ByteReader): number {
  const start = reader.offset;
  const value = reader.varint();
  if (reader.offset - start > varintLength(value)) {
    throw new RangeError(`Varint of ${value} is not in its shortest form`);
  }
  return value;
}

function readReference(reader: ByteReader): Reference {
  return {
    at: readUint(reader),
    count: readUint(reader),
    session: readUint(reader),
    series: readUint(reader),
    digest: reader.u64(),
  };
}

function readFlag(reader: ByteReader): boolean {
  const value = reader.u8();
  if (value > 1) throw new RangeError(`Flag is ${value}, neither 0 nor 1`);
  return value === 1;
}

const decoder = /* @__PURE__ */ new TextDecoder("utf-8", {
  fatal: true,
  ignoreBOM: true,
});

function readText(reader: ByteReader): string {
  // A UTF-16 code unit takes three bytes of UTF-8 at most.
  const text = decoder.decode(reader.bytes(3 * SYNC_TEXT_BYTES_MAX));
  if (text.length <= SYNC_TEXT_BYTES_MAX) return text;
  throw new RangeError(
    `Text of ${text.length} characters is over the limit of ${SYNC_TEXT_BYTES_MAX}`,
  );
}

/**
 * Preamble of a hello, the same in every version, around the two versions at
 * offset 2 and the length of the fields at its end. Version 1 was MessagePack: to
 * servers, it is an array of a code, two versions, empty fields, and bytes that
 * they ignore. So a server and a client of different versions understand which
 * versions the other end speaks.
 */
export const PREAMBLE: readonly number[] = [
  0x98,
  1,
  0,
  0,
  0xc0,
  0,
  0,
  0xc0,
  0xc5,
];

/** Offset of the length of the fields in a preamble, in bytes. */
export const PREAMBLE_LENGTH_AT = 9;

/** Length of a preamble, in bytes. */
export const PREAMBLE_BYTES = 11;

function afterPreamble({ first, last }: Hello, fields: Uint8Array): Uint8Array {
  const frame = new Uint8Array(PREAMBLE_BYTES + fields.length);
  frame.set(PREAMBLE);
  frame[2] = first;
  frame[3] = last;
  new DataView(frame.buffer).setUint16(PREAMBLE_LENGTH_AT, fields.length);
  frame.set(fields, PREAMBLE_BYTES);
  return frame;
}
