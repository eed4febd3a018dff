/**
 * Folder with the logs and snapshots of a server.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import { readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { ByteReader } from "../bytes.ts";
import { RESTORE_WRITE_BYTES } from "../limits.ts";
import { verifyBlock } from "../log/block.ts";
import { verifySnapshot } from "../snapshot/verifier.ts";
import { parseName } from "../snapshot/snapshot_name.ts";
import { SampanError } from "../statemachine/errors.ts";
import type { Block } from "../store/store.ts";
import {
  backup,
  type BackupOptions,
  type BackupProgress,
  BackupReader,
  type Frame,
  FrameKind,
} from "./backup.ts";
import { FileSnapshotStore } from "./file_snapshot_store.ts";
import { FileSink, makeDirectory, syncDirectory } from "./files.ts";
import { SqliteBlockStore } from "./sqlite_block_store.ts";
import { SqliteLogDB } from "./sqlite_log.ts";

const LOG = "log.db";
const SNAPSHOTS = "snapshots";

/** Thrown when a path cannot be used as a data folder. Nothing was changed. */
export class ErrDataFolder extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrDataFolder";
  /** Path of the folder. */
  readonly path: string;
  /** Creates an error that says what is wrong with the path. */
  constructor(path: string, what: string, options?: ErrorOptions) {
    super(`${path} ${what}`, options);
    this.path = path;
  }
}

/** Options of {@linkcode DataFolder.open}. */
export interface DataFolderOptions {
  /**
   * Set to create the folder if it is missing; otherwise opening it fails.
   *
   * @default {true}
   */
  readonly create?: boolean | undefined;
}

/** Result of a restore. */
export interface Restored {
  /** Clusters in the backup, with the index of the last record of each. */
  readonly clusters: readonly {
    readonly clusterID: bigint;
    readonly last: number;
  }[];
  /** Snapshots in the backup. */
  readonly snapshots: number;
  /** Size of the backup, in bytes. */
  readonly size: number;
}

/** Options of {@linkcode DataFolder.restore}. */
export interface RestoreOptions {
  /** Called after each step with the bytes read so far, also as the total, which is not known. */
  readonly onProgress?: ((progress: BackupProgress) => void) | undefined;
  /** Aborts the restore, which removes everything it has written. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Folder with the logs (`log.db`) and snapshots (`snapshots/`) of a server, for one
 * process at a time.
 *
 * ```ts
 * import { DataFolder } from "./mod.ts";
 * import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
 *
 * const path = await Deno.makeTempDir();
 * {
 *   await using data = await DataFolder.open(`${path}/data`);
 *   await using host = new NodeHost({
 *     logDB: data.logDB,
 *     snapshots: data.snapshots,
 *   });
 *   const replica = await host.startCluster(() => new KVStateMachine(), {
 *     clusterID: 1n,
 *     nodeID: 1n,
 *   });
 *   await replica.propose(kv.put("boat", "sampan"));
 *   const file = await Deno.open(`${path}/backup`, { create: true, write: true });
 *   await data.backup().pipeTo(file.writable); // while the host runs
 * }
 * const file = await Deno.open(`${path}/backup`);
 * const { clusters } = await DataFolder.restore(`${path}/new`, file.readable);
 * console.log(clusters); // [ { clusterID: 1n, last: 2 } ]
 * await Deno.remove(path, { recursive: true });
 * ```
 */
export class DataFolder implements AsyncDisposable {
  /** Absolute path of the folder. */
  readonly path: string;
  /** Logs of the clusters. */
  readonly logDB: SqliteLogDB;
  /** Snapshots of the clusters. */
  readonly snapshots: FileSnapshotStore;

  private constructor(path: string) {
    this.path = path;
    this.logDB = new SqliteLogDB(join(path, LOG));
    this.snapshots = new FileSnapshotStore(join(path, SNAPSHOTS));
  }

  /**
   * Opens a data folder and locks it for this process.
   *
   * @throws ErrDataFolder if the path is a file, is missing and `create` is false, or cannot be written
   * @throws ErrStoreLocked if another process has the folder open
   * @throws ErrStoreVersion if newer code wrote it
   * @throws ErrStoreCorrupted if its database is damaged, or belongs to another application
   */
  static async open(
    path: string,
    { create = true }: DataFolderOptions = {},
  ): Promise<DataFolder> {
    const at = resolve(path);
    const kind = kindOf(at);
    if (kind === "file") {
      throw new ErrDataFolder(at, "is a file: name a folder for the data");
    }
    if (!create && kindOf(join(at, LOG)) === undefined) {
      throw new ErrDataFolder(
        at,
        `is not a data folder: there is no ${LOG} in it`,
      );
    }
    const folder = new DataFolder(at);
    try {
      makeDirectory(at);
      // Open the database now, so that its errors are reported here.
      await folder.logDB.clusters();
      folder.snapshots.list(0n);
      return folder;
    } catch (error) {
      await folder.close();
      throw unwritable(at, error);
    }
  }

  /**
   * Backup of all clusters, as a stream, taken while the folder is in use. It has
   * everything that was acknowledged before its first read. It lacks the state of
   * on-disk state machines, which recover from its snapshots.
   */
  backup(options?: BackupOptions): ReadableStream<Uint8Array> {
    return backup(this.logDB, this.snapshots, options);
  }

  /**
   * Creates a data folder from a backup, which it verifies completely. If the backup
   * is damaged or the restore is aborted, everything written is removed.
   *
   * @throws ErrDataFolder if `path` exists and is not empty
   * @throws ErrStoreCorrupted if the backup is damaged or truncated
   * @throws ErrSnapshotCorrupted if a snapshot in it is damaged
   * @throws ErrStoreVersion if newer code wrote it
   * @throws ErrStoreFull if there is no room
   */
  static async restore(
    path: string,
    source: ReadableStream<Uint8Array>,
    options: RestoreOptions = {},
  ): Promise<Restored> {
    const at = resolve(path);
    const temporary = `${at}.restoring`;
    try {
      checkAbsent(at);
      // Left by an interrupted restore.
      rmSync(temporary, { recursive: true, force: true });
    } catch (error) {
      await source.cancel(error).catch(() => {});
      throw error;
    }
    try {
      makeDirectory(join(temporary, SNAPSHOTS));
      const restored = await new Restore(temporary, source, options).run();
      await checkLogs(temporary, restored);
      rmSync(at, { recursive: true, force: true });
      renameSync(temporary, at);
      syncDirectory(join(at, ".."));
      return restored;
    } catch (error) {
      if (!source.locked) await source.cancel(error).catch(() => {});
      rmSync(temporary, { recursive: true, force: true });
      throw unwritable(at, error);
    }
  }

  /** Closes the stores; idempotent. Stop the host that uses them first. */
  async close(): Promise<void> {
    await this.snapshots.close();
    await this.logDB.close();
  }

  /** Closes the stores. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function kindOf(path: string): "file" | "folder" | undefined {
  let stat;
  try {
    stat = statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw unwritable(path, error);
  }
  if (stat === undefined) return undefined;
  return stat.isDirectory() ? "folder" : "file";
}

/** Checks that the target of a restore is missing or empty. */
function checkAbsent(path: string): void {
  const kind = kindOf(path);
  if (kind === undefined) return;
  if (kind === "file") {
    throw new ErrDataFolder(path, "is a file: name a new folder");
  }
  if (readdirSync(path).length > 0) {
    throw new ErrDataFolder(
      path,
      "is not empty: a restore never overwrites; name a new folder",
    );
  }
}

/** Converts an error of the file system to an `ErrDataFolder` for `path`; returns other errors unchanged. */
export function unwritable(path: string, error: unknown): unknown {
  const { code, message, syscall } = Object(error) as {
    code?: unknown;
    message?: unknown;
    syscall?: unknown;
  };
  switch (code) {
    case "ENOENT":
      return syscall === "mkdir"
        ? new ErrDataFolder(path, `cannot be created: ${message}`, {
          cause: error,
        })
        : error;
    case "ENAMETOOLONG":
      return new ErrDataFolder(path, "is too long; choose a shorter path", {
        cause: error,
      });
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new ErrDataFolder(path, `cannot be written: ${message}`, {
        cause: error,
      });
    case "ENOTDIR":
      return new ErrDataFolder(path, "is below a file; choose another folder", {
        cause: error,
      });
    default:
      return error;
  }
}

/** Opens each restored log, to check that no block is missing. */
async function checkLogs(path: string, restored: Restored): Promise<void> {
  await using logDB = new SqliteLogDB(join(path, LOG));
  const found = await logDB.clusters();
  for (const { clusterID, last } of restored.clusters) {
    if (!found.includes(clusterID) && last === 0) continue;
    const copy = await logDB.copy(clusterID);
    copy.release();
    if (copy.last !== last) {
      throw new ErrDataFolder(
        path,
        `has the log of cluster ${clusterID} up to ${copy.last}, but the backup had it up to ${last}; restore it again`,
      );
    }
  }
}

/** Restore in progress. */
class Restore {
  readonly #folder: string;
  readonly #reader: BackupReader;
  readonly #options: RestoreOptions;
  readonly #store: SqliteBlockStore;
  readonly #clusters: { clusterID: bigint; last: number }[] = [];
  /** Blocks that are not written yet. */
  #blocks: Block[] = [];
  #blockBytes = 0;
  #blockCount = 0;
  #snapshots = 0;

  constructor(
    folder: string,
    source: ReadableStream<Uint8Array>,
    options: RestoreOptions,
  ) {
    this.#folder = folder;
    this.#reader = new BackupReader(source);
    this.#options = options;
    this.#store = new SqliteBlockStore(join(folder, LOG));
  }

  async run(): Promise<Restored> {
    const frames = this.#frames();
    try {
      for await (const frame of frames) await this.#restore(frame, frames);
      this.#flush("strict");
      return {
        clusters: this.#clusters,
        snapshots: this.#snapshots,
        size: this.#reader.offset,
      };
    } finally {
      await this.#store.close();
    }
  }

  async *#frames(): AsyncGenerator<Frame, void, void> {
    const { onProgress, signal } = this.#options;
    for await (const frame of this.#reader.frames()) {
      signal?.throwIfAborted();
      const { offset } = this.#reader;
      onProgress?.({ done: offset, total: offset });
      yield frame;
    }
  }

  async #restore(
    { kind, payload }: Frame,
    frames: AsyncGenerator<Frame, void, void>,
  ): Promise<void> {
    switch (kind) {
      case FrameKind.Cluster: {
        const [clusterID, , last] = this.#read(payload, (reader) =>
          [
            reader.u64(),
            reader.varint(),
            reader.varint(),
          ] as const);
        this.#clusters.push({ clusterID, last });
        return;
      }
      case FrameKind.Block:
        return this.#restoreBlock(payload);
      case FrameKind.Snapshot:
        return await this.#restoreSnapshot(text(payload), frames);
      case FrameKind.End:
        return this.#checkEnd(payload);
      default:
        throw this.#reader.damaged(`a frame of kind ${kind} is out of place`);
    }
  }

  #read<T>(payload: Uint8Array, read: (reader: ByteReader) => T): T {
    try {
      return read(new ByteReader(payload));
    } catch (cause) {
      throw cause instanceof RangeError
        ? this.#reader.damaged(cause.message)
        : cause;
    }
  }

  #restoreBlock(payload: Uint8Array): void {
    const cluster = this.#clusters.at(-1);
    if (cluster === undefined) {
      throw this.#reader.damaged("a block belongs to no cluster");
    }
    const { key, bytes } = this.#read(payload, (reader) => ({
      key: text(reader.bytes()),
      bytes: reader.raw(reader.remaining),
    }));
    verifyBlock(bytes, cluster.clusterID, key);
    this.#blocks.push({ key, bytes });
    this.#blockCount++;
    this.#blockBytes += bytes.length;
    if (this.#blockBytes >= RESTORE_WRITE_BYTES) this.#flush("relaxed");
  }

  #flush(durability: "relaxed" | "strict"): void {
    this.#store.write({ put: this.#blocks }, durability);
    this.#blocks = [];
    this.#blockBytes = 0;
  }

  async #restoreSnapshot(
    id: string,
    frames: AsyncGenerator<Frame, void, void>,
  ): Promise<void> {
    const { size } = parseName(id)?.info ?? {};
    if (size === undefined) {
      throw this.#reader.damaged(`"${id}" is not the name of a snapshot`);
    }
    const path = join(this.#folder, SNAPSHOTS, `${id}.snapshot`);
    const sink = new FileSink(path, new Set());
    const { transform, totals } = verifySnapshot();
    const written = transform.readable.pipeTo(sink.writable);
    // Reported by the writes, or by the await at the end.
    written.catch(() => {});
    const writer = transform.writable.getWriter();
    try {
      let taken = 0;
      for (;;) {
        const { done, value: frame } = await frames.next();
        if (done) throw this.#reader.damaged(`snapshot ${id} has no end`);
        if (frame.kind === FrameKind.SnapshotEnd) break;
        if (frame.kind !== FrameKind.Chunk) {
          throw this.#reader.damaged(`snapshot ${id} has no end`);
        }
        taken += frame.payload.length;
        await writer.write(frame.payload);
      }
      await writer.close();
      await written;
      await totals;
      if (taken !== size) {
        throw this.#reader.damaged(
          `snapshot ${id} has ${taken} bytes, not ${size}`,
        );
      }
      syncDirectory(join(this.#folder, SNAPSHOTS));
      this.#snapshots++;
    } catch (error) {
      await writer.abort(error).catch(() => {});
      await sink.discard();
      throw error;
    }
  }

  #checkEnd(payload: Uint8Array): void {
    const counts = this.#read(
      payload,
      (reader) => [reader.varint(), reader.varint(), reader.varint()],
    );
    const found = [this.#clusters.length, this.#blockCount, this.#snapshots];
    if (counts.join() !== found.join()) {
      throw this.#reader.damaged(
        `its end counts ${
          counts.join(", ")
        } clusters, blocks and snapshots, but it has ${found.join(", ")}`,
      );
    }
  }
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
