/**
 * Snapshot payload of typed machines. Loaded when a machine saves or recovers its
 * first snapshot.
 *
 * ```text
 * "STM" and the version of the format, 3
 * frames: varint length, then that many bytes:
 *   0, string machine, varint state version, varint codec of the values, 1,
 *      varint count, of each active change: string name, varint index    first
 *   1, string name, value                       a plain value of the state
 *   2, string table, string key, value          a row; in the order of tables and keys
 *   3, varint number of frames before           last
 *   4, string table                             a table, before its rows
 * ```
 *
 * Versions 1 and 2 did not name the codec. Version 1 had no frames of tables: one
 * without rows was not in it.
 *
 * Strings, and values of codec 1, are those of {@link ./plain.ts plain data}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { SNAPSHOT_BLOCK_BYTES_MAX, STATE_FRAME_BYTES_MAX } from "../limits.ts";
import type { MachineCore, OldState } from "./core.ts";
import { ErrNewerCode } from "../statemachine/errors.ts";
import { ErrTypedSnapshot } from "./errors.ts";
import { type Hashed, hashed } from "./hashed.ts";
import { type Plain, PlainReader, PlainWriter } from "./plain.ts";
import type { TypedState } from "./state.ts";
import { stateHash } from "./state_hash.ts";
import type { TableCore } from "./table.ts";

const MAGIC = [0x53, 0x54, 0x4d];

const FORMAT = 3;

/** Id of the codec of plain data. */
const CODEC = 1;

/** First version of the format that names the codec. */
const CODEC_NAMED = 3;

// Kinds of frames.
const HEADER = 0;
const VALUE = 1;
const ROW = 2;
const END = 3;
const TABLE = 4;

/** State as of one index. */
export interface SavedState {
  readonly name: string;
  readonly version: number;
  readonly state: TypedState;
  readonly active: ReadonlyMap<string, number>;
}

/** Writes a state, row by row; the caller closes the stream. */
export async function saveState(
  saved: SavedState,
  w: WritableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<void> {
  const writer = w.getWriter();
  try {
    stopped.throwIfAborted();
    for (const chunk of chunks(saved)) {
      await writer.write(chunk);
      stopped.throwIfAborted();
    }
  } finally {
    writer.releaseLock();
  }
}

function* chunks(saved: SavedState): Generator<Uint8Array> {
  const chunk = new PlainWriter().raw(new Uint8Array(MAGIC)).u8(FORMAT);
  let count = 0;
  for (const frame of frames(saved)) {
    chunk.varint(frame.length).raw(frame);
    count++;
    if (chunk.length >= SNAPSHOT_BLOCK_BYTES_MAX) {
      yield chunk.finish();
      chunk.reset();
    }
  }
  const end = new PlainWriter().u8(END).varint(count).finish();
  yield chunk.varint(end.length).raw(end).finish();
}

function* frames(
  { name, version, state, active }: SavedState,
): Generator<Uint8Array> {
  const writer = new PlainWriter().u8(HEADER).string(name)
    .varint(version).varint(CODEC).varint(active.size);
  for (const [change, index] of active) writer.string(change).varint(index);
  yield writer.finish();
  for (const { name, now } of state.values()) {
    writer.reset().u8(VALUE).string(name).value(now.value, name);
    yield writer.finish();
  }
  for (const table of state.tables) {
    writer.reset().u8(TABLE).string(table.name);
    yield writer.finish();
    for (const [key, row] of table.entries()) {
      writer.reset().u8(ROW).string(table.name).string(key)
        .value(row, table.name);
      yield writer.finish();
    }
  }
}

/**
 * Version of the format of a payload, from its beginning.
 *
 * @throws ErrTypedSnapshot if it is not that of a typed machine, or one to come
 */
function formatOf(payload: Uint8Array): number {
  const version = payload[MAGIC.length]!;
  if (
    MAGIC.every((byte, i) => payload[i] === byte) && version >= 1 &&
    version <= FORMAT
  ) return version;
  throw new ErrTypedSnapshot(
    `Snapshot payload begins with ${
      payload.subarray(0, MAGIC.length + 1)
    }, and is not of a typed machine in a format up to ${FORMAT}: load the newer code`,
  );
}

/** Bounds of the frame at an offset; undefined if it is not complete yet. */
function frameAt(
  buffer: Uint8Array,
  at: number,
): { start: number; end: number } | undefined {
  let length = 0;
  let start = at;
  for (let scale = 1;; scale *= 0x80) {
    if (start >= buffer.length) return undefined;
    const byte = buffer[start++]!;
    length += (byte & 0x7f) * scale;
    if (length > STATE_FRAME_BYTES_MAX) {
      throw new RangeError(`frame is over ${STATE_FRAME_BYTES_MAX} bytes`);
    }
    if (byte < 0x80) break;
  }
  const end = start + length;
  return end <= buffer.length ? { start, end } : undefined;
}

/** State read from a payload. */
export interface LoadedState {
  readonly state: TypedState;
  readonly active: ReadonlyMap<string, number>;
  /** Hash of the saved state, if it was migrated. */
  readonly savedHash: bigint | undefined;
}

/**
 * Reads a state, and migrates it to the version of the definition.
 *
 * @throws ErrTypedSnapshot if the payload is damaged, or another machine's
 * @throws ErrNewerCode if it is of newer code
 */
export async function loadState(
  definition: MachineCore,
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<LoadedState> {
  const loader = new Loader(definition);
  const reader = r.getReader();
  try {
    for (;;) {
      stopped.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) return loader.finish();
      loader.push(value);
    }
  } catch (error) {
    // Bounds that the decoder has checked.
    if (!(error instanceof RangeError)) throw error;
    throw new ErrTypedSnapshot(
      `Snapshot payload of machine ${definition.name} is damaged: ${error.message}`,
      { cause: error },
    );
  } finally {
    reader.releaseLock();
  }
}

/** Loader of a state from the chunks of a payload. */
class Loader {
  /** Version of the format of the payload; 0 before its beginning. */
  #format = 0;
  /** Bytes of a frame that is not complete yet. */
  #rest = new Uint8Array();
  readonly #definition: MachineCore;
  readonly #active = new Map<string, number>();
  readonly #old: OldState = Object.create(null);
  #version = 0;
  #frames = 0;
  #isOver = false;
  #low = 0;
  #high = 0;

  constructor(definition: MachineCore) {
    this.#definition = definition;
  }

  /** Adds a chunk of the payload. */
  push(chunk: Uint8Array): void {
    const buffer = new Uint8Array(this.#rest.length + chunk.length);
    buffer.set(this.#rest);
    buffer.set(chunk, this.#rest.length);
    this.#rest = buffer;
    let at = 0;
    if (this.#format === 0) {
      if (buffer.length <= MAGIC.length) return;
      this.#format = formatOf(buffer);
      at = MAGIC.length + 1;
    }
    for (let frame; (frame = frameAt(buffer, at)) !== undefined;) {
      at = frame.end;
      this.#add(new PlainReader(buffer.subarray(frame.start, at)));
    }
    this.#rest = buffer.subarray(at);
  }

  #add(frame: PlainReader): void {
    const kind = frame.u8();
    if (this.#isOver || (kind === HEADER) !== (this.#frames === 0)) {
      throw new RangeError(`frame of kind ${kind} is out of place`);
    }
    switch (kind) {
      case HEADER:
        this.#header(frame);
        break;
      case VALUE:
        this.#value(frame);
        break;
      case TABLE:
        this.#table(frame.string());
        break;
      case ROW:
        this.#row(frame);
        break;
      case END:
        this.#isOver = frame.varint() === this.#frames;
        break;
      default:
        throw new RangeError(`kind ${kind} of a frame is unknown`);
    }
    if (frame.remaining > 0) {
      throw new RangeError(
        `${frame.remaining} bytes after a frame of kind ${kind}`,
      );
    }
    this.#frames++;
  }

  #header(frame: PlainReader): void {
    const { name, version, known } = this.#definition;
    const saved = frame.string();
    if (saved !== name) {
      throw new ErrTypedSnapshot(
        `Snapshot is of machine ${describe(saved)}, not of ${describe(name)}`,
      );
    }
    this.#version = frame.varint();
    const codec = this.#format < CODEC_NAMED ? CODEC : frame.varint();
    if (this.#version > version || this.#version < 1 || codec !== CODEC) {
      throw new ErrNewerCode(
        `Snapshot of machine ${name} has state version ${this.#version} in codec ${codec}, this code knows ${version} in codec ${CODEC}: load the newer code; nothing is lost`,
      );
    }
    for (let count = frame.varint(); count > 0; count--) {
      const change = frame.string();
      this.#active.set(change, frame.varint());
      if (!known.has(change)) {
        throw new ErrNewerCode(
          `Change ${
            describe(change)
          } is active in the snapshot of machine ${name}, and not known to this code: load the newer code; nothing is lost`,
        );
      }
    }
  }

  #value(frame: PlainReader): void {
    const name = frame.string();
    const value = frame.value();
    if (Object.hasOwn(this.#old, name)) throw twice(name);
    this.#old[name] = value;
    if (this.#isOld) this.#addHash(hashed(value, name));
  }

  #row(frame: PlainReader): void {
    const table = frame.string();
    const key = frame.string();
    const row = frame.value();
    const rows = this.#table(table);
    if (rows.has(key)) {
      throw twice(key);
    }
    rows.set(key, row);
    if (this.#isOld) this.#addHash(hashed(row, table, key));
  }

  #table(name: string): Map<string, Plain> {
    const rows = Object.hasOwn(this.#old, name)
      ? this.#old[name]
      : this.#old[name] = new Map<string, Plain>();
    if (rows instanceof Map) return rows;
    throw twice(name);
  }

  /** True if the saved state needs a migration. */
  get #isOld(): boolean {
    return this.#version < this.#definition.version;
  }

  /** Adds to the hash of a saved state that needs a migration. */
  #addHash({ low, high }: Hashed): void {
    this.#low = this.#low + low | 0;
    this.#high = this.#high + high | 0;
  }

  finish(): LoadedState {
    if (!this.#isOver || this.#rest.length > 0) {
      throw new RangeError(
        `it has ${this.#frames} frames, and does not end there`,
      );
    }
    const { version, migrations } = this.#definition;
    let old = this.#old;
    for (let from = this.#version; from < version; from++) {
      old = migrations[from]!(old);
    }
    const state = this.#definition.newState();
    state.load(() => fill(state, old));
    return {
      state,
      active: this.#active,
      savedHash: this.#isOld
        ? stateHash({ sums: [this.#low, this.#high] }, this.#active)
        : undefined,
    };
  }
}

function twice(name: string): RangeError {
  return new RangeError(`${describe(name)} stands there twice`);
}

/**
 * Sets the rows and values of a state.
 *
 * @throws ErrTypedSnapshot if a part of it has no place in the state
 */
function fill(state: TypedState, parts: OldState): void {
  const tables = new Map(state.tables.map((table) => [table.name, table]));
  for (const name of Object.keys(parts)) {
    const part = parts[name];
    const table = tables.get(name);
    if (table !== undefined && typeof part === "object" && part !== null) {
      fillTable(table, part);
    } else if (
      table === undefined && Object.hasOwn(state.root, name) &&
      !(part instanceof Map)
    ) state.root[name] = part;
    else {
      throw new ErrTypedSnapshot(
        `State has no ${part instanceof Map ? "table" : "value"} ${
          describe(name)
        }, which the snapshot has after its migrations: keep it in the definition, or raise its version and migrate`,
      );
    }
  }
}

/** Replaces the rows of a table, with which the state of a definition may begin. */
function fillTable(table: TableCore, part: OldState[string] & object): void {
  const rows = part instanceof Map ? part : Object.entries(part);
  for (const key of table.keys()) table.delete(key);
  for (const [key, row] of rows) table.set(key, row);
}
