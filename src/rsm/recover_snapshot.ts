/**
 * Recovering a state machine, with its session table and applied index, from a
 * snapshot container.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrNotImplemented,
  ErrSnapshotStopped,
} from "../statemachine/errors.ts";
import type { MaybePromise, SnapshotFile } from "../statemachine/types.ts";
import { openSnapshot } from "../snapshot/reader.ts";
import { ErrSnapshotCorrupted, ErrStateMismatch } from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SnapshotHeader, SnapshotInfo } from "../snapshot/store.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { MachineFailure } from "./errors.ts";
import type { ManagedMachine } from "./managed_machine.ts";
import type { StateMachine, StateMetadata } from "./state_machine.ts";

/** Source of a snapshot to recover from. */
export interface RecoverOptions {
  /** Description of the snapshot. */
  readonly info: SnapshotInfo;
  /** Opens the container; called a second time if there are external files. */
  readonly open: () => MaybePromise<ReadableStream<Uint8Array>>;
  /** Store for the external files while the machine reads them. */
  readonly files: FileStore;
  /** Directory for the external files; removed afterwards. */
  readonly directory: string;
  /** Aborts the recovery. */
  readonly signal: AbortSignal;
  /** Called in the turn in which the state machine changes to the recovered sessions and applied index. */
  readonly recovered?: () => void;
}

/**
 * Replaces state, sessions and applied index by those of a snapshot. After a
 * failure the machine must not be used again (R9).
 *
 * @throws MachineFailure if the machine failed
 * @throws ErrSnapshotCorrupted if the container is damaged or is not the one its store describes
 * @throws ErrStoreFull if an on-disk machine found no room; other errors are the store's
 */
export async function recoverSnapshot<L>(
  stateMachine: StateMachine<L>,
  options: RecoverOptions,
): Promise<void> {
  const { files, directory, info } = options;
  try {
    const found = info.files > 0 ? await extractFiles(options) : [];
    await recoverState(stateMachine, options, found);
  } finally {
    if (info.files > 0) await files.remove(directory);
  }
}

/** Extracts the external files for the machine; verifies the whole container in passing. */
async function extractFiles(
  { open, files, directory }: RecoverOptions,
): Promise<SnapshotFile[]> {
  const found: SnapshotFile[] = [];
  const reader = await openSnapshot(await open());
  try {
    await reader.files(async (fileID, metadata, content) => {
      const filepath = `${directory}/${fileID}`;
      await content.pipeTo(await files.create(filepath));
      found.push({ fileID, filepath, metadata });
    });
    await reader.finish();
  } finally {
    await reader.cancel();
  }
  return found;
}

/** Reads header, sessions and index of a container without its payload. */
export async function readSessions(
  source: ReadableStream<Uint8Array>,
): Promise<StateMetadata & { readonly header: SnapshotHeader }> {
  const reader = await openSnapshot(source);
  const { header, sessions } = reader;
  await reader.cancel();
  return { index: header.index, epoch: header.epoch, sessions, header };
}

/**
 * Compares the state hash of a recovered machine with the one in the snapshot.
 *
 * @throws MachineFailure with an `ErrStateMismatch` as cause if they differ, or with the machine's error if it cannot compute its hash
 */
export async function checkState(
  machine: ManagedMachine,
  { index, stateHash }: SnapshotHeader,
  migrated = true,
): Promise<void> {
  if (stateHash === undefined || !machine.hasHash) return;
  const { hash, version } = stateHash;
  let found: bigint | undefined;
  try {
    if (migrated) found = await machine.getRecoveredHash();
    if (found === undefined && machine.stateVersion === version) {
      found = await machine.getHash();
    }
  } catch (cause) {
    if (cause instanceof ErrNotImplemented) return;
    throw new MachineFailure("Machine failed to hash what it recovered", {
      cause,
    });
  }
  if (found === undefined || found === hash) return;
  const cause = new ErrStateMismatch(index, hash, found);
  throw new MachineFailure(cause.message, { cause });
}

async function recoverState<L>(
  stateMachine: StateMachine<L>,
  { info, open, signal, recovered }: RecoverOptions,
  files: readonly SnapshotFile[],
): Promise<void> {
  const reader = await openSnapshot(await open());
  const { header: { clusterID, kind, index, epoch }, sessions } = reader;
  try {
    if (
      clusterID !== info.clusterID || index !== info.index || kind !== "full"
    ) {
      throw new ErrSnapshotCorrupted(
        `Snapshot ${info.id} is of cluster ${clusterID}, index ${index} (${kind}); its store says cluster ${info.clusterID}, index ${info.index} (full)`,
        0,
      );
    }
    await stateMachine.recover({ index, epoch, sessions }, async (host) => {
      try {
        await stateMachine.machine.recoverFromSnapshot(
          reader.payload,
          files,
          host,
          signal,
        );
      } catch (error) {
        if (reader.sourceError !== undefined) throw reader.sourceError;
        if (
          signal.aborted &&
          (error === signal.reason || error instanceof ErrSnapshotStopped)
        ) throw signal.reason;
        if (error instanceof ErrStoreFull) throw error;
        throw new MachineFailure("Machine failed to recover from a snapshot", {
          cause: error,
        });
      }
      // The container is verified to its end, even if the machine left bytes unread (R9).
      await reader.finish();
      await checkState(stateMachine.machine, reader.header);
    }, recovered);
  } catch (error) {
    if (!(error instanceof RangeError) || error === reader.sourceError) {
      throw error;
    }
    throw new ErrSnapshotCorrupted(
      `Sessions of the snapshot are damaged: ${error.message}`,
      0,
      { cause: error },
    );
  } finally {
    await reader.cancel();
  }
}
