/**
 * Files and directories so that they outlive a power cut.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  closeSync,
  fsync,
  fsyncSync,
  mkdirSync,
  openSync,
  read,
  rmSync,
  statSync,
  write,
} from "node:fs";
import { platform } from "node:os";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { describe, isWellFormed, wrongType } from "../describe.ts";
import {
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
} from "../store/errors.ts";

/** How many bytes are read from a file at once. */
const CHUNK_BYTES = 64 * 1024;

/**
 * Path in the file system that a caller has given, as a path or a `file:` URL.
 *
 * @throws TypeError if it is something else: what other programs would take for a database in memory, a URL or a home folder, the file system takes for the name of a file
 */
export function pathFrom(given: string | URL, name: string): string {
  if (given instanceof URL) {
    if (given.protocol === "file:") return fileURLToPath(given);
    throw new TypeError(
      `${name} is the URL ${given.href}; give a path or a file: URL`,
    );
  }
  if (typeof given !== "string") {
    throw wrongType(name, given, "a path or a file: URL");
  }
  const refuse = (why: string): TypeError =>
    new TypeError(`${name} is ${describe(given)}; ${why}`);
  if (given === "") throw refuse("give a path or a file: URL");
  if (given.startsWith(":")) {
    throw refuse(
      "a database of this class is always in a file; for one in memory use MemoryLogDB, MemorySnapshotStore, MemoryOutbox or KVStateMachine",
    );
  }
  if (/^~(?:[/\\]|$)/.test(given)) {
    throw refuse("only a shell knows ~; give the whole path");
  }
  if (/^file:/i.test(given)) {
    throw refuse("give a path, or new URL() of it");
  }
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(given)) {
    throw refuse("it is a URL; give a path or a file: URL");
  }
  if (given.includes("\0") || !isWellFormed(given)) {
    throw refuse("a path has no zero bytes and no lone surrogates");
  }
  return given;
}

/** An error of the file system as this library names it. */
export function fileError(error: unknown): unknown {
  const code = (error as { code?: unknown } | null)?.code;
  return code === "ENOSPC" || code === "EDQUOT"
    ? new ErrStoreFull("There is no room left for files", { cause: error })
    : error;
}

/** Makes what was created, renamed or removed in a directory outlive a power cut. */
export function syncDirectory(path: string): void {
  // Windows keeps its directories in a journal, and does not open them.
  if (platform() === "win32") return;
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Makes a directory and those above it, if they are not there. */
export function makeDirectory(path: string): void {
  const missing: string[] = [];
  for (let at = path; !exists(at); at = dirname(at)) missing.push(at);
  if (missing.length === 0) return;
  mkdirSync(path, { recursive: true });
  for (const made of missing.reverse()) syncDirectory(dirname(made));
}

/** Whether there is something at a path. */
export function exists(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** True if an error of the file system has one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return codes.some((one) => one === code);
}

/** A lock that a process holds. */
export interface FileLock {
  /** True if its file is still in place: neither it nor its directory was removed or replaced. */
  readonly isInPlace: boolean;
  /** Releases it. */
  close(): void;
}

/**
 * Takes a lock that ends with the process, however that ends. It is SQLite's, on
 * an empty database: Node has no other that the system releases.
 *
 * @throws ErrStoreLocked if another process, or another store of this one, has it
 */
export function lockFile(path: string): FileLock {
  let lock: DatabaseSync;
  try {
    lock = new DatabaseSync(path);
  } catch (cause) {
    throw new ErrStoreFailed(path, "lock cannot be opened", { cause });
  }
  try {
    lock.exec(
      "PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE",
    );
    const { dev, ino } = statSync(path);
    return {
      get isInPlace(): boolean {
        const now = statSync(path, { throwIfNoEntry: false });
        return now !== undefined && now.dev === dev && now.ino === ino;
      },
      close: () => lock.close(),
    };
  } catch (cause) {
    lock.close();
    throw cause instanceof Error && /is locked/.test(cause.message)
      ? new ErrStoreLocked(
        `Another process, or another store of this one, holds ${path}`,
        { cause },
      )
      : new ErrStoreFailed(path, "lock cannot be taken", { cause });
  }
}

/** The bytes of a file from its beginning; closes it when that is over. */
export function fileSource(file: number): ReadableStream<Uint8Array> {
  let isOver = false;
  let isReading = false;
  const close = (): void => {
    if (isOver) return;
    isOver = true;
    // Closed under a read, its number could be another file's by then.
    if (!isReading) closeSync(file);
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      const chunk = new Uint8Array(CHUNK_BYTES);
      let count = 0;
      isReading = true;
      try {
        count = await readChunk(file, chunk);
      } catch (error) {
        isReading = false;
        if (isOver) closeSync(file);
        close();
        throw error;
      }
      isReading = false;
      // It may have been given up while the chunk was read.
      if (isOver) return closeSync(file);
      if (count > 0) return controller.enqueue(chunk.subarray(0, count));
      close();
      controller.close();
    },
    cancel: close,
  }, { highWaterMark: 0 });
}

function readChunk(file: number, chunk: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) =>
    read(file, chunk, 0, chunk.length, null, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    })
  );
}

function writeChunk(file: number, chunk: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) =>
    write(file, chunk, 0, chunk.length, null, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    })
  );
}

function syncFile(file: number): Promise<void> {
  return new Promise((resolve, reject) =>
    fsync(file, (error) => {
      if (error) reject(error);
      else resolve();
    })
  );
}

/** A file being written under a name that is not its own yet. */
export class FileSink {
  /** Takes the bytes. Once it is closed they outlive a power cut. */
  readonly writable: WritableStream<Uint8Array>;
  /** Bytes written so far. */
  size = 0;
  /** Whether all of it is written. */
  isComplete = false;
  readonly #path: string;
  readonly #live: Set<FileSink>;
  readonly #file: number;
  #controller: WritableStreamDefaultController | undefined;
  #isOpen = true;
  #writing: Promise<unknown> | undefined;

  /**
   * Begins a file at `path`; `done` is called when it is complete. Until it is
   * discarded, or its owner takes it out, it is one of those that are `live`.
   */
  constructor(
    path: string,
    live: Set<FileSink>,
    done: () => void = (): void => {},
  ) {
    this.#path = path;
    this.#live = live;
    this.#file = openSync(path, "wx");
    live.add(this);
    this.writable = new WritableStream<Uint8Array>({
      start: (controller) => void (this.#controller = controller),
      write: (chunk) => this.#step(this.#write(chunk)),
      close: () => this.#step(this.#finish(done)),
      abort: () => this.discard(),
    });
  }

  async #step(work: Promise<void>): Promise<void> {
    try {
      await (this.#writing = work);
    } catch (error) {
      this.#writing = undefined;
      await this.discard();
      throw fileError(error);
    }
  }

  async #write(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      at += await writeChunk(this.#file, chunk.subarray(at));
    }
    this.size += chunk.length;
  }

  async #finish(done: () => void): Promise<void> {
    await syncFile(this.#file);
    this.#close();
    this.isComplete = true;
    done();
  }

  #close(): void {
    if (this.#isOpen) closeSync(this.#file);
    this.#isOpen = false;
  }

  /** Fails the stream if it is still open, and removes what was written. */
  async abort(reason?: unknown): Promise<void> {
    this.#controller?.error(reason ?? new Error("File is not wanted"));
    await this.discard();
  }

  /** Removes what was written; idempotent. */
  async discard(): Promise<void> {
    this.#live.delete(this);
    this.isComplete = false;
    await this.#writing?.catch(() => {});
    this.#close();
    removeFile(this.#path);
  }
}

/** Removes a file; harmless when it is gone already. */
export function removeFile(path: string): void {
  rmSync(path, { force: true });
}
