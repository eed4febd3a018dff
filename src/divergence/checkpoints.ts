/**
 * Comparing the hashes of replicas that applied the same entries (H12).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { CHECKPOINTS_KEPT } from "../limits.ts";
import { ErrDiverged } from "../log/errors.ts";
import type { Checkpoint } from "../log/log.ts";

/** The newest of something by index, as many as are kept. */
class Recent<T> {
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

/** Whether two replicas cannot have had the same state. */
export function differ(
  one: Omit<Checkpoint, "nodeID">,
  other: Omit<Checkpoint, "nodeID">,
): boolean {
  return one.sessions !== other.sessions ||
    (one.state !== undefined && other.state !== undefined &&
      (one.stateVersion ?? 0) === (other.stateVersion ?? 0) &&
      one.state !== other.state);
}

/** One replica's checkpoints beside those of the others. */
export class Checkpoints {
  readonly #own = new Recent<Omit<Checkpoint, "nodeID">>();
  readonly #others = new Map<bigint, Recent<Checkpoint>>();
  readonly #agreed = new Map<bigint, number>();
  /** The replicas that are known to differ. */
  readonly #reported = new Set<bigint>();
  readonly #diverged: (error: ErrDiverged, from: bigint) => void;

  /** `diverged` is told when another replica's hashes differ from this one's. */
  constructor(diverged: (error: ErrDiverged, from: bigint) => void) {
    this.#diverged = diverged;
  }

  /** This replica's hashes at an index. */
  own(checkpoint: Omit<Checkpoint, "nodeID">): void {
    this.#own.set(checkpoint.index, checkpoint);
    for (const others of this.#others.values()) {
      const other = others.get(checkpoint.index);
      if (other !== undefined) this.#compare(checkpoint, other);
    }
  }

  /** Another replica's hashes at an index. */
  other(checkpoint: Checkpoint): void {
    const { nodeID, index } = checkpoint;
    let others = this.#others.get(nodeID);
    if (others === undefined) {
      // Bounded: whoever is too many is not compared.
      if (this.#others.size >= CHECKPOINTS_KEPT) return;
      this.#others.set(nodeID, others = new Recent());
    }
    others.set(index, checkpoint);
    const own = this.#own.get(index);
    if (own !== undefined) this.#compare(own, checkpoint);
  }

  /**
   * Whether the state that a replica had at an index is known to be that of a
   * trusted one: the two had the same hashes there, or later.
   */
  agreed(nodeID: bigint, trusted: bigint, index: number): boolean {
    if (nodeID === trusted) return true;
    const right = this.#others.get(trusted);
    for (const checkpoint of this.#others.get(nodeID)?.values() ?? []) {
      const other = right?.get(checkpoint.index);
      if (
        checkpoint.index >= index && other !== undefined &&
        !differ(checkpoint, other)
      ) return true;
    }
    return false;
  }

  /** Forgets this replica's hashes: its state is another one now. */
  clear(): void {
    this.#own.clear();
    this.#reported.clear();
  }

  /** What was told once may be told again. */
  again(): void {
    this.#reported.clear();
  }

  #compare(own: Omit<Checkpoint, "nodeID">, other: Checkpoint): void {
    const { nodeID, index } = other;
    const after = this.#agreed.get(nodeID);
    if (!differ(own, other)) {
      this.#agreed.set(nodeID, Math.max(after ?? 0, index));
      this.#reported.delete(nodeID);
      return;
    }
    // Once is enough: what differs goes on differing.
    if (this.#reported.has(nodeID)) return;
    this.#reported.add(nodeID);
    this.#diverged(
      new ErrDiverged(
        `State at ${index} is not that of replica ${nodeID}, ${
          after === undefined ? "never found the same" : `the same at ${after}`
        }`,
        { after, upTo: index },
      ),
      nodeID,
    );
  }
}
