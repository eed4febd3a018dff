/**
 * Helpers of the tests of the on-disk key-value machine.
 *
 * @module
 */

import { kv, OnDiskKVStateMachine } from "../../src/kv/mod.ts";
import type { OnDiskKVStateMachineOptions } from "../../src/kv/mod.ts";
import type { HostRow } from "../../src/rsm/host_state.ts";
import type { Entry, Result } from "../../src/statemachine/mod.ts";
import type { BlockStore } from "../../src/store/mod.ts";
import { concat } from "../support/bytes.ts";
import { never, random, sink, source } from "./util.ts";

/** Opens a machine and returns it with its applied index. */
export async function opened(
  store: BlockStore,
  options?: OnDiskKVStateMachineOptions,
): Promise<[OnDiskKVStateMachine, number]> {
  const machine = new OnDiskKVStateMachine(store, options);
  return [machine, await machine.open(never)];
}

/** Applies commands as entries after `index` and returns their results. */
export async function applyAll(
  machine: OnDiskKVStateMachine,
  index: number,
  commands: readonly Uint8Array[],
): Promise<Result[]> {
  const entries = commands.map((cmd, i): Entry => ({
    index: index + 1 + i,
    cmd: cmd.slice(),
  }));
  const done = await machine.update(entries);
  const results = done.map(({ result }) => result!);
  for (const { cmd } of entries) cmd.fill(0xee);
  return results;
}

/** Saves the current state, or that of `context`, and returns the payload. */
export async function saved(
  machine: OnDiskKVStateMachine,
  context: unknown = machine.prepareSnapshot(),
): Promise<Uint8Array> {
  const [w, chunks] = sink();
  await machine.saveSnapshot(context, w, never);
  return concat(chunks);
}

/** Recovers a machine from a saved payload. */
export function recovered(
  machine: OnDiskKVStateMachine,
  payload: Uint8Array,
  index: number,
  rows: readonly HostRow[] = [],
): Promise<void> {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < payload.length; at += 50_000) {
    chunks.push(payload.slice(at, at + 50_000));
  }
  return machine.recoverWithHost(source(chunks), { index, rows }, never);
}

/** Generator of random commands. */
export class Commands {
  readonly next: (n: number) => number;
  readonly #keys: number;
  readonly #valueBytes: number;
  /** Percentage of commands that delete. */
  deletes = 15;

  /** Creates a generator of commands on `keys` keys, with values of at most `valueBytes` bytes. */
  constructor(seed: number, keys: number, valueBytes: number) {
    this.next = random(seed);
    this.#keys = keys;
    this.#valueBytes = valueBytes;
  }

  /** Makes a key: empty, zeros, a prefix of another, or with bytes above 127. */
  key(): Uint8Array {
    const n = this.next(this.#keys);
    if (n < 4) return new Uint8Array(n);
    if (n % 97 === 0) return new Uint8Array(n % 200).fill(0x70);
    const text = `${n * 7919 % this.#keys}`.padStart(6, "k");
    return Uint8Array.of(n * 13 % 256, ...new TextEncoder().encode(text));
  }

  /** Makes a value, sometimes large, empty or zeros. */
  value(): Uint8Array {
    const { next } = this;
    const size = next(60) === 0
      ? next(20 * this.#valueBytes)
      : next(this.#valueBytes);
    const value = new Uint8Array(size);
    if (next(8) > 0) { for (let i = 0; i < size; i += 3) value[i] = next(256); }
    return value;
  }

  #one(): Uint8Array {
    const { next } = this;
    const key = this.key();
    const kind = next(100);
    if (kind < this.deletes) return kv.delete(key);
    if (kind > 90) return kv.compareAndSwap(key, undefined, this.value());
    if (kind > 85) return kv.compareAndSwap(key, this.value(), this.value());
    return kv.put(key, this.value());
  }

  /** Makes a random command; some are malformed. */
  command(): Uint8Array {
    const { next } = this;
    const kind = next(100);
    if (kind === 0) return Uint8Array.of(1, 2, 3);
    if (kind > 6) return this.#one();
    return kv.batch(Array.from({ length: next(6) }, () => this.#one()));
  }

  /** Makes several random commands. */
  commands(count: number): Uint8Array[] {
    return Array.from({ length: count }, () => this.command());
  }
}
