/**
 * Key-value state machine in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  OnDiskKVStateMachine,
  type OnDiskKVStateMachineOptions,
} from "../kv/on_disk_kv_state_machine.ts";
import { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";

/** Options of {@linkcode IndexedDBKVStateMachine}. */
export interface IndexedDBKVOptions
  extends IndexedDBOptions, OnDiskKVStateMachineOptions {}

/**
 * Key-value state machine in its own database: {@linkcode OnDiskKVStateMachine} over
 * {@linkcode IndexedDBBlockStore}.
 */
export class IndexedDBKVStateMachine extends OnDiskKVStateMachine {
  /** Creates a machine in the database `name`; opens nothing yet. */
  constructor(name: string, options: IndexedDBKVOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
