/**
 * Backups of the logs and snapshots of a server, taken while it runs. The format
 * is specified in `backup.md`.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32, encodeText } from "../bytes.ts";
import { type Env, systemEnv } from "../env.ts";
import {
  BACKUP_FRAME_BYTES_MAX,
  BACKUP_LISTS_MAX,
  BACKUP_REST_FACTOR,
  SNAPSHOT_CHUNK_BYTES,
} from "../limits.ts";
import type { BlockLogDB, LogBackup } from "../log/block_log.ts";
import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { ErrStoreCorrupted, newerVersion } from "../store/errors.ts";

/** Progress of a backup, in bytes. */
export interface BackupProgress {
  /** Bytes copied so far. */
  readonly done: number;
  /** Total bytes, as far as they are known. */
  readonly total: number;
}

/** Options of a backup. */
export interface BackupOptions {
  /** Called after each step. */
  readonly onProgress?: ((progress: BackupProgress) => void) | undefined;
  /** Clock and timers for the pauses between steps, in which the server continues. @default {systemEnv} */
  readonly env?: Env | undefined;
}

const MAGIC = "SAMPANBK";
const VERSION = 1;
const HEADER_BYTES = MAGIC.length + 1;
/** Size of kind and length before the payload of a frame, and of the checksum after it, in bytes. */
const FRAME_HEAD_BYTES = 5;
const FRAME_TAIL_BYTES = 4;

/** Kinds of frames. */
export const FrameKind = {
  Cluster: 1,
  Block: 2,
  Snapshot: 3,
  Chunk: 4,
  SnapshotEnd: 5,
  End: 6,
} as const;

/** One frame of a backup. */
export interface Frame {
  /** One of {@linkcode FrameKind}. */
  readonly kind: number;
  /** Payload, as a view. */
  readonly payload: Uint8Array;
}

function header(): Uint8Array {
  return new ByteWriter(HEADER_BYTES).raw(ascii(MAGIC)).u8(VERSION).finish();
}

function ascii(text: string): Uint8Array {
  return encodeText(text, "Text");
}

/** Encodes a frame. */
export function encodeFrame(kind: number, payload: Uint8Array): Uint8Array {
  const size = FRAME_HEAD_BYTES + payload.length + FRAME_TAIL_BYTES;
  const bytes = new ByteWriter(size).u8(kind).u32(payload.length).raw(payload);
  // The checksum covers kind, length and payload.
  return bytes.u32(crc32(bytes.view())).finish();
}

/** Encodes numbers as varints. */
function varints(...values: number[]): Uint8Array {
  const writer = new ByteWriter();
  for (const value of values) writer.varint(value);
  return writer.finish();
}

/**
 * Backup of all clusters of a log and a snapshot store, as a stream, taken while the
 * stores are in use. It has every command that was acknowledged before its first
 * read. Each log is copied as of one moment, and not compacted until it is copied.
 *
 * The stream fails with `ErrStoreCorrupted` at a damaged block: a backup never
 * contains damage.
 */
export function backup(
  logDB: BlockLogDB,
  snapshots: SnapshotStore,
  { onProgress, env = systemEnv }: BackupOptions = {},
): ReadableStream<Uint8Array> {
  const progress = { done: 0, total: 0 };
  const frames = copyAll(logDB, snapshots, progress);
  return new ReadableStream({
    async pull(controller): Promise<void> {
      const from = env.now();
      const { done, value } = await frames.next();
      const spent = env.now() - from;
      if (done) return controller.close();
      controller.enqueue(value);
      onProgress?.({ ...progress });
      await rest(env, spent);
    },
    async cancel(): Promise<void> {
      await frames.return();
    },
  }, { highWaterMark: 0 });
}

/** Leaves the event loop to the server for `BACKUP_REST_FACTOR` times as long as a step took. */
async function rest(env: Env, spentMs: number): Promise<void> {
  const ms = spentMs * BACKUP_REST_FACTOR;
  if (ms < 1) return await env.turn();
  await new Promise<void>((resolve) => env.setTimer(resolve, ms));
}

/** Snapshot whose content is read, also if the server removes it. */
interface OpenSnapshot {
  readonly info: SnapshotInfo;
  readonly content: ReadableStream<Uint8Array>;
}

/** Opens the snapshots of a cluster; those that are present then, if one is removed before it is opened: there is a newer one. */
async function openSnapshots(
  snapshots: SnapshotStore,
  clusterID: bigint,
): Promise<OpenSnapshot[]> {
  for (let lists = 1;; lists++) {
    const opened: OpenSnapshot[] = [];
    try {
      for (const info of await snapshots.list(clusterID)) {
        opened.push({ info, content: await snapshots.open(info) });
      }
      return opened;
    } catch (error) {
      await closeSnapshots(opened);
      if (
        !(error instanceof ErrSnapshotNotFound) || lists === BACKUP_LISTS_MAX
      ) throw error;
    }
  }
}

async function closeSnapshots(opened: readonly OpenSnapshot[]): Promise<void> {
  for (const { content } of opened) await content.cancel().catch(() => {});
}

async function* copyAll(
  logDB: BlockLogDB,
  snapshots: SnapshotStore,
  progress: { done: number; total: number },
): AsyncGenerator<Uint8Array, void, void> {
  const counts = { clusters: 0, blocks: 0, snapshots: 0 };
  yield header();
  for (const clusterID of await logDB.clusters()) {
    // Not compacted from here on, so that it continues where the newest snapshot ends.
    const held = await logDB.copy(clusterID);
    let opened: OpenSnapshot[] = [];
    let copy: LogBackup | undefined;
    try {
      // Snapshots come before the log, which then ends at or after each of them.
      opened = await openSnapshots(snapshots, clusterID);
      copy = await logDB.copy(clusterID);
      held.release();
      progress.total += copy.size +
        opened.reduce((sum, { info }) => sum + info.size, 0);
      yield encodeFrame(
        FrameKind.Cluster,
        new ByteWriter(24).u64(clusterID).varint(copy.base).varint(copy.last)
          .finish(),
      );
      let next: OpenSnapshot | undefined;
      while ((next = opened.shift()) !== undefined) {
        yield* copySnapshot(next, progress);
        counts.snapshots++;
      }
      for await (const blocks of copy.blocks) {
        const writer: Uint8Array[] = [];
        for (const { key, bytes } of blocks) {
          progress.done += bytes.length;
          counts.blocks++;
          writer.push(encodeFrame(
            FrameKind.Block,
            new ByteWriter(bytes.length + 64).bytes(ascii(key)).raw(bytes)
              .finish(),
          ));
        }
        yield concat(writer);
      }
      counts.clusters++;
    } finally {
      held.release();
      copy?.release();
      await closeSnapshots(opened);
    }
  }
  const { clusters, blocks, snapshots: taken } = counts;
  yield encodeFrame(FrameKind.End, varints(clusters, blocks, taken));
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const writer = new ByteWriter(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  for (const part of parts) writer.raw(part);
  return writer.finish();
}

async function* copySnapshot(
  { info, content }: OpenSnapshot,
  progress: { done: number },
): AsyncGenerator<Uint8Array, void, void> {
  yield encodeFrame(FrameKind.Snapshot, ascii(info.id));
  const reader = content.getReader();
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      progress.done += value.length;
      for (let at = 0; at < value.length; at += SNAPSHOT_CHUNK_BYTES) {
        yield encodeFrame(
          FrameKind.Chunk,
          value.subarray(at, at + SNAPSHOT_CHUNK_BYTES),
        );
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
  yield encodeFrame(FrameKind.SnapshotEnd, varints(size));
}

/** Reads a backup frame by frame. */
export class BackupReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #offset = 0;

  /** Creates a reader that locks `source`. */
  constructor(source: ReadableStream<Uint8Array>) {
    this.#reader = source.getReader();
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#offset;
  }

  /** Error for damage at the current position. */
  damaged(what: string): ErrStoreCorrupted {
    return new ErrStoreCorrupted(
      `byte ${this.#offset}`,
      `Backup is damaged: ${what}`,
    );
  }

  /** Reads `count` bytes; undefined if the stream ends before them. */
  async #take(count: number): Promise<Uint8Array | undefined> {
    if (this.#chunk.length < count) {
      const parts = [this.#chunk];
      for (let size = this.#chunk.length; size < count;) {
        const { done, value } = await this.#reader.read();
        if (done) {
          if (size === 0) return undefined;
          throw this.damaged("it is truncated");
        }
        parts.push(value);
        size += value.length;
      }
      this.#chunk = concat(parts);
    }
    const bytes = this.#chunk.subarray(0, count);
    this.#chunk = this.#chunk.subarray(count);
    this.#offset += count;
    return bytes;
  }

  /**
   * Frames of the backup, without the last one.
   *
   * @throws ErrStoreCorrupted if the backup is damaged or truncated
   * @throws ErrStoreVersion if its format version is not supported
   */
  async *frames(): AsyncGenerator<Frame, void, void> {
    try {
      const head = await this.#take(HEADER_BYTES);
      if (
        head === undefined ||
        new TextDecoder().decode(head.subarray(0, MAGIC.length)) !== MAGIC
      ) throw new ErrStoreCorrupted("byte 0", "Data is not a backup");
      if (head[MAGIC.length] !== VERSION) {
        throw newerVersion("Backup", head[MAGIC.length]!, VERSION);
      }
      for (;;) {
        const frame = await this.#next();
        yield frame;
        if (frame.kind !== FrameKind.End) continue;
        if (await this.#take(1) !== undefined) {
          throw this.damaged("there are bytes after its end");
        }
        return;
      }
    } finally {
      await this.#reader.cancel().catch(() => {});
    }
  }

  async #next(): Promise<Frame> {
    const head = await this.#take(FRAME_HEAD_BYTES);
    if (head === undefined) throw this.damaged("it is truncated");
    const reader = new ByteReader(head);
    const kind = reader.u8();
    const length = reader.u32();
    if (length > BACKUP_FRAME_BYTES_MAX) {
      throw this.damaged(
        `a frame of ${length} bytes is larger than BACKUP_FRAME_BYTES_MAX`,
      );
    }
    // The head remains valid: chunks are never modified.
    const crc = crc32(head);
    const rest = await this.#take(length + FRAME_TAIL_BYTES);
    if (rest === undefined) throw this.damaged("it is truncated");
    if (new ByteReader(rest, length).u32() !== crc32(rest, crc, 0, length)) {
      throw this.damaged("the checksum of a frame is wrong");
    }
    return { kind, payload: rest.subarray(0, length) };
  }
}
