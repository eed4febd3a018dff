/**
 * Adapters that give the three kinds of machine one interface, and check what the
 * machines return.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
  IActivation,
  IAdmit,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IGroup,
  IHash,
  IMerge,
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
import type { IUpdateAll } from "./update_all.ts";

/** Factory function of machines, with the kind of machine it makes. */
export type MachineFactory =
  | { readonly type: 1; readonly create: CreateStateMachineFunc }
  | { readonly type: 2; readonly create: CreateConcurrentStateMachineFunc }
  | { readonly type: 3; readonly create: CreateOnDiskStateMachineFunc };

/** Machine of any kind: optional methods have a default, and return values are checked. */
export interface ManagedMachine {
  /** Kind of the machine. */
  readonly type: Type;
  /** Methods that store the host's rows; undefined if the machine lacks them. */
  readonly hostState: IHostState | undefined;
  /** True if the machine has `getHash()`. */
  readonly hasHash: boolean;
  /** Calls `IRefusal.refusal()` and checks its answer; undefined if the machine lacks it. */
  readonly refusal: ((result: Result) => string | undefined) | undefined;
  /** Calls `IAdmit.admit()`; undefined if the machine lacks it. */
  readonly admit: IAdmit["admit"] | undefined;
  /** Calls `IMerge.merge()` and checks its answer; undefined if the machine lacks it. */
  readonly merge: IMerge["merge"] | undefined;
  /** Calls `IGroup.group()`; undefined if the machine lacks it. */
  readonly group: IGroup["group"] | undefined;
  /** Changes of behaviour of the machine; undefined if it has none. */
  readonly activation: IActivation | undefined;
  /** Value of `IStateVersion.stateVersion`; 0 if the machine lacks it. */
  readonly stateVersion: number;
  /** Calls `IFork.fork()`; undefined if the machine lacks it. */
  readonly fork: (() => MaybePromise<ManagedFork>) | undefined;
  /** Opens an on-disk machine; returns 0 for a machine in memory. */
  open(stopped: AbortSignal): MaybePromise<number>;
  /** Applies entries and sets the result of each. `host` is for a machine that stores the host's rows. */
  update(entries: Entry[], host: () => HostState): MaybePromise<void>;
  /** Queries the state. */
  lookup(query: unknown): MaybePromise<unknown>;
  /** Queries the state with bytes; throws `ErrNotImplemented` if the machine lacks it. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array>;
  /** Computes the state hash and checks its range; throws `ErrNotImplemented` if the machine lacks it. */
  getHash(): MaybePromise<bigint>;
  /** Calls `IRecoveredHash.getRecoveredHash()` and checks the range of its answer; undefined if the machine lacks it. */
  getRecoveredHash(): MaybePromise<bigint | undefined>;
  /** Makes applied entries durable; does nothing for a machine in memory. */
  sync(): MaybePromise<void>;
  /** Prepares a snapshot; does nothing for a regular machine. */
  prepareSnapshot(): MaybePromise<unknown>;
  /** Saves a snapshot; takes the arguments of every kind. */
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** Recovers from a snapshot; takes the arguments of every kind. */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    host: HostState,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** Closes the machine. */
  close(): MaybePromise<void>;
}

/** Fork of a machine, behind the same interface. */
export type ManagedFork = Pick<ManagedMachine, "update" | "lookup" | "close">;

/** Name of a kind of machine, the host's method that starts it, and the methods it must have. */
interface Requirements {
  readonly kind: string;
  readonly start: string;
  readonly methods: readonly string[];
}

/** Returns the requirements of a kind of machine. */
function requirementsOf(type: Type): Requirements {
  const kinds: Readonly<Record<Type, Requirements>> = {
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
  };
  return kinds[type];
}

/** Infers the kind of a machine from its methods. */
function kindOf(machine: Readonly<Record<string, unknown>>): Type {
  const has = (method: string): boolean =>
    typeof machine[method] === "function";
  if (!has("prepareSnapshot")) return RegularStateMachine;
  return has("open") && has("sync")
    ? OnDiskStateMachine
    : ConcurrentStateMachine;
}

/** Checks that a factory made a machine of its kind (R14). */
function checkMachine(type: Type, machine: unknown): void {
  const { kind, methods } = requirementsOf(type);
  const made = (what: string): TypeError =>
    new TypeError(`Factory of a ${kind} machine returned ${what}`);
  if (typeof machine === "function") {
    throw made("a function or class; write () => new Machine()");
  }
  if (typeof machine !== "object" || machine === null) {
    throw made(`${describeValue(machine)}; return a machine`);
  }
  if (isPromise(machine as MaybePromise<unknown>)) {
    throw made(
      "a promise; create the machine synchronously, and await before the start or, for an on-disk machine, in open()",
    );
  }
  const form = machine as Readonly<Record<string, unknown>>;
  const found = kindOf(form);
  if (found > type && typeof form["update"] === "function") {
    const actual = requirementsOf(found);
    throw made(
      `a machine with prepareSnapshot(), which is a ${actual.kind} one; start it with ${actual.start}()`,
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

/**
 * Checks that a factory is a function and not a class, which cannot be called.
 *
 * @throws TypeError if it is neither
 */
export function checkFactory({ type, create }: MachineFactory): void {
  const isFunction = typeof create === "function";
  const isClass = isFunction &&
    /^class\b/.test(Function.prototype.toString.call(create));
  if (isFunction && !isClass) return;
  const name = isClass && (create as { readonly name?: string }).name;
  const given = isClass
    ? `the class ${name || "itself"}`
    : describeValue(create);
  throw new TypeError(
    `${
      requirementsOf(type).start
    }() was given ${given}; pass a function that creates a machine, such as () => new ${
      name || "Machine"
    }()`,
  );
}

/**
 * Creates and checks the first machine of a factory, so that a wrong factory is
 * reported before anything is logged (R14); returns a factory that returns that
 * machine first.
 *
 * @throws TypeError if the factory does not make a machine of its kind
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

/** Creates a machine and its adapter. */
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
      `${
        describe(machine, "update")
      } left an entry without a result; set result on every entry, or return { value }`,
    );
  }
  if (!isU64(value)) {
    throw new RangeError(
      `${
        describe(machine, "update")
      } returned value ${value}, outside of 0…2^64-1`,
    );
  }
  if (result.data !== undefined && !(result.data instanceof Uint8Array)) {
    throw new ErrInvalidResult(
      `${
        describe(machine, "update")
      } returned data that are not a Uint8Array: ${describeValue(result.data)}`,
    );
  }
}

/** Part of the adapter that is the same for all kinds. */
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
  | "admit"
  | "merge"
  | "group"
  | "activation"
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
  const { admit, group } = machine as Partial<IAdmit & IGroup>;
  const checkHash = (hash: bigint, method = "getHash"): bigint => {
    if (typeof hash === "bigint" && isU64(hash)) return hash;
    throw new RangeError(
      `${describe(machine, method)} returned ${hash}, outside of 0…2^64-1`,
    );
  };
  return {
    hostState: undefined,
    hasHash: typeof getHash === "function",
    refusal: refusalOf(machine),
    activation: typeof (machine as Partial<IActivation>).activation ===
        "function"
      ? machine as unknown as IActivation
      : undefined,
    admit: typeof admit === "function" ? admit.bind(machine) : undefined,
    merge: mergeOf(machine),
    group: typeof group === "function" ? group.bind(machine) : undefined,
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
      `${
        describe(machine, "refusal")
      } returned ${typeof reason}; return the reason as a string, or undefined`,
    );
  };
}

function mergeOf(machine: object): IMerge["merge"] | undefined {
  const { merge } = machine as Partial<IMerge>;
  if (typeof merge !== "function") return undefined;
  return (first, second) => {
    const merged: unknown = merge.call(machine, first, second);
    if (merged === undefined || merged instanceof Uint8Array) return merged;
    throw new TypeError(
      `${
        describe(machine, "merge")
      } returned ${typeof merged}; return a command as a Uint8Array, or undefined`,
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
    } is ${stateVersion}; it must be a safe integer of at least 0`,
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
          `${describe(machine, "fork")} returned ${
            describeValue(forked)
          }; a fork must have update() and lookup()`,
        );
      }
      // A fork has no other methods of the machine.
      const { update, lookup } = manage(forked as unknown as M);
      return { update, lookup, close: () => forked.close?.() };
    });
}

function manageRegular(machine: IStateMachine): ManagedMachine {
  const accept = (entry: Entry, result: Result): void => {
    checkResult(machine, result);
    // Copied: a machine may reuse one object for all its results.
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
  const { updateAll } = machine as Partial<IUpdateAll>;
  const updateAtOnce = async (entries: Entry[]): Promise<void> => {
    const commands = entries.map(({ cmd }) => cmd);
    const results: Result[] = [];
    let failed: { readonly error: unknown } | undefined;
    try {
      await updateAll!.call(machine, commands, results);
    } catch (error) {
      failed = { error };
    }
    const applied = failed === undefined ? entries.length : results.length;
    for (let i = 0; i < applied; i++) accept(entries[i]!, results[i]!);
    if (failed !== undefined) throw failed.error;
  };
  return {
    ...manageCommon(machine, manageRegular),
    type: RegularStateMachine,
    update: (entries) =>
      updateAll === undefined ? updateFrom(entries, 0) : updateAtOnce(entries),
    prepareSnapshot: () => undefined,
    saveSnapshot: (_context, w, files, stopped) =>
      machine.saveSnapshot(w, files, stopped),
    recoverFromSnapshot: (r, files, _host, stopped) =>
      machine.recoverFromSnapshot(r, files, stopped),
  };
}

/** Calls `updateWithHost()` and checks that the machine requested the host's rows once. */
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
    // A second set of rows would lack the changes reported in the first.
    if (calls > 1) throw wrong();
    for (const entry of entries) checkResult(machine, entry.result!);
    return host();
  };
  const wrong = (): ErrInvalidResult =>
    new ErrInvalidResult(
      `${
        describe(machine, "updateWithHost")
      } called host() ${calls} times; call it once per batch`,
    );
  const check = (returned: Entry[]): Entry[] => {
    if (calls === 1) return returned;
    throw wrong();
  };
  const returned = settleable(hostState.updateWithHost(given, once));
  return isPromise(returned) ? returned.then(check) : check(returned);
}

/** Passes a batch to the machine and checks that it returns the same entries, with results (C1). */
function updateBatch(
  machine: object,
  entries: Entry[],
  update: (entries: Entry[]) => MaybePromise<Entry[]>,
): MaybePromise<void> {
  const length = entries.length;
  const indexes: number[] = new Array(length);
  for (let i = 0; i < length; i++) indexes[i] = entries[i]!.index;
  // The machine gets its own array, so that it can neither retain nor change the
  // one that results are read from.
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
      `${
        describe(machine, "open")
      } returned ${index}, which is not a log index`,
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
