/**
 * Commands of the key-value machines: their encoding and their effect on a state.
 *
 * A command is one byte with the version of the format (high four bits) and the
 * operation (low four bits), then its fields, each preceded by its length as a
 * varint:
 *
 * ```text
 * 0x11 put             key, value
 * 0x12 delete          key
 * 0x13 compareAndSwap  key, expected value, value
 * 0x14 compareAndSwap  key, value             (the key is expected to be absent)
 * 0x15 batch           any of the above, one after the other
 * ```
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  encodeShown,
  isSameBytes,
  putVarint,
  toUint8Array,
  U64_MAX,
  varintLength,
} from "../bytes.ts";
import { describe } from "../describe.ts";
import {
  COMMAND_BYTES_MAX,
  KV_BATCH_PARTS_MAX,
  KV_KEY_BYTES_MAX,
  KV_VALUE_BYTES_MAX,
} from "../limits.ts";
import type { Result } from "../statemachine/types.ts";
import { ErrKVInvalidCommand } from "./errors.ts";
import { equalBytes, viewOf } from "./view.ts";

/** Operation of a put. */
export const PUT = 0x11;
/** Operation of a delete. */
export const DELETE = 0x12;
/** Operation of a compare-and-swap that expects a value. */
export const SWAP = 0x13;
/** Operation of a compare-and-swap that expects the key to be absent. */
export const CREATE = 0x14;
/** Operation of a batch. */
export const BATCH = 0x15;

/** State that commands are applied to. Keys and values are ranges of `view`, which must not be retained. */
export interface KVTarget {
  /** Returns the value of a key, readable until the next call. */
  get(view: DataView, start: number, end: number): Uint8Array | undefined;
  /** Sets the value of a key; false if it has it already. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): boolean;
  /** Removes a key; false if it is absent. */
  delete(view: DataView, start: number, end: number): boolean;
}

/** Offsets of the fields of the operation parsed last. One shared object, so that no command allocates one. */
const field = {
  op: 0,
  keyStart: 0,
  keyEnd: 0,
  expectedStart: 0,
  expectedEnd: 0,
  valueStart: 0,
  valueEnd: 0,
  /** Offset of the next operation. */
  end: 0,
};

/**
 * Copy of the current command. Copying costs less than a view of the command,
 * and the command belongs to the host: nothing may refer to it later.
 */
let view = /* @__PURE__ */ viewOf(/* @__PURE__ */ new Uint8Array());
let input = /* @__PURE__ */ new Uint8Array();
/** Offset after the current command. */
let end = 0;

/** Copies a command to `view`; false if it is over the limit. */
function load(cmd: Uint8Array): boolean {
  end = cmd.length;
  if (end > input.length) {
    if (end > COMMAND_BYTES_MAX) return false;
    input = new Uint8Array(Math.min(2 * end + 1024, COMMAND_BYTES_MAX));
    view = viewOf(input);
  }
  input.set(cmd);
  return true;
}

/**
 * Parses a field of at most `max` bytes: returns the offset of its bytes and
 * sets `field.end` to the one after them, or returns -1.
 */
function parseField(max: number): number {
  let at = field.end;
  let size = 0;
  let byte = 0x80;
  for (let shift = 0; byte >= 0x80; shift += 7) {
    if (at >= end || shift > 21) return -1;
    byte = view.getUint8(at++);
    size |= (byte & 0x7f) << shift;
  }
  if (size > max || size > end - at) return -1;
  field.end = at + size;
  return at;
}

/** Parses the operation at `at` into `field`; false if it is malformed. */
function parse(at: number): boolean {
  const op = field.op = at < end ? view.getUint8(at) : 0;
  if (op < PUT || op > CREATE) return false;
  field.end = at + 1;
  field.keyStart = parseField(KV_KEY_BYTES_MAX);
  if (field.keyStart < 0) return false;
  field.keyEnd = field.end;
  if (op === SWAP) {
    field.expectedStart = parseField(KV_VALUE_BYTES_MAX);
    if (field.expectedStart < 0) return false;
    field.expectedEnd = field.end;
  }
  if (op !== DELETE) {
    field.valueStart = parseField(KV_VALUE_BYTES_MAX);
    if (field.valueStart < 0) return false;
    field.valueEnd = field.end;
  }
  return true;
}

// Shared by all results, therefore frozen.
const UNCHANGED: Result = /* @__PURE__ */ Object.freeze({ value: 0n });
const CHANGED: Result = /* @__PURE__ */ Object.freeze({ value: 1n });

function invalid(reason: string): Result {
  return { value: U64_MAX, data: encodeShown(reason) };
}

/** Result of the operation in `field` if it is a compare-and-swap that fails. */
function failure(target: KVTarget): Result | undefined {
  const { op, keyStart, keyEnd, expectedStart, expectedEnd } = field;
  if (op < SWAP) return;
  const present = target.get(view, keyStart, keyEnd);
  if (present === undefined) return op === CREATE ? undefined : UNCHANGED;
  if (
    op === SWAP && present.length === expectedEnd - expectedStart &&
    equalBytes(view, expectedStart, expectedEnd, viewOf(present), 0)
  ) return;
  return { value: 0n, data: present.slice() };
}

/** Performs the operation in `field`; true if it changed the state. */
function perform(target: KVTarget): boolean {
  const { op, keyStart, keyEnd, valueStart, valueEnd } = field;
  return op === DELETE
    ? target.delete(view, keyStart, keyEnd)
    : target.put(view, keyStart, keyEnd, valueStart, valueEnd);
}

function applyBatch(target: KVTarget): Result {
  let failed: Result | undefined;
  let parts = 0;
  for (let at = 1; at < end; at = field.end) {
    if (!parse(at)) return invalid(`Part ${parts} is malformed`);
    if (++parts > KV_BATCH_PARTS_MAX) return invalid("Too many parts");
    failed ??= failure(target);
  }
  if (failed) return failed;
  let changed = false;
  for (let at = 1; at < end; at = field.end) {
    parse(at);
    if (perform(target)) changed = true;
  }
  return changed ? CHANGED : UNCHANGED;
}

/**
 * Applies a command. Never throws: a malformed command changes nothing and
 * returns 2^64-1, with the reason in UTF-8 as data. Results may be shared and
 * must not be changed.
 */
export function applyCommand(target: KVTarget, cmd: Uint8Array): Result {
  if (!load(cmd)) return invalid("Command is too large");
  if (cmd[0] === BATCH) return applyBatch(target);
  if (!parse(0)) return invalid("Command is malformed");
  if (field.end !== end) return invalid("Bytes follow the command");
  return failure(target) ?? (perform(target) ? CHANGED : UNCHANGED);
}

/** Copy of the key that a command sets or removes and nothing else; undefined for any other command. */
function overwrittenKey(cmd: Uint8Array): Uint8Array | undefined {
  return load(cmd) && parse(0) && field.end === end && field.op <= DELETE
    ? input.slice(field.keyStart, field.keyEnd)
    : undefined;
}

/** Merges two commands that set or remove one key into the second. */
export function mergeCommands(
  first: Uint8Array,
  second: Uint8Array,
): Uint8Array | undefined {
  const key = overwrittenKey(second);
  if (key === undefined) return undefined;
  const before = overwrittenKey(first);
  return before !== undefined && isSameBytes(before, key) ? second : undefined;
}

/** Calls `found` for each key of a command; for none if the command is malformed. */
export function forEachKey(
  cmd: Uint8Array,
  tell: (view: DataView, start: number, end: number) => void,
): void {
  if (!load(cmd)) return;
  const first = cmd[0] === BATCH ? 1 : 0;
  for (let at = first; at < end && parse(at); at = field.end) {
    tell(view, field.keyStart, field.keyEnd);
  }
}

/** Returns the name of a field of an operation, for messages. */
function fieldName(op: number, field: number): string {
  if (field === 0) return "Key";
  return op === SWAP && field === 1 ? "Expected value" : "Value";
}

/** Encodes an operation with its fields. */
export function encodeCommand(
  op: number,
  ...fields: (string | Uint8Array)[]
): Uint8Array<ArrayBuffer> {
  const parts = fields.map((part, i) => toUint8Array(part, fieldName(op, i)));
  let size = 1;
  parts.forEach(({ length }, i) => {
    const max = i === 0 ? KV_KEY_BYTES_MAX : KV_VALUE_BYTES_MAX;
    if (length > max) {
      throw new ErrKVInvalidCommand(
        `${
          i === 0 ? "Key" : "Value"
        } of ${length} bytes is over the limit of ${max}`,
      );
    }
    size += varintLength(length) + length;
  });
  const bytes = allocate(size);
  bytes[0] = op;
  let at = 1;
  for (const part of parts) {
    at = putVarint(bytes, at, part.length);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Encodes a batch of commands. */
export function encodeBatch(
  commands: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  if (!Array.isArray(commands)) {
    throw new TypeError(
      `Commands of a batch are ${
        describe(commands)
      }; give an array of Uint8Array`,
    );
  }
  commands.forEach((part, i) => {
    if (part instanceof Uint8Array) return;
    throw new TypeError(
      `Part ${i} of the batch is ${
        describe(part)
      }; give what kv.put() and the like return`,
    );
  });
  if (commands.length > KV_BATCH_PARTS_MAX) {
    throw new ErrKVInvalidCommand(
      `Batch of ${commands.length} parts is over the limit of ${KV_BATCH_PARTS_MAX}`,
    );
  }
  const bytes = allocate(commands.reduce((sum, part) => sum + part.length, 1));
  bytes[0] = BATCH;
  let at = 1;
  commands.forEach((part, i) => {
    if (!load(part) || !parse(0) || field.end !== end) {
      throw new ErrKVInvalidCommand(
        `Part ${i} of the batch is ${
          part[0] === BATCH
            ? "a batch; batches do not nest"
            : "not a command; pass what kv.put() and the like return"
        }`,
      );
    }
    bytes.set(part, at);
    at += part.length;
  });
  return bytes;
}

function allocate(size: number): Uint8Array<ArrayBuffer> {
  if (size > COMMAND_BYTES_MAX) {
    throw new ErrKVInvalidCommand(
      `Command of ${size} bytes is over the limit of ${COMMAND_BYTES_MAX}`,
    );
  }
  return new Uint8Array(size);
}
