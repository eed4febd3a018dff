/**
 * Snapshot payload of typed machines.
 *
 * ```text
 * "STM" and the version of the format, 2
 * frames: varint length, then that many bytes:
 *   0, string machine, varint state version,
 *      varint count, of each active change: string name, varint index    first
 *   1, string name, value                       a plain value of the state
 *   2, string table, string key, value          a row; in the order of tables and keys
 *   3, varint number of frames before           last
 *   4, string table                             a table, before its rows
 * ```
 *
 * Version 1 had no frames of tables: one without rows was not in it.
 *
 * Strings and values are those of {@link ./plain.ts plain data}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { hash64, hashKey, hashValue, lanes } from "../kv/hash.ts";
import { COMMAND_BYTES_MAX, SNAPSHOT_BLOCK_BYTES_MAX } from "../limits.ts";
import type { MachineCore, OldState } from "./core.ts";
import { ErrNewerCode } from "../statemachine/errors.ts";
import { ErrTypedSnapshot } from "./errors.ts";
import { type Plain, PlainReader, PlainWriter } from "./plain.ts";
import type { TypedState } from "./state.ts";
import { TableCore } from "./table.ts";

const MAGIC = [0x53, 0x54, 0x4d];

const FORMAT = 2;

/** Largest frame, in bytes: a row comes from one command. */
const FRAME_BYTES_MAX = 4 * COMMAND_BYTES_MAX;

const Frame = { Header: 0, Value: 1, Row: 2, End: 3, Table: 4 } as const;

/** State as of one index. */
export interface SavedState {
  readonly name: string;
  readonly version: number;
  readonly state: TypedState;
  readonly active: ReadonlyMap<string, number>;
}

/** Hash of a state with its active changes. */
export function stateHash(
  { sums: [low, high] }: { readonly sums: readonly [number, number] },
  active: ReadonlyMap<string, number>,
): bigint {
  for (const [name, index] of active) {
    const writer = new PlainWriter().string(name);
    const end = writer.length;
    writer.varint(index);
    hashKey(writer.view, 0, end);
    hashValue(writer.view, end, writer.length);
    low = low + lanes[0]! | 0;
    high = high + lanes[1]! | 0;
  }
  return hash64(low, high);
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
  const end = new PlainWriter().u8(Frame.End).varint(count).finish();
  yield chunk.varint(end.length).raw(end).finish();
}

function* frames(
  { name, version, state, active }: SavedState,
): Generator<Uint8Array> {
  const writer = new PlainWriter().u8(Frame.Header).string(name)
    .varint(version).varint(active.size);
  for (const [change, index] of active) writer.string(change).varint(index);
  yield writer.finish();
  for (const [name, value] of state.values()) {
    writer.reset().u8(Frame.Value).string(name).value(value, name);
    yield writer.finish();
  }
  for (const table of state.tables) {
    writer.reset().u8(Frame.Table).string(table.name);
    yield writer.finish();
    for (const [key, row] of table.entries()) {
      writer.reset().u8(Frame.Row).string(table.name).string(key)
        .value(row, table.name);
      yield writer.finish();
    }
  }
}

/** Yields the chunks of a stream. */
async function* chunksOf(
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const reader = r.getReader();
  try {
    for (;;) {
      stopped.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.releaseLock();
  }
}

/** Yields the frames of a payload. */
async function* framesOf(
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
): AsyncGenerator<PlainReader> {
  let buffer = new Uint8Array();
  let at = 0;
  let isBegun = false;
  for await (const chunk of chunksOf(r, stopped)) {
    const rest = buffer.subarray(at);
    buffer = new Uint8Array(rest.length + chunk.length);
    buffer.set(rest);
    buffer.set(chunk, rest.length);
    at = 0;
    if (!isBegun) {
      if (buffer.length <= MAGIC.length) continue;
      const version = buffer[MAGIC.length]!;
      if (
        MAGIC.some((byte, i) => buffer[i] !== byte) || version < 1 ||
        version > FORMAT
      ) {
        throw new ErrTypedSnapshot(
          `Snapshot payload begins with ${
            buffer.subarray(0, MAGIC.length + 1)
          }, and is not that of a typed machine in a format up to ${FORMAT}: load the newer code if there is one`,
        );
      }
      isBegun = true;
      at = MAGIC.length + 1;
    }
    for (;;) {
      const found = frameAt(buffer, at);
      if (found === undefined) break;
      at = found.end;
      yield new PlainReader(buffer.subarray(found.start, found.end));
    }
  }
  if (!isBegun || at < buffer.length) {
    throw new ErrTypedSnapshot(
      `Snapshot payload ends within a frame, ${
        buffer.length - at
      } bytes after its start`,
    );
  }
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
    if (length > FRAME_BYTES_MAX) {
      throw new ErrTypedSnapshot(
        `Frame of a snapshot payload is over the limit of ${FRAME_BYTES_MAX} bytes`,
      );
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
  try {
    for await (const frame of framesOf(r, stopped)) loader.add(frame);
    return loader.finish();
  } catch (error) {
    // Bounds that the decoder has checked.
    if (!(error instanceof RangeError)) throw error;
    throw new ErrTypedSnapshot(
      `Snapshot payload of machine ${definition.name} is damaged: ${error.message}`,
      { cause: error },
    );
  }
}

class Loader {
  readonly #definition: MachineCore;
  readonly #active = new Map<string, number>();
  readonly #old: OldState = {};
  #version = 0;
  #frames = 0;
  #isOver = false;
  #low = 0;
  #high = 0;

  constructor(definition: MachineCore) {
    this.#definition = definition;
  }

  add(frame: PlainReader): void {
    const kind = frame.u8();
    if (this.#isOver || (kind === Frame.Header) !== (this.#frames === 0)) {
      throw new RangeError(`frame of kind ${kind} is out of place`);
    }
    switch (kind) {
      case Frame.Header:
        this.#header(frame);
        break;
      case Frame.Value:
        this.#value(frame);
        break;
      case Frame.Table:
        this.#table(frame.string());
        break;
      case Frame.Row:
        this.#row(frame);
        break;
      case Frame.End: {
        const count = frame.varint();
        if (count !== this.#frames) {
          throw new RangeError(`${this.#frames} frames instead of ${count}`);
        }
        this.#isOver = true;
        break;
      }
      default:
        throw new RangeError(`frame has kind ${kind}`);
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
    if (this.#version > version || this.#version < 1) {
      throw new ErrNewerCode(
        `Snapshot of machine ${name} has state version ${this.#version}, this code knows ${version}: load the newer code; nothing is lost`,
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
    if (Object.hasOwn(this.#old, name)) {
      throw new RangeError(`value ${describe(name)} stands there twice`);
    }
    this.#old[name] = value;
    const writer = new PlainWriter().string(name);
    this.#hash(writer, value, name);
  }

  #row(frame: PlainReader): void {
    const table = frame.string();
    const key = frame.string();
    const row = frame.value();
    const rows = this.#table(table);
    if (rows.has(key)) {
      throw new RangeError(
        `row ${describe(key)} of ${describe(table)} stands there twice`,
      );
    }
    rows.set(key, row);
    this.#hash(new PlainWriter().string(table).string(key), row, table);
  }

  #table(name: string): Map<string, Plain> {
    const rows = Object.hasOwn(this.#old, name)
      ? this.#old[name]
      : this.#old[name] = new Map<string, Plain>();
    if (rows instanceof Map) return rows;
    throw new RangeError(`table ${describe(name)} is a value, too`);
  }

  #hash(writer: PlainWriter, value: Plain, name: string): void {
    const end = writer.length;
    writer.value(value, name);
    hashKey(writer.view, 0, end);
    hashValue(writer.view, end, writer.length);
    this.#low = this.#low + lanes[0]! | 0;
    this.#high = this.#high + lanes[1]! | 0;
  }

  finish(): LoadedState {
    if (!this.#isOver) {
      throw new RangeError(
        `it ends after ${this.#frames} frames, without its last one`,
      );
    }
    const { version, migrations } = this.#definition;
    let old = this.#old;
    for (let from = this.#version; from < version; from++) {
      old = migrations[from]!(old);
    }
    const state = this.#definition.newState();
    state.load(() => fill(state, old));
    const isMigrated = this.#version < version;
    return {
      state,
      active: this.#active,
      savedHash: isMigrated
        ? stateHash({ sums: [this.#low, this.#high] }, this.#active)
        : undefined,
    };
  }
}

/**
 * Sets the rows and values of a state.
 *
 * @throws ErrTypedSnapshot if a part of it has no place in the state
 */
function fill(state: TypedState, parts: OldState): void {
  for (const name of Object.keys(parts)) {
    const part = parts[name];
    const place = state.root[name];
    if (place instanceof TableCore) {
      const entries = part instanceof Map
        ? part
        : Object.entries(part as object);
      for (const [key, row] of entries) place.set(key, row);
    } else if (Object.hasOwn(state.root, name) && !(part instanceof Map)) {
      state.root[name] = part;
    } else {
      throw new ErrTypedSnapshot(
        `State has no ${part instanceof Map ? "table" : "value"} ${
          describe(name)
        }, which the snapshot has after its migrations: keep it in the definition, or raise its version and migrate`,
      );
    }
  }
}
