/**
 * The messages of the protocol, and their bytes: each is a MessagePack array of
 * its code and its fields, in the order of the table below. What they mean is
 * written down in `protocol.md`.
 *
 * A message from the other end is looked at field by field before anything else
 * sees it: what is not in the table, or not of the kind the table says, is an
 * `ErrProtocol`.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { decode, encode } from "../deps/msgpack.ts";
import { isU64 } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import {
  BATCH_RECORDS_MAX,
  EXPLAIN_ENTRIES_MAX,
  SYNC_RECORD_CREDIT_BYTES,
  SYNC_TEXT_BYTES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../limits.ts";
import { ErrProtocol } from "./errors.ts";

/** First and last version of the protocol spoken here. */
export const PROTOCOL_VERSIONS: Versions = { first: 1, last: 1 };

/** The versions of the protocol that one end speaks. */
export interface Versions {
  /** The oldest. */
  readonly first: number;
  /** The newest. */
  readonly last: number;
}

/** The first message of a client: who it is, and what it can take. */
export interface Hello {
  readonly type: "hello";
  /** The oldest version it speaks. */
  readonly first: number;
  /** The newest version it speaks. */
  readonly last: number;
  /** What it was given to say who it is, if anything. */
  readonly token: string | undefined;
  /** The bytes of data frames it takes before it grants more. */
  readonly credit: number;
  /** The largest frame it takes, in bytes. */
  readonly frameBytesMax: number;
  /** True if it answers `renew`. */
  readonly renews?: boolean | undefined;
}

/** The answer to a hello. */
export interface Welcome {
  readonly type: "welcome";
  /** The version spoken from now on. */
  readonly version: number;
  /** As whom the server knows the client. */
  readonly principal: string;
  /** The bytes of data frames the server takes before it grants more. */
  readonly credit: number;
  /** The largest frame it takes, in bytes. */
  readonly frameBytesMax: number;
  /** The largest command it takes, in bytes. */
  readonly commandBytesMax: number;
  /** Who hears nothing for this long asks whether the other end is there, and who hears nothing for twice as long hangs up, in milliseconds. */
  readonly heartbeatMs: number;
}

/** Opens the log of a cluster on a channel of the client's choice. */
export interface Open {
  readonly type: "open";
  readonly channel: number;
  readonly clusterID: bigint;
  /** The replica that opens it. */
  readonly nodeID: bigint;
}

/** The log is open. */
export interface Opened {
  readonly type: "opened";
  readonly channel: number;
  /** The index of its last record. */
  readonly last: number;
  /** The server's own replica, which is right when hashes differ; 0 if it has none. */
  readonly trusted: bigint;
}

/** A log is not opened, or not open any more: why, by code and in words. */
export interface Refused {
  readonly type: "refused";
  readonly channel: number;
  readonly code: number;
  readonly reason: string;
}

/** Gives a log back. */
export interface Close {
  readonly type: "close";
  readonly channel: number;
}

/** Asks for the records after an index, from now on, on a stream of the client's choice. */
export interface Read {
  readonly type: "read";
  readonly channel: number;
  readonly stream: number;
  readonly after: number;
  /** Index of the last epoch the reader knows, 0 if none. */
  readonly markIndex: number;
  /** That epoch. */
  readonly markEpoch: bigint;
  /** Whether a snapshot is welcome in place of many records. */
  readonly far: boolean;
}

/** The records come: up to the index named, some are there already. */
export interface Reading {
  readonly type: "reading";
  readonly stream: number;
  readonly last: number;
}

/** Records with consecutive indexes. */
export interface Entries {
  readonly type: "entries";
  readonly stream: number;
  /** The index of the record before them. */
  readonly follows: number;
  /** The index of the first. */
  readonly first: number;
  /** The index of the last record of the log. */
  readonly last: number;
  /** The length of each, in bytes. */
  readonly lengths: readonly number[];
  /** The records, one behind the other. */
  readonly bytes: Uint8Array;
}

/** Why a stream of the server ends. */
export type EndReason =
  /** The client has asked for it. */
  | "done"
  /** What comes next was cut; `first` is the first index the log has. */
  | "compacted"
  /** A snapshot is the better way; `first` is the first index the log has. */
  | "far"
  /** The log is another one; `first` is the index that shows it. */
  | "diverged"
  /** There is no snapshot. */
  | "none"
  /** Anything else; it may go right another time. */
  | "failed";

/** A stream of the server ends. */
export interface End {
  readonly type: "end";
  readonly stream: number;
  readonly reason: EndReason;
  readonly first: number;
  readonly message: string;
}

/** The client wants no more of a stream. */
export interface Stop {
  readonly type: "stop";
  readonly stream: number;
}

/** Records for the log. */
export interface Append {
  readonly type: "append";
  readonly channel: number;
  /** Names the answer. */
  readonly stream: number;
  readonly lengths: readonly number[];
  readonly bytes: Uint8Array;
}

/** Records are in the log, but for those refused. */
export interface Appended {
  readonly type: "appended";
  readonly stream: number;
  /** The index of the first of them; 0 if there is none. */
  readonly first: number;
  /** Which of them were refused, by their place in the append. */
  readonly refused: readonly number[];
  /** Why, for each. */
  readonly reasons: readonly string[];
}

/** An append, or another request, went wrong. */
export interface Failed {
  readonly type: "failed";
  readonly stream: number;
  /** Whether it may have taken effect all the same. */
  readonly unknown: boolean;
  readonly message: string;
}

/** What the client appends on a channel waits, for the server cannot judge it now: why, in words; empty once it goes on. */
export interface Held {
  readonly type: "held";
  readonly channel: number;
  readonly reason: string;
}

/** Says that the server cannot take what is appended on a channel now; the client keeps it and sends it again. */
export interface Unable {
  readonly type: "unable";
  readonly channel: number;
  /** Kind of trouble: 1 the server cannot store it; 0 once it is over. */
  readonly code: number;
  /** Words to show; empty once it is over. */
  readonly reason: string;
}

/** Asks whether the log is the one that has reached a point of a history. */
export interface Verify {
  readonly type: "verify";
  readonly channel: number;
  readonly stream: number;
  /** Index the client knows the log to have reached. */
  readonly index: number;
  /** Index of the last epoch at or before it, 0 for none. */
  readonly markIndex: number;
  readonly markEpoch: bigint;
}

/** Asks for an index at or above everything committed. */
export interface ReadIndex {
  readonly type: "readIndex";
  readonly channel: number;
  readonly stream: number;
}

/** That index. */
export interface Index {
  readonly type: "index";
  readonly stream: number;
  readonly index: number;
}

/** What a replica's hashes are at an index. */
export interface CheckpointAt {
  readonly type: "checkpoint";
  readonly channel: number;
  readonly nodeID: bigint;
  readonly index: number;
  readonly state: bigint | undefined;
  readonly sessions: bigint;
  /** Version of the form that the state has. */
  readonly stateVersion: number;
}

/** Asks for the hashes after each entry of a range, by replaying it. */
export interface Explain {
  readonly type: "explain";
  readonly channel: number;
  readonly stream: number;
  readonly after: number;
  readonly upTo: number;
}

/** Those hashes: of each entry its index, the hash of the state and that of the sessions. */
export interface Hashes {
  readonly type: "hashes";
  readonly stream: number;
  readonly indexes: readonly number[];
  /** Empty for a machine without a hash. */
  readonly states: readonly bigint[];
  readonly sessions: readonly bigint[];
  /** Version of the form that the states have. */
  readonly stateVersion: number;
}

/** Asks for the newest snapshot of the cluster. */
export interface Fetch {
  readonly type: "fetch";
  readonly channel: number;
  readonly stream: number;
}

/** What the snapshot is whose container comes on that stream. */
export interface Snapshot {
  readonly type: "snapshot";
  readonly stream: number;
  readonly nodeID: bigint;
  readonly machine: number;
  readonly index: number;
  readonly markIndex: number;
  readonly markEpoch: bigint;
  readonly compression: string;
  readonly files: number;
  /** Bytes of the container; 0 if nobody knows yet. */
  readonly size: number;
}

/** A piece of the container. */
export interface Chunk {
  readonly type: "chunk";
  readonly stream: number;
  readonly bytes: Uint8Array;
}

/** Grants so many bytes of data frames more. */
export interface Credit {
  readonly type: "credit";
  readonly bytes: number;
}

/** Asks whether the other end is there. */
export interface Ping {
  readonly type: "ping";
}

/** It is. */
export interface Pong {
  readonly type: "pong";
}

/** A part of a message that is larger than a frame may be; the message is whole with the last one. */
export interface Part {
  readonly type: "part";
  readonly isLast: boolean;
  readonly bytes: Uint8Array;
}

/** Asks for another token: the principal is known no longer than that many milliseconds. */
export interface Renew {
  readonly type: "renew";
  readonly withinMs: number;
}

/** Another token of the same principal. */
export interface Token {
  readonly type: "token";
  readonly token: string | undefined;
}

/** Every message there is. */
export type Message =
  | Hello
  | Welcome
  | Open
  | Opened
  | Refused
  | Close
  | Read
  | Reading
  | Entries
  | End
  | Stop
  | Append
  | Appended
  | Failed
  | Held
  | Unable
  | ReadIndex
  | Verify
  | Index
  | CheckpointAt
  | Explain
  | Hashes
  | Fetch
  | Snapshot
  | Chunk
  | Credit
  | Ping
  | Pong
  | Part
  | Renew
  | Token;

/** Why streams end, as they are numbered on the wire. */
const END_REASONS: readonly EndReason[] = [
  "done",
  "compacted",
  "far",
  "diverged",
  "none",
  "failed",
];

/** Kinds of fields: how each is checked. */
type Field =
  | "uint"
  | "u64"
  | "u64?"
  | "flag"
  | "flag?"
  | "text"
  | "token"
  | "bytes"
  | "lengths"
  | "uints"
  | "u64s"
  | "texts"
  | "end";

type Layout = readonly [
  code: number,
  ...fields: (readonly [name: string, field: Field])[],
];

/** The closed union: the code and the fields of each message. Codes are never used twice. */
const LAYOUTS: { readonly [type in Message["type"]]: Layout } = {
  hello: [
    1,
    ["first", "uint"],
    ["last", "uint"],
    ["token", "token"],
    ["credit", "uint"],
    ["frameBytesMax", "uint"],
    ["renews", "flag?"],
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
    ["markIndex", "uint"],
    ["markEpoch", "u64"],
    ["far", "flag"],
  ],
  reading: [8, ["stream", "uint"], ["last", "uint"]],
  entries: [
    9,
    ["stream", "uint"],
    ["follows", "uint"],
    ["first", "uint"],
    ["last", "uint"],
    ["lengths", "lengths"],
    ["bytes", "bytes"],
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
    ["bytes", "bytes"],
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
    ["stateVersion", "uint"],
  ],
  fetch: [20, ["channel", "uint"], ["stream", "uint"]],
  snapshot: [
    21,
    ["stream", "uint"],
    ["nodeID", "u64"],
    ["machine", "uint"],
    ["index", "uint"],
    ["markIndex", "uint"],
    ["markEpoch", "u64"],
    ["compression", "text"],
    ["files", "uint"],
    ["size", "uint"],
  ],
  chunk: [22, ["stream", "uint"], ["bytes", "bytes"]],
  part: [30, ["isLast", "flag"], ["bytes", "bytes"]],
  renew: [31, ["withinMs", "uint"]],
  token: [32, ["token", "token"]],
  credit: [23, ["bytes", "uint"]],
  ping: [24],
  pong: [25],
  held: [26, ["channel", "uint"], ["reason", "text"]],
  verify: [
    28,
    ["channel", "uint"],
    ["stream", "uint"],
    ["index", "uint"],
    ["markIndex", "uint"],
    ["markEpoch", "u64"],
  ],
  unable: [27, ["channel", "uint"], ["code", "uint"], ["reason", "text"]],
};

const TYPES: ReadonlyMap<number, Message["type"]> = /* @__PURE__ */ new Map(
  (Object.keys(LAYOUTS) as Message["type"][]).map((
    type,
  ) => [LAYOUTS[type][0], type]),
);

/** Whether frames of that type count against the credit of the receiver. */
export function isData(type: Message["type"]): boolean {
  return type === "entries" || type === "chunk" || type === "append";
}

/** Credit that a frame with an append takes: its length, but no less than `SYNC_RECORD_CREDIT_BYTES` for each record. */
export function appendCredit(frameBytes: number, records: number): number {
  return Math.max(frameBytes, records * SYNC_RECORD_CREDIT_BYTES);
}

/** The bytes of a message. */
export function encodeMessage(message: Message): Uint8Array {
  const [code, ...fields] = LAYOUTS[message.type];
  const values = message as unknown as Readonly<Record<string, unknown>>;
  const parts: unknown[] = [code];
  for (const [name, field] of fields) {
    const value = values[name];
    parts.push(
      field === "end" ? END_REASONS.indexOf(value as EndReason) : value ?? null,
    );
  }
  return encode(parts, { useBigInt64: true });
}

/**
 * The message that bytes are.
 *
 * @throws ErrProtocol if they are none
 */
export function decodeMessage(frame: Uint8Array): Message {
  if (!isFlat(frame)) {
    throw new ErrProtocol("Frame is not a valid message");
  }
  let parts: unknown;
  try {
    parts = decode(frame, {
      useBigInt64: true,
      maxArrayLength: Math.max(4 * BATCH_RECORDS_MAX, EXPLAIN_ENTRIES_MAX),
      maxMapLength: 0,
      maxExtLength: 0,
      maxStrLength: SYNC_TOKEN_BYTES_MAX,
    });
  } catch (error) {
    // A token is the longest text of any message.
    const length = /\((\d+)\) > maxStrLength/.exec(
      messageOf(error),
    )?.[1];
    throw new ErrProtocol(
      length === undefined
        ? "Frame is not a valid message: it is not MessagePack"
        : `Text of ${length} bytes is over the limit of a token, ${SYNC_TOKEN_BYTES_MAX}`,
      { cause: error },
    );
  }
  if (!Array.isArray(parts)) throw new ErrProtocol("Frame is no array");
  const type = TYPES.get(parts[0] as number);
  if (type === undefined) {
    throw new ErrProtocol(`Message of unknown code ${printable(parts[0])}`);
  }
  const [, ...fields] = LAYOUTS[type];
  // Versions that come may give the first two messages more fields, so that
  // those who speak older ones can be answered.
  const isFirst = type === "hello" || type === "welcome";
  // A field that came later may be missing.
  const needed = fields.filter(([, field]) => field !== "flag?").length;
  if (
    parts.length < needed + 1 ||
    (parts.length > fields.length + 1 && !isFirst)
  ) {
    throw new ErrProtocol(
      `Message ${type} has ${parts.length - 1} fields, not ${fields.length}`,
    );
  }
  const message: Record<string, unknown> = { type };
  for (const [i, [name, field]] of fields.entries()) {
    const value = read(parts[i + 1], field);
    if (value === WRONG) {
      throw new ErrProtocol(`Field ${name} of message ${type} is wrong`);
    }
    message[name] = value;
  }
  return message as unknown as Message;
}

/**
 * Whether bytes are an array of numbers, texts, bytes and arrays of such, all of
 * it there. `decode()` allocates what the length of an array promises: nested
 * ones would have a frame of a few bytes cost gigabytes.
 */
function isFlat(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const number = (width: number): number => {
    const number = width === 1
      ? view.getUint8(at)
      : width === 2
      ? view.getUint16(at)
      : view.getUint32(at);
    at += width;
    return number;
  };
  const skip = (length: number): true => {
    at += length;
    return true;
  };
  /** Goes past a value; false for what may not be there. */
  const pass = (depth: number): boolean => {
    const head = number(1);
    if (head < 0x80 || head >= 0xe0 || head === 0xc0) return true;
    if (head >= 0x90 && head < 0xa0) return passAll(head & 0x0f, depth);
    if (head === 0xdc || head === 0xdd) {
      return passAll(number(head === 0xdc ? 2 : 4), depth);
    }
    if (head >= 0xa0 && head < 0xc0) return skip(head & 0x1f);
    if (head === 0xc2 || head === 0xc3) return true;
    if (head >= 0xc4 && head <= 0xc6) return skip(number(1 << head - 0xc4));
    if (head >= 0xd9 && head <= 0xdb) return skip(number(1 << head - 0xd9));
    if (head >= 0xcc && head <= 0xcf) return skip(1 << head - 0xcc);
    if (head >= 0xd0 && head <= 0xd3) return skip(1 << head - 0xd0);
    return (head === 0xca || head === 0xcb) && skip(4 << head - 0xca);
  };
  const passAll = (count: number, depth: number): boolean => {
    if (depth > 1 || count > bytes.length - at) return false;
    while (count-- > 0) if (!pass(depth + 1)) return false;
    return true;
  };
  try {
    return pass(0) && at === bytes.length;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return false;
  }
}

/** What a field is read as that is none. */
const WRONG = Symbol();

function read(value: unknown, field: Field): unknown {
  switch (field) {
    case "uint":
      return uint(value);
    case "u64":
      return u64(value);
    case "u64?":
      return value === null ? undefined : u64(value);
    case "flag":
      return typeof value === "boolean" ? value : WRONG;
    case "flag?":
      return value === undefined || value === null
        ? undefined
        : typeof value === "boolean"
        ? value
        : WRONG;
    case "text":
      return typeof value === "string" && value.length <= SYNC_TEXT_BYTES_MAX
        ? value
        : WRONG;
    case "token":
      return value === null
        ? undefined
        : typeof value === "string"
        ? value
        : WRONG;
    case "bytes":
      return value instanceof Uint8Array ? value : WRONG;
    case "lengths": {
      const lengths = all(value, uint);
      return lengths !== WRONG && (lengths as number[]).length > 0 &&
          (lengths as number[]).length <= BATCH_RECORDS_MAX
        ? lengths
        : WRONG;
    }
    case "uints":
      return all(value, uint);
    case "u64s":
      return all(value, u64);
    case "texts":
      return all(value, (text) => read(text, "text"));
    case "end":
      return END_REASONS[value as number] ?? WRONG;
  }
}

function all(value: unknown, one: (value: unknown) => unknown): unknown {
  if (!Array.isArray(value)) return WRONG;
  const values = value.map(one);
  return values.includes(WRONG) ? WRONG : values;
}

/** A number in 0…2^53-1, however it was written. */
function uint(value: unknown): unknown {
  const number = typeof value === "bigint" ? Number(value) : value;
  return Number.isSafeInteger(number) && number as number >= 0 ? number : WRONG;
}

function u64(value: unknown): unknown {
  const big = typeof value === "number" && Number.isSafeInteger(value)
    ? BigInt(value)
    : value;
  return typeof big === "bigint" && isU64(big) ? big : WRONG;
}

function printable(value: unknown): string {
  return typeof value === "number" || typeof value === "string"
    ? String(value).slice(0, 20)
    : typeof value;
}
