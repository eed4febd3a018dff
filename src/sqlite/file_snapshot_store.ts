/**
 * Snapshot store in a directory of the file system.
 *
 * Each snapshot is one file whose name carries its header, so that listing snapshots
 * opens no file. A file is written under a temporary name, synced and renamed; then
 * the directory is synced.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import { ErrClosed } from "../statemachine/errors.ts";
import {
  closeSync,
  fstatSync,
  openSync,
  readdirSync,
  renameSync,
} from "node:fs";
import { join } from "node:path";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
  incompleteError,
} from "../snapshot/errors.ts";
import {
  type NamedSnapshot,
  nameOf,
  parseName,
} from "../snapshot/snapshot_name.ts";
import {
  clustersOf,
  compareSnapshots,
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
} from "../snapshot/store.ts";
import {
  type FileLock,
  FileSink,
  fileSource,
  hasCode,
  lockFile,
  makeDirectory,
  pathFrom,
  removeFile,
  syncDirectory,
} from "./files.ts";

const SUFFIX = ".snapshot";
const TEMPORARY = ".tmp";

/**
 * {@linkcode SnapshotStore} in a directory, for one process at a time. Files that a
 * crash left unfinished are removed when the store is next used. A directory that is
 * removed while the store is in use is created again.
 */
export class FileSnapshotStore implements SnapshotStore {
  /** Path of the directory. */
  readonly directory: string;
  /** Complete snapshots by id; undefined until they are first listed. */
  #snapshots: Map<string, NamedSnapshot> | undefined;
  #lock: FileLock | undefined;
  readonly #sinks = new Set<FileSink>();
  #made = 0;
  #closed = false;

  /** Creates a store in `directory`, which is created at its first use. */
  constructor(directory: string | URL) {
    this.directory = pathFrom(directory, "Directory of the snapshots");
  }

  #pathOf(id: string): string {
    return join(this.directory, id + SUFFIX);
  }

  #open(): Map<string, NamedSnapshot> {
    if (this.#closed) {
      throw new ErrClosed(`Snapshot store is closed: ${this.directory}`);
    }
    const lock = join(this.directory, "lock");
    if (this.#lock !== undefined && !this.#lock.isInPlace) {
      // The directory was removed while it was in use: create it again, and list what
      // it contains now.
      this.#lock.close();
      this.#lock = undefined;
      this.#snapshots = undefined;
    }
    if (this.#snapshots !== undefined) return this.#snapshots;
    makeDirectory(this.directory);
    this.#lock ??= lockFile(lock);
    const snapshots = new Map<string, NamedSnapshot>();
    for (const name of readdirSync(this.directory)) {
      if (name.endsWith(TEMPORARY)) removeFile(join(this.directory, name));
      if (!name.endsWith(SUFFIX)) continue;
      const made = parseName(name.slice(0, -SUFFIX.length));
      if (made !== undefined) snapshots.set(made.info.id, made);
    }
    this.#snapshots = snapshots;
    for (const made of snapshots.values()) {
      this.#made = Math.max(this.#made, made.order);
      this.#removeReplaced(made);
    }
    return snapshots;
  }

  /** Removes the older snapshots that equal this one. */
  #removeReplaced({ info, order }: NamedSnapshot): void {
    for (const other of this.#snapshots!.values()) {
      if (other.order < order && isSameSnapshot(other.info, info)) {
        this.#remove(other.info.id);
      }
    }
  }

  #remove(id: string): void {
    if (!this.#snapshots!.delete(id)) return;
    removeFile(this.#pathOf(id));
  }

  /**
   * Begins writing a snapshot.
   *
   * @throws ErrStoreLocked if another process has the directory open
   */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): SnapshotSink {
    this.#open();
    const path = join(this.directory, crypto.randomUUID() + TEMPORARY);
    const sink = new FileSink(path, this.#sinks);
    let info: SnapshotInfo | undefined;
    return {
      writable: sink.writable,
      commit: (totals: SnapshotTotals): SnapshotInfo =>
        info ??= this.#commit(header, options, totals, sink, path),
      abort: async (reason?: unknown): Promise<void> => {
        if (info === undefined) await sink.abort(reason);
      },
    };
  }

  #commit(
    header: SnapshotHeader,
    options: { readonly imported?: boolean } | undefined,
    { files }: SnapshotTotals,
    sink: FileSink,
    path: string,
  ): SnapshotInfo {
    const snapshots = this.#open();
    if (!sink.isComplete) {
      throw incompleteError();
    }
    const imported = options?.imported ?? false;
    const order = ++this.#made;
    const id = nameOf({ ...header, files, imported, size: sink.size }, order);
    const made = parseName(id)!;
    renameSync(path, this.#pathOf(id));
    syncDirectory(this.directory);
    this.#sinks.delete(sink);
    snapshots.set(id, made);
    this.#removeReplaced(made);
    return made.info;
  }

  /**
   * Complete snapshots of a cluster, in the order defined by the port.
   *
   * @throws ErrStoreLocked if another process has the directory open
   */
  list(clusterID: bigint): readonly SnapshotInfo[] {
    return [...this.#open().values()]
      .filter(({ info }) => info.clusterID === clusterID)
      .sort((a, b) => compareSnapshots(a.info, b.info) || b.order - a.order)
      .map(({ info }) => info);
  }

  /**
   * Opens the container's bytes.
   *
   * @throws ErrSnapshotNotFound if it is not in the store, or was removed
   * @throws ErrSnapshotCorrupted if the file has another size than its name says
   */
  open(info: SnapshotInfo): ReadableStream<Uint8Array> {
    const made = this.#open().get(info.id);
    if (made === undefined) throw new ErrSnapshotNotFound(info.id);
    let file: number;
    try {
      file = openSync(this.#pathOf(info.id), "r");
    } catch (cause) {
      if (!hasCode(cause, "ENOENT")) throw cause;
      // Another program has removed the file: do not list it again.
      this.#snapshots!.delete(info.id);
      throw new ErrSnapshotNotFound(info.id);
    }
    const { size } = fstatSync(file);
    if (size !== made.info.size) {
      closeSync(file);
      throw new ErrSnapshotCorrupted(
        `Snapshot ${info.id} has ${size} bytes, not ${made.info.size}`,
        Math.min(size, made.info.size),
      );
    }
    return fileSource(file);
  }

  /** Removes a snapshot; does nothing if it was removed before. */
  remove(info: SnapshotInfo): void {
    this.#open();
    this.#remove(info.id);
  }

  /** Ids of the clusters that have a snapshot here, in ascending order. */
  clusters(): readonly bigint[] {
    return clustersOf([...this.#open().values()].map(({ info }) => info));
  }

  /** Discards unfinished snapshots and unlocks the directory; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sink of [...this.#sinks]) {
      await sink.abort(
        new ErrClosed(`Snapshot store is closed: ${this.directory}`),
      );
    }
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
