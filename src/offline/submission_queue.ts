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
  COMMAND_BYTES_MAX,
  OUTBOX_MEMORY_BYTES,
  OUTBOX_MEMORY_COMMANDS,
  OUTBOX_RECENT_BYTES,
  OUTBOX_RECENT_COMMANDS,
  OUTBOX_SETTLED_EARLY_MAX,
  OUTBOX_SLAB_BYTES,
  PENDING_LISTED_MAX,
  RETRY_LAST_MS,
} from "../limits.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import type {
  OutboxParts,
  PendingPage,
  Submission,
} from "../nodehost/outbox.ts";
import { ErrUnsynced } from "../nodehost/outbox_errors.ts";
import { SequenceWindow } from "../nodehost/sequence_window.ts";
import { ErrProposalRefused, ErrSystemBusy } from "../rsm/errors.ts";
import { OnDiskStateMachine, type Result } from "../statemachine/types.ts";
import type {
  PendingCommand,
  PendingCommandList,
  PendingCommands,
} from "./optimistic_view.ts";
import type {
  OutboxQueue,
  SettledCommand,
  SettledState,
} from "./outbox_store.ts";
import { CommandGroups } from "./command_groups.ts";
import {
  QueuedSubmission,
  refusedResult,
  type SubmissionOwner,
} from "./submission.ts";

/** Reason of a submission whose outcome cannot be known. */
const UNKNOWN =
  "Its session is gone: this device cannot know if it was applied";

/** Submission that is being merged into the one before it. */
interface Merging {
  readonly into: QueuedSubmission;
  /** Command in the place of both. */
  readonly merged: Uint8Array;
  /** Resolves with the number of the submission that the command is in, once it is durable. */
  readonly stored: Promise<number>;
}

/** Refusal of a command before it is known of which process it is. */
interface EarlyRefusal {
  readonly reason: string;
  /** True once another process has dismissed it. */
  isDismissed?: boolean;
}

/** Submissions of one replica. */
export class SubmissionQueue implements PendingCommands<QueuedSubmission> {
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
  /** Groups of the submissions. */
  readonly groups: CommandGroups;
  /** Called when a command was decided. */
  onDecided: () => void = () => {};
  /** Called when the submission of a number has become part of the one before it, so that those after it have a number less; false if a copy of the state cannot tell. */
  onMerged: (number: number) => boolean = () => false;
  /** Called when submissions are durable, before their callers are told. */
  onStored: (submissions: readonly QueuedSubmission[]) => void = () => {};
  readonly #parts: OutboxParts;
  #outbox: OutboxQueue | undefined;
  /** Submissions that are not durable yet, by the numbers they will get; the view shows them. */
  #storing = new SequenceWindow<QueuedSubmission>();
  /** Submissions that the state had before they were known to be durable. */
  readonly #known = new Set<QueuedSubmission>();
  /** Submissions not durable yet at which the machine threw in the view. */
  readonly #poisoned = new Map<QueuedSubmission, unknown>();
  /** Submissions that have become durable in this turn. */
  #stored: QueuedSubmission[] = [];
  #isAnnouncing = false;
  /** Submissions that are to be dismissed, by number. */
  readonly #settled = new Map<number, QueuedSubmission>();
  /** Oldest queued submissions, by number: the commands of the others are only in the store. */
  #queued = new SequenceWindow<QueuedSubmission>();
  /** Size of their commands, in bytes. */
  #queuedBytes = 0;
  /** Number of queued submissions whose commands are only in the store. */
  #outside = 0;
  /** Newest of those. */
  readonly #recent = new SequenceWindow<QueuedSubmission>();
  /** Size of their commands, in bytes. */
  #recentBytes = 0;
  /** Commands that were read from the store for the view, from a number up to another. */
  #page = { from: 0, next: 0, commands: [] as QueuedSubmission[] };
  /** Submissions whose commands are only in the store and whose results the application waits for, by number. */
  readonly #awaited = new Map<number, QueuedSubmission>();
  #isFilling = false;
  #cancelFill: (() => void) | undefined;
  /** Refused submissions whose refusals are not known to be durable, and the errors that tell them. */
  readonly #untold: [QueuedSubmission, ErrProposalRefused][] = [];
  #isTelling = false;
  #cancelTell: (() => void) | undefined;
  #hiddenUpTo = 0;
  /** Size of the commands in the outbox or about to be added, in bytes. */
  #bytes = 0;
  #slab: Uint8Array = new Uint8Array();
  #slabEnd = 0;
  /** Dismissals that are being written, by number. */
  readonly #dismissing = new Map<number, Promise<void>>();
  /** Dismissed commands that keep their places until all before them are decided. */
  readonly #dismissed = new Set<number>();
  /** Commands that another process has settled, and that are not known here yet, by number. */
  readonly #settledEarly = new Map<number, SettledCommand>();
  /** Refusals of commands that may be those that are being stored, by number. */
  readonly #refusedEarly = new Map<number, EarlyRefusal>();
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
    this.groups = new CommandGroups((cmd) => parts.machine.group(cmd));
  }

  /** Durable queue of the outbox; only after `load()`. */
  get outbox(): OutboxQueue {
    return this.#outbox!;
  }

  /** Takes over the contents of a durable queue. */
  load(outbox: OutboxQueue): void {
    this.#outbox = outbox;
    const { decided, commands, settled, last, bytes } = outbox.contents;
    this.#bytes = bytes;
    for (const one of settled) {
      this.#addSettled(one);
      if (one.number <= decided) this.#bytes += one.cmd.length;
      else if (one.state === "dismissed") {
        this.#bytes -= commands[one.number - decided - 1]?.length ?? 0;
      }
    }
    this.undecided = decided + 1;
    this.#synced = this.sent = decided;
    this.last = this.loaded = last;
    this.#outside = last - decided -
      settled.filter(({ number }) => number > decided).length;
    this.#queued.skipTo(decided + 1);
    this.#takeStored(decided + 1, commands);
    outbox.releaseContents();
    this.#forgetDismissed();
  }

  /** Rejects the results of queued submissions with `waiting`, and later calls with `later`. */
  close(waiting: unknown, later: unknown): void {
    this.#closed = later;
    this.#cancelFill?.();
    this.rejectQueued(waiting);
    if (this.#cancelTell === undefined) return;
    this.#cancelTell();
    this.#leaveUntold(waiting);
  }

  /** Rejects the results of queued submissions, which stay queued. */
  rejectQueued(reason: unknown): void {
    for (const submission of this.#queued.list()) submission.reject(reason);
    for (const submission of this.#awaited.values()) submission.reject(reason);
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

  /** Adds a copy of a command, which the view shows from now on, and resolves once it is durable. If it cannot be stored, the view shows it no more. */
  add(cmd: Uint8Array): Promise<QueuedSubmission> {
    const { bytesMax } = this.outbox;
    if (this.#bytes + cmd.length > bytesMax) {
      return Promise.reject(
        new ErrSystemBusy(
          `Outbox is full with ${this.#bytes} of ${bytesMax} bytes in ${this.size} commands: wait until some are decided, or dismiss those that were refused`,
        ),
      );
    }
    const bytes = this.#copy(cmd);
    this.#bytes += bytes.length;
    const storing = this.#storing;
    storing.skipTo(this.last + 1);
    const submission = new QueuedSubmission(storing.next, bytes, this.#owner);
    let merging: Merging | undefined;
    try {
      merging = this.#merging(submission);
    } catch (error) {
      this.#bytes -= bytes.length;
      return Promise.reject(error);
    }
    storing.push(submission);
    this.#announce();
    return (merging?.stored ?? this.outbox.add(bytes)).then(
      (number) =>
        merging !== undefined && number === merging.into.id
          ? this.#noteMerged(merging, submission)
          : this.#noteStored(submission, number),
      (error) => {
        this.#takeOut(submission);
        throw error;
      },
    );
  }

  /** Begins to merge a submission into the one before it, if that was never sent and the machine merges them. */
  #merging({ bytes }: QueuedSubmission): Merging | undefined {
    const { last, outbox } = this;
    // One that is still being stored may be on its way out.
    if (
      this.#storing.size > 0 || outbox.merge === undefined ||
      last <= Math.max(this.sent, outbox.sendLimit)
    ) return undefined;
    const into = this.#queued.get(last) ?? this.#recent.get(last);
    const merged = into && this.#parts.machine.merge(into.bytes, bytes);
    if (merged === undefined || merged.length > COMMAND_BYTES_MAX) {
      return undefined;
    }
    const copy = this.#copy(merged);
    return {
      into: into!,
      merged: copy,
      stored: outbox.merge(last, copy, bytes),
    };
  }

  /** Notes that a submission has become part of the one before it, which stands for both. */
  #noteMerged(
    { into, merged }: Merging,
    submission: QueuedSubmission,
  ): QueuedSubmission {
    const { id } = submission;
    const more = merged.length - into.bytes.length;
    this.#bytes += more - submission.bytes.length;
    if (this.#queued.get(into.id) === into) this.#queuedBytes += more;
    else if (this.#recent.get(into.id) === into) this.#recentBytes += more;
    const isQueued = this.#queued.get(into.id) === into;
    if (isQueued) this.groups.left(into);
    into.bytes = merged;
    if (isQueued) this.groups.queued(into);
    // Refused while it was written.
    if (this.#settled.get(into.id) === into) {
      this.#noteSettled(into);
    }
    this.#page = { from: 0, next: 0, commands: [] };
    this.#leaveStoring(submission);
    if (!this.onMerged(id)) this.generation++;
    // It may have been refused while the merged command was written.
    this.#refusePoisoned(submission, into);
    this.changed();
    return into;
  }

  /** Takes a submission out of those that are being stored; those after it get other numbers. */
  #leaveStoring(left: QueuedSubmission): void {
    this.#storing.take(left.id);
    // Another one gets its number: a machine that throws at it later refuses neither.
    left.id = 0;
    this.#renumber();
  }

  // ------------------------------------------------- shared with other processes

  /**
   * Takes note of all settled commands, as the store has them. Refusals that it does
   * not have are taken back, unless the log has decided them: another process may
   * send those commands.
   */
  moved(settled: readonly SettledCommand[]): void {
    this.#requeueUntold(new Set(settled.map(({ number }) => number)));
    this.#settledEarly.clear();
    for (const one of settled) {
      if (one.state === "dismissed") this.#dismissed.add(one.number);
      // Not bounded: it is in memory already, and belongs to commands that are read next.
      else if (one.number > this.last) this.#settledEarly.set(one.number, one);
      else this.settled(one);
    }
    this.#forgetDismissed();
  }

  /** Queues refused submissions again whose refusals were not told, and are neither in the store nor in the log. */
  #requeueUntold(stored: ReadonlySet<number>): void {
    const untold = this.#untold.splice(0);
    const requeued: QueuedSubmission[] = [];
    for (const one of untold) {
      const [submission] = one;
      const { id } = submission;
      if (this.#settled.get(id) !== submission) continue;
      if (stored.has(id) || id < this.undecided) this.#untold.push(one);
      else requeued.push(submission);
    }
    if (this.#cancelTell !== undefined) {
      this.#cancelTell();
      this.#cancelTell = undefined;
      // Never rejects: a failure is an event, and tried again.
      void this.#tellRefusals();
    }
    if (requeued.length === 0) return;
    const { next } = this.#queued;
    const isInMemory = ({ id }: QueuedSubmission): boolean =>
      this.#outside === 0 || id < next;
    const inMemory = requeued.filter(isInMemory);
    for (const submission of requeued) {
      this.#settled.delete(submission.id);
      submission.requeue();
      if (inMemory.includes(submission)) {
        this.groups.queued(submission);
        this.#queuedBytes += submission.bytes.length;
      } else {
        this.#outside++;
        this.#awaited.set(submission.id, submission);
      }
    }
    this.#rebuild(inMemory, next);
    this.generation++;
    this.changed();
  }

  /** Adds submissions to the queue between those that are in it, which goes up to before `next`. */
  #rebuild(more: readonly QueuedSubmission[], next: number): void {
    const queued = [...this.#queued.list(), ...more]
      .sort((a, b) => a.id - b.id);
    this.#queued = new SequenceWindow();
    for (const submission of queued) {
      this.#queued.skipTo(submission.id);
      this.#queued.push(submission);
    }
    this.#queued.skipTo(next);
  }

  /** Adds commands that another process has stored, from a number on; those up to `decided` are in the state already. */
  added(first: number, commands: readonly Uint8Array[], decided: number): void {
    for (const [i, cmd] of commands.entries()) {
      const number = first + i;
      if (number <= this.last) continue;
      this.last = number;
      if (number <= decided) {
        this.#queued.skipTo(number + 1);
        this.decide(number);
        continue;
      }
      const submission = new QueuedSubmission(
        number,
        copyOf(cmd),
        this.#owner,
      );
      this.#bytes += cmd.length;
      if (this.#outside === 0 && this.#hasRoom) this.#push(submission);
      else this.#leaveInStore(submission);
    }
    // Commands of this process come after them.
    if (this.#storing.size > 0) {
      this.#renumber();
      this.generation++;
    }
    this.#settleEarly();
    this.changed();
  }

  /**
   * Takes note that a command has the next number and is decided in the state: the
   * first of those that are being stored for whose bytes `isOwn` is true, or one of
   * another process. A refused one may be of either; its `reason` is told once it is
   * durable.
   */
  learn(
    number: number,
    isOwn: (bytes: Uint8Array) => boolean,
    reason?: string,
  ): void {
    const storing = this.#storing;
    const early = this.#refusedEarly;
    // Those before it may have been refused.
    const own = storing.list(0, early.size + 1)
      .find(({ bytes }) => isOwn(bytes));
    if (own === undefined) {
      if (
        reason !== undefined && storing.size > 0 &&
        early.size < OUTBOX_SETTLED_EARLY_MAX
      ) early.set(number, { reason });
      return this.added(number, [new Uint8Array()], number);
    }
    storing.take(own.id);
    this.last = own.id = number;
    this.#push(own);
    this.#known.add(own);
    this.#renumber();
    this.generation++;
    this.#settleEarly();
    this.changed();
  }

  /**
   * Queues commands that were taken as decided, from a number on: the state has other
   * commands in their places. Without a known command after them, those that are not
   * given are not known any more.
   */
  retract(from: number, commands: readonly Uint8Array[]): void {
    const end = this.undecided;
    if (this.last < end) this.last = Math.min(end, from + commands.length) - 1;
    const again: QueuedSubmission[] = [];
    for (const [i, cmd] of commands.entries()) {
      const number = from + i;
      if (number >= end || this.#settled.has(number)) continue;
      const submission = new QueuedSubmission(number, copyOf(cmd), this.#owner);
      this.#bytes += cmd.length;
      this.#queuedBytes += cmd.length;
      this.groups.queued(submission);
      again.push(submission);
    }
    this.#rebuild(
      again,
      Math.max(from, Math.min(this.#queued.next, this.last + 1)),
    );
    this.undecided = from;
    this.#synced = Math.min(this.#synced, from - 1);
    this.#renumber();
    this.generation++;
    this.changed();
  }

  /** Numbers the commands that are being stored again, after those that are known. */
  #renumber(): void {
    const storing = this.#storing.list();
    this.#storing = new SequenceWindow();
    this.#storing.skipTo(this.last + 1);
    for (const one of storing) one.id = this.#storing.push(one);
  }

  /**
   * Takes note of a command that another process has settled: also of one of a third
   * process that is not known here yet. Returns false if there are too many of
   * those: then the caller has to read the store, which has all of them.
   */
  settled(settled: SettledCommand): boolean {
    const { number, state, reason, cmd, result } = settled;
    if (number > this.last) {
      const early = this.#settledEarly;
      if (early.size >= OUTBOX_SETTLED_EARLY_MAX) return false;
      early.set(number, settled);
      return true;
    }
    if (this.#settled.has(number) || this.#dismissed.has(number)) return true;
    const submission = this.#queued.get(number) ?? this.#awaited.get(number) ??
      new QueuedSubmission(number, copyOf(cmd), this.#owner);
    if (this.isQueued(submission)) this.#unqueue(submission.id);
    else this.#bytes += cmd.length;
    submission.settle(state as "refused" | "unknown", reason, result);
    this.#keep(submission);
    // Not decided yet: a command that was refused before it was sent has a series all the same.
    this.changed();
    submission.reject(errorOf(state, reason, result));
    return true;
  }

  /** Settles commands that have become known since another process has settled them. */
  #settleEarly(): void {
    for (const [number, settled] of this.#settledEarly) {
      if (number > this.last) continue;
      this.#settledEarly.delete(number);
      this.settled(settled);
    }
  }

  /** Takes note of a settled command that another process has dismissed. */
  dismissed(number: number): void {
    this.#settledEarly.delete(number);
    const early = this.#refusedEarly.get(number);
    if (early !== undefined) early.isDismissed = true;
    // The store has its command still.
    if (number > this.lastInMemory) this.#dismissed.add(number);
    const submission = this.#settled.get(number);
    if (submission === undefined) return;
    this.#settled.delete(number);
    this.#bytes -= submission.bytes.length;
    this.changed();
  }

  /** Settled submission of that number. */
  settledAt(number: number): Submission | undefined {
    return this.#settled.get(number);
  }

  /** Notifies listeners of the submissions of this turn, and of those that have become durable in it. */
  #announce(): void {
    if (this.#isAnnouncing) return;
    this.#isAnnouncing = true;
    queueMicrotask(() => {
      this.#isAnnouncing = false;
      const stored = this.#stored;
      if (stored.length === 0) return this.#notifyListeners();
      this.#stored = [];
      this.changed();
      this.onStored(stored);
    });
  }

  #noteStored(submission: QueuedSubmission, number: number): QueuedSubmission {
    if (this.#known.delete(submission)) {
      // It is queued already.
    } else if (number < this.undecided) {
      // The state had it, and could not show that it is of this process.
      this.#takeOut(submission);
      submission.id = number;
      const early = this.#refusedEarly.get(number);
      if (early !== undefined) {
        const { bytes: cmd } = submission;
        this.settled({ number, state: "refused", cmd, ...early });
      }
      this.#refresh(submission);
      const kept = this.#settled.get(number);
      submission.reject(
        errorOf(
          kept?.state,
          kept?.reason ??
            `Submission ${number} was decided, its result is lost`,
          kept?.refused,
        ),
      );
      if (early?.isDismissed) this.dismissed(number);
    } else {
      // The next ones of this process have higher numbers.
      this.#refusedEarly.clear();
      this.#storing.take(submission.id);
      // The view has run it under another number.
      if (submission.id !== number) this.generation++;
      this.last = submission.id = number;
      if (this.#outside === 0 && this.#hasRoom) this.#push(submission);
      else this.#leaveInStore(submission);
      this.#pending = undefined;
      this.#refusePoisoned(submission, submission);
      if (this.#settledEarly.size > 0) this.#settleEarly();
    }
    this.#stored.push(submission);
    this.#announce();
    return submission;
  }

  /** Takes a submission out of the view that could not be stored, or is decided; those after it get other numbers. */
  #takeOut(submission: QueuedSubmission): void {
    this.#bytes -= submission.bytes.length;
    this.#poisoned.delete(submission);
    this.#leaveStoring(submission);
    this.generation++;
    this.changed();
  }

  /** Refuses a submission at which the machine threw in the view; once it is durable, if it is not yet. */
  poisoned(submission: QueuedSubmission, error: unknown): void {
    this.#poisoned.set(submission, error);
    if (this.#storing.get(submission.id) !== submission) {
      this.#refusePoisoned(submission, submission);
    }
  }

  /** Refuses the submission that another one at which the machine threw has become part of, if it is queued. */
  #refusePoisoned(thrower: QueuedSubmission, into: QueuedSubmission): void {
    if (!this.#poisoned.has(thrower)) return;
    const error = new ErrProposalRefused(`${this.#poisoned.get(thrower)}`);
    this.#poisoned.delete(thrower);
    if (this.isQueued(into)) this.refuseHere(into, error);
  }

  readonly #owner: SubmissionOwner = {
    dismiss: (submission) => this.#dismiss(submission),
    awaited: (submission) => {
      if (submission.id > this.lastInMemory) {
        this.#awaited.set(submission.id, submission);
      }
    },
    refresh: (submission) => this.#refresh(submission),
  };

  // ------------------------------------------------------------ memory

  /** True if another command belongs in memory. */
  get #hasRoom(): boolean {
    return this.#queued.size < OUTBOX_MEMORY_COMMANDS &&
      this.#queuedBytes < OUTBOX_MEMORY_BYTES;
  }

  #push(submission: QueuedSubmission): void {
    this.#queued.skipTo(submission.id);
    this.#queued.push(submission);
    this.groups.queued(submission);
    this.#queuedBytes += submission.bytes.length;
  }

  /** Notes a command that stays in the store only, once the view has run it. */
  #leaveInStore(submission: QueuedSubmission): void {
    this.#outside++;
    this.#recent.skipTo(submission.id);
    this.#recent.push(submission);
    this.#recentBytes += submission.bytes.length;
    while (
      this.#recent.size > OUTBOX_RECENT_COMMANDS ||
      this.#recentBytes > OUTBOX_RECENT_BYTES && this.#recent.size > 1
    ) this.#dropRecent(this.#recent.first);
  }

  #dropRecent(number: number): void {
    const dropped = this.#recent.take(number);
    this.#recentBytes -= dropped?.bytes.length ?? 0;
  }

  /** Queued submissions of commands that were read from the store, from a number on. */
  #submissionsOf(
    from: number,
    commands: readonly Uint8Array[],
  ): QueuedSubmission[] {
    return commands.flatMap((bytes, i) => {
      const number = from + i;
      if (this.#settled.has(number) || this.#dismissed.has(number)) return [];
      return this.#awaited.get(number) ??
        new QueuedSubmission(number, bytes, this.#owner);
    });
  }

  /** Takes commands into memory that were read from the store, from a number on. */
  #takeStored(from: number, commands: readonly Uint8Array[]): void {
    for (const submission of this.#submissionsOf(from, commands)) {
      this.#push(submission);
      this.#outside--;
      this.#awaited.delete(submission.id);
      this.#dropRecent(submission.id);
    }
    // Also past commands at the end that are not queued.
    this.#queued.skipTo(from + commands.length);
  }

  /** Settles a submission whose command was only in the store when the application got it. */
  #refresh(submission: QueuedSubmission): void {
    const { id } = submission;
    if (id > this.lastInMemory || this.#queued.get(id) !== undefined) return;
    const kept = this.#settled.get(id);
    if (kept === undefined) submission.settle("applied");
    else {submission.settle(
        kept.state as "refused" | "unknown",
        kept.reason,
        kept.refused,
      );}
  }

  /** Number of the last command that is in memory, if it is queued. */
  get lastInMemory(): number {
    return this.#outside === 0 ? this.last : this.#queued.next - 1;
  }

  /** Reads commands from the store once few are left in memory. */
  #fill(): void {
    if (
      this.#isFilling || this.#outside === 0 || this.#closed !== undefined ||
      this.#queued.size > OUTBOX_MEMORY_COMMANDS / 2 ||
      this.#queuedBytes > OUTBOX_MEMORY_BYTES / 2
    ) return;
    this.#isFilling = true;
    // Never rejects: a failure is an event, and tried again.
    void this.#fillMemory();
  }

  async #fillMemory(): Promise<void> {
    const { env, event } = this.#parts.context;
    try {
      while (this.#outside > 0 && this.#hasRoom) {
        const { next } = this.#queued;
        await this.#readNext();
        if (this.#closed !== undefined) return;
        // They are decided, and removed by the process that sends: the state will tell.
        if (next === this.#queued.next) break;
        this.onDecided();
      }
      this.#isFilling = false;
    } catch (error) {
      if (this.#closed !== undefined) return;
      event({ type: "outbox failed", error });
      this.#cancelFill = env.setTimer(() => {
        this.#isFilling = false;
        this.#fill();
      }, RETRY_LAST_MS);
    }
  }

  async #readNext(): Promise<void> {
    const from = this.#queued.next;
    const commands = await this.outbox.read(from);
    // Another read may have been first.
    if (from === this.#queued.next) this.#takeStored(from, commands);
  }

  /** True if all queued commands are in memory. */
  get isInMemory(): boolean {
    return this.#outside === 0;
  }

  /** Reads all commands into memory, to settle each. */
  async loadAll(): Promise<void> {
    while (this.#outside > 0) await this.#readNext();
  }

  #addSettled({ number, state, reason, cmd, result }: SettledCommand): void {
    if (state === "dismissed") {
      this.#dismissed.add(number);
      return;
    }
    const submission = new QueuedSubmission(number, cmd, this.#owner);
    this.#settled.set(number, submission);
    submission.settle(state, reason, result);
    this.groups.note(submission);
    submission.reject(errorOf(state, reason, result));
  }

  // ------------------------------------------------------------ listing

  /** Submission of that number, if it is queued and in memory. */
  queuedAt(number: number): QueuedSubmission | undefined {
    return this.#queued.get(number);
  }

  /**
   * Queued submission of the first undecided number, which the state has decided. One
   * whose command is only in the store is removed, unless its result is waited for.
   */
  decidedAt(number: number): QueuedSubmission | undefined {
    if (number > this.lastInMemory && this.isQueued({ id: number })) {
      const awaited = this.#awaited.get(number);
      this.#unqueue(number);
      if (awaited !== undefined) this.#push(awaited);
      else this.#queued.skipTo(number + 1);
    }
    return this.queuedAt(number);
  }

  /** Queued submissions up to a number, in order: a copy. */
  queuedUpTo(number: number): QueuedSubmission[] {
    return this.#queued.list().filter(({ id }) => id <= number);
  }

  /** True if a command that the view has run is queued. */
  isQueued({ id }: Pick<PendingCommand, "id">): boolean {
    return this.#queued.get(id) !== undefined ||
      id > this.lastInMemory && !this.#settled.has(id) &&
        !this.#dismissed.has(id);
  }

  /** Number of the first queued submission; that after the last command if all are settled. */
  get firstQueued(): number {
    const [first] = this.#queued.list(this.#queued.first, 1);
    return first?.id ?? this.lastInMemory + 1;
  }

  /** Number of queued submissions. */
  get queued(): number {
    return this.#queued.size + this.#outside;
  }

  /** Number of submissions that are queued or to be dismissed. */
  get size(): number {
    return this.queued + this.#settled.size;
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

  /** Lists submissions from a number on as `Replica.pendingFrom()`. */
  async pendingFrom(cursor: number): Promise<PendingPage> {
    if (this.#closed !== undefined) throw this.#closed;
    const submissions: QueuedSubmission[] = [];
    const settled = [...this.#settled.keys()].sort((a, b) => a - b);
    let next = Math.max(
      cursor,
      Math.min(settled[0] ?? Infinity, this.firstQueued),
    );
    const add = (submission: QueuedSubmission | undefined): void => {
      if (submission !== undefined) submissions.push(submission);
      next++;
    };
    while (next <= this.last && submissions.length < PENDING_LISTED_MAX) {
      const known = this.#settled.get(next) ?? this.#queued.get(next);
      if (known !== undefined || next <= this.lastInMemory) add(known);
      else {
        const commands = await this.outbox.read(next);
        if (commands.length === 0) break;
        const found = this.#submissionsOf(next, commands);
        const byNumber = new Map(found.map((one) => [one.id, one]));
        for (let i = 0; i < commands.length; i++) {
          if (submissions.length >= PENDING_LISTED_MAX) break;
          const submission = byNumber.get(next);
          add(this.#settled.get(next) ?? submission);
        }
      }
    }
    return { submissions, next: next > this.last ? undefined : next };
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
    return this.last + 1 + this.#storing.size;
  }

  /** Lists queued commands for the view from a number on, in order, as far as they are in memory, and those that are not durable yet. */
  list(from: number): PendingCommandList<QueuedSubmission> {
    const at = Math.max(from, this.#hiddenUpTo + 1);
    const list = this.#listStored(at);
    if (list.next <= this.last || this.#storing.size === 0) return list;
    const { commands } = list;
    for (const one of this.#storing.list(at)) commands.push(one);
    return { commands, next: this.next };
  }

  #listStored(at: number): PendingCommandList<QueuedSubmission> {
    const upTo = this.last + 1;
    const { next } = this.#queued;
    if (this.#outside === 0) {
      return { commands: this.#queued.list(at), next: upTo };
    }
    if (at < next) return { commands: this.#queued.list(at), next };
    if (this.#recent.size > 0 && at >= this.#recent.first) {
      return { commands: this.#recent.list(at), next: upTo };
    }
    const page = this.#page;
    if (at < page.from || at >= page.next) return { commands: [], next: at };
    const commands = page.commands.filter(({ id }) => id >= at);
    return { commands, next: page.next };
  }

  /** Reads commands for the view from a number on, so that `list()` returns them. */
  async read(from: number): Promise<void> {
    const at = Math.max(from, this.#hiddenUpTo + 1);
    const read = await this.outbox.read(at);
    const commands = this.#submissionsOf(at, read);
    this.#page = { from: at, next: at + read.length, commands };
  }

  /** Number of queued commands in the view. */
  get shown(): number {
    const { size } = this.#storing;
    if (this.#hiddenUpTo === 0) return this.queued + size;
    return this.#queued.list(this.#hiddenUpTo + 1).length +
      (this.#hiddenUpTo < this.last ? this.#outside : 0) +
      (this.#hiddenUpTo <= this.last ? size : 0);
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
    this.#notifyListeners();
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

  #notifyListeners(): void {
    for (const listener of this.#listeners) listener();
  }

  // ------------------------------------------------------------ outcomes

  /** Removes the submission of a number from the queued ones. */
  #unqueue(number: number): void {
    const taken = this.#queued.take(number);
    if (taken !== undefined) {
      this.#queuedBytes -= taken.bytes.length;
      this.groups.left(taken);
    } else {
      this.#outside--;
      this.#awaited.delete(number);
      this.#dropRecent(number);
    }
    this.generation++;
    this.#fill();
  }

  /** Keeps a submission that is not queued any more until it is dismissed. */
  #keep(submission: QueuedSubmission): void {
    // It may stay for long: the bytes beside it in memory shall not.
    submission.bytes = copyOf(submission.bytes);
    this.#settled.set(submission.id, submission);
  }

  #noteSettled(submission: QueuedSubmission): void {
    const { id: number, bytes: cmd, reason = "", refused: result } = submission;
    const state = submission.state as SettledState;
    this.outbox.note({ settle: { number, state, reason, cmd, result } });
  }

  /** Settles a queued submission, which stays in the outbox until it is dismissed. */
  #settle(
    submission: QueuedSubmission,
    state: "refused" | "unknown",
    reason: string,
    refused?: Result,
  ): void {
    this.#unqueue(submission.id);
    submission.settle(state, reason, refused);
    this.#keep(submission);
    this.#noteSettled(submission);
  }

  /** Removes a submission whose command was applied, without settling its result. */
  removeApplied(submission: QueuedSubmission): void {
    this.#unqueue(submission.id);
    submission.settle("applied");
    this.#bytes -= submission.bytes.length;
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

  /** Refuses a queued submission as the log has decided, which stays in the outbox until it is dismissed. */
  refuse(submission: QueuedSubmission, error: ErrProposalRefused): void {
    this.#settleRefused(submission, error);
    submission.reject(error);
  }

  /**
   * Refuses a queued submission of whose refusal the log has no record. Its state
   * shows that at once; its result rejects once the refusal survives a power cut,
   * since a command that comes back as queued would be sent.
   */
  refuseHere(submission: QueuedSubmission, error: ErrProposalRefused): void {
    this.#settleRefused(submission, error);
    this.#untold.push([submission, error]);
    if (this.#isTelling) return;
    // Never rejects: a failure is an event, and tried again.
    void this.#tellRefusals();
  }

  /** Tells refusals once they are durable. */
  async #tellRefusals(): Promise<void> {
    const { env, event } = this.#parts.context;
    this.#isTelling = true;
    while (this.#untold.length > 0) {
      const durable = this.#untold.slice();
      try {
        await this.outbox.flush();
        for (const one of durable) {
          const at = this.#untold.indexOf(one);
          // Queued again, if another process has got the outbox.
          if (at < 0) continue;
          this.#untold.splice(at, 1);
          const [submission, error] = one;
          submission.reject(error);
        }
      } catch (error) {
        if (this.#closed !== undefined) return this.#leaveUntold(this.#closed);
        event({ type: "outbox failed", error });
        this.#cancelTell = env.setTimer(() => {
          this.#cancelTell = undefined;
          // Never rejects: a failure is an event, and tried again.
          void this.#tellRefusals();
        }, RETRY_LAST_MS);
        return;
      }
    }
    this.#isTelling = false;
  }

  /** Rejects the results of submissions whose refusals may not be durable; they stay in the outbox. */
  #leaveUntold(reason: unknown): void {
    this.#isTelling = false;
    for (const [submission] of this.#untold.splice(0)) {
      submission.reject(reason);
    }
  }

  #settleRefused(
    submission: QueuedSubmission,
    error: ErrProposalRefused,
  ): void {
    this.#settle(submission, "refused", error.reason, refusedResult(error));
    this.groups.note(submission);
    const next = this.groups.next(submission);
    // One that was sent is decided by the cluster.
    if (next !== undefined && next[0].id > this.sent) this.refuseHere(...next);
    else this.changed();
  }

  /** Settles a queued submission as of unknown outcome; the caller calls `changed()`. */
  settleUnknown(submission: QueuedSubmission): void {
    this.#settle(submission, "unknown", UNKNOWN);
    submission.reject(errorOf("unknown", UNKNOWN));
  }

  async #dismiss(submission: QueuedSubmission): Promise<void> {
    const { id, state, cmd } = submission;
    if (state === "queued") throw new ErrUnsynced([{ id, state, cmd }]);
    const kept = this.#settled.get(id);
    if (kept === undefined) return;
    if (this.#closed !== undefined) throw this.#closed;
    let dismissing = this.#dismissing.get(id);
    if (dismissing === undefined) {
      dismissing = this.#writeDismissed(kept)
        .finally(() => this.#dismissing.delete(id));
      this.#dismissing.set(id, dismissing);
    }
    await dismissing;
  }

  /** Writes a dismissal; if that fails, the submission can be dismissed again. */
  async #writeDismissed(submission: QueuedSubmission): Promise<void> {
    const { id: number, bytes } = submission;
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
      this.#noteSettled(submission);
      throw error;
    }
    this.#settled.delete(number);
    this.#bytes -= submission.bytes.length;
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

  /** Takes note that all commands up to a number are decided, as far as none of them is queued. */
  passOver(number: number): void {
    while (
      this.undecided <= number && this.queuedAt(this.undecided) === undefined
    ) this.decide(this.undecided);
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
    if (number <= this.#synced) return;
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

/** Error with which a submission rejects that was settled before. */
function errorOf(
  state: Submission["state"] | SettledState | undefined,
  reason: string,
  result?: SettledCommand["result"],
): Error {
  return state === "refused"
    ? new ErrProposalRefused(reason, { result })
    : new ErrUnknownOutcome(reason);
}
