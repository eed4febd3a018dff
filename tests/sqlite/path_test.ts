import { assert, assertEquals, assertThrows } from "@std/assert";
import { pathToFileURL } from "node:url";
import {
  DirectoryFileStore,
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";

const CLASSES = [
  DirectoryFileStore,
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
  SqliteOutbox,
] as const;

Deno.test("case D3: every class that takes a path refuses other values with a reason", () => {
  for (const Class of CLASSES) {
    for (
      const [path, words] of [
        [":memory:", "MemoryLogDB"],
        ["", "give a path"],
        ["file:log.db", "new URL()"],
        ["file:///tmp/log.db", "new URL()"],
        ["~/log.db", "whole path"],
        ["~", "whole path"],
        ["https://example.org/log.db", "it is a URL"],
        ["a\0b", "zero bytes"],
        ["\ud800", "lone surrogates"],
        [new URL("https://example.org/log.db"), "file: URL"],
        [7, "give a path or a file: URL"],
        [undefined, "give a path or a file: URL"],
      ] as const
    ) {
      const error = assertThrows(
        () => new Class(path as string),
        TypeError,
      );
      assert(error.message.includes(words), error.message);
    }
  }
});

Deno.test("case D3: a file: URL is accepted", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/a b%ü.db`;
    await using store = new SqliteBlockStore(pathToFileURL(path));
    assertEquals(store.path, path);
    assertEquals(store.get(["k"]), [undefined]);
    assert((await Deno.stat(path)).isFile);
    const files = new DirectoryFileStore(pathToFileURL(directory));
    assertEquals(files.directory, directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
