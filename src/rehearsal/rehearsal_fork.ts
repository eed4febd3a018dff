/**
 * Fork of a state machine on which candidates are applied.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SESSION_WINDOW_MAX } from "../limits.ts";
import { CallGuard, Op } from "../rsm/call_guard.ts";
import type { ManagedFork } from "../rsm/managed_machine.ts";
import type { StateMachine } from "../rsm/state_machine.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { type Candidate, REGISTRATION } from "./candidate.ts";

/** Progress of a session on a fork. */
interface SessionProgress {
  next: number;
  responded: number;
}

/** Fork of a state machine, with the sessions as the applied candidates leave them. */
export class RehearsalFork {
  /** State machine that was forked. */
  readonly source: StateMachine<unknown>;
  /** Index of the last committed entry in the fork, which is fresh while the replica has no later one. */
  readonly applied: number;
  /** Number of candidates that were applied to it, or need not be. */
  done = 0;
  /** Number of entries it was given. */
  entries = 0;
  readonly #machine: ManagedFork;
  /** Guard of a regular machine, for every kind of machine. */
  readonly #guard = new CallGuard(RegularStateMachine);
  /** Number of sessions that candidates open. */
  #registered = 0;
  /** Sessions of candidates; undefined for one that is not open. */
  readonly #sessions = new Map<number, SessionProgress | undefined>();

  /** Creates a fork with the state of `source`. */
  constructor(machine: ManagedFork, source: StateMachine<unknown>) {
    this.#machine = machine;
    this.source = source;
    this.applied = source.applied;
  }

  /** Applies entries. */
  update(entries: Entry[]): MaybePromise<void> {
    const index = this.applied + this.entries;
    return this.#guard.run(
      Op.Update,
      () => this.#machine.update(entries, () => ({ index, rows: [] })),
    );
  }

  /** Queries the state. */
  lookup(query: unknown): MaybePromise<unknown> {
    return this.#guard.run(Op.Lookup, () => this.#machine.lookup(query));
  }

  /** Closes the fork; errors are ignored, since nothing in it is lost. */
  close(): void {
    (async () => {
      await this.#guard.run(Op.Close, () => this.#machine.close());
    })().catch(() => {});
  }

  /** True if it depends on evictions by sessions that are being opened whether a candidate's session is open: known once those are applied. */
  isInDoubt({ session, isAppended }: Candidate): boolean {
    return this.#registered > 0 && session > 0 && !isAppended &&
      this.source.mayEvict(session, this.#registered + this.#sessions.size);
  }

  /** Takes the place of a candidate in its session; true if it will be applied: neither a duplicate, nor in a closed session, nor beyond the window. */
  takePlace({ session, series, lag }: Candidate): boolean {
    if (session === 0) return true;
    if (session === REGISTRATION) {
      this.#registered++;
      return false;
    }
    if (series === 0) {
      this.#sessions.set(session, undefined);
      return false;
    }
    const progress = this.#progressOf(session);
    if (progress === undefined) return false;
    const { next } = progress;
    progress.responded = Math.max(
      progress.responded,
      Math.min(series - lag, next) - 1,
    );
    if (series !== next || series - progress.responded > SESSION_WINDOW_MAX) {
      return false;
    }
    progress.next++;
    return true;
  }

  #progressOf(session: number): SessionProgress | undefined {
    if (this.#sessions.has(session)) return this.#sessions.get(session);
    const known = this.source.sessionInfo(session);
    const progress = known && { next: known.next, responded: known.responded };
    this.#sessions.set(session, progress);
    return progress;
  }
}
