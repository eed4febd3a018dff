/**
 * Announcements in etcd of the snapshots that live servers hold, and the secret by
 * which these permit each other to fetch them.
 *
 * An announcement is under the lease of its process, so only snapshots that a live
 * server can serve are announced.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import type { LiveReplicas } from "./live_replicas.ts";
import { decodeTxn, encodeTxn, Method } from "./messages.ts";
import {
  decodeCopies,
  decodePointers,
  encodeCopies,
  type EtcdSnapshotPointer,
  type SnapshotCopies,
} from "./values.ts";

const SECRET_BYTES = 32;

/** Snapshots of a cluster as etcd says. */
export interface AnnouncedSnapshots {
  /** Pointers, newest first. */
  readonly pointers: readonly EtcdSnapshotPointer[];
  /** Announcements of other live servers. */
  readonly others: readonly SnapshotCopies[];
  /** Announcement of this server, if there is one. */
  readonly own: SnapshotCopies | undefined;
}

/** True if an announcement has the snapshot of a pointer. */
export function hasSnapshot(
  { snapshots }: SnapshotCopies,
  { index, sha256 }: EtcdSnapshotPointer,
): boolean {
  const name = hexOf(sha256);
  return snapshots.some((one) =>
    one.index === index && hexOf(one.sha256) === name
  );
}

/** Hash in hexadecimal digits. */
export function hexOf(sha256: Uint8Array): string {
  return [...sha256].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Announcements of snapshots below a prefix, as the process `writer` sees them. */
export class AnnouncedCopies {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #writer: bigint;
  readonly #live: LiveReplicas;
  #secret: Promise<Uint8Array> | undefined;

  /** Creates the view of a process with the random number `writer`. */
  constructor(
    client: EtcdClient,
    keys: Keys,
    writer: bigint,
    live: LiveReplicas,
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#writer = writer;
    this.#live = live;
  }

  /** Pointers and announcements of a cluster, at one revision. */
  async read(clusterID: bigint): Promise<AnnouncedSnapshots> {
    const { key, end } = this.#keys.copiesOf(clusterID);
    const { ranges } = decodeTxn(
      await this.#client.request(
        Method.Txn,
        encodeTxn([], [
          { range: { key: this.#keys.of("snapshot", clusterID) } },
          { range: { key, end } },
        ]),
      ),
    );
    const [[pointer] = [], copies = []] = ranges;
    const mine = new TextDecoder().decode(
      this.#keys.ofCopies(clusterID, this.#writer),
    );
    const others: SnapshotCopies[] = [];
    let own: SnapshotCopies | undefined;
    for (const { key, value } of copies) {
      let found: SnapshotCopies;
      try {
        found = decodeCopies(value, clusterID);
      } catch {
        // Written by newer code: until it is understood, it counts as no copy.
        continue;
      }
      if (new TextDecoder().decode(key) === mine) own = found;
      else others.push(found);
    }
    const pointers = pointer === undefined
      ? []
      : decodePointers(pointer.value, clusterID);
    return { pointers, others, own };
  }

  /** Replaces the announcement of this process. */
  async publish(clusterID: bigint, copies: SnapshotCopies): Promise<void> {
    const lease = await this.#live.lease.id();
    const key = this.#keys.ofCopies(clusterID, this.#writer);
    const value = encodeCopies(clusterID, copies);
    await this.#client.request(
      Method.Txn,
      encodeTxn([], [{ put: key, value, lease }]),
    );
  }

  /** Token with which a server requests a snapshot: of no use for another one. */
  async token(clusterID: bigint, name: string): Promise<string> {
    return createHmac("sha256", await this.#readSecret())
      .update(`${clusterID}/${name}`).digest("hex");
  }

  /** True if a token is the one for a snapshot. */
  async permits(
    clusterID: bigint,
    name: string,
    token: string | undefined,
  ): Promise<boolean> {
    if (token === undefined || !/^[0-9a-f]{64}$/.test(token)) return false;
    const expected = await this.token(clusterID, name);
    const bytes = (text: string): Uint8Array =>
      Uint8Array.from(text, (char) => char.charCodeAt(0));
    return timingSafeEqual(bytes(expected), bytes(token));
  }

  #readSecret(): Promise<Uint8Array> {
    return this.#secret ??= this.#makeSecret().catch((error) => {
      this.#secret = undefined;
      throw error;
    });
  }

  /** Reads the secret of all servers; the first one of them creates it. */
  async #makeSecret(): Promise<Uint8Array> {
    const key = this.#keys.secret;
    const made = new Uint8Array(randomBytes(SECRET_BYTES));
    const { succeeded, ranges } = decodeTxn(
      await this.#client.request(
        Method.Txn,
        encodeTxn([{ key, modRevision: 0 }], [{ put: key, value: made }], [
          { range: { key } },
        ]),
      ),
    );
    const found = succeeded ? made : ranges[0]?.[0]?.value;
    if (found?.length !== SECRET_BYTES) {
      throw new RangeError(
        `Secret of the servers in etcd has ${
          found?.length ?? 0
        } bytes, not ${SECRET_BYTES}; remove its key, and restart the servers`,
      );
    }
    return found;
  }
}
