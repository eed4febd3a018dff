import { MemorySnapshotStore } from "../../src/snapshot/mod.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";

for (
  const { name, run } of snapshotStoreConformance({
    create: () => new MemorySnapshotStore(),
  })
) Deno.test(`MemorySnapshotStore: ${name}`, run);
