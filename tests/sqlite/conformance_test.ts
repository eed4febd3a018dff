import {
  DirectoryFileStore,
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { blockStoreConformance } from "../../src/testing/block_store_conformance.ts";
import { fileStoreConformance } from "../../src/testing/file_store_conformance.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";
import type { ConformanceCase } from "../../src/testing/conformance.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";
import type { SnapshotInfo } from "../../src/snapshot/mod.ts";
import { makeDirectory } from "../support/directory.ts";

/** Creates stores at new paths, and opens them again. */
interface StorePaths<T> {
  create(): T;
  reopen(part: T): T;
  damage(part: T, info: SnapshotInfo): void;
}

/** Runs the cases of a port on implementations that `make` creates in separate directories. */
function conform<T extends object>(
  what: string,
  cases: (places: StorePaths<T>) => readonly ConformanceCase[],
  make: (path: string) => T,
): void {
  const paths = new WeakMap<T, string>();
  let next: () => string;
  const at = (path: string): T => {
    const part = make(path);
    paths.set(part, path);
    return part;
  };
  const places: StorePaths<T> = {
    create: () => at(next()),
    reopen: (part) => at(paths.get(part)!),
    damage: (part, { id, size }) =>
      Deno.truncateSync(`${paths.get(part)!}/${id}.snapshot`, size - 1),
  };
  for (const { name, run } of cases(places)) {
    Deno.test(`${what}: ${name}`, async () => {
      using directory = makeDirectory();
      let made = 0;
      next = () => directory.path(`deep/${made++}`);
      await run();
    });
  }
}

for (const durability of ["full", "normal"] as const) {
  conform(
    `SqliteBlockStore, ${durability}`,
    blockStoreConformance,
    (path) => new SqliteBlockStore(path, { durability }),
  );
  conform(
    `SqliteLogDB, ${durability}`,
    logDBConformance,
    (path) => new SqliteLogDB(path, { durability }),
  );
}
conform(
  "FileSnapshotStore",
  snapshotStoreConformance,
  (path) => new FileSnapshotStore(path),
);
conform(
  "DirectoryFileStore",
  fileStoreConformance,
  (path) => new DirectoryFileStore(path),
);
