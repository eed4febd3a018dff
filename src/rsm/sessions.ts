/**
 * The session table: who has been applied, and with what result. It is part of
 * the replicated state, changed by log entries and by nothing else (H4).
 *
 * This is the client table of section 6.3 of the Raft thesis, with two
 * differences: a session may have many proposals in flight, so the table keeps
 * a client's series in order and never goes past a gap; and it keeps a digest of
 * each command, so that a series that comes back with other content is found
 * out instead of being answered with somebody else's result (H14).
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
import { type Place, UseOrder } from "./use_order.ts";

/** What became of one series that its client has not acknowledged. */
export interface Slot {
  /** Digest of its command; -1 for one that was skipped. */
  digest: number;
  /** Its result; undefined while it is being applied, when it was skipped, or when the result is lost. */
  result: Result | undefined;
}

/** A session of the table. `L` is whoever waits for its answers on this replica, no part of the state. */
export interface SessionEntry<L> {
  /** Index of its register record: its identity. */
  readonly index: number;
  /** What the opener goes by to find the answer to its registration. */
  readonly clientID: bigint;
  /** Who may use it: the client id, until somebody with the right to do so claims it (H14). */
  holder: bigint;
  /** Who opened it, as bytes the host's application chose; may be empty. */
  readonly owner: Uint8Array;
  /** The series the client has acknowledged, all up to here. */
  responded: number;
  /** The series to be applied next: those in between are in `slots`. */
  next: number;
  /** The series after `responded`, from `head` on. */
  slots: Slot[];
  head: number;
  /** Bytes of result data in the slots. */
  dataBytes: number;
  local: L | undefined;
  /** Its place in the order of use: of all, and of its owner's. */
  place: Place<SessionEntry<L>> | undefined;
  own: UseOrder<SessionEntry<L>> | undefined;
  ownPlace: Place<SessionEntry<L>> | undefined;
}

/** Digest of a skipped series. */
export const SKIPPED = -1;

/** A 52-bit digest of `bytes[start..end)`: two multiplicative hashes side by side. Part of the replicated rules. */
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

/** What the table says of a proposal. */
export type Verdict =
  /** It is next: apply it and fill the new slot. */
  | "apply"
  /** It was applied before: the slot has what became of it. */
  | "duplicate"
  /** It was applied and acknowledged long ago. */
  | "acknowledged"
  /** One before it is missing: it is ignored until it comes again in order. */
  | "gap"
  /** Its place in the series is taken by another command. */
  | "conflict";

/** The sessions of a cluster, least recently used first. */
export class SessionTable<L> {
  readonly #sessions = new Map<number, SessionEntry<L>>();
  /** By who opened them; of several, the one opened last. */
  readonly #clients = new Map<string, SessionEntry<L>>();
  #order = new UseOrder<SessionEntry<L>>();
  /** The sessions of each owner. */
  readonly #owners = new Map<string, UseOrder<SessionEntry<L>>>();
  /** The owners with more than their share of the sessions. */
  readonly #large = new Set<string>();
  #max = SESSIONS_DEFAULT;
  #begun = false;
  /** Bytes of result data in all sessions. */
  #dataBytes = 0;
  /** The slot the last verdict is about. */
  slot: Slot | undefined;
  /** Sessions changed since `takeChanges()`, where somebody wants to know. */
  #changed: Set<number> | undefined;

  /** A table without sessions; `track` makes it remember what changes. */
  constructor(options: { readonly track?: boolean } = {}) {
    if (options.track) this.#changed = new Set();
  }

  /** How many sessions there are. */
  get size(): number {
    return this.#sessions.size;
  }

  /** Index of the session that was opened last; 0 before the first. */
  get newest(): number {
    let newest = 0;
    for (const index of this.#sessions.keys()) {
      newest = Math.max(newest, index);
    }
    return newest;
  }

  /** How many sessions there may be. */
  get max(): number {
    return this.#max;
  }

  /** Whether the cluster has had its first record, which alone may set limits. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Notes the cluster's first record, with the limit it sets, if it does. */
  begin(max: number = SESSIONS_DEFAULT): void {
    this.#max = max;
    this.#begun = true;
    this.#changed?.add(0);
  }

  /** The session whose register record is at `index`. */
  get(index: number): SessionEntry<L> | undefined {
    // Most batches are the work of one session.
    const newest = this.#order.newest?.of;
    return newest?.index === index ? newest : this.#sessions.get(index);
  }

  /** The first session after index `after` that `clientID` opened, of that owner if one is given, and that is there still. */
  find(
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ): number | undefined {
    let first: number | undefined;
    for (const session of this.#sessions.values()) {
      const { index } = session;
      if (session.clientID !== clientID || index <= after) continue;
      if (owner !== undefined && !isSameBytes(session.owner, owner)) continue;
      if (!(index > first!)) first = index;
    }
    return first;
  }

  /**
   * Opens a session and, at the limit, evicts the one used least recently: of
   * the owner that has most, if those are more than its share; else of all. So no
   * owner can have all others' evicted. One client has one session of an owner:
   * as long as it is there, a copy of its registration, or a registration by a
   * copy of the client, finds that (H14).
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
    if (this.#sessions.size >= this.#max) this.remove(this.#leastUsed());
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
      place: undefined,
      own: undefined,
      ownPlace: undefined,
    };
    this.#add(session);
    return session;
  }

  /**
   * True if registrations may have a session evicted, whichever client they are of: `uses`
   * is how many of them there are, and of other sessions that are used before.
   */
  mayEvict(index: number, uses: number): boolean {
    const session = this.#sessions.get(index);
    if (session === undefined || this.#sessions.size + uses <= this.#max) {
      return false;
    }
    return isAmongOldest(session.place!, uses) ||
      isAmongOldest(session.ownPlace!, uses);
  }

  /** The session to be evicted for another one. */
  #leastUsed(): SessionEntry<L> {
    let most: string | undefined;
    let order = this.#order;
    for (const owner of this.#large) {
      const own = this.#owners.get(owner)!;
      // On every replica the same one, whoever came first there.
      if (
        most === undefined || own.size > order.size ||
        own.size === order.size && owner < most
      ) [most, order] = [owner, own];
    }
    return order.oldest!.of;
  }

  /** Closes or evicts a session. */
  remove(session: SessionEntry<L>): void {
    this.#order.remove(session.place!);
    const owner = keyOf(session.owner);
    const own = session.own!;
    own.remove(session.ownPlace!);
    if (own.size === 0) this.#owners.delete(owner);
    if (own.size <= this.#share) this.#large.delete(owner);
    this.#sessions.delete(session.index);
    const client = clientOf(session);
    if (this.#clients.get(client) === session) this.#clients.delete(client);
    this.#dataBytes -= session.dataBytes;
    this.#changed?.add(session.index);
  }

  #add(session: SessionEntry<L>): void {
    this.#sessions.set(session.index, session);
    // Rows and snapshots list them by use, not by age.
    const client = clientOf(session);
    if (!(session.index < this.#clients.get(client)?.index!)) {
      this.#clients.set(client, session);
    }
    this.#dataBytes += session.dataBytes;
    session.place = this.#order.add(session);
    const owner = keyOf(session.owner);
    let own = this.#owners.get(owner);
    if (own === undefined) this.#owners.set(owner, own = new UseOrder());
    session.own = own;
    session.ownPlace = own.add(session);
    if (own.size > this.#share) this.#large.add(owner);
    this.#changed?.add(session.index);
  }

  /** Sessions that an owner may have and lose none of them for others' sake. */
  get #share(): number {
    return this.#max * SESSION_SHARE;
  }

  /** Notes that a record named the session: it is now the one used last. */
  touch(session: SessionEntry<L>): void {
    if (session.place !== this.#order.newest) {
      this.#order.touch(session.place!);
      session.own!.touch(session.ownPlace!);
    }
    this.#changed?.add(session.index);
  }

  /**
   * Takes a session over for another holder; whether that is, or already was,
   * allowed. A claim from somebody who is not its holder any more is one by a
   * copy of what the holder keeps.
   */
  claim(session: SessionEntry<L>, from: bigint, holder: bigint): boolean {
    this.touch(session);
    if (session.holder === from) session.holder = holder;
    return session.holder === holder;
  }

  /**
   * Judges a proposal, or with `SKIPPED` as digest the skipping of its series.
   * On "apply" the series is taken, and `slot` is the one to put the result in;
   * on "duplicate" `slot` is what became of it.
   *
   * @param lag series before this one that are not acknowledged
   */
  judge(
    session: SessionEntry<L>,
    series: number,
    lag: number,
    digest: number,
  ): Verdict {
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
    // A skip of what was applied, or a command that was skipped: whichever was
    // committed first counts, and neither is somebody else's doing.
    return digest === slot.digest || digest === SKIPPED ||
        slot.digest === SKIPPED
      ? "duplicate"
      : "conflict";
  }

  #acknowledge(session: SessionEntry<L>, upTo: number): void {
    const count = upTo - session.responded;
    if (count <= 0) return;
    const { slots } = session;
    if (session.dataBytes > 0) {
      for (let i = 0; i < count; i++) {
        this.#count(session, -dataLength(slots[session.head + i]!.result));
      }
    }
    session.head += count;
    session.responded = upTo;
    if (session.head === slots.length) {
      slots.length = session.head = 0;
    } else if (session.head >= 512 && session.head * 2 > slots.length) {
      slots.splice(0, session.head);
      session.head = 0;
    }
  }

  /**
   * Puts the result of an applied proposal into its slot, the data copied: the
   * original goes to the caller. Past the bound on data the oldest data go, and
   * with them the results: a late copy is told that its outcome is lost.
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
    // Acknowledged in the same batch that applies it: only a copy in that batch
    // still asks.
    if (series <= session.responded) return;
    this.#count(session, data.length);
    this.#lose(session, SESSION_RESULT_BYTES_MAX);
    // A client that is gone never acknowledges: of all sessions together, those
    // used least recently lose theirs first.
    for (
      let { oldest: at } = this.#order;
      at !== undefined && this.#dataBytes > SESSIONS_RESULT_BYTES_MAX;
      at = at.newer
    ) this.#lose(at.of, 0);
  }

  /** Counts result data that came to, or left, a session. */
  #count(session: SessionEntry<L>, bytes: number): void {
    session.dataBytes += bytes;
    this.#dataBytes += bytes;
  }

  /** Lets go of a session's oldest results with data until no more than `max` bytes of them are left. */
  #lose(session: SessionEntry<L>, max: number): void {
    for (let i = session.head; session.dataBytes > max; i++) {
      const slot = session.slots[i]!;
      if (slot.result?.data === undefined) continue;
      this.#count(session, -slot.result.data.length);
      slot.result = undefined;
    }
  }

  /** The table as bytes; without results, what replicas compare (H12). */
  encode(withResults: boolean): Uint8Array {
    const writer = new ByteWriter(256);
    writer.varint(this.#begun ? this.#max : 0).varint(this.#sessions.size);
    for (let at = this.#order.oldest; at !== undefined; at = at.newer) {
      encodeSession(writer, at.of, withResults);
    }
    return writer.finish();
  }

  /**
   * Replaces the table by an encoded one.
   *
   * @throws RangeError if the bytes are not a table
   */
  decode(bytes: Uint8Array): void {
    const reader = new ByteReader(bytes);
    this.decodeFrom(reader);
    if (reader.remaining > 0) throw new RangeError("Bytes after the sessions");
  }

  /**
   * Same as `decode()`, from a reader in which something may follow the table.
   *
   * @throws RangeError if the bytes are not a table
   */
  decodeFrom(reader: ByteReader): void {
    const max = reader.varint();
    const count = reader.varint();
    this.#reset(max);
    if (count > this.#max) {
      throw new RangeError("More sessions than there may be");
    }
    for (let i = 0; i < count; i++) {
      const session = decodeSession<L>(reader);
      if (this.#sessions.has(session.index)) {
        throw new RangeError(`Session ${session.index} is there twice`);
      }
      this.#add(session);
    }
    this.#changed?.add(0);
  }

  #reset(max: number): void {
    this.#sessions.clear();
    this.#clients.clear();
    this.#dataBytes = 0;
    this.#order = new UseOrder();
    this.#owners.clear();
    this.#large.clear();
    if (max > SESSIONS_MAX) throw new RangeError(`Session limit is ${max}`);
    this.#begun = max > 0;
    this.#max = max || SESSIONS_DEFAULT;
  }

  /**
   * The rows of what changed since the last call: of a session that is gone,
   * undefined; of the table, its limit. `stamp` orders the sessions by use.
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
    // Each with its place in the order of use.
    const rank = new Map<number, number>();
    const n = changed.size;
    let at = this.#order.newest;
    for (; at !== undefined && changed.has(at.of.index); at = at.older) {
      rank.set(at.of.index, n - rank.size);
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
   * Replaces the table by what rows say.
   *
   * @throws RangeError if a row is not one of a table
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

/** True if fewer than `count` were used less recently. */
function isAmongOldest<T>(place: Place<T>, count: number): boolean {
  let { older } = place;
  for (; older !== undefined; older = older.older) {
    if (--count <= 0) return false;
  }
  return true;
}

/** A client of an owner as the key of a map. */
function clientOf(
  { clientID, owner }: Pick<SessionEntry<unknown>, "clientID" | "owner">,
): string {
  return `${clientID}/${keyOf(owner)}`;
}

/** An owner as the key of a map. */
function keyOf(owner: Uint8Array): string {
  return String.fromCharCode(...owner);
}

function dataLength(result: Result | undefined): number {
  return result?.data?.length ?? 0;
}

/** Forms of a slot in its encoding. */
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
    // The digest of a skipped series is -1.
    writer.varint(digest + 1);
    if (!withResults) continue;
    if (result === undefined) writer.u8(LOST);
    else if (result.data === undefined) writer.u8(VALUE).u64(result.value);
    else writer.u8(DATA).u64(result.value).bytes(result.data);
  }
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
    place: undefined,
    own: undefined,
    ownPlace: undefined,
  };
  const count = session.next - session.responded - 1;
  if (count < 0 || count > SESSION_WINDOW_MAX) {
    throw new RangeError(`Session has ${count} series not acknowledged`);
  }
  for (let i = 0; i < count; i++) {
    const digest = reader.varint() - 1;
    const form = reader.u8();
    if (form > DATA) throw new RangeError(`Series has unknown form ${form}`);
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
