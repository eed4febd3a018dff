/**
 * The log of one cluster at the other end of a wire.
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
import type { Opened, Refused } from "../messages.ts";
import { CloseCode } from "../transport.ts";
import { Appends } from "./appends.ts";
import { Asks } from "./asks.ts";
import { RemoteBoard } from "./checkpoints.ts";
import type { ChannelMessage, Connection } from "./connection.ts";
import type { Channel, Link } from "./link.ts";
import type { LogCopy } from "./log_copy.ts";
import { RemoteReader } from "./reader.ts";
import { RemoteSnapshots } from "./snapshots.ts";
import { blockedBy, type Reason, type ReasonCode } from "./reason.ts";
import type { ClusterProgress, ClusterState } from "./status.ts";

/** Reason for each code by which a server refuses to open a log. */
const REFUSED: Readonly<Record<number, ReasonCode>> = {
  [CloseCode.GoingAway]: "cluster-stopped",
  [CloseCode.NotFound]: "no-cluster",
  [CloseCode.TooMany]: "too-many-clusters",
  [CloseCode.ClusterFailed]: "cluster-failed",
};

/** Reason for each code of an `unable` message. */
const UNABLE: Readonly<Record<number, ReasonCode>> = { 1: "storage" };

/** Refusal that is not waited out: what waits fails with it. */
type Refusal = ErrForbidden | ErrNodeIDTaken;

function isFinal(error: Error | undefined): error is Refusal {
  return error instanceof ErrForbidden || error instanceof ErrNodeIDTaken;
}

function remoteTrouble(
  code: ReasonCode,
  message: string,
): { reason: Reason; error: Error } {
  const error = code === "cluster-failed"
    ? new ErrClusterFailed(message)
    : new ErrRemote(message);
  return { reason: { code, message }, error };
}

/** What a remote log takes of its LogDB. */
export interface RemoteLogParts {
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  /** Number of its channel, on whichever link. */
  readonly channel: number;
  readonly link: Link;
  /** Called when the server serves no more clusters on that link; returns another one with room, if there is one. */
  readonly overflow: (link: Link) => Link | undefined;
  readonly env: Env;
  readonly copy: LogCopy | undefined;
  /** Something came. */
  readonly progressed: () => void;
  /** Called after each change that may make its state another one. */
  readonly changed: () => void;
  /** Called after each change of the reason why it is not live. */
  readonly troubled: () => void;
  readonly onClose: (log: RemoteLog) => void;
}

/**
 * The log of one cluster, kept open on whatever connection there is. While there
 * is none, what is asked of it waits. When the server forbids it, what waits and
 * what comes fails with `ErrForbidden` (with `ErrNodeIDTaken`, if the server has
 * that node id itself), also `next()` of its readers, once they
 * have handed on what came before; it is asked again with the next connection,
 * and with a call that comes a while later. Any other refusal (the server is
 * about to start the cluster, or the cluster has failed there) lets all wait, and
 * it asks again by itself.
 */
export class RemoteLog implements Log, Channel {
  readonly checkpoints: RemoteBoard;
  readonly snapshots: RemoteSnapshots;
  /** Cuts the copy, if there is one: never the server's log (H7). */
  compact?: (upTo: number) => Promise<void>;
  readonly #parts: RemoteLogParts;
  readonly #channel: number;
  #link: Link;
  readonly #appends = new Appends();
  readonly #asks = new Asks();
  readonly #readers = new Set<RemoteReader>();
  readonly #retentions = new Set<() => void>();
  /** Called each time the log was opened again. */
  readonly #listeners = new Set<() => void>();
  readonly #backoff: Backoff;
  /** The connection, whether or not the server has opened the log on it. */
  #connection: Connection | undefined;
  #isOpen = false;
  /** Why the server does not open it. */
  #refusal: { reason: Reason; error: Error } | undefined;
  /** Why what was appended waits on the server. */
  #held: { reason: Reason; error: Error } | undefined;
  /** Cause for which the server accepts nothing now. */
  #stuck: { reason: Reason; error: Error } | undefined;
  #retryAt: number | undefined;
  #refusedAt = 0;
  #cancelReopen: (() => void) | undefined;
  #last = 0;
  #snapshot: ClusterProgress["snapshot"];
  /** From where the server has said that a snapshot is the better way. */
  #far: number | undefined;
  #isClosed = false;
  /** Cause for which the replica has stopped, or nothing can be sent until the application or a person acts. */
  #blocked: { reason: Reason; error: Error } | undefined;
  /** Number of pending checks whether the server's history is the one known here. */
  #verifying = 0;

  /** A log that opens with the next connection. */
  constructor(parts: RemoteLogParts) {
    const { link, env, clusterID, copy, channel } = parts;
    const connection = (): Connection | undefined => this.#opened;
    this.#parts = parts;
    this.#link = link;
    this.#channel = channel;
    this.#backoff = new Backoff(env, SYNC_RETRY_FIRST_MS, SYNC_RETRY_LAST_MS);
    this.checkpoints = new RemoteBoard(channel, this.#asks, connection);
    this.snapshots = new RemoteSnapshots({
      clusterID,
      channel,
      env,
      inbox: () => this.#link.inbox,
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

  /** Where its copy begins to be too long. */
  get snapshotFrom(): number {
    return this.#parts.copy?.snapshotFrom ?? 0;
  }

  /** The replica it is open for. */
  get nodeID(): bigint {
    return this.#parts.nodeID;
  }

  /** The cluster it is the log of. */
  get clusterID(): bigint {
    return this.#parts.clusterID;
  }

  /** How far it is. */
  get progress(): ClusterProgress {
    const { clusterID, nodeID, copy } = this.#parts;
    let received = copy?.last ?? 0;
    for (const reader of this.#readers) {
      received = Math.max(received, reader.received);
    }
    const snapshot = this.#snapshot;
    const { trouble } = this;
    const error = trouble?.error ?? copy?.error;
    const retryAt = this.#retryAt;
    return {
      clusterID,
      nodeID,
      state: this.state,
      received,
      last: this.#last,
      ...(snapshot === undefined ? {} : { snapshot }),
      ...(trouble === undefined ? {} : { reason: trouble.reason }),
      ...(retryAt === undefined ? {} : { retryAt }),
      ...(error === undefined ? {} : { error }),
    };
  }

  /** Cause for which it is not live, unless it is only catching up. */
  get trouble(): { reason: Reason; error: Error } | undefined {
    return this.#blocked ?? this.#refusal ?? this.#stuck ?? this.#held;
  }

  /** State of the log, and of what is submitted through it. */
  get state(): ClusterState {
    if (this.#blocked !== undefined) return "blocked";
    if (!this.#isOpen) {
      const error: Error | undefined = this.#refusal?.error;
      if (error instanceof ErrClusterFailed) return "failed";
      return isFinal(error) ? "forbidden" : "waiting";
    }
    if (!this.#isCaughtUp) return "catching up";
    return this.trouble === undefined ? "live" : "not accepting";
  }

  /**
   * True if its readers have handed on all that was there when the connection
   * began: there is none before the state is at hand, nor while a snapshot takes
   * its place.
   */
  get #isCaughtUp(): boolean {
    if (this.#snapshot !== undefined || this.#readers.size === 0) return false;
    if (this.#verifying > 0) return false;
    for (const reader of this.#readers) if (!reader.isLive) return false;
    return true;
  }

  /** The connection, if the log is open on it. */
  get #opened(): Connection | undefined {
    return this.#isOpen ? this.#connection : undefined;
  }

  connected(connection: Connection): void {
    this.#connection = connection;
    this.#open();
  }

  #open(): void {
    const refusal = this.#refusal;
    this.#endRefusal();
    // What is waited out stays told until the server has opened the log.
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
        this.#held = message.reason === ""
          ? undefined
          : remoteTrouble("held", message.reason);
        return this.#parts.troubled();
      case "unable":
        this.#stuck = message.code === 0
          ? undefined
          : remoteTrouble(UNABLE[message.code] ?? "held", message.reason);
        return this.#parts.troubled();
      case "checkpoint":
        return this.checkpoints.received(message);
    }
  }

  #onOpened({ last, trusted }: Opened): void {
    const connection = this.#connection;
    if (this.#isOpen || connection === undefined) return;
    this.#isOpen = true;
    this.#endRefusal();
    this.#backoff.reset();
    this.#last = Math.max(this.#last, last);
    this.checkpoints.trusted = trusted === 0n ? undefined : trusted;
    // Readers come first: clients that have the same streams share their frames.
    for (const reader of [...this.#readers]) reader.connected(connection);
    this.#asks.resume(connection);
    this.checkpoints.opened(connection);
    this.#appends.pump(connection, this.#channel);
    for (const listener of [...this.#listeners]) listener();
    this.#parts.troubled();
  }

  #onRefused({ code, reason }: Refused): void {
    if (this.#isOpen) this.#shut(new ErrConnectionLost(code, reason));
    const { env, troubled } = this.#parts;
    this.#endRefusal();
    if (code === CloseCode.TooMany && this.#move()) return troubled();
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
      this.#refusal = remoteTrouble(REFUSED[code] ?? "cluster-stopped", reason);
      const wait = this.#backoff.next();
      this.#retryAt = env.now() + wait;
      this.#cancelReopen = env.setTimer(() => this.#open(), wait);
    }
    troubled();
  }

  /** Goes on over another link, if there is one with room. */
  #move(): boolean {
    const link = this.#parts.overflow(this.#link);
    if (link === undefined) return false;
    this.#link.leave(this.#channel);
    this.#connection = undefined;
    this.#link = link;
    for (const reader of this.#readers) reader.move(link.inbox);
    link.join(this.#channel, this);
    return true;
  }

  /** The link it goes over. */
  get link(): Link {
    return this.#link;
  }

  forbidden(error: Refusal): void {
    for (const reader of [...this.#readers]) reader.refuse(error);
    this.#asks.fail(error);
    this.#appends.fail(error);
  }

  /** The log is not open any more. */
  #shut(error: ErrConnectionLost): void {
    this.#isOpen = false;
    this.#held = this.#stuck = undefined;
    for (const reader of [...this.#readers]) reader.disconnected();
    this.#asks.lost();
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
    if (this.#isClosed) throw new ErrClusterClosed("Log is closed");
  }

  /** Why a call is to fail now; one that comes a while after the server forbade it asks again. */
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
      inbox: this.#link.inbox,
      copy,
      own: this.#appends.own,
      after,
      epoch,
      signal,
      far: (index) => {
        if (this.#far !== index) return true;
        this.#far = undefined;
        return false;
      },
      wasFar: (index) => this.#far = index,
      progress: (reader, last) => this.#progressed(reader, last),
      onEnd: (reader) => {
        this.#readers.delete(reader);
        // What it still had to read keeps nobody waiting.
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
    return await this.#asks.ask(
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
      const other = await this.#asks.ask(
        this.#opened,
        (stream) => ({
          type: "verify",
          channel: this.#channel,
          stream,
          index,
          markIndex: epoch?.index ?? 0,
          markEpoch: epoch?.id ?? 0n,
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
        // In one step with the answer: it is not live in between.
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
    const need = this.#parts.copy?.need(after);
    const release = (): void => {
      need?.release();
      this.#retentions.delete(release);
    };
    this.#retentions.add(release);
    return {
      move: (index) => {
        if (need !== undefined) need.after = index;
      },
      release,
    };
  }

  // deno-lint-ignore require-await
  async startAt(): Promise<void> {
    this.#check();
    throw new ErrClusterAlreadyExist(
      "Log is the server's: import the snapshot there",
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
    // Whatever it holds: the first record of a cluster is not for a client to write.
    return false;
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      const { onClose } = this.#parts;
      const closed = new ErrClusterClosed("Log is closed");
      this.#link.leave(this.#channel);
      this.#endRefusal();
      for (const reader of [...this.#readers]) reader.end(closed);
      for (const release of [...this.#retentions]) release();
      this.snapshots.close(closed);
      this.#asks.fail(closed);
      this.#appends.fail(closed, true);
      this.#connection?.send({ type: "close", channel: this.#channel });
      this.#connection = undefined;
      this.#isOpen = false;
      onClose(this);
    }
    await this.#parts.copy?.settled();
  }
}
