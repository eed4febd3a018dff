import { assertEquals } from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import { MemoryBlockStore } from "../../src/store/mod.ts";
import { blockStoreConformance } from "../../src/testing/block_store_conformance.ts";

for (
  const { name, run } of blockStoreConformance({
    create: () => new MemoryBlockStore(),
  })
) Deno.test(`MemoryBlockStore: ${name}`, run);

Deno.test("U2 the identity of a MemoryBlockStore has 16 digits, also where the number drawn is small", () => {
  const store = new MemoryBlockStore({
    env: { ...systemEnv, random64: () => 9n },
  });
  assertEquals(store.identity(), "0000000000000009");
});
