import { assertEquals, assertThrows } from "@std/assert";
import { ErrClusterClosed } from "../../src/log/errors.ts";
import { ErrClosed } from "../../src/statemachine/errors.ts";
import {
  MemoryFileStore,
  MemorySnapshotStore,
} from "../../src/snapshot/mod.ts";
import { fileStoreConformance } from "../../src/testing/file_store_conformance.ts";

for (
  const { name, run } of fileStoreConformance({
    create: () => new MemoryFileStore(),
  })
) Deno.test(`MemoryFileStore: ${name}`, run);

Deno.test("F1 MemoryFileStore ignores repeated slashes in a path", async () => {
  await using store = new MemoryFileStore();
  await store.create("/a//b/c").close();
  assertEquals(store.open("a/b/c").size, 0);
  assertEquals(store.list("/"), ["a"]);
  assertEquals(store.list(""), ["a"]);
  store.remove("/");
  assertEquals(store.list(""), []);
});

Deno.test("R5 stores that are closed throw an ErrClosed, above ErrClusterClosed", () => {
  const closed = [new MemoryFileStore(), new MemorySnapshotStore()] as const;
  for (const store of closed) void store.close();
  const [files, snapshots] = closed;
  assertThrows(() => files.list(""), ErrClosed);
  assertThrows(() => snapshots.list(1n), ErrClosed);
  assertEquals(new ErrClusterClosed() instanceof ErrClosed, true);
  assertEquals(new ErrClosed("closed") instanceof ErrClusterClosed, false);
});
