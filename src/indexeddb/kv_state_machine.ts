/**
 * The key-value machine in IndexedDB.
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

/** What an {@linkcode IndexedDBKVStateMachine} can be told. */
export interface IndexedDBKVOptions
  extends IndexedDBOptions, OnDiskKVStateMachineOptions {}

/**
 * The key-value machine in a database of its own:
 * {@linkcode OnDiskKVStateMachine} over {@linkcode IndexedDBBlockStore}.
 */
export class IndexedDBKVStateMachine extends OnDiskKVStateMachine {
  /** The machine in the database of that name; nothing is opened yet. */
  constructor(name: string, options: IndexedDBKVOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
