/**
 * Lease of stores that several processes share, such as the tabs of an origin: one
 * of them at a time holds it and writes.
 *
 * The fence is a token in each store. The holder puts its token there when it takes
 * the lease, and every write of a holder compares the stored token in its own
 * transaction, so that a process that was suspended and lost the lease in the
 * meantime cannot write.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Lease under which stores are used. */
export interface StoreLease {
  /**
   * Begins a write: returns the check of the token that the store has when the
   * write takes effect, which returns the error with which the write fails.
   *
   * @param isShared true for a change that a process may make which does not hold the lease
   * @throws ErrStoreLocked if this process may not write
   */
  guard(isShared: boolean): (token: string | undefined) => Error | undefined;
  /** Adds a store, or a part that remembers what a store has. */
  add(member: LeaseMember): void;
  /** True while this process holds the lease. */
  readonly isHeld: boolean;
  /** True if nothing can be stored: parts go on without their stores. */
  readonly isVoid: boolean;
}

/** Store, or a part that remembers what a store has, under a lease. */
export interface LeaseMember {
  /**
   * Replaces the token of the store by the one that `next` returns for the present
   * one, in a step that ends after each write of an earlier holder or keeps it from
   * taking effect. What `next` throws is thrown, and nothing is changed.
   */
  claim?(next: (token: string | undefined) => string): Promise<void>;
  /**
   * Resolves once a transaction has found the token of this process.
   *
   * @throws ErrStoreLocked if the store has another token
   */
  verify?(): Promise<void>;
  /** Called when the lease of this process ends: connections are closed in this turn, and opened again on demand. */
  release?(): void;
  /** Called before the lease of this process begins: other processes may have changed the store. */
  forget?(): void;
}

/** Part that can be used under a lease. */
export interface Leasable {
  /** Uses the stores of this part under a lease from now on; called before their first use. */
  share(lease: StoreLease): void;
}

/** True if a part can be used under a lease. */
export function isLeasable(part: object): part is Leasable {
  return "share" in part && typeof part.share === "function";
}
