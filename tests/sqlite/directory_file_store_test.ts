import { assertEquals, assertThrows } from "@std/assert";
import { DirectoryFileStore, ErrStoreLocked } from "../../src/sqlite/mod.ts";
import { makeDirectory } from "../support/directory.ts";

Deno.test("F1 DirectoryFileStore lets no path lead out of its directory", async () => {
  using directory = makeDirectory();
  Deno.writeTextFileSync(directory.path("secret"), "Not yours");
  Deno.mkdirSync(directory.path("files/deep"), { recursive: true });
  Deno.symlinkSync(directory.path("."), directory.path("files/out"));
  Deno.symlinkSync(directory.path("secret"), directory.path("files/link"));
  await using store = new DirectoryFileStore(directory.path("files"));
  for (
    const path of [
      "../secret",
      "deep/../../secret",
      "..",
      "./a",
      "a\0b",
      "out/secret",
      "out/new",
      "link",
      ".sampan/lock",
    ]
  ) {
    for (const method of ["open", "create", "remove", "list"] as const) {
      assertThrows(() => store[method](path), RangeError, path);
    }
  }
  assertEquals(Deno.readTextFileSync(directory.path("secret")), "Not yours");
  // An absolute path is one from its directory.
  const writer = store.create("/a").getWriter();
  await writer.close();
  assertEquals(store.list(""), ["a", "deep", "link", "out"]);
});

Deno.test("F1 DirectoryFileStore shares its files with the file system", async () => {
  using directory = makeDirectory();
  await using store = new DirectoryFileStore(directory.path("files"));
  const writer = store.create("a/b").getWriter();
  await writer.write(new TextEncoder().encode("from the store"));
  await writer.close();
  assertEquals(Deno.readTextFileSync(store.pathOf("a/b")), "from the store");
  Deno.writeTextFileSync(store.pathOf("a/c"), "from the machine");
  const { size, content } = store.open("a/c");
  assertEquals(size, 16);
  assertEquals(
    await new Response(content as ReadableStream<Uint8Array<ArrayBuffer>>)
      .text(),
    "from the machine",
  );
  store.remove("");
  assertEquals(store.list(""), []);
});

Deno.test("F1 DirectoryFileStore removes files that a crash left unfinished", async () => {
  using directory = makeDirectory();
  const hidden = directory.path("files/.sampan");
  Deno.mkdirSync(hidden, { recursive: true });
  Deno.writeTextFileSync(`${hidden}/left`, "half of it");
  await using store = new DirectoryFileStore(directory.path("files"));
  assertEquals(store.list(""), []);
  assertEquals([...Deno.readDirSync(hidden)].map(({ name }) => name), ["lock"]);
  await using second = new DirectoryFileStore(directory.path("files"));
  assertThrows(() => second.list(""), ErrStoreLocked);
});
