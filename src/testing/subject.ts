/**
 * Adapters that give the three kinds of machine one interface for the suite,
 * without checks.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  IConcurrentStateMachine,
  IExtended,
  IHash,
  IMerge,
  IOnDiskStateMachine,
  IRefusal,
  IStateMachine,
} from "../statemachine/machines.ts";
import { type IHostState, isHostState } from "../rsm/host_state.ts";
import {
  ConcurrentStateMachine,
  type Entry,
  type ISnapshotFileCollection,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
  type SnapshotFile,
  type Type,
} from "../statemachine/types.ts";

/** Machine of any kind; return values are not checked. */
export interface Subject {
  readonly type: Type;
  /** Identity of the instance. */
  readonly machine: object;
  /** Applies entries; a regular machine gets one entry at a time. */
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
  /** Opens an on-disk machine; returns 0 for a machine in memory. */
  open(stopped: AbortSignal): MaybePromise<number>;
  /** Syncs an on-disk machine; does nothing for a machine in memory. */
  sync(): MaybePromise<void>;
  readonly getHash: (() => MaybePromise<unknown>) | undefined;
  readonly naLookup: ((query: Uint8Array) => MaybePromise<unknown>) | undefined;
  readonly refusal: ((result: Result) => unknown) | undefined;
  readonly merge:
    | ((first: Uint8Array, second: Uint8Array) => unknown)
    | undefined;
}

type AnyMachine = IStateMachine | IConcurrentStateMachine | IOnDiskStateMachine;

function common(
  machine: AnyMachine,
): Pick<
  Subject,
  | "machine"
  | "lookup"
  | "close"
  | "open"
  | "sync"
  | "getHash"
  | "naLookup"
  | "refusal"
  | "merge"
> {
  const { getHash, naLookup, refusal, merge } = machine as Partial<
    IHash & IExtended & IRefusal & IMerge
  >;
  return {
    machine,
    lookup: (query) => machine.lookup(query),
    close: () => machine.close(),
    open: () => 0,
    sync: () => {},
    getHash: getHash?.bind(machine),
    naLookup: naLookup?.bind(machine),
    refusal: refusal?.bind(machine),
    merge: merge?.bind(machine),
  };
}

/** Adapts a regular machine. */
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

/** Adapts a concurrent machine. */
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

/** Adapts an on-disk machine. */
export function onDisk(machine: IOnDiskStateMachine): Subject {
  if (isHostState(machine)) return keepingHostState(machine);
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

/**
 * Adapts an on-disk machine that stores the host's rows. The index, which a
 * host's container has beside the payload, is put before the payload.
 */
function keepingHostState(machine: IOnDiskStateMachine & IHostState): Subject {
  let index = 0;
  return {
    ...common(machine),
    type: OnDiskStateMachine,
    async open(stopped): Promise<number> {
      return index = await machine.open(stopped);
    },
    sync: () => machine.sync(),
    update(entries): MaybePromise<unknown> {
      const last = entries.at(-1)?.index ?? index;
      return machine.updateWithHost(entries, () => {
        return { index: index = last, rows: [] };
      });
    },
    prepareSnapshot(): MaybePromise<unknown> {
      const context = machine.prepareSnapshot();
      const of = index;
      return context instanceof Promise
        ? context.then((context) => ({ context, index: of }))
        : { context, index: of };
    },
    async saveSnapshot(marked, w, _files, stopped): Promise<void> {
      const { context, index } = marked as { context: unknown; index: number };
      const head = new Uint8Array(8);
      new DataView(head.buffer).setFloat64(0, index);
      const writer = w.getWriter();
      // If the sink fails, the machine's own writes fail too.
      await writer.write(head).catch(() => {});
      writer.releaseLock();
      await machine.saveSnapshot(context, w, stopped);
    },
    async recoverFromSnapshot(r, _files, stopped): Promise<void> {
      const reader = r.getReader();
      let head = new Uint8Array();
      while (head.length < 8) {
        const { value, done } = await reader.read();
        if (done) {
          throw new Error(`Snapshot ends within the index before its payload`);
        }
        head = new Uint8Array([...head, ...value]);
      }
      const of = new DataView(head.buffer).getFloat64(0);
      const rest = new ReadableStream<Uint8Array>({
        start: (controller) => controller.enqueue(head.subarray(8)),
        async pull(controller): Promise<void> {
          const { value, done } = await reader.read();
          if (done) controller.close();
          else controller.enqueue(value);
        },
      }, { highWaterMark: 0 });
      await machine.recoverWithHost(rest, { index: of, rows: [] }, stopped);
      index = of;
    },
  };
}
