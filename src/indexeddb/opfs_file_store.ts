/**
 * Files in the Origin Private File System.
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

/** What an {@linkcode OPFSFileStore} can be told. */
export interface OPFSOptions {
  /** Gives the directory that holds all stores; by default that of the browser's storage. */
  readonly root?: () => Promise<FileSystemDirectoryHandle>;
  /** Gives the random numbers in the names of files that are not done. */
  readonly env?: Env;
}

/** A file that can be given another name, as files of browsers can, though the types do not say so. */
interface MovableFile extends FileSystemFileHandle {
  move?(directory: FileSystemDirectoryHandle, name: string): Promise<void>;
}

/** The two directories of a store: of its files, and of those that are not done. */
interface Places {
  readonly files: FileSystemDirectoryHandle;
  readonly drafts: FileSystemDirectoryHandle;
}

/** `undefined` where there is nothing, or something of another kind. */
async function orNothing<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (/^(NotFound|TypeMismatch)Error$/.test(nameOf(error))) return undefined;
    throw error;
  }
}

/**
 * A {@linkcode FileStore} in a directory of the Origin Private File System. A
 * file is written aside and moved to its place when it is closed.
 *
 * Every method is an `ErrStoreUnavailable` where the browser has no such file
 * system, or one in which pages can write no files or move none.
 */
export class OPFSFileStore implements FileStore {
  readonly #name: string;
  readonly #options: OPFSOptions;
  #places: Promise<Places> | undefined;
  #closed = false;

  /** The files in the directory of that name; nothing is opened yet. */
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

  async #open(): Promise<Places> {
    if (this.#closed) throw new ErrClosed("File store is closed");
    this.#places ??= this.#find();
    try {
      return await this.#places;
    } catch (cause) {
      this.#places = undefined;
      throw new ErrStoreUnavailable("There is no file system here", { cause });
    }
  }

  async #find(): Promise<Places> {
    const root = await (this.#options.root?.() ??
      navigator.storage.getDirectory());
    const make = { create: true };
    const own = await root.getDirectoryHandle(`sampan-${this.#name}`, make);
    const drafts = await own.getDirectoryHandle("drafts", make);
    // What a crash left; those of another page that are being written stay, for
    // they are locked.
    for await (const name of drafts.keys()) {
      await drafts.removeEntry(name).catch(() => {});
    }
    return { files: await own.getDirectoryHandle("files", make), drafts };
  }

  /** A directory, if it is there. */
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
   * @throws ErrFileNotFound if there is nothing at `path`
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
   * Begins a file; it appears when the stream is closed.
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
      throw new ErrStoreUnavailable("Files cannot be written or moved here");
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

  /** Removes a file, or a directory with all that is in it; harmless when it is gone already. */
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

  /** The names of the files and directories right in a directory, sorted; none if it is not there. */
  async list(directory: string): Promise<readonly string[]> {
    const found = await this.#directory(partsOfPath(directory));
    const names: string[] = [];
    if (found) { for await (const name of found.keys()) names.push(name); }
    return names.sort();
  }

  /** Ends the use of the store; idempotent. The files stay. */
  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** No room left, by the name it has in every store. */
async function asFull(written: Promise<void>): Promise<void> {
  try {
    await written;
  } catch (cause) {
    if (nameOf(cause) !== "QuotaExceededError") throw cause;
    throw new ErrStoreFull("There is no room left in the browser", { cause });
  }
}
