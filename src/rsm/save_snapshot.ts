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

/** Content and destination of a snapshot to save. */
export interface SaveOptions {
  /** Fields of the container's header that the state machine does not know. */
  readonly header: Omit<
    SnapshotHeader,
    "index" | "epoch" | "type" | "stateHash"
  >;
  /** Creates the stream for the container, once its header is known. */
  readonly create: (
    header: SnapshotHeader,
  ) => MaybePromise<WritableStream<Uint8Array>>;
  /** Set when the receiver is another node: failed writes are then `ErrSnapshotStreaming` (D9). @default {false} */
  readonly streaming?: boolean;
  /** Store of the machine's external files. */
  readonly files: FileStore;
  /** Called before the container is completed; throws to drop the snapshot (H12). */
  readonly check?: () => void;
  /** Called if the machine writes to its stream after its `saveSnapshot()` has ended, even after this save has resolved: the snapshot is incomplete (H16). */
  readonly onLate?: (error: ErrSnapshotUnfinished) => void;
  /** Aborts the save. */
  readonly signal: AbortSignal;
  /** Aborts, before `signal` does, when the receiver is lost: writes then fail with `ErrSnapshotStreaming` (D9). */
  readonly lost?: AbortSignal;
}

/**
 * Saves state and sessions as of one applied index. A regular machine is saved
 * under its reader lock, the other kinds while updates continue.
 *
 * @throws MachineFailure if the machine failed; anything else drops this snapshot only (R7, R8)
 */
export async function saveSnapshot<L>(
  stateMachine: StateMachine<L>,
  options: SaveOptions,
): Promise<SnapshotTotals> {
  const { guard, machine } = stateMachine;
  const { signal } = options;
  if (machine.type === RegularStateMachine) {
    return await guard.run(Op.Save, async () => {
      signal.throwIfAborted();
      const stateHash = await stateMachine.stateHash();
      return await saveState(stateMachine, options, {
        ...stateMachine.capture(),
        stateHash,
      });
    });
  }
  if (options.header.kind === "metadata") {
    // The captured index must be durable: sync and capture under one exclusion.
    const captured = await guard.run(Op.Sync, async () => {
      signal.throwIfAborted();
      await stateMachine.syncNow();
      return stateMachine.capture();
    });
    return await saveState(stateMachine, options, captured);
  }
  let saving: Promise<SnapshotTotals> | undefined;
  await guard.run(Op.Prepare, async () => {
    signal.throwIfAborted();
    if (stateMachine.behind) {
      throw new ErrSystemBusy(
        `Sessions are rebuilt up to index ${stateMachine.opened} and are at ${stateMachine.applied}; try again later`,
      );
    }
    if (machine.type === OnDiskStateMachine) await stateMachine.syncNow();
    const stateHash = await stateMachine.stateHash();
    const captured = { ...stateMachine.capture(), stateHash };
    let context: unknown;
    try {
      context = await machine.prepareSnapshot();
    } catch (cause) {
      throw new MachineFailure("Machine failed to prepare a snapshot", {
        cause,
      });
    }
    // Started under the exclusion of prepareSnapshot(), so that every context is
    // saved exactly once, and before the machine is closed (C5, R10).
    saving = guard.begin(
      Op.Save,
      () => saveState(stateMachine, options, captured, context),
    ) as Promise<SnapshotTotals>;
    saving.catch(() => {});
  });
  return await saving!;
}

/** Writes the container; `context` is the result of `prepareSnapshot()`, for the kinds that have it. */
async function saveState<L>(
  stateMachine: StateMachine<L>,
  options: SaveOptions,
  { index, epoch, sessions, stateHash }: StateMetadata & {
    readonly stateHash?: StateHash | undefined;
  },
  context?: unknown,
): Promise<SnapshotTotals> {
  const { machine } = stateMachine;
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
    if (full) await discardContext(stateMachine, context, error);
    throw error;
  }
  const abort = (): void => {
    const { lost } = options;
    const reason: unknown = lost?.aborted
      ? new ErrSnapshotStreaming(undefined, { cause: lost.reason })
      : signal.reason;
    // Never rejects: errors of the sink are ignored.
    void writer.abort(reason);
  };
  signal.addEventListener("abort", abort);
  // It may have aborted while the sink was created.
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

/** Has the machine free a context whose snapshot was dropped (C5). */
async function discardContext<L>(
  stateMachine: StateMachine<L>,
  context: unknown,
  reason: unknown,
): Promise<void> {
  if (stateMachine.machine.type === RegularStateMachine) return;
  const nowhere = new WritableStream<Uint8Array>({
    start: (controller) => controller.error(reason),
  });
  const stopped = AbortSignal.abort(new ErrSnapshotStopped());
  try {
    await stateMachine.machine.saveSnapshot(
      context,
      nowhere,
      new SnapshotFileCollection(),
      stopped,
    );
  } catch {
    // Its signal has aborted: any error is expected.
  }
}

/** Distinguishes a failure of the machine from an error that it passes on (R7, R8, D9). */
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
