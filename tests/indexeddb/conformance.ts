/**
 * The ports over IndexedDB, by the suites that hold for every implementation,
 * as cases that run over any IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  IndexedDBBlockStore,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import { blockStoreConformance } from "../../src/testing/block_store_conformance.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";
import type { Case } from "../browser/runner.ts";
import { freshName } from "./faults.ts";

/** The members of a suite, under the name of what is tried. */
export function under(subject: string, cases: readonly Case[]): Case[] {
  return cases.map(({ name, run }) => ({ name: `${subject}: ${name}`, run }));
}

/** Creates objects in their own databases, and opens them again. */
export function inDatabases<T extends object>(
  make: (name: string) => T,
): { create(): T; reopen(old: object): T } {
  const names = new WeakMap<object, string>();
  const open = (name: string): T => {
    const made = make(name);
    names.set(made, name);
    return made;
  };
  return {
    create: () => open(freshName()),
    reopen: (old) => open(names.get(old) as string),
  };
}

/** The cases of this suite. */
export const cases: Case[] = [
  ...under(
    "IndexedDBBlockStore",
    blockStoreConformance(inDatabases((name) => new IndexedDBBlockStore(name))),
  ),
  ...under(
    "IndexedDBLogDB",
    logDBConformance(inDatabases((name) => new IndexedDBLogDB(name))),
  ),
  ...under(
    "IndexedDBSnapshotStore",
    snapshotStoreConformance(
      inDatabases((name) => new IndexedDBSnapshotStore(name)),
    ),
  ),
];
