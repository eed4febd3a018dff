/**
 * Helpers of the tests of the key-value machines.
 *
 * @module
 */

import { concat } from "../support/bytes.ts";
import {
  ConcurrentKVStateMachine,
  kv,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import type { Entry, Result } from "../../src/statemachine/mod.ts";

export const never: AbortSignal = new AbortController().signal;
export const noFiles = { addFile(): void {} };

export type Machine = KVStateMachine | ConcurrentKVStateMachine;

export const machines: [string, () => Machine][] = [
  ["KVStateMachine", () => new KVStateMachine()],
  ["ConcurrentKVStateMachine", () => new ConcurrentKVStateMachine()],
];

/** Applies one command and overwrites its bytes afterwards (R11). */
export function apply(machine: Machine, cmd: Uint8Array): Result {
  const copy = cmd.slice();
  let result: Result;
  if (machine instanceof KVStateMachine) result = machine.update(copy);
  else {
    const [entry] = machine.update([{ index: 1, cmd: copy }]);
    result = (entry as Entry).result as Result;
  }
  copy.fill(0xee);
  return result;
}

/** Applies one put per row. */
export function putAll(
  machine: Machine,
  rows: Iterable<[string | Uint8Array, string | Uint8Array]>,
): void {
  for (const [key, value] of rows) apply(machine, kv.put(key, value));
}

/** Creates a stream that collects the chunks written to it. */
export function sink(): [WritableStream<Uint8Array>, Uint8Array[]] {
  const chunks: Uint8Array[] = [];
  return [new WritableStream({ write: (c) => void chunks.push(c) }), chunks];
}

/** Saves the current state and returns the payload. */
export async function save(
  machine: Machine,
  signal: AbortSignal = never,
): Promise<Uint8Array> {
  const [w, chunks] = sink();
  if (machine instanceof KVStateMachine) {
    await machine.saveSnapshot(w, noFiles, signal);
  } else {
    const context = machine.prepareSnapshot();
    await machine.saveSnapshot(context, w, noFiles, signal);
  }
  return concat(chunks);
}

/** Creates a stream of the chunks. */
export function source(chunks: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller): void {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

/** Creates a machine and recovers it from the chunks, which are overwritten afterwards. */
export async function recover(
  chunks: Uint8Array[],
  machine: Machine = new ConcurrentKVStateMachine(),
): Promise<Machine> {
  const copies = chunks.map((chunk) => chunk.slice());
  await machine.recoverFromSnapshot(source(copies), [], never);
  for (const copy of copies) copy.fill(0xee);
  return machine;
}

/** Creates a generator of pseudo-random numbers in [0, n). */
export function random(seed: number): (n: number) => number {
  let x = Math.imul(seed, 0x9e3779b9) | 1;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}
