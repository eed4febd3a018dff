/**
 * How an outbox names and fills its blocks: each behind a checksum, its version
 * and its cluster. Commands submitted together are in one block, under the
 * number of the first; a command that is kept for its owner to see is in one of
 * its own; the head says who sends, and how far that has come.
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
} from "../bytes.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import type { Block } from "../store/store.ts";
import type { Result } from "../statemachine/types.ts";
import type {
  HeldCommands,
  KeptCommand,
  KeptState,
  OutboxSession,
} from "./outbox.ts";

const VERSION = 1;
/** Of the head: 1 said nothing of the owner, 2 nothing of principal and history. */
const HEAD_VERSION = 3;
/** Flags of a session. */
const KNOWN = 1;
const MARKED = 2;
const OVER = 4;
/** Of a command that is kept with its result; one without is of the first version. */
const KEPT_VERSION = 2;
/** Checksum, version and cluster. */
const HEAD = 4 + 1 + 8;

/** What is kept of a queue besides its commands; `mark` without those of blocks with the session's index. */
export type QueueHead = Omit<HeldCommands, "commands" | "kept">;

/** Commands that were submitted together. */
export interface CommandBlock {
  /** The number of the first. */
  readonly first: number;
  /** The session through which they may be sent at once; 0 for none. */
  readonly session: number;
  /** The commands. */
  readonly commands: readonly Uint8Array[];
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** The names of the blocks of one cluster. */
export class Names {
  /** What all begin with. */
  readonly prefix: string;
  /** The head. */
  readonly head: string;
  /** What the names of blocks of commands begin with. */
  readonly commands: string;
  /** What the names of commands that are kept begin with. */
  readonly kept: string;

  /** The names of a cluster's blocks. */
  constructor(clusterID: bigint) {
    this.prefix = `outbox/${hex(clusterID, 16)}/`;
    this.head = `${this.prefix}head`;
    this.commands = `${this.prefix}c/`;
    this.kept = `${this.prefix}k/`;
  }

  /** All of them. */
  get range(): [from: string, to: string] {
    return [this.prefix, `${this.prefix.slice(0, -1)}0`];
  }

  /** The block of commands from number `first` on. */
  block(first: number): string {
    return this.commands + hex(first, 14);
  }

  /** The block of a command that is kept. */
  keptBlock(number: number): string {
    return this.kept + hex(number, 14);
  }
}

const STATES: readonly KeptState[] = ["refused", "unknown", "dismissed"];

function begin(capacity: number): ByteWriter {
  return new ByteWriter(HEAD + capacity).raw(new Uint8Array(HEAD));
}

function seal(
  writer: ByteWriter,
  clusterID: bigint,
  version = VERSION,
): Uint8Array {
  const bytes = writer.finish();
  const view = new DataView(bytes.buffer);
  view.setUint8(4, version);
  view.setBigUint64(5, clusterID, true);
  view.setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Reads what is behind checksum, version and cluster, all of it. */
function unseal<T>(
  { key, bytes }: Block,
  clusterID: bigint,
  read: (reader: ByteReader, version: number) => T,
  versionMax = VERSION,
): T {
  const damaged = (cause?: unknown): ErrStoreCorrupted =>
    new ErrStoreCorrupted(key, "Block of the outbox is damaged", { cause });
  const reader = new ByteReader(bytes);
  if (bytes.length < HEAD || reader.u32() !== crc32(bytes, 0, 4)) {
    throw damaged();
  }
  const version = reader.u8();
  if (
    version < VERSION || version > versionMax || reader.u64() !== clusterID
  ) throw damaged();
  try {
    const value = read(reader, version);
    if (reader.remaining === 0) return value;
  } catch (error) {
    throw damaged(error);
  }
  throw damaged();
}

/** Commands as a block. */
export function encodeCommands(
  clusterID: bigint,
  { first, session, commands }: CommandBlock,
): Uint8Array {
  const size = commands.reduce((sum, { length }) => sum + length + 4, 0);
  const writer = begin(24 + size).varint(first).varint(session)
    .varint(commands.length);
  for (const cmd of commands) writer.bytes(cmd);
  return seal(writer, clusterID);
}

/**
 * Reads what {@linkcode encodeCommands} wrote.
 *
 * @throws ErrStoreCorrupted if it did not
 */
export function decodeCommands(block: Block, clusterID: bigint): CommandBlock {
  return unseal(block, clusterID, (reader) => {
    const first = reader.varint();
    const session = reader.varint();
    const count = reader.varint();
    const commands: Uint8Array[] = [];
    // Each on its own: one that is kept for long must not keep all of them.
    for (let i = 0; i < count; i++) commands.push(copyOf(reader.bytes()));
    return { first, session, commands };
  });
}

/** A command that is kept, as a block. */
export function encodeKept(
  clusterID: bigint,
  { number, state, reason, cmd, result }: KeptCommand,
): Uint8Array {
  const writer = begin(32 + cmd.length + reason.length).varint(number)
    .u8(STATES.indexOf(state)).bytes(encodeShown(reason));
  if (result === undefined) return seal(writer.raw(cmd), clusterID);
  writer.u64(result.value).u8(result.data === undefined ? 0 : 1);
  if (result.data !== undefined) writer.bytes(result.data);
  return seal(writer.raw(cmd), clusterID, KEPT_VERSION);
}

function readResult(reader: ByteReader): Result {
  const value = reader.u64();
  const hasData = reader.u8();
  if (hasData > 1) {
    throw new RangeError("Result in the outbox has an unknown form");
  }
  return hasData === 0 ? { value } : { value, data: copyOf(reader.bytes()) };
}

/**
 * Reads what {@linkcode encodeKept} wrote.
 *
 * @throws ErrStoreCorrupted if it did not
 */
export function decodeKept(block: Block, clusterID: bigint): KeptCommand {
  return unseal(block, clusterID, (reader, version) => {
    const number = reader.varint();
    const state = STATES[reader.u8()];
    if (state === undefined) throw new RangeError("State is unknown");
    const reason = new TextDecoder().decode(reader.bytes());
    const result = version < KEPT_VERSION ? undefined : readResult(reader);
    const cmd = copyOf(reader.raw(reader.remaining));
    return { number, state, reason, cmd, result };
  }, KEPT_VERSION);
}

function readHistory(
  reader: ByteReader,
): Pick<OutboxSession, "known" | "isOver"> {
  const flags = reader.u8();
  const index = flags & KNOWN ? reader.varint() : 0;
  const epoch = flags & MARKED
    ? { index: reader.varint(), id: reader.u64() }
    : undefined;
  return {
    ...(flags & KNOWN ? { known: { index, epoch } } : {}),
    ...(flags & OVER ? { isOver: true } : {}),
  };
}

/** The head as a block. */
export function encodeHead(
  clusterID: bigint,
  { done, mark, clientID, lost, owner, principal, session }: QueueHead,
): Uint8Array {
  const writer = begin(64).varint(done).varint(mark).u64(clientID)
    .varint(lost);
  if (owner === undefined) writer.u8(0);
  else writer.u8(1).bytes(owner);
  if (principal === undefined) writer.u8(0);
  else writer.u8(1).bytes(encodeText(principal, "Principal"));
  if (session !== undefined) {
    const { index, holders, base, known, isOver = false } = session;
    writer.varint(index).u64(session.clientID).varint(base);
    writer.u8(
      (known ? KNOWN : 0) | (known?.epoch ? MARKED : 0) | (isOver ? OVER : 0),
    );
    if (known) writer.varint(known.index);
    if (known?.epoch) {
      writer.varint(known.epoch.index).u64(known.epoch.id);
    }
    for (const holder of holders) writer.u64(holder);
  }
  return seal(writer, clusterID, HEAD_VERSION);
}

/**
 * Reads what {@linkcode encodeHead} wrote.
 *
 * @throws ErrStoreCorrupted if it did not
 */
export function decodeHead(block: Block, clusterID: bigint): QueueHead {
  return unseal(block, clusterID, (reader, version) => {
    const done = reader.varint();
    const mark = reader.varint();
    const clientID = reader.u64();
    const lost = reader.varint();
    const isOwned = version > 1 && reader.u8() === 1;
    const owner = isOwned ? copyOf(reader.bytes()) : undefined;
    const isNamed = version > 2 && reader.u8() === 1;
    const principal = isNamed
      ? new TextDecoder().decode(reader.bytes())
      : undefined;
    const client = {
      done,
      mark,
      clientID,
      lost,
      owner,
      ...(principal === undefined ? {} : { principal }),
    };
    if (reader.remaining === 0) return { ...client, session: undefined };
    const index = reader.varint();
    const session = {
      index,
      clientID: reader.u64(),
      base: reader.varint(),
      ...(version > 2 ? readHistory(reader) : {}),
      holders: [] as bigint[],
    };
    while (reader.remaining > 0) session.holders.push(reader.u64());
    return { ...client, session };
  }, HEAD_VERSION);
}
