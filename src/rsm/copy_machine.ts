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
import type { ManagedMachine } from "./managed_machine.ts";
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
  readonly stopped: AbortSignal;
  /** Called when the state is taken, before any later update. */
  readonly taken: () => void;
  /** Creates the machine that gets the state. */
  readonly target: () => StateMachine<never>;
}

/** Copy of a state machine, which the caller closes. */
export interface MachineCopy {
  readonly machine: ManagedMachine;
  /** Index of the state. */
  readonly index: number;
}

/**
 * Copies the state of a machine into another one.
 *
 * @throws MachineFailure if the machine could not save its state; the error of the other one if that could not recover it
 */
export async function copyMachine<L>(
  source: StateMachine<L>,
  options: CopyOptions,
): Promise<MachineCopy> {
  const { clusterID, nodeID, files, env, stopped, taken } = options;
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
    signal: stopped,
  });
  const info = await sink.commit(totals);
  const target = options.target();
  try {
    await recoverSnapshot(target, {
      info,
      open: () => pacedSource(store.open(info), env),
      files,
      directory: options.directory,
      signal: stopped,
    });
    stopped.throwIfAborted();
  } catch (error) {
    (async () => await target.close())().catch(() => {
      // It is not used.
    });
    // The copy failed, and not the machine that is replicated.
    throw error instanceof MachineFailure ? error.cause : error;
  }
  return { machine: target.machine, index: info.index };
}
