/**
 * One face for the three kinds of machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
  IOnDiskStateMachine,
  IRecoveredHash,
  IRefusal,
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
  type SnapshotFile,
  type Type,
} from "../statemachine/types.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import { isU64 } from "../bytes.ts";
import { describe as describeValue } from "../describe.ts";
import { ErrInvalidResult } from "./errors.ts";
import { chain, isPromise, settleable } from "../async.ts";
import { type HostState, type IHostState, isHostState } from "./host_state.ts";

/** A function that makes machines, and the kind of machine it makes. */
export type MachineFactory =
  | { readonly type: 1; readonly create: CreateStateMachineFunc }
  | { readonly type: 2; readonly create: CreateConcurrentStateMachineFunc }
  | { readonly type: 3; readonly create: CreateOnDiskStateMachineFunc };

/** A machine of any kind, its results checked, the parts it does not have answered for. */
export interface ManagedMachine {
  /** The kind of machine. */
  readonly type: Type;
  /** The part that keeps the host's rows, if the machine has it. */
  readonly hostState: IHostState | undefined;
  /** Whether the machine has `getHash()`. */
  readonly hasHash: boolean;
  /** `IRefusal.refusal()` of the machine, its answer checked; undefined without it. */
  readonly refusal: ((result: Result) => string | undefined) | undefined;
  /** `IStateVersion.stateVersion` of the machine; 0 without it. */
  readonly stateVersion: number;
  /** As `IFork.fork()`, if the machine has it. */
  readonly fork: (() => MaybePromise<ManagedFork>) | undefined;
  /** As `IOnDiskStateMachine.open()`; 0 for a machine in memory. */
  open(stopped: AbortSignal): MaybePromise<number>;
  /** Applies entries and leaves the result on each. `host` is for a machine that keeps the host's rows. */
  update(entries: Entry[], host: () => HostState): MaybePromise<void>;
  /** As in the contract. */
  lookup(query: unknown): MaybePromise<unknown>;
  /** As in the contract; `ErrNotImplemented` without it. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array>;
  /** As in the contract, its range checked; `ErrNotImplemented` without it. */
  getHash(): MaybePromise<bigint>;
  /** Calls `IRecoveredHash.getRecoveredHash()` and checks the range of its answer; undefined without it. */
  getRecoveredHash(): MaybePromise<bigint | undefined>;
  /** As in the contract; nothing to do for a machine in memory. */
  sync(): MaybePromise<void>;
  /** As in the contract; nothing to do for a regular machine. */
  prepareSnapshot(): MaybePromise<unknown>;
  /** As in the contract, of all kinds the most arguments. */
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** As in the contract, of all kinds the most arguments. */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    host: HostState,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** As in the contract. */
  close(): MaybePromise<void>;
}

/** A fork with the same face, as far as it goes. */
export type ManagedFork = Pick<ManagedMachine, "update" | "lookup" | "close">;

/** Requirements of each kind of machine: the name of the kind, the method of a host that starts it, the methods it needs. */
const FORMS = {
  [RegularStateMachine]: {
    kind: "regular",
    start: "startCluster",
    methods: [
      "update",
      "lookup",
      "saveSnapshot",
      "recoverFromSnapshot",
      "close",
    ],
  },
  [ConcurrentStateMachine]: {
    kind: "concurrent",
    start: "startConcurrentCluster",
    methods: [
      "update",
      "lookup",
      "prepareSnapshot",
      "saveSnapshot",
      "recoverFromSnapshot",
      "close",
    ],
  },
  [OnDiskStateMachine]: {
    kind: "on-disk",
    start: "startOnDiskCluster",
    methods: [
      "open",
      "update",
      "lookup",
      "sync",
      "prepareSnapshot",
      "saveSnapshot",
      "recoverFromSnapshot",
      "close",
    ],
  },
} as const;

/** The kind a machine seems to be, by the methods it has. */
function kindOf(machine: Readonly<Record<string, unknown>>): Type {
  const has = (method: string): boolean =>
    typeof machine[method] === "function";
  if (!has("prepareSnapshot")) return RegularStateMachine;
  return has("open") && has("sync")
    ? OnDiskStateMachine
    : ConcurrentStateMachine;
}

/** Checks what a factory has made (R14). */
function checkMachine(type: Type, machine: unknown): void {
  const { kind, methods } = FORMS[type];
  const made = (what: string): TypeError =>
    new TypeError(`Factory of a ${kind} machine gave ${what}`);
  if (typeof machine === "function") {
    throw made("a function or class; write () => new Machine()");
  }
  if (typeof machine !== "object" || machine === null) {
    throw made(`${describeValue(machine)}; return a machine`);
  }
  if (isPromise(machine as MaybePromise<unknown>)) {
    throw made(
      "a promise; make the machine synchronously, and wait before the start or, for one on disk, in its open()",
    );
  }
  const form = machine as Readonly<Record<string, unknown>>;
  const found = kindOf(form);
  if (found > type && typeof form["update"] === "function") {
    const right = FORMS[found];
    throw made(
      `a machine with prepareSnapshot(), which is a ${right.kind} one; start it with ${right.start}()`,
    );
  }
  for (const method of methods) {
    if (typeof form[method] === "function") continue;
    throw new TypeError(
      `${describe(machine, method)} is missing: a ${kind} machine must have ${
        methods.map((name) => `${name}()`).join(", ")
      }`,
    );
  }
}

/** Refuses a factory that is no function, or is a class: calling that throws. */
export function checkFactory({ type, create }: MachineFactory): void {
  const { start } = FORMS[type];
  if (typeof create !== "function") {
    throw new TypeError(
      `${start}() was given ${
        describeValue(create)
      }; give a function that makes a machine, as () => new Machine()`,
    );
  }
  if (/^class\b/.test(Function.prototype.toString.call(create))) {
    throw new TypeError(
      `${start}() was given the class ${
        (create as { readonly name: string }).name || "itself"
      }; give a function that makes a machine, as () => new ${
        (create as { readonly name: string }).name || "Machine"
      }()`,
    );
  }
}

/**
 * The factory with its first machine made and checked already, so that a wrong
 * one is found before anything is logged (R14).
 *
 * @throws TypeError if what it makes is no machine of that kind
 */
export function tryFactory(
  factory: MachineFactory,
  clusterID: bigint,
  nodeID: bigint,
): MachineFactory {
  const { type } = factory;
  const first: unknown[] = [factory.create(clusterID, nodeID)];
  checkMachine(type, first[0]);
  const create = (clusterID: bigint, nodeID: bigint): unknown => {
    if (first.length > 0) return first.pop();
    const machine: unknown = factory.create(clusterID, nodeID);
    checkMachine(type, machine);
    return machine;
  };
  return { type, create } as MachineFactory;
}

/** Makes a machine and gives it the face above. */
export function manage(
  factory: MachineFactory,
  clusterID: bigint,
  nodeID: bigint,
): ManagedMachine {
  switch (factory.type) {
    case RegularStateMachine:
      return manageRegular(factory.create(clusterID, nodeID));
    case ConcurrentStateMachine:
      return manageConcurrent(factory.create(clusterID, nodeID));
    case OnDiskStateMachine:
      return manageOnDisk(factory.create(clusterID, nodeID));
  }
}

function describe(machine: object, method: string): string {
  return `${machine.constructor?.name || "Machine"}.${method}()`;
}

function checkResult(machine: object, result: Result): void {
  const value = result?.value;
  if (typeof value !== "bigint") {
    throw new ErrInvalidResult(
      `${describe(machine, "update")} left an entry without a result`,
    );
  }
  if (!isU64(value)) {
    throw new RangeError(
      `${describe(machine, "update")} gave ${value}, outside of 0…2^64-1`,
    );
  }
  if (result.data !== undefined && !(result.data instanceof Uint8Array)) {
    throw new ErrInvalidResult(
      `${describe(machine, "update")} gave data that is no Uint8Array`,
    );
  }
}

/** What all kinds have in common, and what a machine in memory does not have. */
function manageCommon<
  M extends IStateMachine | IConcurrentStateMachine | IOnDiskStateMachine,
>(
  machine: M,
  manage: (machine: M) => ManagedMachine,
): Pick<
  ManagedMachine,
  | "hostState"
  | "hasHash"
  | "refusal"
  | "stateVersion"
  | "fork"
  | "open"
  | "lookup"
  | "naLookup"
  | "getHash"
  | "getRecoveredHash"
  | "sync"
  | "close"
> {
  const { getHash } = machine as Partial<IHash>;
  const { getRecoveredHash } = machine as Partial<IRecoveredHash>;
  const { naLookup } = machine as Partial<IExtended>;
  const checkHash = (hash: bigint, method = "getHash"): bigint => {
    if (typeof hash === "bigint" && isU64(hash)) return hash;
    throw new RangeError(
      `${describe(machine, method)} gave ${hash}, outside of 0…2^64-1`,
    );
  };
  return {
    hostState: undefined,
    hasHash: typeof getHash === "function",
    refusal: refusalOf(machine),
    stateVersion: stateVersionOf(machine),
    fork: forkOf(machine, manage),
    open: () => 0,
    lookup: (query) => machine.lookup(query),
    naLookup(query): MaybePromise<Uint8Array> {
      if (typeof naLookup !== "function") throw new ErrNotImplemented();
      return naLookup.call(machine, query);
    },
    getHash(): MaybePromise<bigint> {
      if (typeof getHash !== "function") throw new ErrNotImplemented();
      const hash = settleable(getHash.call(machine));
      return chain(hash, (hash) => checkHash(hash));
    },
    getRecoveredHash(): MaybePromise<bigint | undefined> {
      if (typeof getRecoveredHash !== "function") return undefined;
      return chain(
        settleable(getRecoveredHash.call(machine)),
        (hash) =>
          hash === undefined ? undefined : checkHash(hash, "getRecoveredHash"),
      );
    },
    sync: () => {},
    close: () => machine.close(),
  };
}

function refusalOf(
  machine: object,
): ((result: Result) => string | undefined) | undefined {
  const { refusal } = machine as Partial<IRefusal>;
  if (typeof refusal !== "function") return undefined;
  return (result) => {
    const reason: unknown = refusal.call(machine, result);
    if (reason === undefined || typeof reason === "string") return reason;
    throw new ErrInvalidResult(
      `${describe(machine, "refusal")} gave ${typeof reason}, not a reason`,
    );
  };
}

function stateVersionOf(machine: object): number {
  const { stateVersion = 0 } = machine as Partial<IStateVersion>;
  if (Number.isSafeInteger(stateVersion) && stateVersion >= 0) {
    return stateVersion;
  }
  throw new RangeError(
    `${
      describe(machine, "stateVersion").slice(0, -2)
    } is ${stateVersion}; it must be a safe integer from 0 on`,
  );
}

function forkOf<
  M extends IStateMachine | IConcurrentStateMachine | IOnDiskStateMachine,
>(
  machine: M,
  manage: (machine: M) => ManagedMachine,
): (() => MaybePromise<ManagedFork>) | undefined {
  const { fork } = machine as Partial<IFork<M>>;
  if (typeof fork !== "function") return undefined;
  return () =>
    chain(settleable(fork.call(machine)), (forked) => {
      const { update: apply, lookup: answer } = Object(forked) as Partial<M>;
      if (typeof apply !== "function" || typeof answer !== "function") {
        throw new TypeError(
          `${describe(machine, "fork")} answered with ${
            describeValue(forked)
          }; a fork has update() and lookup()`,
        );
      }
      // What a fork does not have is not asked of it.
      const { update, lookup } = manage(forked as unknown as M);
      return { update, lookup, close: () => forked.close?.() };
    });
}

function manageRegular(machine: IStateMachine): ManagedMachine {
  const accept = (entry: Entry, result: Result): void => {
    checkResult(machine, result);
    // A copy: a machine may use one object for all its results.
    const { value, data } = result;
    entry.result = data === undefined ? { value } : { value, data };
  };
  const updateFrom = (entries: Entry[], from: number): MaybePromise<void> => {
    for (let i = from; i < entries.length; i++) {
      const entry = entries[i]!;
      const result = settleable(machine.update(entry.cmd));
      if (isPromise(result)) {
        return result.then((result) => {
          accept(entry, result);
          return updateFrom(entries, i + 1);
        });
      }
      accept(entry, result);
    }
  };
  return {
    ...manageCommon(machine, manageRegular),
    type: RegularStateMachine,
    update: (entries) => updateFrom(entries, 0),
    prepareSnapshot: () => undefined,
    saveSnapshot: (_context, w, files, stopped) =>
      machine.saveSnapshot(w, files, stopped),
    recoverFromSnapshot: (r, files, _host, stopped) =>
      machine.recoverFromSnapshot(r, files, stopped),
  };
}

/** Has the host's rows stored in the same step, and makes sure that they were. */
function updateWithHost(
  machine: object,
  hostState: IHostState,
  entries: readonly Entry[],
  given: Entry[],
  host: () => HostState,
): MaybePromise<Entry[]> {
  let calls = 0;
  const once = (): HostState => {
    calls++;
    // Before a second answer, which lacks what the first one told, is stored.
    if (calls > 1) throw wrong();
    for (const entry of entries) checkResult(machine, entry.result!);
    return host();
  };
  const wrong = (): ErrInvalidResult =>
    new ErrInvalidResult(
      `${
        describe(machine, "updateWithHost")
      } asked ${calls} times for the host's rows`,
    );
  const check = (returned: Entry[]): Entry[] => {
    if (calls === 1) return returned;
    throw wrong();
  };
  const returned = settleable(hostState.updateWithHost(given, once));
  return isPromise(returned) ? returned.then(check) : check(returned);
}

/** Hands a batch over and takes the same one back (C1). */
function updateBatch(
  machine: object,
  entries: Entry[],
  update: (entries: Entry[]) => MaybePromise<Entry[]>,
): MaybePromise<void> {
  const length = entries.length;
  const indexes: number[] = new Array(length);
  for (let i = 0; i < length; i++) indexes[i] = entries[i]!.index;
  // The machine gets an array of its own to return, so that it cannot hold on
  // to, or change, the one the results are read from.
  const given = entries.slice();
  const check = (returned: Entry[]): void => {
    if (!Array.isArray(returned) || returned.length !== length) {
      throw new ErrInvalidResult(
        `${describe(machine, "update")} got ${length} entries and returned ${
          Array.isArray(returned) ? returned.length : typeof returned
        }`,
      );
    }
    for (let i = 0; i < length; i++) {
      const entry = returned[i]!;
      if (entry?.index !== indexes[i]) {
        throw new ErrInvalidResult(
          `${describe(machine, "update")} returned entry ${entry?.index} for ${
            indexes[i]
          }`,
        );
      }
      checkResult(machine, entry.result!);
      if (entry !== entries[i]) entries[i]!.result = entry.result;
    }
  };
  const returned = settleable(update(given));
  return isPromise(returned) ? returned.then(check) : check(returned);
}

function manageConcurrent(machine: IConcurrentStateMachine): ManagedMachine {
  return {
    ...manageCommon(machine, manageConcurrent),
    type: ConcurrentStateMachine,
    update: (entries) =>
      updateBatch(machine, entries, (entries) => machine.update(entries)),
    prepareSnapshot: () => machine.prepareSnapshot(),
    saveSnapshot: (context, w, files, stopped) =>
      machine.saveSnapshot(context, w, files, stopped),
    recoverFromSnapshot: (r, files, _host, stopped) =>
      machine.recoverFromSnapshot(r, files, stopped),
  };
}

function manageOnDisk(machine: IOnDiskStateMachine): ManagedMachine {
  const hostState = isHostState(machine) ? machine : undefined;
  const checkIndex = (index: number): number => {
    if (Number.isSafeInteger(index) && index >= 0) return index;
    throw new RangeError(
      `${describe(machine, "open")} gave ${index}, which is no log index`,
    );
  };
  return {
    ...manageCommon(machine, manageOnDisk),
    type: OnDiskStateMachine,
    hostState,
    open(stopped): MaybePromise<number> {
      const index = settleable(machine.open(stopped));
      return isPromise(index) ? index.then(checkIndex) : checkIndex(index);
    },
    update: (entries, host) =>
      updateBatch(
        machine,
        entries,
        (given) =>
          hostState === undefined
            ? machine.update(given)
            : updateWithHost(machine, hostState, entries, given, host),
      ),
    sync: () => machine.sync(),
    prepareSnapshot: () => machine.prepareSnapshot(),
    saveSnapshot: (context, w, _files, stopped) =>
      machine.saveSnapshot(context, w, stopped),
    recoverFromSnapshot: (r, _files, host, stopped) =>
      hostState !== undefined
        ? hostState.recoverWithHost(r, host, stopped)
        : machine.recoverFromSnapshot(r, stopped),
  };
}
