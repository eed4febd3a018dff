/**
 * Operator who moves a cluster: exports a snapshot, imports it on a fresh host, and
 * looks at the state there. Some exports are damaged on the way, which the import
 * must report.
 *
 * @module
 */

import {
  ErrSnapshotCorrupted,
  ErrSnapshotMismatch,
  ErrSnapshotVersion,
  MemoryLogDB,
  NodeHost,
} from "../../mod.ts";
import { streamOfParts } from "../support/streams.ts";
import type { WorldContext } from "./context.ts";
import { SimulatedDisk } from "./disk.ts";
import { ALL, LEDGERS, ORACLE, startLedger } from "./machines.ts";
import type { Place, Workload } from "./workload.ts";

/** Operator who exports and imports snapshots. */
export class Importer {
  readonly #context: WorldContext;
  readonly #random: () => number;
  readonly #workload: Workload;

  constructor(context: WorldContext, workload: Workload) {
    this.#context = context;
    this.#random = context.random("importer");
    this.#workload = workload;
  }

  /** Begins to move the cluster of a replica to a fresh host. */
  move(place: Place): void {
    this.#context.background(
      place.env,
      `Import of a snapshot from ${place.process}`,
      this.#move(place).catch((error) => this.#context.history.failed(error)),
    );
  }

  async #move({ cluster, replica }: Place): Promise<void> {
    const context = this.#context;
    const damagedReads = (): number =>
      context.history.counts.get("fault: snapshot is read damaged") ?? 0;
    const before = damagedReads();
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const reader = replica.exportSnapshot().getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value.slice());
    }
    const isDamaged = this.#random() % 3 === 0;
    if (isDamaged) this.#flip(parts);
    // A regular machine is exported from the store, which reads some damaged.
    const mayBeDamaged = isDamaged || damagedReads() > before;
    const { name, env } = context.newProcess("import");
    const logDB = new MemoryLogDB({ env });
    const host = new NodeHost({ logDB, env });
    context.background(
      env,
      `Import in ${name}`,
      this.#import(name, cluster, host, parts, isDamaged, mayBeDamaged)
        .catch((error) => context.fail("import", `${name}: ${error}`))
        .then(() => host.stop()).then(() => logDB.close()),
    );
  }

  /** Flips one bit. */
  #flip(parts: readonly Uint8Array[]): void {
    const part = parts[this.#random() % parts.length]!;
    part[this.#random() % part.length]! ^= 1 << this.#random() % 8;
    this.#context.history.fault("exported snapshot corrupted");
  }

  async #import(
    process: string,
    cluster: bigint,
    host: NodeHost,
    parts: Uint8Array[],
    isDamaged: boolean,
    mayBeDamaged: boolean,
  ): Promise<void> {
    const { history } = this.#context;
    const source = streamOfParts(parts);
    try {
      await host.importSnapshot(cluster, source);
    } catch (error) {
      history.failed(error);
      const isReport = error instanceof ErrSnapshotCorrupted ||
        error instanceof ErrSnapshotVersion ||
        error instanceof ErrSnapshotMismatch;
      if (!mayBeDamaged || !isReport) throw error;
      history.met("event", "damage of an import reported");
      const stored = await host.snapshots.list(cluster);
      if (stored.length > 0) {
        throw new Error(`Import of cluster ${cluster} was refused, and stored`);
      }
      return;
    }
    if (isDamaged) {
      throw new Error(
        `Snapshot of cluster ${cluster} with a flipped bit was imported`,
      );
    }
    history.met("event", "import");
    const kind = LEDGERS[this.#random() % LEDGERS.length]!;
    const replica = await startLedger(
      host,
      kind,
      { clusterID: cluster, nodeID: 9_000n },
      new SimulatedDisk(host.env).open(host.env),
      { version: 0, filling: 0 },
    );
    // Its list must be one that the log had.
    const place: Place = {
      process,
      env: host.env as Place["env"],
      cluster,
      replica,
      isOver: () => false,
      isReplaced: () => false,
    };
    this.#workload.lookup(place, "staleRead", ALL);
    const { hash } = await replica.getHash();
    const list = await replica.read(ALL) as readonly string[];
    if (hash !== ORACLE.hash(list, 0)) {
      throw new Error(`Hash of ${kind} is ${hash} after an import`);
    }
  }
}
