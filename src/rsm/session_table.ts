/**
 * Session table: which series of each client session were applied, and with what
 * results. It is replicated state, changed only by log entries (H4).
 *
 * This is the client table of section 6.3 of the Raft thesis, with two
 * differences. A session may have many proposals in flight, so the table applies
 * its series in order and stops at a gap. And it stores a digest of each command,
 * so that a retry with other content is reported as a conflict instead of being
 * answered with the result of a different command (H14).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, copyOf, isSameBytes } from "../bytes.ts";
import {
  SESSION_OWNER_BYTES_MAX,
  SESSION_RESULT_BYTES_MAX,
  SESSION_SHARE,
  SESSION_WINDOW_MAX,
  SESSIONS_DEFAULT,
  SESSIONS_MAX,
  SESSIONS_RESULT_BYTES_MAX,
} from "../limits.ts";
import type { Result } from "../statemachine/types.ts";
import { LruList, type LruNode } from "./lru_list.ts";

/** Recorded outcome of one series that its client has not acknowledged. */
export interface Slot {
  /** Digest of the command; `SKIPPED` for a skipped series. */
  digest: number;
  /** Result of the command, or of a skipped series its reason as data; undefined while it is being applied, or once dropped. */
  result: Result | undefined;
}

/** Session in the table. `L` is this replica's handle for it, no part of the replicated state. */
export interface SessionEntry<L> {
  /** Index of the register record, which identifies the session. */
  readonly index: number;
  /** Random id chosen by the client, by which it recognizes its registration. */
  readonly clientID: bigint;
  /** Id of the session holder: the client id, until a claim changes it (H14). */
  holder: bigint;
  /** Principal that registered the session, as bytes; may be empty. */
  readonly owner: Uint8Array;
  /** Last series that the client has acknowledged, with all before it. */
  responded: number;
  /** Next series to be applied; the series after `responded` and before it are in `slots`. */
  next: number;
  /** Slots of the series after `responded`, from position `head` on. */
  slots: Slot[];
  /** Position in `slots` of the first series that is not acknowledged. */
  head: number;
  /** Bytes of result data in the slots. */
  dataBytes: number;
  /** This replica's handle; undefined for a session that it does not use. */
  local: L | undefined;
  /** Node in the LRU list of all sessions; undefined once the session is removed. */
  node: LruNode<SessionEntry<L>> | undefined;
  /** LRU list of the sessions of the same owner. */
  ownerList: LruList<SessionEntry<L>> | undefined;
  /** Node in `ownerList`. */
  ownerNode: LruNode<SessionEntry<L>> | undefined;
}

/** Digest of a skipped series. */
export const SKIPPED = -1;

/** Stands in an array of slots for one that its client has acknowledged. */
const RELEASED: Slot = { digest: SKIPPED, result: undefined };

/** Computes a 52-bit digest of `bytes[start..end)` from two multiplicative hashes. Part of the replicated rules: it must never change. */
export function digest(bytes: Uint8Array, start: number, end: number): number {
  let a = 0x9E3779B9 ^ (end - start);
  let b = 0x85EBCA6B;
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!;
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b + byte, 0x5BD1E995);
    b ^= b >>> 15;
  }
  a ^= a >>> 16;
  a = Math.imul(a, 0x7FEB352D);
  a ^= a >>> 15;
  a = Math.imul(a, 0x846CA68B);
  a ^= a >>> 16;
  return (a >>> 12) * 0x1_0000_0000 + (b >>> 0);
}

/**
 * True if the series with the digest `found` was used for another command than
 * `cmd`. One that was skipped was not: a client may send a command and the skip of
 * its series.
 */
export function isOtherCommand(
  found: number | undefined,
  cmd: Uint8Array,
): boolean {
  return found !== undefined && found !== SKIPPED &&
    found !== digest(cmd, 0, cmd.length);
}

/** Decision of the table about a proposal. */
export type Admission =
  /** Next in its series: apply it and fill the new slot. */
  | "apply"
  /** Applied or skipped before: the slot has its outcome. */
  | "duplicate"
  /** Applied or skipped, and acknowledged by the client. */
  | "acknowledged"
  /** An earlier series is missing: ignored, until the client sends both in order. */
  | "gap"
  /** The series was used for another command. */
  | "conflict";

/** Sessions of a cluster, in LRU order. */
export class SessionTable<L> {
  readonly #sessions = new Map<number, SessionEntry<L>>();
  /** Most recent session of each client and owner. */
  readonly #clients = new Map<string, SessionEntry<L>>();
  #lru = new LruList<SessionEntry<L>>();
  /** LRU list of the sessions of each owner. */
  readonly #owners = new Map<string, LruList<SessionEntry<L>>>();
  /** Owners with more than their share of the sessions. */
  readonly #overShare = new Set<string>();
  #max = SESSIONS_DEFAULT;
  #begun = false;
  /** Bytes of result data in all sessions. */
  #dataBytes = 0;
  /** Slot of the series for which `admit()` last returned "apply" or "duplicate". */
  slot: Slot | undefined;
  /** Sessions that the batch being applied has removed, by index. */
  readonly #removed = new Map<number, SessionEntry<L>>();
  /** Sessions changed since the last `takeChanges()`; undefined unless tracked. */
  #changed: Set<number> | undefined;

  /** Creates an empty table; with `track`, it records changes for {@linkcode takeChanges}. */
  constructor(options: { readonly track?: boolean } = {}) {
    if (options.track) this.#changed = new Set();
  }

  /** Number of sessions. */
  get size(): number {
    return this.#sessions.size;
  }

  /** Index of the most recently registered session; 0 without sessions. */
  get newest(): number {
    let newest = 0;
    for (const index of this.#sessions.keys()) {
      newest = Math.max(newest, index);
    }
    return newest;
  }

  /** Maximum number of sessions. */
  get max(): number {
    return this.#max;
  }

  /** True once the first record of the cluster was applied; only that record may set limits. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Records that the cluster has begun, with the session limit its first record sets. */
  begin(max: number = SESSIONS_DEFAULT): void {
    this.#max = max;
    this.#begun = true;
    this.#changed?.add(0);
  }

  /** Returns the session whose register record is at `index`. */
  get(index: number): SessionEntry<L> | undefined {
    // Fast path: most batches contain the proposals of one session.
    const newest = this.#lru.newest?.item;
    return newest?.index === index ? newest : this.#sessions.get(index);
  }

  /**
   * Returns a session as it is at the applied index `upTo`, for readers beside the
   * batch being applied: with those that the batch removes, without those that it
   * registers. Of a session that was there before, `next` and the slots are ahead.
   */
  seen(index: number, upTo: number): SessionEntry<L> | undefined {
    if (index > upTo) return undefined;
    return this.get(index) ?? this.#removed.get(index);
  }

  /** Ends the batch being applied: the sessions that it has removed are gone for every reader. */
  settle(): void {
    if (this.#removed.size > 0) this.#removed.clear();
  }

  /** Index of the first session above `after` and at or below the applied index `upTo` that `clientID` registered, for `owner` if given. */
  find(
    clientID: bigint,
    after: number,
    upTo: number,
    owner: Uint8Array | undefined,
  ): number | undefined {
    let first: number | undefined;
    for (const sessions of [this.#sessions, this.#removed]) {
      for (const session of sessions.values()) {
        const { index } = session;
        if (session.clientID !== clientID) continue;
        if (index <= after || index > upTo) continue;
        if (owner !== undefined && !isSameBytes(session.owner, owner)) continue;
        if (!(index > first!)) first = index;
      }
    }
    return first;
  }

  /**
   * Registers a session. At the limit it evicts the least recently used session: of
   * the owner with the most sessions, if that is over its share, else of the whole
   * table. So no owner can evict all sessions of the others.
   *
   * A client has one session per owner: a repeated registration, also by a copy of
   * the client, returns that session while it exists (H14).
   */
  register(
    index: number,
    clientID: bigint,
    owner: Uint8Array,
  ): SessionEntry<L> {
    const known = this.#clients.get(clientOf({ clientID, owner }));
    if (known !== undefined) {
      this.touch(known);
      return known;
    }
    if (this.#sessions.size >= this.#max) this.remove(this.#evictable());
    const session: SessionEntry<L> = {
      index,
      clientID,
      holder: clientID,
      owner: owner.slice(),
      responded: 0,
      next: 1,
      slots: [],
      head: 0,
      dataBytes: 0,
      local: undefined,
      node: undefined,
      ownerList: undefined,
      ownerNode: undefined,
    };
    this.#add(session);
    return session;
  }

  /** True if up to `uses` registrations, and uses of other sessions, by any client may evict this session, or the batch being applied has. */
  mayEvict(index: number, uses: number): boolean {
    if (this.#removed.has(index)) return true;
    const session = this.#sessions.get(index);
    if (session === undefined || this.#sessions.size + uses <= this.#max) {
      return false;
    }
    return isAmongOldest(session.node!, uses) ||
      isAmongOldest(session.ownerNode!, uses);
  }

  /** Selects the session to evict. */
  #evictable(): SessionEntry<L> {
    let largest: string | undefined;
    let lru = this.#lru;
    for (const owner of this.#overShare) {
      const list = this.#owners.get(owner)!;
      // Ties are broken by name: the order of the set differs between replicas.
      if (
        largest === undefined || list.size > lru.size ||
        list.size === lru.size && owner < largest
      ) [largest, lru] = [owner, list];
    }
    return lru.oldest!.item;
  }

  /** Removes a session that is closed or evicted. */
  remove(session: SessionEntry<L>): void {
    this.#lru.remove(session.node!);
    const owner = keyOf(session.owner);
    const list = session.ownerList!;
    list.remove(session.ownerNode!);
    if (list.size === 0) this.#owners.delete(owner);
    if (list.size <= this.#share) this.#overShare.delete(owner);
    this.#sessions.delete(session.index);
    this.#removed.set(session.index, session);
    const client = clientOf(session);
    if (this.#clients.get(client) === session) this.#clients.delete(client);
    this.#dataBytes -= session.dataBytes;
    session.node = session.ownerNode = undefined;
    this.#changed?.add(session.index);
  }

  #add(session: SessionEntry<L>): void {
    this.#sessions.set(session.index, session);
    // Sessions are added in LRU order after a recovery, not by age.
    const client = clientOf(session);
    if (!(session.index < this.#clients.get(client)?.index!)) {
      this.#clients.set(client, session);
    }
    this.#dataBytes += session.dataBytes;
    session.node = this.#lru.add(session);
    const owner = keyOf(session.owner);
    let list = this.#owners.get(owner);
    if (list === undefined) this.#owners.set(owner, list = new LruList());
    session.ownerList = list;
    session.ownerNode = list.add(session);
    if (list.size > this.#share) this.#overShare.add(owner);
    this.#changed?.add(session.index);
  }

  /** Number of sessions that an owner may have before its own are evicted first. */
  get #share(): number {
    return this.#max * SESSION_SHARE;
  }

  /** Makes a session that a record names the most recently used one. */
  touch(session: SessionEntry<L>): void {
    if (session.node !== this.#lru.newest) {
      this.#lru.touch(session.node!);
      session.ownerList!.touch(session.ownerNode!);
    }
    this.#changed?.add(session.index);
  }

  /**
   * Moves a session from holder `from` to `holder`; true if `holder` holds it
   * afterwards. A claim whose `from` is outdated comes from a copy of the
   * device's storage, and changes nothing.
   */
  claim(session: SessionEntry<L>, from: bigint, holder: bigint): boolean {
    this.touch(session);
    if (session.holder === from) session.holder = holder;
    return session.holder === holder;
  }

  /**
   * Decides about a proposal, or with digest `SKIPPED` about the skip of a series. On
   * "apply" the session has advanced and `slot` awaits the result; on
   * "duplicate" `slot` has the recorded outcome.
   *
   * @param lag number of series before this one that the client has not acknowledged
   */
  admit(
    session: SessionEntry<L>,
    series: number,
    lag: number,
    digest: number,
  ): Admission {
    this.touch(session);
    this.#acknowledge(session, Math.min(series - lag, session.next) - 1);
    const { next, responded } = session;
    if (series === next && series - responded <= SESSION_WINDOW_MAX) {
      this.slot = { digest, result: undefined };
      session.slots.push(this.slot);
      session.next = next + 1;
      return "apply";
    }
    if (series >= next) return "gap";
    if (series <= responded) return "acknowledged";
    const slot = session.slots[session.head + series - responded - 1]!;
    this.slot = slot;
    // A client may send a command and the skip of its series: the first in the log
    // counts, and the other one is no sign of a second client.
    return digest === slot.digest || digest === SKIPPED ||
        slot.digest === SKIPPED
      ? "duplicate"
      : "conflict";
  }

  #acknowledge(session: SessionEntry<L>, upTo: number): void {
    const count = upTo - session.responded;
    if (count <= 0) return;
    const { slots, head } = session;
    for (let i = head; i < head + count; i++) {
      if (session.dataBytes > 0) {
        this.#addBytes(session, -dataLength(slots[i]!.result));
      }
      // Released at once: until the array is compacted, the slots of many
      // sessions would outlive several collections of young objects.
      slots[i] = RELEASED;
    }
    session.head += count;
    session.responded = upTo;
    if (session.head === slots.length) {
      slots.length = session.head = 0;
    } else if (session.head >= 16 && session.head * 2 > slots.length) {
      slots.splice(0, session.head);
      session.head = 0;
    }
  }

  /**
   * Stores the result of an applied proposal in its slot, with a copy of the data: the
   * caller gets the original. Over the bounds on result data the oldest results with
   * data are dropped; a retry of their series then gets the outcome "lost".
   */
  fill(
    session: SessionEntry<L>,
    series: number,
    slot: Slot,
    result: Result,
  ): void {
    const { value, data } = result;
    if (data === undefined) {
      slot.result = { value };
      return;
    }
    slot.result = { value, data: copyOf(data) };
    // Acknowledged in the batch that applies it, so that its slot was removed; or the
    // session was, and its results count no more.
    if (series <= session.responded || session.node === undefined) return;
    this.#addBytes(session, data.length);
    this.#dropResults(session, SESSION_RESULT_BYTES_MAX);
    // Results of the least recently used sessions are dropped first: their clients may
    // never acknowledge them.
    for (
      let { oldest: at } = this.#lru;
      at !== undefined && this.#dataBytes > SESSIONS_RESULT_BYTES_MAX;
      at = at.newer
    ) this.#dropResults(at.item, 0);
  }

  /** Adjusts the count of result data, of the session and in total. */
  #addBytes(session: SessionEntry<L>, bytes: number): void {
    session.dataBytes += bytes;
    this.#dataBytes += bytes;
  }

  /** Drops a session's oldest results with data until at most `max` bytes are left. */
  #dropResults(session: SessionEntry<L>, max: number): void {
    for (let i = session.head; session.dataBytes > max; i++) {
      const slot = session.slots[i]!;
      if (slot.result?.data === undefined) continue;
      this.#addBytes(session, -slot.result.data.length);
      slot.result = undefined;
    }
  }

  /** Encodes the table; replicas compare the hash of the form without results (H12). */
  encode(withResults: boolean): Uint8Array {
    const writer = new ByteWriter(256);
    writer.varint(this.#begun ? this.#max : 0).varint(this.#sessions.size);
    for (let at = this.#lru.oldest; at !== undefined; at = at.newer) {
      encodeSession(writer, at.item, withResults);
    }
    return writer.finish();
  }

  /**
   * Replaces the table by an encoded one.
   *
   * @throws RangeError if the bytes are not an encoded table
   */
  decode(bytes: Uint8Array): void {
    const reader = new ByteReader(bytes);
    this.decodeFrom(reader);
    if (reader.remaining > 0) {
      throw new RangeError(
        `${reader.remaining} bytes follow the session table`,
      );
    }
  }

  /**
   * Replaces the table by an encoded one, which other data may follow.
   *
   * @throws RangeError if the bytes are not an encoded table
   */
  decodeFrom(reader: ByteReader): void {
    const max = reader.varint();
    const count = reader.varint();
    this.#reset(max);
    if (count > this.#max) {
      throw new RangeError(
        `Session table has ${count} sessions; its limit is ${this.#max}`,
      );
    }
    for (let i = 0; i < count; i++) {
      const session = decodeSession<L>(reader);
      if (this.#sessions.has(session.index)) {
        throw new RangeError(
          `Session table contains session ${session.index} twice`,
        );
      }
      this.#add(session);
    }
    this.#changed?.add(0);
  }

  #reset(max: number): void {
    this.#sessions.clear();
    this.#removed.clear();
    this.#clients.clear();
    this.#dataBytes = 0;
    this.#lru = new LruList();
    this.#owners.clear();
    this.#overShare.clear();
    if (max > SESSIONS_MAX) {
      throw new RangeError(
        `Session limit is ${max}; it may be at most ${SESSIONS_MAX}`,
      );
    }
    this.#begun = max > 0;
    this.#max = max || SESSIONS_DEFAULT;
  }

  /**
   * Passes the sessions changed since the last call to `row`, encoded as host rows;
   * undefined for a removed session. Session 0 stands for the session limit. Rows are
   * ordered by `stamp`, then by their rank in this call, to restore the LRU order.
   */
  takeChanges(
    stamp: number,
    row: (session: number, value: Uint8Array | undefined) => void,
  ): void {
    const changed = this.#changed!;
    this.#changed = new Set();
    if (changed.delete(0)) {
      row(0, new ByteWriter(8).varint(this.#begun ? this.#max : 0).finish());
    }
    // A changed session is more recently used than every unchanged one.
    const rank = new Map<number, number>();
    const n = changed.size;
    let at = this.#lru.newest;
    for (; at !== undefined && changed.has(at.item.index); at = at.older) {
      rank.set(at.item.index, n - rank.size);
    }
    for (const index of changed) {
      const session = this.#sessions.get(index);
      if (session === undefined) {
        row(index, undefined);
        continue;
      }
      const writer = new ByteWriter(64);
      writer.varint(stamp).varint(rank.get(index)!);
      encodeSession(writer, session, true);
      row(index, writer.finish());
    }
  }

  /**
   * Replaces the table by the one encoded in host rows.
   *
   * @throws RangeError if a row is not from a session table
   */
  restore(rows: Iterable<readonly [session: number, value: Uint8Array]>): void {
    const sessions: {
      stamp: number;
      rank: number;
      session: SessionEntry<L>;
    }[] = [];
    let max = 0;
    for (const [index, value] of rows) {
      const reader = new ByteReader(value);
      if (index === 0) {
        max = reader.varint();
        continue;
      }
      const [stamp, rank] = [reader.varint(), reader.varint()];
      sessions.push({ stamp, rank, session: decodeSession<L>(reader) });
    }
    sessions.sort((a, b) => a.stamp - b.stamp || a.rank - b.rank);
    this.#reset(max);
    for (const { session } of sessions) this.#add(session);
    this.#changed?.clear();
  }
}

/** True if fewer than `count` items were used less recently. */
function isAmongOldest<T>(node: LruNode<T>, count: number): boolean {
  let { older } = node;
  for (; older !== undefined; older = older.older) {
    if (--count <= 0) return false;
  }
  return true;
}

/** Map key of a client and its owner. */
function clientOf(
  { clientID, owner }: Pick<SessionEntry<unknown>, "clientID" | "owner">,
): string {
  return `${clientID}/${keyOf(owner)}`;
}

/** Map key of an owner. */
function keyOf(owner: Uint8Array): string {
  return String.fromCharCode(...owner);
}

function dataLength(result: Result | undefined): number {
  return result?.data?.length ?? 0;
}

// Forms of an encoded slot.
const LOST = 0;
const VALUE = 1;
const DATA = 2;

function encodeSession(
  writer: ByteWriter,
  session: SessionEntry<unknown>,
  withResults: boolean,
): void {
  const { index, responded, next, slots, head } = session;
  writer.varint(index).u64(session.clientID).u64(session.holder)
    .bytes(session.owner).varint(responded).varint(next);
  for (let i = head; i < slots.length; i++) {
    const { digest, result } = slots[i]!;
    // `SKIPPED` is -1.
    writer.varint(digest + 1);
    if (!withResults) continue;
    if (result === undefined) writer.u8(LOST);
    else if (result.data === undefined) writer.u8(VALUE).u64(result.value);
    else writer.u8(DATA).u64(result.value).bytes(result.data);
  }
}

/** Decodes the sessions of an encoded table, the least recently used first. */
export function decodeSessions(bytes: Uint8Array): SessionEntry<never>[] {
  const reader = new ByteReader(bytes);
  reader.varint();
  return Array.from(
    { length: reader.varint() },
    () => decodeSession<never>(reader),
  );
}

function decodeSession<L>(reader: ByteReader): SessionEntry<L> {
  const session: SessionEntry<L> = {
    index: reader.varint(),
    clientID: reader.u64(),
    holder: reader.u64(),
    owner: reader.bytes(SESSION_OWNER_BYTES_MAX).slice(),
    responded: reader.varint(),
    next: reader.varint(),
    slots: [],
    head: 0,
    dataBytes: 0,
    local: undefined,
    node: undefined,
    ownerList: undefined,
    ownerNode: undefined,
  };
  const count = session.next - session.responded - 1;
  if (count < 0 || count > SESSION_WINDOW_MAX) {
    throw new RangeError(
      `Session ${session.index} has ${count} unacknowledged series; the window is 0…${SESSION_WINDOW_MAX}`,
    );
  }
  for (let i = 0; i < count; i++) {
    const digest = reader.varint() - 1;
    const form = reader.u8();
    if (form > DATA) {
      throw new RangeError(
        `Session ${session.index} has a slot of unknown form ${form}`,
      );
    }
    let result: Result | undefined;
    if (form !== LOST) {
      result = { value: reader.u64() };
      if (form === DATA) result.data = reader.bytes().slice();
    }
    session.dataBytes += dataLength(result);
    session.slots.push({ digest, result });
  }
  return session;
}
