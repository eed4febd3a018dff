/**
 * Names of the keys in etcd.
 *
 * This module needs Deno.
 *
 * @module
 */

import { encodeShown } from "../bytes.ts";

/** Kinds of keys that each cluster may have one of. */
export type KeyKind = "log" | "meta" | "snapshot" | "order";

/** Keys of the logs below one prefix. */
export class Keys {
  /** Key with the random id of the history. */
  readonly history: Uint8Array;
  /** Key of the test puts, by which a process finds out that puts succeed again. */
  readonly probe: Uint8Array;
  /** Key of the process that stores snapshots. */
  readonly duty: Uint8Array;
  /** Key of the secret by which servers permit each other to fetch snapshots. */
  readonly secret: Uint8Array;
  readonly #prefix: string;

  /** Creates the names below `prefix`. */
  constructor(prefix: string) {
    this.#prefix = prefix;
    this.history = encodeShown(`${prefix}/history`);
    this.probe = encodeShown(`${prefix}/probe`);
    this.duty = encodeShown(`${prefix}/duty`);
    this.secret = encodeShown(`${prefix}/secret`);
  }

  /** Key of a cluster. */
  of(kind: KeyKind, clusterID: bigint): Uint8Array {
    return encodeShown(`${this.#prefix}/${kind}/${idOf(clusterID)}`);
  }

  /** Key of the announcement of a replica: the one with number `count` of the process `writer`. */
  ofReplica(clusterID: bigint, writer: bigint, count: number): Uint8Array {
    const process = writer.toString(16).padStart(16, "0");
    return encodeShown(
      `${this.#prefix}/live/${idOf(clusterID)}/${process}-${count}`,
    );
  }

  /** Key by which the process `writer` says that it wants the turn to append to a log. */
  ofWant(clusterID: bigint, writer: bigint): Uint8Array {
    return this.ofWantName(clusterID, writer.toString(16).padStart(16, "0"));
  }

  /** Key by which the process with a name in hexadecimal digits says so. */
  ofWantName(clusterID: bigint, name: string): Uint8Array {
    return encodeShown(`${this.#prefix}/order/${idOf(clusterID)}/${name}`);
  }

  /** Cluster of a key of an order, and the name of the process in one that says that it wants the turn. */
  ofOrderKey(
    key: Uint8Array,
  ): { readonly clusterID: bigint; readonly writer: string | undefined } {
    const text = new TextDecoder().decode(key);
    const [id, writer] = text.slice(`${this.#prefix}/order/`.length).split("/");
    return { clusterID: BigInt(`0x${id}`), writer };
  }

  /** Key of the newest checkpoint of a replica. */
  ofCheckpoint(clusterID: bigint, nodeID: bigint): Uint8Array {
    return encodeShown(
      `${this.#prefix}/check/${idOf(clusterID)}/${idOf(nodeID)}`,
    );
  }

  /** First key of the checkpoints of a cluster, and the end of the range of its keys. */
  checkpointsOf(clusterID: bigint): { key: Uint8Array; end: Uint8Array } {
    const start = `${this.#prefix}/check/${idOf(clusterID)}`;
    return { key: encodeShown(`${start}/`), end: encodeShown(`${start}0`) };
  }

  /** Key of the announcement of the snapshots of a cluster that the process `writer` holds. */
  ofCopies(clusterID: bigint, writer: bigint): Uint8Array {
    return encodeShown(
      `${this.#prefix}/copy/${idOf(clusterID)}/${idOf(writer)}`,
    );
  }

  /** First key of the announced snapshots of a cluster, and the end of the range of its keys. */
  copiesOf(clusterID: bigint): { key: Uint8Array; end: Uint8Array } {
    const start = `${this.#prefix}/copy/${idOf(clusterID)}`;
    return { key: encodeShown(`${start}/`), end: encodeShown(`${start}0`) };
  }

  /** Id of the cluster of an announcement or a checkpoint. */
  clusterOfReplica(key: Uint8Array): bigint {
    const text = new TextDecoder().decode(key);
    return BigInt(`0x${text.split("/").at(-2)}`);
  }

  /** Random number of the process of an announcement. */
  processOfReplica(key: Uint8Array): bigint {
    const last = new TextDecoder().decode(key).split("/").at(-1)!;
    return BigInt(`0x${last.slice(0, last.indexOf("-"))}`);
  }

  /** First key of a kind, and the end of the range of its keys. */
  range(
    kind: KeyKind | "live" | "check" | "copy",
  ): { key: Uint8Array; end: Uint8Array } {
    return {
      key: encodeShown(`${this.#prefix}/${kind}/`),
      // The character after the slash.
      end: encodeShown(`${this.#prefix}/${kind}0`),
    };
  }

  /** Id of the cluster that a key belongs to. */
  clusterOf(key: Uint8Array): bigint {
    return BigInt(`0x${new TextDecoder().decode(key.subarray(-16))}`);
  }
}

function idOf(id: bigint): string {
  return id.toString(16).padStart(16, "0");
}
