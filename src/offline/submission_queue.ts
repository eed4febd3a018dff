/**
 * Submissions of one replica in memory, over the durable queue of its outbox:
 * admission, outcomes, dismissal, and how far commands are decided.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../async.ts";
import { copyOf } from "../bytes.ts";
import {
  OUTBOX_BYTES_MAX,
  OUTBOX_COMMANDS_MAX,
  OUTBOX_SLAB_BYTES,
  PENDING_LISTED_MAX,
} from "../limits.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import type { OutboxParts, Submission } from "../nodehost/outbox.ts";
import { ErrUnsynced } from "../nodehost/outbox_errors.ts";
import { SequenceWindow } from "../nodehost/sequence_window.ts";
import { ErrProposalRefused, ErrSystemBusy } from "../rsm/errors.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import type { PendingCommands } from "./optimistic_view.ts";
import type {
  OutboxQueue,
  SettledCommand,
  SettledState,
} from "./outbox_store.ts";
import { QueuedSubmission, refusedResult } from "./submission.ts";

/** Reason of a submission whose outcome cannot be known. */
const UNKNOWN =
  "It was sent through a session that is gone, and may have been applied where this device could not see it";

/** Submissions of one replica. */
export class SubmissionQueue implements PendingCommands {
  /** Number of the first command that is not decided. */
  undecided = 1;
  /** Number of the last command. */
  last = 0;
  /** Number of the last command of an earlier process. */
  loaded = 0;
  /** Number of the last command that was proposed, or that an earlier process may have proposed. */
  sent = 0;
  /** Number of times that commands have left the view or come back to it. */
  generation = 0;
  /** Called when a command was decided. */
  onDecided: () => void = () => {};
  readonly #parts: OutboxParts;
  #outbox: OutboxQueue | undefined;
  /** Submissions that are to be dismissed, by number. */
  readonly #settled = new Map<number, QueuedSubmission>();
  /** Submissions that are queued, by number. */
  readonly #queued = new SequenceWindow<QueuedSubmission>();
  #hiddenUpTo = 0;
  /** Number of commands in the outbox or about to be added. */
  #count = 0;
  /** Size of those, in bytes. */
  #bytes = 0;
  #slab: Uint8Array = new Uint8Array();
  #slabEnd = 0;
  /** Dismissals that are being written, by number. */
  readonly #dismissing = new Map<number, Promise<void>>();
  /** Dismissed commands that keep their places until all before them are decided. */
  readonly #dismissed = new Set<number>();
  /** Commands after the first undecided one that are decided. */
  readonly #decidedEarly = new Set<number>();
  /** Number of the last command that may be removed from the outbox: the state that has it is durable. */
  #synced = 0;
  readonly #listeners = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  #isNotifying = false;
  #pending: readonly Submission[] | undefined;
  #closed: unknown;

  /** Creates an empty queue. */
  constructor(parts: OutboxParts) {
    this.#parts = parts;
  }

  /** Durable queue of the outbox; only after `load()`. */
  get outbox(): OutboxQueue {
    return this.#outbox!;
  }

  /** Takes over the contents of a durable queue. */
  load(outbox: OutboxQueue): void {
    this.#outbox = outbox;
    const { decided, commands, settled } = outbox.contents;
    const byNumber = new Map(settled.map((one) => [one.number, one]));
    for (const one of settled) {
      if (one.number <= decided) this.#addSettled(one);
    }
    for (const [i, bytes] of commands.entries()) {
      const number = decided + 1 + i;
      const one = byNumber.get(number);
      if (one !== undefined) this.#addSettled(one);
      else {
        this.#addQueued(number, bytes);
        this.#count++;
        this.#bytes += bytes.length;
      }
    }
    this.undecided = decided + 1;
    this.#synced = this.sent = decided;
    this.last = this.loaded = decided + commands.length;
    outbox.releaseContents();
    this.#forgetDismissed();
  }

  /** Rejects the results of queued submissions with `waiting`, and later calls with `later`. */
  close(waiting: unknown, later: unknown): void {
    this.#closed = later;
    this.rejectQueued(waiting);
  }

  /** Rejects the results of queued submissions, which stay queued. */
  rejectQueued(reason: unknown): void {
    for (const submission of this.#queued.list()) submission.reject(reason);
  }

  // ------------------------------------------------------------ adding

  /** Copies a command; small ones share a buffer, since a buffer costs more than an object. */
  #copy(cmd: Uint8Array): Uint8Array {
    const { length } = cmd;
    if (length > OUTBOX_SLAB_BYTES / 16) return copyOf(cmd);
    if (this.#slabEnd + length > this.#slab.length) {
      this.#slab = new Uint8Array(OUTBOX_SLAB_BYTES);
      this.#slabEnd = 0;
    }
    const bytes = this.#slab.subarray(this.#slabEnd, this.#slabEnd += length);
    bytes.set(cmd);
    return bytes;
  }

  /** Adds a copy of a command, and resolves once it is durable. */
  async add(cmd: Uint8Array): Promise<QueuedSubmission> {
    if (
      this.#count >= OUTBOX_COMMANDS_MAX ||
      this.#bytes + cmd.length > OUTBOX_BYTES_MAX
    ) {
      throw new ErrSystemBusy(
        `Outbox is full with ${this.#count} commands of ${this.#bytes} bytes: wait until some are decided, or dismiss those that were refused`,
      );
    }
    const bytes = this.#copy(cmd);
    this.#count++;
    this.#bytes += bytes.length;
    try {
      this.last = await this.outbox.add(bytes);
    } catch (error) {
      this.#uncount(bytes);
      throw error;
    }
    return this.#addQueued(this.last, bytes);
  }

  readonly #onDismiss = (submission: QueuedSubmission): Promise<void> =>
    this.#dismiss(submission);

  #addQueued(number: number, bytes: Uint8Array): QueuedSubmission {
    const submission = new QueuedSubmission(number, bytes, this.#onDismiss);
    this.#queued.skipTo(number);
    this.#queued.push(submission);
    return submission;
  }

  #addSettled({ number, state, reason, cmd, result }: SettledCommand): void {
    if (state === "dismissed") {
      this.#dismissed.add(number);
      return;
    }
    const submission = new QueuedSubmission(number, cmd, this.#onDismiss);
    this.#settled.set(number, submission);
    this.#count++;
    this.#bytes += cmd.length;
    submission.settle(state, reason, result);
    submission.reject(
      state === "refused"
        ? new ErrProposalRefused(reason, { result })
        : new ErrUnknownOutcome(reason),
    );
  }

  #uncount(bytes: Uint8Array): void {
    this.#count--;
    this.#bytes -= bytes.length;
  }

  // ------------------------------------------------------------ listing

  /** Submission of that number, if it is queued. */
  queuedAt(number: number): QueuedSubmission | undefined {
    return this.#queued.get(number);
  }

  /** Queued submissions up to a number, in order: a copy. */
  queuedUpTo(number: number): QueuedSubmission[] {
    return this.#queued.list().filter(({ id }) => id <= number);
  }

  /** Number of queued submissions. */
  get queued(): number {
    return this.#queued.size;
  }

  /** Number of submissions that are queued or to be dismissed. */
  get size(): number {
    return this.#queued.size + this.#settled.size;
  }

  /** Lists submissions as `Replica.pending()`. */
  pending(): readonly Submission[] {
    return this.#pending ??= this.#listPending();
  }

  #listPending(): QueuedSubmission[] {
    const { first } = this.#queued;
    const queued = this.#queued.list(first, PENDING_LISTED_MAX);
    return this.#settled.size === 0
      ? queued
      : [...this.#settled.values(), ...queued].sort((a, b) => a.id - b.id);
  }

  /** Number up to which queued commands are not in the view: the state may have them, or they belong to another holder. */
  get hiddenUpTo(): number {
    return this.#hiddenUpTo;
  }

  set hiddenUpTo(number: number) {
    this.#hiddenUpTo = number;
    this.generation++;
  }

  /** Number of the next command. */
  get next(): number {
    return this.#queued.next;
  }

  /** Lists queued commands for the view from a number on, in order: a copy. */
  list(from: number): QueuedSubmission[] {
    return this.#queued.list(Math.max(from, this.#hiddenUpTo + 1));
  }

  /** Number of queued commands in the view. */
  get shown(): number {
    return this.#hiddenUpTo === 0 ? this.#queued.size : this.list(0).length;
  }

  /** Calls `listener` synchronously with each change of `list()` or `pending()`; it must not throw. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Calls `listener` after changes, as `Replica.onPending()`. */
  watch(listener: () => void): () => void {
    const own = (): void => listener();
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  /** Notifies listeners at once, and watchers once in this turn of the event loop. */
  changed(): void {
    this.#pending = undefined;
    for (const listener of this.#listeners) listener();
    if (this.#watchers.size === 0 || this.#isNotifying) return;
    this.#isNotifying = true;
    // Never rejects: watchers that throw are caught.
    this.#parts.context.env.turn().then(() => {
      this.#isNotifying = false;
      for (const watcher of [...this.#watchers]) {
        // Not those that an earlier watcher has removed.
        if (this.#watchers.has(watcher)) notify(watcher);
      }
    });
  }

  // ------------------------------------------------------------ outcomes

  /** Removes a submission from the queued ones. */
  #unqueue(submission: QueuedSubmission): void {
    this.#queued.take(submission.id);
    this.generation++;
  }

  /** Keeps a submission that is not queued any more until it is dismissed. */
  #keep(submission: QueuedSubmission): void {
    // It may stay for long: the bytes beside it in memory shall not.
    submission.bytes = copyOf(submission.bytes);
    this.#settled.set(submission.id, submission);
  }

  #noteSettled(
    { id: number, bytes: cmd, reason = "", refused: result }: QueuedSubmission,
    state: SettledState,
  ): void {
    this.outbox.note({ settle: { number, state, reason, cmd, result } });
  }

  /** Removes a submission whose command was applied, without settling its result. */
  removeApplied(submission: QueuedSubmission): void {
    this.#unqueue(submission);
    submission.settle("applied");
    this.#uncount(submission.bytes);
  }

  /** Marks a command as decided, and settles its submission if it is queued. */
  applied(
    number: number,
    settle: (submission: QueuedSubmission) => void,
  ): void {
    const submission = this.queuedAt(number);
    this.decide(number);
    if (submission === undefined) return;
    this.removeApplied(submission);
    this.changed();
    settle(submission);
  }

  /** Refuses a queued submission, which stays in the outbox until it is dismissed. */
  refuse(submission: QueuedSubmission, error: ErrProposalRefused): void {
    this.#unqueue(submission);
    submission.settle("refused", error.reason, refusedResult(error));
    this.#keep(submission);
    this.#noteSettled(submission, "refused");
    this.changed();
    submission.reject(error);
  }

  /** Settles a queued submission as of unknown outcome; the caller calls `changed()`. */
  settleUnknown(submission: QueuedSubmission): void {
    this.#unqueue(submission);
    submission.settle("unknown", UNKNOWN);
    this.#keep(submission);
    this.#noteSettled(submission, "unknown");
    submission.reject(new ErrUnknownOutcome(UNKNOWN));
  }

  async #dismiss(submission: QueuedSubmission): Promise<void> {
    const { id, state, cmd } = submission;
    if (state === "queued") throw new ErrUnsynced([{ id, state, cmd }]);
    if (this.#settled.get(id) !== submission) return;
    if (this.#closed !== undefined) throw this.#closed;
    let dismissing = this.#dismissing.get(id);
    if (dismissing === undefined) {
      dismissing = this.#writeDismissed(submission)
        .finally(() => this.#dismissing.delete(id));
      this.#dismissing.set(id, dismissing);
    }
    await dismissing;
  }

  /** Writes a dismissal; if that fails, the submission can be dismissed again. */
  async #writeDismissed(submission: QueuedSubmission): Promise<void> {
    const { id: number, bytes } = submission;
    const state = submission.state as SettledState;
    const { outbox } = this;
    const isForgotten = number <= this.#synced;
    if (isForgotten) outbox.note({ forget: number });
    else {
      // Its bytes may be in a block that stays, among others to be sent.
      const cmd = bytes.subarray(0, 0);
      outbox.note({ settle: { number, state: "dismissed", reason: "", cmd } });
    }
    try {
      await outbox.flush();
    } catch (error) {
      this.#noteSettled(submission, state);
      throw error;
    }
    this.#settled.delete(number);
    this.#uncount(submission.bytes);
    if (!isForgotten) {
      this.#dismissed.add(number);
      this.#forgetDismissed();
    }
    this.changed();
  }

  #forgetDismissed(): void {
    for (const number of this.#dismissed) {
      if (number > this.#synced) continue;
      this.#dismissed.delete(number);
      this.outbox.note({ forget: number });
    }
  }

  // ------------------------------------------------------------ progress

  /** Marks a command as decided. */
  decide(number: number): void {
    if (number > this.undecided) this.#decidedEarly.add(number);
    else if (number === this.undecided) {
      do this.undecided++; while (this.#decidedEarly.delete(this.undecided));
      if (this.#parts.context.factory.type !== OnDiskStateMachine) {
        this.synced(this.undecided - 1);
      }
    }
    this.onDecided();
  }

  /** Number of decided commands whose effects are not known to be durable. */
  get unsynced(): number {
    return this.undecided - 1 - this.#synced;
  }

  /**
   * Records that the effects of all commands up to `number` are durable, so that
   * they can be removed from the outbox. Before that, a crash would revert what the
   * user has seen until the next connection (U30).
   */
  synced(number: number): void {
    if (number <= this.#synced || this.#closed !== undefined) return;
    this.#synced = number;
    this.outbox.note({ decided: number, known: this.#parts.machine.history });
    if (this.#dismissed.size > 0) this.#forgetDismissed();
  }

  /** Marks everything before a number as decided and durable, and nothing after it as sent. */
  restart(undecided: number): void {
    this.undecided = undecided;
    this.#synced = this.sent = undecided - 1;
    this.#decidedEarly.clear();
    this.#forgetDismissed();
  }
}
