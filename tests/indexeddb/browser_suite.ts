/**
 * Cases for `src/indexeddb` in every engine: the conformance suites of its ports,
 * and the life cycle of its connections, with injected faults and with those that
 * only a real browser has.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ErrStoreUnavailable,
  OPFSFileStore,
  requestPersistence,
  storageMode,
} from "../../src/indexeddb/mod.ts";
import { fileStoreConformance } from "../../src/testing/file_store_conformance.ts";
import type { Case } from "../browser/runner.ts";
import { cases as conformance, inDatabases, under } from "./conformance.ts";
import { cases as hosts } from "./hosts.ts";
import { cases as lifeCycle } from "./life_cycle.ts";
import { casesOf } from "./machines.ts";

/** True if pages can write to the file system of this engine; otherwise the store must say so. */
async function hasFiles(): Promise<boolean> {
  const root = await navigator.storage?.getDirectory?.().catch(() => undefined);
  return root !== undefined;
}

const files: Case[] = fileStoreConformance(
  inDatabases((name) => new OPFSFileStore(name)),
).map(({ name, run }) => ({
  name: `OPFSFileStore: ${name}`,
  async run(): Promise<void> {
    if (await hasFiles()) return await run();
    const store = new OPFSFileStore("none");
    for (const method of ["list", "open", "create", "remove"] as const) {
      await assertRejects(() => store[method]("a"), ErrStoreUnavailable);
    }
  },
}));

const storage: Case[] = [
  {
    name: "U1 U9 storageMode() answers",
    async run(): Promise<void> {
      assertEquals(await storageMode(), "best-effort");
    },
  },
  {
    name: "U3 requestPersistence() resolves, even if the user does not answer",
    async run(): Promise<void> {
      const answer = await requestPersistence({ timeoutMs: 500 });
      assert(
        ["persistent", "best-effort", "unsupported", "unanswered"]
          .includes(answer),
        answer,
      );
      assertEquals(answer === "unsupported", navigator.storage === undefined);
    },
  },
];

// For the test that reloads a page, or opens a second one, between them.
export { afterReload, beforeReload, whileOpen } from "./hosts.ts";

/** The cases of this suite. */
export const cases: Case[] = [
  ...under("IndexedDBBlockStore", lifeCycle),
  ...conformance,
  ...hosts,
  ...casesOf(2),
  ...files,
  ...storage,
];
