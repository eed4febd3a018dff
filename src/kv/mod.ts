/**
 * Key-value machines: a regular and a concurrent one in memory, an on-disk one on
 * any block store, and `kv`, which makes their commands and queries. The same
 * commands give the same results, state hash and snapshot bytes on all of them, so
 * that a snapshot of one recovers another.
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
 * The value of a result is 1 if the command changed the state, else 0. A failed
 * compare-and-swap has the present value as data, if the key exists; so does a
 * batch that contains it, of which nothing is applied. A malformed command, or one
 * over the limits of keys and values, changes nothing and returns `kv.INVALID`,
 * with a reason in UTF-8 as data: a log may contain any bytes, and they must not
 * stop a replica.
 *
 * ## State hash
 *
 * The sum over all rows of a 64-bit hash of key and value: it depends only on the
 * rows, and is 0 for an empty state. It detects accidents, not forgeries. The
 * module `hash.ts` defines it; the definition never changes.
 *
 * ## Memory
 *
 * Rows are packed into leaves of up to 16 KiB. While a snapshot or a clone is in
 * use, the first change to a leaf copies it; the whole state is never copied. A
 * clone finds keys by comparing them, several times slower than the hash index of
 * the original machine. A fork stores only its own changes.
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
  KVGetMany,
  KVQuery,
  KVRange,
  KVRow,
} from "./query.ts";
