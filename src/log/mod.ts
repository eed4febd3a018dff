/**
 * Port of the committed log, and its in-memory twin. A log gives all replicas the
 * same records in the same order. It does not interpret them, except for the epoch
 * record that identifies a history.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { MemoryLogDB, packRecords } from "./mod.ts";
 *
 * await using logDB = new MemoryLogDB();
 * const log = logDB.open(1n, 1n);
 * const index = await log.append(packRecords(new Uint8Array([1, 2, 3])));
 * const reader = await log.read(index - 1);
 * const batch = await reader.next();
 * console.log(batch.first === index); // true
 * ```
 *
 * @module
 */

export * from "./errors.ts";
export * from "./history.ts";
export * from "./log.ts";
export * from "./memory_log.ts";
export { packRecords, recordAt } from "./records.ts";
