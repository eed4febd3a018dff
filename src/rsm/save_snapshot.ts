/**
 * Saving a state machine, with its session table and applied index, into a
 * snapshot container.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
} from "../statemachine/errors.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { SnapshotFileCollection } from "../snapshot/snapshot_file_collection.ts";
import { SnapshotWriter } from "../snapshot/writer.ts";
import {
  ErrSnapshotFile,
  type ErrSnapshotUnfinished,
} from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type {
  SnapshotHeader,
  SnapshotTotals,
  StateHash,
} from "../snapshot/store.ts";
import { Op } from "./call_guard.ts";
import { ErrSystemBusy, MachineFailure } from "./errors.ts";
import type { StateMachine, StateMetadata } from "./state_machine.ts";

/** What is saved, how, and where to. */
export interface SaveOptions {
  /** What the container's header says beyond the index. */
  readonly header: Omit<
    SnapshotHeader,
    "index" | "epoch" | "type" | "stateHash"
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
  driver: StateMachine<L>,
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
  driver: StateMachine<L>,
  options: SaveOptions,
  { index, epoch, sessions, stateHash }: StateMetadata & {
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
    epoch,
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
      throw saveFailure(error, files, writer, signal);
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
  driver: StateMachine<L>,
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
function saveFailure(
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
