/**
 * Machine of the histories: values by key, and the ids of all commands in the order
 * in which they were applied.
 *
 * @module
 */

import type {
  IHash,
  IStateMachine,
  Result,
  SnapshotFile,
} from "../../../mod.ts";
import type { Input, Output, State } from "./record.ts";

/** Command of the machine. */
export interface Command extends Input {
  readonly id: string;
  readonly key: string;
}

/** Query of the machine: a key, the number of commands applied, or the whole state. */
export type Query =
  | { readonly key: string }
  | "applied"
  | "doubled"
  | "state";

/** Multipliers and start of the two halves of the hash. */
const PRIMES = [0x01000193, 0x85ebca6b] as const;
const START = 0x811c9dc5;

function encode(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** Encodes a command. */
export function encodeCommand(command: Command): Uint8Array<ArrayBuffer> {
  return encode(command);
}

/** Decodes a result. */
export function decodeOutput({ data }: Result): Output {
  return JSON.parse(new TextDecoder().decode(data)) as Output;
}

/** Applies an operation to a value. */
export function apply(
  value: string | null,
  input: Input,
): readonly [value: string | null, output: Output] {
  switch (input.op) {
    case "get":
      return [value, { value }];
    case "put":
      return [input.value!, { value: input.value! }];
    case "append": {
      const next = `${value ?? ""}${input.value}`;
      return [next, { value: next }];
    }
    case "cas": {
      if (value !== input.expected) return [value, { value, swapped: false }];
      return [input.value!, { value: input.value!, swapped: true }];
    }
  }
}

/** Machine that remembers everything that was applied. */
export class Ledger
  implements
    IStateMachine<Query, string | null | number | State | readonly string[]>,
    IHash {
  #values = new Map<string, string>();
  #ids: string[] = [];
  #known = new Set<string>();
  #doubled: string[] = [];
  /** Halves of the hash over all commands in their order. */
  #high = START;
  #low = START;

  update(cmd: Uint8Array): Result {
    for (const byte of cmd) this.#mix(byte);
    const { id, key, ...input } = JSON.parse(
      new TextDecoder().decode(cmd),
    ) as Command;
    this.#add(id);
    const [value, output] = apply(this.#values.get(key) ?? null, input);
    if (value !== null) this.#values.set(key, value);
    return { value: BigInt(this.#ids.length), data: encode(output) };
  }

  #mix(byte: number): void {
    this.#high = Math.imul(this.#high ^ byte, PRIMES[0]);
    this.#low = Math.imul(this.#low ^ byte, PRIMES[1]);
  }

  #add(id: string): void {
    if (this.#known.has(id)) this.#doubled.push(id);
    this.#known.add(id);
    this.#ids.push(id);
  }

  lookup(query: Query): string | null | number | State | readonly string[] {
    if (query === "applied") return this.#ids.length;
    if (query === "doubled") return [...this.#doubled];
    if (query === "state") {
      return { ids: [...this.#ids], values: Object.fromEntries(this.#values) };
    }
    return this.#values.get(query.key) ?? null;
  }

  getHash(): bigint {
    return BigInt(this.#high >>> 0) << 32n | BigInt(this.#low >>> 0);
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const values = Object.fromEntries(this.#values);
    const hash = [this.#high, this.#low];
    const bytes = encode({ ids: this.#ids, values, hash });
    await new Blob([bytes]).stream().pipeTo(w);
  }

  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
  ): Promise<void> {
    const { ids, values, hash } = JSON.parse(
      await new Response(r as ReadableStream<Uint8Array<ArrayBuffer>>).text(),
    ) as State & { hash: [number, number] };
    this.#values = new Map(Object.entries(values));
    this.#ids = [];
    this.#known = new Set();
    this.#doubled = [];
    for (const id of ids) this.#add(id);
    [this.#high, this.#low] = hash;
  }

  close(): void {}
}
