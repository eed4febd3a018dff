/**
 * Channel: one cluster on one connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_RETENTION_MS_MAX, SYNC_TICK_MS } from "../../limits.ts";
import type { Epoch } from "../../log/history.ts";
import type { Checkpoint, Records, Retention } from "../../log/log.ts";
import { Checkpoints } from "../../divergence/mod.ts";
import { isPromise, sleep } from "../../async.ts";
import { admitTo } from "../../nodehost/replica.ts";
import { ErrHookFailed } from "../errors.ts";
import {
  ANONYMOUS_ID,
  type Append,
  type CheckpointAt,
  type Explain,
  type Fetch,
  type Message,
  type Read,
  type ReadIndex,
  type Verify,
} from "../messages.ts";
import { CloseCode } from "../transport.ts";
import { Admission } from "./admission.ts";
import { AppendPipeline } from "./append_pipeline.ts";
import type { ChannelConnection } from "./channel_connection.ts";
import type { ServerContext } from "./context.ts";
import { endMessage, endOf, LogStream } from "./log_stream.ts";
import type { ReadPermission } from "./read_permission.ts";
import type { ClusterUser, ServedCluster } from "./served_cluster.ts";
import { offerSnapshot } from "./snapshot_offer.ts";
import { SnapshotTransfer } from "./snapshot_transfer.ts";

const PERMISSION_UNKNOWN = "Server cannot check now whether you may read";

/** Request of a client on a channel, answered on a stream. */
export type ChannelRequest = Read | Fetch | ReadIndex | Verify | Explain;

/** Dependencies of a {@linkcode Channel}. */
export interface ChannelOptions {
  /** Number of the channel, chosen by the client. */
  readonly number: number;
  /** Replica of the client. */
  readonly nodeID: bigint;
  /** Cluster that the channel is open on. */
  readonly cluster: ServedCluster;
  /** Permission of the principal to read the cluster. */
  readonly permission: ReadPermission;
  /** Connection of the channel. */
  readonly connection: ChannelConnection;
  /** Services of the server. */
  readonly server: ServerContext;
}

/** Serves the requests of a client for one cluster. */
export class Channel implements ClusterUser {
  /** Id of its cluster. */
  readonly clusterID: bigint;
  readonly #options: ChannelOptions;
  readonly #appends: AppendPipeline;
  readonly #checkpoints: Checkpoints;
  #unwatchCheckpoints: (() => void) | undefined;
  /** Keeps the log after a snapshot that was sent until the client reads on. */
  #retention: Retention | undefined;
  #retainedAt = 0;
  /** Largest index at which the client was found to have diverged. */
  #divergedAt = 0;
  #isClosed = false;

  /** Replica of the client. */
  get nodeID(): bigint {
    return this.#options.nodeID;
  }

  /** Opens a channel. */
  constructor(options: ChannelOptions) {
    const { number, cluster, permission, connection, server } = options;
    const clusterID = this.clusterID = cluster.clusterID;
    this.#options = options;
    permission.listener = {
      renewed: () => connection.sender.pump(),
      revoked: () => this.#forbid(),
      failed: (error) => this.#authorizeFailed(error),
    };
    cluster.users.add(this);
    this.#appends = new AppendPipeline({
      channel: number,
      cluster,
      admission: this.#createAdmission(),
      connection,
      server,
    });
    this.#checkpoints = new Checkpoints((error) => {
      this.#divergedAt = Math.max(this.#divergedAt, error.upTo!);
      server.telemetry.counts.diverged++;
      connection.log("error", "client diverged", { clusterID, error });
    }, (index) => cluster.agreed(index));
  }

  #createAdmission(): Admission {
    const {
      cluster,
      connection,
      server: { hooks, limits, rehearses, decidesAlone },
    } = this.#options;
    const { authentication } = connection;
    const { clusterID } = cluster;
    const { owner } = authentication.principal!;
    return new Admission({
      owner,
      commandBytes: limits.commandBytes,
      sessionState: (session) => cluster.sessionState(session),
      claimOrigin: (origin) => cluster.claimOrigin(origin, owner),
      admit: (cmd) => {
        const { id } = authentication.principal!;
        return admitTo(
          cluster.replica,
          cmd,
          id === ANONYMOUS_ID ? null : id,
        );
      },
      mayWrite: hooks.authorizes
        ? () =>
          hooks.authorize(
            authentication.principal!.principal,
            clusterID,
            "write",
          )
        : undefined,
      validate: hooks.validates
        ? (cmd, context) =>
          hooks.validate(
            authentication.principal!.principal,
            cmd,
            clusterID,
            context,
          )
        : undefined,
      rehearsal: cluster.rehearsal,
      // Rules about the state hold only if the state is known.
      order: decidesAlone ? cluster.log.order : undefined,
      nodeID: cluster.replica.nodeID,
      untilApplied: (index) => cluster.untilApplied(index),
      rehearses,
      onThrown: (error) =>
        connection.log("warn", "command refused, the machine threw", {
          clusterID,
          error,
        }),
    });
  }

  /** Sends the state of the storage and the server's checkpoints from now on: the client compares their hashes with its own. */
  start(): void {
    if (this.#isClosed) return;
    const { cluster: { storageError, log }, server } = this.#options;
    if (storageError !== undefined || server.reach.reason !== undefined) {
      this.ableChanged();
    }
    this.#unwatchCheckpoints = log.checkpoints?.watch(
      0n,
      (checkpoint) => this.#sendCheckpoint(checkpoint),
    );
    // Sending may have ended the connection.
    if (this.#isClosed) this.#unwatchCheckpoints?.();
  }

  #send(message: Message): void {
    this.#options.connection.sender.send(message);
  }

  #sendCheckpoint(checkpoint: Checkpoint): void {
    const { number: channel, cluster } = this.#options;
    if (checkpoint.nodeID === cluster.replica.nodeID) {
      this.#checkpoints.addOwn(checkpoint);
    }
    const stateVersion = checkpoint.stateVersion ?? 0;
    this.#send({ type: "checkpoint", channel, ...checkpoint, stateVersion });
  }

  /** Compares a checkpoint of the client's replica with the server's. */
  checkpoint(
    { nodeID, index, state, stateVersion, sessions }: CheckpointAt,
  ): void {
    // A client may report the hashes of its own replica only.
    if (nodeID !== this.#options.nodeID) return;
    this.#checkpoints.addOther({
      nodeID,
      index,
      state,
      stateVersion,
      sessions,
    });
  }

  // ------------------------------------------------------------------ requests

  /** Appends records to the log. */
  append(message: Append, records: Records, credit: number): void {
    const { number, connection } = this.#options;
    connection.sentRecords.add(number, records);
    this.#appends.append(message, records, credit);
  }

  /**
   * Handles a request.
   *
   * @throws ErrProtocol if the stream is in use
   * @throws Violation if too many streams are in use
   */
  request(message: ChannelRequest): Promise<void> {
    switch (message.type) {
      case "read":
        return this.#read(message);
      case "fetch":
        return this.#fetch(message);
      case "readIndex":
        return this.#readIndex(message);
      case "verify":
        return this.#verify(message);
      case "explain":
        return this.#explain(message);
    }
  }

  /** Starts a log stream. */
  async #read(
    { stream, after, epochIndex, epochID, far, references }: Read,
  ): Promise<void> {
    const { number: channel, cluster, permission, connection, server } =
      this.#options;
    const { sender, streams } = connection;
    streams.begin(stream, "request");
    if (this.#logStreams >= server.limits.channels) {
      // Each log stream may have a batch read ahead.
      streams.finish(stream);
      return this.#endStream(
        stream,
        `No more than ${server.limits.channels} reads on one connection`,
      );
    }
    try {
      const may = permission.check();
      if (isPromise(may) ? !await may : !may) {
        streams.finish(stream);
        return this.#forbid();
      }
      const reader = await cluster.log.read(after, {
        epoch: epochOf(epochIndex, epochID),
      });
      if (!streams.finish(stream) || this.#isClosed) return reader.close();
      const behind = cluster.replica.appliedIndex - after;
      if (far && behind > server.limits.farEntries && cluster.isLive) {
        reader.close();
        return this.#send(
          endMessage(stream, "far", `${behind} entries behind`, after + 1),
        );
      }
      // Registered before anything is sent, as sending may end the connection.
      sender.streams.set(
        stream,
        new LogStream(
          {
            channel,
            stream,
            cluster,
            permission,
            sender,
            counts: server.telemetry.counts,
            sentRecords: references && connection.sender.isCompact
              ? connection.sentRecords
              : undefined,
          },
          after,
          reader,
        ),
      );
      this.#send({ type: "reading", stream, last: reader.lastAtStart });
      this.#releaseRetention();
      sender.pump();
    } catch (error) {
      const isHook = error instanceof ErrHookFailed;
      if (isHook) this.#authorizeFailed(error);
      if (!streams.finish(stream)) return;
      if (isHook) this.#endStream(stream, PERMISSION_UNKNOWN);
      else this.#send(endOf(stream, error));
    }
  }

  /** Number of log streams on the connection. */
  get #logStreams(): number {
    let count = 0;
    for (const stream of this.#options.connection.sender.streams.values()) {
      if (stream instanceof LogStream) count++;
    }
    return count;
  }

  /** Starts a snapshot transfer. */
  async #fetch({ stream }: Fetch): Promise<void> {
    const { permission, connection } = this.#options;
    const { streams } = connection;
    streams.begin(stream, "request");
    try {
      const may = permission.check();
      const isPermitted = isPromise(may) ? await may : may;
      if (!streams.finish(stream) || this.#isClosed) return;
      if (!isPermitted) return this.#forbid();
    } catch (error) {
      streams.finish(stream);
      if (!(error instanceof ErrHookFailed)) throw error;
      this.#authorizeFailed(error);
      return this.#endStream(stream, PERMISSION_UNKNOWN);
    }
    this.#transfer(stream);
  }

  #transfer(stream: number): void {
    const { number: channel, cluster, permission, connection, server } =
      this.#options;
    const { sender } = connection;
    const { clusterID } = cluster;
    const slot = server.quotas.takeTransfer({
      identity: connection.authentication.principal!,
      address: connection.address,
      connection: connection.number,
    });
    if (slot === undefined) {
      return this.#endStream(
        stream,
        "Too many snapshots are being sent; try again later",
      );
    }
    sender.streams.set(
      stream,
      new SnapshotTransfer({
        channel,
        stream,
        slot,
        permission,
        sender,
        telemetry: server.telemetry,
        open: () => {
          // The client's next checkpoints say whether the snapshot has repaired it.
          this.#checkpoints.resetReports();
          // An older snapshot would repeat the divergence.
          const least = this.#divergedAt;
          const lag = server.limits.farEntries;
          return offerSnapshot(server.host, cluster, lag, least);
        },
        opened: ({ retention }) => this.#retain(retention),
        failed: (error) =>
          connection.log("error", "snapshot failed", { clusterID, error }),
      }),
    );
  }

  /** Answers a request with an index at or above everything committed. */
  #readIndex({ stream }: ReadIndex): Promise<void> {
    return this.#answerWith(
      stream,
      async () => await this.#options.cluster.log.readIndex(),
      (index) => ({ type: "index", stream, index }),
    );
  }

  /** Answers a request to compare a point of the client's history with the log. */
  #verify({ stream, index, epochIndex, epochID }: Verify): Promise<void> {
    return this.#answerWith(
      stream,
      () => this.#options.cluster.verify(index, epochOf(epochIndex, epochID)),
      (result) =>
        typeof result === "number"
          ? { type: "index", stream, index: result }
          : endOf(stream, result),
    );
  }

  /** Answers a request for the hashes after each entry of a range. */
  #explain({ stream, after, upTo }: Explain): Promise<void> {
    const { cluster, connection, server } = this.#options;
    return this.#answerWith(stream, async () => {
      const release = server.quotas.takeReplay(connection.number);
      try {
        return await cluster.explain(after, upTo, connection.signal);
      } finally {
        release();
      }
    }, (hashes) => ({
      type: "hashes",
      stream,
      indexes: hashes.map(({ index }) => index),
      states: hashes.flatMap(({ state }) => state ?? []),
      sessions: hashes.map(({ sessions }) => sessions),
      stateVersions: hashes.flatMap(({ state, stateVersion = 0 }) =>
        state === undefined ? [] : stateVersion
      ),
    }));
  }

  /** Answers a request with a value that takes time. */
  async #answerWith<T>(
    stream: number,
    run: () => Promise<T>,
    answer: (value: T) => Message,
  ): Promise<void> {
    const { cluster: { clusterID }, permission, connection } = this.#options;
    const { streams } = connection;
    streams.begin(stream, "request");
    try {
      const may = permission.checkRecent();
      if (isPromise(may) ? !await may : !may) {
        streams.finish(stream);
        return this.#forbid();
      }
      connection.answer(stream, answer(await this.#reaching(run)));
    } catch (error) {
      connection.log("warn", "request failed", { clusterID, error });
      connection.answer(stream, {
        type: "failed",
        stream,
        unknown: false,
        message: "Server failed to answer the request; try again later",
      });
    }
  }

  /** Runs a request, again and again while the log is not reached: the client waits, or asks another server. */
  async #reaching<T>(run: () => Promise<T>): Promise<T> {
    const { connection, server: { env, reach } } = this.#options;
    for (;;) {
      try {
        return await run();
      } catch (error) {
        if (reach.lostMs === undefined) throw error;
        await sleep(env, SYNC_TICK_MS, connection.signal);
      }
    }
  }

  #endStream(stream: number, message: string): void {
    this.#send(endMessage(stream, "failed", message));
  }

  // ---------------------------------------------------------------- permission

  /** Closes the channel of a principal that may not read any more. */
  #forbid(): void {
    if (this.#isClosed) return;
    const { number, cluster: { clusterID }, connection } = this.#options;
    connection.refuseChannel(
      number,
      CloseCode.Forbidden,
      `You may no longer read cluster ${clusterID}`,
    );
  }

  #authorizeFailed(error: unknown): void {
    const { cluster: { clusterID }, connection } = this.#options;
    connection.log("error", "authorize failed", { clusterID, error });
  }

  // ------------------------------------------------------------------ lifecycle

  #retain(retention: Retention): void {
    this.#retention?.release();
    this.#retention = retention;
    this.#retainedAt = this.#options.server.env.now();
  }

  #releaseRetention(): void {
    this.#retention?.release();
    this.#retention = undefined;
  }

  /** Releases the log retention of a client that has not read on in time. */
  tick(now: number): void {
    if (now - this.#retainedAt > SYNC_RETENTION_MS_MAX) {
      this.#releaseRetention();
    }
  }

  /** Sends why nothing can be appended now, or that it can be again. */
  ableChanged(): void {
    const { number: channel, cluster, server } = this.#options;
    const lost = server.reach.reason;
    const reason = lost ?? cluster.storageError ?? "";
    const code = lost !== undefined ? 2 : reason === "" ? 0 : 1;
    this.#send({ type: "unable", channel, code, reason });
  }

  /** Closes the channel of a cluster that is not served any more. */
  clusterEnded(code: number, reason: string): void {
    const { connection, number } = this.#options;
    connection.refuseChannel(number, code, reason);
  }

  /** Fails appends that wait for a hook, as the server is stopping. */
  drain(): void {
    this.#appends.drain();
  }

  /** Frees the resources of the channel. */
  close(): void {
    this.#isClosed = true;
    this.#appends.close();
    this.#options.cluster.users.delete(this);
    this.#unwatchCheckpoints?.();
    this.#releaseRetention();
  }
}

function epochOf(index: number, id: bigint): Epoch | undefined {
  return index === 0 ? undefined : { index, id };
}
