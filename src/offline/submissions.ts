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

import { copyOf, encodeText } from "../bytes.ts";
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
import { ErrOtherHistory, ErrUnknownOutcome } from "../log/errors.ts";
import type { HistoryPoint } from "../log/history.ts";
import { ErrOtherPrincipal, ErrOutboxCopied, ErrUnsynced } from "./errors.ts";
import type {
  HeldCommands,
  KeptCommand,
  KeptState,
  Outbox,
  OutboxClient,
  OutboxQueue,
  OutboxSession,
} from "./outbox.ts";
import { Backoff, notify, sleep, withResolvers } from "../async.ts";
import type { SeriesOutcome, SessionInfo } from "../rsm/state_machine.ts";
import { digest } from "../rsm/session_table.ts";
import {
  ErrInvalidSession,
  ErrProposalRefused,
  type ErrProposalSkipped,
  ErrSystemBusy,
} from "../rsm/errors.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";
import { ErrPayloadTooBig } from "../nodehost/errors.ts";
import type { Proposals, Resumed } from "../nodehost/proposals.ts";
import type { Session } from "../nodehost/session.ts";
import type { ReplicaEvent } from "../nodehost/snapshotter.ts";

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
  readonly standing: (session: number) => SessionInfo | undefined;
  readonly applied: () => number;
  /** Whether what is applied is only sure to be here after a restart once `kept()` tells. */
  readonly isSynced: boolean;
  readonly event: (event: ReplicaEvent) => void;
  /** Principal who is signed in, if the host was told. */
  readonly principal: string | undefined;
  /** Name of this device, if the host was told. */
  readonly device: string | undefined;
  /** Newest session that was opened with a client id after an index, of an owner if one is given. */
  readonly sessionOf: (
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ) => number | undefined;
  /** Last point of the log's history that is applied here. */
  readonly history: () => HistoryPoint;
  /** Checks that the log has reached a point of a history; see `Log.verify()`. */
  readonly verify: (
    point: HistoryPoint,
    signal: AbortSignal,
  ) => MaybePromise<void>;
  /** Resolves once everything committed before the call is applied. */
  readonly upToDate: (signal: AbortSignal) => Promise<void>;
  /** Outcome of a series in the applied state; undefined if it has none yet. */
  readonly outcomeOf: (
    session: number,
    series: number,
  ) => SeriesOutcome | undefined;
  /** Called when nothing can be sent until someone acts, with why, and with undefined once it can. */
  readonly blocked: (cause: unknown) => void;
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

/** Session that an earlier life of a device has left in the cluster. */
export interface Purged {
  /** Id of the session. */
  readonly session: number;
  /** Number of submissions of the session that the cluster has decided. */
  readonly decided: number;
}

const FNV_OFFSET = 14695981039346656037n;
const FNV_PRIME = 1099511628211n;

/** Client id that is the same whenever it is made from the same name (FNV-1a). */
function clientOf(name: string): bigint {
  let hash = FNV_OFFSET;
  for (const byte of encodeText(name, "device")) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  }
  return hash;
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
  /** True while it is not known whether a copy has used the session, or the log has another history. */
  #isDisputed = false;
  #copied: ErrOutboxCopied | undefined;
  /** Cause for which nothing can be sent until the application or a person acts. */
  #blocked: Error | undefined;
  /** True once the log is known to be the one of the session of an earlier life. */
  #isVerified = false;
  /** Settles once that was asked. */
  #verifying: Promise<void> | undefined;
  /** The session of another history, whose commands up to `#overUpTo` are not known to be in this one. */
  #over: OutboxSession | undefined;
  #overUpTo = 0;
  #principal: string | undefined;
  /** True if nothing was ever kept in the outbox, as far as it shows. */
  #isFresh = false;
  /** Settles once it was looked up what the cluster knows of this device. */
  #known: Promise<void> | undefined;
  /** Counts of what this device submitted before its store was purged. */
  purged: Purged | undefined;
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
    const refusal = this.#closed ?? this.#copied ??
      (this.#blocked instanceof ErrOtherPrincipal ? this.#blocked : undefined);
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
    this.#block(undefined);
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
    if (this.#copied !== undefined) return NOTHING;
    if (this.#over === undefined) return this.#queued;
    // The state may have these already.
    return this.#queued.filter(({ number }) => number > this.#overUpTo);
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
    const { held } = queue;
    const { done, commands, kept, session, mark } = held;
    this.#takeClient(held);
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
    const isOther = this.#leaveOther(held);
    // Known before anything is added to it.
    queue.principal = this.#principal;
    if (isOther) return await this.#rollOver();
    if (session?.isOver) {
      this.#over = session;
      this.#fed = this.#overUpTo = Math.max(done, Math.min(mark, this.#last));
      return;
    }
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
    // Asked before there is a connection: nothing is live before the answer.
    this.#verifying = this.#askHistory(session);
    this.#verifying.catch(() => {
      // Its callers get the rejection.
    });
  }

  /** Takes over the client id with which the outbox opens its sessions. */
  #takeClient(
    { clientID, lost, owner, principal, session, done, commands }: HeldCommands,
  ): void {
    this.#clientID = clientID;
    this.#lost = lost;
    this.#owner = owner;
    this.#principal = this.#options.principal ?? principal;
    this.#isFresh = session === undefined && lost === 0 && done === 0 &&
      commands.length === 0;
  }

  /**
   * Looks up the sessions of this device, whose client id comes from its name: an
   * outbox in which nothing was ever kept, of a device that has one, was purged.
   */
  async #lookUpDevice(device: string): Promise<void> {
    const { upToDate, sessionOf, standing, event, proposals } = this.#options;
    await upToDate(this.#stopped.signal);
    const clientID = clientOf(
      `${this.#options.clusterID}/${this.#principal ?? ""}/${device}`,
    );
    const found = this.#isFresh ? sessionOf(clientID, 0, undefined) : undefined;
    const known = found === undefined ? undefined : standing(found);
    if (found !== undefined && known !== undefined) {
      this.purged = { session: found, decided: known.next - 1 };
      event({ type: "purged", ...this.purged });
      // A client id has one session: the next session needs another id.
      await proposals.retire(found);
      this.#isFresh = false;
    }
    this.#clientID = clientID;
  }

  /** Calls `#lookUpDevice()` until it has succeeded once. */
  async #checkDevice(): Promise<void> {
    const { device } = this.#options;
    if (device === undefined) return;
    try {
      await (this.#known ??= this.#lookUpDevice(device));
    } catch (error) {
      this.#known = undefined;
      throw error;
    }
  }

  /**
   * Leaves the session of another principal, of whom nothing waits any more; true
   * if it is another one's.
   *
   * @throws ErrOtherPrincipal if something does
   */
  #leaveOther({ principal, session }: HeldCommands): boolean {
    const { principal: signedIn, standing } = this.#options;
    if (
      signedIn === undefined || principal === undefined ||
      signedIn === principal
    ) return false;
    const known = session && standing(session.index);
    const isSame = known?.clientID === session?.clientID;
    for (const item of [...this.#queued]) {
      // Of these it is only not written yet that they were applied.
      const isApplied = isSame && known !== undefined &&
        item.number - session!.base < known.next;
      if (!isApplied) break;
      this.#leave(item, "applied");
      this.#remove(item);
    }
    if (this.#items.size > 0) {
      throw new ErrOtherPrincipal(this.#items.size, principal);
    }
    this.#isAdopted = this.#isLost = true;
    return true;
  }

  /** True if the state is past the session's register record and does not have it. */
  #isGone({ index, clientID }: OutboxSession): boolean {
    const { applied, standing } = this.#options;
    return applied() >= index && standing(index)?.clientID !== clientID;
  }

  /** Begins to send. */
  start(): void {
    const record = this.#record;
    if (this.#isFresh) {
      this.#checkDevice().catch(() => {
        // Looked up again before a session is opened.
      });
    }
    // Also with an empty outbox: the next submission needs it.
    if (record !== undefined && !this.#isVerified) {
      this.#verify(record).catch(() => {
        // Asked again once there is something to send.
      });
    }
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
    if (this.#blocked instanceof ErrOtherPrincipal) this.#block(undefined);
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
      // In another history it looks the same.
      this.#isDisputed = true;
      return this.#wake();
    }
    this.#isLost = true;
    if (item?.state === "queued" && error.applied === undefined) {
      this.#settleUnknown(item);
      this.#changed();
    }
    this.#wake();
  }

  /** Notes and reports why nothing can be sent until someone acts. */
  #block(cause: Error | undefined): void {
    if (this.#blocked === cause) return;
    this.#blocked = cause;
    this.#options.blocked(cause);
  }

  #onCopied(index: number): void {
    if (this.#copied !== undefined) return;
    this.#isReady = false;
    this.#queue!.sending = false;
    this.#copied = new ErrOutboxCopied(index);
    this.#block(this.#copied);
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
    this.#queue!.note({ done: upTo, known: this.#options.history() });
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
        if (this.#watchers.has(watcher)) notify(watcher);
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
    if (this.#blocked instanceof ErrOtherHistory) return false;
    if (this.#isDisputed) return true;
    // With nothing to send, nothing is written, here or to the log (U28).
    if (!this.#isReady) return this.#isLost || this.#open <= this.#last;
    return this.#fed < this.#last && this.#fed === this.#queue!.mark &&
      this.#inFlight < OUTBOX_SENT_COMMANDS_MAX;
  }

  async #advance(): Promise<void> {
    if (this.#over !== undefined) return await this.#settleOver(this.#over);
    const record = this.#record;
    if (this.#isDisputed) {
      if (await this.#isSameHistory()) this.#onCopied(record!.index);
      this.#isDisputed = false;
      return;
    }
    if (record !== undefined && !this.#isReady && !this.#isVerified) {
      if (!await this.#verify(record)) return;
    }
    if (this.#isLost) return await this.#rollOver();
    if (!this.#isReady) {
      if (this.#record === undefined) await this.#openSession();
      else await this.#claim(this.#record);
    } else await this.#assign(this.#record, this.#markAfter(this.#fed));
    if (this.#isReady) this.#feed();
  }

  /** Checks that the log is the one in which the session was opened; false if it is not, which is reported. */
  async #verify(session: OutboxSession): Promise<boolean> {
    try {
      await (this.#verifying ??= this.#askHistory(session));
    } catch (error) {
      this.#verifying = undefined;
      if (!(error instanceof ErrOtherHistory)) throw error;
      this.#onOtherHistory(error);
      return false;
    }
    this.#isVerified = true;
    return true;
  }

  /**
   * Asks once more whether the log has all that is known here of its history: it
   * may have been put back since it was asked. False if it does not, which is
   * reported.
   */
  async #isSameHistory(): Promise<boolean> {
    const { verify, history } = this.#options;
    const record = this.#record;
    // A state that began in this life knows nothing of the session's history.
    if (record !== undefined && !this.#isVerified) {
      if (!await this.#verify(record)) return false;
    }
    try {
      await verify(history(), this.#stopped.signal);
    } catch (error) {
      if (!(error instanceof ErrOtherHistory)) throw error;
      this.#onOtherHistory(error);
      return false;
    }
    return this.#closed === undefined;
  }

  #onOtherHistory(error: ErrOtherHistory): void {
    if (this.#closed !== undefined) return;
    this.#isReady = false;
    this.#queue!.sending = false;
    this.#block(error);
    this.#options.event({ type: "outbox failed", error });
  }

  async #askHistory({ index, known }: OutboxSession): Promise<void> {
    await this.#options.verify(known ?? { index }, this.#stopped.signal);
  }

  /**
   * Finds out what this history has of the commands that may have been sent in
   * another one: all of it, if it knows the session; else it cannot be known. What it
   * does not have was not applied, and goes through a new session.
   */
  async #settleOver(over: OutboxSession): Promise<void> {
    const { standing, proposals, upToDate } = this.#options;
    const { index, clientID, holders, base } = over;
    const mayBeSent = (): Item[] =>
      this.#queued.filter(({ number }) => number <= this.#overUpTo);
    let next = 0;
    if (mayBeSent().length > 0) {
      await upToDate(this.#stopped.signal);
      const known = standing(index);
      if (known?.clientID === clientID && holders.includes(known.holder)) {
        for (const item of mayBeSent()) {
          if (item.number - base < known.next) {
            this.#settleInState(item, index, item.number - base);
          }
        }
        // What may still be on its way must not be applied once it is judged.
        next = await proposals.retire(index);
      }
    }
    for (const item of mayBeSent()) {
      if (item.number - base >= next) {
        if (next === 0) this.#settleUnknown(item);
      } else {
        const lost = new ErrUnknownOutcome(
          "Command was applied, its result is lost",
          { applied: true },
        );
        this.#settleApplied(item.number, (item) => item.reject(lost));
      }
    }
    this.#over = undefined;
    this.#isLost = true;
    this.#changed();
  }

  /** Settles a command by what the state knows of its series. */
  #settleInState(item: Item, session: number, series: number): void {
    const { cmd, number } = item;
    const known = this.#options.outcomeOf(session, series);
    if (known === undefined) return;
    const { outcome, result, digest: found } = known;
    // Another holder had the series.
    if (found !== undefined && found !== digest(cmd, 0, cmd.length)) {
      return this.#settleUnknown(item);
    }
    if (outcome === "applied") return this.#applied(number, result!);
    this.#failed(
      number,
      outcome === "skipped"
        ? new ErrProposalRefused(new TextDecoder().decode(result?.data))
        : new ErrUnknownOutcome("Command was applied, its result is lost", {
          applied: true,
        }),
    );
  }

  #assign(session: OutboxSession | undefined, mark: number): Promise<void> {
    return this.#queue!.assign(
      session && { ...session, known: this.#options.history() },
      mark,
      this.#client,
    );
  }

  get #client(): OutboxClient {
    return {
      clientID: this.#clientID,
      lost: this.#lost,
      owner: this.#owner,
      principal: this.#principal,
    };
  }

  /** What is sent is refused as somebody else's. It stays queued: whoever it belongs to may sign in again (U34, U35). */
  readonly #onRefused = (error: ErrProposalRefused): void => {
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#judgeRefusal(error).catch(() => {
      // It is sent again, and judged by the next refusal.
      this.#isRefused = false;
    });
  };

  /** A log of another history, and one that is ahead and has the session no more, refuse what they are sent as well. */
  async #judgeRefusal(error: ErrProposalRefused): Promise<void> {
    const record = this.#record;
    if (!await this.#isSameHistory()) return;
    await this.#options.upToDate(this.#stopped.signal);
    // It may have been applied since, or the owner may be back.
    if (this.#closed !== undefined || !this.#isRefused) return;
    if (record !== this.#record || record && this.#isGone(record)) {
      this.#isRefused = false;
      return;
    }
    this.#blockOther(error);
    this.#options.event({ type: "outbox failed", error });
  }

  #blockOther(cause: ErrProposalRefused): void {
    this.#block(
      new ErrOtherPrincipal(this.#queued.length, this.#principal, { cause }),
    );
  }

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
    if (this.#opened === undefined) await this.#checkDevice();
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
        if (error instanceof ErrProposalRefused) {
          if (!await this.#isSameHistory()) return;
          await this.#options.upToDate(this.#stopped.signal);
          if (this.#isLost || this.#copied !== undefined) return;
          if (this.#isGone(record)) return this.#giveUp(session);
          // Nothing that was left here by another principal waits any more.
          if (this.#open > this.#loaded) {
            this.#isAdopted = true;
            return this.#giveUp(session);
          }
          this.#blockOther(error);
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
    const decided = this.#open - 1 - base;
    if (now.next - 1 < decided) {
      const detail = `The log has ${
        now.next - 1
      } commands of session ${index}, of which ${decided} were decided`;
      return this.#onOtherHistory(
        new ErrOtherHistory(detail, { known: record.known }),
      );
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
