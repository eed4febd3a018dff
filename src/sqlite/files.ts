/**
 * Files and directories that survive a power cut.
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
import { describe, isWellFormed, messageOf, wrongType } from "../describe.ts";
import {
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
} from "../store/errors.ts";

/** Bytes that are read from a file at once. */
const CHUNK_BYTES = 64 * 1024;

/**
 * Path in the file system from a path or a `file:` URL.
 *
 * @throws TypeError if it is anything else, or a string such as `:memory:`, a URL or `~/…`, which the file system would treat as the name of a file
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

/** Converts an error of the file system to one of this library. */
export function fileError(error: unknown): unknown {
  const code = (error as { code?: unknown } | null)?.code;
  return code === "ENOSPC" || code === "EDQUOT"
    ? new ErrStoreFull(`No space left on the disk (${messageOf(error)})`, {
      cause: error,
    })
    : error;
}

/** Makes files that were created, renamed or removed in a directory survive a power cut. */
export function syncDirectory(path: string): void {
  // Windows journals its directories, and does not open them as files.
  if (platform() === "win32") return;
  const directory = openSync(path, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Creates a directory and its parents if they are missing. */
export function makeDirectory(path: string): void {
  const missing: string[] = [];
  for (let at = path; !exists(at); at = dirname(at)) missing.push(at);
  if (missing.length === 0) return;
  mkdirSync(path, { recursive: true });
  for (const made of missing.reverse()) syncDirectory(dirname(made));
}

/** True if a file or directory exists at a path. */
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

/** File lock of this process. */
export interface FileLock {
  /** True if neither the lock file nor its directory was removed or replaced. */
  readonly isInPlace: boolean;
  /** Releases the lock. */
  close(): void;
}

/**
 * Acquires a lock that the operating system releases when the process ends. It is
 * SQLite's lock of an empty database, since Node has no other such lock.
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
        `Another process, or another store of this one, has locked ${path}; close it first`,
        { cause },
      )
      : new ErrStoreFailed(path, "lock cannot be taken", { cause });
  }
}

/** Stream of the bytes of a file, which is closed at its end. */
export function fileSource(file: number): ReadableStream<Uint8Array> {
  let isOver = false;
  let isReading = false;
  const close = (): void => {
    if (isOver) return;
    isOver = true;
    // Closing during a read could let another file reuse the descriptor.
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
      // The stream may have been cancelled during the read.
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

/** File that is written under a temporary name. */
export class FileSink {
  /** Stream for the bytes. Once it is closed, they survive a power cut. */
  readonly writable: WritableStream<Uint8Array>;
  /** Size written so far, in bytes. */
  size = 0;
  /** True once the stream was closed and everything is written. */
  isComplete = false;
  readonly #path: string;
  readonly #live: Set<FileSink>;
  readonly #file: number;
  #controller: WritableStreamDefaultController | undefined;
  #isOpen = true;
  #writing: Promise<unknown> | undefined;

  /**
   * Begins a file at `path`; `done` is called when it is complete. The sink is in
   * `live` until it is discarded, or its owner removes it from there.
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

  /** Fails the stream if it is still open, and removes the file. */
  async abort(reason?: unknown): Promise<void> {
    this.#controller?.error(
      reason ?? new Error("FileSink was aborted without a reason"),
    );
    await this.discard();
  }

  /** Removes the file; idempotent. */
  async discard(): Promise<void> {
    this.#live.delete(this);
    this.isComplete = false;
    await this.#writing?.catch(() => {});
    this.#close();
    removeFile(this.#path);
  }
}

/** Removes a file; does nothing if it does not exist. */
export function removeFile(path: string): void {
  rmSync(path, { force: true });
}
