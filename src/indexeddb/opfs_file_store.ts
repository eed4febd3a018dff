/**
 * File store in the Origin Private File System.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClosed } from "../statemachine/errors.ts";
import {
  checkOptions,
  isEnv,
  isFunction,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { copyOf } from "../bytes.ts";
import { type Env, systemEnv } from "../env.ts";
import { ErrFileIsDirectory, ErrFileNotFound } from "../snapshot/errors.ts";
import {
  type FileStore,
  type OpenFile,
  partsOfPath,
} from "../snapshot/file_store.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { ErrStoreUnavailable } from "./errors.ts";
import { nameOf } from "./open.ts";

/** Options of {@linkcode OPFSFileStore}. */
export interface OPFSOptions {
  /** Returns the directory of all stores. @default {() => navigator.storage.getDirectory()} */
  readonly root?: () => Promise<FileSystemDirectoryHandle>;
  /** Provides the random names of unfinished files. @default {systemEnv} */
  readonly env?: Env;
}

/** File handle with `move()`, which browsers have and the types lack. */
interface MovableFile extends FileSystemFileHandle {
  move?(directory: FileSystemDirectoryHandle, name: string): Promise<void>;
}

/** Directories of a store: its files, and its unfinished files. */
interface StoreDirectories {
  readonly files: FileSystemDirectoryHandle;
  readonly drafts: FileSystemDirectoryHandle;
}

/** Value of a promise; undefined if it rejects because the entry is missing or of another kind. */
async function orNothing<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (/^(NotFound|TypeMismatch)Error$/.test(nameOf(error))) return undefined;
    throw error;
  }
}

/**
 * {@linkcode FileStore} in a directory of the Origin Private File System. A file is
 * written under a temporary name, and moved to its path when it is closed.
 *
 * Methods fail with `ErrStoreUnavailable` if the browser lacks the file system, or
 * does not let pages write and move its files.
 */
export class OPFSFileStore implements FileStore {
  readonly #name: string;
  readonly #options: OPFSOptions;
  #directories: Promise<StoreDirectories> | undefined;
  #closed = false;

  /** Creates a file store in the directory `name`; opens nothing yet. */
  constructor(name: string, options: OPFSOptions = {}) {
    const checks: OptionChecks<OPFSOptions> = {
      root: optional(isFunction),
      env: optional(isEnv),
    };
    isText("Name of the file store", name);
    checkOptions("Options of the file store", options, checks);
    this.#name = name;
    this.#options = options;
  }

  async #open(): Promise<StoreDirectories> {
    if (this.#closed) {
      throw new ErrClosed(`OPFSFileStore ${this.#name} is closed`);
    }
    this.#directories ??= this.#find();
    try {
      return await this.#directories;
    } catch (cause) {
      this.#directories = undefined;
      throw new ErrStoreUnavailable(
        "navigator.storage.getDirectory() failed; use the MemoryFileStore",
        { cause },
      );
    }
  }

  async #find(): Promise<StoreDirectories> {
    const root = await (this.#options.root?.() ??
      navigator.storage.getDirectory());
    const make = { create: true };
    const own = await root.getDirectoryHandle(`sampan-${this.#name}`, make);
    const drafts = await own.getDirectoryHandle("drafts", make);
    // Remove leftovers of a crash. Files that another page is writing are locked, and
    // stay.
    for await (const name of drafts.keys()) {
      await drafts.removeEntry(name).catch(() => {});
    }
    return { files: await own.getDirectoryHandle("files", make), drafts };
  }

  /** Finds a directory, or creates it; undefined if it does not exist. */
  async #directory(
    parts: readonly string[],
    create = false,
  ): Promise<FileSystemDirectoryHandle | undefined> {
    let { files } = await this.#open();
    for (const part of parts) {
      const found = files.getDirectoryHandle(part, { create });
      const next = create ? await found : await orNothing(found);
      if (!next) return undefined;
      files = next;
    }
    return files;
  }

  async #isDirectory(parts: readonly string[]): Promise<boolean> {
    return await this.#directory(parts) !== undefined;
  }

  /**
   * Opens a file for reading.
   *
   * @throws ErrFileNotFound if there is no file at `path`
   * @throws ErrFileIsDirectory if there is a directory
   */
  async open(path: string): Promise<OpenFile> {
    const parts = partsOfPath(path);
    const name = parts.at(-1);
    const directory = await this.#directory(parts.slice(0, -1));
    const handle = name === undefined
      ? undefined
      : directory && await orNothing(directory.getFileHandle(name));
    if (handle) {
      const file = await handle.getFile();
      return { size: file.size, content: file.stream() };
    }
    if (await this.#isDirectory(parts)) throw new ErrFileIsDirectory(path);
    throw new ErrFileNotFound(path);
  }

  /**
   * Begins writing a file, which appears once the stream is closed.
   *
   * @throws ErrFileIsDirectory if there is a directory at `path`
   */
  async create(path: string): Promise<WritableStream<Uint8Array>> {
    const parts = partsOfPath(path);
    if (await this.#isDirectory(parts)) throw new ErrFileIsDirectory(path);
    const { drafts } = await this.#open();
    const { random64 } = this.#options.env ?? systemEnv;
    const draft = random64().toString(16) + random64().toString(16);
    const file: MovableFile = await drafts.getFileHandle(draft, {
      create: true,
    });
    const remove = (): Promise<void> =>
      drafts.removeEntry(draft).catch(() => {});
    if (!file.createWritable || !file.move) {
      await remove();
      throw new ErrStoreUnavailable(
        "FileSystemFileHandle lacks createWritable() or move(); use the MemoryFileStore",
      );
    }
    const stream = await file.createWritable();
    return new WritableStream<Uint8Array>({
      write: (chunk) => asFull(stream.write(copyOf(chunk))),
      close: async (): Promise<void> => {
        try {
          await asFull(stream.close());
          const directory = await this.#directory(parts.slice(0, -1), true);
          await file.move?.(directory!, parts.at(-1) as string);
        } catch (error) {
          await remove();
          throw error;
        }
      },
      abort: async (reason): Promise<void> => {
        await stream.abort(reason).catch(() => {});
        await remove();
      },
    });
  }

  /** Removes a file, or a directory with its content; does nothing if there is neither. */
  async remove(path: string): Promise<void> {
    const parts = partsOfPath(path);
    const name = parts.at(-1);
    if (name === undefined) {
      for (const child of await this.list("")) await this.remove(child);
      return;
    }
    const directory = await this.#directory(parts.slice(0, -1));
    await (directory &&
      orNothing(directory.removeEntry(name, { recursive: true })));
  }

  /** Sorted names of the files and directories in a directory; empty if it does not exist. */
  async list(directory: string): Promise<readonly string[]> {
    const found = await this.#directory(partsOfPath(directory));
    const names: string[] = [];
    if (found) { for await (const name of found.keys()) names.push(name); }
    return names.sort();
  }

  /** Closes the store and keeps its files; idempotent. */
  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  /** Closes the store and keeps its files. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Converts the browser's quota error to `ErrStoreFull`. */
async function asFull(written: Promise<void>): Promise<void> {
  try {
    await written;
  } catch (cause) {
    if (nameOf(cause) !== "QuotaExceededError") throw cause;
    throw new ErrStoreFull(`No space left in the browser (${nameOf(cause)})`, {
      cause,
    });
  }
}
