/**
 * Session control: opens, closes and claims client sessions.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff } from "../async.ts";
import { isSameBytes } from "../bytes.ts";
import {
  REGISTER_RETRY_LAST_MS,
  RETRY_LAST_MS,
  SESSION_OWNER_BYTES_MAX,
} from "../limits.ts";
import { ErrInvalidSession, ErrProposalRefused } from "../rsm/errors.ts";
import {
  claimRecord,
  registerRecord,
  unregisterRecord,
} from "../rsm/record_codec.ts";
import type { ClaimOutcome, ClosedSession } from "../rsm/state_machine.ts";
import type { AppendBatcher } from "./append_batcher.ts";
import type { ReplicaContext } from "./context.ts";
import { type Client, Control } from "./control.ts";
import type { CurrentMachine } from "./current_machine.ts";

/** Most registrations that are remembered after their callers have stopped waiting. */
const ORPHANS_MAX = 1024;

/** Error for a session that this process may not send in. */
export function notHolder(
  session: number,
  reason: "conflict" | "unknown",
): ErrInvalidSession {
  return new ErrInvalidSession(
    reason,
    reason === "conflict"
      ? `Session ${session} was claimed by another holder, which has a copy of it; open another one`
      : `Session ${session} is not open in the cluster: it was closed, evicted or never opened; open another one`,
  );
}

/** Session control records of one replica, until they are applied. */
export class SessionControl {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #batcher: AppendBatcher;
  /** Registrations by client id. */
  readonly #registrations = new Map<bigint, Control>();
  /** Closes by session. */
  readonly #closings = new Map<number, Control>();
  /** Claims by new holder, which is a random number. */
  readonly #claims = new Map<bigint, Control>();
  /** Records whose append failed, until they are sent again. */
  #stalled: Control[] = [];

  /** Creates the session control of a replica. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    batcher: AppendBatcher,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#batcher = batcher;
  }

  // ----------------------------------------------------------------- requests

  /** Opens a session; resolves with its index and client id. */
  async register(
    owner: Uint8Array,
    signal: AbortSignal | undefined,
    client: Client | undefined,
  ): Promise<{ index: number; clientID: bigint }> {
    // Checked here: an invalid record in the log would fail every replica.
    if (!(owner instanceof Uint8Array)) {
      throw new TypeError("Owner is not a Uint8Array");
    }
    if (owner.length > SESSION_OWNER_BYTES_MAX) {
      throw new RangeError(
        `Owner of ${owner.length} bytes is over the limit of ${SESSION_OWNER_BYTES_MAX}`,
      );
    }
    const clientID = client?.clientID ?? this.#context.env.random64();
    const record = registerRecord(clientID, owner);
    const index = await this.#request(record, signal, (control) => {
      control.client = client;
      control.owner = client?.owner;
      this.#registrations.set(clientID, control);
    });
    return { index, clientID };
  }

  /** Closes a session; resolves with what it was, undefined if it was not open. */
  async unregister(session: number): Promise<ClosedSession | undefined> {
    let closing: Control | undefined;
    await this.#request(unregisterRecord(session), undefined, (control) => {
      this.#closings.set(session, closing = control);
    });
    return closing!.closed;
  }

  /** Moves a session from one holder to another; resolves once it has moved. */
  claim(session: number, from: bigint, holder: bigint): Promise<number> {
    const record = claimRecord(session, from, holder);
    return this.#request(record, undefined, (control) => {
      this.#claims.set(holder, control);
    });
  }

  #request(
    record: Uint8Array,
    signal: AbortSignal | undefined,
    add: (control: Control) => void,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const refusal = signal?.aborted
        ? signal.reason
        : this.#batcher.refusal(0);
      if (refusal !== undefined) return reject(refusal);
      const control = new Control(record, resolve, reject, signal);
      add(control);
      this.#batcher.count(0);
      this.#send(control);
    });
  }

  // ------------------------------------------------------------------ sending

  #send(control: Control): void {
    control.sends++;
    control.state = "sending";
    this.#batcher.addControl(control);
  }

  #end(control: Control): void {
    if (control.state !== "ended") this.#batcher.uncount(0);
    control.end();
  }

  /** Notes records whose append failed, until `resend()`. */
  stall(controls: readonly Control[]): void {
    this.#stalled.push(...controls);
  }

  /** Sends the stalled records again. */
  resend(): void {
    const controls = this.#stalled;
    this.#stalled = [];
    for (const control of controls) {
      if (control.isAwaited) this.#send(control);
      else this.#end(control);
    }
    this.#trim();
  }

  /** Lists the requests whose record the log has acknowledged and that is not applied here. */
  appended(): Control[] {
    return this.#all().filter(({ state }) => state === "appended");
  }

  /** Sends records again that the log has lost after it acknowledged them. */
  resendLost(controls: readonly Control[]): void {
    for (const control of controls) {
      if (control.state === "appended") this.#send(control);
    }
  }

  #all(): Control[] {
    return [
      ...this.#registrations.values(),
      ...this.#closings.values(),
      ...this.#claims.values(),
    ];
  }

  /** Ends a request because the server refused its record. */
  refuse(control: Control, error: ErrProposalRefused): void {
    this.#end(control);
    for (
      const controls of [this.#registrations, this.#closings, this.#claims]
    ) {
      for (const [key, other] of controls) {
        if (other === control) controls.delete(key as never);
      }
    }
    control.reject(error);
  }

  // ------------------------------------------------------------------ applied

  /** Handles an applied registration, which is this replica's if it has the client id of a request and no other client has repeated that id. */
  registered(clientID: bigint, session: number, owner: Uint8Array): void {
    const control = this.#registrations.get(clientID);
    if (control === undefined) return;
    if (session <= (control.client?.after ?? 0)) return;
    const isOwn = control.owner === undefined ||
      isSameBytes(control.owner, owner);
    // The session that was opened may be evicted by now.
    const own = this.#ownSession(clientID, control) ??
      (isOwn ? session : undefined);
    if (own === undefined) this.#openedOther(control, session);
    else this.#opened(clientID, control, own);
  }

  /**
   * Session that a registration has opened. No other client can repeat a client id
   * before its first registration is in the log: of sessions of unknown owner, the
   * first is its own (H14).
   */
  #ownSession(
    clientID: bigint,
    { client, owner }: Control,
  ): number | undefined {
    return this.#machine.sessionOf(clientID, client?.after ?? 0, owner);
  }

  /** Retries a registration after a session of another owner was opened: another client has repeated the client id, or the principal has changed until the owner signs in again (U34). */
  #openedOther(control: Control, session: number): void {
    if (!control.isAwaited) return;
    control.client?.refused(
      new ErrProposalRefused(`Session ${session} belongs to another principal`),
    );
    const { env } = this.#context;
    control.backoff ??= new Backoff(env, RETRY_LAST_MS, REGISTER_RETRY_LAST_MS);
    control.cancelRetry ??= env.setTimer(() => {
      control.cancelRetry = undefined;
      this.#send(control);
    }, control.backoff.next());
  }

  #opened(clientID: bigint, control: Control, session: number): void {
    const { isAwaited, sends } = control;
    control.owner ??= this.#machine.sessionInfo(session)?.owner;
    // If the state came from a snapshot, it already has the outcome.
    if (control.session === session) return;
    control.session ??= session;
    // A copy of the record that is applied later opens a session that is not used.
    if (sends > 1) this.#trim();
    else this.#registrations.delete(clientID);
    this.#end(control);
    if (isAwaited) control.resolve(session);
    // One of a client id that is stored: another process may use the session.
    else if (control.client === undefined) {
      this.unregister(session).catch(() => {
        // It is evicted later, like every unused session.
      });
    }
  }

  /** Handles an applied close of a session. */
  unregistered(session: number, closed: ClosedSession | undefined): void {
    const control = this.#closings.get(session);
    if (control === undefined) return;
    this.#closings.delete(session);
    control.closed = closed;
    this.#end(control);
    control.resolve(session);
  }

  /**
   * Handles an applied claim.
   *
   * @returns true if it was made by this replica
   */
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): boolean {
    const control = this.#claims.get(holder);
    if (control === undefined) return false;
    this.#claims.delete(holder);
    this.#end(control);
    if (outcome === "claimed") control.resolve(session);
    else control.reject(notHolder(session, outcome));
    return true;
  }

  /** Forgets registrations whose callers have stopped waiting, past the bound. */
  #trim(): void {
    for (const [clientID, { isAwaited }] of this.#registrations) {
      if (this.#registrations.size <= ORPHANS_MAX) return;
      if (!isAwaited) this.#registrations.delete(clientID);
    }
  }

  /** Sends all requests again that the recovered state does not answer. */
  recovered(): void {
    for (const [clientID, control] of [...this.#registrations]) {
      if (control.session !== undefined) continue;
      // The session was evicted, or the record is not applied yet: it is sent again.
      control.sends++;
      const session = this.#ownSession(clientID, control);
      if (session !== undefined) this.#opened(clientID, control, session);
      else if (control.isAwaited) this.#send(control);
    }
    for (const control of this.#closings.values()) this.#send(control);
    for (const control of this.#claims.values()) this.#send(control);
  }

  /** Rejects the callers of `Replica.openSession()`. */
  fail(error: unknown): void {
    for (const control of this.#registrations.values()) {
      if (control.client === undefined) control.abandon(error);
    }
  }

  /** Rejects all callers. */
  close(reason: unknown): void {
    for (const control of this.#all()) control.abandon(reason);
  }
}
