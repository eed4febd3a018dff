/**
 * Duty of storing snapshots in the shared store: one process at a time has it.
 *
 * The duty is a key under the lease of its process, so etcd ends it some seconds
 * after the process has ended, is frozen or was cut off. The revision at which the
 * key was created is the fence: a pointer to a snapshot is advanced only while the
 * key still has it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { ByteReader, ByteWriter } from "../bytes.ts";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import {
  type Compare,
  decodeTxn,
  encodeTxn,
  type KeyValue,
  Method,
} from "./messages.ts";

/** Duty of storing snapshots, as one process sees it. */
export class SnapshotDuty {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #writer: bigint;
  readonly #lease: () => Promise<bigint>;

  /** Creates the view of the process with the random number `writer`, whose lease `lease` returns. */
  constructor(
    client: EtcdClient,
    keys: Keys,
    writer: bigint,
    lease: () => Promise<bigint>,
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#writer = writer;
    this.#lease = lease;
  }

  /** Takes the duty if no live process has it; resolves to the fence if this process has it now, else to undefined. */
  async take(): Promise<Compare | undefined> {
    const { duty: key } = this.#keys;
    const value = new ByteWriter(8).u64(this.#writer).finish();
    const lease = await this.#lease();
    const { succeeded, header, ranges } = decodeTxn(
      await this.#client.request(
        Method.Txn,
        encodeTxn([{ key, modRevision: 0 }], [{ put: key, value, lease }], [
          { range: { key } },
        ]),
      ),
    );
    if (succeeded) return { key, modRevision: header.revision };
    return this.#fenceOf(ranges[0]?.[0]);
  }

  /** Resolves to the fence if this process has the duty now, else to undefined; takes nothing. */
  async look(): Promise<Compare | undefined> {
    const { duty: key } = this.#keys;
    const { ranges } = decodeTxn(
      await this.#client.request(
        Method.Txn,
        encodeTxn([], [{ range: { key } }]),
      ),
    );
    return this.#fenceOf(ranges[0]?.[0]);
  }

  #fenceOf(found: KeyValue | undefined): Compare | undefined {
    if (found === undefined) return undefined;
    const { key, value, modRevision } = found;
    const isOwn = value.length === 8 &&
      new ByteReader(value).u64() === this.#writer;
    return isOwn ? { key, modRevision } : undefined;
  }
}
