/**
 * Order of the appends to logs that several processes share: turns in which one
 * process alone appends to a log.
 *
 * A turn is a key under a short lease of its process, so etcd ends it a few seconds
 * after the process has ended, is frozen or was cut off. The lease decides only how
 * long the others wait, never what is appended: the revision of the key is the
 * fence: each put of a log compares it in its own transaction, also the puts of a
 * process without a turn, which require that the key is absent. A process that wants the
 * turn puts a key of its own; the holder then ends its turn as soon as its appends are
 * settled, and hands it over in one transaction to the process that has waited longest.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Backoff, notify, sleep, withResolvers } from "../async.ts";
import { ByteReader, ByteWriter } from "../bytes.ts";
import type { Env } from "../env.ts";
import {
  ETCD_CALL_MS_MAX,
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
  ETCD_TURN_LEASE_SECONDS,
  ETCD_TURN_MS,
  ETCD_TURN_PING_MS,
} from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { LogOrderWait } from "../log/log.ts";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import {
  type Compare,
  decodeTxn,
  encodeTxn,
  type KeyValue,
  Method,
  type Operation,
  type WatchEvent,
} from "./messages.ts";
import { ProcessLease } from "./process_lease.ts";

/** Process that has a turn or wants it. */
interface Claimant {
  /** Random number of the process. */
  readonly writer: bigint;
  /** Lease of the process. */
  readonly lease: bigint;
  /** Revision at which its key was put. */
  readonly revision: number;
}

/** Keys of a cluster's order, as they were read last. */
interface Claims {
  /** Process that has the turn; undefined if none has. */
  holder: Claimant | undefined;
  /** Revision of the last known change of the holder. */
  revision: number;
  /** Time at which this process has learned of the holder. */
  since: number;
  /** Processes that want the turn, by their keys. */
  readonly wants: Map<string, Claimant>;
}

function encodeClaim(writer: bigint, lease: bigint): Uint8Array {
  return new ByteWriter(16).u64(writer).u64(lease).finish();
}

function decodeClaim({ value, modRevision }: KeyValue): Claimant {
  // One that cannot be read is another process's.
  if (value.length < 16) {
    return { writer: 0n, lease: 0n, revision: modRevision };
  }
  const reader = new ByteReader(value);
  return { writer: reader.u64(), lease: reader.u64(), revision: modRevision };
}

/** Dependencies of {@linkcode Orders}. */
export interface OrdersParts {
  readonly client: EtcdClient;
  readonly keys: Keys;
  readonly env: Env;
  /** Random number of this process. */
  readonly writer: bigint;
  /** Returns the name of the server that is a process with a replica of a cluster. */
  readonly nameOf: (clusterID: bigint, writer: bigint) => string;
}

/** Orders of all clusters below a prefix, which this process follows once it has wanted a turn. */
export class Orders {
  /** Lease of the turns of this process, shorter than that of its announcements: others wait for it. */
  readonly lease: ProcessLease;
  readonly #parts: OrdersParts;
  readonly #claims = new Map<bigint, Claims>();
  readonly #open = new Map<bigint, ClusterOrder>();
  readonly #closing = new AbortController();
  #loading: Promise<void> | undefined;
  #unwatch: (() => void) | undefined;

  /** Creates orders that are read when a turn is wanted first. */
  constructor(parts: OrdersParts) {
    this.#parts = parts;
    this.lease = new ProcessLease(parts.client, parts.env, {
      seconds: ETCD_TURN_LEASE_SECONDS,
      pingMs: ETCD_TURN_PING_MS,
    });
    this.lease.watch(() => {
      for (const order of [...this.#open.values()]) order.renew();
    });
  }

  /** Random number of this process. */
  get writer(): bigint {
    return this.#parts.writer;
  }

  /** Aborts when the orders are closed. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  /** Order of a cluster whose log is open. */
  open(clusterID: bigint): ClusterOrder {
    const order = new ClusterOrder(this, this.#parts, clusterID, () => {
      if (this.#open.get(clusterID) === order) this.#open.delete(clusterID);
    });
    this.#open.set(clusterID, order);
    return order;
  }

  /** Claims on the turn of a cluster, as they are known here. */
  claims(clusterID: bigint): Claims {
    let claims = this.#claims.get(clusterID);
    if (claims === undefined) {
      const since = this.#parts.env.now();
      claims = { holder: undefined, revision: 0, since, wants: new Map() };
      this.#claims.set(clusterID, claims);
    }
    return claims;
  }

  /** Notes the holder of a turn as it was at a revision; older knowledge changes nothing. */
  note(
    clusterID: bigint,
    holder: Claimant | undefined,
    revision: number,
  ): void {
    const claims = this.claims(clusterID);
    if (revision < claims.revision) return;
    if (this.#setHolder(claims, holder, revision)) this.notify(clusterID);
  }

  /** Sets the holder of a turn; returns true if it is another turn than before. */
  #setHolder(
    claims: Claims,
    holder: Claimant | undefined,
    revision: number,
  ): boolean {
    const isChange = claims.holder?.revision !== holder?.revision;
    claims.revision = revision;
    claims.holder = holder;
    if (isChange) claims.since = this.#parts.env.now();
    return isChange;
  }

  /** Tells the open log of a cluster that the claims have changed. */
  notify(clusterID: bigint): void {
    const order = this.#open.get(clusterID);
    if (order !== undefined) return order.changed();
    const { holder } = this.claims(clusterID);
    if (holder?.writer !== this.writer) return;
    // Never rejects: repeated until it succeeds.
    void this.#giveBack(clusterID, holder.revision);
  }

  /** Ends a turn that has come to this process when its log was closed already. */
  async #giveBack(clusterID: bigint, fence: number): Promise<void> {
    const { client, keys, env } = this.#parts;
    const key = keys.of("order", clusterID);
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    const { signal } = this.#closing;
    while (
      !signal.aborted && !this.#open.has(clusterID) &&
      this.claims(clusterID).holder?.revision === fence
    ) {
      try {
        const request = encodeTxn([{ key, modRevision: fence }], [{
          remove: key,
        }]);
        await client.request(Method.Txn, request);
        return;
      } catch {
        await sleep(env, backoff.next(), signal).catch(() => {});
      }
    }
  }

  /** Reads all claims once, and follows them. */
  load(): Promise<void> {
    return this.#loading ??= this.#load();
  }

  async #load(): Promise<void> {
    const { client, keys, env } = this.#parts;
    const range = keys.range("order");
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    for (;;) {
      this.#closing.signal.throwIfAborted();
      try {
        const { kvs, revision } = await client.list(range);
        for (const claims of this.#claims.values()) {
          claims.wants.clear();
          if (claims.revision <= revision) claims.holder = undefined;
        }
        for (const kv of kvs) this.#set(kv);
        this.#unwatch = client.watches.add(range, revision + 1, {
          changed: (events) => this.#changed(events),
          compacted: () => {
            this.#unwatch?.();
            this.#loading = undefined;
            this.load().catch(() => {
              // Closed.
            });
          },
          failed: () => {},
        });
        for (const clusterID of [...this.#claims.keys()]) {
          this.notify(clusterID);
        }
        return;
      } catch {
        await sleep(env, backoff.next(), this.#closing.signal);
      }
    }
  }

  #set(kv: KeyValue): bigint {
    const { clusterID, writer } = this.#parts.keys.ofOrderKey(kv.key);
    const claims = this.claims(clusterID);
    if (writer !== undefined) {
      claims.wants.set(writer, decodeClaim(kv));
    } else if (kv.modRevision >= claims.revision) {
      this.#setHolder(claims, decodeClaim(kv), kv.modRevision);
    }
    return clusterID;
  }

  #changed(events: readonly WatchEvent[]): void {
    const changed = new Set<bigint>();
    for (const { isDelete, kv } of events) {
      if (!isDelete) {
        changed.add(this.#set(kv));
        continue;
      }
      const { clusterID, writer } = this.#parts.keys.ofOrderKey(kv.key);
      const claims = this.claims(clusterID);
      if (writer !== undefined) claims.wants.delete(writer);
      else if (kv.modRevision >= claims.revision) {
        this.#setHolder(claims, undefined, kv.modRevision);
      }
      changed.add(clusterID);
    }
    for (const clusterID of changed) {
      this.notify(clusterID);
      this.#forget(clusterID);
    }
  }

  /** Forgets the claims of a cluster that no server wants, and whose log is not open here. */
  #forget(clusterID: bigint): void {
    const { holder, wants } = this.claims(clusterID);
    if (
      holder === undefined && wants.size === 0 && !this.#open.has(clusterID)
    ) {
      this.#claims.delete(clusterID);
    }
  }

  /** Ends the watch, everything that waits, and the lease, as far as etcd can be reached. */
  async close(): Promise<void> {
    this.#closing.abort(new ErrClusterClosed("EtcdLogDB is closed"));
    this.#unwatch?.();
    await this.lease.close();
  }
}

/** Part of one turn without an append of another process in between: what is decided in it meets the state that it was decided on. */
export interface Term {
  /** Index up to which the log went when the term began. */
  readonly index: number;
  /** True once something else was appended, or may have been, or the turn has ended. */
  isOver: boolean;
}

/** Order of the appends to one log, as this process takes part in it. */
export class ClusterOrder {
  readonly #orders: Orders;
  readonly #parts: OrdersParts;
  readonly #clusterID: bigint;
  readonly #key: Uint8Array;
  readonly #wantKey: Uint8Array;
  readonly #closed: () => void;
  readonly #listeners = new Set<() => void>();
  /** Revision of the key of this process's turn; undefined without one. */
  #fence: number | undefined;
  /** Time at which the turn began. */
  #begun = 0;
  #term: Term | undefined;
  /** Decisions under way in the term. */
  #uses = 0;
  /** True while appends of this process are under way. */
  #isWriting: () => boolean = () => false;
  #acquiring: Promise<void> | undefined;
  #isHandingOver = false;
  #isClosed = false;
  /** True once this process has wanted a turn. */
  #hasWanted = false;
  /** True once the lease has ended under which this process has wanted the turn. */
  #isLapsed = false;
  /** Callers that wait for the turn. */
  #waiting = 0;
  /** Time since which one waits. */
  #waitingSince = 0;
  #cancelTimer: (() => void) | undefined;

  /** Creates the part of this process in the order of a cluster. */
  constructor(
    orders: Orders,
    parts: OrdersParts,
    clusterID: bigint,
    closed: () => void,
  ) {
    this.#orders = orders;
    this.#parts = parts;
    this.#clusterID = clusterID;
    this.#key = parts.keys.of("order", clusterID);
    this.#wantKey = parts.keys.ofWant(clusterID, parts.writer);
    this.#closed = closed;
  }

  /** Comparison that each put of the log makes: the fence, or the absence of a turn. */
  get comparison(): Compare {
    return { key: this.#key, modRevision: this.#fence ?? 0 };
  }

  /** Request of the key of the turn. */
  get range(): Operation {
    return { range: { key: this.#key } };
  }

  /** True if this process has the turn. */
  get isHeld(): boolean {
    return this.#fence !== undefined;
  }

  /** Wait of this process for its turn, as it is now; undefined while nothing waits for it. */
  get wait(): LogOrderWait | undefined {
    if (this.#waiting === 0) return undefined;
    const { env, nameOf } = this.#parts;
    const { holder, since } = this.#orders.claims(this.#clusterID);
    const now = env.now();
    return {
      waitedMs: now - this.#waitingSince,
      ...(holder === undefined ? {} : {
        holder: nameOf(this.#clusterID, holder.writer),
        heldMs: now - since,
      }),
    };
  }

  /** Wants the turn under another lease: the one before has ended. */
  renew(): void {
    this.#isLapsed = true;
    for (const listener of [...this.#listeners]) notify(listener);
  }

  /** True if a put has to wait for the turn: another process has it, or waits for it. */
  get mustWait(): boolean {
    return this.#fence === undefined
      ? this.#orders.claims(this.#clusterID).holder !== undefined
      : this.#isOver;
  }

  /** Sets the function that says if puts with decided records are under way or wait. */
  set isWriting(isWriting: () => boolean) {
    this.#isWriting = isWriting;
  }

  /** Notes the key of the turn as a transaction has found it. */
  found(kv: KeyValue | undefined, revision: number): void {
    this.#orders.note(
      this.#clusterID,
      kv === undefined ? undefined : decodeClaim(kv),
      revision,
    );
  }

  /** Called when the claims have changed. */
  changed(): void {
    const { holder } = this.#orders.claims(this.#clusterID);
    if (this.#fence !== undefined && holder?.revision !== this.#fence) {
      this.#fence = undefined;
      this.disturb();
    }
    // Handed over, or won in a transaction without an answer.
    if (
      holder !== undefined && holder.writer === this.#parts.writer &&
      this.#fence === undefined && !this.#isHandingOver
    ) this.#begin(holder.revision);
    for (const listener of [...this.#listeners]) notify(listener);
    this.settle();
  }

  #begin(fence: number): void {
    this.#fence = fence;
    this.#begun = this.#parts.env.now();
    this.#term = undefined;
  }

  /** Ends the term: something was appended, or may be, on which its decisions do not rest. */
  disturb(): void {
    if (this.#term !== undefined) this.#term.isOver = true;
    this.#term = undefined;
  }

  // -------------------------------------------------------------------- turns

  /** Term that decisions may rest on now; undefined before the turn has come, and before everything appended before was read. */
  get term(): Term | undefined {
    return this.#isDue ? undefined : this.#term;
  }

  /** Begins a term, after everything that was appended before was read; returns undefined if the turn was lost in the meantime. */
  begin(fence: number, index: number): Term | undefined {
    if (this.#fence !== fence) return undefined;
    return this.#term ??= { index, isOver: false };
  }

  /** Fence of the turn; undefined without one. */
  get fence(): number | undefined {
    return this.#fence;
  }

  /** Counts a decision that begins. */
  use(): void {
    this.#uses++;
  }

  /** Ends the counting of a decision. */
  unuse(): void {
    this.#uses--;
    this.settle();
  }

  /** True if the turn is wanted by another process, and has lasted long enough. */
  get #isDue(): boolean {
    return this.#fence !== undefined && this.#next() !== undefined &&
      this.#parts.env.now() - this.#begun >= ETCD_TURN_MS;
  }

  /** True if the turn is due, and can be handed over: while something is being decided, it cannot be, and what is appended in the meantime may be what the decision waits for. */
  get #isOver(): boolean {
    return this.#isDue && this.#uses === 0;
  }

  /** Process that has waited longest. */
  #next(): (Claimant & { readonly name: string }) | undefined {
    let next: (Claimant & { readonly name: string }) | undefined;
    const { wants } = this.#orders.claims(this.#clusterID);
    for (const [name, want] of wants) {
      if (want.writer === this.#parts.writer) continue;
      if (next === undefined || want.revision < next.revision) {
        next = { ...want, name };
      }
    }
    return next;
  }

  /** Waits until this process has the turn, and need not hand it over; `decides` is true for a turn in which something will be decided. */
  async acquire(signal: AbortSignal, decides: boolean): Promise<void> {
    if (this.#waiting++ === 0) this.#waitingSince = this.#parts.env.now();
    try {
      await this.#acquire(signal, decides);
    } finally {
      this.#waiting--;
    }
  }

  async #acquire(signal: AbortSignal, decides: boolean): Promise<void> {
    const { env } = this.#parts;
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    /** True if the claims have not changed for so long that an answer may have been lost. */
    let isLate = true;
    while (
      this.#fence === undefined || (decides ? this.#isDue : this.#isOver)
    ) {
      signal.throwIfAborted();
      this.#orders.closed.throwIfAborted();
      if (this.#isClosed) {
        throw new ErrClusterClosed(
          `Log of cluster ${this.#clusterID} is closed; open it again`,
        );
      }
      this.settle();
      const { promise, resolve } = withResolvers<void>();
      const wake = (): void => resolve();
      this.#listeners.add(wake);
      signal.addEventListener("abort", wake);
      this.#orders.closed.addEventListener("abort", wake);
      // Watched in any case: a transaction may have no answer.
      const cancel = env.setTimer(() => {
        isLate = true;
        wake();
      }, ETCD_CALL_MS_MAX);
      try {
        const { holder } = this.#orders.claims(this.#clusterID);
        if (
          this.#fence === undefined && !this.#isHandingOver &&
          (isLate || this.#isLapsed || holder === undefined)
        ) {
          isLate = false;
          await (this.#acquiring ??= this.#request());
          if (this.#fence !== undefined) continue;
        }
        await promise;
      } catch {
        isLate = true;
        await sleep(env, backoff.next(), signal);
      } finally {
        cancel();
        this.#listeners.delete(wake);
        signal.removeEventListener("abort", wake);
        this.#orders.closed.removeEventListener("abort", wake);
      }
    }
  }

  /** Takes the turn if no process has it, else says that it is wanted. */
  async #request(): Promise<void> {
    const { client, writer } = this.#parts;
    const key = this.#key;
    this.#hasWanted = true;
    this.#isLapsed = false;
    try {
      await this.#orders.load();
      const { wants } = this.#orders.claims(this.#clusterID);
      const lease = await this.#orders.lease.id();
      const value = encodeClaim(writer, lease);
      const name = this.#parts.keys.ofOrderKey(this.#wantKey).writer!;
      const isNoted = wants.get(name)?.lease === lease;
      const { succeeded, header, ranges } = decodeTxn(
        await client.request(
          Method.Txn,
          encodeTxn(
            [{ key, modRevision: 0 }],
            [{ put: key, value, lease }, { remove: this.#wantKey }],
            [
              this.range,
              ...(isNoted ? [] : [{ put: this.#wantKey, value, lease }]),
            ],
          ),
        ),
      );
      const { revision } = header;
      const [kv] = ranges[0] ?? [];
      this.#orders.note(
        this.#clusterID,
        succeeded
          ? { writer, lease, revision }
          : kv === undefined
          ? undefined
          : decodeClaim(kv),
        succeeded ? revision : kv?.modRevision ?? revision,
      );
    } finally {
      this.#acquiring = undefined;
    }
  }

  /** Hands the turn over if it is due, and nothing rests on it any more. */
  settle(): void {
    if (this.#fence === undefined || this.#isHandingOver) return;
    const next = this.#next();
    if (next === undefined) return;
    const left = ETCD_TURN_MS - (this.#parts.env.now() - this.#begun);
    if (left > 0) {
      this.#cancelTimer ??= this.#parts.env.setTimer(() => {
        this.#cancelTimer = undefined;
        this.settle();
      }, left);
      return;
    }
    if (this.#uses > 0 || this.#isWriting()) return;
    this.#isHandingOver = true;
    // Never rejects: a failure is tried again when the claims change.
    void this.#handOver(next, this.#fence);
  }

  async #handOver(
    { writer, lease, revision, name }: Claimant & { readonly name: string },
    fence: number,
  ): Promise<void> {
    const { client } = this.#parts;
    const key = this.#key;
    const wantKey = this.#parts.keys.ofWantName(this.#clusterID, name);
    this.#fence = undefined;
    this.disturb();
    try {
      const { succeeded, header, ranges } = decodeTxn(
        await client.request(
          Method.Txn,
          encodeTxn(
            [
              { key, modRevision: fence },
              { key: wantKey, modRevision: revision },
            ],
            [
              { put: key, value: encodeClaim(writer, lease), lease },
              { remove: wantKey },
            ],
            [this.range],
          ),
        ),
      );
      const [kv] = ranges[0] ?? [];
      if (succeeded) {
        const { revision } = header;
        const holder = { writer, lease, revision };
        this.#orders.note(this.#clusterID, holder, revision);
      } else if (kv !== undefined) {
        this.#orders.claims(this.#clusterID).wants.delete(name);
        this.#orders.note(this.#clusterID, decodeClaim(kv), kv.modRevision);
      }
    } catch {
      // The lease of the other process may have ended: those that want it compete.
      await this.#remove(fence);
    }
    this.#isHandingOver = false;
    this.#orders.notify(this.#clusterID);
  }

  #remove(fence: number): Promise<unknown> {
    const key = this.#key;
    return this.#parts.client.request(
      Method.Txn,
      encodeTxn([{ key, modRevision: fence }], [{ remove: key }, {
        remove: this.#wantKey,
      }]),
    ).catch(() => {
      // It ends with the lease.
    });
  }

  /** Ends the turn, and the wait for one: the log is closed. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#closed();
    const fence = this.#fence;
    this.#fence = undefined;
    this.disturb();
    for (const listener of [...this.#listeners]) notify(listener);
    if (this.#orders.closed.aborted) return;
    if (fence !== undefined) {
      // Never rejects: the key ends with the lease.
      void this.#remove(fence);
    } else if (this.#hasWanted) {
      // Never rejects: a turn that comes is given back.
      void this.#unwant();
    }
  }

  /** Ends the wait for a turn: others would wait for this process when it comes. */
  #unwant(): Promise<unknown> {
    const request = encodeTxn([], [{ remove: this.#wantKey }]);
    return this.#parts.client.request(Method.Txn, request).catch(() => {
      // A turn that comes is given back.
    });
  }
}
