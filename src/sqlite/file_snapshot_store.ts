/**
 * Snapshots as files of a directory.
 *
 * Each is one file, and its name says all that is known of it, so that listing
 * them opens none, and a snapshot and what is known of it appear in one step. It
 * is written under another name, synced, renamed, and the directory synced.
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
 * A {@linkcode SnapshotStore} in a directory, for one process at a time. What a
 * crash left unfinished is removed when the store is next used. A directory that
 * is removed while the store is in use is made again.
 */
export class FileSnapshotStore implements SnapshotStore {
  /** Where the snapshots are. */
  readonly directory: string;
  /** The complete ones by their ids; undefined before they are first wanted. */
  #snapshots: Map<string, NamedSnapshot> | undefined;
  #lock: FileLock | undefined;
  readonly #sinks = new Set<FileSink>();
  #made = 0;
  #closed = false;

  /** A store in `directory`, which is made when it is first needed. */
  constructor(directory: string | URL) {
    this.directory = pathFrom(directory, "Directory of the snapshots");
  }

  #pathOf(id: string): string {
    return join(this.directory, id + SUFFIX);
  }

  #open(): Map<string, NamedSnapshot> {
    if (this.#closed) throw new ErrClosed("Snapshot store is closed");
    const lock = join(this.directory, "lock");
    if (this.#lock !== undefined && !this.#lock.isInPlace) {
      // The directory was removed while it was in use: it is made again, with
      // whatever is in it now.
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

  /** Removes the older ones that say the same as `made`. */
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
   * Begins a snapshot.
   *
   * @throws ErrStoreLocked if another process has the directory
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
    if (!sink.isComplete) throw new Error("Snapshot is not written to its end");
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
   * The complete snapshots of a cluster, as the port orders them.
   *
   * @throws ErrStoreLocked if another process has the directory
   */
  list(clusterID: bigint): readonly SnapshotInfo[] {
    return [...this.#open().values()]
      .filter(({ info }) => info.clusterID === clusterID)
      .sort((a, b) => compareSnapshots(a.info, b.info) || b.order - a.order)
      .map(({ info }) => info);
  }

  /**
   * The container's bytes.
   *
   * @throws ErrSnapshotNotFound if it is not, or no longer, there
   * @throws ErrSnapshotCorrupted if the file does not have its size
   */
  open(info: SnapshotInfo): ReadableStream<Uint8Array> {
    const made = this.#open().get(info.id);
    if (made === undefined) throw new ErrSnapshotNotFound(info.id);
    let file: number;
    try {
      file = openSync(this.#pathOf(info.id), "r");
    } catch (cause) {
      if (!hasCode(cause, "ENOENT")) throw cause;
      // Another program has removed it: it is not listed any more either.
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

  /** Removes a snapshot; harmless when it is gone already. */
  remove(info: SnapshotInfo): void {
    this.#open();
    this.#remove(info.id);
  }

  /** Clusters that have a snapshot here, in order of their ids. */
  clusters(): readonly bigint[] {
    return clustersOf([...this.#open().values()].map(({ info }) => info));
  }

  /** Drops what is being written and lets go of the directory; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sink of [...this.#sinks]) {
      await sink.abort(new ErrClosed("Snapshot store is closed"));
    }
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
