/**
 * Proposal pipeline: batches commands into log appends and routes results back to
 * their callers.
 *
 * A proposal outside of any session is sent once. Proposals of a session are sent
 * again, in order, until they have a result or the session ends.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { SESSION_WINDOW_MAX } from "../limits.ts";
import { ErrRecordsRefused, ErrUnknownOutcome } from "../log/errors.ts";
import { recordAt, RecordKind } from "../log/records.ts";
import type { LocalRehearsal } from "../rehearsal/mod.ts";
import {
  ErrInvalidSession,
  ErrProposalRefused,
  skippedError,
} from "../rsm/errors.ts";
import {
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  RecordCursor,
  sessionHeadLength,
} from "../rsm/record_codec.ts";
import { digest } from "../rsm/session_table.ts";
import type {
  ApplyListener,
  ClaimOutcome,
  ClosedSession,
  Outcome,
} from "../rsm/state_machine.ts";
import type { Result } from "../statemachine/types.ts";
import {
  type AppendBatch,
  AppendBatcher,
  type AppendListener,
} from "./append_batcher.ts";
import type { ReplicaContext } from "./context.ts";
import type { Client } from "./control.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { invalidCommand } from "./invalid_command.ts";
import {
  makeSession,
  Proposal,
  type SeriesObserver,
  Session,
  type SessionSender,
  SessionState,
  stateOf,
} from "./session.ts";
import { SequenceWindow } from "./sequence_window.ts";
import { notHolder, SessionControl } from "./session_control.ts";

/** Command of an earlier process, or a series to be skipped, with its caller. */
export interface Resumed {
  readonly cmd: Uint8Array | undefined;
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/** Value of `ErrInvalidSession.applied`: false, or undefined for a proposal that may have been applied without a report. */
function unlessUnseen({ unseen }: Proposal): false | undefined {
  return unseen ? undefined : false;
}

/** Proposals of one replica, inside and outside of sessions. */
export class Proposals
  implements ApplyListener<SessionState>, AppendListener, SessionSender {
  /** Low half of the random origin of its proposals outside of any session. */
  readonly originLow: number;
  /** High half of that origin. */
  readonly originHigh: number;
  /** Sessions that this replica sends in, by index. */
  readonly locals: Map<number, SessionState> = new Map();
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #batcher: AppendBatcher;
  readonly #control: SessionControl;
  /** Proposals outside of any session, by sequence number. */
  readonly #single: SequenceWindow<Proposal> = new SequenceWindow();
  /** Sequence number of the first proposal outside of any session that the log has not acknowledged. */
  #unacknowledged = 1;
  /** Sessions whose proposals are sent again after a delay. */
  readonly #stalled = new Set<SessionState>();
  #cancelRetry: (() => void) | undefined;

  /** Creates the pipeline of a replica; `rehearsal` returns the rehearsal of commands before they are appended, undefined while they are not tried. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    rehearsal: () => LocalRehearsal | undefined,
  ) {
    const origin = context.env.random64();
    this.originLow = Number(origin & 0xFFFFFFFFn);
    this.originHigh = Number(origin >> 32n);
    this.#context = context;
    this.#machine = machine;
    this.#batcher = new AppendBatcher(context, rehearsal, this);
    this.#control = new SessionControl(context, machine, this.#batcher);
  }

  // ---------------------------------------------------------------- proposing

  /** Proposes a command, which is copied before this returns. */
  propose(
    cmd: Uint8Array,
    session: Session | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const refusal = this.#refusal(cmd, signal);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (session !== undefined && !(session instanceof Session)) {
      return Promise.reject(
        new TypeError("Session was not created by `openSession()`"),
      );
    }
    const state = session && stateOf(session);
    if (state === undefined) return this.#proposeSingle(cmd, signal);
    const invalid = this.#checkSession(session!, state);
    if (invalid !== undefined) return Promise.reject(invalid);
    return new Promise((resolve, reject) => {
      this.#push(state, cmd, new Proposal(cmd.length, resolve, reject, signal));
    });
  }

  /** Error of a command that is not accepted; undefined if it is. */
  #refusal(cmd: Uint8Array, signal: AbortSignal | undefined): unknown {
    const invalid = invalidCommand(cmd);
    if (invalid !== undefined) return invalid;
    return signal?.aborted
      ? signal.reason
      : this.#machine.notAdmitted(cmd) ?? this.#batcher.refusal(cmd.length);
  }

  #checkSession(
    session: Session,
    state: SessionState,
  ): ErrInvalidSession | undefined {
    const { clusterID } = this.#context;
    if (session.clusterID !== clusterID) {
      return new ErrInvalidSession(
        "foreign",
        `Session ${session.id} was opened on another cluster (${session.clusterID}); open one on cluster ${clusterID}`,
        false,
      );
    }
    const client = state.sender === this
      ? undefined
      : this.#machine.sessionInfo(state.index)?.clientID;
    if (client !== undefined && client !== state.clientID) {
      return new ErrInvalidSession(
        "foreign",
        `Session ${session.id} was opened on another log of cluster ${clusterID}; open one on this log`,
        false,
      );
    }
    if (state.invalid === undefined) return undefined;
    // This proposal was not sent, whatever the outcome of those before it.
    const { reason, message } = state.invalid;
    return new ErrInvalidSession(reason, message, false);
  }

  #proposeSingle(
    cmd: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      const batcher = this.#batcher;
      const sequence = this.#single.next;
      const at = batcher.reserve(proposalHeadLength(sequence) + cmd.length);
      const { bytes } = batcher;
      bytes.set(
        cmd,
        putProposalHead(bytes, at, this.originLow, this.originHigh, sequence),
      );
      this.#single.push(new Proposal(cmd.length, resolve, reject, signal));
      batcher.addSingle(sequence);
      batcher.count(cmd.length);
    });
  }

  #push(
    state: SessionState,
    cmd: Uint8Array | undefined,
    proposal: Proposal,
  ): void {
    if (state.sender !== this) this.#attach(state);
    const series = state.pending.push(proposal);
    this.#batcher.count(proposal.size);
    if (
      state.sent === series - 1 && state.phase === "sending" &&
      series - state.responded <= SESSION_WINDOW_MAX
    ) {
      this.#put(state, series, proposal, cmd);
    } else if (cmd !== undefined) {
      // Sent later: until then the caller may change its bytes.
      proposal.bytes ??= copyOf(cmd);
    }
  }

  // ---------------------------------- for holders that store their own commands

  /**
   * Proposes a command that the holder stores itself. `resolve` or `reject` is
   * called synchronously when the command is applied, or when it is known that it
   * never will be, with `number`. The holder must not change the bytes until then.
   *
   * @returns the error if the command is not accepted
   */
  submit(
    session: Session,
    cmd: Uint8Array,
    number: number,
    resolve: (result: Result, number: number) => void,
    reject: (reason: unknown, number: number) => void,
  ): unknown {
    const state = stateOf(session)!;
    const refusal = this.#refusal(cmd, undefined) ??
      this.#checkSession(session, state);
    if (refusal !== undefined) return refusal;
    const { length } = cmd;
    const proposal = new Proposal(length, resolve, reject, undefined, number);
    proposal.bytes = cmd;
    this.#push(state, cmd, proposal);
    return undefined;
  }

  /** Proposes that the next series is skipped; `done` is called once that is decided. Returns the error if it is not accepted. */
  skip(session: Session, done: () => void): unknown {
    const state = stateOf(session)!;
    const refusal = this.#batcher.refusal(0) ??
      this.#checkSession(session, state);
    if (refusal !== undefined) return refusal;
    this.#push(state, undefined, new Proposal(0, done, done, undefined));
    return undefined;
  }

  /**
   * Resumes a session of an earlier process at series `next`, with commands that
   * may have been sent before. They get their results as soon as the replicated
   * state has them; nothing is sent before `begin()`.
   *
   * @param acknowledged series up to which no result will be asked for again
   * @param unseen true if the commands may have been applied without a report to their holder
   */
  resume(
    index: number,
    clientID: bigint,
    next: number,
    acknowledged: number,
    unseen: boolean,
    commands: readonly Resumed[],
  ): Session {
    const state = new SessionState(index, clientID);
    state.phase = "unclaimed";
    state.pending.first = next;
    state.sent = next - 1;
    state.acknowledged = acknowledged;
    for (const { cmd, resolve, reject } of commands) {
      const size = cmd?.length ?? 0;
      const proposal = new Proposal(size, resolve, reject, undefined);
      proposal.bytes = cmd;
      proposal.unseen = unseen;
      state.pending.push(proposal);
    }
    this.#adopt(state);
    this.#reconcile(state);
    return makeSession(this.#context.clusterID, state);
  }

  /** Client id of a session. Only code of the host's own bundle can read it. */
  clientOf(session: Session): bigint {
    return stateOf(session)!.clientID;
  }

  /**
   * Starts to send in a session that was claimed as `holder`. Its results are
   * acknowledged by `acknowledge()` only. `refused` is called when the server refuses
   * its proposals because another principal opened the session.
   */
  begin(
    session: Session,
    holder: bigint,
    refused: (error: ErrProposalRefused) => void,
  ): void {
    const state = stateOf(session)!;
    state.holder = holder;
    state.refused = refused;
    state.acknowledged ??= 0;
    if (state.phase !== "unclaimed") return;
    state.phase = "sending";
    this.#resend(state, false);
  }

  /** Stops using a session that the cluster no longer has, or that another holder keeps; nothing is written to the log. */
  abandon(session: Session): void {
    const state = stateOf(session)!;
    if (state.sender !== this) return;
    this.#invalidate(state, notHolder(state.index, "unknown"), unlessUnseen);
  }

  /** Calls `observer` with each outcome of a session in which another process sends, or has sent before this one, until the returned function is called. */
  observe(
    index: number,
    clientID: bigint,
    observer: SeriesObserver,
  ): () => void {
    const present = this.locals.get(index);
    if (present !== undefined) {
      present.observer = observer;
      return () => present.observer = undefined;
    }
    const state = new SessionState(index, clientID);
    state.observer = observer;
    this.locals.set(index, state);
    return () => {
      if (this.locals.get(index) === state) this.#forget(state);
    };
  }

  /** Notes that results up to `series` will not be asked for again. */
  acknowledge(session: Session, series: number): void {
    const state = stateOf(session)!;
    if (!(series > (state.acknowledged ?? 0))) return;
    state.acknowledged = series;
    if (state.sender === this) this.#pump(state);
  }

  /**
   * Claims a session from its holder; resolves once it has moved.
   *
   * @throws ErrInvalidSession if it is not open, or has another holder (H14)
   */
  claim(session: number, from: bigint, holder: bigint): Promise<number> {
    return this.#control.claim(session, from, holder);
  }

  /** Closes a session in which this replica sends nothing; resolves with what it was, undefined if it was not open. */
  retire(index: number): Promise<ClosedSession | undefined> {
    return this.#control.unregister(index);
  }

  // ----------------------------------------------------------------- sessions

  /** Opens a session; resolves once its register record is applied. */
  async openSession(
    owner: Uint8Array,
    signal: AbortSignal | undefined,
    client?: Client,
  ): Promise<Session> {
    const { index, clientID } = await this.#control.register(
      owner,
      signal,
      client,
    );
    const state = new SessionState(index, clientID);
    this.#adopt(state);
    return makeSession(this.#context.clusterID, state);
  }

  /** Closes a session, after its pending proposals. */
  async closeSession(session: Session): Promise<void> {
    const state = stateOf(session);
    if (state === undefined) return;
    const invalid = this.#checkSession(session, state);
    if (invalid !== undefined) throw invalid;
    if (state.sender !== this) this.#attach(state);
    const { index, pending } = state;
    const closed = new ErrInvalidSession(
      "closed",
      `Session ${index} is closed`,
      false,
    );
    state.invalid = closed;
    if (pending.first < pending.next) {
      await new Promise<void>((resolve) => state.drained = resolve);
    }
    try {
      await this.#control.unregister(index);
    } catch (error) {
      // It is still open, and can be closed through another replica.
      if (state.invalid === closed) state.invalid = undefined;
      throw error;
    }
  }

  /** Takes a session and its pending proposals over from another replica. */
  #attach(state: SessionState): void {
    state.sender?.release(state);
    this.#adopt(state);
    this.#resend(state, true);
  }

  #adopt(state: SessionState): void {
    const before = this.locals.get(state.index);
    // The state machine would go on to answer the one before.
    if (before !== undefined) this.release(before);
    state.sender = this;
    this.locals.set(state.index, state);
    for (const { size } of state.pending.list()) this.#batcher.count(size);
  }

  /** Stops sending in a session, because another replica continues it. */
  release(state: SessionState): void {
    this.#forget(state);
    for (const { size } of state.pending.list()) this.#batcher.uncount(size);
    state.sender = undefined;
  }

  #forget(state: SessionState): void {
    this.locals.delete(state.index);
    this.#stalled.delete(state);
    this.#machine.detach(state.index);
  }

  // ------------------------------------------------------------------ sending

  /** Appends a proposal of a session, or the skip of a series whose caller has stopped waiting. */
  #put(
    state: SessionState,
    series: number,
    proposal: Proposal,
    cmd: Uint8Array | undefined,
  ): void {
    const { index } = state;
    const lag = series - state.responded - 1;
    const kind = cmd === undefined
      ? RecordKind.Skip
      : RecordKind.SessionProposal;
    const head = sessionHeadLength(index, series, lag);
    const batcher = this.#batcher;
    const at = batcher.reserve(head + (cmd?.length ?? 0));
    const { bytes } = batcher;
    const start = putSessionHead(bytes, at, kind, index, series, lag);
    if (cmd !== undefined) {
      bytes.set(cmd, start);
      if (proposal.bytes === undefined) {
        proposal.bytes = bytes;
        proposal.start = start;
      }
    }
    state.sent = series;
    batcher.addSeries(state, series);
  }

  /** Sends all pending proposals of a session again; `unseen` is true if they may have been applied without a report. */
  #resend(state: SessionState, unseen: boolean): void {
    if (unseen) {
      for (const proposal of state.pending.list()) proposal.unseen = true;
    }
    if (state.phase === "stalled") state.phase = "sending";
    state.sent = state.pending.first - 1;
    this.#pump(state);
  }

  /** Sends the next proposals of a session, as far as its window allows. */
  #pump(state: SessionState): void {
    if (state.phase !== "sending") return;
    const { pending } = state;
    while (
      state.sent + 1 < pending.next &&
      state.sent + 1 - state.responded <= SESSION_WINDOW_MAX
    ) {
      const series = state.sent + 1;
      const proposal = pending.get(series);
      if (proposal === undefined) {
        state.sent = series;
        continue;
      }
      const { bytes, start, size, wanted } = proposal;
      this.#put(
        state,
        series,
        proposal,
        wanted ? bytes?.subarray(start, start + size) : undefined,
      );
    }
  }

  #stall(state: SessionState): void {
    if (state.phase === "unclaimed") return;
    state.phase = "stalled";
    this.#stalled.add(state);
    this.#retry();
  }

  #retry(): void {
    this.#cancelRetry ??= this.#context.env.setTimer(() => {
      this.#cancelRetry = undefined;
      const stalled = [...this.#stalled];
      this.#stalled.clear();
      for (const state of stalled) this.#resend(state, false);
      this.#control.resend();
    }, this.#batcher.backoff.next());
  }

  // ------------------------------------------------------- outcome of appends

  /** Notes that the log has acknowledged a batch. */
  appended({ upTo, sessions, controls }: AppendBatch): void {
    this.#unacknowledged = upTo;
    for (const [state, series] of sessions) state.appended = series;
    for (const control of controls) {
      if (control.state === "sending") control.state = "appended";
    }
  }

  /** Rejects proposals outside of any session, and sends those of sessions again. */
  failed(batch: AppendBatch, error: unknown): void {
    if (error instanceof ErrRecordsRefused) return this.#refused(batch, error);
    for (let i = batch.from; i < batch.upTo; i++) this.#rejectSingle(i, error);
    for (const state of batch.sessions.keys()) {
      if (state.sender === this) this.#stall(state);
    }
    this.#control.stall(batch.controls);
    if (batch.controls.length > 0) this.#retry();
  }

  /** Rejects the records of a batch that the log has refused; the others are appended. */
  #refused(batch: AppendBatch, { refusals }: ErrRecordsRefused): void {
    this.appended(batch);
    const reasons = new Map(refusals.map(({ at, reason }) => [at, reason]));
    const cursor = new RecordCursor();
    let controls = 0;
    for (let i = 0; i < batch.records!.ends.length; i++) {
      const record = recordAt(batch.records!, i);
      cursor.read(record, 0, record.length);
      const { kind, series } = cursor;
      const isControl = kind === RecordKind.Register ||
        kind === RecordKind.Unregister || kind === RecordKind.Claim;
      const control = isControl ? batch.controls[controls++] : undefined;
      const reason = reasons.get(i);
      if (reason === undefined) continue;
      const error = new ErrProposalRefused(reason);
      if (control !== undefined) this.#control.refuse(control, error);
      else if (kind === RecordKind.Proposal) this.#rejectSingle(series, error);
      else this.#refusedInSession(cursor.session, series, error);
    }
  }

  /** Schedules a retry of a proposal that was refused because its session has another owner, who may sign in again; ends the session if the cluster no longer has it. */
  #refusedInSession(
    session: number,
    series: number,
    error: ErrProposalRefused,
  ): void {
    const state = this.locals.get(session);
    if (state === undefined) return;
    const isOpen = this.#machine.sessionInfo(session) !== undefined;
    if (isOpen) state.refused?.(error);
    const outcome = isOpen ? "gap" : "unknown";
    this.answered(state, series, outcome, undefined, undefined);
  }

  /** Rejects a command at which the machine threw before it was appended. */
  threw(record: Uint8Array, refused: ErrProposalRefused): void {
    const cursor = new RecordCursor();
    cursor.read(record, 0, record.length);
    const { kind, session, series } = cursor;
    if (kind === RecordKind.Proposal) {
      return this.#rejectSingle(series, refused);
    }
    // In a session, a skip record takes the place of the command, which is rejected
    // once that record is applied.
    const proposal = this.locals.get(session)?.pending.get(series);
    if (proposal !== undefined) proposal.refused = refused;
  }

  /**
   * Collects the proposals that the log has acknowledged and that are not applied
   * here yet, when the log is opened again: a server that was restored from an older
   * backup has lost them. Returns undefined if there are none.
   *
   * The returned function is called once all entries of the reopened log are applied.
   * Collected proposals without a result are then lost: those of sessions are sent
   * again, since they cannot be applied twice, and the others are rejected with an
   * unknown outcome.
   */
  collectAcknowledged(): (() => void) | undefined {
    const controls = this.#control.appended();
    const sessions = [...this.locals.values()]
      .map((state) => [state, state.appended] as const)
      .filter(([state, upTo]) => this.#isMissing(state, upTo));
    const upTo = this.#unacknowledged;
    if (
      controls.length === 0 && sessions.length === 0 &&
      this.#single.first >= upTo
    ) return undefined;
    return () => {
      for (let i = this.#single.first; i < upTo; i++) {
        this.#rejectSingle(
          i,
          new ErrUnknownOutcome(
            `Log of cluster ${this.#context.clusterID} has lost the proposal after it was acknowledged: it was restored from an older backup`,
          ),
        );
      }
      for (const [state, upTo] of sessions) {
        if (!this.#isMissing(state, upTo)) continue;
        state.appended = 0;
        this.#resend(state, false);
      }
      this.#control.resendLost(controls);
    };
  }

  /** True if a proposal up to a series is pending and not about to be sent again. */
  #isMissing(state: SessionState, upTo: number): boolean {
    return state.sender === this && state.phase === "sending" &&
      state.pending.first <= upTo;
  }

  // ------------------------------------------------------------------ results

  #settle(
    proposal: Proposal | undefined,
    settle: (proposal: Proposal) => void,
  ): void {
    if (proposal === undefined) return;
    this.#batcher.uncount(proposal.size);
    settle(proposal);
  }

  #rejectSingle(sequence: number, error: unknown): void {
    this.#settle(this.#single.take(sequence), (p) => p.reject(error));
  }

  /** Handles the result of a proposal outside of any session. */
  proposalApplied(sequence: number, result: Result): void {
    const proposal = this.#single.take(sequence);
    if (proposal !== undefined) this.#resolve(proposal, result);
  }

  /** Settles an applied proposal: rejects it if the machine says that its result is a refusal (R15). */
  #resolve(proposal: Proposal, result: Result): void {
    this.#batcher.uncount(proposal.size);
    const reason = this.#machine.refusalOf(result);
    if (reason === undefined) proposal.resolve(result);
    else proposal.reject(new ErrProposalRefused(reason, { result }));
  }

  /** Handles a proposal outside of any session that an operator has decided to skip. */
  proposalSkipped(sequence: number, reason: string): void {
    this.#rejectSingle(sequence, new ErrProposalRefused(reason));
  }

  /** Handles the outcome of a series of a session. */
  answered(
    state: SessionState,
    series: number,
    outcome: Outcome,
    result: Result | undefined,
    digest: number | undefined,
  ): void {
    state.observer?.(series, { outcome, result, digest });
    // Another replica may have taken the session over.
    if (state.sender !== this) return;
    const { pending } = state;
    if (state.phase === "unclaimed" && this.#isForeign(state)) return;
    if (
      (outcome === "applied" || outcome === "lost") &&
      !this.#isOwn(state, series, digest)
    ) return this.#notApplied(state, series, "conflict", undefined);
    if (outcome === "applied") {
      const proposal = pending.take(series);
      if (proposal !== undefined) this.#resolve(proposal, result!);
    } else if (pending.get(series) !== undefined) {
      this.#notApplied(state, series, outcome, result);
    }
    if (pending.first === pending.next) state.drained?.();
    else this.#pump(state);
  }

  /** True if the log has the session of another client at that index. */
  #isForeign({ index, clientID }: SessionState): boolean {
    const info = this.#machine.sessionInfo(index);
    return info !== undefined && info.clientID !== clientID;
  }

  /**
   * True if the command applied as a series is the one that was sent. Compared
   * only for holders that store their commands: others have no copies.
   */
  #isOwn(
    { pending, acknowledged }: SessionState,
    series: number,
    found: number | undefined,
  ): boolean {
    if (acknowledged === undefined || found === undefined) return true;
    if (series >= pending.next) return false;
    const { bytes, start, size } = pending.get(series) ?? {};
    return bytes === undefined ||
      digest(bytes, start!, start! + size!) === found;
  }

  #notApplied(
    state: SessionState,
    series: number,
    outcome: Exclude<Outcome, "applied">,
    result: Result | undefined,
  ): void {
    const { index, pending } = state;
    const proposal = pending.get(series);
    const reject = (error: Error): void =>
      this.#settle(pending.take(series), (p) => p.reject(error));
    switch (outcome) {
      case "gap":
        return this.#stall(state);
      case "skipped":
        return reject(proposal?.refused ?? skippedError(result));
      case "lost":
        return reject(
          new ErrUnknownOutcome(
            `Proposal ${series} of session ${index} was applied, its result is lost`,
            { applied: true },
          ),
        );
      case "unknown":
        return this.#invalidate(
          state,
          notHolder(index, "unknown"),
          unlessUnseen,
        );
      // Another process that uses the session has acknowledged the series, or used it
      // for another command.
      case "acknowledged":
      case "conflict":
        return this.#invalidate(
          state,
          new ErrInvalidSession(
            "conflict",
            `Session ${index} is used by another process, which sent another command as series ${series}; open a session for each process`,
          ),
          // Later ones may be in the log, and be applied.
          (one) =>
            outcome === "conflict" && one === proposal ? false : undefined,
        );
    }
  }

  #invalidate(
    state: SessionState,
    error: ErrInvalidSession,
    applied: (proposal: Proposal) => boolean | undefined,
  ): void {
    for (const { size } of state.invalidate(error, applied)) {
      this.#batcher.uncount(size);
    }
    state.drained?.();
    this.#forget(state);
  }

  /** Handles an applied registration. */
  registered(clientID: bigint, session: number, owner: Uint8Array): void {
    this.#control.registered(clientID, session, owner);
  }

  /** Handles an applied claim: of this replica, or of another holder of one of its sessions. */
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): void {
    if (this.#control.claimed(session, holder, outcome)) return;
    const state = this.locals.get(session);
    if (
      outcome === "claimed" && state?.holder !== undefined &&
      state.holder !== holder
    ) {
      this.#invalidate(state, notHolder(session, "conflict"), unlessUnseen);
    }
  }

  /** Handles an applied close of a session. */
  unregistered(session: number, closed: ClosedSession | undefined): void {
    this.#control.unregistered(session, closed);
    const state = this.locals.get(session);
    if (state === undefined) return;
    this.#invalidate(
      state,
      new ErrInvalidSession("closed", `Session ${session} is closed`, false),
      unlessUnseen,
    );
  }

  // ----------------------------------------------------------- recovery, close

  /** Settles or resends pending proposals after a recovery from a snapshot at index `applied`, which covers entries that were not applied here. */
  recovered(applied: number): void {
    const error = new ErrUnknownOutcome(
      `Outcome unknown: the replica recovered from a snapshot at index ${applied}, taken after this proposal`,
    );
    for (let i = this.#single.first; i < this.#batcher.unsent; i++) {
      this.#rejectSingle(i, error);
    }
    for (const state of [...this.locals.values()]) {
      this.#reconcile(state);
      if (state.sender !== this) continue;
      const { index, clientID } = state;
      const isGone = index <= applied &&
        this.#machine.sessionInfo(index)?.clientID !== clientID;
      // Invalid at once: sending its proposals again would lead to the same outcome,
      // and to a burst when many replicas recover.
      if (isGone) {
        this.#invalidate(state, notHolder(index, "unknown"), () => undefined);
      } else this.#resend(state, true);
    }
    this.#control.recovered();
  }

  /** Settles the pending series of a session whose outcome the replicated state has. */
  #reconcile(state: SessionState): void {
    const { index, pending } = state;
    const info = this.#machine.sessionInfo(index);
    if (info?.clientID !== state.clientID) return;
    const upTo = Math.min(info.next, pending.next);
    for (let series = pending.first; series < upTo; series++) {
      const known = this.#machine.outcomeOf(index, series);
      if (known === undefined || state.sender !== this) return;
      const { outcome, result, digest } = known;
      this.answered(state, series, outcome, result, digest);
    }
  }

  /** Rejects all waiting callers, though commands that were sent may still be applied; holders that store their commands keep waiting. */
  fail(error: unknown): void {
    for (let i = this.#single.first; i < this.#single.next; i++) {
      this.#rejectSingle(i, error);
    }
    for (const state of this.locals.values()) {
      if (state.acknowledged !== undefined) continue;
      // Their series stay: they are still sent, or skipped.
      for (const proposal of state.pending.list()) proposal.reject(error);
    }
    this.#control.fail(error);
  }

  /** Rejects waiting callers with `waiting`, and later ones with `later`. */
  close(waiting: unknown, later: unknown): void {
    this.#batcher.close(later);
    this.#cancelRetry?.();
    for (const proposal of this.#single.list()) proposal.reject(waiting);
    this.#control.close(waiting);
    for (const state of this.locals.values()) {
      // Their series stay: the replica that continues the session skips them.
      for (const proposal of state.pending.list()) proposal.reject(waiting);
      state.sender = undefined;
      state.drained?.();
    }
    this.locals.clear();
  }
}
