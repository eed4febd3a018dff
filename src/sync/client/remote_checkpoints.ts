/**
 * Checkpoint board of a log on a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { CHECKPOINTS_KEPT } from "../../limits.ts";
import { MemoryCheckpointBoard } from "../../log/cluster_log.ts";
import type { Checkpoint, CheckpointBoard } from "../../log/log.ts";
import { ErrRemote } from "../errors.ts";
import type { PendingRequests } from "./pending_requests.ts";
import type { Connection } from "./connection.ts";

/** Checkpoints of one log (H12): those of the server are published here, those of the replica are sent to the server. */
export class RemoteCheckpointBoard implements CheckpointBoard {
  /** Node id of the server's replica, once it is known. */
  trusted: bigint | undefined;
  readonly #channel: number;
  readonly #requests: PendingRequests;
  readonly #connection: () => Connection | undefined;
  readonly #board = new MemoryCheckpointBoard();
  /** Checkpoints to send on the next connection. */
  #unsent: Checkpoint[] = [];
  /** Checkpoints received before the server is known to have the reader's history; undefined once it is. A server restored from an older backup must not make the replica recover (U33). */
  #unconfirmed: Checkpoint[] | undefined = [];

  /** Creates a board that sends its requests with `requests`. */
  constructor(
    channel: number,
    requests: PendingRequests,
    connection: () => Connection | undefined,
  ) {
    this.#channel = channel;
    this.#requests = requests;
    this.#connection = connection;
  }

  publish(checkpoint: Checkpoint): void {
    this.#board.publish(checkpoint);
    this.#unsent.push(checkpoint);
    if (this.#unsent.length > CHECKPOINTS_KEPT) this.#unsent.shift();
    const connection = this.#connection();
    if (connection !== undefined) this.#send(connection);
  }

  watch(
    nodeID: bigint,
    listener: (checkpoint: Checkpoint) => void,
  ): () => void {
    return this.#board.watch(nodeID, listener);
  }

  /** Sends pending checkpoints on a new connection. Those of the server count after `confirmed()`. */
  opened(connection: Connection): void {
    this.#unconfirmed = [];
    this.#send(connection);
  }

  /** Publishes the server's checkpoints: it has the reader's history. */
  confirmed(): void {
    const told = this.#unconfirmed ?? [];
    this.#unconfirmed = undefined;
    for (const checkpoint of told) this.#board.publish(checkpoint);
  }

  #send(connection: Connection): void {
    for (const checkpoint of this.#unsent.splice(0)) {
      connection.send({
        type: "checkpoint",
        channel: this.#channel,
        ...checkpoint,
        stateVersion: checkpoint.stateVersion ?? 0,
      });
    }
  }

  /** Handles a checkpoint of another replica. */
  received(checkpoint: Checkpoint): void {
    const { nodeID, index, state, stateVersion, sessions } = checkpoint;
    const told = { nodeID, index, state, stateVersion, sessions };
    if (this.#unconfirmed === undefined) return this.#board.publish(told);
    this.#unconfirmed.push(told);
    if (this.#unconfirmed.length > CHECKPOINTS_KEPT) this.#unconfirmed.shift();
  }

  /** Requests the hashes after each entry of a range; waits for a connection. */
  explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    return this.#requests.request(
      this.#connection(),
      (stream) => ({
        type: "explain",
        channel: this.#channel,
        stream,
        after,
        upTo,
      }),
      (message) => {
        if (message.type !== "hashes") return undefined;
        const { indexes, states, sessions, stateVersions } = message;
        return indexes.map((index, i) => ({
          index,
          state: states[i],
          stateVersion: stateVersions[i] ?? 0,
          sessions: sessions[i] ?? 0n,
        }));
      },
      signal,
    ).catch((error) => {
      // The server cannot replay the range.
      if (error instanceof ErrRemote) return undefined;
      throw error;
    });
  }
}
