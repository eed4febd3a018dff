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
import { isOtherCommand } from "../rsm/session_table.ts";
import type { SessionInfo } from "../rsm/state_machine.ts";
import { ErrNewerCode, ErrOtherAuthor } from "../statemachine/errors.ts";
import { loadOnce } from "../statemachine/load.ts";
import type { Result } from "../statemachine/types.ts";
import { hasLaterSession } from "./client_chain.ts";
import { DeviceLookup } from "./device_session.ts";
import { ErrOtherPrincipal, ErrOutboxCopied } from "./errors.ts";
import { HistoryCheck } from "./history_check.ts";
import type {
  OutboxQueue,
  OutboxSession,
  QueueContents,
} from "./outbox_store.ts";
import { StoredSession } from "./stored_session.ts";
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
 * - `older code`: this process orders the log, and only newer code knows a queued
 *   command; nothing is sent until that code is loaded
 * - `closed`: the replica was stopped
 */
export type Phase =
  | "opening"
  | "claiming"
  | "sending"
  | "lost"
  | "disputed"
  | "superseded"
  | "copied"
  | "other history"
  | "older code"
  | "closed";

/** Loads what goes on with a session of an earlier process, or in another history. */
const loadEarlier = /* @__PURE__ */ loadOnce(
  "goes on with an earlier session",
  () => import("./earlier_session.ts"),
);

/** Session of one outbox, across the processes that send through it. */
export class DurableSession {
  /** Called when a session goes from one phase to another; simulations set it. */
  static entered: ((from: Phase, to: Phase) => void) | undefined;
  readonly #parts: OutboxParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #queue: SubmissionQueue;
  readonly #history: HistoryCheck;
  readonly #stopped = new AbortController();
  #phase: Phase = "opening";
  /** Session as the outbox has stored it; undefined before `load()`. */
  #stored: StoredSession | undefined;
  /** Lookup of this device's sessions, if the outbox may be that of a purged device. */
  #device: DeviceLookup | undefined;
  /** Session as the proposals know it. */
  #session: Session | undefined;
  /** Session that was opened and is not stored yet. */
  #opened: Session | undefined;
  /** Error because of which nothing is sent until the user or the application acts; undefined without one. */
  #blocked: Error | undefined;
  /** Set from a refusal of commands as another principal's until a command is applied. */
  #isRefused = false;
  /** Set once the device has started over, until a session is open again. */
  #mustClaim = false;
  #isAdvancing = false;
  #isAdopting = false;
  #isSendScheduled = false;
  #cancelRetry: (() => void) | undefined;

  /** Creates the session of an outbox that is not loaded yet. */
  constructor(parts: OutboxParts, queue: SubmissionQueue) {
    this.#parts = parts;
    this.#context = parts.context;
    this.#machine = parts.machine;
    this.#proposals = parts.proposals;
    this.#queue = queue;
    const { signal } = this.#stopped;
    this.#history = new HistoryCheck(parts.context, parts.machine, signal);
    queue.onDecided = () => this.#sendSoon();
  }

  /** Error with which submissions are refused; undefined if they are accepted. */
  get refusal(): Error | undefined {
    const error = this.#blocked;
    return error instanceof ErrOtherHistory || error instanceof ErrNewerCode ||
        error instanceof ErrOtherAuthor
      ? undefined
      : error;
  }

  /** Session of this device from before its data was purged, if one was found. */
  get purged(): Purged | undefined {
    return this.#device?.purged;
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
    const { clientID, lostSession, owner } = contents;
    const queue = this.#queue;
    const principal = this.#parts.principal ?? contents.principal;
    const client = { clientID, lostSession, owner, principal };
    const stored = new StoredSession(
      outbox,
      client,
      this.#machine,
      this.#context.env,
    );
    this.#stored = stored;
    const isFresh = session === undefined && lostSession === 0 &&
      decided === 0 && commands.length === 0;
    const { signal } = this.#stopped;
    this.#device = new DeviceLookup(this.#parts, stored, isFresh, signal);
    const isOther = this.#leaveOtherPrincipal(contents);
    // Set before the first submission is added: it is stored with it.
    outbox.principal = principal;
    if (isOther) return await this.#replace();
    if (session === undefined) return;
    stored.record = session;
    queue.sent = Math.max(decided, Math.min(sendLimit, queue.last));
    if (session.isSuperseded) {
      this.#enter("superseded");
      queue.hiddenUpTo = queue.sent;
    } else this.#resume(session, decided);
  }

  #resume(session: OutboxSession, decided: number): void {
    const queue = this.#queue;
    this.#enter("claiming");
    const resumed: Resumed[] = [];
    // The state may be behind what another process has stored as decided.
    const first = Math.max(queue.undecided, decided + 1);
    for (let number = first; number <= queue.sent; number++) {
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
      first - session.base,
      // Not what only the state shows as decided: it may be ahead of the outbox.
      Math.max(0, decided - session.base),
      isGone,
      resumed,
    );
    // Its commands may have been applied while this replica did not look: their
    // outcome is unknown, and the view must not apply them a second time.
    if (isGone) this.#giveUp(this.#session);
    // Asked before there is a connection, so that the log does not report that it is
    // live before the answer.
    this.#history.verify(session).catch(() => {
      // Asked again before the session is claimed.
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
      const decided = queue.queuedUpTo(session.base + known.next - 1);
      for (const submission of decided) {
        // The process ended before the outbox stored that it was applied.
        if (this.#isApplied(session, submission)) {
          queue.removeApplied(submission);
        }
      }
    }
    if (queue.size > 0) throw new ErrOtherPrincipal(queue.size, principal);
    this.#stored!.renewClient();
    this.#enter("lost");
    return true;
  }

  /** True if the state shows that a submission was applied as its series, and not refused. */
  #isApplied(
    { index, base }: OutboxSession,
    { id, bytes }: QueuedSubmission,
  ): boolean {
    const machine = this.#machine;
    const known = machine.outcomeOf(index, id - base);
    if (
      known === undefined || known.outcome === "skipped" ||
      isOtherCommand(known.digest, bytes)
    ) return false;
    const { result } = known;
    return result === undefined || machine.refusalOf(result) === undefined;
  }

  /** Starts to send. */
  start(): void {
    if (this.#device?.isFresh) {
      this.#device.check().catch(() => {
        // Looked up again before a session is opened.
      });
    }
    for (const { bytes } of this.#queue.queuedUpTo(this.#queue.sent)) {
      const error = this.#machine.notAdmitted(bytes);
      if (error instanceof ErrNewerCode) return this.#onNewerCode(error);
    }
    const record = this.#stored?.record;
    // Also with an empty outbox: the next submission needs it.
    if (record !== undefined && !this.#is("superseded")) {
      this.#history.verify(record).catch((error) => {
        if (error instanceof ErrOtherHistory) this.#onOtherHistory(error);
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

  /** Stops sending, and leaves the session to another process with the same outbox; outcomes are not reported any more. */
  leave(reason: unknown): void {
    this.close(reason);
    if (this.#session !== undefined) this.#proposals.abandon(this.#session);
  }

  /** If the outbox is a copy, leaves the session to the other holder and continues with a new one. */
  adopt(): void {
    if (!this.#is("copied") || this.#isAdopting) return;
    const { event } = this.#context;
    if (this.#queue.isInMemory) return this.#leaveToOtherHolder();
    this.#isAdopting = true;
    // Never rejects: a failure is an event, and the application may call it again.
    this.#queue.loadAll().then(
      () => this.#leaveToOtherHolder(),
      (error) => event({ type: "outbox failed", error }),
    ).then(() => this.#isAdopting = false);
  }

  #leaveToOtherHolder(): void {
    if (!this.#is("copied")) return;
    const queue = this.#queue;
    this.#block(undefined);
    for (const submission of queue.queuedUpTo(Infinity)) {
      // The other holder may have sent it, or be about to.
      queue.settleUnknown(submission);
    }
    queue.hiddenUpTo = 0;
    this.#stored!.renewClient();
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
    const { base } = this.#stored!.record!;
    this.#proposals.acknowledge(this.#session, decided - base);
  }

  // ------------------------------------------------------------------ phases

  #is(phase: Phase): boolean {
    return this.#phase === phase;
  }

  #enter(phase: Phase): void {
    if (this.#phase === "closed") return;
    DurableSession.entered?.(this.#phase, phase);
    this.#phase = phase;
    if (this.#stored !== undefined && phase !== "sending") {
      this.#stored.outbox.sendsAdded = false;
    }
  }

  /** True in a phase that only the application or a restart ends. */
  get #isHalted(): boolean {
    return this.#is("copied") || this.#is("other history") ||
      this.#is("older code") || this.#is("closed");
  }

  /** True if something must be done before commands can be sent. */
  get #hasWork(): boolean {
    const queue = this.#queue;
    if (this.#isHalted || this.#awaitsAuthor) return false;
    if (this.#is("disputed") || this.#is("lost")) return true;
    // With nothing to send, nothing is written, here or to the log (U28).
    if (!this.#is("sending")) return queue.undecided <= queue.last;
    return this.#needsPermit;
  }

  /** True if the store should permit more commands to be sent: before those that are permitted run out, so that sending does not wait for the write. */
  get #needsPermit(): boolean {
    const { last, sent } = this.#queue;
    const { sendLimit } = this.#stored!.outbox;
    return sendLimit < last &&
      sendLimit - sent < OUTBOX_PERMITTED_COMMANDS_MAX / 2 &&
      this.#inFlight < OUTBOX_SENT_COMMANDS_MAX;
  }

  #wake(): void {
    if (this.#isAdvancing || this.#stored === undefined) return;
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
          if (error instanceof ErrOtherHistory) {
            this.#onOtherHistory(error);
            continue;
          }
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
    const stored = this.#stored!;
    const { record } = stored;
    const queue = this.#queue;
    if (this.#is("superseded")) return await this.#settleSuperseded(record!);
    if (this.#is("disputed")) return await this.#resolveDispute(record!);
    if (record !== undefined && !this.#is("sending")) {
      await this.#history.verify(record);
    }
    if (this.#is("lost")) return await this.#replace();
    if (this.#is("opening")) await this.#open();
    else if (this.#is("claiming")) await this.#claim(record!);
    else if (this.#is("sending")) {
      await stored.permit(record, queue.sent, queue.last);
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

  #onOtherHistory(error: ErrOtherHistory): void {
    if (this.#is("closed") || this.#is("copied")) return;
    if (this.#is("disputed")) {
      this.#queue.hiddenUpTo = 0;
      this.#queue.changed();
    }
    this.#enter("other history");
    this.#block(error);
    this.#context.event({ type: "outbox failed", error });
  }

  /** True while the next command waits until its author signs in. */
  get #awaitsAuthor(): boolean {
    return this.#blocked instanceof ErrOtherAuthor;
  }

  /** Blocks at a command of another author than the principal as which the server has welcomed this client; true if it is one. */
  #isOtherAuthor(bytes: Uint8Array): boolean {
    const { principal } = this.#context.log;
    if (principal === undefined) return false;
    try {
      this.#machine.admit(bytes, principal);
      return false;
    } catch (error) {
      // Anything else is for the server to decide.
      if (!(error instanceof ErrOtherAuthor)) return false;
      if (!this.#awaitsAuthor) this.#block(error);
      return true;
    }
  }

  /** True if a submission cannot be sent yet. It may be refused instead, after another one of its group. */
  #mustWait(submission: QueuedSubmission): boolean {
    if (this.#isOtherAuthor(submission.bytes)) return true;
    const { groups } = this.#queue;
    const obstacle = groups.obstacle(submission);
    if (obstacle === true) return true;
    if (obstacle === undefined) groups.note(submission);
    else this.#queue.refuseHere(submission, obstacle);
    return false;
  }

  /** Called when the server has welcomed this client again, possibly as another principal. */
  welcomed(): void {
    if (!this.#awaitsAuthor) return;
    this.#block(undefined);
    this.send();
  }

  #onNewerCode(error: ErrNewerCode): void {
    if (this.#isHalted) return;
    this.#enter("older code");
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
    await this.#history.verifyNow(this.#stored!.record);
    this.#onCopied(index);
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
    this.#checkRefusal(error).catch((failed) => {
      if (failed instanceof ErrOtherHistory) this.#onOtherHistory(failed);
      // Sent again, and checked at the next refusal.
      else this.#isRefused = false;
    });
  };

  /** Checks that commands are refused because of the principal: a log with another history, or without the session, refuses them as well. */
  async #checkRefusal(error: ErrProposalRefused): Promise<void> {
    const { record } = this.#stored!;
    await this.#history.verifyNow(record);
    await this.#parts.reads.upToDate(this.#stopped.signal);
    // A command may have been applied since, or the principal may have signed in again.
    if (this.#isHalted || !this.#isRefused) return;
    if (record !== this.#stored!.record || record && this.#isGone(record)) {
      this.#isRefused = false;
      return;
    }
    this.#blockOtherPrincipal(error);
    this.#context.event({ type: "outbox failed", error });
  }

  #blockOtherPrincipal(cause: ErrProposalRefused): void {
    const { principal } = this.#stored!.client;
    this.#block(
      new ErrOtherPrincipal(this.#queue.queued, principal, { cause }),
    );
  }

  // --------------------------------------------------- opening and replacing

  /** Opens a session and stores it. */
  async #open(): Promise<void> {
    const queue = this.#queue;
    const stored = this.#stored!;
    if (this.#opened === undefined) {
      await this.#device!.check();
      if (await this.#isFirstOtherAuthor()) return;
    }
    const { clientID } = stored.client;
    try {
      this.#opened ??= await this.#register();
    } catch (error) {
      if (!(error instanceof ErrProposalRefused)) throw error;
      await queue.loadAll();
      return this.#refuseUnsent(error.reason);
    }
    if (!this.#is("opening")) return;
    const { id: index } = this.#opened;
    const known = this.#sessionInfo(index);
    if (known !== undefined && this.#isOfCopy(known)) {
      return this.#onCopied(index);
    }
    const base = queue.undecided - 1;
    const record = { index, clientID, holders: [clientID], base };
    stored.setOwner(known?.owner);
    await stored.permit(record, base, queue.last);
    if (!this.#is("opening")) return;
    stored.record = record;
    // Those before it were sent, if at all, through an earlier session, or by another process.
    queue.sent = base;
    const holder = this.#mustClaim ? await this.#claimOpened(record) : clientID;
    if (holder === undefined || !this.#is("opening")) return;
    this.#begin(this.#opened, holder);
    this.#opened = undefined;
    this.#mustClaim = false;
  }

  /** True if a copy of this outbox has used a session that was opened, or has started over on this history more often. */
  #isOfCopy({ next, clientID, holder, owner }: SessionInfo): boolean {
    const holders = this.#stored!.record?.holders ?? [clientID];
    return next > 1 || !holders.includes(holder) ||
      hasLaterSession(this.#machine, clientID, owner);
  }

  /**
   * Claims a session that was opened, and returns its holder. Copies of the outbox that
   * start over may have opened it at the same time, and may number their commands
   * differently: only one of them may send.
   */
  async #claimOpened(record: OutboxSession): Promise<bigint | undefined> {
    const { index, clientID } = record;
    const stored = this.#stored!;
    const holder = await stored.addHolder();
    try {
      if (this.#sessionInfo(index)?.holder !== holder) {
        await this.#proposals.claim(index, clientID, holder);
      }
    } catch (error) {
      if (!(error instanceof ErrInvalidSession)) throw error;
      if (!this.#is("opening")) return undefined;
      if (error.reason === "conflict") this.#onCopied(index);
      else this.#giveUp(this.#opened!);
      this.#opened = undefined;
      return undefined;
    }
    stored.record = { ...stored.record!, holders: [holder] };
    return holder;
  }

  /** True if the first command waits for its author: a session that another principal opens would be of no use to it. */
  async #isFirstOtherAuthor(): Promise<boolean> {
    const { log, remote } = this.#context;
    if (remote === undefined || !this.#machine.admits) return false;
    // Waits for the welcome, which names the principal.
    await log.readIndex({ signal: this.#stopped.signal });
    const [first] = this.#queue.queuedUpTo(this.#queue.firstQueued);
    return first !== undefined && this.#isOtherAuthor(first.bytes);
  }

  #register(): Promise<Session> {
    const { clientID, lostSession: after, owner } = this.#stored!.client;
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
      queue.refuseHere(submission, new ErrProposalRefused(reason));
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
    const undecided = queue.firstQueued;
    const stored = this.#stored!;
    stored.outbox.note({ decided: undecided - 1 });
    await stored.remove(undecided - 1);
    queue.restart(undecided);
    this.#session = undefined;
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

  /** Claims the session of an earlier process. */
  async #claim(record: OutboxSession): Promise<void> {
    const session = this.#session!;
    try {
      const { claimSession } = await loadEarlier();
      const claimed = await claimSession({
        ...this.#parts,
        queue: this.#queue,
        stored: this.#stored!,
        upToDate: () => this.#parts.reads.upToDate(this.#stopped.signal),
        isWanted: () => this.#is("claiming"),
      });
      if (claimed === "gone") this.#giveUp(session);
      else if (claimed === "copied") this.#onCopied(record.index);
      else if (claimed !== undefined) this.#begin(session, claimed.holder);
    } catch (error) {
      if (!(error instanceof ErrProposalRefused)) throw error;
      await this.#onClaimRefused(record, session, error);
    }
  }

  /** Handles a refused claim: the session is gone, was opened by another principal, or may not be used by its principal now. */
  async #onClaimRefused(
    record: OutboxSession,
    session: Session,
    error: ErrProposalRefused,
  ): Promise<void> {
    await this.#history.verifyNow(this.#stored!.record);
    await this.#parts.reads.upToDate(this.#stopped.signal);
    if (!this.#is("claiming")) return;
    if (this.#isGone(record)) return this.#giveUp(session);
    // All submissions of earlier processes are decided, so another session can replace it.
    if (this.#queue.undecided > this.#queue.loaded) {
      this.#stored!.renewClient();
      return this.#giveUp(session);
    }
    this.#blockOtherPrincipal(error);
    throw error;
  }

  /** Settles the commands that may have been sent in another history; the others go through a new session. */
  async #settleSuperseded(superseded: OutboxSession): Promise<void> {
    const queue = this.#queue;
    const { settleSuperseded } = await loadEarlier();
    await settleSuperseded(superseded, {
      ...this.#parts,
      queue,
      outcomes: {
        applied: (number, result) => this.#applied(number, result),
        failed: (number, error) => this.#failed(number, error),
      },
      stopped: this.#stopped.signal,
    });
    this.#stored!.record = undefined;
    queue.hiddenUpTo = 0;
    this.#mustClaim = true;
    this.#enter("lost");
    queue.changed();
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
    const { outbox } = this.#stored!;
    const upTo = Math.min(outbox.sendLimit, queue.lastInMemory);
    while (queue.sent < upTo && this.#inFlight < OUTBOX_SENT_COMMANDS_MAX) {
      const next = queue.queuedAt(queue.sent + 1);
      if (next !== undefined && this.#mustWait(next)) break;
      const refusal = this.#propose(queue.sent + 1);
      if (refusal === undefined) queue.sent++;
      else if (refusal instanceof ErrInvalidSession) {
        return this.#onInvalid(refusal, undefined);
      } else if (refusal instanceof ErrNewerCode) {
        return this.#onNewerCode(refusal);
      } else {
        this.#retryLater();
        break;
      }
    }
    const isFull = this.#inFlight >= OUTBOX_SENT_COMMANDS_MAX;
    outbox.sendsAdded = !isFull && queue.sent === queue.last;
    if (this.#needsPermit) this.#wake();
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
    const refusal = proposals.submit(
      this.#session!,
      bytes,
      number,
      this.#onApplied,
      this.#onFailed,
    );
    if (!(refusal instanceof ErrProposalRefused)) return refusal;
    this.#queue.refuseHere(this.#queue.queuedAt(number)!, refusal);
    return this.#propose(number);
  }

  #retryLater(): void {
    this.#cancelRetry ??= this.#context.env.setTimer(() => {
      this.#cancelRetry = undefined;
      this.send();
    }, RETRY_FIRST_MS);
  }

  // ------------------------------------------------------------------ outcomes

  readonly #onApplied = (result: Result, number: number): void =>
    this.#applied(number, result);

  readonly #onFailed = (reason: unknown, number: number): void =>
    this.#failed(number, reason);

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
      if (!this.#isHalted && !this.#is("disputed")) {
        this.#enter("disputed");
        // A copy may have committed them, and the view must not show them twice.
        this.#queue.hiddenUpTo = Infinity;
        this.#queue.changed();
      }
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
