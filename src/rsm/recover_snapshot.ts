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

/** Where a snapshot comes from. */
export interface RecoverOptions {
  /** The snapshot. */
  readonly info: SnapshotInfo;
  /** Opens its container; called a second time when there are external files. */
  readonly open: () => MaybePromise<ReadableStream<Uint8Array>>;
  /** Where the external files go while the machine reads them. */
  readonly files: FileStore;
  /** The folder for them. */
  readonly directory: string;
  /** Ends the recovery. */
  readonly signal: AbortSignal;
}

/**
 * Replaces a machine's state, and all that is replicated with it, by those of a
 * snapshot. After a failure the machine is not to be used again (R9).
 *
 * @throws MachineFailure if the machine failed
 * @throws ErrSnapshotCorrupted if the container is damaged or not what its store says
 * @throws ErrStoreFull if a machine on disk found no room; anything else came from the store
 */
export async function recoverSnapshot<L>(
  driver: StateMachine<L>,
  options: RecoverOptions,
): Promise<void> {
  const { files, directory, info } = options;
  try {
    const found = info.files > 0 ? await extractFiles(options) : [];
    await recoverState(driver, options, found);
  } finally {
    if (info.files > 0) await files.remove(directory);
  }
}

/** Puts the external files where the machine can read them; the whole container is verified on the way. */
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

/** Reads what a container says of sessions and index, and its header, and nothing more. */
export async function readSessions(
  source: ReadableStream<Uint8Array>,
): Promise<StateMetadata & { readonly header: SnapshotHeader }> {
  const reader = await openSnapshot(source);
  const { header, sessions } = reader;
  await reader.cancel();
  return { index: header.index, epoch: header.epoch, sessions, header };
}

/**
 * Compares the state of a machine that has recovered with the one that was saved.
 *
 * @throws MachineFailure with an `ErrStateMismatch` if it is another one, or its hash cannot be had
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
  driver: StateMachine<L>,
  { info, open, signal }: RecoverOptions,
  files: readonly SnapshotFile[],
): Promise<void> {
  const reader = await openSnapshot(await open());
  const { header: { clusterID, kind, index, epoch }, sessions } = reader;
  try {
    if (
      clusterID !== info.clusterID || index !== info.index || kind !== "full"
    ) {
      throw new ErrSnapshotCorrupted(
        "Snapshot is not the one it is kept as",
        0,
      );
    }
    await driver.recover({ index, epoch, sessions }, async (host) => {
      try {
        await driver.machine.recoverFromSnapshot(
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
      // What the machine left unread counts too (R9).
      await reader.finish();
      await checkState(driver.machine, reader.header);
    });
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
