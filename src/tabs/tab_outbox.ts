/**
 * Outbox of a host whose replicas tabs share. Every tab stores its submissions in
 * the outbox of the device and shows those of all tabs; the leader sends them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClusterClosed } from "../log/errors.ts";
import { TAB_EARLY_MESSAGES_MAX } from "../limits.ts";
import type {
  Outbox,
  OutboxParts,
  ReplicaOutbox,
  Submission,
  Unsynced,
} from "../nodehost/outbox.ts";
import { DurableSession } from "../offline/durable_session.ts";
import { beginQueue } from "../offline/begin_queue.ts";
import type {
  OutboxQueue,
  SharedOutboxQueue,
  SharedOutboxStore,
} from "../offline/outbox_store.ts";
import { QueuedSubmissions } from "../offline/queued_submissions.ts";
import { loadOnce } from "../statemachine/load.ts";
import { SerialQueue } from "../store/group_commit.ts";
import { errorOf, type SentError } from "../worker/sent_error.ts";
import { FollowedSession } from "./followed_session.ts";
import type { OutboxMessage, SharedSession } from "./messages.ts";
import {
  addedMessage,
  ReportingQueue,
  sharedSession,
} from "./reporting_queue.ts";
import { SwitchingQueue } from "./switching_queue.ts";
import { LeadsHere } from "./tab_calls.ts";

/** Loads the queue of a tab that does not lead. */
const loadJoined = /* @__PURE__ */ loadOnce(
  "opens the outbox beside another tab",
  () => import("../offline/joined_queue.ts"),
);

/** Part of a tab that its outbox works with. */
export interface OutboxTab {
  /** Store of the outbox. */
  readonly store: SharedOutboxStore;
  /** True while this tab leads, or is a device of its own. */
  readonly isLeading: boolean;
  /** Error of submissions in this tab; undefined if it takes them. */
  readonly refusal: Error | undefined;
  /** Sends a message to the other tabs. */
  post(clusterID: bigint, message: OutboxMessage): void;
  /**
   * Has the leader dismiss a settled command.
   *
   * @throws LeadsHere once this tab leads
   */
  dismiss(clusterID: bigint, number: number): Promise<void>;
  /** Has the leader make an outbox that is a copy independent. */
  adopt(clusterID: bigint): Promise<void>;
  /** Has the outbox of a follower opened again, since it has missed messages. */
  rejoin(clusterID: bigint): void;
  /** Adds and removes the outbox of a replica. */
  attached(clusterID: bigint, outbox: AttachedTabOutbox | undefined): void;
  /** Does something once this tab leads; again, if another tab takes the lead before it is done. */
  leading(work: () => Promise<void>): Promise<void>;
}

/** Queue of a tab in one of its roles. */
type RoleQueue = OutboxQueue & Pick<SharedOutboxQueue, "heard" | "sync">;

/** Outbox that tabs share. */
export class TabOutbox implements Outbox {
  readonly #tab: OutboxTab;

  /** Creates the outbox of a tab. */
  constructor(tab: OutboxTab) {
    this.#tab = tab;
  }

  /** Attaches the outbox to a replica: called by its host. */
  attach(parts: OutboxParts): ReplicaOutbox {
    return new AttachedTabOutbox(this.#tab, parts);
  }

  /** Lists submissions of a cluster that may not be synced, in order. */
  unsynced(clusterID: bigint): Promise<readonly Unsynced[]> {
    return this.#tab.store.unsynced(clusterID);
  }

  /** Removes all submissions of a cluster, once this tab leads. */
  async clear(
    clusterID: bigint,
    options?: { readonly discard?: boolean },
  ): Promise<void> {
    await this.#tab.leading(() => this.#tab.store.clear(clusterID, options));
  }

  /** Prepares the submissions of a cluster for another history of its log, once this tab leads. */
  async startOver(
    clusterID: bigint,
    pending?: readonly number[],
  ): Promise<void> {
    await this.#tab.leading(() =>
      this.#tab.store.startOver(clusterID, pending)
    );
  }

  /** Lists the clusters that have submissions, in order of their ids. */
  clusters(): Promise<readonly bigint[]> {
    return this.#tab.store.clusters();
  }

  /** Does nothing: the application closes its outbox. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Does nothing: the application closes its outbox. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Outbox of a tab as attached to one replica. */
export class AttachedTabOutbox extends QueuedSubmissions
  implements ReplicaOutbox {
  readonly #tab: OutboxTab;
  readonly #parts: OutboxParts;
  readonly #clusterID: bigint;
  readonly #followed: FollowedSession;
  /** Session through which this tab sends, while it leads. */
  protected session: DurableSession | undefined;
  /** Session that this tab has stored last. */
  #assigned: SharedSession | undefined;
  /** Number of the last command in the outbox when this tab began to send, or took note of those of other tabs. */
  #storedLast = 0;
  readonly #switching = new SwitchingQueue();
  /** Changes of the role, one at a time. */
  readonly #changes = new SerialQueue();
  /** Messages that arrived while the queue was opened. */
  #early: OutboxMessage[] | undefined = [];
  /** Kind of those that were too many, if there were: "added" if no other was. */
  #dropped: OutboxMessage["kind"] | undefined;
  #isLoaded = false;
  #isStarted = false;

  /** Creates the outbox of a replica. */
  constructor(tab: OutboxTab, parts: OutboxParts) {
    super(parts);
    const { context, machine, proposals } = parts;
    const { queue } = this;
    this.#tab = tab;
    this.#parts = parts;
    this.#clusterID = context.clusterID;
    this.#followed = new FollowedSession(machine, proposals, queue);
    tab.attached(this.#clusterID, this);
  }

  /** True while a submission is not decided. */
  get hasQueued(): boolean {
    const { queued, last, next } = this.queue;
    return queued > 0 || next > last + 1;
  }

  #post(message: OutboxMessage): void {
    this.#tab.post(this.#clusterID, message);
  }

  // ------------------------------------------------------------------- the port

  override submit(cmd: Uint8Array): Promise<Submission> {
    const { refusal } = this.#tab;
    return this.closed === undefined && refusal !== undefined
      ? Promise.reject(refusal)
      : super.submit(cmd);
  }

  override adopt(): void {
    if (this.session !== undefined) return super.adopt();
    this.#tab.adopt(this.#clusterID).catch((error) =>
      this.#parts.context.event({ type: "outbox failed", error })
    );
  }

  async load(): Promise<void> {
    if (this.closed !== undefined) throw this.closed;
    await this.#changes.run(() => this.#openFirst());
    if (this.closed !== undefined) throw this.closed;
    this.learnAuthor();
  }

  /** Opens the queue, in whatever role this tab has when that succeeds. */
  async #openFirst(): Promise<void> {
    for (;;) {
      const { isLeading } = this.#tab;
      try {
        return await this.#openAs();
      } catch (error) {
        if (this.#isLoaded || isLeading === this.#tab.isLeading) throw error;
      }
    }
  }

  async #openAs(): Promise<void> {
    const outbox = this.#tab.isLeading
      ? await this.#opened()
      : await this.#joined();
    const { contents } = outbox;
    this.outbox = outbox;
    this.author = outbox.author;
    this.#switching.use(outbox);
    this.queue.load(this.#switching);
    this.view.loaded();
    this.#isLoaded = true;
    if (outbox instanceof ReportingQueue) await this.#begin(outbox, contents);
    else this.#followed.follow(sharedSession(contents.session));
    this.#hearEarly();
  }

  /** Opens the queue for the lead. */
  async #opened(): Promise<ReportingQueue> {
    const { store } = this.#tab;
    await beginQueue(this.#clusterID, store.joining());
    const opened = await store.open(
      this.#clusterID,
      (decided) => this.session?.acknowledge(decided),
    );
    this.#storedLast = opened.contents.last;
    opened.onAdded = (first, commands) => {
      this.#storedLast = first + commands.length - 1;
      this.queue.added(first, commands, 0);
      this.session?.send();
    };
    return new ReportingQueue(opened, (message) => {
      if (message.kind === "session") this.#assigned = message.session;
      this.#post(message);
    });
  }

  /** Opens the queue beside the leader. */
  async #joined(): Promise<RoleQueue> {
    const { JoinedQueue } = await loadJoined();
    const joined = await JoinedQueue.open(
      this.#clusterID,
      this.#tab.store.joining(),
    );
    joined.onAdded = (first, commands) => {
      this.queue.added(first, commands, this.#followed.decided);
      this.#followed.settle();
    };
    joined.onStored = (first, commands, session) =>
      this.#post(addedMessage(first, commands, session));
    joined.onDismiss = (number) => this.#dismissElsewhere(number);
    return joined;
  }

  /** Has the leader dismiss a settled command, or the queue of this tab once it leads. */
  async #dismissElsewhere(number: number): Promise<void> {
    try {
      await this.#tab.dismiss(this.#clusterID, number);
    } catch (error) {
      if (!(error instanceof LeadsHere)) throw error;
      const cmd = new Uint8Array();
      await this.#switching.noteNext({
        settle: { number, state: "dismissed", reason: "", cmd },
      });
    }
  }

  async #begin(
    outbox: OutboxQueue,
    contents: OutboxQueue["contents"],
  ): Promise<void> {
    // The replica may have ended in the meantime: a session begun now would never end.
    if (this.closed !== undefined) throw this.closed;
    this.#onBlocked(undefined);
    const session = new DurableSession(this.#parts, this.queue);
    const { queue } = this;
    // With those that other tabs have added since it was opened. The state may have
    // more: those of an outbox that a power cut has put back, whose numbers are given
    // again.
    const last = this.#storedLast;
    this.#followed.upTo = last;
    if (queue.last > last) queue.retract(last + 1, []);
    queue.loaded = last;
    this.session = session;
    // What the state has decided so far; and later, as the state of this tab may be
    // behind, what the outbox has as decided.
    this.#assigned = sharedSession(contents.session);
    this.#followed.follow(this.#assigned);
    this.#followed.leave();
    if (contents.session === undefined) this.queue.passOver(contents.decided);
    this.#followed.upTo = contents.decided;
    this.#watchState();
    await session.load(outbox, contents);
    this.#followed.observe();
    this.refuseThrown();
  }

  start(): void {
    this.#isStarted = true;
    if (this.session === undefined) this.#watchState();
    this.session?.start();
  }

  #watchState(): void {
    this.#parts.machine.onAdvanced = () => this.#followed.settle();
    this.#followed.settle();
  }

  override close(waiting: unknown, later: unknown): void {
    super.close(waiting, later);
    this.#tab.attached(this.#clusterID, undefined);
  }

  async end(): Promise<void> {
    this.view.close();
    await this.#changes.settled();
    await this.#switching.close();
  }

  // ------------------------------------------------------------ change of leader

  /**
   * Takes over the sending, once the replica has applied all that it was given and
   * gets nothing more until this resolves.
   *
   * @param delivered index up to which the replica was given records
   */
  lead(delivered: number): Promise<void> {
    return this.#change(true, async () => {
      const { machine, context } = this.#parts;
      await machine.until(delivered, context.stopped);
      await this.#leave();
      return await this.#opened();
    }, async (outbox) => {
      const { contents } = outbox;
      this.#onBlocked(undefined);
      this.#followed.follow(sharedSession(contents.session));
      await this.#moveTo(outbox, contents);
      if (!this.#tab.isLeading) throw this.#leftError;
      await this.#begin(outbox, contents);
      if (!this.#tab.isLeading) throw this.#leftError;
      this.#switching.use(outbox);
      if (this.#isStarted) this.session?.start();
    });
  }

  /**
   * Opens the queue of another role and goes on with it, unless the role has changed
   * again: then the next change does.
   */
  #change<Q extends RoleQueue>(
    isLeading: boolean,
    open: () => Promise<Q>,
    goOn: (outbox: Q) => Promise<void>,
  ): Promise<void> {
    const isWanted = (): boolean =>
      this.#isLoaded && this.closed === undefined &&
      this.#tab.isLeading === isLeading;
    return this.#changes.run(async () => {
      if (!isWanted()) return;
      let outbox: Q | undefined;
      try {
        outbox = await open();
        if (!isWanted()) return await outbox.close();
        this.outbox = outbox;
        this.author = outbox.author;
        await goOn(outbox);
        // It may have changed between the roles.
        this.learnAuthor();
        this.#hearEarly();
      } catch (error) {
        await this.#leave();
        await outbox?.close();
        if (isWanted()) {
          this.#parts.context.event({ type: "outbox failed", error });
        }
        throw error;
      }
    });
  }

  /** Leaves the sending to another tab, whose messages are followed from now on. */
  follow(): Promise<void> {
    this.#early ??= [];
    return this.#change(false, async () => {
      await this.#leave();
      return await this.#joined();
    }, async (outbox) => {
      const { contents } = outbox;
      this.#followed.follow(sharedSession(contents.session));
      await this.#moveTo(outbox, contents);
      this.#followed.settle();
      this.#switching.use(outbox);
      if (this.#isStarted) this.#watchState();
    });
  }

  /** Sends nothing more, in this turn: this tab leads no more. */
  lost(): void {
    const session = this.session;
    if (session === undefined) return;
    this.session = undefined;
    session.leave(this.#leftError);
    this.#followed.upTo = Infinity;
    this.#followed.follow(this.#assigned);
  }

  get #leftError(): ErrClusterClosed {
    return new ErrClusterClosed(
      `Another tab sends the submissions of cluster ${this.#clusterID}`,
    );
  }

  async #leave(): Promise<void> {
    this.lost();
    this.outbox = undefined;
    await this.#switching.leave();
  }

  /** Goes on with another queue of the same outbox, with commands that only the store had. */
  async #moveTo(
    outbox: OutboxQueue,
    { decided, last }: OutboxQueue["contents"],
  ): Promise<void> {
    const queue = this.queue;
    queue.moved(outbox.contents.settled);
    outbox.releaseContents();
    await this.#recheck(outbox, decided);
    if (queue.last < decided) {
      // Decided elsewhere, and not applied here yet.
      const unknown = Array(decided - queue.last).fill(new Uint8Array());
      queue.added(queue.last + 1, unknown, decided);
    }
    while (queue.last < last) {
      const from = queue.last + 1;
      const commands = await outbox.read(from);
      if (commands.length === 0) break;
      queue.added(from, commands, this.#followed.decided);
    }
  }

  /**
   * Finds commands in the store that this tab took as decided, though the state has
   * others in their places: a power cut has put the outbox back, and their numbers
   * were given again. They are queued.
   */
  async #recheck(outbox: OutboxQueue, decided: number): Promise<void> {
    const queue = this.queue;
    let other: { from: number; commands: Uint8Array[] } | undefined;
    for (let number = decided + 1; number < queue.undecided;) {
      const commands = await outbox.read(number);
      if (commands.length === 0) break;
      for (const cmd of commands) {
        if (other !== undefined) other.commands.push(cmd);
        else if (this.#followed.isOther(number, cmd)) {
          other = { from: number, commands: [cmd] };
        }
        number++;
      }
    }
    if (other !== undefined) queue.retract(other.from, other.commands);
  }

  // ------------------------------------------------------------------- messages

  #hearEarly(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    // The store has each of those that were added.
    for (const message of early) this.received(message, false);
    const dropped = this.#dropped;
    this.#dropped = undefined;
    if (dropped === "added" || this.session !== undefined) this.#sync();
    else if (dropped !== undefined) this.#rejoin();
  }

  /** Keeps a message until the queue is open. */
  #keepEarly(message: OutboxMessage, early: OutboxMessage[]): void {
    const { kind } = message;
    if (kind === "session" || kind === "blocked") {
      // Only the newest counts.
      this.#early = [...early.filter((one) => one.kind !== kind), message];
    } else if (early.length < TAB_EARLY_MESSAGES_MAX) early.push(message);
    // The store has what it says.
    else if (this.#dropped === undefined || kind !== "added") {
      this.#dropped = kind;
    }
  }

  #rejoin(): void {
    this.#tab.rejoin(this.#clusterID);
  }

  /** Takes a message of another tab; `isPresent` is true if it was sent under the present leader. */
  received(message: OutboxMessage, isPresent: boolean): void {
    if (this.closed !== undefined) return;
    if (this.#early !== undefined) return this.#keepEarly(message, this.#early);
    // The only message of a follower: it has added commands.
    if (
      this.session !== undefined && !(message.kind === "added" && isPresent)
    ) return this.look();
    switch (message.kind) {
      case "added": {
        const outbox = this.outbox as RoleQueue | undefined;
        const { first, commands, session = 0 } = message;
        outbox?.heard(first, commands, session).catch((error) =>
          this.#failed(error)
        );
        return;
      }
      case "sending":
        if (isPresent && this.outbox !== undefined) {
          this.outbox.sendsAdded = message.sendsAdded;
        }
        return;
      case "session":
        return this.#followed.follow(message.session);
      case "settled":
        if (!this.queue.settled(message.settled)) this.#rejoin();
        return;
      case "dismissed":
        return this.queue.dismissed(message.number);
      case "blocked":
        return this.#onBlocked(message.cause);
    }
  }

  /** Shows the cause for which the leader sends nothing; undefined if it sends. */
  #onBlocked(cause: SentError | undefined): void {
    const { context } = this.#parts;
    if (cause === undefined && context.blocked === undefined) return;
    context.blocked = cause && errorOf(cause);
    this.queue.changed();
  }

  #sync(): void {
    const outbox = this.outbox as RoleQueue | undefined;
    outbox?.sync().catch((error) => this.#failed(error));
  }

  /** Looks for commands that other tabs have added, if this tab leads. */
  look(): void {
    if (this.session === undefined) return;
    this.#sync();
  }

  #failed(error: unknown): void {
    if (this.closed !== undefined || this.session === undefined) return;
    this.#parts.context.event({ type: "outbox failed", error });
  }

  /** Dismisses a settled command for a follower. */
  async dismiss(number: number): Promise<void> {
    await this.queue.settledAt(number)?.dismiss();
  }
}
