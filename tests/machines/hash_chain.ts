/**
 * Machines that remember what was asked of them: a regular and a concurrent one,
 * each synchronous or not.
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

/** All that was applied, in short: a command out of place makes another hash. */
export interface State {
  readonly count: number;
  readonly hash: bigint;
}

/** Nothing applied. */
export const EMPTY: State = { count: 0, hash: 14695981039346656037n };

/** A state and one command more, and what the command is answered with. */
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

/** A state as text. */
export function textOf({ count, hash }: State): string {
  return `${count} ${hash}`;
}

/** A state from text. */
export function stateOf(text: string): State {
  const [count, hash] = text.split(" ");
  return { count: Number(count), hash: BigInt(hash!) };
}

/** Writes a text, and leaves the closing to the host. */
export async function write(
  w: WritableStream<Uint8Array>,
  text: string,
): Promise<void> {
  const writer = w.getWriter();
  await writer.write(new TextEncoder().encode(text));
  writer.releaseLock();
}

/** Reads a text to its end. */
export async function read(r: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(r as ReadableStream<Uint8Array<ArrayBuffer>>)
    .text();
}

/** How a machine behaves. */
export interface Manner {
  /** Whether it answers at once, later, or now this and now that. */
  readonly pace?: "sync" | "async" | "mixed";
}

abstract class Base implements IHash {
  state: State = EMPTY;
  /** The commands it got, as text. */
  commands: string[] = [];
  closed = 0;
  #calls = 0;
  #under = 0;
  readonly #manner: Manner;

  constructor(manner: Manner = {}) {
    this.#manner = manner;
  }

  /** Answers at the machine's pace; two at once is the host's mistake. */
  protected pace<T>(call: () => T): MaybePromise<T> {
    const { pace = "sync" } = this.#manner;
    if (this.#under++ > 0) throw new Error("Two updates at once");
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

/** A regular one. */
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

/** A concurrent one. */
export class Concurrent extends Base implements IConcurrentStateMachine {
  /** Entries of each batch. */
  batches: number[] = [];
  /** Contexts that were prepared and not saved yet, and those that were saved. */
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
  /** Frees a context; one that is not there, or not any more, is the host's mistake. */
  protected take(context: unknown): void {
    if (!this.contexts.delete(context as State)) {
      throw new Error("Context is not one of mine, or was saved before");
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
