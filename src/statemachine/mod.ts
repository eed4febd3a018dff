/**
 * Contract between a host and a deterministic state machine: three kinds of
 * machine, the values passed to and from them, and errors with a meaning. It is the
 * contract of Dragonboat's Go package of the same name; `io.Writer` and `io.Reader`
 * are Web Streams, a stop channel is an `AbortSignal`, and errors are thrown.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import type { IStateMachine, Result } from "./mod.ts";
 *
 * class Counter implements IStateMachine<null, bigint> {
 *   #count = 0n;
 *   update(_cmd: Uint8Array): Result {
 *     return { value: ++this.#count };
 *   }
 *   lookup(): bigint {
 *     return this.#count;
 *   }
 *   async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
 *     const writer = w.getWriter();
 *     await writer.write(new TextEncoder().encode(`${this.#count}`));
 *     writer.releaseLock();
 *   }
 *   async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
 *     this.#count = BigInt(await new Response(r).text());
 *   }
 *   close(): void {}
 * }
 *
 * console.log(new Counter().update(new Uint8Array()).value); // 1n
 * ```
 *
 * @module
 */

export * from "./errors.ts";
export * from "./machines.ts";
export * from "./types.ts";
