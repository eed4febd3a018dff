/**
 * State machines that record the calls they get: a regular and a concurrent one,
 * synchronous or asynchronous.
 *
 * @module
 */

import type {
  Entry,
  IConcurrentStateMachine,
  IHash,
  ISnapshotFileCollection,
  IStateMachine,
  MaybePromise,
  Result,
  SnapshotFile,
} from "../../src/statemachine/mod.ts";
import { ticks } from "../support/turns.ts";

/** Count and hash chain of the applied commands; the hash depends on their order. */
export interface State {
  readonly count: number;
  readonly hash: bigint;
}

/** State before the first command. */
export const EMPTY: State = { count: 0, hash: 14695981039346656037n };

/** Applies one command to a state and returns the new state with the result. */
export function step(state: State, cmd: Uint8Array): [State, Result] {
  let { hash } = state;
  for (const byte of [cmd.length, ...cmd]) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
  }
  const next = { count: state.count + 1, hash };
  const result: Result = { value: hash };
  if (cmd.length % 2 === 1) result.data = new Uint8Array([...cmd, 9]);
  return [next, result];
}

/** Encodes a state as text. */
export function textOf({ count, hash }: State): string {
  return `${count} ${hash}`;
}

/** Decodes a state from text. */
export function stateOf(text: string): State {
  const [count, hash] = text.split(" ");
  return { count: Number(count), hash: BigInt(hash!) };
}

/** Writes a text and leaves closing the stream to the host. */
export async function write(
  w: WritableStream<Uint8Array>,
  text: string,
): Promise<void> {
  const writer = w.getWriter();
  await writer.write(new TextEncoder().encode(text));
  writer.releaseLock();
}

/** Reads a stream to its end as text. */
export async function read(r: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(r as ReadableStream<Uint8Array<ArrayBuffer>>)
    .text();
}

/** Behaviour of a machine. */
export interface Behavior {
  /** Synchronous answers, promises, or a mixture of both. */
  readonly pace?: "sync" | "async" | "mixed";
}

abstract class Base implements IHash {
  state: State = EMPTY;
  /** Commands received, as text. */
  commands: string[] = [];
  closed = 0;
  #calls = 0;
  #under = 0;
  readonly #behavior: Behavior;

  constructor(behavior: Behavior = {}) {
    this.#behavior = behavior;
  }

  /** Answers at the machine's pace; fails if the host makes two calls at once. */
  protected pace<T>(call: () => T): MaybePromise<T> {
    const { pace = "sync" } = this.#behavior;
    if (this.#under++ > 0) {
      throw new Error("update() was called while another ran");
    }
    const sync = pace === "sync" || (pace === "mixed" && ++this.#calls % 3);
    if (sync) {
      try {
        return call();
      } finally {
        this.#under--;
      }
    }
    return ticks(3).then(call).finally(() => this.#under--);
  }

  protected apply(cmd: Uint8Array): Result {
    this.commands.push(`${cmd}`);
    const [state, result] = step(this.state, cmd);
    this.state = state;
    return result;
  }

  lookup(): State {
    return this.state;
  }
  getHash(): bigint {
    return this.state.hash;
  }
  close(): void {
    this.closed++;
  }
}

/** Regular state machine. */
export class Regular extends Base implements IStateMachine {
  update(cmd: Uint8Array): MaybePromise<Result> {
    return this.pace(() => this.apply(cmd));
  }
  saveSnapshot(
    w: WritableStream<Uint8Array>,
    _files?: ISnapshotFileCollection,
    _stopped?: AbortSignal,
  ): Promise<void> {
    return write(w, textOf(this.state));
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files?: readonly SnapshotFile[],
    _stopped?: AbortSignal,
  ): Promise<void> {
    this.state = stateOf(await read(r));
  }
}

/** Concurrent state machine. */
export class Concurrent extends Base implements IConcurrentStateMachine {
  /** Number of entries of each batch. */
  batches: number[] = [];
  /** Contexts that were prepared and are not saved yet, and number of saves. */
  readonly contexts: Set<State> = new Set();
  saved = 0;

  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.pace(() => {
      this.batches.push(entries.length);
      for (const entry of entries) entry.result = this.apply(entry.cmd);
      return entries;
    });
  }
  prepareSnapshot(): MaybePromise<unknown> {
    const context = { ...this.state };
    this.contexts.add(context);
    return context;
  }
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files?: ISnapshotFileCollection,
    _stopped?: AbortSignal,
  ): Promise<void> {
    this.take(context);
    return write(w, textOf(context as State));
  }
  /** Frees a context; fails if it is unknown or was freed before. */
  protected take(context: unknown): void {
    if (!this.contexts.delete(context as State)) {
      throw new Error(
        "Context was not returned by prepareSnapshot(), or was saved before",
      );
    }
    this.saved++;
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files?: readonly SnapshotFile[],
    _stopped?: AbortSignal,
  ): Promise<void> {
    this.state = stateOf(await read(r));
  }
}
