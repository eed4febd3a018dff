/**
 * Copy of a state machine through a snapshot in memory, for machines without `fork()`.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { pacedSink, pacedSource } from "../async.ts";
import type { Env } from "../env.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import type { SnapshotSink } from "../snapshot/store.ts";
import { MachineFailure } from "./errors.ts";
import { recoverSnapshot } from "./recover_snapshot.ts";
import { saveSnapshot } from "./save_snapshot.ts";
import type { StateMachine } from "./state_machine.ts";

/** Options of {@linkcode copyMachine}. */
export interface CopyOptions {
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  /** Store of the external files while they are copied. */
  readonly files: FileStore;
  /** Directory for them; removed afterwards. */
  readonly directory: string;
  readonly env: Env;
  readonly signal: AbortSignal;
  /** Called when the state is taken, before any later update. */
  readonly taken: () => void;
  /** Creates the machine that gets the state; the caller closes it. */
  readonly target: () => StateMachine<never>;
}

/**
 * Copies the state of a machine into another one.
 *
 * @returns the index of the state
 * @throws MachineFailure if the machine could not save its state; the error of the other one if that could not recover it
 */
export async function copyMachine<L>(
  source: StateMachine<L>,
  options: CopyOptions,
): Promise<number> {
  const { clusterID, nodeID, files, directory, env, signal, taken } = options;
  const store = new MemorySnapshotStore();
  let sink!: SnapshotSink;
  const totals = await saveSnapshot(source, {
    header: { clusterID, nodeID, kind: "full", compression: "none" },
    create: (header) => {
      taken();
      sink = store.create(header);
      return pacedSink(sink.writable, env);
    },
    files,
    signal,
  });
  const info = await sink.commit(totals);
  try {
    await recoverSnapshot(options.target(), {
      info,
      open: () => pacedSource(store.open(info), env),
      files,
      directory,
      signal,
    });
  } catch (error) {
    // The copy failed, and not the machine that is replicated.
    throw error instanceof MachineFailure ? error.cause : error;
  }
  return info.index;
}
