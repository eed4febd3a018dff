/**
 * Saving a machine, and all that is replicated with it, into a snapshot
 * container, and recovering it from one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrNotImplemented,
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
} from "../statemachine/errors.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type SnapshotFile,
} from "../statemachine/types.ts";
import { SnapshotFileCollection } from "../snapshot/collection.ts";
import { openSnapshot, SnapshotWriter } from "../snapshot/container.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotFile,
  type ErrSnapshotUnfinished,
  ErrStateMismatch,
} from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotTotals,
  StateHash,
} from "../snapshot/store.ts";
import { ErrStoreFull } from "../store/errors.ts";
import type { Captured, Driver } from "./driver.ts";
import { ErrSystemBusy, MachineFailure } from "./errors.ts";
import { Op } from "./guard.ts";
import type { ManagedMachine } from "./managed.ts";

/** What is saved, how, and where to. */
export interface SaveOptions {
  /** What the container's header says beyond the index. */
  readonly header: Omit<
    SnapshotHeader,
    "index" | "mark" | "type" | "stateHash"
  >;
  /** Gives the stream for the container, once its header is known. */
  readonly create: (
    header: SnapshotHeader,
  ) => MaybePromise<WritableStream<Uint8Array>>;
  /** Whether the receiver is another node: a write then fails with `ErrSnapshotStreaming` (D9). */
  readonly streaming?: boolean;
  /** Where the machine's external files are. */
  readonly files: FileStore;
  /** Called before the container is completed; throws if the state is not to be saved after all (H12). */
  readonly check?: () => void;
  /** Called if the machine writes to its stream after `saveSnapshot()` has ended, possibly after this save has resolved: the snapshot is bad (H16). */
  readonly onLate?: (error: ErrSnapshotUnfinished) => void;
  /** Ends the saving. */
  readonly signal: AbortSignal;
  /** Aborts before `signal` does when the receiver is lost: writes then fail with `ErrSnapshotStreaming` (D9). */
  readonly lost?: AbortSignal;
}

/**
 * Saves the state as of a moment between two batches, and the sessions as of the
 * same moment. A regular machine is saved under its reader lock, the others while
 * updates go on.
 *
 * @throws MachineFailure if the machine failed; anything else drops this snapshot only (R7, R8)
 */
export async function saveSnapshot<L>(
  driver: Driver<L>,
  options: SaveOptions,
): Promise<SnapshotTotals> {
  const { guard, machine } = driver;
  const { signal } = options;
  if (machine.type === RegularStateMachine) {
    return await guard.run(Op.Save, async () => {
      signal.throwIfAborted();
      const stateHash = await driver.stateHash();
      return await saveState(driver, options, {
        ...driver.capture(),
        stateHash,
      });
    });
  }
  if (options.header.kind === "metadata") {
    // The index must not be ahead of what is durable: one exclusion for both.
    const captured = await guard.run(Op.Sync, async () => {
      signal.throwIfAborted();
      await driver.syncNow();
      return driver.capture();
    });
    return await saveState(driver, options, captured);
  }
  let saving: Promise<SnapshotTotals> | undefined;
  await guard.run(Op.Prepare, async () => {
    signal.throwIfAborted();
    if (driver.behind) {
      throw new ErrSystemBusy("Sessions are still being rebuilt");
    }
    if (machine.type === OnDiskStateMachine) await driver.syncNow();
    const stateHash = await driver.stateHash();
    const captured = { ...driver.capture(), stateHash };
    let context: unknown;
    try {
      context = await machine.prepareSnapshot();
    } catch (cause) {
      throw new MachineFailure("Machine failed to prepare a snapshot", {
        cause,
      });
    }
    // Begun before anything else can come between: a context is saved exactly
    // once, and before the machine is closed (C5, R10).
    saving = guard.begin(
      Op.Save,
      () => saveState(driver, options, captured, context),
    ) as Promise<SnapshotTotals>;
    saving.catch(() => {});
  });
  return await saving!;
}

/** Writes the container; of a machine that was prepared, with its context. */
async function saveState<L>(
  driver: Driver<L>,
  options: SaveOptions,
  { index, mark, sessions, stateHash }: Captured & {
    readonly stateHash?: StateHash | undefined;
  },
  context?: unknown,
): Promise<SnapshotTotals> {
  const { machine } = driver;
  const { signal, streaming = false } = options;
  const header: SnapshotHeader = {
    ...options.header,
    type: machine.type,
    index,
    mark,
    ...(stateHash === undefined ? {} : { stateHash }),
  };
  const files = new SnapshotFileCollection();
  const full = header.kind === "full";
  let writer: SnapshotWriter;
  try {
    options.lost?.throwIfAborted();
    signal.throwIfAborted();
    const sink = await options.create(header);
    writer = new SnapshotWriter(sink, header, sessions, {
      streaming,
      ...(options.onLate === undefined ? {} : { onLate: options.onLate }),
    });
  } catch (error) {
    if (full) await discardContext(driver, context, error);
    throw error;
  }
  const abort = (): void => {
    const { lost } = options;
    const reason: unknown = lost?.aborted
      ? new ErrSnapshotStreaming(undefined, { cause: lost.reason })
      : signal.reason;
    // Never rejects: it swallows what the sink does.
    void writer.abort(reason);
  };
  signal.addEventListener("abort", abort);
  // It may have happened while the sink was made.
  if (signal.aborted) abort();
  try {
    try {
      if (full) {
        await machine.saveSnapshot(context, writer.payload, files, signal);
      }
    } catch (error) {
      throw judgeSave(error, files, writer, signal);
    } finally {
      writer.returned();
    }
    signal.throwIfAborted();
    if (files.failure !== undefined) throw files.failure;
    await addFiles(writer, files, options.files);
    options.check?.();
    return await writer.finish();
  } catch (error) {
    await writer.abort(error);
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Lets the machine free a context whose snapshot nobody wants any more (C5). */
async function discardContext<L>(
  driver: Driver<L>,
  context: unknown,
  reason: unknown,
): Promise<void> {
  if (driver.machine.type === RegularStateMachine) return;
  const nowhere = new WritableStream<Uint8Array>({
    start: (controller) => controller.error(reason),
  });
  const stopped = AbortSignal.abort(new ErrSnapshotStopped());
  try {
    await driver.machine.saveSnapshot(
      context,
      nowhere,
      new SnapshotFileCollection(),
      stopped,
    );
  } catch {
    // It was told to stop; however it does is fine.
  }
}

/** Tells a machine that fails from one that passes on what it was told (R7, R8, D9). */
function judgeSave(
  error: unknown,
  files: SnapshotFileCollection,
  writer: SnapshotWriter,
  signal: AbortSignal,
): unknown {
  if (files.failure !== undefined) return files.failure;
  if (
    error instanceof ErrSnapshotAborted ||
    error instanceof ErrSnapshotStopped || error instanceof ErrSnapshotStreaming
  ) return error;
  if (signal.aborted) return signal.reason;
  if (writer.sinkError !== undefined) return writer.sinkError;
  return new MachineFailure("Machine failed to save a snapshot", {
    cause: error,
  });
}

async function addFiles(
  writer: SnapshotWriter,
  collection: SnapshotFileCollection,
  files: FileStore,
): Promise<void> {
  collection.seal();
  for (const { fileID, filepath, metadata } of collection.files) {
    let content: ReadableStream<Uint8Array>;
    try {
      ({ content } = await files.open(filepath));
    } catch (cause) {
      const what = "File cannot be read";
      throw new ErrSnapshotFile(what, fileID, filepath, { cause });
    }
    await writer.addFile(fileID, metadata, content);
  }
}

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
  driver: Driver<L>,
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
): Promise<Captured & { readonly header: SnapshotHeader }> {
  const reader = await openSnapshot(source);
  const { header, sessions } = reader;
  await reader.cancel();
  return { index: header.index, mark: header.mark, sessions, header };
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
  driver: Driver<L>,
  { info, open, signal }: RecoverOptions,
  files: readonly SnapshotFile[],
): Promise<void> {
  const reader = await openSnapshot(await open());
  const { header: { clusterID, kind, index, mark }, sessions } = reader;
  try {
    if (
      clusterID !== info.clusterID || index !== info.index || kind !== "full"
    ) {
      throw new ErrSnapshotCorrupted(
        "Snapshot is not the one it is kept as",
        0,
      );
    }
    await driver.recover({ index, mark, sessions }, async (host) => {
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
