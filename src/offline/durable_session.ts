/**
 * Durable session of an outbox: sends its commands in order and each exactly
 * once, across lost messages, restarts and copies of the outbox.
 *
 * All commands go through one session (H3), so that a command that is sent again,
 * also by a later process, gets its first result. Two facts are stored before they
 * take effect: the number up to which commands may have been sent, so that the
 * others can go through another session if this one is lost; and the holder under
 * which the session is claimed, which distinguishes the outbox from a copy of it
 * (H14).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, sleep } from "../async.ts";
import {
  OUTBOX_HOLDERS_MAX,
  OUTBOX_PERMITTED_COMMANDS_MAX,
  OUTBOX_SENT_COMMANDS_MAX,
  RETRY_FIRST_MS,
} from "../limits.ts";
import { ErrOtherHistory, ErrUnknownOutcome } from "../log/errors.ts";
import type { ReplicaContext } from "../nodehost/context.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type { OutboxParts, Purged } from "../nodehost/outbox.ts";
import type { Proposals, Resumed } from "../nodehost/proposals.ts";
import type { Session } from "../nodehost/session.ts";
import {
  ErrInvalidSession,
  ErrProposalRefused,
  type ErrProposalSkipped,
  ErrSystemBusy,
} from "../rsm/errors.ts";
import { digest } from "../rsm/session_table.ts";
import type { SessionInfo } from "../rsm/state_machine.ts";
import type { Result } from "../statemachine/types.ts";
import { deviceClientID, findPurged } from "./device_session.ts";
import { ErrOtherPrincipal, ErrOutboxCopied } from "./errors.ts";
import type {
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  QueueContents,
} from "./outbox_store.ts";
import type { QueuedSubmission } from "./submission.ts";
import type { SubmissionQueue } from "./submission_queue.ts";

/**
 * Phase of a durable session:
 *
 * - `opening`: no session exists; one is opened once there is something to send
 * - `claiming`: an earlier process has opened it; it is claimed once there is
 *   something to send
 * - `sending`: commands are sent through it
 * - `lost`: the cluster no longer has it, or it was left to another holder; it is
 *   removed from the outbox, which then opens another one
 * - `disputed`: another command has the place of one of its commands: either a
 *   copy of the outbox has sent it, or the log has another history
 * - `superseded`: the device has started over on another history, in which the
 *   outcome of the commands that may have been sent is looked up
 * - `copied`: another process holds it; nothing is sent until `adopt()`
 * - `other history`: the log has another history; nothing is sent
 * - `closed`: the replica was stopped
 */
type Phase =
  | "opening"
  | "claiming"
  | "sending"
  | "lost"
  | "disputed"
  | "superseded"
  | "copied"
  | "other history"
  | "closed";

function resultLost(number: number): ErrUnknownOutcome {
  return new ErrUnknownOutcome(
    `Submission ${number} was applied, its result is lost: read the state, and do not submit it again`,
    {
      applied: true,
    },
  );
}

/** Session of one outbox, across the processes that send through it. */
export class DurableSession {
  /** Session of this device from before its data was purged, if one was found. */
  purged: Purged | undefined;
  readonly #parts: OutboxParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #queue: SubmissionQueue;
  readonly #stopped = new AbortController();
  #phase: Phase = "opening";
  #outbox: OutboxQueue | undefined;
  #client!: OutboxClient;
  /** Session as the outbox has stored it. */
  #record: OutboxSession | undefined;
  /** Session as the proposals know it. */
  #session: Session | undefined;
  /** Session that was opened and is not stored yet. */
  #opened: Session | undefined;
  /** Holder under which this process claims the session. */
  #holder: bigint | undefined;
  /** Error because of which nothing is sent until the user or the application acts; undefined without one. */
  #blocked: Error | undefined;
  /** Set once the log is known to have the history of the session of an earlier process. */
  #isVerified = false;
  #verifying: Promise<void> | undefined;
  /** Set from a refusal of commands as another principal's until a command is applied. */
  #isRefused = false;
  /** Set if the outbox contains no trace of an earlier process. */
  #isFresh = false;
  #deviceLookup: Promise<void> | undefined;
  #isAdvancing = false;
  #isSendScheduled = false;
  #cancelRetry: (() => void) | undefined;

  /** Creates the session of an outbox that is not loaded yet. */
  constructor(parts: OutboxParts, queue: SubmissionQueue) {
    this.#parts = parts;
    this.#context = parts.context;
    this.#machine = parts.machine;
    this.#proposals = parts.proposals;
    this.#queue = queue;
    queue.onDecided = () => this.#sendSoon();
  }

  /** Error with which submissions are refused; undefined if they are accepted. */
  get refusal(): Error | undefined {
    return this.#blocked instanceof ErrOtherHistory ? undefined : this.#blocked;
  }

  /** Error for queued submissions, if the outbox is a copy. */
  get copied(): Error | undefined {
    return this.#is("copied") ? this.#blocked : undefined;
  }

  // -------------------------------------------------------------- life cycle

  /**
   * Takes over the session of an earlier process. The results of commands that may
   * have been sent come from the state; nothing is sent before the session is claimed.
   */
  async load(outbox: OutboxQueue, contents: QueueContents): Promise<void> {
    const { decided, session, sendLimit, commands } = contents;
    const { clientID, lostSession, owner, principal } = contents;
    const queue = this.#queue;
    this.#outbox = outbox;
    this.#client = {
      clientID,
      lostSession,
      owner,
      principal: this.#parts.principal ?? principal,
    };
    this.#isFresh = session === undefined && lostSession === 0 &&
      decided === 0 && commands.length === 0;
    const isOther = this.#leaveOtherPrincipal(contents);
    // Set before the first submission is added: it is stored with it.
    outbox.principal = this.#client.principal;
    if (isOther) return await this.#replace();
    if (session === undefined) return;
    this.#record = session;
    queue.sent = Math.max(decided, Math.min(sendLimit, queue.last));
    if (session.isSuperseded) {
      this.#enter("superseded");
      queue.hiddenUpTo = queue.sent;
    } else this.#resume(session);
  }

  #resume(session: OutboxSession): void {
    const queue = this.#queue;
    this.#enter("claiming");
    const resumed: Resumed[] = [];
    for (let number = queue.undecided; number <= queue.sent; number++) {
      resumed.push({
        cmd: queue.queuedAt(number)?.bytes,
        resolve: (result) => this.#applied(number, result),
        reject: (reason) => this.#failed(number, reason),
      });
    }
    const isGone = this.#isGone(session);
    // From now on the results of its commands arrive here, whichever process sent them.
    this.#session = this.#proposals.resume(
      session.index,
      session.clientID,
      queue.undecided - session.base,
      isGone,
      resumed,
    );
    // Its commands may have been applied while this replica did not look: their
    // outcome is unknown, and the view must not apply them a second time.
    if (isGone) this.#giveUp(this.#session);
    // Asked before there is a connection, so that the log does not report that it is
    // live before the answer.
    this.#verifying = this.#askHistory(session);
    this.#verifying.catch(() => {
      // Its callers get the rejection.
    });
  }

  /**
   * Abandons the session if another principal opened it; true if one did.
   *
   * @throws ErrOtherPrincipal if submissions of that principal are queued
   */
  #leaveOtherPrincipal({ principal, session }: QueueContents): boolean {
    const { principal: signedIn } = this.#parts;
    if (
      signedIn === undefined || principal === undefined ||
      signedIn === principal
    ) return false;
    const queue = this.#queue;
    const known = session && this.#sessionInfo(session.index);
    if (session !== undefined && known?.clientID === session.clientID) {
      // They were applied, but the process ended before the outbox stored that.
      const applied = queue.queuedUpTo(session.base + known.next - 1);
      for (const submission of applied) queue.removeApplied(submission);
    }
    if (queue.size > 0) throw new ErrOtherPrincipal(queue.size, principal);
    this.#renewClient();
    this.#enter("lost");
    return true;
  }

  /** Starts to send. */
  start(): void {
    if (this.#isFresh) {
      this.#checkDevice().catch(() => {
        // Looked up again before a session is opened.
      });
    }
    // Also with an empty outbox: the next submission needs it.
    if (this.#record !== undefined && !this.#is("superseded")) {
      this.#verify(this.#record).catch(() => {
        // Asked again once there is something to send.
      });
    }
    this.#wake();
  }

  /** Stops sending; waits in progress reject with `reason`. */
  close(reason: unknown): void {
    this.#enter("closed");
    this.#cancelRetry?.();
    this.#stopped.abort(reason);
  }

  /** If the outbox is a copy, leaves the session to the other holder and continues with a new one. */
  adopt(): void {
    if (!this.#is("copied")) return;
    const queue = this.#queue;
    this.#block(undefined);
    for (const submission of queue.queuedUpTo(Infinity)) {
      // The other holder may have sent it, or be about to.
      queue.settleUnknown(submission);
    }
    queue.hiddenUpTo = 0;
    this.#renewClient();
    this.#opened = undefined;
    this.#enter("lost");
    if (this.#session !== undefined) {
      this.#proposals.abandon(this.#session);
    }
    queue.changed();
    this.#wake();
  }

  /** Acknowledges the results of all commands up to `decided`, once the outbox has stored durably that they are decided: they are not asked for again. */
  acknowledge(decided: number): void {
    if (this.#session === undefined || this.#is("lost")) return;
    const { base } = this.#record!;
    this.#proposals.acknowledge(this.#session, decided - base);
  }

  // ------------------------------------------------------------------ phases

  #is(phase: Phase): boolean {
    return this.#phase === phase;
  }

  #enter(phase: Phase): void {
    if (this.#phase === "closed") return;
    this.#phase = phase;
    if (this.#outbox !== undefined && phase !== "sending") {
      this.#outbox.sendsAdded = false;
    }
  }

  /** True in a phase that only the application or a restart ends. */
  get #isHalted(): boolean {
    return this.#is("copied") || this.#is("other history") ||
      this.#is("closed");
  }

  /** True if something must be done before commands can be sent. */
  get #hasWork(): boolean {
    const queue = this.#queue;
    if (this.#isHalted) return false;
    if (this.#is("disputed") || this.#is("lost")) return true;
    // With nothing to send, nothing is written, here or to the log (U28).
    if (!this.#is("sending")) return queue.undecided <= queue.last;
    return queue.sent < queue.last && queue.sent === this.#outbox!.sendLimit &&
      this.#inFlight < OUTBOX_SENT_COMMANDS_MAX;
  }

  #wake(): void {
    if (this.#isAdvancing || this.#outbox === undefined) return;
    this.#isAdvancing = true;
    // Never rejects: failures are events, and retried.
    void this.#advanceAll();
  }

  async #advanceAll(): Promise<void> {
    const { env, event } = this.#context;
    const { signal } = this.#stopped;
    const backoff = new Backoff(env);
    let isReported = false;
    // A later microtask: by then all outcomes of the present batch are reported.
    await Promise.resolve();
    try {
      while (this.#hasWork) {
        try {
          await this.#advance();
          backoff.reset();
          isReported = false;
        } catch (error) {
          if (signal.aborted) return;
          if (!isReported && !(error instanceof ErrSystemBusy)) {
            event({ type: "outbox failed", error });
            isReported = true;
          }
          await sleep(env, backoff.next(), signal);
        }
      }
    } catch {
      // Stopped while it waited.
    } finally {
      this.#isAdvancing = false;
    }
  }

  async #advance(): Promise<void> {
    const record = this.#record;
    if (this.#is("superseded")) return await this.#settleSuperseded(record!);
    if (this.#is("disputed")) return await this.#resolveDispute(record!);
    if (record !== undefined && !this.#is("sending")) {
      if (!await this.#verify(record)) return;
    }
    if (this.#is("lost")) return await this.#replace();
    if (this.#is("opening")) await this.#open();
    else if (this.#is("claiming")) await this.#claim(record!);
    else if (this.#is("sending")) {
      await this.#assign(record, this.#limitAfter(this.#queue.sent));
    }
    if (this.#is("sending")) this.send();
  }

  // --------------------------------------------------------- facts of the log

  #sessionInfo(session: number): SessionInfo | undefined {
    return this.#machine.sessionInfo(session);
  }

  /** True if the state is past the register record of a session and does not have the session. */
  #isGone({ index, clientID }: OutboxSession): boolean {
    return this.#machine.applied >= index &&
      this.#sessionInfo(index)?.clientID !== clientID;
  }

  async #askHistory({ index, known }: OutboxSession): Promise<void> {
    await this.#context.log.verify?.(known ?? { index }, {
      signal: this.#stopped.signal,
    });
  }

  /** Checks once that the log has the history in which a session was opened; otherwise reports the other history and returns false. */
  async #verify(session: OutboxSession): Promise<boolean> {
    if (this.#isVerified) return true;
    try {
      await (this.#verifying ??= this.#askHistory(session));
    } catch (error) {
      this.#verifying = undefined;
      return this.#onHistoryError(error);
    }
    this.#isVerified = true;
    return true;
  }

  /**
   * Checks that the log still has the history known here: it may have been restored
   * from a backup since the last check. Otherwise reports the other history and
   * returns false.
   */
  async #isSameHistory(): Promise<boolean> {
    const record = this.#record;
    // A state that began in this process knows nothing of the session's history.
    if (record !== undefined && !await this.#verify(record)) return false;
    try {
      await this.#context.log.verify?.(this.#machine.history, {
        signal: this.#stopped.signal,
      });
    } catch (error) {
      return this.#onHistoryError(error);
    }
    return !this.#is("closed");
  }

  #onHistoryError(error: unknown): false {
    if (!(error instanceof ErrOtherHistory)) throw error;
    this.#onOtherHistory(error);
    return false;
  }

  #onOtherHistory(error: ErrOtherHistory): void {
    if (this.#is("closed") || this.#is("copied")) return;
    this.#enter("other history");
    this.#block(error);
    this.#context.event({ type: "outbox failed", error });
  }

  #onCopied(session: number): void {
    if (this.#isHalted) return;
    const error = new ErrOutboxCopied(session);
    this.#enter("copied");
    // Commands not sent from here are committed by the other holder, if at all.
    this.#queue.hiddenUpTo = Infinity;
    this.#block(error);
    this.#queue.rejectQueued(error);
    this.#queue.changed();
    this.#context.event({ type: "outbox failed", error });
  }

  async #resolveDispute({ index }: OutboxSession): Promise<void> {
    if (await this.#isSameHistory()) this.#onCopied(index);
  }

  /** Reports the cause for which nothing can be sent until the user or application acts. */
  #block(cause: Error | undefined): void {
    if (this.#blocked === cause) return;
    this.#blocked = cause;
    this.#context.block(cause);
  }

  /** Called when the server refuses commands as another principal's. They stay queued, since their principal may sign in again (U34, U35). */
  readonly #onRefused = (error: ErrProposalRefused): void => {
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#checkRefusal(error).catch(() => {
      // Sent again, and checked at the next refusal.
      this.#isRefused = false;
    });
  };

  /** Checks that commands are refused because of the principal: a log with another history, or without the session, refuses them as well. */
  async #checkRefusal(error: ErrProposalRefused): Promise<void> {
    const record = this.#record;
    if (!await this.#isSameHistory()) return;
    await this.#parts.reads.upToDate(this.#stopped.signal);
    // A command may have been applied since, or the principal may have signed in again.
    if (this.#isHalted || !this.#isRefused) return;
    if (record !== this.#record || record && this.#isGone(record)) {
      this.#isRefused = false;
      return;
    }
    this.#blockOtherPrincipal(error);
    this.#context.event({ type: "outbox failed", error });
  }

  #blockOtherPrincipal(cause: ErrProposalRefused): void {
    const { principal } = this.#client;
    this.#block(
      new ErrOtherPrincipal(this.#queue.queued, principal, { cause }),
    );
  }

  // --------------------------------------------------- opening and replacing

  #assign(
    session: OutboxSession | undefined,
    sendLimit: number,
  ): Promise<void> {
    const known = this.#machine.history;
    return this.#outbox!.assign(
      session && { ...session, known },
      sendLimit,
      this.#client,
    );
  }

  #limitAfter(number: number): number {
    return Math.min(this.#queue.last, number + OUTBOX_PERMITTED_COMMANDS_MAX);
  }

  /** Chooses another client id for the next session, which distinguishes it from those of the other holder. */
  #renewClient(): void {
    const clientID = this.#context.env.random64();
    this.#client = { ...this.#client, clientID, owner: undefined };
  }

  #setOwner(owner: Uint8Array | undefined): void {
    this.#client = { ...this.#client, owner: this.#client.owner ?? owner };
  }

  /** Opens a session and stores it. */
  async #open(): Promise<void> {
    const queue = this.#queue;
    if (this.#opened === undefined) await this.#checkDevice();
    const { clientID } = this.#client;
    try {
      this.#opened ??= await this.#register();
    } catch (error) {
      if (!(error instanceof ErrProposalRefused)) throw error;
      return this.#refuseUnsent(error.reason);
    }
    if (!this.#is("opening")) return;
    const { id: index } = this.#opened;
    const known = this.#sessionInfo(index);
    if (known !== undefined && (known.next > 1 || known.holder !== clientID)) {
      // A copy of this outbox has opened it.
      return this.#onCopied(index);
    }
    const base = queue.undecided - 1;
    const record = { index, clientID, holders: [clientID], base };
    this.#setOwner(known?.owner);
    await this.#assign(record, this.#limitAfter(base));
    if (!this.#is("opening")) return;
    this.#record = record;
    this.#begin(this.#opened, clientID);
    this.#opened = undefined;
  }

  #register(): Promise<Session> {
    const { clientID, lostSession: after, owner } = this.#client;
    return this.#proposals.openSession(
      new Uint8Array(),
      this.#stopped.signal,
      { clientID, after, owner, refused: this.#onRefused },
    );
  }

  /**
   * Refuses all queued submissions: no session may be opened for them, so none was
   * sent or can be. The next submission asks for a session again.
   */
  #refuseUnsent(reason: string): void {
    const queue = this.#queue;
    for (const { id } of queue.queuedUpTo(Infinity)) {
      // A listener may have removed it while one before it was refused.
      const submission = queue.queuedAt(id);
      if (submission === undefined) continue;
      queue.refuse(submission, new ErrProposalRefused(reason));
    }
    while (queue.undecided <= queue.last) queue.decide(queue.undecided);
    queue.sent = queue.last;
  }

  #begin(session: Session, holder: bigint): void {
    this.#session = session;
    this.#enter("sending");
    this.#proposals.begin(session, holder, this.#onRefused);
  }

  /** Removes a lost session from the outbox: what is queued was not sent through it. */
  async #replace(): Promise<void> {
    const queue = this.#queue;
    const undecided = queue.list()[0]?.id ?? queue.last + 1;
    this.#outbox!.note({ decided: undecided - 1 });
    this.#client = {
      ...this.#client,
      lostSession: this.#record?.index ?? this.#client.lostSession,
    };
    await this.#assign(undefined, undecided - 1);
    queue.restart(undecided);
    this.#record = this.#session = this.#holder = undefined;
    this.#enter("opening");
  }

  /**
   * Gives up a session that the cluster no longer has, or another holder keeps. It
   * is not closed first: the state does not have it, and a record that closes it
   * could close another client's session at the same index (H14).
   */
  #giveUp(session: Session): void {
    this.#enter("lost");
    this.#proposals.abandon(session);
  }

  // ------------------------------------------------------------------ claiming

  /** Claims the session of an earlier process, unless another process has. */
  async #claim(record: OutboxSession): Promise<void> {
    const { index, clientID, base } = record;
    const session = this.#session!;
    const { holder, holders } = await this.#storeHolder(record);
    if (!this.#is("claiming")) return;
    const known = this.#sessionInfo(index);
    if (known?.clientID === clientID && this.#isBehind(known, record)) {
      return this.#onCopied(index);
    }
    let from = known !== undefined && holders.includes(known.holder)
      ? known.holder
      : holders.at(-2) ?? holder;
    for (;;) {
      try {
        await this.#proposals.claim(index, from, holder);
        break;
      } catch (error) {
        if (error instanceof ErrProposalRefused) {
          return await this.#onClaimRefused(record, session, error);
        }
        if (!(error instanceof ErrInvalidSession)) throw error;
      }
      if (!this.#is("claiming")) return;
      const now = this.#sessionInfo(index);
      if (now?.clientID !== clientID) return this.#giveUp(session);
      if (!holders.includes(now.holder)) return this.#onCopied(index);
      // Held by another earlier process of this outbox.
      from = now.holder;
    }
    if (!this.#is("claiming")) return;
    const now = this.#sessionInfo(index);
    if (now?.clientID !== clientID) return this.#giveUp(session);
    if (now.holder !== holder || this.#isBehind(now, record)) {
      return this.#onCopied(index);
    }
    const decided = this.#queue.undecided - 1 - base;
    if (now.next - 1 < decided) {
      const detail = `The log has ${
        now.next - 1
      } commands of session ${index}, of which ${decided} were decided`;
      const { known } = record;
      return this.#onOtherHistory(new ErrOtherHistory(detail, { known }));
    }
    // The server lets only the owner claim a session, so the owner is ours.
    this.#setOwner(now.owner);
    this.#record = { ...this.#record!, holders: [holder] };
    this.#begin(session, holder);
  }

  /** Stores the holder under which the session is claimed, before it is. */
  async #storeHolder(
    record: OutboxSession,
  ): Promise<{ holder: bigint; holders: readonly bigint[] }> {
    const { holders } = record;
    // With no room for another holder, the last one is used again: a copy may then be
    // mistaken for the original, but never the original for a copy.
    const holder = this.#holder ??= holders.length < OUTBOX_HOLDERS_MAX
      ? this.#context.env.random64()
      : holders.at(-1)!;
    if (holders.includes(holder)) return { holder, holders };
    const next = { ...record, holders: [...holders, holder] };
    await this.#assign(next, this.#outbox!.sendLimit);
    this.#record = next;
    return { holder, holders: next.holders };
  }

  /**
   * True if commands were sent through a session that the outbox does not have, by
   * a copy or before the outbox was restored: more than it has, or others under
   * the numbers of those it has. The last one sent is never acknowledged yet.
   */
  #isBehind({ next }: SessionInfo, { index, base }: OutboxSession): boolean {
    const queue = this.#queue;
    if (next > queue.loaded + 1 - base) return true;
    return queue.queuedUpTo(base + next - 1).some(({ id, bytes }) => {
      const sent = this.#machine.outcomeOf(index, id - base)?.digest;
      return sent !== undefined && sent !== digest(bytes, 0, bytes.length);
    });
  }

  /** Handles a refused claim: the session is gone, was opened by another principal, or may not be used by its principal now. */
  async #onClaimRefused(
    record: OutboxSession,
    session: Session,
    error: ErrProposalRefused,
  ): Promise<void> {
    if (!await this.#isSameHistory()) return;
    await this.#parts.reads.upToDate(this.#stopped.signal);
    if (!this.#is("claiming")) return;
    if (this.#isGone(record)) return this.#giveUp(session);
    // All submissions of earlier processes are decided, so another session can replace it.
    if (this.#queue.undecided > this.#queue.loaded) {
      this.#renewClient();
      return this.#giveUp(session);
    }
    this.#blockOtherPrincipal(error);
    throw error;
  }

  // ------------------------------------------------------------ purged devices

  /** Looks up the sessions of this device, until that has succeeded once. */
  async #checkDevice(): Promise<void> {
    const { device } = this.#parts;
    if (device === undefined) return;
    try {
      await (this.#deviceLookup ??= this.#lookUpDevice(device));
    } catch (error) {
      this.#deviceLookup = undefined;
      throw error;
    }
  }

  /** Derives the client id from the name of the device; if the device has a session and the outbox is empty, its data was purged. */
  async #lookUpDevice(device: string): Promise<void> {
    const { clusterID, event } = this.#context;
    await this.#parts.reads.upToDate(this.#stopped.signal);
    const { principal } = this.#client;
    const clientID = deviceClientID(clusterID, principal, device);
    const purged = this.#isFresh
      ? findPurged(this.#machine, clientID)
      : undefined;
    if (purged !== undefined) {
      this.purged = purged;
      event({ type: "purged", ...purged });
      // A client id has one session at a time.
      await this.#proposals.retire(purged.session);
      this.#isFresh = false;
    }
    this.#client = { ...this.#client, clientID };
  }

  // ------------------------------------------------------------ starting over

  /**
   * Finds out which of the commands that may have been sent in another history
   * this history has: all outcomes are known if it has the session, none if not.
   * Commands that it does not have were not applied, and go through a new session.
   */
  async #settleSuperseded(superseded: OutboxSession): Promise<void> {
    const { index, clientID, holders, base } = superseded;
    const queue = this.#queue;
    const upTo = queue.hiddenUpTo;
    let next = 0;
    if (queue.queuedUpTo(upTo).length > 0) {
      await this.#parts.reads.upToDate(this.#stopped.signal);
      const known = this.#sessionInfo(index);
      if (known?.clientID === clientID && holders.includes(known.holder)) {
        for (const submission of queue.queuedUpTo(upTo)) {
          const series = submission.id - base;
          if (series < known.next) {
            this.#settleInState(submission, index, series);
          }
        }
        // Commands still on their way must not be applied after this.
        next = await this.#proposals.retire(index);
      }
    }
    for (const submission of queue.queuedUpTo(upTo)) {
      if (submission.id - base < next) {
        this.#settleApplied(
          submission.id,
          (it) => it.reject(resultLost(it.id)),
        );
      } else if (next === 0) queue.settleUnknown(submission);
    }
    this.#record = undefined;
    queue.hiddenUpTo = 0;
    this.#enter("lost");
    queue.changed();
  }

  /** Settles a submission by the outcome of its series in the state. */
  #settleInState(
    submission: QueuedSubmission,
    session: number,
    series: number,
  ): void {
    const { id, bytes } = submission;
    const known = this.#machine.outcomeOf(session, series);
    if (known === undefined) return;
    const { outcome, result, digest: found } = known;
    // Another holder has used the series for another command.
    if (found !== undefined && found !== digest(bytes, 0, bytes.length)) {
      return this.#queue.settleUnknown(submission);
    }
    if (outcome === "applied") return this.#applied(id, result!);
    this.#failed(
      id,
      outcome === "skipped"
        ? new ErrProposalRefused(new TextDecoder().decode(result?.data))
        : resultLost(id),
    );
  }

  // ------------------------------------------------------------------- sending

  get #inFlight(): number {
    return this.#queue.sent - this.#queue.undecided + 1;
  }

  /** Hands commands to the proposals, as far as they may be sent. */
  send(): void {
    if (this.#is("closed")) return;
    if (!this.#is("sending")) return this.#wake();
    const queue = this.#queue;
    const outbox = this.#outbox!;
    const upTo = Math.min(outbox.sendLimit, queue.last);
    while (queue.sent < upTo && this.#inFlight < OUTBOX_SENT_COMMANDS_MAX) {
      const refusal = this.#propose(queue.sent + 1);
      if (refusal === undefined) queue.sent++;
      else if (refusal instanceof ErrInvalidSession) {
        return this.#onInvalid(refusal, undefined);
      } else {
        this.#retryLater();
        break;
      }
    }
    const isFull = this.#inFlight >= OUTBOX_SENT_COMMANDS_MAX;
    outbox.sendsAdded = !isFull && queue.sent === queue.last;
    if (
      !isFull && queue.sent < queue.last && queue.sent === outbox.sendLimit
    ) this.#wake();
  }

  /** Schedules one `send()` after the present batch, for all commands that are decided in it. */
  #sendSoon(): void {
    if (this.#isSendScheduled) return;
    this.#isSendScheduled = true;
    queueMicrotask(() => {
      this.#isSendScheduled = false;
      this.send();
    });
  }

  /** Proposes a command, and returns the error if it is not accepted. */
  #propose(number: number): unknown {
    const proposals = this.#proposals;
    const bytes = this.#queue.queuedAt(number)?.bytes;
    // The series of a command that was refused here, or must not be sent again, is
    // used by a record without a command.
    if (bytes === undefined) {
      return proposals.skip(this.#session!, () => {
        if (this.#is("sending")) this.#queue.decide(number);
      });
    }
    return proposals.submit(
      this.#session!,
      bytes,
      (result) => this.#applied(number, result),
      (reason) => this.#failed(number, reason),
    );
  }

  #retryLater(): void {
    this.#cancelRetry ??= this.#context.env.setTimer(() => {
      this.#cancelRetry = undefined;
      this.send();
    }, RETRY_FIRST_MS);
  }

  // ------------------------------------------------------------------ outcomes

  #applied(number: number, result: Result): void {
    this.#settleApplied(number, (submission) => submission.resolve(result));
  }

  #settleApplied(
    number: number,
    settle: (submission: QueuedSubmission) => void,
  ): void {
    if (this.#is("closed")) return;
    this.#isRefused = false;
    if (this.#blocked instanceof ErrOtherPrincipal) this.#block(undefined);
    this.#queue.applied(number, settle);
  }

  #failed(number: number, error: unknown): void {
    if (this.#is("closed")) return;
    const queue = this.#queue;
    if (error instanceof ErrInvalidSession) {
      return this.#onInvalid(error, queue.queuedAt(number));
    }
    if (error instanceof ErrUnknownOutcome && error.applied) {
      return this.#settleApplied(number, (it) => it.reject(error));
    }
    if (error instanceof ErrProposalRefused && error.result !== undefined) {
      this.#isRefused = false;
    }
    const submission = queue.queuedAt(number);
    if (submission !== undefined) {
      queue.refuse(
        submission,
        error instanceof ErrProposalRefused
          ? error
          : new ErrProposalRefused((error as ErrProposalSkipped).message),
      );
    }
    queue.decide(number);
  }

  /** Handles a session that can no longer be used; `submission` was sent in it and is not decided. */
  #onInvalid(
    error: ErrInvalidSession,
    submission: QueuedSubmission | undefined,
  ): void {
    if (error.reason === "conflict") {
      // Caused by a copy of the outbox, or by a log with another history: still to be
      // found out.
      if (!this.#isHalted) this.#enter("disputed");
      return this.#wake();
    }
    if (!this.#isHalted && !this.#is("disputed")) this.#enter("lost");
    if (submission !== undefined && error.applied === undefined) {
      this.#queue.settleUnknown(submission);
      this.#queue.changed();
    }
    this.#wake();
  }
}
