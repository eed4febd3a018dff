/**
 * Queries of the key-value machines and their answers, with their encoding.
 *
 * A query is one byte, the version of the format (high half) and the kind of
 * query (low half), then:
 *
 * ```text
 * 0x11 get    the key, up to the end
 * 0x12 range  flags: 1 start, 2 end, 4 limit, 8 reverse; then, as flagged,
 *             start and end behind their lengths, and the limit, as varints
 * 0x13 count
 * 0x14 getMany  each key behind its length, as a varint
 * ```
 *
 * An answer to get is empty if the key is absent, else one byte 1 and the
 * value; to getMany, for each key, 0 if it is absent, else the length of the
 * value plus one, as a varint, and the value; to range, key and value of each
 * row behind their lengths; to count, the number as a varint.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter } from "../bytes.ts";
import { describe } from "../describe.ts";
import { ErrKVInvalidQuery } from "./errors.ts";
import type { Span } from "./tree.ts";
import { copyOf, viewOf } from "./view.ts";

/** Query for the value of a key. */
export interface KVGet {
  /** Discriminator of the query. */
  readonly type: "get";
  /** Key to look up. */
  readonly key: Uint8Array;
}

/** Query for the values of several keys. */
export interface KVGetMany {
  /** Discriminator of the query. */
  readonly type: "getMany";
  /** Keys to look up. */
  readonly keys: readonly Uint8Array[];
}

/** Query for rows in byte order of their keys. */
export interface KVRange {
  /** Discriminator of the query. */
  readonly type: "range";
  /** First key of the range. @default {the first key} */
  readonly start?: Uint8Array | undefined;
  /** End of the range, exclusive. @default {after the last key} */
  readonly end?: Uint8Array | undefined;
  /** Maximum number of rows. @default {all} */
  readonly limit?: number | undefined;
  /** True to return rows in descending order. @default {false} */
  readonly reverse?: boolean | undefined;
}

/** Query for the number of keys. */
export interface KVCount {
  /** Discriminator of the query. */
  readonly type: "count";
}

/** Query of a key-value machine. */
export type KVQuery = KVGet | KVGetMany | KVRange | KVCount;

/** Key with its value, both copies that belong to the caller. */
export interface KVRow {
  /** Key of the row. */
  key: Uint8Array;
  /** Value of the row. */
  value: Uint8Array;
}

/** Answer to a query of type `Q`. */
export type KVAnswer<Q extends KVQuery = KVQuery> = Q extends KVGet
  ? Uint8Array | undefined
  : Q extends KVGetMany ? (Uint8Array | undefined)[]
  : Q extends KVRange ? KVRow[]
  : Q extends KVCount ? number
  : never;

const GET = 0x11;
const RANGE = 0x12;
const COUNT = 0x13;
const GET_MANY = 0x14;

const START = 1;
const END = 2;
const LIMIT = 4;
const REVERSE = 8;

/** State that answers queries. */
export interface KVState {
  /** Number of rows. */
  readonly count: number;
  /** Returns a copy of the value of a key. */
  copy(view: DataView, start: number, end: number): Uint8Array | undefined;
  /** Iterates over the rows whose keys are in [from, to), leaf by leaf; in descending order of leaves if `reverse`. */
  spans(from?: DataView, to?: DataView, reverse?: boolean): Iterable<Span>;
}

/** Checks an untrusted query. */
export function checked<Q extends KVQuery>(query: Q): Q {
  const bytes = (value: unknown): boolean => value instanceof Uint8Array;
  const optional = (value: unknown): boolean =>
    value === undefined || bytes(value);
  switch (query?.type) {
    case "get":
      if (bytes(query.key)) return query;
      break;
    case "getMany":
      if (Array.isArray(query.keys) && query.keys.every(bytes)) return query;
      break;
    case "range": {
      const { limit, reverse } = query;
      if (
        optional(query.start) && optional(query.end) &&
        (limit === undefined || Number.isSafeInteger(limit) && limit >= 0) &&
        (reverse === undefined || typeof reverse === "boolean")
      ) return query;
      break;
    }
    case "count":
      return query;
  }
  throw new ErrKVInvalidQuery(
    `${
      describe(query)
    } is not a key-value query; make queries with kv.get(), kv.getMany(), kv.range() or kv.count()`,
  );
}

/** Key of the query being answered: copying a short one costs less than creating a view. */
const scratch = /* @__PURE__ */ new Uint8Array(256);
const scratchView = /* @__PURE__ */ viewOf(scratch);

/** Returns a view of a key, valid until the next call. */
function keyView(key: Uint8Array): DataView {
  const { length } = key;
  if (length > scratch.length) return viewOf(key);
  if (length > 32) scratch.set(key);
  else for (let i = 0; i < length; i++) scratch[i] = key[i]!;
  return scratchView;
}

/** Answers a query from a state. */
export function answer(state: KVState, query: KVQuery): KVAnswer {
  checked(query);
  switch (query.type) {
    case "get":
      return state.copy(keyView(query.key), 0, query.key.length);
    case "getMany":
      return query.keys.map((key) => state.copy(keyView(key), 0, key.length));
    case "range":
      return range(state, query);
    case "count":
      return state.count;
  }
}

function range(state: KVState, query: KVRange): KVRow[] {
  const rows: KVRow[] = [];
  const { start, end, reverse } = query;
  if (query.limit === 0) return rows;
  const from = start && viewOf(start);
  const to = end && viewOf(end);
  for (const span of state.spans(from, to, reverse)) {
    if (collect(rows, span, query)) break;
  }
  return rows;
}

/** Adds copies of the rows of a span in the requested order; true once the limit is reached. */
export function collect(
  rows: KVRow[],
  { leaf, start, end }: Span,
  { limit = Infinity, reverse }: KVRange,
): boolean {
  for (let i = start; i < end && rows.length < limit; i++) {
    const row = reverse ? start + end - 1 - i : i;
    const value = leaf.valueAt(row);
    rows.push({
      key: copyOf(leaf.view, leaf.keyAt(row), value),
      value: copyOf(leaf.view, value, leaf.offset(row + 1)),
    });
  }
  return rows.length >= limit;
}

/** Encodes a query. */
export function encodeQuery(query: KVQuery): Uint8Array<ArrayBuffer> {
  checked(query);
  const w = new ByteWriter();
  if (query.type === "get") return w.u8(GET).raw(query.key).finish();
  if (query.type === "count") return w.u8(COUNT).finish();
  if (query.type === "getMany") {
    w.u8(GET_MANY);
    for (const key of query.keys) w.bytes(key);
    return w.finish();
  }
  const { start, end, limit, reverse } = query;
  w.u8(RANGE).u8(
    (start ? START : 0) | (end ? END : 0) |
      (limit === undefined ? 0 : LIMIT) | (reverse ? REVERSE : 0),
  );
  if (start) w.bytes(start);
  if (end) w.bytes(end);
  if (limit !== undefined) w.varint(limit);
  return w.finish();
}

/** Decodes a query; its keys are views of the bytes. */
export function decodeQuery(bytes: Uint8Array): KVQuery {
  return decode("Not the bytes of a key-value query", bytes, (r) => {
    const op = r.u8();
    if (op === GET) return { type: "get", key: r.raw(r.remaining) };
    if (op === COUNT) return { type: "count" };
    if (op === GET_MANY) {
      const keys: Uint8Array[] = [];
      while (r.remaining > 0) keys.push(r.bytes());
      return { type: "getMany", keys };
    }
    if (op !== RANGE) throw new RangeError(`Unknown query ${op}`);
    const flags = r.u8();
    if (flags > 15) throw new RangeError(`Unknown flags ${flags}`);
    return {
      type: "range",
      start: flags & START ? r.bytes() : undefined,
      end: flags & END ? r.bytes() : undefined,
      limit: flags & LIMIT ? r.varint() : undefined,
      reverse: (flags & REVERSE) !== 0,
    };
  });
}

/** Encodes the answer to a query. */
export function encodeAnswer(
  { type }: KVQuery,
  answer: KVAnswer,
): Uint8Array<ArrayBuffer> {
  const w = new ByteWriter();
  if (type === "count") w.varint(answer as KVAnswer<KVCount>);
  else if (type === "range") {
    const rows = answer as KVAnswer<KVRange>;
    for (const { key, value } of rows) w.bytes(key).bytes(value);
  } else if (type === "getMany") {
    for (const value of answer as KVAnswer<KVGetMany>) {
      if (value === undefined) w.varint(0);
      else w.varint(value.length + 1).raw(value);
    }
  } else {
    const value = answer as KVAnswer<KVGet>;
    if (value !== undefined) w.u8(1).raw(value);
  }
  return w.finish();
}

/** Decodes the answer to a query, without views of the bytes. */
export function decodeAnswer<Q extends KVQuery>(
  query: Q,
  bytes: Uint8Array,
): KVAnswer<Q> {
  checked(query as KVQuery);
  return decodeChecked(query, bytes) as KVAnswer<Q>;
}

function decodeChecked(query: KVQuery, bytes: Uint8Array): KVAnswer {
  const { type } = query;
  return decode<KVAnswer>(
    `Not the bytes of an answer to ${type}`,
    bytes,
    (r) => {
      if (type === "count") return r.varint();
      if (type === "get") {
        if (r.remaining === 0) return undefined;
        const presence = r.u8();
        if (presence !== 1) {
          throw new RangeError(
            `Unknown presence ${presence}`,
          );
        }
        return r.raw(r.remaining).slice();
      }
      if (query.type === "getMany") {
        return query.keys.map(() => {
          const size = r.varint();
          return size === 0 ? undefined : r.raw(size - 1).slice();
        });
      }
      const rows: KVRow[] = [];
      while (r.remaining > 0) {
        rows.push({ key: r.bytes().slice(), value: r.bytes().slice() });
      }
      return rows;
    },
  );
}

/** Decodes bytes to their end; malformed bytes throw `ErrKVInvalidQuery` with this message. */
function decode<T>(
  message: string,
  bytes: Uint8Array,
  read: (r: ByteReader) => T,
): T {
  let rest: number;
  try {
    const r = new ByteReader(bytes);
    const value = read(r);
    rest = r.remaining;
    if (rest === 0) return value;
  } catch (cause) {
    throw new ErrKVInvalidQuery(message, { cause });
  }
  throw new ErrKVInvalidQuery(`${message}: ${rest} bytes too many`);
}
