/**
 * The board of checkpoints, at the other end of a wire.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { CHECKPOINTS_KEPT } from "../../limits.ts";
import { MemoryCheckpointBoard } from "../../log/cluster_log.ts";
import type { Checkpoint, CheckpointBoard } from "../../log/log.ts";
import { ErrRemote } from "../errors.ts";
import type { Asks } from "./asks.ts";
import type { Connection } from "./connection.ts";

/** The board of one log (H12): what the server tells is put up here, what is put up here the server is told. */
export class RemoteBoard implements CheckpointBoard {
  /** The server's own replica, once it is known, if it has one. */
  trusted: bigint | undefined;
  readonly #channel: number;
  readonly #asks: Asks;
  readonly #connection: () => Connection | undefined;
  readonly #board = new MemoryCheckpointBoard();
  /** What is to be told once there is a connection. */
  #untold: Checkpoint[] = [];
  /** What the server told on a connection on which it is not known yet to have the reader's history: a server that was put back would be right, and the replica rewound (U33). */
  #unsure: Checkpoint[] | undefined = [];

  /** A board that asks with `asks`, on the connection there is once the log is open. */
  constructor(
    channel: number,
    asks: Asks,
    connection: () => Connection | undefined,
  ) {
    this.#channel = channel;
    this.#asks = asks;
    this.#connection = connection;
  }

  publish(checkpoint: Checkpoint): void {
    this.#board.publish(checkpoint);
    this.#untold.push(checkpoint);
    if (this.#untold.length > CHECKPOINTS_KEPT) this.#untold.shift();
    const connection = this.#connection();
    if (connection !== undefined) this.#tell(connection);
  }

  watch(
    nodeID: bigint,
    listener: (checkpoint: Checkpoint) => void,
  ): () => void {
    return this.#board.watch(nodeID, listener);
  }

  /** The log is open: the server can be told. What it tells counts once it has a reader's history. */
  opened(connection: Connection): void {
    this.#unsure = [];
    this.#tell(connection);
  }

  /** The server has a reader's history. */
  confirmed(): void {
    const told = this.#unsure ?? [];
    this.#unsure = undefined;
    for (const checkpoint of told) this.#board.publish(checkpoint);
  }

  #tell(connection: Connection): void {
    for (const checkpoint of this.#untold.splice(0)) {
      connection.send({
        type: "checkpoint",
        channel: this.#channel,
        ...checkpoint,
        stateVersion: checkpoint.stateVersion ?? 0,
      });
    }
  }

  /** The server tells of another replica's. */
  received(checkpoint: Checkpoint): void {
    const { nodeID, index, state, stateVersion, sessions } = checkpoint;
    const told = { nodeID, index, state, stateVersion, sessions };
    if (this.#unsure === undefined) return this.#board.publish(told);
    this.#unsure.push(told);
    if (this.#unsure.length > CHECKPOINTS_KEPT) this.#unsure.shift();
  }

  /** Waits for a connection. */
  explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    return this.#asks.ask(
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
      // The server cannot tell.
      if (error instanceof ErrRemote) return undefined;
      throw error;
    });
  }
}
