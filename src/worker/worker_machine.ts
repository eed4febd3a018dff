/**
 * Machine in a worker, as its host sees it: the interface of its kind.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort } from "../async.ts";
import { systemEnv } from "../env.ts";
import { messageOf } from "../describe.ts";
import {
  checkOptions,
  isObject,
  optional,
  type OptionChecks,
} from "../options.ts";
import type {
  Forked,
  IAdmit,
  IGroup,
  IMerge,
  IRefusal,
  IStateMachine,
} from "../statemachine/machines.ts";
import {
  type Entry,
  type ISnapshotFileCollection,
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
  type SnapshotFile,
} from "../statemachine/types.ts";
import { ErrWorkerFailed } from "./errors.ts";
import { Link, type Sent } from "./link.ts";
import {
  type Activations,
  type AddedFile,
  type Advanced,
  type Batch,
  type Description,
  PURE,
  type Saved,
  type Stoppable,
  type Updated,
} from "./messages.ts";
import { buffersOf, packCommands, resultsOf } from "./packing.ts";
import type { SentError } from "./sent_error.ts";
import type { IUpdateAll } from "../rsm/update_all.ts";
import type { MachineOfAnyKind } from "./serve_machine.ts";
import { ServedStreams } from "./streams.ts";

/** Methods of a machine that a host calls without waiting, and which are pure functions: a page has them itself. */
export type PureMethods = Partial<IRefusal & IAdmit & IMerge & IGroup>;

/** Options of {@linkcode workerMachine}. */
export interface WorkerMachineOptions {
  /**
   * Object with those of the methods `refusal()`, `admit()`, `merge()` and `group()`
   * that the machine has, such as a machine of the same class: a host calls them
   * without waiting, so that they run in its own thread.
   *
   * @default {none}
   */
  readonly pure?: PureMethods;
}

const CHECKS: OptionChecks<WorkerMachineOptions> = {
  pure: optional(isObject),
};

/** Worker that runs one machine. */
class MachineThread {
  readonly link: Link;
  readonly streams: ServedStreams;
  /** Collections of files of snapshots that are being saved, by the numbers of their streams. */
  readonly files: Map<number, ISnapshotFileCollection> = new Map();
  readonly #worker: Worker;
  /** Messages that wait until the worker is ready. */
  #waiting: [message: unknown, transfer: Transferable[]][] | undefined = [];

  /** Name of the worker in messages. */
  readonly name: string;

  constructor(start: () => Worker, name: string) {
    this.name = name;
    this.link = new Link(
      (message, transfer) => {
        if (this.#waiting === undefined) {
          this.#worker.postMessage(message, transfer);
        } else this.#waiting.push([structuredClone(message, { transfer }), []]);
      },
      (method, args) => this.#serve(method, args),
    );
    this.streams = new ServedStreams(this.link.errors);
    const worker = this.#worker = start();
    worker.onmessage = ({ data }): void => this.link.received(data);
    worker.onmessageerror = (): void => this.#fail("a message was lost");
    worker.onerror = (event): void => {
      event.preventDefault();
      const { message } = event as { readonly message?: string };
      this.#fail(message || "its module did not load");
    };
  }

  #fail(what: string): void {
    this.end(
      new ErrWorkerFailed(
        `Worker ${this.name} has failed: ${what}. Start the cluster again, which makes another worker`,
      ),
    );
  }

  #serve(method: string, args: unknown): Promise<Sent> {
    if (method === "ready") {
      const waiting = this.#waiting ?? [];
      this.#waiting = undefined;
      for (const [message, transfer] of waiting) {
        this.#worker.postMessage(message, transfer);
      }
      return Promise.resolve({ value: undefined });
    }
    if (method === "addFile") {
      const { stream, fileID, path, metadata } = args as AddedFile;
      this.files.get(stream)?.addFile(fileID, path, metadata);
      return Promise.resolve({ value: undefined });
    }
    const served = this.streams.serve(method, args);
    if (served === undefined) {
      throw new ErrWorkerFailed(`Page does not know the call ${method}`);
    }
    return served;
  }

  /** True once the worker has ended. */
  isEnded = false;

  /** Ends the worker; calls fail with the reason. */
  end(reason: unknown): void {
    this.isEnded = true;
    this.link.end(reason);
    this.#worker.terminate();
  }
}

/** Part of a machine that runs commands: the machine, or one of its forks. */
type Update = (entries: Entry[]) => Promise<Entry[]>;

/** Machine in a worker. Which methods it has depends on the machine. */
class WorkerMachine {
  readonly #thread: MachineThread;
  readonly #description: Description;
  #activations: Activations | undefined;
  #signals = 0;

  constructor(
    thread: MachineThread,
    description: Description,
    pure: PureMethods,
  ) {
    this.#thread = thread;
    this.#description = description;
    this.#activations = description.activations;
    Object.assign(this, this.#methods(), this.#optional(pure));
  }

  #call(
    method: string,
    args?: unknown,
    transfer?: Transferable[],
  ): Promise<unknown> {
    return this.#thread.link.call(method, args, transfer);
  }

  /** Methods that each machine of the kind has. */
  #methods(): object {
    const { type } = this.#description;
    const isRegular = type === RegularStateMachine;
    const common = {
      ...this.#runner(undefined),
      recoverFromSnapshot: type === OnDiskStateMachine
        ? (r: ReadableStream<Uint8Array>, stopped: AbortSignal) =>
          this.#recover(r, [], stopped)
        : this.#recover.bind(this),
      close: () => this.#close(),
    };
    if (isRegular) {
      return {
        ...common,
        saveSnapshot: (
          w: WritableStream<Uint8Array>,
          files: ISnapshotFileCollection,
          stopped: AbortSignal,
        ) => this.#save(undefined, w, files, stopped),
      };
    }
    const prepareSnapshot = (): Promise<unknown> =>
      this.#call("prepareSnapshot");
    if (type !== OnDiskStateMachine) {
      return {
        ...common,
        prepareSnapshot,
        saveSnapshot: this.#save.bind(this),
      };
    }
    return {
      ...common,
      prepareSnapshot,
      saveSnapshot: (
        context: number,
        w: WritableStream<Uint8Array>,
        stopped: AbortSignal,
      ) => this.#save(context, w, undefined, stopped),
      open: (stopped: AbortSignal) => this.#open(stopped),
      sync: () => this.#call("sync"),
    };
  }

  /** Methods that this machine has beside those. */
  #optional(pure: PureMethods): object {
    const { methods, changes, stateVersion } = this.#description;
    const calls: Record<string, unknown> = { stateVersion };
    const has = (method: string): boolean => methods.includes(method);
    for (const method of ["getHash", "getRecoveredHash", "removeData"]) {
      if (has(method)) calls[method] = () => this.#call(method);
    }
    if (has("naLookup")) {
      calls["naLookup"] = (query: Uint8Array) => this.#call("naLookup", query);
    }
    if (has("fork")) calls["fork"] = () => this.#fork();
    for (const method of PURE) {
      if (has(method)) calls[method] = pure[method]!.bind(pure);
    }
    if (changes !== undefined) {
      calls["changes"] = changes;
      calls["activation"] = (change: string): Uint8Array | undefined =>
        this.#activations?.[changes.indexOf(change)];
    }
    return calls;
  }

  // ------------------------------------------------------------ updates, lookups

  /** Methods that a machine and its forks have. */
  #runner(fork: number | undefined): object {
    const lookup = (query: unknown): Promise<unknown> =>
      this.#call("lookup", { fork, query });
    if (this.#description.type !== RegularStateMachine) {
      const update: Update = (entries) => this.#update(fork, entries);
      return { update, lookup };
    }
    const updateAll: IUpdateAll["updateAll"] = (commands, results) =>
      this.#updateAll(fork, commands, results);
    const update = async (cmd: Uint8Array): Promise<unknown> => {
      const results: Result[] = [];
      await updateAll([cmd], results);
      return results[0];
    };
    return { update, updateAll, lookup };
  }

  async #run(
    fork: number | undefined,
    commands: readonly Uint8Array[],
    indexes: Float64Array<ArrayBuffer> | undefined,
  ): Promise<Updated> {
    const packed = packCommands(commands, indexes);
    const batch: Batch = { fork, ...packed };
    const updated = await this.#call("update", batch, buffersOf(packed));
    return this.#advanced(updated as Updated);
  }

  async #update(
    fork: number | undefined,
    entries: Entry[],
  ): Promise<Entry[]> {
    const indexes = Float64Array.from(entries, ({ index }) => index);
    const commands = entries.map(({ cmd }) => cmd);
    const updated = await this.#run(fork, commands, indexes);
    if ("returned" in updated) return updated.returned as Entry[];
    for (const [i, result] of resultsOf(updated).entries()) {
      entries[i]!.result = result;
    }
    return entries;
  }

  async #updateAll(
    fork: number | undefined,
    commands: readonly Uint8Array[],
    results: Result[],
  ): Promise<void> {
    const updated = await this.#run(fork, commands, undefined);
    if ("returned" in updated) {
      results.push(...updated.returned as Result[]);
      return;
    }
    results.push(...resultsOf(updated));
    if (updated.failed !== undefined) {
      throw this.#thread.link.errors.received(updated.failed);
    }
  }

  #advanced<T extends Advanced>(advanced: T): T {
    this.#activations = advanced.activations ?? this.#activations;
    return advanced;
  }

  async #fork(): Promise<object> {
    const fork = await this.#call("fork") as number;
    const close: Forked<IStateMachine>["close"] = async () => {
      await this.#call("closeFork", fork);
    };
    return { ...this.#runner(fork), close };
  }

  // --------------------------------------------------------- calls with a signal

  /** Makes a call that the signal stops. */
  async #stoppable<T>(
    method: string,
    args: object,
    stopped: AbortSignal,
  ): Promise<T> {
    const signal = ++this.#signals;
    const { errors } = this.#thread.link;
    const aborted: SentError | undefined = stopped.aborted
      ? errors.sent(stopped.reason)
      : undefined;
    const given: Stoppable = { signal, aborted };
    const ignore = stopped.aborted ? undefined : onAbort(stopped, (reason) => {
      const told = this.#call("abort", { signal, reason: errors.sent(reason) });
      told.catch(() => {});
    });
    try {
      return await this.#call(method, { ...args, ...given }) as T;
    } finally {
      ignore?.();
    }
  }

  async #open(stopped: AbortSignal): Promise<number> {
    const opened = await this.#stoppable<
      Advanced & { readonly index: number }
    >("open", {}, stopped);
    return this.#advanced(opened).index;
  }

  async #save(
    context: number | undefined,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection | undefined,
    stopped: AbortSignal,
  ): Promise<void> {
    const { streams, files: all } = this.#thread;
    const stream = streams.write(w);
    if (files !== undefined) all.set(stream, files);
    let isLocked = false;
    try {
      ({ isLocked } = await this.#stoppable<Saved>(
        "saveSnapshot",
        { context, stream },
        stopped,
      ));
    } finally {
      all.delete(stream);
      streams.release(stream, isLocked);
    }
  }

  async #recover(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): Promise<void> {
    const { streams } = this.#thread;
    const stream = streams.read(r);
    try {
      const recovered = await this.#stoppable<Advanced>(
        "recoverFromSnapshot",
        {
          stream,
          files: files.map(({ fileID, filepath, metadata }) => ({
            fileID,
            filepath,
            metadata,
          })),
        },
        stopped,
      );
      this.#advanced(recovered);
    } finally {
      streams.release(stream, false);
    }
  }

  async #close(): Promise<void> {
    if (this.#thread.isEnded) return;
    try {
      await this.#call("close");
    } finally {
      this.#thread.end(
        new ErrWorkerFailed(
          `Worker ${this.#thread.name} has ended: its machine is closed`,
        ),
      );
    }
  }
}

/** Checks that the page has the methods that a host calls without waiting. */
function checkPure(
  name: string,
  { methods }: Description,
  pure: PureMethods,
): void {
  const missing = PURE.filter((method) =>
    methods.includes(method) && typeof pure[method] !== "function"
  );
  if (missing.length === 0) return;
  const list = missing.map((method) => `${method}()`).join(", ");
  throw new TypeError(
    `Machine in worker ${name} has ${list}, which a host calls without waiting: give workerMachine() the option pure, an object with the same methods`,
  );
}

/**
 * Starts a worker that serves machines, and resolves with a factory for
 * `startCluster()`, `startConcurrentCluster()` or `startOnDiskCluster()`, by the kind
 * of the machines. Each machine runs in a worker of its own, which ends when the
 * machine is closed: updates take no time of the page's thread, and cross to the
 * worker in batches.
 *
 * ```ts ignore
 * const create = await workerMachine<IStateMachine>(
 *   new URL("./machine.ts", import.meta.url),
 * );
 * const replica = await host.startCluster(create, { clusterID: 1n, nodeID: 1n });
 * ```
 *
 * The module calls `serveMachine()`. With a bundler, give a function that creates the
 * worker in the form that it knows, such as
 * `() => new Worker(new URL("./machine.ts", import.meta.url), { type: "module" })`.
 * Queries and answers are cloned as by `structuredClone()`. Errors of the machine keep
 * class name, message and stack.
 *
 * A machine on disk that stores the host's rows (`updateWithHost()`) is called
 * without them: the results of its sessions are rebuilt from the log.
 *
 * @throws ErrWorkerFailed if the module does not load, or throws
 * @throws TypeError if a method that a host calls without waiting is missing in `pure`
 */
export async function workerMachine<
  M extends MachineOfAnyKind = IStateMachine,
>(
  module: string | URL | (() => Worker),
  options: WorkerMachineOptions = {},
): Promise<(clusterID: bigint, nodeID: bigint) => M> {
  checkOptions("Options of workerMachine()", options, CHECKS);
  const { pure = {} } = options;
  const name = typeof module === "function" ? "of the page" : `${module}`;
  const start = typeof module === "function"
    ? module
    : (): Worker => new Worker(module, { type: "module" });
  // Serves the first machine.
  let spare: MachineThread | undefined = new MachineThread(start, name);
  let description: Description;
  try {
    description = await spare.link.call("describe") as Description;
    checkPure(name, description, pure);
    // The start of a host gets a task of its own.
    await systemEnv.turn();
  } catch (error) {
    spare.end(error);
    throw error;
  }
  return (clusterID, nodeID) => {
    const thread = spare ?? new MachineThread(start, name);
    spare = undefined;
    thread.link.call("create", { clusterID, nodeID }).catch((error) =>
      thread.end(
        new ErrWorkerFailed(
          `Machine of worker ${name} was not created: ${messageOf(error)}`,
          { cause: error },
        ),
      )
    );
    return new WorkerMachine(thread, description, pure) as unknown as M;
  };
}
