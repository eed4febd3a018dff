/**
 * Puts of one log that are not in memory: finding the one with an index, and reading
 * on from a position.
 *
 * This module needs Deno.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import { messageOf } from "../describe.ts";
import { ETCD_READ_AHEAD_BYTES } from "../limits.ts";
import { epochsIn } from "../log/epochs.ts";
import { ErrLogCorrupted, ErrOtherHistory } from "../log/errors.ts";
import type { LogBatch } from "../log/log.ts";
import type { EtcdClient } from "./client.ts";
import { CallError } from "./connection.ts";
import { decodeRange, encodeRange, type KeyValue, Method } from "./messages.ts";
import { decodePut, type LogPut, type Position } from "./values.ts";

/** Put with its key's revisions. */
export interface FoundPut {
  readonly put: LogPut;
  readonly kv: KeyValue;
}

/** Batches that were read, and the position after them. */
export interface FoundBatches {
  readonly batches: LogBatch[];
  readonly end: Position;
}

/** Position before a put. */
export function positionBefore({ put, kv }: FoundPut): Position {
  return {
    version: kv.version - 1,
    revision: kv.modRevision - 1,
    index: put.follows,
    epoch: put.epoch,
  };
}

/** Position after a put. */
export function positionAfter({ put, kv }: FoundPut): Position {
  return {
    version: kv.version,
    revision: kv.modRevision,
    index: put.last,
    epoch: put.batches.flatMap(epochsIn).at(-1) ?? put.epoch,
  };
}

/** Error for a log that is not there any more, or another one under the same key. */
export function removedLog(clusterID: bigint): ErrOtherHistory {
  return new ErrOtherHistory(
    `Log of cluster ${clusterID} was removed from etcd, or created again`,
  );
}

/** Puts of one log, as etcd has them. */
export class PutHistory {
  readonly #client: EtcdClient;
  readonly #clusterID: bigint;
  readonly #key: Uint8Array;

  /** Creates the history of a cluster's key. */
  constructor(client: EtcdClient, clusterID: bigint, key: Uint8Array) {
    this.#client = client;
    this.#clusterID = clusterID;
    this.#key = key;
  }

  /**
   * Decodes a put.
   *
   * @throws ErrLogCorrupted if it is damaged
   */
  decode(kv: KeyValue): FoundPut {
    try {
      return { put: decodePut(kv.value, this.#clusterID), kv };
    } catch (cause) {
      const message = `put ${kv.version} at revision ${kv.modRevision}: ${
        messageOf(cause)
      }`;
      throw new ErrLogCorrupted(0, message, { cause });
    }
  }

  /**
   * Checks that a put continues the chain at a position; its version was compared.
   *
   * @throws ErrLogCorrupted if it does not
   */
  verify({ put, kv }: FoundPut, at: Position): void {
    if (
      put.follows !== at.index || put.epoch?.index !== at.epoch?.index ||
      put.epoch?.id !== at.epoch?.id
    ) {
      throw new ErrLogCorrupted(
        at.index,
        `put ${kv.version} at revision ${kv.modRevision} follows index ${put.follows}`,
      );
    }
  }

  /**
   * Finds the put with the record after an index, by bisection over the revisions in
   * (`low`, `high`]; undefined if it was compacted.
   */
  async locate(
    after: number,
    low: number,
    high: number,
    signal?: AbortSignal,
  ): Promise<FoundPut | undefined> {
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      const kv = await this.#at(middle, signal);
      if (kv === undefined) {
        low = middle;
        continue;
      }
      const found = this.decode(kv);
      if (found.put.last <= after) low = middle;
      else if (found.put.follows > after) high = kv.modRevision - 1;
      else return found;
    }
    return undefined;
  }

  /** Newest put at a revision; undefined before the first put, and if the revision was compacted. */
  async #at(
    revision: number,
    signal: AbortSignal | undefined,
  ): Promise<KeyValue | undefined> {
    try {
      const response = await this.#client.request(
        Method.Range,
        encodeRange({ key: this.#key, revision }),
        signal,
      );
      return decodeRange(response).kvs[0];
    } catch (error) {
      const { cause } = error as Error;
      if (cause instanceof CallError && cause.isCompacted) return undefined;
      throw error;
    }
  }

  /**
   * Reads the puts after a position until there are `ETCD_READ_AHEAD_BYTES`, or
   * `isEnough` is true for the index reached; undefined if they were compacted.
   * `stop` is called with a function that ends the reading with what there is, or
   * with an error.
   */
  async follow(
    from: Position,
    isEnough: (index: number) => boolean,
    stop: (end: (error?: Error) => void) => void,
  ): Promise<FoundBatches | undefined> {
    let at = from;
    let size = 0;
    let hasGap = false;
    const batches: LogBatch[] = [];
    const { promise, resolve, reject } = withResolvers<void>();
    stop((error) => error === undefined ? resolve() : reject(error));
    const read = (found: FoundPut): boolean => {
      this.verify(found, at);
      batches.push(...found.put.batches);
      at = positionAfter(found);
      size += found.kv.value.length;
      return size >= ETCD_READ_AHEAD_BYTES || isEnough(at.index);
    };
    const unwatch = this.#client.watches.add(
      { key: this.#key },
      from.revision + 1,
      {
        changed: (events) => {
          try {
            for (const { isDelete, kv } of events) {
              if (isDelete) throw removedLog(this.#clusterID);
              hasGap = kv.version !== at.version + 1;
              if (hasGap || read(this.decode(kv))) return resolve();
            }
          } catch (error) {
            reject(error);
          }
        },
        // The version of the next put shows whether one was among the compacted ones.
        compacted: () => {},
        failed: reject,
      },
    );
    try {
      await promise;
    } finally {
      unwatch();
    }
    return hasGap && batches.length === 0 ? undefined : { batches, end: at };
  }
}
