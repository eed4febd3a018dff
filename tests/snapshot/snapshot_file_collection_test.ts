import {
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  SNAPSHOT_FILE_METADATA_BYTES_MAX,
  SNAPSHOT_FILES_MAX,
} from "../../src/limits.ts";
import {
  ErrSnapshotFile,
  SnapshotFileCollection,
} from "../../src/snapshot/mod.ts";

const nothing = new Uint8Array();

Deno.test("F1 addFile() records files in order and copies metadata", () => {
  const collection = new SnapshotFileCollection();
  const metadata = new Uint8Array([1, 2]);
  collection.addFile(9n, "a/b", metadata);
  collection.addFile((1n << 64n) - 1n, "c", nothing);
  collection.addFile(0n, "a/b", nothing);
  metadata.fill(0);
  assertEquals(collection.files, [
    { fileID: 9n, filepath: "a/b", metadata: new Uint8Array([1, 2]) },
    { fileID: (1n << 64n) - 1n, filepath: "c", metadata: nothing },
    { fileID: 0n, filepath: "a/b", metadata: nothing },
  ]);
  assertStrictEquals(collection.failure, undefined);
});

Deno.test("F2 addFile() refuses an id twice and keeps the failure", () => {
  const collection = new SnapshotFileCollection();
  collection.addFile(1n, "one", nothing);
  const error = assertThrows(
    () => collection.addFile(1n, "two", nothing),
    ErrSnapshotFile,
    'File id is taken: file 1 at "two"',
  );
  assertEquals([error.fileID, error.path], [1n, "two"]);
  assertThrows(() => collection.addFile(1n, "three", nothing));
  collection.addFile(2n, "four", nothing);
  assertStrictEquals(collection.failure, error);
  assertEquals(collection.files.map(({ fileID }) => fileID), [1n, 2n]);
});

Deno.test("F1 addFile() refuses what is out of range", () => {
  for (const fileID of [-1n, 1n << 64n, 1 as unknown as bigint]) {
    const collection = new SnapshotFileCollection();
    const error = assertThrows(
      () => collection.addFile(fileID, "f", nothing),
      RangeError,
    );
    assertStrictEquals(collection.failure, error);
  }
  const collection = new SnapshotFileCollection();
  const most = SNAPSHOT_FILE_METADATA_BYTES_MAX;
  collection.addFile(1n, "f", new Uint8Array(most));
  assertThrows(
    () => collection.addFile(2n, "f", new Uint8Array(most + 1)),
    RangeError,
  );
  assertInstanceOf(collection.failure, RangeError);
});

Deno.test("F1 addFile() refuses more files than a snapshot may have", () => {
  const collection = new SnapshotFileCollection();
  for (let i = 0; i < SNAPSHOT_FILES_MAX; i++) {
    collection.addFile(BigInt(i), "f", nothing);
  }
  assertThrows(
    () => collection.addFile(BigInt(SNAPSHOT_FILES_MAX), "f", nothing),
    ErrSnapshotFile,
    `has ${SNAPSHOT_FILES_MAX} files already`,
  );
});

Deno.test("F1 addFile() fails once the snapshot is done", () => {
  const collection = new SnapshotFileCollection();
  collection.addFile(1n, "f", nothing);
  collection.seal();
  collection.seal();
  assertThrows(
    () => collection.addFile(2n, "g", nothing),
    ErrSnapshotFile,
    "saveSnapshot() has returned already",
  );
  assertEquals(collection.files.length, 1);
});
