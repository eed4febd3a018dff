/**
 * Conformance suite of {@linkcode FileStore}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrFileIsDirectory, ErrFileNotFound } from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  type CaseDefinition,
  check,
  checkThrows,
  type ConformanceCase,
  conformanceCases,
  makeBytes,
  type PortContext,
} from "./conformance.ts";

/** Options of {@linkcode fileStoreConformance}. */
export interface FileStoreConformanceOptions {
  /** Creates an empty store. */
  create(): MaybePromise<FileStore>;
  /** Opens the data that `store`, which is closed, left behind; only for durable ports. */
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

/** Case of the suite. */
type FileStoreCase = CaseDefinition<PortContext<FileStore>>;

const CASES: readonly FileStoreCase[] = [
  {
    rule: "F3",
    name: "open() streams the bytes written",
    async run({ port: store }): Promise<void> {
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
    },
  },
  {
    rule: "F2",
    name: "open() reports a missing file and a directory",
    async run({ port: store }): Promise<void> {
      await checkGone(store, "a");
      await writeFile(store, "a/b/c");
      await checkGone(store, "a/c");
      await checkGone(store, "a/b/cc");
      for (const path of ["a", "a/b"]) {
        for (const method of ["open", "create"] as const) {
          await checkThrows(
            `${method}("${path}")`,
            (error) =>
              error instanceof ErrFileIsDirectory && error.path === path,
            () => store[method](path),
          );
        }
      }
    },
  },
  {
    rule: "F1",
    name: "a created file appears once it is closed",
    async run({ port: store }): Promise<void> {
      const writer = (await store.create("d/f")).getWriter();
      await writer.write(makeBytes(10, 1));
      await checkGone(store, "d/f");
      await checkList(store, "d", []);
      await writer.close();
      await checkFile(store, "d/f", makeBytes(10, 1));
      await checkList(store, "d", ["f"]);
    },
  },
  {
    rule: "F1",
    name: "an aborted create() leaves the previous file",
    async run({ port: store }): Promise<void> {
      await writeFile(store, "kept", makeBytes(10, 1));
      for (const path of ["kept", "d/other"]) {
        const writer = (await store.create(path)).getWriter();
        await writer.write(makeBytes(20, 2));
        await writer.abort(new Error("Aborted"));
      }
      await checkFile(store, "kept", makeBytes(10, 1));
      await checkGone(store, "d/other");
      await checkList(store, "d", []);
    },
  },
  {
    rule: "F1",
    name: "create() replaces the whole file",
    async run({ port: store }): Promise<void> {
      await writeFile(store, "f", makeBytes(1000, 1));
      await writeFile(store, "f", makeBytes(10, 2));
      await checkFile(store, "f", makeBytes(10, 2));
    },
  },
  {
    rule: "F1",
    name: "the streams retain no chunk",
    async run({ port: store }): Promise<void> {
      const writer = (await store.create("f")).getWriter();
      const chunk = makeBytes(100, 1);
      await writer.write(chunk);
      chunk.fill(0xff);
      await writer.close();
      const reader = (await store.open("f")).content.getReader();
      for (let read; !(read = await reader.read()).done;) read.value.fill(0xff);
      await checkFile(store, "f", makeBytes(100, 1));
    },
  },
  {
    rule: "F1",
    name: "remove() deletes a file or a whole directory, and nothing else",
    async run({ port: store }): Promise<void> {
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
  },
  {
    rule: "F1",
    name: "list() returns the direct children of a directory, sorted",
    async run({ port: store }): Promise<void> {
      await checkList(store, "d", []);
      for (const path of ["d/z", "d/sub/x", "d/sub/y", "d/a", "dd/b"]) {
        await writeFile(store, path);
      }
      await checkList(store, "d", ["a", "sub", "z"]);
      await checkList(store, "d/sub", ["x", "y"]);
      await checkList(store, "d/none", []);
      await checkList(store, "d/a", []);
    },
  },
  {
    rule: "F1",
    name: "a stream of open() can be canceled",
    async run({ port: store }): Promise<void> {
      await writeFile(store, "f", makeBytes(100_000, 1));
      await (await store.open("f")).content.cancel();
      const reader = (await store.open("f")).content.getReader();
      await reader.read();
      await reader.cancel(new Error("Canceled"));
      await store.remove("f");
      await checkGone(store, "f");
    },
  },
  {
    rule: "H10",
    name: "close() is idempotent, and later calls fail",
    async run({ port: store }): Promise<void> {
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
  },
  {
    rule: "F1",
    name: "a reopened store has the files that were closed",
    needs: ["reopen"],
    async run({ port: store, reopen }): Promise<void> {
      await writeFile(store, "a/f", makeBytes(1000, 1));
      const writer = (await store.create("a/g")).getWriter();
      await writer.write(makeBytes(1000, 1));
      await writer.abort();
      const again = await reopen();
      await checkFile(again, "a/f", makeBytes(1000, 1));
      await checkList(again, "a", ["f"]);
    },
  },
];

/** Cases that every {@linkcode FileStore} must pass, for any test runner. */
export function fileStoreConformance(
  options: FileStoreConformanceOptions,
): readonly ConformanceCase[] {
  return conformanceCases(CASES, options);
}
