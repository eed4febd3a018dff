/**
 * Interface of a connection for its channels.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Message } from "../messages.ts";
import type { Authentication } from "./authentication.ts";
import type { ServerLogRecord } from "./options.ts";
import type { Sender } from "./sender.ts";
import type { SentRecords } from "./sent_records.ts";
import type { Streams } from "./streams.ts";

/** Operations of a connection that its channels use. */
export interface ChannelConnection {
  /** Number of the connection, counted from 1. */
  readonly number: number;
  /** Version of the protocol; 0 before the welcome. */
  readonly version: number;
  /** Remote address, if it is known. */
  readonly address: string | undefined;
  /** Aborts when the connection ends. */
  readonly signal: AbortSignal;
  /** Principal of the connection. */
  readonly authentication: Authentication;
  /** Outgoing half of the connection. */
  readonly sender: Sender;
  /** Streams in use on the connection. */
  readonly streams: Streams;
  /** Records the client has appended over the connection and not been sent back. */
  readonly sentRecords: SentRecords;
  /** Answers a request on a stream, unless it was stopped. */
  answer(stream: number, message: Message): void;
  /** Returns the credit of an append that has been processed. */
  appendProcessed(credit: number, commands: number): void;
  /** Closes a channel, and tells the client a `CloseCode` and a reason. */
  refuseChannel(channel: number, code: number, reason: string): void;
  /** Logs an event of this connection. */
  log(
    level: ServerLogRecord["level"],
    event: string,
    more?: Partial<ServerLogRecord>,
  ): void;
}
