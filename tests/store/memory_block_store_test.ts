import { MemoryBlockStore } from "../../src/store/mod.ts";
import { blockStoreConformance } from "../../src/testing/block_store_conformance.ts";

for (
  const { name, run } of blockStoreConformance({
    create: () => new MemoryBlockStore(),
  })
) Deno.test(`MemoryBlockStore: ${name}`, run);
