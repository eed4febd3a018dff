/**
 * One face for the three kinds of machine, so that what is asked of all of them
 * is written once.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  IConcurrentStateMachine,
  IExtended,
  IHash,
  IOnDiskStateMachine,
  IStateMachine,
} from "../statemachine/machines.ts";
import {
  ConcurrentStateMachine,
  type Entry,
  type ISnapshotFileCollection,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type SnapshotFile,
  type Type,
} from "../statemachine/types.ts";

/** A machine of any kind, as it is: nothing it returns is checked here. */
export interface Subject {
  readonly type: Type;
  /** The machine, to tell one instance from another. */
  readonly machine: object;
  /** As in the contract. A regular machine is given one entry at a time. */
  update(entries: Entry[]): MaybePromise<unknown>;
  lookup(query: unknown): MaybePromise<unknown>;
  prepareSnapshot(): MaybePromise<unknown>;
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): MaybePromise<void>;
  close(): MaybePromise<void>;
  /** 0 for a machine in memory. */
  open(stopped: AbortSignal): MaybePromise<number>;
  /** Nothing for a machine in memory. */
  sync(): MaybePromise<void>;
  readonly getHash: (() => MaybePromise<unknown>) | undefined;
  readonly naLookup: ((query: Uint8Array) => MaybePromise<unknown>) | undefined;
}

type AnyMachine = IStateMachine | IConcurrentStateMachine | IOnDiskStateMachine;

function common(
  machine: AnyMachine,
): Pick<
  Subject,
  "machine" | "lookup" | "close" | "open" | "sync" | "getHash" | "naLookup"
> {
  const { getHash, naLookup } = machine as Partial<IHash & IExtended>;
  return {
    machine,
    lookup: (query) => machine.lookup(query),
    close: () => machine.close(),
    open: () => 0,
    sync: () => {},
    getHash: getHash?.bind(machine),
    naLookup: naLookup?.bind(machine),
  };
}

/** The face of a regular machine. */
export function regular(machine: IStateMachine): Subject {
  const answer = (entry: Entry, result: unknown): unknown => [
    { index: entry.index, result },
  ];
  return {
    ...common(machine),
    type: RegularStateMachine,
    update([entry]): MaybePromise<unknown> {
      const result = machine.update((entry as Entry).cmd) as unknown;
      return result instanceof Promise
        ? result.then((result) => answer(entry as Entry, result))
        : answer(entry as Entry, result);
    },
    prepareSnapshot: () => undefined,
    saveSnapshot: (_context, w, files, stopped) =>
      machine.saveSnapshot(w, files, stopped),
    recoverFromSnapshot: (r, files, stopped) =>
      machine.recoverFromSnapshot(r, files, stopped),
  };
}

/** The face of a concurrent machine. */
export function concurrent(machine: IConcurrentStateMachine): Subject {
  return {
    ...common(machine),
    type: ConcurrentStateMachine,
    update: (entries) => machine.update(entries),
    prepareSnapshot: () => machine.prepareSnapshot(),
    saveSnapshot: (context, w, files, stopped) =>
      machine.saveSnapshot(context, w, files, stopped),
    recoverFromSnapshot: (r, files, stopped) =>
      machine.recoverFromSnapshot(r, files, stopped),
  };
}

/** The face of an on-disk machine. */
export function onDisk(machine: IOnDiskStateMachine): Subject {
  return {
    ...common(machine),
    type: OnDiskStateMachine,
    open: (stopped) => machine.open(stopped),
    sync: () => machine.sync(),
    update: (entries) => machine.update(entries),
    prepareSnapshot: () => machine.prepareSnapshot(),
    saveSnapshot: (context, w, _files, stopped) =>
      machine.saveSnapshot(context, w, stopped),
    recoverFromSnapshot: (r, _files, stopped) =>
      machine.recoverFromSnapshot(r, stopped),
  };
}
