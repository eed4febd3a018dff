/**
 * Resource limits that the connections of a server share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_EXPLAINS_MAX, SYNC_PARTS_TOTAL_BYTES_MAX } from "../../limits.ts";
import { ErrSystemBusy } from "../../rsm/errors.ts";
import { CloseCode } from "../transport.ts";
import type { Identity } from "./hooks.ts";
import type { ServerLimits } from "./options.ts";
import { networkOf, Quota } from "./quota.ts";
import { TokenBucket } from "./token_bucket.ts";
import { type TransferSlot, TransferSlots } from "./transfer_slots.ts";

/** Connection that is closed when it holds too much of a shared resource. */
export interface Closable {
  /** Closes the connection with a `CloseCode` and a reason. */
  close(code: number, reason: string): void;
}

/** Source of a snapshot transfer: the limits of each part apply. */
export interface TransferSource {
  /** Principal that sends or receives the snapshot. */
  readonly identity: Identity;
  /** Remote address, if it is known. */
  readonly address: string | undefined;
  /** Number of the WebSocket connection; undefined over HTTP. */
  readonly connection?: number;
}

/** Quotas of one server for each principal, each remote address and all connections together. */
export class Quotas {
  readonly #env: Env;
  readonly #limits: ServerLimits;
  readonly #principals: Quota;
  readonly #addresses: Quota;
  readonly #transfers: TransferSlots;
  readonly #principalTransfers: Quota;
  readonly #addressTransfers: Quota;
  readonly #connectionTransfers: Quota;
  /** Rate of commands of each principal, on all its connections together. */
  readonly #commands = new Map<string, TokenBucket>();
  readonly #replays = new Quota(SYNC_EXPLAINS_MAX);
  readonly #connectionReplays = new Quota(1);
  /** Bytes of the unfinished message of each connection, in the order in which the messages began. */
  readonly #unfinished = new Map<Closable, number>();
  #unfinishedBytes = 0;

  /** Creates unused quotas. */
  constructor(env: Env, limits: ServerLimits) {
    this.#env = env;
    this.#limits = limits;
    this.#principals = new Quota(limits.principalConnections);
    this.#addresses = new Quota(limits.addressConnections);
    this.#transfers = new TransferSlots(env, limits.transfers, limits.slowMs);
    this.#principalTransfers = new Quota(limits.principalTransfers);
    this.#addressTransfers = new Quota(limits.addressTransfers);
    this.#connectionTransfers = new Quota(limits.connectionTransfers);
  }

  /** Number of snapshot transfers in progress. */
  get transfers(): number {
    return this.#transfers.size;
  }

  /** True if token buckets are kept, which `sweep()` removes. */
  get needsSweep(): boolean {
    return this.#commands.size > 0;
  }

  /** Counts a connection of a principal; returns its release, or undefined if the principal has too many. */
  takeConnection(identity: Identity): (() => void) | undefined {
    return this.#principals.take(keyOf(identity));
  }

  /** Counts a connection from a remote address; returns its release, or undefined if the address has too many. */
  takeAddress(address: string | undefined): (() => void) | undefined {
    return this.#addresses.take(networkOf(address));
  }

  /** Token bucket for the commands of a principal: one for all its connections, or for each connection of an anonymous principal. */
  commandsOf(identity: Identity): TokenBucket {
    const create = (): TokenBucket =>
      new TokenBucket(this.#env, this.#limits.commandsPerSecond);
    const key = keyOf(identity);
    if (key === undefined) return create();
    let bucket = this.#commands.get(key);
    if (bucket === undefined) this.#commands.set(key, bucket = create());
    return bucket;
  }

  /** Takes a slot for a snapshot transfer; undefined if too many are in progress. */
  takeTransfer(
    { identity, address, connection }: TransferSource,
  ): TransferSlot | undefined {
    const quotas: readonly (readonly [Quota, string | undefined])[] = [
      [
        this.#connectionTransfers,
        connection === undefined ? undefined : String(connection),
      ],
      [this.#addressTransfers, networkOf(address)],
      [this.#principalTransfers, keyOf(identity)],
    ];
    const releases: (() => void)[] = [];
    const release = (): void => releases.forEach((release) => release());
    // The limits of one source come first: it must not evict the transfers of others.
    for (const [quota, key] of quotas) {
      const release = quota.take(key);
      if (release === undefined) break;
      releases.push(release);
    }
    if (releases.length === quotas.length && this.#transfers.makeRoom()) {
      return this.#transfers.take(release);
    }
    release();
    return undefined;
  }

  /**
   * Counts a replay that explains a divergence; returns its release.
   *
   * @throws ErrSystemBusy if the connection or the server has too many in progress
   */
  takeReplay(connection: number): () => void {
    const ofConnection = this.#connectionReplays.take(String(connection));
    if (ofConnection === undefined) {
      throw new ErrSystemBusy(
        `A replay for connection ${connection} is in progress; ask again later`,
      );
    }
    const ofServer = this.#replays.take("server");
    if (ofServer === undefined) {
      ofConnection();
      throw new ErrSystemBusy(
        `${SYNC_EXPLAINS_MAX} replays are in progress on this server; ask again later`,
      );
    }
    return () => {
      ofConnection();
      ofServer();
    };
  }

  /** Records the size of a connection's unfinished message in parts. Past the bound on all of them, the oldest is cut off with its connection. */
  setUnfinished(connection: Closable, bytes: number): void {
    this.#unfinishedBytes += bytes - (this.#unfinished.get(connection) ?? 0);
    // A map keeps the position of a key that is set again.
    if (bytes > 0) this.#unfinished.set(connection, bytes);
    else this.#unfinished.delete(connection);
    for (const [oldest] of this.#unfinished) {
      if (this.#unfinishedBytes <= SYNC_PARTS_TOTAL_BYTES_MAX) break;
      oldest.close(
        CloseCode.TooSlow,
        "Parts of a message arrive too slowly; reconnect",
      );
    }
  }

  /** Removes the token buckets of principals without connections, once full: a client that reconnects at once gets no new tokens. */
  sweep(): void {
    for (const [key, bucket] of this.#commands) {
      if (!this.#principals.has(key) && bucket.isFull) {
        this.#commands.delete(key);
      }
    }
  }
}

/** Key of a principal; undefined for the anonymous one, which no limit of a principal applies to. */
function keyOf({ id, isAnonymous }: Identity): string | undefined {
  return isAnonymous ? undefined : id;
}
