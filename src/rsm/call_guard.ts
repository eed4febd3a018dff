/**
 * What may overlap what, for each kind of machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise, settleable } from "../async.ts";
import {
  ConcurrentStateMachine,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type Type,
} from "../statemachine/types.ts";

/** The calls a guard tells apart, as bits. */
export const Op = {
  Update: 1,
  Sync: 2,
  Prepare: 4,
  Save: 8,
  Recover: 16,
  Lookup: 32,
  NALookup: 64,
  Hash: 128,
  Close: 256,
} as const;

/** One of the calls a guard tells apart. */
export type Op = typeof Op[keyof typeof Op];

/** Names of the calls in the machine's interface. */
const CALLS: readonly (readonly [Op, string])[] = [
  [Op.Update, "update"],
  [Op.Sync, "sync"],
  [Op.Prepare, "prepareSnapshot"],
  [Op.Save, "saveSnapshot"],
  [Op.Recover, "recoverFromSnapshot"],
  [Op.Lookup, "lookup"],
  [Op.NALookup, "naLookup"],
  [Op.Hash, "getHash"],
  [Op.Close, "close"],
];

/** For a kind of machine, the groups that exclude each other: every call of the left with every call of the right. */
function exclusionsOf(type: Type): readonly (readonly [number, number])[] {
  const {
    Update,
    Sync,
    Prepare,
    Save,
    Recover,
    Lookup,
    NALookup,
    Hash,
    Close,
  } = Op;
  switch (type) {
    // R2: a writer lock and a reader lock.
    case RegularStateMachine:
      return [[Update | Recover | Close, 2 * Close - 1]];
    // C2, C3. Lookups keep out of `close()`, which the contract leaves open, and
    // a hash is taken between two updates, at an exact index (D7).
    case ConcurrentStateMachine:
      return [
        [
          Update | Prepare | Recover | Close,
          Update | Prepare | Recover | Close,
        ],
        [Recover | Close, Save | NALookup | Hash],
        [Close, Lookup],
        [Update, Hash],
      ];
    // D7, and D11: a recovery overlaps nothing but `lookup()`.
    case OnDiskStateMachine:
      return [
        [
          Update | Sync | Prepare | Recover | Close,
          Update | Sync | Prepare | Recover | Close,
        ],
        [Recover | Close, Save],
        [Recover, NALookup],
        [Update | Recover | Close, Hash],
      ];
  }
}

/**
 * Runs calls on a machine so that none overlaps another it must not (R2, C2,
 * D7). Those that have to wait do so in order, and nothing overtakes a call it
 * would hold up. A call that is synchronous can overlap nothing: it costs a
 * comparison.
 */
export class CallGuard {
  readonly #excluded = new Map<Op, number>();
  readonly #running = new Map<Op, number>();
  #waiting: {
    readonly op: Op;
    readonly start: () => void;
    readonly refuse: (error: unknown) => void;
  }[] = [];
  #failed: { readonly error: unknown } | undefined;
  /** Calls under way, as bits. */
  #active = 0;

  /** A guard by the rules for machines of kind `type`. */
  constructor(type: Type) {
    for (const op of Object.values(Op)) {
      let excluded = 0;
      for (const [left, right] of exclusionsOf(type)) {
        if (left & op) excluded |= right;
        if (right & op) excluded |= left;
      }
      this.#excluded.set(op, excluded);
    }
  }

  /** Makes a call as soon as nothing excludes it: at once and without a promise if it can. */
  run<T>(op: Op, call: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#failed !== undefined && op !== Op.Close) throw this.#failed.error;
    if (
      (this.#active === 0 && this.#waiting.length === 0) || this.#mayStart(op)
    ) return this.#start(op, call);
    return new Promise<T>((resolve, reject) => {
      const start = (): void => {
        try {
          resolve(this.#start(op, call));
        } catch (error) {
          reject(error);
        }
      };
      this.#waiting.push({ op, start, refuse: reject });
    });
  }

  /** Whether the machine is not to be called any more, but to be closed. */
  get failed(): boolean {
    return this.#failed !== undefined;
  }

  /** Names of the methods that are under way. */
  get calls(): string[] {
    return CALLS.filter(([op]) => this.#active & op).map(([, name]) => name);
  }

  /** Refuses with `error` what waits and what comes, but for closing. */
  fail(error: unknown): void {
    this.#failed = { error };
    const refused = this.#waiting.filter(({ op }) => op !== Op.Close);
    this.#waiting = this.#waiting.filter(({ op }) => op === Op.Close);
    for (const { refuse } of refused) refuse(error);
  }

  /** True if nothing that is under way excludes a call; something that waits may. */
  mayBegin(op: Op): boolean {
    return (this.#active & this.#excluded.get(op)!) === 0;
  }

  /**
   * Makes a call at once, ahead of all that wait: for one that belongs to a call
   * under way which it does not exclude, and must not be parted from it.
   */
  begin<T>(op: Op, call: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#active & this.#excluded.get(op)!) {
      throw new Error(`Call ${op} is excluded by what is under way`);
    }
    return this.#start(op, call);
  }

  #mayStart(op: Op, ahead = this.#waiting.length): boolean {
    const excluded = this.#excluded.get(op)!;
    if (this.#active & excluded) return false;
    for (let i = 0; i < ahead; i++) {
      if (this.#waiting[i]!.op & excluded) return false;
    }
    return true;
  }

  #start<T>(op: Op, call: () => MaybePromise<T>): MaybePromise<T> {
    const result = settleable(call());
    if (!isPromise(result)) return result;
    this.#active |= op;
    this.#running.set(op, (this.#running.get(op) ?? 0) + 1);
    const end = (): void => this.#end(op);
    result.then(end, end);
    return result;
  }

  #end(op: Op): void {
    const running = this.#running.get(op)! - 1;
    this.#running.set(op, running);
    if (running === 0) this.#active &= ~op;
    for (let i = 0; i < this.#waiting.length;) {
      const { op, start } = this.#waiting[i]!;
      if (this.#mayStart(op, i)) {
        this.#waiting.splice(i, 1);
        start();
      } else i++;
    }
  }
}
