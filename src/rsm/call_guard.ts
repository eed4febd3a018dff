/**
 * Mutual exclusion of the calls on a machine, by the rules for its kind.
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

/** Calls on a machine, as bits. */
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

/** One of the calls on a machine. */
export type Op = typeof Op[keyof typeof Op];

/** Exclusions for a kind of machine: every call on the left of a pair excludes every call on its right. */
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
    // C2, C3. `lookup()` and `close()` exclude each other, which the contract
    // leaves open; a hash belongs to an exact index, so it excludes `update()` (D7).
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
 * Lock with a mode per call: excluded calls wait in FIFO order (R2, C2, D7). A
 * call never overtakes a waiting one that it excludes, so no call starves. A
 * synchronous call overlaps nothing and costs one comparison.
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
  /** Calls in progress, as bits. */
  #active = 0;

  /** Creates a guard for machines of kind `type`. */
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

  /** Makes a call once nothing excludes it; synchronously if nothing does now. */
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

  /** True once {@linkcode fail} was called: only `close()` is still allowed. */
  get failed(): boolean {
    return this.#failed !== undefined;
  }

  /** Names of the methods in progress. */
  get calls(): string[] {
    const names = [
      [Op.Update, "update"],
      [Op.Sync, "sync"],
      [Op.Prepare, "prepareSnapshot"],
      [Op.Save, "saveSnapshot"],
      [Op.Recover, "recoverFromSnapshot"],
      [Op.Lookup, "lookup"],
      [Op.NALookup, "naLookup"],
      [Op.Hash, "getHash"],
      [Op.Close, "close"],
    ] as const;
    return names.filter(([op]) => this.#active & op).map(([, name]) => name);
  }

  /** Rejects waiting and future calls, except `close()`, with `error`. */
  fail(error: unknown): void {
    this.#failed = { error };
    const refused = this.#waiting.filter(({ op }) => op !== Op.Close);
    this.#waiting = this.#waiting.filter(({ op }) => op === Op.Close);
    for (const { refuse } of refused) refuse(error);
  }

  /** True if no call in progress excludes `op`; a waiting one may. */
  mayBegin(op: Op): boolean {
    return (this.#active & this.#excluded.get(op)!) === 0;
  }

  /**
   * Makes a call at once, ahead of all waiting calls: for the continuation of a
   * call in progress that must directly follow it.
   */
  begin<T>(op: Op, call: () => MaybePromise<T>): MaybePromise<T> {
    if (this.#active & this.#excluded.get(op)!) {
      throw new Error(
        `Call ${op} is excluded by calls in progress: ${this.calls.join(", ")}`,
      );
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
