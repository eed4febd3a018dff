/**
 * Client of a history: does operations on a few keys, one after the other, and writes
 * each down before it begins and after it has ended.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrStoreFull,
  ErrSystemBusy,
  ErrUnknownOutcome,
  type MaybePromise,
  type Replica,
  type Session,
} from "../../../mod.ts";
import { isPromise } from "../../../src/async.ts";
import { ErrConnectionLost, ErrRemote } from "../../../src/sync/client/mod.ts";
import { type Random, seeded } from "../../support/random.ts";
import { type Command, decodeOutput, encodeCommand } from "./ledger.ts";
import type { Input, Line, Output } from "./record.ts";

/** Keys in use at one time, and for how long they are, in nanoseconds: the history of each key stays short. */
const KEYS = 3;
const KEY_NS = 2_000_000_000;

/** Longest wait for an operation, of most and of impatient ones, in milliseconds. */
const PATIENCE_MS = 12_000;
const IMPATIENCE_MS = 60;

/** Errors after which a command was not applied and never will be. */
const REJECTED: readonly ErrorClass[] = [
  ErrSystemBusy,
  ErrConnectionLost,
  // The server could not append, and knows it.
  ErrRemote,
  ErrStoreFull,
];

/** Class of an error. */
export type ErrorClass = abstract new (...args: never[]) => Error;

/** Options of a client. */
export interface ClientOptions {
  readonly name: string;
  readonly replica: Replica;
  readonly seed: number;
  /** True to propose in a session. */
  readonly hasSession: boolean;
  /** True to fail on any error that an application would see. */
  readonly isStrict: boolean;
  /** Longest pause between two operations, in milliseconds. */
  readonly pauseMsMax: number;
  /** Numbers of the operations of the process. */
  readonly nextNumber: () => number;
  /** Clock of the history, in nanoseconds. */
  readonly now: () => number;
  /** Further errors after which a command was not applied and never will be. */
  readonly rejected: readonly ErrorClass[];
  /** Writes a line down; a call begins once that has resolved. */
  readonly write: (line: Line) => MaybePromise<void>;
}

/** Numbers the operations of a process. */
export function numbers(): () => number {
  let last = 0;
  return () => ++last;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Client at work. */
export class HistoryClient {
  readonly #options: ClientOptions;
  readonly #random: Random;
  #ids = 0;
  #isStopped = false;
  #session: Session | undefined;
  /** Value that a key had lately. */
  #seen: { key: string; value: string | null } | undefined;
  /** Number of commands that the replica had applied when it was asked last. */
  #applied = 0;
  readonly #done: Promise<void>;

  /** Starts the work. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.#random = seeded(options.seed);
    this.#done = this.#work().catch((error) => {
      this.#violation(`${(error as Error).stack ?? error}`);
    });
  }

  #violation(text: string): void {
    const { name, write } = this.#options;
    void write({ type: "violation", text: `${name}: ${text}` });
  }

  async #work(): Promise<void> {
    while (!this.#isStopped) {
      if (this.#options.hasSession && this.#session === undefined) {
        await this.#open();
        continue;
      }
      await (this.#random.oneIn(2) ? this.#read() : this.#propose());
      this.#lookBack();
      await pause(this.#random.below(this.#options.pauseMsMax));
    }
  }

  async #open(): Promise<void> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    try {
      this.#session = await this.#options.replica.openSession({ signal });
    } catch (error) {
      if (this.#options.isStrict) throw error;
      // A session that may have been opened is never used.
      await pause(200);
    }
  }

  #key(): string {
    return `${this.#random.below(KEYS)}@${
      Math.floor(this.#options.now() / KEY_NS)
    }`;
  }

  /** Writes a call down; resolves to its number. */
  async #begin(key: string, input: Input & { id?: string }): Promise<number> {
    const { name, nextNumber, write, now } = this.#options;
    const number = nextNumber();
    const at = now();
    const written = write({
      type: "call",
      number,
      client: name,
      key,
      input,
      at,
    });
    if (isPromise(written)) await written;
    return number;
  }

  #end(number: number, ok: boolean | null, output: Output | null): void {
    const at = this.#options.now();
    void this.#options.write({ type: "return", number, ok, output, at });
  }

  #failed(number: number, cause: unknown, isRead: boolean): void {
    const error = cause as Error;
    if (this.#options.isStrict) {
      this.#violation(`an application sees ${error.stack ?? error}`);
    }
    if (isRead) {
      this.#end(number, null, null);
    } else if (
      [...REJECTED, ...this.#options.rejected].some((kind) =>
        error instanceof kind
      )
    ) {
      this.#end(number, false, null);
    } else {
      this.#end(number, null, null);
      const isKnown = error instanceof ErrUnknownOutcome ||
        error instanceof ErrClusterClosed || error.name === "TimeoutError";
      if (!isKnown) this.#violation(`${error.stack ?? error}`);
    }
  }

  async #read(): Promise<void> {
    const key = this.#key();
    const number = await this.#begin(key, { op: "get" });
    try {
      const signal = this.#patience();
      const value = await this.#options.replica.read({ key }, { signal }) as
        | string
        | null;
      this.#seen = { key, value };
      this.#end(number, true, { value });
    } catch (error) {
      this.#failed(number, error, true);
    }
  }

  #patience(): AbortSignal {
    const { isStrict } = this.#options;
    const isImpatient = !isStrict && this.#random.oneIn(25);
    return AbortSignal.timeout(
      isStrict
        ? 5 * PATIENCE_MS
        : isImpatient
        ? this.#random.below(IMPATIENCE_MS)
        : PATIENCE_MS,
    );
  }

  #input(key: string, id: string): Command {
    const value = `${id};`;
    switch (this.#random.below(3)) {
      case 0:
        return { id, key, op: "put", value };
      case 1:
        return { id, key, op: "append", value };
      default: {
        const expected = this.#seen?.key === key ? this.#seen.value : null;
        return { id, key, op: "cas", value, expected };
      }
    }
  }

  async #propose(): Promise<void> {
    const { replica, name } = this.#options;
    const command = this.#input(this.#key(), `${name}#${++this.#ids}`);
    const { key, ...input } = command;
    const number = await this.#begin(key, input);
    try {
      const session = this.#session;
      const result = await replica.propose(encodeCommand(command), {
        signal: this.#patience(),
        ...(session === undefined ? {} : { session }),
      });
      const output = decodeOutput(result);
      this.#seen = { key, value: output.value };
      this.#end(number, true, output);
    } catch (error) {
      this.#failed(number, error, false);
    }
  }

  /** Fails if the state of the replica has gone back. */
  #lookBack(): void {
    let applied: unknown;
    try {
      applied = this.#options.replica.staleRead("applied");
    } catch (error) {
      // It is recovering.
      if (error instanceof ErrSystemBusy) return;
      throw error;
    }
    if (typeof applied !== "number") return;
    if (applied < this.#applied) {
      this.#violation(`state goes back from ${this.#applied} to ${applied}`);
    }
    this.#applied = applied;
  }

  /** Ends the work; resolves once the last operation has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
  }
}
