/**
 * Ready-made key-value machines: a regular and a concurrent one, both in
 * memory, one on disk, over any block store, and `kv`, which makes their
 * commands and queries. The same commands give the same results, the same state
 * hash and the same snapshot bytes on all of them, so a snapshot of one recovers
 * another.
 *
 * Keys and values are bytes; strings stand for their UTF-8. Keys are in byte
 * order.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { kv, KVStateMachine } from "./mod.ts";
 *
 * const machine = new KVStateMachine();
 * machine.update(kv.put("boat", "dragon"));
 * machine.update(kv.compareAndSwap("boat", "dragon", "sampan"));
 * const boat = machine.lookup(kv.get("boat"));
 * console.log(new TextDecoder().decode(boat)); // sampan
 * console.log(machine.lookup(kv.count())); // 1
 * ```
 *
 * ## Results
 *
 * A result's value is 1 if the command changed the state and 0 if not. A
 * compare-and-swap that fails carries the present value as data, if there is
 * one; so does the batch it is in, of which nothing is done. Bytes that are no
 * command, or are over the limits on keys and values, change nothing and give
 * `kv.INVALID`, with a reason in UTF-8 as data: a log may hold anything, and
 * what is in it must not stop a replica.
 *
 * ## State hash
 *
 * The sum over all rows of a 64-bit hash of key and value: it depends on the
 * rows alone, and that of no rows is 0. It finds accidents, not forgeries. The
 * module `hash.ts` says how it is made, for ever.
 *
 * ## Memory
 *
 * Rows are packed into leaves of up to 16 KiB. While a snapshot or a clone is in
 * use, what changes costs a copy of its leaf, once; the state is never copied
 * as a whole. A clone finds keys by comparing them, which takes a few times as
 * long as the hash index of the machine it comes from. A fork holds nothing but
 * what is done to it.
 *
 * @module
 */

export * from "./concurrent_kv_state_machine.ts";
export * from "./errors.ts";
export * as kv from "./kv.ts";
export * from "./kv_state_machine.ts";
export * from "./on_disk_kv_state_machine.ts";
export type {
  KVAnswer,
  KVCount,
  KVGet,
  KVQuery,
  KVRange,
  KVRow,
} from "./query.ts";
