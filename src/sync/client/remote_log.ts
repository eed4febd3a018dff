/**
 * Log of one cluster on a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_REFUSED_FIRST_MS,
  SYNC_RETRY_FIRST_MS,
  SYNC_RETRY_LAST_MS,
} from "../../limits.ts";
import { checkRecords } from "../../log/cluster_log.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrNodeIDTaken,
  ErrOtherHistory,
} from "../../log/errors.ts";
import type { HistoryPoint } from "../../log/history.ts";
import type {
  Log,
  LogInfo,
  LogReader,
  ReadOptions,
  Records,
  Retention,
} from "../../log/log.ts";
import { Backoff } from "../../async.ts";
import {
  ErrClusterFailed,
  ErrConnectionLost,
  ErrForbidden,
  ErrRemote,
} from "../errors.ts";
import {
  ANONYMOUS_ID,
  type Opened,
  type Refused,
  WaitCode,
} from "../messages.ts";
import { CloseCode } from "../transport.ts";
import { AppendQueue } from "./append_queue.ts";
import { PendingRequests } from "./pending_requests.ts";
import { RemoteCheckpointBoard } from "./remote_checkpoints.ts";
import type { ChannelMessage, Connection } from "./connection.ts";
import type { Channel, Link } from "./link.ts";
import type { LogCopy } from "./log_copy.ts";
import { RemoteReader } from "./remote_reader.ts";
import { RemoteSnapshots } from "./remote_snapshots.ts";
import { blockedBy, type Reason, type ReasonCode } from "./failure.ts";
import type { ClusterProgress, ClusterState } from "./status.ts";

/** Reasons for the codes with which a server refuses to open a log. */
const REFUSED: Readonly<Record<number, ReasonCode>> = {
  [CloseCode.GoingAway]: "cluster-stopped",
  [CloseCode.NotFound]: "no-cluster",
  [CloseCode.TooMany]: "too-many-clusters",
  [CloseCode.ClusterFailed]: "cluster-failed",
  [CloseCode.CutOff]: "cut-off",
};

/** Reasons for the codes of an `unable` message. */
const UNABLE: Readonly<Record<number, ReasonCode>> = {
  1: "storage",
  2: "cut-off",
};

/** Reasons for the codes of a `waits` message. */
const WAITS: Readonly<Record<number, ReasonCode>> = {
  [WaitCode.OlderServer]: "older-server",
  [WaitCode.OtherAuthor]: "needs-auth",
};

/** Refusal that fails pending calls instead of being retried. */
type Refusal = ErrForbidden | ErrNodeIDTaken;

function isFinal(error: Error | undefined): error is Refusal {
  return error instanceof ErrForbidden || error instanceof ErrNodeIDTaken;
}

function remoteFailure(
  code: ReasonCode,
  message: string,
): { reason: Reason; error: Error } {
  const error = code === "cluster-failed"
    ? new ErrClusterFailed(message)
    : new ErrRemote(message);
  return { reason: { code, message }, error };
}

/** Dependencies of a {@linkcode RemoteLog}. */
export interface RemoteLogParts {
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  /** Number of the channel, on any link. */
  readonly channel: number;
  readonly link: Link;
  /** Called when the server refuses another cluster on a link; returns a link with room, if there is one. */
  readonly overflow: (link: Link) => Link | undefined;
  readonly env: Env;
  readonly copy: LogCopy | undefined;
  /** Called when data was received. */
  readonly progressed: () => void;
  /** Called after each change that may affect the state. */
  readonly changed: () => void;
  /** Called after each change of the reason why the cluster is not live. */
  readonly failureChanged: () => void;
  readonly onClose: (log: RemoteLog) => void;
}

/**
 * Log of one cluster, reopened on each connection. Without a connection, calls
 * wait. If the server forbids access, pending and new calls fail with
 * `ErrForbidden` (`ErrNodeIDTaken` if the server's replica has the same node id);
 * `next()` of a reader fails once it has returned what was received before. The log
 * is opened again with the next connection, and with a call some time later. After
 * any other refusal (the cluster is starting, or has failed on the server) calls
 * wait, and the log retries with backoff.
 */
export class RemoteLog implements Log, Channel {
  readonly checkpoints: RemoteCheckpointBoard;
  readonly snapshots: RemoteSnapshots;
  /** Principal as which a server has last welcomed this client. */
  principal: string | null | undefined;
  /** Compacts the local copy, if there is one; never the server's log (H7). */
  compact?: (upTo: number) => Promise<void>;
  readonly #parts: RemoteLogParts;
  readonly #channel: number;
  #link: Link;
  readonly #appends = new AppendQueue();
  readonly #requests = new PendingRequests();
  readonly #readers = new Set<RemoteReader>();
  readonly #retentions = new Set<() => void>();
  /** Called each time the server has opened the log. */
  readonly #listeners = new Set<() => void>();
  readonly #backoff: Backoff;
  /** Connection, also before the server has opened the log on it. */
  #connection: Connection | undefined;
  #isOpen = false;
  /** Refusal of the server to open the log. */
  #refusal: { reason: Reason; error: Error } | undefined;
  /** Reason why appends are queued on the server. */
  #queuedReason: { reason: Reason; error: Error } | undefined;
  /** Time at which the server tries the queued appends again, if it has said so. */
  #triedAt: number | undefined;
  /** Reason why the server rejects appends now. */
  #rejectedReason: { reason: Reason; error: Error } | undefined;
  #retryAt: number | undefined;
  #refusedAt = 0;
  #cancelReopen: (() => void) | undefined;
  #last = 0;
  #snapshot: ClusterProgress["snapshot"];
  /** Index after which the server has recommended a snapshot; the next request after it asks for the records. */
  #snapshotAfter: number | undefined;
  #isClosed = false;
  /** Failure of the replica, or another cause that the application or a person must resolve. */
  #blocked: { reason: Reason; error: Error } | undefined;
  /** Pending `verify()` calls. */
  #verifying = 0;

  /** Creates a log that opens on the next connection. */
  constructor(parts: RemoteLogParts) {
    const { link, env, clusterID, copy, channel } = parts;
    const connection = (): Connection | undefined => this.#opened;
    this.#parts = parts;
    this.#link = link;
    this.#channel = channel;
    this.#backoff = new Backoff(env, SYNC_RETRY_FIRST_MS, SYNC_RETRY_LAST_MS);
    this.checkpoints = new RemoteCheckpointBoard(
      channel,
      this.#requests,
      connection,
    );
    this.snapshots = new RemoteSnapshots({
      clusterID,
      channel,
      env,
      receiveBuffer: () => this.#link.receiveBuffer,
      connection,
      progress: (received, size) => {
        this.#snapshot = received === undefined
          ? undefined
          : { received, size: size ?? 0 };
        parts.changed();
        parts.progressed();
      },
    });
    if (copy !== undefined) {
      this.compact = async (upTo) => {
        this.#check();
        await copy.compact(upTo);
      };
    }
    link.join(channel, this);
  }

  /** Index from which the copy is long enough to need a snapshot. */
  get snapshotFrom(): number {
    return this.#parts.copy?.snapshotFrom ?? 0;
  }

  /** Node id of the replica. */
  get nodeID(): bigint {
    return this.#parts.nodeID;
  }

  /** Id of the cluster. */
  get clusterID(): bigint {
    return this.#parts.clusterID;
  }

  /** Progress of the cluster. */
  get progress(): ClusterProgress {
    const { clusterID, nodeID, copy } = this.#parts;
    let received = copy?.last ?? 0;
    for (const reader of this.#readers) {
      received = Math.max(received, reader.received);
    }
    const snapshot = this.#snapshot;
    const { failure } = this;
    const error = failure?.error ?? copy?.error;
    const retryAt = this.#retryAt ?? this.#triedAt;
    return {
      clusterID,
      nodeID,
      state: this.state,
      received,
      last: this.#last,
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(failure === undefined ? {} : { reason: failure.reason }),
      ...(retryAt === undefined ? {} : { retryAt }),
      ...(error === undefined ? {} : { error }),
    };
  }

  /** Reason why the cluster is not live, with its error; undefined while it is catching up. */
  get failure(): { reason: Reason; error: Error } | undefined {
    return this.#blocked ?? this.#refusal ?? this.#rejectedReason ??
      this.#queuedReason;
  }

  /** State of the cluster. */
  get state(): ClusterState {
    if (this.#blocked !== undefined) return "blocked";
    if (!this.#isOpen) {
      const error: Error | undefined = this.#refusal?.error;
      if (error instanceof ErrClusterFailed) return "failed";
      return isFinal(error) ? "forbidden" : "waiting";
    }
    if (!this.#isCaughtUp) return "catching up";
    return this.failure === undefined ? "live" : "not accepting";
  }

  /**
   * True if the readers have returned all records that the server had when the
   * connection began. There is no reader before the state is loaded, nor during a
   * recovery from a snapshot.
   */
  get #isCaughtUp(): boolean {
    if (this.#snapshot !== undefined || this.#readers.size === 0) return false;
    if (this.#verifying > 0) return false;
    for (const reader of this.#readers) if (!reader.isLive) return false;
    return true;
  }

  /** Connection on which the server has opened the log. */
  get #opened(): Connection | undefined {
    return this.#isOpen ? this.#connection : undefined;
  }

  connected(connection: Connection): void {
    this.#connection = connection;
    const { principal } = connection.welcome!;
    this.principal = principal === ANONYMOUS_ID ? null : principal;
    this.#open();
  }

  #open(): void {
    const refusal = this.#refusal;
    this.#endRefusal();
    // A refusal that is retried stays visible until the log is open.
    if (!isFinal(refusal?.error)) this.#refusal = refusal;
    const { clusterID, nodeID } = this.#parts;
    this.#connection?.send({
      type: "open",
      channel: this.#channel,
      clusterID,
      nodeID,
    });
  }

  #endRefusal(): void {
    this.#cancelReopen?.();
    this.#cancelReopen = this.#retryAt = this.#refusal = undefined;
  }

  message(message: ChannelMessage): void {
    switch (message.type) {
      case "opened":
        return this.#onOpened(message);
      case "refused":
        return this.#onRefused(message);
      case "held":
        this.#queuedReason = message.reason === ""
          ? undefined
          : remoteFailure("held", message.reason);
        this.#triedAt = undefined;
        return this.#parts.failureChanged();
      case "waits":
        this.#queuedReason = remoteFailure(
          WAITS[message.code] ?? "held",
          message.reason,
        );
        this.#triedAt = this.#parts.env.now() + message.retryMs;
        return this.#parts.failureChanged();
      case "unable":
        this.#rejectedReason = message.code === 0
          ? undefined
          : remoteFailure(UNABLE[message.code] ?? "held", message.reason);
        this.#parts.failureChanged();
        return message.code === 2
          ? this.#link.moveOn(message.reason)
          : this.#link.stay();
      case "checkpoint":
        return this.checkpoints.received(message);
    }
  }

  #onOpened({ last, trusted }: Opened): void {
    const connection = this.#connection;
    if (this.#isOpen || connection === undefined) return;
    this.#isOpen = true;
    this.#link.stay();
    this.#endRefusal();
    this.#backoff.reset();
    this.#last = Math.max(this.#last, last);
    this.checkpoints.trusted = trusted === 0n ? undefined : trusted;
    // Readers first: clients with equal stream numbers share encoded frames on the server.
    for (const reader of [...this.#readers]) reader.connected(connection);
    this.#requests.resume(connection);
    this.checkpoints.opened(connection);
    this.#appends.pump(connection, this.#channel);
    for (const listener of [...this.#listeners]) listener();
    this.#parts.failureChanged();
  }

  #onRefused({ code, reason }: Refused): void {
    if (this.#isOpen) this.#shut(new ErrConnectionLost(code, reason));
    const { env, failureChanged } = this.#parts;
    this.#endRefusal();
    if (code === CloseCode.TooMany && this.#move()) return failureChanged();
    this.#refusedAt = env.now();
    if (code === CloseCode.Forbidden) {
      const error = new ErrForbidden(reason);
      this.#refusal = { reason: { code: "forbidden", message: reason }, error };
      this.forbidden(error);
    } else if (code === CloseCode.Conflict) {
      const { clusterID, nodeID } = this.#parts;
      const error = new ErrNodeIDTaken(clusterID, nodeID);
      const { message } = error;
      this.#refusal = { reason: { code: "node-id-taken", message }, error };
      this.forbidden(error);
    } else {
      this.#refusal = remoteFailure(REFUSED[code] ?? "cluster-stopped", reason);
      const wait = this.#backoff.next();
      this.#retryAt = env.now() + wait;
      this.#cancelReopen = env.setTimer(() => this.#open(), wait);
    }
    failureChanged();
    if (code === CloseCode.CutOff) this.#link.moveOn(reason);
  }

  /** Moves to another link with room, if there is one. */
  #move(): boolean {
    const link = this.#parts.overflow(this.#link);
    if (link === undefined) return false;
    this.#link.leave(this.#channel);
    this.#connection = undefined;
    this.#link = link;
    for (const reader of this.#readers) reader.move(link.receiveBuffer);
    link.join(this.#channel, this);
    return true;
  }

  /** Link of the log. */
  get link(): Link {
    return this.#link;
  }

  forbidden(error: Refusal): void {
    for (const reader of [...this.#readers]) reader.refuse(error);
    this.#requests.fail(error);
    this.#appends.fail(error);
  }

  /** Handles the loss of the open log. */
  #shut(error: ErrConnectionLost): void {
    this.#isOpen = false;
    this.#queuedReason = this.#rejectedReason = this.#triedAt = undefined;
    for (const reader of [...this.#readers]) reader.disconnected();
    this.#requests.lost();
    this.snapshots.lost(error);
    this.#appends.lost(error);
  }

  lost(error: ErrConnectionLost): void {
    this.#connection = undefined;
    this.#endRefusal();
    this.#shut(error);
  }

  writable(): void {
    const connection = this.#opened;
    if (connection !== undefined) {
      this.#appends.pump(connection, this.#channel);
    }
  }

  #check(): void {
    if (this.#isClosed) throw new ErrClusterClosed(this.#closedMessage);
  }

  get #closedMessage(): string {
    return `Log of cluster ${this.clusterID} is closed`;
  }

  /** Refusal with which a call fails now. Some time after the refusal, a call opens the log again instead. */
  #forbidden(): Refusal | undefined {
    const { env } = this.#parts;
    if (this.#connection === undefined) return this.#link.refusal;
    const refusal = this.#refusal?.error;
    if (!isFinal(refusal)) return undefined;
    if (env.now() - this.#refusedAt < SYNC_REFUSED_FIRST_MS) return refusal;
    this.#open();
    return undefined;
  }

  async append(records: Records): Promise<number> {
    checkRecords(records);
    this.#check();
    const forbidden = this.#forbidden();
    if (forbidden !== undefined) throw forbidden;
    const appended = this.#appends.push(records);
    this.writable();
    return await appended;
  }

  read(after: number, options: ReadOptions = {}): LogReader {
    this.#check();
    const { copy, env } = this.#parts;
    const { epoch, signal } = options;
    if (copy?.has(after)) copy.check(after, epoch);
    const reader = new RemoteReader({
      env,
      channel: this.#channel,
      receiveBuffer: this.#link.receiveBuffer,
      copy,
      own: this.#appends.own,
      after,
      epoch,
      signal,
      acceptsSnapshot: (index) => {
        if (this.#snapshotAfter !== index) return true;
        this.#snapshotAfter = undefined;
        return false;
      },
      snapshotRecommended: (index) => this.#snapshotAfter = index,
      progress: (reader, last) => this.#progressed(reader, last),
      onEnd: (reader) => {
        this.#readers.delete(reader);
        // An ended reader no longer counts as catching up.
        this.#parts.changed();
      },
    });
    if (signal?.aborted) return reader;
    this.#readers.add(reader);
    const forbidden = this.#forbidden();
    const connection = this.#opened;
    if (forbidden !== undefined) reader.refuse(forbidden);
    else if (connection !== undefined) reader.connected(connection);
    this.#parts.changed();
    return reader;
  }

  #progressed(reader: RemoteReader, last: number): void {
    this.checkpoints.confirmed();
    const { progressed, changed } = this.#parts;
    this.#last = Math.max(this.#last, last);
    if (reader.isLive) changed();
    progressed();
  }

  async readIndex(
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    this.#check();
    const forbidden = this.#forbidden();
    if (forbidden !== undefined) throw forbidden;
    return await this.#requests.request(
      this.#opened,
      (stream) => ({ type: "readIndex", channel: this.#channel, stream }),
      (message) => message.type === "index" ? message.index : undefined,
      options.signal,
    );
  }

  async verify(
    { index, epoch }: HistoryPoint,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    this.#check();
    const forbidden = this.#forbidden();
    if (forbidden !== undefined) throw forbidden;
    this.#verifying++;
    try {
      const other = await this.#requests.request(
        this.#opened,
        (stream) => ({
          type: "verify",
          channel: this.#channel,
          stream,
          index,
          epochIndex: epoch?.index ?? 0,
          epochID: epoch?.id ?? 0n,
        }),
        (message) => {
          if (message.type === "index") return false;
          return message.type === "end" && message.reason === "diverged"
            ? message.message
            : undefined;
        },
        options.signal,
      );
      if (other !== false) {
        const error = new ErrOtherHistory(other, { known: { index, epoch } });
        // Set in the same turn as the reply: the state must not be live in between.
        this.block(error);
        throw error;
      }
    } finally {
      this.#verifying--;
      this.#parts.changed();
    }
  }

  onReopened(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  block(cause: unknown): void {
    this.#blocked = cause === undefined ? undefined : blockedBy(cause);
    this.#parts.changed();
  }

  retain(after: number): Retention {
    this.#check();
    const retained = this.#parts.copy?.retain(after);
    const release = (): void => {
      retained?.release();
      this.#retentions.delete(release);
    };
    this.#retentions.add(release);
    return {
      move: (index) => {
        if (retained !== undefined) retained.after = index;
      },
      release,
    };
  }

  // deno-lint-ignore require-await
  async startAt(): Promise<void> {
    this.#check();
    throw new ErrClusterAlreadyExist(
      `Log of cluster ${this.clusterID} is on the server: import the snapshot there`,
    );
  }

  info(): LogInfo {
    const { copy } = this.#parts;
    const { received, last } = this.progress;
    const committed = Math.max(received, last);
    return copy === undefined
      ? { first: received + 1, last: received, committed, bytes: 0 }
      : { first: copy.first, last: copy.last, committed, bytes: copy.bytes };
  }

  isEmpty(): boolean {
    this.#check();
    // The first record of a cluster is written by the server.
    return false;
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      const { onClose } = this.#parts;
      const closed = new ErrClusterClosed(this.#closedMessage);
      this.#link.leave(this.#channel);
      this.#endRefusal();
      for (const reader of [...this.#readers]) reader.end(closed);
      for (const release of [...this.#retentions]) release();
      this.snapshots.close(closed);
      this.#requests.fail(closed);
      this.#appends.fail(closed, true);
      this.#connection?.send({ type: "close", channel: this.#channel });
      this.#connection = undefined;
      this.#isOpen = false;
      onClose(this);
    }
    await this.#parts.copy?.settled();
  }
}
