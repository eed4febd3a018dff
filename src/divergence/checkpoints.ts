/**
 * Comparison of the state hashes of replicas that applied the same entries (H12).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { CHECKPOINTS_KEPT } from "../limits.ts";
import { ErrDiverged } from "../log/errors.ts";
import type { Checkpoint } from "../log/log.ts";

/** Hashes of one replica at one index. */
export type Hashes = Omit<Checkpoint, "nodeID">;

/** Index at which another replica had the same hashes. */
export interface Agreed {
  readonly index: number;
  /** True if that was the replica whose state counts, such as the server's. */
  readonly isTrusted: boolean;
  /** Time of the comparison on the clock of the replica, in milliseconds. */
  readonly at: number;
}

/** Values of the newest indexes, up to a bound. */
class RecentByIndex<T> {
  readonly #byIndex = new Map<number, T>();

  get(index: number): T | undefined {
    return this.#byIndex.get(index);
  }

  values(): Iterable<T> {
    return this.#byIndex.values();
  }

  set(index: number, value: T): void {
    this.#byIndex.set(index, value);
    if (this.#byIndex.size <= CHECKPOINTS_KEPT) return;
    for (const oldest of this.#byIndex.keys()) {
      this.#byIndex.delete(oldest);
      return;
    }
  }

  clear(): void {
    this.#byIndex.clear();
  }
}

/** True if two replicas with these hashes cannot have the same state; hashes of different state versions are not compared. */
export function isDifferent(one: Hashes, other: Hashes): boolean {
  return one.sessions !== other.sessions ||
    (one.state !== undefined && other.state !== undefined &&
      (one.stateVersion ?? 0) === (other.stateVersion ?? 0) &&
      one.state !== other.state);
}

/** Checkpoints of one replica beside those of the others. */
export class Checkpoints {
  readonly #own = new RecentByIndex<Hashes>();
  readonly #others = new Map<bigint, RecentByIndex<Checkpoint>>();
  /** Last index at which each other replica had the same hashes. */
  readonly #agreed = new Map<bigint, number>();
  /** Replicas whose difference was reported. */
  readonly #reported = new Set<bigint>();
  readonly #onDiverged: (error: ErrDiverged, from: bigint) => void;
  readonly #onAgreed: (index: number, from: bigint) => void;

  /** Creates an empty comparison; `onDiverged` is called when the hashes of another replica differ, `onAgreed` each time they are equal. */
  constructor(
    onDiverged: (error: ErrDiverged, from: bigint) => void,
    onAgreed: (index: number, from: bigint) => void,
  ) {
    this.#onDiverged = onDiverged;
    this.#onAgreed = onAgreed;
  }

  /** Adds the hashes of this replica at an index, and compares them. */
  addOwn(hashes: Hashes): void {
    this.#own.set(hashes.index, hashes);
    for (const others of this.#others.values()) {
      const other = others.get(hashes.index);
      if (other !== undefined) this.#compare(hashes, other);
    }
  }

  /** Adds the hashes of another replica at an index, and compares them. */
  addOther(checkpoint: Checkpoint): void {
    const { nodeID, index } = checkpoint;
    let others = this.#others.get(nodeID);
    if (others === undefined) {
      // Bounded: the hashes of further replicas are not compared.
      if (this.#others.size >= CHECKPOINTS_KEPT) return;
      this.#others.set(nodeID, others = new RecentByIndex());
    }
    others.set(index, checkpoint);
    const own = this.#own.get(index);
    if (own !== undefined) this.#compare(own, checkpoint);
  }

  /**
   * True if a replica is known to have had the state of the trusted one at an index:
   * the hashes of the two were equal there, or later.
   */
  isAgreed(nodeID: bigint, trusted: bigint, index: number): boolean {
    if (nodeID === trusted) return true;
    const correct = this.#others.get(trusted);
    for (const checkpoint of this.#others.get(nodeID)?.values() ?? []) {
      const other = correct?.get(checkpoint.index);
      if (
        checkpoint.index >= index && other !== undefined &&
        !isDifferent(checkpoint, other)
      ) return true;
    }
    return false;
  }

  /** Removes the hashes of this replica, whose state was replaced. */
  clearOwn(): void {
    this.#own.clear();
    this.#reported.clear();
  }

  /** Forgets reported differences, so that they are reported again. */
  resetReports(): void {
    this.#reported.clear();
  }

  #compare(own: Hashes, other: Checkpoint): void {
    const { nodeID, index } = other;
    const after = this.#agreed.get(nodeID);
    if (!isDifferent(own, other)) {
      this.#agreed.set(nodeID, Math.max(after ?? 0, index));
      this.#reported.delete(nodeID);
      this.#onAgreed(index, nodeID);
      return;
    }
    // Reported once, since replicas that have diverged stay different.
    if (this.#reported.has(nodeID)) return;
    this.#reported.add(nodeID);
    this.#onDiverged(
      new ErrDiverged(
        `State at index ${index} differs from that of replica ${nodeID}, ${
          after === undefined
            ? "with which it was never compared equal"
            : `to which it was equal at index ${after}`
        }`,
        { after, upTo: index },
      ),
      nodeID,
    );
  }
}
