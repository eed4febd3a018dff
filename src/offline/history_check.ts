/**
 * Check that the log has the history in which the session of an outbox was opened.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { HistoryPoint } from "../log/history.ts";
import type { ReplicaContext } from "../nodehost/context.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type { OutboxSession } from "./outbox_store.ts";

/** Check of one log's history, by a session that an earlier process has opened on it. */
export class HistoryCheck {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #stopped: AbortSignal;
  /** Settles with the log's answer, once it was asked. */
  #answer: Promise<void> | undefined;

  /** Creates a check whose questions end when `stopped` aborts. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    stopped: AbortSignal,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#stopped = stopped;
  }

  async #ask(point: HistoryPoint): Promise<void> {
    await this.#context.log.verify?.(point, { signal: this.#stopped });
  }

  /**
   * Checks once that the log has the history in which a session was opened.
   *
   * @throws ErrOtherHistory if it has another
   */
  async verify({ index, known }: OutboxSession): Promise<void> {
    const answer = this.#answer ??= this.#ask(known ?? { index });
    try {
      await answer;
    } catch (error) {
      // Asked again by the next call.
      if (this.#answer === answer) this.#answer = undefined;
      throw error;
    }
  }

  /**
   * Checks that the log still has the history known here: it may have been restored
   * from a backup since the last check.
   *
   * @throws ErrOtherHistory if it has another
   */
  async verifyNow(session: OutboxSession | undefined): Promise<void> {
    // A state that began in this process knows nothing of the session's history.
    if (session !== undefined) await this.verify(session);
    await this.#ask(this.#machine.history);
  }
}
