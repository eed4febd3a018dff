/**
 * Machine in a worker, called by the page.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise, settleable } from "../async.ts";
import { isSameBytes } from "../bytes.ts";
import { WORKER_FORKS_MAX } from "../limits.ts";
import type {
  Forked,
  IActivation,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
  IOnDiskStateMachine,
  IRecoveredHash,
  IRemoveData,
  IStateMachine,
  IStateVersion,
} from "../statemachine/machines.ts";
import {
  ConcurrentStateMachine,
  type Entry,
  type ISnapshotFileCollection,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
  type Type,
} from "../statemachine/types.ts";
import { ErrWorkerFailed } from "./errors.ts";
import { Link, type Sent } from "./link.ts";
import {
  type Activations,
  type Advanced,
  ASKED,
  type Batch,
  type Description,
  PURE,
  type Recover,
  type Save,
  type Saved,
  type Stoppable,
  type Updated,
} from "./messages.ts";
import { commandAt, entriesOf, isResult, packResults } from "./packing.ts";
import type { SentError } from "./sent_error.ts";
import { relayedSink, relayedSource } from "./streams.ts";

/** State machine of one of the three kinds. */
export type MachineOfAnyKind =
  | IStateMachine
  | IConcurrentStateMachine
  | IOnDiskStateMachine;

/** Part of the global scope of a worker that is used here. */
interface WorkerScope {
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

type Fork = Forked<IStateMachine> | Forked<IConcurrentStateMachine>;

/** Infers the kind of a machine from its methods. */
function kindOf(machine: MachineOfAnyKind): Type {
  if (!("prepareSnapshot" in machine)) return RegularStateMachine;
  return "open" in machine && "sync" in machine
    ? OnDiskStateMachine
    : ConcurrentStateMachine;
}

/** Machine of this worker, once the page has it created. */
class ServedMachine {
  readonly link: Link;
  readonly #create: (clusterID: bigint, nodeID: bigint) => MachineOfAnyKind;
  #created: MachineOfAnyKind | undefined;
  /** Contexts of snapshots that are not saved, by number. */
  readonly #contexts = new Map<number, unknown>();
  #prepared = 0;
  /** Forks that are not closed, by number. */
  readonly #forks = new Map<number, Fork>();
  #forked = 0;
  /** Signals of calls under way, by number. */
  readonly #signals = new Map<number, AbortController>();
  /** Activations that the page knows. */
  #activations: Activations | undefined;

  constructor(
    create: (clusterID: bigint, nodeID: bigint) => MachineOfAnyKind,
    post: (message: unknown, transfer: Transferable[]) => void,
  ) {
    this.#create = create;
    this.link = new Link(post, (method, args) => this.#serve(method, args));
  }

  get #machine(): MachineOfAnyKind {
    if (this.#created === undefined) {
      throw new ErrWorkerFailed(
        "Machine was not created: the function given to `serveMachine()` has thrown",
      );
    }
    return this.#created;
  }

  #serve(method: string, args: unknown): MaybePromise<Sent> {
    const machine = (): unknown => this.#machine;
    switch (method) {
      case "describe":
        return { value: this.#describe() };
      case "create": {
        const { clusterID, nodeID } = args as {
          clusterID: bigint;
          nodeID: bigint;
        };
        this.#created = this.#create(clusterID, nodeID);
        return NOTHING;
      }
      case "open":
        return this.#open(args as Stoppable);
      case "update":
        return this.#update(args as Batch);
      case "lookup": {
        const { fork, query } = args as { fork?: number; query: unknown };
        return sent(this.#target(fork).lookup(query));
      }
      case "naLookup":
        return sent(
          (machine() as IExtended).naLookup(args as Uint8Array),
        );
      case "getHash":
        return sent((machine() as IHash).getHash());
      case "getRecoveredHash":
        return sent((machine() as IRecoveredHash).getRecoveredHash());
      case "sync":
        return sent((machine() as IOnDiskStateMachine).sync());
      case "removeData":
        return sent((machine() as IRemoveData).removeData());
      case "prepareSnapshot":
        return this.#prepare();
      case "saveSnapshot":
        return this.#save(args as Save);
      case "recoverFromSnapshot":
        return this.#recover(args as Recover);
      case "fork":
        return this.#fork();
      case "closeFork":
        return this.#closeFork(args as number);
      case "abort": {
        const { signal, reason } = args as {
          signal: number;
          reason: SentError;
        };
        this.#signals.get(signal)?.abort(this.link.errors.received(reason));
        return NOTHING;
      }
      case "close":
        return sent(this.#machine.close());
      default:
        throw new ErrWorkerFailed(`Worker does not know the call ${method}`);
    }
  }

  // ---------------------------------------------------------------- description

  /** Describes the machines, by one that is not used for anything else. */
  #describe(): Description {
    const machine = this.#create(0n, 0n);
    if (typeof machine !== "object" || machine === null) {
      throw new TypeError(
        "Function given to serveMachine() returned no machine: return one",
      );
    }
    const has = (method: string): boolean =>
      typeof (machine as unknown as Record<string, unknown>)[method] ===
        "function";
    const { changes, stateVersion = 0 } = machine as Partial<
      IActivation & IStateVersion
    >;
    return {
      type: kindOf(machine),
      methods: [...ASKED, ...PURE].filter(has),
      stateVersion,
      changes: has("activation") ? changes : undefined,
      activations: activationsOf(machine),
    };
  }

  /** Activations, if they have changed since the last answer. */
  #advanced(): Advanced {
    const now = activationsOf(this.#machine);
    if (now === undefined) return {};
    const before = this.#activations;
    const isSame = before !== undefined && now.every((cmd, i) => {
      const known = before[i];
      return cmd === undefined
        ? known === undefined
        : known !== undefined && isSameBytes(cmd, known);
    });
    if (isSame) return {};
    this.#activations = now;
    return { activations: now };
  }

  // -------------------------------------------------------------------- updates

  /** The machine, or one of its forks. */
  #target(fork: number | undefined): MachineOfAnyKind | Fork {
    if (fork === undefined) return this.#machine;
    const found = this.#forks.get(fork);
    if (found === undefined) {
      throw new TypeError(`Fork ${fork} of the machine is closed`);
    }
    return found;
  }

  #update(batch: Batch): MaybePromise<Sent> {
    const target = this.#target(batch.fork);
    const pack = (
      returned: readonly (Entry | Result)[],
      failed?: SentError,
    ): Sent => {
      const results = failed === undefined
        ? resultsIn(returned, batch)
        : returned.filter((one): one is Result => isResult(one as Result));
      const advanced = batch.fork === undefined ? this.#advanced() : {};
      // The host says what is wrong with anything else.
      if (results === undefined) {
        return { value: { returned, ...advanced } satisfies Updated };
      }
      const packed = packResults(results);
      const { values, sizes, bytes } = packed;
      return {
        value: {
          ...packed,
          ...advanced,
          ...(failed === undefined ? {} : { failed }),
        } satisfies Updated,
        transfer: [values.buffer, sizes.buffer, bytes.buffer],
      };
    };
    if (batch.indexes === undefined) {
      const results: Result[] = [];
      const failed = (error: unknown): Sent =>
        pack(results, this.link.errors.sent(error));
      try {
        const done = updateAll(target as IStateMachine, batch, results);
        return isPromise(done)
          ? done.then(() => pack(results), failed)
          : pack(results);
      } catch (error) {
        return failed(error);
      }
    }
    const entries = entriesOf(batch);
    const { update } = target as IConcurrentStateMachine;
    return chain(
      settleable(update.call(target, entries)),
      (returned) => pack(returned),
    );
  }

  // ---------------------------------------------------------------------- forks

  #fork(): MaybePromise<Sent> {
    if (this.#forks.size >= WORKER_FORKS_MAX) {
      throw new RangeError(
        `Machine has ${this.#forks.size} forks in its worker: close those that are not used`,
      );
    }
    const { fork } = this.#machine as unknown as IFork<IStateMachine>;
    return chain(settleable(fork.call(this.#machine)), (forked) => {
      const number = ++this.#forked;
      this.#forks.set(number, forked);
      return { value: number };
    });
  }

  #closeFork(number: number): MaybePromise<Sent> {
    const fork = this.#forks.get(number);
    this.#forks.delete(number);
    return sent(fork?.close?.());
  }

  // -------------------------------------------------------------- state on disk

  #open(args: Stoppable): Promise<Sent> {
    const machine = this.#machine as IOnDiskStateMachine;
    return this.#stoppable(args, async (stopped) => {
      const index = await machine.open(stopped);
      return { index, ...this.#advanced() };
    });
  }

  /** Calls with the signal of a call of the page. */
  async #stoppable(
    { signal, aborted }: Stoppable,
    call: (stopped: AbortSignal) => Promise<unknown>,
  ): Promise<Sent> {
    const controller = new AbortController();
    this.#signals.set(signal, controller);
    if (aborted !== undefined) {
      controller.abort(this.link.errors.received(aborted));
    }
    try {
      return { value: await call(controller.signal) };
    } finally {
      this.#signals.delete(signal);
    }
  }

  // ------------------------------------------------------------------ snapshots

  #prepare(): MaybePromise<Sent> {
    const machine = this.#machine as IConcurrentStateMachine;
    return chain(settleable(machine.prepareSnapshot()), (context) => {
      const number = ++this.#prepared;
      this.#contexts.set(number, context);
      return { value: number };
    });
  }

  async #save(save: Save): Promise<Sent> {
    const { stream, context: number } = save;
    const machine = this.#machine;
    const added: Promise<unknown>[] = [];
    const files: ISnapshotFileCollection = {
      addFile: (fileID, path, metadata) => {
        const adding = this.link.call(
          "addFile",
          { stream, fileID, path, metadata },
        );
        adding.catch(() => {});
        added.push(adding);
      },
    };
    const w = relayedSink(this.link, stream);
    const context = this.#contexts.get(number!);
    this.#contexts.delete(number!);
    return await this.#stoppable(save, async (stopped) => {
      if (number === undefined) {
        await (machine as IStateMachine).saveSnapshot(w, files, stopped);
      } else if (kindOf(machine) === OnDiskStateMachine) {
        const { saveSnapshot } = machine as IOnDiskStateMachine;
        await saveSnapshot.call(machine, context, w, stopped);
      } else {
        const { saveSnapshot } = machine as IConcurrentStateMachine;
        await saveSnapshot.call(machine, context, w, files, stopped);
      }
      await Promise.all(added);
      const isLocked = w.locked;
      if (!isLocked) await finish(w);
      return { isLocked } satisfies Saved;
    });
  }

  #recover(args: Recover): Promise<Sent> {
    const { stream, files } = args;
    const machine = this.#machine;
    const r = relayedSource(this.link, stream);
    return this.#stoppable(args, async (stopped) => {
      if (kindOf(machine) === OnDiskStateMachine) {
        const { recoverFromSnapshot } = machine as IOnDiskStateMachine;
        await recoverFromSnapshot.call(machine, r, stopped);
      } else {
        const { recoverFromSnapshot } = machine as IStateMachine;
        await recoverFromSnapshot.call(machine, r, files, stopped);
      }
      return this.#advanced();
    });
  }
}

const NOTHING: Sent = { value: undefined };

function sent(answer: MaybePromise<unknown>): MaybePromise<Sent> {
  return chain(settleable(answer), (value) => ({ value }));
}

/** Closes a stream that the machine has left, once all that was written to it has arrived. */
async function finish(w: WritableStream<Uint8Array>): Promise<void> {
  const writer = w.getWriter();
  try {
    await writer.close();
  } catch {
    // The machine has closed it, or it has failed, which the host knows.
    await writer.closed.catch(() => {});
  }
}

/** Activations of a machine that has changes of behaviour. */
function activationsOf(machine: MachineOfAnyKind): Activations | undefined {
  const { changes, activation } = machine as Partial<IActivation>;
  if (typeof activation !== "function" || changes === undefined) {
    return undefined;
  }
  return changes.map((change) => activation.call(machine, change));
}

/** Applies commands to a regular machine, one after the other, and adds their results. */
function updateAll(
  machine: Pick<IStateMachine, "update">,
  batch: Batch,
  results: Result[],
): MaybePromise<void> {
  const { length } = batch.ends;
  while (results.length < length) {
    const updated = settleable(
      machine.update(commandAt(batch, results.length)),
    );
    if (isPromise(updated)) {
      return updated.then((result) => {
        results.push(ownResult(result));
        return updateAll(machine, batch, results);
      });
    }
    results.push(ownResult(updated));
  }
}

/** Result in an object of its own: a machine may reuse one for all its results. */
function ownResult(result: Result): Result {
  if (!isResult(result)) return result;
  const { value, data } = result;
  return data === undefined ? { value } : { value, data };
}

/** Results of a batch, if they are as the contract wants them. */
function resultsIn(
  returned: readonly (Entry | Result)[],
  { ends, indexes }: Batch,
): readonly Result[] | undefined {
  if (!Array.isArray(returned) || returned.length !== ends.length) {
    return undefined;
  }
  const results: Result[] = [];
  for (const [i, one] of returned.entries()) {
    if (indexes !== undefined && one?.index !== indexes[i]) return undefined;
    const result = indexes === undefined ? one as Result : one.result;
    if (!isResult(result)) return undefined;
    results.push(result);
  }
  return results;
}

/**
 * Serves the machines that `create` makes to the page that has started this worker
 * with `workerMachine()`; called once, by the module of the worker.
 *
 * ```ts ignore
 * import { serveMachine } from "./mod.ts";
 * import { MyMachine } from "./my_machine.ts";
 *
 * serveMachine((clusterID, nodeID) => new MyMachine());
 * ```
 *
 * `create` is called with the ids of a replica when its machine is created, and once
 * before that with `0n` and `0n`, to find which optional methods machines have: that
 * one is not used for anything else.
 */
export function serveMachine(
  create: (clusterID: bigint, nodeID: bigint) => MachineOfAnyKind,
): void {
  const scope = globalThis as unknown as WorkerScope;
  const { link } = new ServedMachine(
    create,
    (message, transfer) => scope.postMessage(message, transfer),
  );
  scope.onmessage = ({ data }): void => link.received(data);
  // The page sends nothing before: a module that awaits would not hear it.
  link.call("ready").catch(() => {
    // The page has ended the worker.
  });
}
