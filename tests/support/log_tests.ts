/**
 * Tests of hosts and servers that run on any log: in memory where they are defined,
 * and once more on the logs that another file chooses before it imports them.
 *
 * @module
 */

import { MemoryLogDB } from "../../mod.ts";
import { settle } from "./environment.ts";
import type { LogDB, SnapshotStore } from "../../src/ports/mod.ts";

/** Logs with the snapshot store of their hosts. */
export interface StoringLogDB extends LogDB {
  readonly snapshots: SnapshotStore;
}

/** Logs that tests run on. */
export interface LogKind {
  /** Name that is added to those of the tests. */
  readonly name: string;
  /** Creates empty logs. */
  create(): StoringLogDB;
}

let kind: LogKind | undefined;
const created: StoringLogDB[] = [];

/** Has the tests of the modules that are imported from now on run on other logs than those in memory. */
export function runOn(logs: LogKind): void {
  kind = logs;
}

/** Creates empty logs of the kind that the tests run on; they are closed with the test. */
export function newLogDB(): StoringLogDB {
  if (kind === undefined) return new MemoryLogDB();
  const logDB = kind.create();
  created.push(logDB);
  return logDB;
}

/** Creates logs for a host that was given none; undefined where it has its own in memory. */
export function logOfHost(): LogDB | undefined {
  return kind === undefined ? undefined : newLogDB();
}

/** Defines a test that runs on the logs of each kind. */
export function test(name: string, fn: () => Promise<void> | void): void {
  const on = kind;
  if (on === undefined) return Deno.test(name, fn);
  Deno.test(`${name} (${on.name})`, async () => {
    try {
      await fn();
    } finally {
      for (const logDB of created.splice(0)) await logDB.close();
    }
  });
}

/** Defines a test that controls the clock or the faults of its log, which has to be in memory. */
export function testInMemory(
  name: string,
  fn: () => Promise<void> | void,
): void {
  if (kind === undefined) Deno.test(name, fn);
}

/** Waits for a condition: some turns of the event loop for a log in memory, some seconds for another. */
export async function until(
  what: string,
  condition: () => boolean,
): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 500) throw new Error(`Never came: ${what}`);
    if (kind !== undefined) await new Promise((go) => setTimeout(go, 10));
    await settle();
  }
}
