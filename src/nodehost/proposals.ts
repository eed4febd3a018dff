/**
 * The way of a proposal into the log, and of its answer back.
 *
 * Proposals made in one turn of the event loop share a batch, and what is
 * proposed while appends are under way shares the next. A proposal outside of any
 * session is sent once. Those of a session are sent again, in order, until they
 * are answered or the session is refused.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf, isSameBytes } from "../bytes.ts";
import {
  APPENDS_IN_FLIGHT_MAX,
  COMMAND_BYTES_MAX,
  PENDING_BYTES_MAX,
  PENDING_PROPOSALS_MAX,
  REGISTER_RETRY_LAST_MS,
  RETRY_LAST_MS,
  SESSION_OWNER_BYTES_MAX,
  SESSION_WINDOW_MAX,
} from "../limits.ts";
import { ErrRecordsRefused, ErrUnknownOutcome } from "../log/errors.ts";
import type { Records } from "../log/log.ts";
import { recordAt, RecordKind, RecordPacker } from "../log/records.ts";
import type {
  ApplyListener,
  ClaimOutcome,
  Outcome,
} from "../rsm/state_machine.ts";
import {
  ErrInvalidSession,
  ErrProposalRefused,
  ErrProposalSkipped,
  ErrSystemBusy,
} from "../rsm/errors.ts";
import { digest } from "../rsm/session_table.ts";
import { Backoff, isPromise, onAbort } from "../async.ts";
import {
  claimRecord,
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  RecordCursor,
  registerRecord,
  sessionHeadLength,
  unregisterRecord,
} from "../rsm/record_codec.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { ErrPayloadTooBig } from "./errors.ts";
import type { OwnRehearsal } from "../rehearsal/rehearsal.ts";
import {
  makeSession,
  Proposal,
  SequenceWindow,
  Session,
  SessionState,
  stateOf,
} from "./session.ts";

/** A record that opens, closes or claims a session: sent again until it is answered or nobody wants it. */
interface Control {
  readonly record: Uint8Array;
  /** How often it was handed to the log. */
  sends: number;
  /** True if the log has acknowledged it since it was sent last. */
  acknowledged: boolean;
  /** Whether somebody waits for it still. */
  wanted: boolean;
  /** Whether it counts against the queue. */
  counted: boolean;
  /** Of a registration: by which client. */
  client: Client | undefined;
  /** Whose the session is to be; undefined as long as nobody can know. */
  owner: Uint8Array | undefined;
  /** Of a registration that has opened somebody else's: when it is tried again. */
  backoff: Backoff | undefined;
  cancelRetry: (() => void) | undefined;
  /** The session it is known to have opened or closed, once it was applied. */
  session: number | undefined;
  resolve(session: number): void;
  reject(reason: unknown): void;
}

/** A client that opens one session after the other, all under one id. */
export interface Client {
  /** What they are opened with. Everybody may read it in the log, and repeat it. */
  readonly clientID: bigint;
  /** Sessions up to here are none of its own, though it has opened them: they may come by again, in a state that is brought up anew. */
  readonly after: number;
  /** Whose its sessions are, if one is known: those of others are none of its own (H14). */
  readonly owner: Uint8Array | undefined;
  /** Told that a session was opened that is somebody else's. */
  readonly refused: (error: ErrProposalRefused) => void;
}

/** A command, or a place to be skipped, that may have been sent in an earlier life, and who waits for it. */
export interface Resumed {
  readonly cmd: Uint8Array | undefined;
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/** A batch on its way, and whose records are in it. */
interface Outgoing {
  records: Records | undefined;
  /** The proposals outside of any session, from this one on … */
  from: number;
  /** … to before this one. */
  upTo: number;
  /** The sessions of its records, with the last series of each. */
  readonly sessions: Map<SessionState, number>;
  readonly controls: Control[];
}

const ORPHANS_MAX = 1024;

/** True if a record is to be answered yet. */
function isAwaited({ wanted, session }: Control): boolean {
  return wanted && session === undefined;
}

/** What a proposal gets whose series was skipped. */
function skipped(result: Result | undefined): Error {
  const reason = result?.data;
  return reason === undefined
    ? new ErrProposalSkipped()
    : new ErrProposalRefused(new TextDecoder().decode(reason));
}

function resultLost(): ErrUnknownOutcome {
  return new ErrUnknownOutcome("Proposal was applied, its result is lost", {
    applied: true,
  });
}

function notHeld(
  session: number,
  reason: "conflict" | "unknown",
): ErrInvalidSession {
  return new ErrInvalidSession(
    reason,
    reason === "conflict"
      ? `Session ${session} is held by somebody else, who has a copy of it`
      : `Session ${session} is not, or no longer, one of the cluster`,
  );
}

/** The proposals of one replica. */
export class Proposals implements ApplyListener<SessionState> {
  /** The low half of what its proposals outside of any session carry. */
  readonly originLow: number;
  /** The high half of it. */
  readonly originHigh: number;
  /** Its sessions by their index. */
  readonly locals: Map<number, SessionState> = new Map();
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #rehearsal: () => OwnRehearsal | undefined;
  readonly #backoff: Backoff;
  readonly #proposalsMax: number;
  readonly #bytesMax: number;
  readonly #packer = new RecordPacker();
  readonly #single: SequenceWindow<Proposal> = new SequenceWindow();
  /** Of the proposals outside of any session, the first that was not handed to the log. */
  #unsent = 1;
  /** Of the same, the first that the log has not acknowledged. */
  #unacknowledged = 1;
  readonly #registrations = new Map<bigint, Control>();
  readonly #closings = new Map<number, Control>();
  /** Claims by the new holder, who is random. */
  readonly #claims = new Map<bigint, Control>();
  #open: Outgoing;
  #queue: Outgoing[] = [];
  #inFlight = 0;
  #scheduled = false;
  #count = 0;
  #bytes = 0;
  readonly #stalled = new Set<SessionState>();
  #stalledControls: Control[] = [];
  #cancelRetry: (() => void) | undefined;
  #closed: unknown;

  /** Creates the pipeline of a replica; `rehearsal` returns the rehearsal of commands before they are appended, undefined while they are not tried. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    rehearsal: () => OwnRehearsal | undefined,
  ) {
    const { env, config } = context;
    const origin = env.random64();
    this.originLow = Number(origin & 0xFFFFFFFFn);
    this.originHigh = Number(origin >> 32n);
    this.#context = context;
    this.#machine = machine;
    this.#rehearsal = rehearsal;
    this.#backoff = new Backoff(env);
    this.#proposalsMax = config.pendingProposalsMax ?? PENDING_PROPOSALS_MAX;
    this.#bytesMax = config.pendingBytesMax ?? PENDING_BYTES_MAX;
    this.#open = this.#newBatch();
  }

  #newBatch(): Outgoing {
    const from = this.#single.next;
    return {
      records: undefined,
      from,
      upTo: from,
      sessions: new Map(),
      controls: [],
    };
  }

  /** Why a command is not taken, if it is not. */
  #refusal(
    cmd: Uint8Array,
    signal: AbortSignal | undefined,
  ): unknown {
    if (!(cmd instanceof Uint8Array)) {
      return new TypeError("Command is not a Uint8Array");
    }
    if (cmd.length > COMMAND_BYTES_MAX) {
      return new ErrPayloadTooBig(cmd.length, COMMAND_BYTES_MAX);
    }
    if (signal?.aborted) return signal.reason;
    return this.#closed ?? this.#busy(cmd.length);
  }

  #busy(bytes: number): ErrSystemBusy | undefined {
    return this.#count < this.#proposalsMax &&
        this.#bytes + bytes <= this.#bytesMax
      ? undefined
      : new ErrSystemBusy(
        `${this.#count} proposals of ${this.#bytes} bytes wait already`,
      );
  }

  /** Proposes a command. It is copied before this returns. */
  propose(
    cmd: Uint8Array,
    session: Session | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    const refusal = this.#refusal(cmd, signal);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (session !== undefined && !(session instanceof Session)) {
      return Promise.reject(new TypeError("Session is none of this library"));
    }
    const state = session && stateOf(session);
    if (state === undefined) return this.#proposeSingle(cmd, signal);
    const invalid = this.#checkSession(session!, state);
    if (invalid !== undefined) return Promise.reject(invalid);
    return this.#proposeInSession(state, cmd, signal);
  }

  #checkSession(
    session: Session,
    state: SessionState,
  ): ErrInvalidSession | undefined {
    const { clusterID } = this.#context;
    if (session.clusterID !== clusterID) {
      return new ErrInvalidSession(
        "foreign",
        `Session ${session.id} is one of cluster ${session.clusterID}, not of ${clusterID}`,
        false,
      );
    }
    const client = state.home === this
      ? undefined
      : this.#machine.standing(state.index)?.clientID;
    if (client !== undefined && client !== state.clientID) {
      return new ErrInvalidSession(
        "foreign",
        `Session ${session.id} is one of another log`,
        false,
      );
    }
    if (state.invalid === undefined) return undefined;
    // What is refused before it is sent is not applied, whatever was before it.
    const { reason, message } = state.invalid;
    return new ErrInvalidSession(reason, message, false);
  }

  #proposeSingle(
    cmd: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      const sequence = this.#single.next;
      const length = proposalHeadLength(sequence) + cmd.length;
      const at = this.#begin(length);
      const { bytes } = this.#packer;
      bytes.set(
        cmd,
        putProposalHead(bytes, at, this.originLow, this.originHigh, sequence),
      );
      this.#single.push(new Proposal(cmd.length, resolve, reject, signal));
      this.#open.upTo = sequence + 1;
      this.#count++;
      this.#bytes += cmd.length;
    });
  }

  #proposeInSession(
    state: SessionState,
    cmd: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#push(state, cmd, new Proposal(cmd.length, resolve, reject, signal));
    });
  }

  #push(
    state: SessionState,
    cmd: Uint8Array | undefined,
    proposal: Proposal,
  ): void {
    if (state.home !== this) this.#attach(state);
    const series = state.pending.push(proposal);
    this.#count++;
    this.#bytes += proposal.size;
    if (
      state.sent === series - 1 && !state.stalled && !state.held &&
      series - state.responded <= SESSION_WINDOW_MAX
    ) {
      this.#put(state, series, proposal, cmd);
    } else {
      // To be sent in its turn: it waits in a copy of its own.
      if (cmd !== undefined) proposal.bytes ??= copyOf(cmd);
    }
  }

  /**
   * As `propose()`, for one that keeps the commands itself: `resolve` or `reject`
   * is called in the very step that applies the command, or that shows it never
   * will be. The bytes are the caller's, who leaves them as they are until then.
   * Returns why it was not taken, if it was not.
   */
  submit(
    session: Session,
    cmd: Uint8Array,
    resolve: (result: Result) => void,
    reject: (reason: unknown) => void,
  ): unknown {
    const state = stateOf(session)!;
    const refusal = this.#refusal(cmd, undefined) ??
      this.#checkSession(session, state);
    if (refusal !== undefined) return refusal;
    const proposal = new Proposal(cmd.length, resolve, reject, undefined);
    proposal.bytes = cmd;
    this.#push(state, cmd, proposal);
    return undefined;
  }

  /** As `submit()`, for a place in the series that is to be skipped; `done` is called when it is decided. */
  skip(session: Session, done: () => void): unknown {
    const state = stateOf(session)!;
    const refusal = this.#closed ?? this.#busy(0) ??
      this.#checkSession(session, state);
    if (refusal !== undefined) return refusal;
    this.#push(state, undefined, new Proposal(0, done, done, undefined));
    return undefined;
  }

  /**
   * A session that was opened in an earlier life of its holder, who goes on at
   * series `next` with commands that may have been sent before. They are answered
   * as soon as the state knows of them; nothing is sent before `begin()`.
   *
   * @param unseen whether they may have been applied where nobody here could see it
   */
  resume(
    index: number,
    clientID: bigint,
    next: number,
    unseen: boolean,
    commands: readonly Resumed[],
  ): Session {
    const state = new SessionState(index, clientID);
    state.held = true;
    state.pending.first = next;
    state.sent = next - 1;
    state.acknowledged = next - 1;
    for (const { cmd, resolve, reject } of commands) {
      const size = cmd?.length ?? 0;
      const proposal = new Proposal(size, resolve, reject, undefined);
      proposal.bytes = cmd;
      proposal.unseen = unseen;
      state.pending.push(proposal);
    }
    this.#take(state);
    this.reconcile(state);
    return makeSession(this.#context.clusterID, state);
  }

  /** What a session was opened with. Only the host's own code can tell: the outbox may be of another bundle. */
  clientOf(session: Session): bigint {
    return stateOf(session)!.clientID;
  }

  /** Sends for a session from now on, as `holder`, who acknowledges by `acknowledge()` alone, and is told what is refused as somebody else's. */
  begin(
    session: Session,
    holder: bigint,
    refused: (error: ErrProposalRefused) => void,
  ): void {
    const state = stateOf(session)!;
    state.holder = holder;
    state.refused = refused;
    state.acknowledged ??= 0;
    if (!state.held) return;
    state.held = false;
    this.#resend(state, false);
  }

  /** Gives up a session that the cluster does not have: what may have been applied unseen is told from what was not. */
  abandon(session: Session): void {
    const state = stateOf(session)!;
    if (state.home !== this) return;
    this.#lose(state, (proposal) => proposal.unseen ? undefined : false);
  }

  #lose(
    state: SessionState,
    applied: (proposal: Proposal) => boolean | undefined,
  ): void {
    this.#invalidate(state, notHeld(state.index, "unknown"), applied);
  }

  /** From now on the results up to `series` will not be asked for again. */
  acknowledge(session: Session, series: number): void {
    const state = stateOf(session)!;
    if (!(series > (state.acknowledged ?? 0))) return;
    state.acknowledged = series;
    if (state.home === this && !state.stalled) this.#pump(state);
  }

  /**
   * Takes a session over from its holder so far; resolves once that is so.
   *
   * @throws ErrInvalidSession if it is not there, or held by somebody else (H14)
   */
  claim(session: number, from: bigint, holder: bigint): Promise<number> {
    return this.#control(
      claimRecord(session, from, holder),
      undefined,
      (control) => this.#claims.set(holder, control),
    );
  }

  /** Room for a record of `length` bytes in the open batch, which will be sent. */
  #begin(length: number): number {
    const packer = this.#packer;
    if (packer.length > 0 && !packer.fits(length)) this.#seal();
    this.#schedule();
    return packer.begin(length);
  }

  /** Writes a session's proposal, or the skipping of one that nobody wants any more. */
  #put(
    state: SessionState,
    series: number,
    proposal: Proposal,
    cmd: Uint8Array | undefined,
  ): void {
    const { index } = state;
    const first = state.responded + 1;
    const kind = cmd === undefined
      ? RecordKind.Skip
      : RecordKind.SessionProposal;
    const head = sessionHeadLength(index, series, series - first);
    const at = this.#begin(head + (cmd?.length ?? 0));
    const { bytes } = this.#packer;
    const start = putSessionHead(
      bytes,
      at,
      kind,
      index,
      series,
      series - first,
    );
    if (cmd !== undefined) {
      bytes.set(cmd, start);
      if (proposal.bytes === undefined) {
        proposal.bytes = bytes;
        proposal.start = start;
      }
    }
    state.sent = series;
    this.#open.sessions.set(state, series);
  }

  /** Makes this the replica that sends for a session, and takes over what is not answered. */
  #attach(state: SessionState): void {
    state.home?.release(state);
    this.#take(state);
    this.#resend(state, true);
  }

  #take(state: SessionState): void {
    state.home = this;
    this.locals.set(state.index, state);
    for (const { size } of state.pending.list()) {
      this.#count++;
      this.#bytes += size;
    }
  }

  /** Sends all of a session that is not answered, once more. */
  #resend(state: SessionState, unseen: boolean): void {
    if (unseen) {
      for (const proposal of state.pending.list()) proposal.unseen = true;
    }
    state.stalled = false;
    state.sent = state.pending.first - 1;
    this.#pump(state);
  }

  /** Sends what of a session is to be sent, as far as the window allows. */
  #pump(state: SessionState): void {
    if (state.held) return;
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

  /** Gives a session up to another replica. */
  release(state: SessionState): void {
    this.locals.delete(state.index);
    this.#stalled.delete(state);
    this.#machine.detach(state.index);
    for (const proposal of state.pending.list()) this.#uncount(proposal);
    state.home = undefined;
  }

  /** Opens a session; resolves once it is known under the index of its record. */
  openSession(
    owner: Uint8Array,
    signal: AbortSignal | undefined,
    client?: Client,
  ): Promise<Session> {
    // What no record may hold must not get into the log: it would end every replica.
    if (!(owner instanceof Uint8Array)) {
      return Promise.reject(new TypeError("Owner is not a Uint8Array"));
    }
    if (owner.length > SESSION_OWNER_BYTES_MAX) {
      return Promise.reject(
        new RangeError(
          `Owner of ${owner.length} bytes is over the limit of ${SESSION_OWNER_BYTES_MAX}`,
        ),
      );
    }
    const clientID = client?.clientID ?? this.#context.env.random64();
    return this.#control(registerRecord(clientID, owner), signal, (control) => {
      control.client = client;
      control.owner = client?.owner;
      this.#registrations.set(clientID, control);
    }).then((index) => {
      const state = new SessionState(index, clientID);
      state.home = this;
      this.locals.set(index, state);
      return makeSession(this.#context.clusterID, state);
    });
  }

  /** Closes a session, after what waits in it. */
  async closeSession(session: Session): Promise<void> {
    const state = stateOf(session);
    if (state === undefined) return;
    const invalid = this.#checkSession(session, state);
    if (invalid !== undefined) throw invalid;
    if (state.home !== this) this.#attach(state);
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
      await this.#control(unregisterRecord(index), undefined, (control) => {
        this.#closings.set(index, control);
      });
    } catch (error) {
      // It is open still, and can be closed through another replica.
      if (state.invalid === closed) state.invalid = undefined;
      throw error;
    }
  }

  /** Closes a session nothing is sent through here; resolves with the series that would have been next in it, or 0 if it was not there. What still comes of it has no effect. */
  retire(index: number): Promise<number> {
    return this.#control(unregisterRecord(index), undefined, (control) => {
      this.#closings.set(index, control);
    });
  }

  #control(
    record: Uint8Array,
    signal: AbortSignal | undefined,
    register: (control: Control) => void,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const refusal = signal?.aborted
        ? signal.reason
        : this.#closed ?? this.#busy(0);
      if (refusal !== undefined) return reject(refusal);
      const control: Control = {
        record,
        sends: 0,
        acknowledged: false,
        wanted: true,
        counted: true,
        client: undefined,
        owner: undefined,
        backoff: undefined,
        cancelRetry: undefined,
        session: undefined,
        resolve(session): void {
          this.wanted = false;
          this.cancelRetry?.();
          ignore();
          resolve(session);
        },
        reject(reason): void {
          this.wanted = false;
          this.cancelRetry?.();
          ignore();
          reject(reason);
        },
      };
      const ignore = onAbort(signal, (reason) => control.reject(reason));
      register(control);
      this.#count++;
      this.#sendControl(control);
    });
  }

  #sendControl(control: Control): void {
    control.sends++;
    control.acknowledged = false;
    const at = this.#begin(control.record.length);
    this.#packer.bytes.set(control.record, at);
    this.#open.controls.push(control);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => this.#flush());
  }

  #seal(): void {
    this.#open.records = this.#packer.seal();
    this.#queue.push(this.#open);
    this.#open = this.#newBatch();
  }

  #flush(): void {
    this.#scheduled = false;
    while (this.#inFlight < APPENDS_IN_FLIGHT_MAX) {
      if (this.#queue.length === 0) {
        if (this.#packer.length === 0) return;
        this.#seal();
      }
      this.#send(this.#queue.shift()!);
    }
  }

  #send(batch: Outgoing): void {
    if (this.#closed !== undefined) return;
    this.#unsent = batch.upTo;
    try {
      const appended = this.#append(batch);
      if (!isPromise(appended)) return this.#backoff.reset();
      this.#inFlight++;
      const done = (): void => {
        this.#inFlight--;
        this.#flush();
      };
      // Never rejects: both outcomes are handled.
      appended.then(() => {
        this.#backoff.reset();
        this.#taken(batch);
      }, (error) => {
        this.#failed(batch, error);
      }).then(done);
    } catch (error) {
      this.#failed(batch, error);
    }
  }

  /** The log has acknowledged a batch. */
  #taken({ upTo, sessions, controls }: Outgoing): void {
    this.#unacknowledged = upTo;
    for (const [state, series] of sessions) state.taken = series;
    for (const control of controls) control.acknowledged = true;
  }

  /**
   * Notes what the log has acknowledged and is not applied here, when its home
   * may have been put back to an older copy; undefined if there is nothing. What
   * is returned is to be called once all that the log had at the time of the
   * call is applied here: what is still not answered then is lost. It is sent
   * again where it cannot be applied twice, and else of unknown outcome.
   */
  acknowledged(): (() => void) | undefined {
    const kinds = [this.#registrations, this.#closings, this.#claims];
    const controls = kinds.flatMap((kind) => [...kind.values()])
      .filter((control) => control.acknowledged && isAwaited(control));
    const sessions = [...this.locals.values()]
      .map((state) => [state, state.taken] as const)
      .filter(([state, upTo]) => this.#isMissing(state, upTo));
    const upTo = this.#unacknowledged;
    if (
      controls.length === 0 && sessions.length === 0 &&
      this.#single.first >= upTo
    ) return undefined;
    return () => {
      for (let i = this.#single.first; i < upTo; i++) {
        this.#settle(
          this.#single.take(i),
          (p) =>
            p.reject(
              new ErrUnknownOutcome(
                "Log has lost it after it was acknowledged: it was restored from an older backup",
              ),
            ),
        );
      }
      for (const [state, upTo] of sessions) {
        if (!this.#isMissing(state, upTo)) continue;
        state.taken = 0;
        this.#resend(state, false);
      }
      for (const control of controls) {
        if (control.acknowledged && isAwaited(control)) {
          this.#sendControl(control);
        }
      }
    };
  }

  /** True if something up to a series is not answered, and not about to be sent again. */
  #isMissing(state: SessionState, upTo: number): boolean {
    return state.home === this && !state.held && !state.stalled &&
      state.pending.first <= upTo;
  }

  /** Gives a batch to the log, without the commands at which the machine throws, where they are tried (H17). */
  #append(batch: Outgoing): MaybePromise<number> {
    const { log } = this.#context;
    const own = this.#rehearsal();
    if (own === undefined) return log.append(batch.records!);
    const records = batch.records!;
    return own.rehearsal.append(
      records,
      own.isTrying,
      (passed) => {
        // It may have waited for its turn.
        if (this.#closed !== undefined) throw this.#closed;
        batch.records = passed;
        return log.append(passed);
      },
      (at, error) => this.#threw(recordAt(records, at), error),
    );
  }

  /** The machine threw at a command: it is not in the log, and never will be. */
  #threw(record: Uint8Array, refused: ErrProposalRefused): void {
    const cursor = new RecordCursor();
    cursor.read(record, 0, record.length);
    const { kind, session, series } = cursor;
    if (kind === RecordKind.Proposal) {
      this.#settle(this.#single.take(series), (p) => p.reject(refused));
      return;
    }
    // A record takes its place; once that is applied, it is refused.
    const proposal = this.locals.get(session)?.pending.get(series);
    if (proposal !== undefined) proposal.refused = refused;
  }

  /** An append failed: who stands for himself is told, what belongs to a session is sent again. */
  #failed(batch: Outgoing, error: unknown): void {
    if (this.#closed !== undefined) return;
    if (error instanceof ErrRecordsRefused) return this.#refused(batch, error);
    for (let i = batch.from; i < batch.upTo; i++) {
      this.#settle(this.#single.take(i), (p) => p.reject(error));
    }
    for (const state of batch.sessions.keys()) {
      if (state.home === this) this.#stall(state);
    }
    this.#stalledControls.push(...batch.controls);
    if (batch.controls.length > 0) this.#retry();
  }

  /** The log took a batch but for some records, which are not in it and never will be. */
  #refused(batch: Outgoing, { refusals }: ErrRecordsRefused): void {
    this.#taken(batch);
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
      if (control !== undefined) this.#refuseControl(control, error);
      else if (kind === RecordKind.Proposal) {
        this.#settle(this.#single.take(series), (p) => p.reject(error));
      } else {
        this.#refusedInSession(this.locals.get(cursor.session), series, error);
      }
    }
  }

  /** A session that is somebody else's: it is sent again, since its owner may sign in again; unless it is gone. */
  #refusedInSession(
    state: SessionState | undefined,
    series: number,
    error: ErrProposalRefused,
  ): void {
    if (state === undefined || state.home !== this) return;
    const isThere = this.#machine.standing(state.index) !== undefined;
    if (isThere) state.refused?.(error);
    const outcome = isThere ? "gap" : "unknown";
    this.answered(state, series, outcome, undefined, undefined);
  }

  #refuseControl(control: Control, error: unknown): void {
    this.#uncountControl(control);
    for (
      const controls of [this.#registrations, this.#closings, this.#claims]
    ) {
      for (const [key, other] of controls) {
        if (other === control) controls.delete(key as never);
      }
    }
    control.reject(error);
  }

  #stall(state: SessionState): void {
    if (state.held) return;
    state.stalled = true;
    this.#stalled.add(state);
    this.#retry();
  }

  #retry(): void {
    this.#cancelRetry ??= this.#context.env.setTimer(() => {
      this.#cancelRetry = undefined;
      const stalled = [...this.#stalled];
      const controls = this.#stalledControls;
      this.#stalled.clear();
      this.#stalledControls = [];
      for (const state of stalled) this.#resend(state, false);
      for (const control of controls) {
        if (control.wanted) this.#sendControl(control);
        else this.#uncountControl(control);
      }
      this.#trimRegistrations();
    }, this.#backoff.next());
  }

  #uncount(proposal: Proposal): void {
    this.#count--;
    this.#bytes -= proposal.size;
  }

  #uncountControl(control: Control): void {
    if (control.counted) this.#count--;
    control.counted = false;
  }

  #settle(
    proposal: Proposal | undefined,
    settle: (proposal: Proposal) => void,
  ): void {
    if (proposal === undefined) return;
    this.#uncount(proposal);
    settle(proposal);
  }

  /** A proposal of its own, outside of any session, was applied. */
  proposalApplied(sequence: number, result: Result): void {
    const proposal = this.#single.take(sequence);
    if (proposal === undefined) return;
    this.#uncount(proposal);
    this.#resolve(proposal, result);
  }

  /** Ends a proposal that was applied: as refused, if the machine says that this is what its result means (R15). */
  #resolve(proposal: Proposal, result: Result): void {
    const reason = this.#machine.refusalOf(result);
    if (reason === undefined) proposal.resolve(result);
    else proposal.reject(new ErrProposalRefused(reason, { result }));
  }

  /** A proposal of its own, outside of any session, is skipped by an operator's decision. */
  proposalSkipped(sequence: number, reason: string): void {
    this.#settle(
      this.#single.take(sequence),
      (proposal) => proposal.reject(new ErrProposalRefused(reason)),
    );
  }

  /** Something is known of a proposal of a session of its own. */
  answered(
    state: SessionState,
    series: number,
    outcome: Outcome,
    result: Result | undefined,
    digest: number | undefined,
  ): void {
    // Another replica has taken the session, and its count, meanwhile.
    if (state.home !== this) return;
    const { pending } = state;
    if (state.held && this.#isForeign(state)) return;
    if (
      (outcome === "applied" || outcome === "lost") &&
      !this.#isOwn(state, series, digest)
    ) return this.#answeredOtherwise(state, series, "conflict", undefined);
    if (outcome === "applied") {
      const proposal = pending.take(series);
      if (proposal !== undefined) {
        this.#uncount(proposal);
        this.#resolve(proposal, result!);
      }
    } else if (pending.get(series) !== undefined) {
      this.#answeredOtherwise(state, series, outcome, result);
    }
    if (pending.first === pending.next) state.drained?.();
    else if (state.sent + 1 < pending.next && !state.stalled) this.#pump(state);
  }

  /** Whether the log has somebody else's session at its index. */
  #isForeign({ index, clientID }: SessionState): boolean {
    const standing = this.#machine.standing(index);
    return standing !== undefined && standing.clientID !== clientID;
  }

  /**
   * Whether what was applied as that series is what this holder has in its place.
   * Asked of those only whose commands outlive them: others have no copies.
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

  #answeredOtherwise(
    state: SessionState,
    series: number,
    outcome: Exclude<Outcome, "applied">,
    result: Result | undefined,
  ): void {
    const refused = state.pending.get(series);
    const settle = (error: Error): void =>
      this.#settle(state.pending.take(series), (p) => p.reject(error));
    const conflict = (): void =>
      this.#invalidate(
        state,
        new ErrInvalidSession(
          "conflict",
          `Session ${state.index} is used by somebody else: series ${series} is not this one`,
        ),
        // Those behind it may be in the log already, and be applied yet.
        (proposal) =>
          outcome === "conflict" && proposal === refused ? false : undefined,
      );
    switch (outcome) {
      case "gap":
        return this.#stall(state);
      case "skipped":
        return settle(refused?.refused ?? skipped(result));
      case "lost":
        return settle(resultLost());
      case "unknown":
        return this.#invalidate(
          state,
          new ErrInvalidSession(
            "unknown",
            `Session ${state.index} is not, or no longer, one of the cluster`,
          ),
          (proposal) => proposal.unseen ? undefined : false,
        );
      // Its holder has removed it for good before he acknowledged it.
      case "acknowledged":
      case "conflict":
        return conflict();
    }
  }

  #invalidate(
    state: SessionState,
    error: ErrInvalidSession,
    applied: (proposal: Proposal) => boolean | undefined,
  ): void {
    for (const proposal of state.invalidate(error, applied)) {
      this.#uncount(proposal);
    }
    state.drained?.();
    this.locals.delete(state.index);
    this.#stalled.delete(state);
    this.#machine.detach(state.index);
  }

  /** A session was opened: by this replica, if it knows the client id, and nobody has repeated that. */
  registered(clientID: bigint, session: number, owner: Uint8Array): void {
    const control = this.#registrations.get(clientID);
    if (control === undefined) return;
    if (session <= (control.client?.after ?? 0)) return;
    const isOwn = control.owner === undefined ||
      isSameBytes(control.owner, owner);
    // The one that was opened may be evicted by now.
    const own = this.#ownOf(clientID, control) ?? (isOwn ? session : undefined);
    if (own === undefined) this.#openedOther(control, session);
    else this.#opened(clientID, control, own);
  }

  /**
   * The session that a registration has opened, if the state has it. Nobody can
   * repeat a client id before its first registration is in the log: of those of
   * unknown owner, the first is its own (H14).
   */
  #ownOf(clientID: bigint, { client, owner }: Control): number | undefined {
    return this.#machine.sessionOf(clientID, client?.after ?? 0, owner);
  }

  /** What was opened is somebody else's, who has repeated the client id; or this client is somebody else now, until its owner signs in again (U34). */
  #openedOther(control: Control, session: number): void {
    if (!control.wanted) return;
    control.client?.refused(
      new ErrProposalRefused(`Session ${session} is somebody else's`),
    );
    const { env } = this.#context;
    control.backoff ??= new Backoff(env, RETRY_LAST_MS, REGISTER_RETRY_LAST_MS);
    control.cancelRetry ??= env.setTimer(() => {
      control.cancelRetry = undefined;
      this.#sendControl(control);
    }, control.backoff.next());
  }

  #opened(clientID: bigint, control: Control, session: number): void {
    const { wanted, sends } = control;
    control.owner ??= this.#machine.standing(session)?.owner;
    this.#uncountControl(control);
    // Seen before, when the state came from a snapshot.
    if (control.session === session) return;
    control.session ??= session;
    // A copy that comes later opens a session nobody will use.
    if (sends > 1) this.#trimRegistrations();
    else this.#registrations.delete(clientID);
    if (wanted) control.resolve(session);
    else {
      this.#control(unregisterRecord(session), undefined, (control) => {
        this.#closings.set(session, control);
      }).catch(() => {
        // It will be evicted in its time.
      });
    }
  }

  /** A session was taken over, or was not. */
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): void {
    const control = this.#claims.get(holder);
    const error = outcome === "claimed" ? undefined : notHeld(session, outcome);
    if (control !== undefined) {
      this.#claims.delete(holder);
      this.#uncountControl(control);
      if (error === undefined) control.resolve(session);
      else control.reject(error);
      return;
    }
    const state = this.locals.get(session);
    // Somebody who had the right to took it over: what came before is theirs now.
    if (
      outcome === "claimed" && state?.holder !== undefined &&
      state.holder !== holder
    ) {
      this.#invalidate(
        state,
        notHeld(session, "conflict"),
        (proposal) => proposal.unseen ? undefined : false,
      );
    }
  }

  #trimRegistrations(): void {
    for (const [clientID, { wanted }] of this.#registrations) {
      if (this.#registrations.size <= ORPHANS_MAX) return;
      if (!wanted) this.#registrations.delete(clientID);
    }
  }

  /** A session was closed, or was not there to be closed. */
  unregistered(session: number, next: number): void {
    const control = this.#closings.get(session);
    if (control !== undefined) {
      this.#closings.delete(session);
      this.#uncountControl(control);
      control.resolve(next);
    }
    const state = this.locals.get(session);
    if (state === undefined) return;
    this.#invalidate(
      state,
      new ErrInvalidSession("closed", `Session ${session} is closed`, false),
      (proposal) => proposal.unseen ? undefined : false,
    );
  }

  /**
   * The state came from a snapshot, past entries nobody here has seen; `applied`
   * is its index.
   */
  recovered(applied: number): void {
    for (let i = this.#single.first; i < this.#unsent; i++) {
      this.#settle(this.#single.take(i), (p) =>
        p.reject(
          new ErrUnknownOutcome("State came from a snapshot, past the answer"),
        ));
    }
    for (const state of [...this.locals.values()]) {
      this.reconcile(state);
      if (state.home !== this) continue;
      const { index, clientID } = state;
      const isGone = index <= applied &&
        this.#machine.standing(index)?.clientID !== clientID;
      // Sent again, it would learn the same from the log, long after what was
      // applied is seen here; and all who are far behind would send all again.
      if (isGone) this.#lose(state, () => undefined);
      else this.#resend(state, true);
    }
    for (const [clientID, control] of [...this.#registrations]) {
      if (control.session !== undefined) continue;
      // It may have been evicted since, or be still to come: to be sure, again.
      control.sends++;
      const session = this.#ownOf(clientID, control);
      if (session !== undefined) this.#opened(clientID, control, session);
      else if (control.wanted) this.#sendControl(control);
    }
    for (const control of this.#closings.values()) this.#sendControl(control);
    for (const control of this.#claims.values()) this.#sendControl(control);
  }

  /** Tells of the series of a session what the state knows of them already. */
  reconcile(state: SessionState): void {
    const { index, pending } = state;
    const standing = this.#machine.standing(index);
    if (standing?.clientID !== state.clientID) return;
    const upTo = Math.min(standing.next, pending.next);
    for (let series = pending.first; series < upTo; series++) {
      const known = this.#machine.outcomeOf(index, series);
      if (known === undefined || state.home !== this) return;
      const { outcome, result, digest } = known;
      this.answered(state, series, outcome, result, digest);
    }
  }

  /**
   * Fails all callers that wait with `error`, while what was sent may be applied
   * yet; what a holder keeps itself goes on waiting.
   */
  fail(error: unknown): void {
    for (let i = this.#single.first; i < this.#single.next; i++) {
      this.#settle(this.#single.take(i), (p) => p.reject(error));
    }
    for (const state of this.locals.values()) {
      if (state.acknowledged !== undefined) continue;
      // Their places in the series stay: they are sent, or skipped, all the same.
      for (const proposal of state.pending.list()) proposal.reject(error);
    }
    for (const control of this.#registrations.values()) {
      if (control.wanted && control.client === undefined) control.reject(error);
    }
  }

  /** Fails all that waits with `waiting`, and all that comes with `later`. */
  close(waiting: unknown, later: unknown): void {
    this.#closed = later;
    this.#cancelRetry?.();
    this.#queue = [];
    for (const proposal of this.#single.list()) proposal.reject(waiting);
    for (const control of this.#registrations.values()) {
      if (control.wanted) control.reject(waiting);
    }
    for (const control of this.#closings.values()) control.reject(waiting);
    for (const control of this.#claims.values()) control.reject(waiting);
    for (const state of this.locals.values()) {
      // The series stay: another replica skips them when it takes the session.
      for (const proposal of state.pending.list()) proposal.reject(waiting);
      state.home = undefined;
      state.drained?.();
    }
    this.locals.clear();
  }
}
