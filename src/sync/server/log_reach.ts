/**
 * Reach of the engine that orders a server's logs.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_CUT_OFF_MS } from "../../limits.ts";
import type { LogQuorum } from "../../log/log.ts";

/** Tracks whether a server reaches a quorum of its log; an election of a leader counts as reached. */
export class LogReach {
  readonly #env: Env;
  readonly #quorum: LogQuorum | undefined;
  readonly #changed: () => void;
  readonly #unwatch: (() => void) | undefined;
  #cancelTimer: (() => void) | undefined;
  #isCutOff = false;

  /** Follows `quorum`, and calls `changed` when the server is cut off, or no longer. */
  constructor(
    env: Env,
    quorum: LogQuorum | undefined,
    changed: () => void,
  ) {
    this.#env = env;
    this.#quorum = quorum;
    this.#changed = changed;
    this.#unwatch = quorum?.watch(() => this.#check());
    this.#check();
  }

  /** Time without a quorum, in milliseconds; undefined while there is one, or where one process orders the logs. */
  get lostMs(): number | undefined {
    const lostAt = this.#quorum?.lostAt;
    return lostAt === undefined ? undefined : this.#env.now() - lostAt;
  }

  /** True if the log needs a quorum outside of this process. */
  get isNeeded(): boolean {
    return this.#quorum !== undefined;
  }

  /** Description for clients of why nothing is accepted now; undefined while the log is reached. */
  get reason(): string | undefined {
    return this.#isCutOff
      ? "This server does not reach a quorum of the log: nothing is accepted, and what it has may be stale; use another server, or wait"
      : undefined;
  }

  #check(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const { lostMs } = this;
    const isCutOff = lostMs !== undefined && lostMs >= SYNC_CUT_OFF_MS;
    if (lostMs !== undefined && !isCutOff) {
      this.#cancelTimer = this.#env.setTimer(
        () => this.#check(),
        SYNC_CUT_OFF_MS - lostMs,
      );
    }
    if (isCutOff === this.#isCutOff) return;
    this.#isCutOff = isCutOff;
    this.#changed();
  }

  /** Ends the timer. */
  close(): void {
    this.#unwatch?.();
    this.#cancelTimer?.();
  }
}
