import { assertEquals } from "@std/assert";
import { MemoryFileStore } from "../../src/snapshot/mod.ts";
import { fileStoreConformance } from "../../src/testing/file_store_conformance.ts";

for (
  const { name, run } of fileStoreConformance({
    create: () => new MemoryFileStore(),
  })
) Deno.test(`MemoryFileStore: ${name}`, run);

Deno.test("F1 MemoryFileStore takes a path with more slashes for the same", async () => {
  await using store = new MemoryFileStore();
  await store.create("/a//b/c").close();
  assertEquals(store.open("a/b/c").size, 0);
  assertEquals(store.list("/"), ["a"]);
  assertEquals(store.list(""), ["a"]);
  store.remove("/");
  assertEquals(store.list(""), []);
});
