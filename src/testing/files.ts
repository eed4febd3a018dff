/**
 * External files of a snapshot: collected during a save, copied, and written
 * again for a recovery.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "../bytes.ts";
import type {
  ISnapshotFileCollection,
  SnapshotFile,
} from "../statemachine/types.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import { collect, source, WHOLE } from "./streams.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** External file with its content; without a store, only its path. */
export interface SavedFile {
  readonly fileID: bigint;
  readonly path: string;
  readonly metadata: Uint8Array;
  readonly content: Uint8Array | undefined;
}

/** Collection of files that is passed to `saveSnapshot()`. */
export class FileCollection implements ISnapshotFileCollection {
  readonly #files = new Map<bigint, Omit<SavedFile, "content">>();
  #breach: Breach | undefined;

  /** Adds a file; invalid calls are reported by {@linkcode save}, where the machine cannot catch the error. */
  addFile(fileID: bigint, path: string, metadata: Uint8Array): void {
    const wrong = (rule: string, detail: string): void => {
      this.#breach ??= new Breach(rule, `addFile() was given ${detail}`);
    };
    if (typeof fileID !== "bigint" || !isU64(fileID)) {
      return wrong("F1", `the id ${show(fileID)}, not a bigint in 0…2^64-1`);
    }
    if (typeof path !== "string" || path === "") {
      return wrong("F1", `the path ${show(path)}`);
    }
    if (!(metadata instanceof Uint8Array)) {
      return wrong("F1", `the metadata ${show(metadata)}, not a Uint8Array`);
    }
    if (this.#files.has(fileID)) {
      return wrong("F2", `the id ${fileID} twice`);
    }
    this.#files.set(fileID, { fileID, path, metadata: metadata.slice() });
  }

  /** Copies the files with their content, like a host after `saveSnapshot()` has returned. */
  async save(store: FileStore | undefined): Promise<SavedFile[]> {
    if (this.#breach !== undefined) throw this.#breach;
    const saved: SavedFile[] = [];
    for (const file of this.#files.values()) {
      saved.push({
        ...file,
        content: store && await contentOf(store, file.path),
      });
    }
    return saved;
  }
}

async function contentOf(store: FileStore, path: string): Promise<Uint8Array> {
  try {
    return await collect((await store.open(path)).content);
  } catch (cause) {
    throw new Breach(
      "F2",
      `addFile() was given ${
        show(path)
      }, which cannot be read when saveSnapshot() has returned`,
      { cause },
    );
  }
}

let names = 0;

/** Files of a snapshot at paths of their own, and a function that removes them. */
export interface RecoveryFiles {
  readonly files: readonly SnapshotFile[];
  remove(): Promise<void>;
}

/** Writes files for a recovery; without a store they stay at their paths. */
export async function writeFiles(
  saved: readonly SavedFile[],
  store: FileStore | undefined,
): Promise<RecoveryFiles> {
  const files: SnapshotFile[] = [];
  const made: string[] = [];
  for (const { fileID, path, metadata, content } of saved) {
    let filepath = path;
    if (store !== undefined && content !== undefined) {
      filepath = `contract-suite-${++names}`;
      await source(content, WHOLE).pipeTo(await store.create(filepath));
      made.push(filepath);
    }
    files.push({ fileID, filepath, metadata: metadata.slice() });
  }
  return {
    files,
    async remove(): Promise<void> {
      for (const path of made.splice(0)) await store?.remove(path);
    },
  };
}
