/**
 * What every {@linkcode FileStore} must do, as cases that run anywhere.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrFileIsDirectory, ErrFileNotFound } from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  caseOf,
  check,
  checkThrows,
  type ConformanceCase,
  makeBytes,
} from "./conformance.ts";

/** What {@linkcode fileStoreConformance} is given. */
export interface FileStoreConformanceOptions {
  /** Makes an empty store. */
  create(): MaybePromise<FileStore>;
  /** Opens what `store`, closed by now, has left behind; for stores that keep something. */
  reopen?: ((store: FileStore) => MaybePromise<FileStore>) | undefined;
}

async function writeFile(
  store: FileStore,
  path: string,
  ...chunks: readonly Uint8Array[]
): Promise<void> {
  const writer = (await store.create(path)).getWriter();
  for (const chunk of chunks) await writer.write(chunk);
  await writer.close();
}

async function checkFile(
  store: FileStore,
  path: string,
  expected: Uint8Array,
): Promise<void> {
  const { size, content } = await store.open(path);
  check(size === expected.length, `Size of ${path} is ${size}`);
  const bytes = new Uint8Array(
    await new Response(content as ReadableStream<Uint8Array<ArrayBuffer>>)
      .arrayBuffer(),
  );
  check(
    bytes.length === size && bytes.every((byte, i) => byte === expected[i]),
    `Bytes of ${path} are not those written`,
  );
}

async function checkList(
  store: FileStore,
  directory: string,
  expected: readonly string[],
): Promise<void> {
  const names = (await store.list(directory)).join(" ");
  check(names === expected.join(" "), `Names in "${directory}" are ${names}`);
}

function checkGone(store: FileStore, path: string): Promise<void> {
  return checkThrows(
    `open("${path}")`,
    (error) => error instanceof ErrFileNotFound && error.path === path,
    () => store.open(path),
  );
}

/** The cases every file store must pass; each makes its own store and closes it. */
export function fileStoreConformance(
  options: FileStoreConformanceOptions,
): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (store: FileStore) => Promise<void>,
  ): void => void cases.push(caseOf(name, options, body));

  add("F3 open() gives what was written", async (store) => {
    const bytes = makeBytes(200_000, 1);
    await writeFile(
      store,
      "a/b/c.bin",
      bytes.subarray(0, 1),
      bytes.subarray(1, 1),
      bytes.subarray(1),
    );
    await writeFile(store, "empty");
    await checkFile(store, "a/b/c.bin", bytes);
    await checkFile(store, "empty", new Uint8Array());
  });

  add("F2 open() of nothing and of a directory says so", async (store) => {
    await checkGone(store, "a");
    await writeFile(store, "a/b/c");
    await checkGone(store, "a/c");
    await checkGone(store, "a/b/cc");
    for (const path of ["a", "a/b"]) {
      for (const method of ["open", "create"] as const) {
        await checkThrows(
          `${method}("${path}")`,
          (error) => error instanceof ErrFileIsDirectory && error.path === path,
          () => store[method](path),
        );
      }
    }
  });

  add("F1 create() shows a file only once it is closed", async (store) => {
    const writer = (await store.create("d/f")).getWriter();
    await writer.write(makeBytes(10, 1));
    await checkGone(store, "d/f");
    await checkList(store, "d", []);
    await writer.close();
    await checkFile(store, "d/f", makeBytes(10, 1));
    await checkList(store, "d", ["f"]);
  });

  add(
    "F1 create() shows nothing when aborted, and keeps what was there",
    async (store) => {
      await writeFile(store, "kept", makeBytes(10, 1));
      for (const path of ["kept", "d/other"]) {
        const writer = (await store.create(path)).getWriter();
        await writer.write(makeBytes(20, 2));
        await writer.abort(new Error("Not wanted"));
      }
      await checkFile(store, "kept", makeBytes(10, 1));
      await checkGone(store, "d/other");
      await checkList(store, "d", []);
    },
  );

  add("F1 create() replaces a file as a whole", async (store) => {
    await writeFile(store, "f", makeBytes(1000, 1));
    await writeFile(store, "f", makeBytes(10, 2));
    await checkFile(store, "f", makeBytes(10, 2));
  });

  add("F1 the streams keep no reference to a chunk", async (store) => {
    const writer = (await store.create("f")).getWriter();
    const chunk = makeBytes(100, 1);
    await writer.write(chunk);
    chunk.fill(0xff);
    await writer.close();
    const reader = (await store.open("f")).content.getReader();
    for (let read; !(read = await reader.read()).done;) read.value.fill(0xff);
    await checkFile(store, "f", makeBytes(100, 1));
  });

  add(
    "F1 remove() takes a file or a whole directory, and only that",
    async (store) => {
      const paths = ["a/b/c", "a/b/d", "a/bb", "ab", "c"];
      for (const path of paths) await writeFile(store, path, makeBytes(3, 1));
      await store.remove("a/b/c");
      await store.remove("a/b/c");
      await store.remove("nothing/there");
      await checkGone(store, "a/b/c");
      await checkFile(store, "a/b/d", makeBytes(3, 1));
      await store.remove("a/b");
      await checkGone(store, "a/b/d");
      await checkList(store, "a", ["bb"]);
      await store.remove("a");
      await checkGone(store, "a/bb");
      await checkFile(store, "ab", makeBytes(3, 1));
      await checkFile(store, "c", makeBytes(3, 1));
      // What was a directory may now be a file, and the other way round.
      await writeFile(store, "a", makeBytes(4, 1));
      await checkFile(store, "a", makeBytes(4, 1));
      await store.remove("c");
      await writeFile(store, "c/d", makeBytes(5, 1));
      await checkFile(store, "c/d", makeBytes(5, 1));
    },
  );

  add("F1 list() has the names right in a directory, sorted", async (store) => {
    await checkList(store, "d", []);
    for (const path of ["d/z", "d/sub/x", "d/sub/y", "d/a", "dd/b"]) {
      await writeFile(store, path);
    }
    await checkList(store, "d", ["a", "sub", "z"]);
    await checkList(store, "d/sub", ["x", "y"]);
    await checkList(store, "d/none", []);
    await checkList(store, "d/a", []);
  });

  add("F1 open() gives a stream that can be given up", async (store) => {
    await writeFile(store, "f", makeBytes(100_000, 1));
    await (await store.open("f")).content.cancel();
    const reader = (await store.open("f")).content.getReader();
    await reader.read();
    await reader.cancel(new Error("Enough"));
    await store.remove("f");
    await checkGone(store, "f");
  });

  add(
    "H10 close() twice is harmless, everything else fails after it",
    async (store) => {
      await writeFile(store, "f");
      await store.close();
      await store.close();
      await store[Symbol.asyncDispose]();
      for (const method of ["open", "create", "remove", "list"] as const) {
        await checkThrows(
          `${method}() after close()`,
          (error) => error instanceof Error && /closed/.test(error.message),
          () => store[method]("f"),
        );
      }
    },
  );

  const { reopen } = options;
  if (reopen) {
    add(
      "F1 a store opened again has the files that were closed",
      async (store) => {
        await writeFile(store, "a/f", makeBytes(1000, 1));
        const writer = (await store.create("a/g")).getWriter();
        await writer.write(makeBytes(1000, 1));
        await writer.abort();
        await store.close();
        const again = await reopen(store);
        try {
          await checkFile(again, "a/f", makeBytes(1000, 1));
          await checkList(again, "a", ["f"]);
        } finally {
          await again.close();
        }
      },
    );
  }

  return cases;
}
