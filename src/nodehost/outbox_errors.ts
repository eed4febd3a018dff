/**
 * Errors of a host about its outbox.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";
import type { Unsynced } from "./outbox.ts";

/** Thrown by `submit()` on a host that has no outbox. */
export class ErrNoOutbox extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrNoOutbox";
  /** Creates an error for a host without an outbox. */
  constructor() {
    super(
      "Host has no outbox to keep submissions in: pass one as option outbox of NodeHost",
    );
  }
}

/** Thrown when an outbox would lose submissions that the cluster may not have; nothing was removed (U35). */
export class ErrUnsynced extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrUnsynced";
  /** Submissions that would be lost, in order. */
  readonly unsynced: readonly Unsynced[];
  /** Clusters of the submissions, where several may be concerned. */
  readonly clusterIDs: readonly bigint[];
  /** Creates an error for submissions that are not synced. */
  constructor(
    unsynced: readonly Unsynced[],
    clusterIDs: readonly bigint[] = [],
  ) {
    super(
      `Outbox has ${unsynced.length} commands that are not synced${
        clusterIDs.length === 0
          ? ""
          : `, of cluster ${clusterIDs.join(" and ")}`
      }: wait until they are, dismiss them, or discard them explicitly`,
    );
    this.unsynced = unsynced;
    this.clusterIDs = clusterIDs;
  }
}
