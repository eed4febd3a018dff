/**
 * Blocks of an outbox: their names and formats. Each block has a checksum, a
 * version and the id of its cluster. Commands that are added together share a
 * block, named after the number of the first; a settled command has one of its
 * own; the head has the session, the client and the progress of the queue.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ByteReader,
  ByteWriter,
  copyOf,
  crc32,
  encodeShown,
  encodeText,
  putVarint,
  varintLength,
} from "../bytes.ts";
import type { Env } from "../env.ts";
import type { Result } from "../statemachine/types.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import { rangeOf } from "../store/names.ts";
import type { Block } from "../store/store.ts";
import type {
  OutboxSession,
  QueueContents,
  SettledCommand,
  SettledState,
} from "./outbox_store.ts";

const VERSION = 1;
/** Version of the head: 1 has no owner, 2 no principal and no history, 3 no author. */
const HEAD_VERSION = 4;
/** Version of a settled command with a result; one without has version 1. */
const SETTLED_VERSION = 2;

// Flags of a session.
const HAS_HISTORY = 1;
const HAS_EPOCH = 2;
const IS_SUPERSEDED = 4;

/** Length of checksum, version and cluster, in bytes. */
const PREFIX_BYTES = 4 + 1 + 8;

/** State of a queue besides its commands; `sendLimit` does not count blocks that carry the session's index. */
export type QueueHead = Omit<
  QueueContents,
  "commands" | "last" | "bytes" | "settled"
>;

/** Head of a queue that nothing was added to. */
export function newHead(env: Env): QueueHead {
  return {
    decided: 0,
    sendLimit: 0,
    clientID: env.random64(),
    lostSession: 0,
    owner: undefined,
    session: undefined,
  };
}

/** Commands that were added together. */
export interface CommandBlock {
  /** Number of the first command. */
  readonly first: number;
  /** Index of the session through which they may be sent at once; 0 for none. */
  readonly session: number;
  /** Commands in order. */
  readonly commands: readonly Uint8Array[];
}

/** Number of the last command of a block. */
export function lastIn({ first, commands }: CommandBlock): number {
  return first + commands.length - 1;
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** Names of the blocks of one cluster. */
export class BlockNames {
  /** Prefix of all names. */
  readonly prefix: string;
  /** Name of the head. */
  readonly head: string;
  /** Prefix of the names of command blocks. */
  readonly commands: string;
  /** Prefix of the names of settled commands. */
  readonly settled: string;

  /** Creates the names for a cluster. */
  constructor(clusterID: bigint) {
    this.prefix = `outbox/${hex(clusterID, 16)}/`;
    this.head = `${this.prefix}head`;
    this.commands = `${this.prefix}c/`;
    this.settled = `${this.prefix}k/`;
  }

  /** Range of all names. */
  get range(): [from: string, to: string] {
    return rangeOf(this.prefix);
  }

  /** Name of the block of commands whose first number is `first`. */
  commandBlock(first: number): string {
    return this.commands + hex(first, 14);
  }

  /** Name of the block of a settled command. */
  settledBlock(number: number): string {
    return this.settled + hex(number, 14);
  }
}

const STATES: readonly SettledState[] = ["refused", "unknown", "dismissed"];

function begin(capacity: number): ByteWriter {
  return new ByteWriter(PREFIX_BYTES + capacity)
    .raw(new Uint8Array(PREFIX_BYTES));
}

function seal(
  writer: ByteWriter,
  clusterID: bigint,
  version = VERSION,
): Uint8Array {
  return sealed(writer.finish(), clusterID, version);
}

/** Fills in the prefix of a block. */
function sealed(
  bytes: Uint8Array<ArrayBuffer>,
  clusterID: bigint,
  version: number,
): Uint8Array {
  const view = new DataView(bytes.buffer);
  view.setUint8(4, version);
  view.setBigUint64(5, clusterID, true);
  view.setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Error for a block whose content is not that of its name. */
export function damaged(key: string, cause?: unknown): ErrStoreCorrupted {
  return new ErrStoreCorrupted(key, "Block of the outbox is damaged", {
    cause,
  });
}

/** Checks the prefix of a block, and reads everything after it. */
function unseal<T>(
  { key, bytes }: Block,
  clusterID: bigint,
  read: (reader: ByteReader, version: number) => T,
  versionMax = VERSION,
): T {
  const reader = new ByteReader(bytes);
  if (bytes.length < PREFIX_BYTES || reader.u32() !== crc32(bytes, 0, 4)) {
    throw damaged(key);
  }
  const version = reader.u8();
  if (
    version < VERSION || version > versionMax || reader.u64() !== clusterID
  ) throw damaged(key);
  try {
    const value = read(reader, version);
    if (reader.remaining === 0) return value;
  } catch (error) {
    throw damaged(key, error);
  }
  throw damaged(key);
}

/** Reads the number of a command, which begin with 1. */
function readNumber(reader: ByteReader): number {
  const number = reader.varint();
  if (number > 0) return number;
  throw new RangeError("Number of a command is 0");
}

/** Encodes commands as a block. */
export function encodeCommands(
  clusterID: bigint,
  { first, session, commands }: CommandBlock,
): Uint8Array {
  // One array of the exact size: each submission that is stored alone is a block.
  let size = PREFIX_BYTES + varintLength(first) + varintLength(session) +
    varintLength(commands.length);
  for (const { length } of commands) size += varintLength(length) + length;
  const bytes = new Uint8Array(size);
  let at = putVarint(bytes, PREFIX_BYTES, first);
  at = putVarint(bytes, at, session);
  at = putVarint(bytes, at, commands.length);
  for (const cmd of commands) {
    at = putVarint(bytes, at, cmd.length);
    bytes.set(cmd, at);
    at += cmd.length;
  }
  return sealed(bytes, clusterID, VERSION);
}

/**
 * Decodes a block of commands. They refer to its bytes.
 *
 * @throws ErrStoreCorrupted if it is damaged, or has the name of another one
 */
export function decodeCommands(block: Block, clusterID: bigint): CommandBlock {
  const read = readCommands(block, clusterID);
  const name = new BlockNames(clusterID).commandBlock(read.first);
  if (name !== block.key) throw damaged(block.key);
  return read;
}

function readCommands(block: Block, clusterID: bigint): CommandBlock {
  return unseal(block, clusterID, (reader) => {
    const first = readNumber(reader);
    const session = reader.varint();
    const count = reader.varint();
    const commands: Uint8Array[] = [];
    for (let i = 0; i < count; i++) commands.push(reader.bytes());
    return { first, session, commands };
  });
}

/** Encodes a settled command as a block. */
export function encodeSettled(
  clusterID: bigint,
  { number, state, reason, cmd, result }: SettledCommand,
): Uint8Array {
  const writer = begin(32 + cmd.length + reason.length).varint(number)
    .u8(STATES.indexOf(state)).bytes(encodeShown(reason));
  if (result === undefined) return seal(writer.raw(cmd), clusterID);
  writer.u64(result.value).u8(result.data === undefined ? 0 : 1);
  if (result.data !== undefined) writer.bytes(result.data);
  return seal(writer.raw(cmd), clusterID, SETTLED_VERSION);
}

function readResult(reader: ByteReader): Result {
  const value = reader.u64();
  const hasData = reader.u8();
  if (hasData > 1) {
    throw new RangeError(`Flag of a result's data is ${hasData}, not 0 or 1`);
  }
  return hasData === 0 ? { value } : { value, data: copyOf(reader.bytes()) };
}

/**
 * Decodes the block of a settled command.
 *
 * @throws ErrStoreCorrupted if it is damaged, or has the name of another one
 */
export function decodeSettled(block: Block, clusterID: bigint): SettledCommand {
  const settled = readSettled(block, clusterID);
  const name = new BlockNames(clusterID).settledBlock(settled.number);
  if (name !== block.key) throw damaged(block.key);
  return settled;
}

function readSettled(block: Block, clusterID: bigint): SettledCommand {
  return unseal(block, clusterID, (reader, version) => {
    const number = readNumber(reader);
    const byte = reader.u8();
    const state = STATES[byte];
    if (state === undefined) {
      throw new RangeError(`State of a settled command is ${byte}`);
    }
    const reason = new TextDecoder("utf-8", { fatal: true })
      .decode(reader.bytes());
    const result = version < SETTLED_VERSION ? undefined : readResult(reader);
    const cmd = copyOf(reader.raw(reader.remaining));
    return { number, state, reason, cmd, result };
  }, SETTLED_VERSION);
}

function readHistory(
  reader: ByteReader,
): Pick<OutboxSession, "known" | "isSuperseded"> {
  const flags = reader.u8();
  const index = flags & HAS_HISTORY ? reader.varint() : 0;
  const epoch = flags & HAS_EPOCH
    ? { index: reader.varint(), id: reader.u64() }
    : undefined;
  return {
    ...(flags & HAS_HISTORY ? { known: { index, epoch } } : {}),
    ...(flags & IS_SUPERSEDED ? { isSuperseded: true } : {}),
  };
}

/** Encodes the head as a block. */
export function encodeHead(clusterID: bigint, head: QueueHead): Uint8Array {
  const { decided, sendLimit, clientID, lostSession } = head;
  const { owner, principal, author, session } = head;
  const writer = begin(64).varint(decided).varint(sendLimit).u64(clientID)
    .varint(lostSession);
  if (owner === undefined) writer.u8(0);
  else writer.u8(1).bytes(owner);
  if (principal === undefined) writer.u8(0);
  else writer.u8(1).bytes(encodeText(principal, "Principal"));
  if (author !== undefined) writer.bytes(encodeShown(author));
  if (session !== undefined) {
    const { index, holders, base, known, isSuperseded = false } = session;
    writer.varint(index).u64(session.clientID).varint(base);
    writer.u8(
      (known ? HAS_HISTORY : 0) | (known?.epoch ? HAS_EPOCH : 0) |
        (isSuperseded ? IS_SUPERSEDED : 0),
    );
    if (known) writer.varint(known.index);
    if (known?.epoch) writer.varint(known.epoch.index).u64(known.epoch.id);
    for (const holder of holders) writer.u64(holder);
  }
  // Without an author, older code can read it, as after a deploy that is rolled back.
  const version = author === undefined ? HEAD_VERSION - 1 : HEAD_VERSION;
  return seal(writer, clusterID, version);
}

/** True if a block holds commands, queued or settled: their versions are those of older heads, too. */
function hasCommands(block: Block, clusterID: bigint): boolean {
  for (const read of [readCommands, readSettled]) {
    try {
      read(block, clusterID);
      return true;
    } catch {
      // It is not of this kind.
    }
  }
  return false;
}

/**
 * Decodes the block of the head.
 *
 * @throws ErrStoreCorrupted if it is damaged, or another block
 */
export function decodeHead(block: Block, clusterID: bigint): QueueHead {
  return unseal(block, clusterID, (reader, version) => {
    if (hasCommands(block, clusterID)) throw damaged(block.key);
    const decided = reader.varint();
    const sendLimit = reader.varint();
    const clientID = reader.u64();
    const lostSession = reader.varint();
    const hasOwner = version > 1 && reader.u8() === 1;
    const owner = hasOwner ? copyOf(reader.bytes()) : undefined;
    const hasPrincipal = version > 2 && reader.u8() === 1;
    const principal = hasPrincipal
      ? new TextDecoder().decode(reader.bytes())
      : undefined;
    const author = version > 3
      ? new TextDecoder().decode(reader.bytes())
      : undefined;
    const head = {
      decided,
      sendLimit,
      clientID,
      lostSession,
      owner,
      ...(principal === undefined ? {} : { principal }),
      ...(author === undefined ? {} : { author }),
    };
    if (reader.remaining === 0) return { ...head, session: undefined };
    const index = reader.varint();
    const session = {
      index,
      clientID: reader.u64(),
      base: reader.varint(),
      ...(version > 2 ? readHistory(reader) : {}),
      holders: [] as bigint[],
    };
    while (reader.remaining > 0) session.holders.push(reader.u64());
    return { ...head, session };
  }, HEAD_VERSION);
}
