/**
 * The way of what was submitted from the outbox into the log: in order, each
 * command once, whatever is lost on the way and whichever process dies.
 *
 * All of an outbox goes through one session (H3), so that a command which is
 * sent again, also in a later life, is answered with its first result. Two
 * things are written down before they happen: how far commands may have been
 * sent, so that those which were not can go through another session when this
 * one is gone; and as whom the session is claimed, so that a copy of the outbox
 * is told from the original (H14).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import type { Env } from "../env.ts";
import {
  COMMAND_BYTES_MAX,
  OUTBOX_BYTES_MAX,
  OUTBOX_COMMANDS_MAX,
  OUTBOX_HOLDERS_MAX,
  OUTBOX_MARK_COMMANDS_MAX,
  OUTBOX_SENT_COMMANDS_MAX,
  RETRY_FIRST_MS,
} from "../limits.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import { ErrOutboxCopied, ErrUnsynced } from "../outbox/errors.ts";
import type {
  KeptCommand,
  KeptState,
  Outbox,
  OutboxClient,
  OutboxQueue,
  OutboxSession,
} from "../outbox/outbox.ts";
import { tell, withResolvers } from "../promises.ts";
import type { SessionStanding } from "../rsm/driver.ts";
import {
  ErrInvalidSession,
  ErrProposalRefused,
  type ErrProposalSkipped,
  ErrSystemBusy,
} from "../rsm/errors.ts";
import type { Result } from "../statemachine/types.ts";
import { ErrPayloadTooBig } from "./errors.ts";
import type { Proposals, Resumed } from "./proposals.ts";
import type { Session } from "./session.ts";
import type { ReplicaEvent } from "./snapshotter.ts";
import { Backoff, sleep } from "./waiting.ts";

/**
 * What is known of a submission: `queued` until the cluster has decided it;
 * `applied`; `refused`, for good, with a reason; `unknown` if it may have been
 * applied and nobody can know.
 */
export type SubmissionState = "queued" | "applied" | "refused" | "unknown";

/** A command in the outbox, as the host keeps it. */
export interface Item {
  readonly number: number;
  readonly cmd: Uint8Array;
  state: SubmissionState;
  reason: string | undefined;
  /** Set if the machine itself refused it. */
  result: Result | undefined;
  promise: Promise<Result>;
  resolve: (result: Result) => void;
  reject: (reason: unknown) => void;
  readonly submission: Submission;
}

/** A command that was submitted: kept in the outbox, and sent until the cluster has it. */
export class Submission {
  readonly #item: Item;
  readonly #dismiss: () => Promise<void>;

  private constructor(item: Item, dismiss: () => Promise<void>) {
    this.#item = item;
    this.#dismiss = dismiss;
  }

  /** For `Submissions` alone. */
  private static make(item: Item, dismiss: () => Promise<void>): Submission {
    return new Submission(item, dismiss);
  }

  /** Its number in the outbox of its cluster, in the order of submission; the same after a restart. */
  get id(): number {
    return this.#item.number;
  }

  /** The command: a copy. */
  get cmd(): Uint8Array {
    return this.#item.cmd.slice();
  }

  /** What is known of it. */
  get state(): SubmissionState {
    return this.#item.state;
  }

  /** Why it was refused, or why nobody can know, for a person to read. */
  get reason(): string | undefined {
    return this.#item.reason;
  }

  /**
   * The result, once the command is applied here (U16). It may be left alone:
   * nothing happens if it rejects and nobody listens.
   *
   * Rejects with `ErrProposalRefused` if the command was refused, by the server
   * or by the machine itself (its result is in the error then); with
   * `ErrUnknownOutcome` if nobody can know what became of it, or if it was
   * applied and the result is lost; with `ErrOutboxCopied` if nothing is sent
   * any more; with `ErrClusterClosed`, or what the replica failed with, if that
   * ended first: the command stays in the outbox.
   */
  get result(): Promise<Result> {
    return this.#item.promise;
  }

  /**
   * Takes a submission that was refused, or whose outcome is unknown, out of
   * the outbox; resolves once that is durable. Harmless if it is out already.
   *
   * @throws ErrUnsynced if it is queued still
   */
  dismiss(): Promise<void> {
    return this.#dismiss();
  }
}

/** What it takes of its replica. */
export interface SubmissionsOptions {
  readonly clusterID: bigint;
  readonly outbox: Outbox;
  readonly proposals: Proposals;
  readonly env: Env;
  readonly standing: (session: number) => SessionStanding | undefined;
  readonly applied: () => number;
  /** Whether what is applied is only sure to be here after a restart once `kept()` tells. */
  readonly isSynced: boolean;
  readonly event: (event: ReplicaEvent) => void;
}

function makeItem(
  number: number,
  cmd: Uint8Array,
  dismiss: (item: Item) => Promise<void>,
): Item {
  const { promise, resolve, reject } = withResolvers<Result>();
  const item: { -readonly [K in keyof Item]: Item[K] } = {
    number,
    cmd,
    state: "queued",
    reason: undefined,
    result: undefined,
    promise,
    resolve,
    reject,
    submission: undefined as unknown as Submission,
  };
  item.submission = Submission["make"](item, () => dismiss(item));
  promise.catch(() => {});
  return item;
}

function copyOfResult(result: Result | undefined): Result | undefined {
  if (result?.data === undefined) return result && { value: result.value };
  return { value: result.value, data: copyOf(result.data) };
}

/** What is said of a command whose outcome nobody knows. */
const UNKNOWN =
  "It was sent through a session that is gone, and may have been applied where nobody here could see it";

const NOTHING: readonly Item[] = [];

/** The submissions of one replica. */
export class Submissions {
  readonly #options: SubmissionsOptions;
  readonly #stopped = new AbortController();
  #opening: Promise<OutboxQueue> | undefined;
  #queue: OutboxQueue | undefined;
  /** Those that are queued, or wait to be dismissed, by their number. */
  readonly #items = new Map<number, Item>();
  /** What is in the outbox, or about to be. */
  #count = 0;
  #bytes = 0;
  /** Those whose dismissal is being written. */
  readonly #dismissing = new Map<number, Promise<void>>();
  /** Dismissed ones, to be forgotten once all before them are decided. */
  readonly #dismissed = new Set<number>();
  /** The first number that is not decided. */
  #open = 1;
  /** Later ones that are. */
  readonly #early = new Set<number>();
  /** The last number that may go from the outbox. */
  #kept = 0;
  /** The last number that was given to the proposals. */
  #fed = 0;
  /** The last number there is. */
  #last = 0;
  /** The last number of an earlier life. */
  #loaded = 0;
  /** The session as the outbox knows it. */
  #record: OutboxSession | undefined;
  /** The same, as the proposals know it. */
  #session: Session | undefined;
  /** What its sessions are opened with. */
  #clientID = 0n;
  /** The last session that is gone. */
  #lost = 0;
  /** Whose its sessions are, as the log has it. */
  #owner: Uint8Array | undefined;
  /** Whether it was told that what is sent is refused as somebody else's, and nothing was applied since. */
  #isRefused = false;
  /** As whom it is claimed in this life. */
  #holder: bigint | undefined;
  /** A session that was opened and is not written down yet. */
  #opened: Session | undefined;
  /** Whether commands may be sent through it. */
  #isReady = false;
  /** Whether it is gone, and another one is to be opened. */
  #isLost = false;
  /** Whether it is left to the other holder: the next one is opened as somebody else. */
  #isAdopted = false;
  #copied: ErrOutboxCopied | undefined;
  #closed: unknown;
  #isDriving = false;
  #isFeeding = false;
  #cancelRetry: (() => void) | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  #isTelling = false;
  #pending: readonly Submission[] | undefined;
  /** Those of the items that are queued, in order. */
  readonly #queued: Item[] = [];

  /** The submissions of a replica that just starts. */
  constructor(options: SubmissionsOptions) {
    this.#options = options;
  }

  // ------------------------------------------------------ what a replica shows

  /** As `Replica.submit()`. */
  async submit(cmd: Uint8Array): Promise<Submission> {
    if (!(cmd instanceof Uint8Array)) {
      throw new TypeError("Command is not a Uint8Array");
    }
    const { length } = cmd;
    if (length > COMMAND_BYTES_MAX) {
      throw new ErrPayloadTooBig(length, COMMAND_BYTES_MAX);
    }
    const refusal = this.#closed ?? this.#copied;
    if (refusal !== undefined) throw refusal;
    if (
      this.#count >= OUTBOX_COMMANDS_MAX ||
      this.#bytes + length > OUTBOX_BYTES_MAX
    ) {
      throw new ErrSystemBusy(
        `Outbox holds ${this.#count} commands of ${this.#bytes} bytes`,
      );
    }
    const copy = copyOf(cmd);
    this.#count++;
    this.#bytes += length;
    let number: number;
    try {
      number = await this.#queue!.add(copy);
    } catch (error) {
      this.#uncount(copy);
      throw error;
    }
    const item = this.#addQueued(number, copy);
    this.#last = number;
    const ended = this.#closed ?? this.#copied;
    if (ended !== undefined) item.reject(ended);
    // Whoever shows it may find that it cannot be applied, before it is sent.
    this.#changed();
    this.#feed();
    return item.submission;
  }

  /** As `Replica.pending()`. */
  pending(): readonly Submission[] {
    return this.#pending ??= [...this.#items.values()]
      .map(({ submission }) => submission);
  }

  /** As `Replica.onPending()`. */
  watch(listener: () => void): () => void {
    const own = (): void => listener();
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  /** As `Replica.adoptOutbox()`. */
  adopt(): void {
    if (this.#copied === undefined || this.#closed !== undefined) return;
    this.#copied = undefined;
    for (const item of [...this.#queued]) {
      // The other holder may have sent it, or be about to.
      this.#settleUnknown(item);
    }
    this.#isAdopted = true;
    this.#opened = undefined;
    this.#isLost = true;
    if (this.#session !== undefined) {
      this.#options.proposals.abandon(this.#session);
    }
    this.#changed();
    this.#wake();
  }

  // -------------------------------------------------------- what a view builds on

  /** The commands that are neither applied nor refused nor unknown, in order: to be read at once, since it changes. */
  list(): readonly Item[] {
    // What is sent from here no more is committed by somebody else, if at all.
    return this.#copied === undefined ? this.#queued : NOTHING;
  }

  /** Calls `listener` in the very step in which `list()` or `pending()` changes; it must not throw. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Refuses a command that no machine can apply, unless it may be in the log
   * already (U17). Told so by a listener of `onChange()`, at once, it is never
   * sent.
   */
  refuse({ number }: Item, reason: string): void {
    const item = this.#items.get(number);
    if (number <= this.#fed || item?.state !== "queued") return;
    this.#refuse(item, new ErrProposalRefused(reason));
  }

  // ------------------------------------------------------------ its life

  /** Takes in what the outbox holds; the state is at hand by then, and nothing is applied meanwhile. */
  async load(): Promise<void> {
    const { outbox, clusterID, proposals } = this.#options;
    if (this.#closed !== undefined) throw this.#closed;
    this.#opening =
      (async () =>
        await outbox.open(clusterID, (done) => this.#onDone(done)))();
    const queue = await this.#opening;
    if (this.#closed !== undefined) throw this.#closed;
    this.#queue = queue;
    const { done, commands, kept, session, mark, lost, owner } = queue.held;
    this.#clientID = queue.held.clientID;
    this.#lost = lost;
    this.#owner = owner;
    const states = new Map(kept.map((one) => [one.number, one]));
    for (const one of kept) {
      if (one.number <= done) this.#addKept(one);
    }
    for (const [i, cmd] of commands.entries()) {
      const number = done + 1 + i;
      const one = states.get(number);
      if (one === undefined) this.#addQueued(number, cmd);
      else this.#addKept(one);
    }
    for (const { cmd } of this.#items.values()) {
      this.#count++;
      this.#bytes += cmd.length;
    }
    this.#open = done + 1;
    this.#kept = done;
    this.#last = this.#loaded = done + commands.length;
    this.#fed = done;
    queue.taken();
    this.#forgetDismissed();
    this.#record = session;
    if (session === undefined) return;
    this.#fed = Math.max(done, Math.min(mark, this.#last));
    const { index, clientID, base } = session;
    const resumed: Resumed[] = [];
    for (let number = this.#open; number <= this.#fed; number++) {
      const item = this.#items.get(number);
      resumed.push({
        cmd: item?.state === "queued" ? item.cmd : undefined,
        resolve: (result) => this.#applied(number, result),
        reject: (reason) => this.#failed(number, reason),
      });
    }
    const isGone = this.#isGone(session);
    // What is applied from now on is seen here, whoever sent it.
    this.#session = proposals.resume(
      index,
      clientID,
      this.#open - base,
      isGone,
      resumed,
    );
    // What may have been applied unseen is not to be shown again on top of that.
    if (isGone) this.#giveUp(this.#session);
  }

  /** Whether the state is past the session's register record and does not have it. */
  #isGone({ index, clientID }: OutboxSession): boolean {
    const { applied, standing } = this.#options;
    return applied() >= index && standing(index)?.clientID !== clientID;
  }

  /** Begins to send. */
  start(): void {
    this.#wake();
  }

  /** Fails all who wait, and all who come; what is queued stays in the outbox. */
  close(waiting: unknown, later: unknown): void {
    this.#closed = later;
    this.#cancelRetry?.();
    this.#stopped.abort(later);
    if (this.#queue !== undefined) this.#queue.sending = false;
    for (const item of this.#items.values()) {
      if (item.state === "queued") item.reject(waiting);
    }
  }

  /** Gives the outbox back, after what is being written. */
  async end(): Promise<void> {
    const queue = await this.#opening?.catch(() => undefined);
    await queue?.close();
  }

  // ------------------------------------------------------------ the items

  #add(number: number, cmd: Uint8Array): Item {
    const item = makeItem(number, cmd, (item) => this.#dismiss(item));
    this.#items.set(number, item);
    return item;
  }

  #addQueued(number: number, cmd: Uint8Array): Item {
    const item = this.#add(number, cmd);
    this.#queued.push(item);
    return item;
  }

  /** It is queued no more. */
  #leave(item: Item, state: SubmissionState): void {
    item.state = state;
    // Nearly always the first.
    const at = this.#queued.indexOf(item);
    if (at === 0) this.#queued.shift();
    else this.#queued.splice(at, 1);
  }

  #addKept({ number, state, reason, cmd, result }: KeptCommand): void {
    if (state === "dismissed") {
      this.#dismissed.add(number);
      return;
    }
    const item = this.#add(number, cmd);
    item.state = state;
    item.reason = reason;
    item.result = result;
    item.reject(
      state === "refused"
        ? new ErrProposalRefused(reason, { result })
        : new ErrUnknownOutcome(reason),
    );
  }

  #uncount(cmd: Uint8Array): void {
    this.#count--;
    this.#bytes -= cmd.length;
  }

  #remove(item: Item): void {
    this.#items.delete(item.number);
    this.#uncount(item.cmd);
  }

  #keep({ number, cmd, result }: Item, state: KeptState, reason: string): void {
    this.#queue!.note({ keep: { number, state, reason, cmd, result } });
  }

  #refuse(item: Item, error: ErrProposalRefused): void {
    this.#leave(item, "refused");
    item.reason = error.reason;
    // The one in the error is the caller's.
    item.result = copyOfResult(error.result);
    this.#keep(item, "refused", error.reason);
    this.#changed();
    item.reject(error);
  }

  #settleUnknown(item: Item): void {
    this.#leave(item, "unknown");
    item.reason = UNKNOWN;
    this.#keep(item, "unknown", UNKNOWN);
    item.reject(new ErrUnknownOutcome(UNKNOWN));
  }

  async #dismiss(item: Item): Promise<void> {
    const { number, state, cmd } = item;
    if (this.#items.get(number) !== item) return;
    if (state === "queued") {
      throw new ErrUnsynced([{ id: number, state, cmd: cmd.slice() }]);
    }
    if (this.#closed !== undefined) throw this.#closed;
    let dismissing = this.#dismissing.get(number);
    if (dismissing === undefined) {
      dismissing = this.#writeDismissed(item)
        .finally(() => this.#dismissing.delete(number));
      this.#dismissing.set(number, dismissing);
    }
    await dismissing;
  }

  /** It is there until that is durable: if it cannot be written, it can be dismissed again. */
  async #writeDismissed(item: Item): Promise<void> {
    const { number, cmd, reason = "", result } = item;
    const state = item.state as KeptState;
    const queue = this.#queue!;
    const isForgotten = number <= this.#kept;
    if (isForgotten) queue.note({ forget: number });
    else {
      // Its bytes may be in a block that stays, among others to be sent.
      const keep = { number, reason: "", cmd: cmd.subarray(0, 0) };
      queue.note({ keep: { ...keep, state: "dismissed" } });
    }
    try {
      await queue.flush();
    } catch (error) {
      queue.note({ keep: { number, state, reason, cmd, result } });
      throw error;
    }
    this.#remove(item);
    if (!isForgotten) {
      this.#dismissed.add(number);
      this.#forgetDismissed();
    }
    this.#changed();
  }

  #forgetDismissed(): void {
    for (const number of this.#dismissed) {
      if (number > this.#kept) continue;
      this.#dismissed.delete(number);
      this.#queue!.note({ forget: number });
    }
  }

  // ------------------------------------------------- what became of a command

  #applied(number: number, result: Result): void {
    this.#settleApplied(number, (item) => item.resolve(result));
  }

  #settleApplied(number: number, settle: (item: Item) => void): void {
    if (this.#closed !== undefined) return;
    this.#isRefused = false;
    const item = this.#items.get(number);
    this.#decided(number);
    if (item?.state !== "queued") return;
    this.#leave(item, "applied");
    this.#remove(item);
    this.#changed();
    settle(item);
  }

  #failed(number: number, error: unknown): void {
    if (this.#closed !== undefined) return;
    if (error instanceof ErrInvalidSession) {
      return this.#invalid(error, this.#items.get(number));
    }
    if (error instanceof ErrUnknownOutcome && error.applied) {
      return this.#settleApplied(number, (item) => item.reject(error));
    }
    const item = this.#items.get(number);
    if (error instanceof ErrProposalRefused && error.result !== undefined) {
      this.#isRefused = false;
    }
    if (item?.state === "queued") {
      this.#refuse(
        item,
        error instanceof ErrProposalRefused
          ? error
          : new ErrProposalRefused((error as ErrProposalSkipped).message),
      );
    }
    this.#decided(number);
  }

  /** The session is no longer to be used; `item` is one that waits in it. */
  #invalid(error: ErrInvalidSession, item: Item | undefined): void {
    this.#isReady = false;
    this.#queue!.sending = false;
    // Somebody else has what is kept here, and has used it.
    if (error.reason === "conflict") {
      return this.#onCopied(this.#record!.index);
    }
    this.#isLost = true;
    if (item?.state === "queued" && error.applied === undefined) {
      this.#settleUnknown(item);
      this.#changed();
    }
    this.#wake();
  }

  #onCopied(index: number): void {
    if (this.#copied !== undefined) return;
    this.#isReady = false;
    this.#queue!.sending = false;
    this.#copied = new ErrOutboxCopied(index);
    for (const item of this.#items.values()) {
      if (item.state === "queued") item.reject(this.#copied);
    }
    this.#changed();
    this.#options.event({ type: "outbox failed", error: this.#copied });
  }

  #decided(number: number): void {
    if (number > this.#open) this.#early.add(number);
    else if (number === this.#open) {
      do this.#open++; while (this.#early.delete(this.#open));
      if (!this.#options.isSynced) this.kept(this.#open - 1);
    }
    if (this.#isFeeding) return;
    // Once for all that are decided in this step, and after it.
    this.#isFeeding = true;
    queueMicrotask(() => {
      this.#isFeeding = false;
      this.#feed();
    });
  }

  /** The last number up to which all is decided. */
  get decided(): number {
    return this.#open - 1;
  }

  /** How many are decided and may not go from the outbox yet. */
  get unkept(): number {
    return this.decided - this.#kept;
  }

  /**
   * The state here holds for good what all up to `upTo` did: before, a crash
   * would take away what was shown, as long as there is no connection (U30).
   */
  kept(upTo: number): void {
    if (upTo <= this.#kept || this.#closed !== undefined) return;
    this.#kept = upTo;
    this.#queue!.note({ done: upTo });
    if (this.#dismissed.size > 0) this.#forgetDismissed();
  }

  /** It is durable that all up to `done` were decided: their results will not be asked for again. */
  #onDone(done: number): void {
    if (this.#session === undefined || this.#isLost) return;
    const { base } = this.#record!;
    this.#options.proposals.acknowledge(this.#session, done - base);
  }

  #changed(): void {
    this.#pending = undefined;
    for (const listener of this.#listeners) listener();
    if (this.#watchers.size === 0 || this.#isTelling) return;
    this.#isTelling = true;
    // Never rejects: watchers that throw are caught.
    this.#options.env.turn().then(() => {
      this.#isTelling = false;
      // Not those that come, or leave, while it is told.
      for (const watcher of [...this.#watchers]) {
        if (this.#watchers.has(watcher)) tell(watcher);
      }
    });
  }

  // --------------------------------------------------------------- sending

  get #inFlight(): number {
    return this.#fed - this.#open + 1;
  }

  /** Gives to the proposals what is allowed to be sent. */
  #feed(): void {
    if (this.#closed !== undefined || this.#copied !== undefined) return;
    if (!this.#isReady) return this.#wake();
    const queue = this.#queue!;
    const upTo = Math.min(queue.mark, this.#last);
    while (this.#fed < upTo && this.#inFlight < OUTBOX_SENT_COMMANDS_MAX) {
      const refusal = this.#give(this.#fed + 1);
      if (refusal === undefined) this.#fed++;
      else if (refusal instanceof ErrInvalidSession) {
        return this.#invalid(refusal, undefined);
      } else {
        this.#retryLater();
        break;
      }
    }
    const isFull = this.#inFlight >= OUTBOX_SENT_COMMANDS_MAX;
    queue.sending = !isFull && this.#fed === this.#last;
    if (!isFull && this.#fed < this.#last && this.#fed === queue.mark) {
      this.#wake();
    }
  }

  #give(number: number): unknown {
    const { proposals } = this.#options;
    const item = this.#items.get(number);
    // What was refused here, or is not to be sent again, keeps its place.
    if (item?.state !== "queued") {
      return proposals.skip(this.#session!, () => {
        if (this.#closed === undefined && this.#isReady) this.#decided(number);
      });
    }
    return proposals.submit(
      this.#session!,
      item.cmd,
      (result) => this.#applied(number, result),
      (reason) => this.#failed(number, reason),
    );
  }

  #retryLater(): void {
    this.#cancelRetry ??= this.#options.env.setTimer(() => {
      this.#cancelRetry = undefined;
      this.#feed();
    }, RETRY_FIRST_MS);
  }

  /** Sees to it that what is queued can be sent. */
  #wake(): void {
    if (this.#isDriving || this.#queue === undefined) return;
    this.#isDriving = true;
    // Never rejects: what fails is an event, and tried again.
    void this.#drive();
  }

  async #drive(): Promise<void> {
    // What is told in one step is to be known as a whole.
    await Promise.resolve();
    try {
      await this.#advanceAll();
    } finally {
      this.#isDriving = false;
    }
  }

  async #advanceAll(): Promise<void> {
    const { env, event } = this.#options;
    const { signal } = this.#stopped;
    const backoff = new Backoff(env);
    let isTold = false;
    while (this.#hasWork) {
      try {
        await this.#advance();
        backoff.reset();
        isTold = false;
      } catch (error) {
        if (signal.aborted) return;
        if (!isTold && !(error instanceof ErrSystemBusy)) {
          event({ type: "outbox failed", error });
          isTold = true;
        }
        try {
          await sleep(env, backoff.next(), signal);
        } catch {
          return;
        }
      }
    }
  }

  get #hasWork(): boolean {
    if (this.#closed !== undefined || this.#copied !== undefined) return false;
    // With nothing to send, nothing is written, here or to the log (U28).
    if (!this.#isReady) return this.#isLost || this.#open <= this.#last;
    return this.#fed < this.#last && this.#fed === this.#queue!.mark &&
      this.#inFlight < OUTBOX_SENT_COMMANDS_MAX;
  }

  async #advance(): Promise<void> {
    if (this.#isLost) return await this.#rollOver();
    if (!this.#isReady) {
      if (this.#record === undefined) await this.#openSession();
      else await this.#claim(this.#record);
    } else await this.#assign(this.#record, this.#markAfter(this.#fed));
    if (this.#isReady) this.#feed();
  }

  #assign(session: OutboxSession | undefined, mark: number): Promise<void> {
    return this.#queue!.assign(session, mark, this.#client);
  }

  get #client(): OutboxClient {
    return {
      clientID: this.#clientID,
      lost: this.#lost,
      owner: this.#owner,
    };
  }

  /** What is sent is refused as somebody else's. It stays queued: whoever it belongs to may sign in again (U34, U35). */
  readonly #onRefused = (error: ErrProposalRefused): void => {
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#options.event({ type: "outbox failed", error });
  };

  #markAfter(number: number): number {
    return Math.min(this.#last, number + OUTBOX_MARK_COMMANDS_MAX);
  }

  /** Writes down that the session is gone, and what of it nobody can know: what is queued was not sent. */
  async #rollOver(): Promise<void> {
    const [first] = this.#queued;
    const open = first?.number ?? this.#last + 1;
    this.#queue!.note({ done: open - 1 });
    if (this.#isAdopted) {
      this.#clientID = this.#options.env.random64();
      this.#owner = undefined;
    }
    this.#isAdopted = false;
    this.#lost = this.#record?.index ?? this.#lost;
    await this.#assign(undefined, open - 1);
    this.#open = open;
    this.#kept = this.#fed = open - 1;
    this.#early.clear();
    this.#forgetDismissed();
    this.#record = this.#session = this.#holder = undefined;
    this.#isLost = false;
  }

  async #openSession(): Promise<void> {
    const { standing } = this.#options;
    const clientID = this.#clientID;
    try {
      this.#opened ??= await this.#register();
    } catch (error) {
      if (!(error instanceof ErrProposalRefused)) throw error;
      return this.#refuseUnsent(error.reason);
    }
    const { id: index } = this.#opened;
    const known = standing(index);
    if (known !== undefined && (known.next > 1 || known.holder !== clientID)) {
      // What was opened by a copy of this outbox.
      return this.#onCopied(index);
    }
    const base = this.#open - 1;
    const record = { index, clientID, holders: [clientID], base };
    this.#owner ??= known?.owner;
    await this.#assign(record, this.#markAfter(base));
    this.#record = record;
    this.#begin(this.#opened, clientID);
    this.#opened = undefined;
  }

  #register(): Promise<Session> {
    return this.#options.proposals.openSession(
      new Uint8Array(),
      this.#stopped.signal,
      {
        clientID: this.#clientID,
        after: this.#lost,
        owner: this.#owner,
        refused: this.#onRefused,
      },
    );
  }

  /**
   * Refuses everything that is queued: no session may be opened for it, so none
   * of it was sent or can be. The next submission asks for a session again.
   */
  #refuseUnsent(reason: string): void {
    for (const item of [...this.#queued]) {
      // Those who are told of one may have another one refused.
      if (item.state !== "queued") continue;
      this.#refuse(item, new ErrProposalRefused(reason));
    }
    for (let number = this.#open; number <= this.#last; number = this.#open) {
      this.#decided(number);
    }
    this.#fed = this.#last;
  }

  #begin(session: Session, holder: bigint): void {
    this.#session = session;
    this.#isReady = true;
    this.#options.proposals.begin(session, holder, this.#onRefused);
  }

  /** Goes on with the session of an earlier life, if nobody else did. */
  async #claim(record: OutboxSession): Promise<void> {
    const { proposals, standing, env } = this.#options;
    const { index, clientID, base } = record;
    const session = this.#session!;
    let { holders } = record;
    if (this.#holder === undefined) {
      const holder = env.random64();
      // When there are too many to remember, a copy may be taken for the
      // original; an original never for a copy.
      this.#holder = holders.length < OUTBOX_HOLDERS_MAX
        ? holder
        : holders.at(-1)!;
    }
    const holder = this.#holder;
    if (!holders.includes(holder)) {
      const next = { ...record, holders: [...holders, holder] };
      await this.#assign(next, this.#queue!.mark);
      this.#record = next;
      holders = next.holders;
    }
    const known = standing(index);
    // More was sent than the outbox knows of: by a copy, or before it was set back.
    const isBehind = (next: number): boolean => next > this.#loaded + 1 - base;
    if (known?.clientID === clientID && isBehind(known.next)) {
      return this.#onCopied(index);
    }
    let from = known !== undefined && holders.includes(known.holder)
      ? known.holder
      : holders.at(-2) ?? holder;
    for (;;) {
      try {
        await proposals.claim(index, from, holder);
      } catch (error) {
        // Who may not write any more is refused the claim to a session that is
        // gone; the next one is refused with all that waits for it.
        if (error instanceof ErrProposalRefused && this.#isGone(record)) {
          return this.#giveUp(session);
        }
        if (!(error instanceof ErrInvalidSession)) throw error;
        if (this.#isLost || this.#copied !== undefined) return;
        const now = standing(index);
        if (now?.clientID !== clientID) return this.#giveUp(session);
        if (!holders.includes(now.holder)) return this.#onCopied(index);
        // It was another one of this outbox's earlier lives that counts.
        from = now.holder;
        continue;
      }
      break;
    }
    if (this.#isLost || this.#copied !== undefined) return;
    const now = standing(index);
    if (now?.clientID !== clientID) return this.#giveUp(session);
    if (now.holder !== holder || isBehind(now.next)) {
      return this.#onCopied(index);
    }
    // Only its owner may have claimed it.
    this.#owner ??= now.owner;
    this.#record = { ...this.#record!, holders: [holder] };
    this.#begin(session, holder);
  }

  /**
   * Not closed first: the state has it no more, so nothing of it piles up there,
   * and a record that closes what another one has at its index would be somebody
   * else's session (H14). One that is adopted away is the other holder's.
   */
  #giveUp(session: Session): void {
    this.#isLost = true;
    this.#options.proposals.abandon(session);
  }
}
