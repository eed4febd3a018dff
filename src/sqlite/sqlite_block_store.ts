/**
 * Block store in a SQLite database: a table of names and bytes, in WAL (write-ahead
 * log) mode.
 *
 * One process at a time has the database open: it holds SQLite's exclusive lock from
 * the first call on, and the operating system releases the lock when the process
 * ends. A strict write commits with `synchronous=FULL`, which syncs the WAL, and
 * with it everything written before; a relaxed one commits with `NORMAL`, which
 * leaves the sync to the next strict write or checkpoint. The table has a row id:
 * rows larger than a page are read several times faster than from a table without.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  checkOptions,
  isNumber,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import { appendFileSync, readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import {
  DatabaseSync,
  type SQLInputValue,
  type SQLOutputValue,
  type StatementSync,
} from "node:sqlite";
import { messageOf } from "../describe.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../log/errors.ts";
import {
  ErrStoreCorrupted,
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVanished,
  newerVersion,
} from "../store/errors.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
} from "../store/store.ts";
import { FileGuard } from "./file_guard.ts";
import { exists, makeDirectory, pathFrom } from "./files.ts";
import { committedIn, isWALDamaged } from "./wal.ts";

/** Options of {@linkcode SqliteBlockStore}. */
export interface SqliteBlockStoreOptions {
  /**
   * With `full`, every write is strict, and opening fails if the WAL is damaged
   * before its last write. A power cut can leave such a WAL in a `normal` store: open
   * it as `normal` once before opening it as `full`.
   *
   * @default {"normal"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /**
   * Largest size of the database, in bytes, excluding its WAL; larger writes fail
   * with `ErrStoreFull`.
   *
   * @default {Infinity}
   */
  readonly bytesMax?: number | undefined;
}

/** Application id "samp", which identifies databases of this library. */
const APPLICATION_ID = 0x73616D70;
const VERSION = 1;
const PAGE_BYTES = 4096;
/** Shortest interval at which writes verify the files, in milliseconds. */
const VERIFY_MS = 4;
/** Pages in the WAL after which a checkpoint moves them into the database. */
const CHECKPOINT_PAGES = 1024;
/** Number of the page that SQLite never uses, since its locks are on bytes of it. */
const LOCK_PAGE = 0x40000000 / PAGE_BYTES + 1;
/** Size of a WAL with `CHECKPOINT_PAGES` pages and their headers, in bytes. */
const WAL_BYTES = 32 + CHECKPOINT_PAGES * (24 + PAGE_BYTES);
/** Size of the WAL at which it is first extended in advance, in bytes. */
const WAL_EXTENDED_FIRST = 128 * 1024;

const SCHEMA = `
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${VERSION};
  CREATE TABLE store (identity TEXT NOT NULL, syncs INTEGER NOT NULL);
  CREATE TABLE blocks (key TEXT NOT NULL UNIQUE, bytes BLOB NOT NULL);
`;

/** Changes a page, so that the commit has something to sync. */
const SYNC = "UPDATE store SET syncs = syncs + 1";

const RANGE = "FROM blocks WHERE key >= ? AND key < ? ORDER BY key";

/** SQLite's primary result codes. */
const Code = {
  Busy: 5,
  Locked: 6,
  IO: 10,
  Corrupt: 11,
  Full: 13,
  CantOpen: 14,
  NotADatabase: 26,
} as const;

/** Result codes by message, for runtimes that do not pass the code on. */
const MESSAGES: readonly (readonly [RegExp, number])[] = [
  [/is locked/, Code.Busy],
  [/disk I\/O error/, Code.IO],
  [/malformed/, Code.Corrupt],
  [/is full/, Code.Full],
  [/not a database/, Code.NotADatabase],
];

function codeOf(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  const { errcode } = error as { errcode?: unknown };
  if (typeof errcode === "number") return errcode & 0xFF;
  const known = MESSAGES.find(([pattern]) => pattern.test(error.message))?.[1];
  if (known !== undefined) return known;
  // An error of opening a database has no number.
  return (error as { code?: unknown }).code === "ERR_SQLITE_ERROR"
    ? Code.CantOpen
    : undefined;
}

/** Open database with its statements, each prepared at its first use. */
class Connection {
  readonly db: DatabaseSync;
  /** Detects writes of other programs to the files; undefined until it is set up. */
  guard: FileGuard | undefined;
  readonly #statements = new Map<string, StatementSync>();
  #synchronous = "";

  constructor(db: DatabaseSync) {
    this.db = db;
  }

  statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      this.#statements.set(sql, statement = this.db.prepare(sql));
    }
    return statement;
  }

  synchronous(level: "FULL" | "NORMAL"): void {
    if (this.#synchronous === level) return;
    this.db.exec(`PRAGMA synchronous = ${level}`);
    this.#synchronous = level;
  }

  pragma(name: string): SQLOutputValue | undefined {
    const row = this.db.prepare(`PRAGMA ${name}`).get();
    return row === undefined ? undefined : Object.values(row)[0];
  }

  /** Closes the database, and then the guard, which must be last to close its files. */
  close(): void {
    try {
      this.db.close();
    } finally {
      this.guard?.[Symbol.dispose]();
      this.guard = undefined;
    }
  }
}

/** {@linkcode BlockStore} in a SQLite database. Its calls are synchronous. */
export class SqliteBlockStore implements BlockStore {
  /** Absolute path of the database. */
  readonly path: string;
  readonly #isFull: boolean;
  readonly #pagesMax: number;
  #connection: Connection | undefined;
  #identity = "";
  /** True if a relaxed write may not be synced yet. */
  #isDirty = false;
  #isClosed = false;
  /** Set once another program was found to have changed the files: later writes are refused. */
  #damage: ErrStoreCorrupted | undefined;
  #verifiedAt = 0;
  /** Estimated number of pages in the WAL that are not in the database. */
  #walPages = 0;
  /** Estimated bytes that strict writes have filled of the WAL, and the size to which it was extended. */
  #walBytes = 0;
  #walExtended = WAL_EXTENDED_FIRST;

  /** Creates a store in the database at `path`, which is created, with its directory, by the first call that needs it. */
  constructor(path: string | URL, options: SqliteBlockStoreOptions = {}) {
    const checks: OptionChecks<SqliteBlockStoreOptions> = {
      durability: optional(isOneOf("full", "normal")),
      bytesMax: optional(isNumber(PAGE_BYTES, Infinity)),
    };
    checkOptions("Options of the database", options, checks);
    this.path = resolve(pathFrom(path, "Path of the database"));
    this.#isFull = options.durability === "full";
    this.#pagesMax = Math.floor((options.bytesMax ?? Infinity) / PAGE_BYTES);
  }

  #open(): Connection {
    if (this.#isClosed) {
      throw new ErrClusterClosed(`Block store is closed: ${this.path}`);
    }
    if (this.#connection !== undefined) return this.#connection;
    if (this.#damage !== undefined) throw this.#damage;
    let connection: Connection;
    try {
      this.#checkPresent();
      makeDirectory(dirname(this.path));
      this.#checkPresentWAL();
      connection = new Connection(new DatabaseSync(this.path));
    } catch (error) {
      throw this.#error(error);
    }
    try {
      this.#setUp(connection);
      connection.guard = new FileGuard(this.path);
      this.#walPages = 0;
      return this.#connection = connection;
    } catch (error) {
      connection.close();
      throw this.#error(error);
    }
  }

  /** Checks that a database which this store had open before was not removed. */
  #checkPresent(): void {
    if (this.#identity === "" || exists(this.path)) return;
    throw this.#damage = new ErrStoreCorrupted(
      this.path,
      "Database was removed while it was in use; stop this program, and restore a backup before it is started again",
    );
  }

  /** Checks for a WAL without a database: SQLite would treat the database as new and remove the WAL. */
  #checkPresentWAL(): void {
    const wal = `${this.path}-wal`;
    if (!exists(wal)) return;
    const state = statSync(wal);
    if (!state.isFile() || state.size === 0) return;
    if (exists(this.path) && statSync(this.path).size >= PAGE_BYTES) {
      return;
    }
    throw new ErrStoreCorrupted(
      this.path,
      `Database is empty or missing, but its WAL exists; restore a backup, or remove ${wal} to begin with an empty database`,
    );
  }

  #setUp(connection: Connection): void {
    const { db } = connection;
    db.exec(`
      PRAGMA page_size = ${PAGE_BYTES};
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA wal_autocheckpoint = 0;
      PRAGMA cell_size_check = ON;
    `);
    connection.synchronous("FULL");
    db.exec("BEGIN IMMEDIATE");
    const isLeft = this.#checkWAL();
    this.#checkKind(connection);
    if (isLeft) this.#truncateWAL(db);
    if (connection.pragma("application_id") === 0) {
      db.exec(SCHEMA);
      connection.statement("INSERT INTO store VALUES (?, 0)")
        .run(crypto.randomUUID());
    }
    // Relaxed writes of a process that was killed must survive a power cut from here
    // on, since this process builds on them (D1).
    connection.statement(SYNC).run();
    db.exec("COMMIT");
    const row = connection.statement("SELECT identity FROM store").get();
    if (typeof row?.identity !== "string") {
      throw new ErrStoreCorrupted(
        this.path,
        "Database has no identity row; restore a backup",
      );
    }
    if (this.#identity !== "" && this.#identity !== row.identity) {
      throw new ErrStoreVanished(
        `Database was replaced by another one while it was in use: ${this.path}`,
      );
    }
    this.#identity = row.identity;
    if (this.#pagesMax < Infinity) {
      db.exec(`PRAGMA max_page_count = ${this.#pagesMax}`);
    }
  }

  /** Checks the WAL, since SQLite silently drops everything after damage in it. Returns true if a crash has left a WAL. */
  #checkWAL(): boolean {
    const path = `${this.path}-wal`;
    if (!exists(path)) return false;
    const wal = readFileSync(path);
    if (this.#isFull && isWALDamaged(wal)) {
      throw new ErrStoreCorrupted(path, "WAL of the database is damaged");
    }
    this.#checkLength(wal);
    return this.#isFull && wal.length > 0;
  }

  /**
   * Checks that every page is in the database or in its WAL: otherwise the database
   * was truncated. SQLite treats an empty file as a new database.
   */
  #checkLength(wal: Uint8Array): void {
    const { size, pages } = committedIn(wal);
    const bytes = statSync(this.path).size;
    for (let page = Math.floor(bytes / PAGE_BYTES) + 1; page <= size; page++) {
      if (pages.has(page) || page === LOCK_PAGE) continue;
      throw new ErrStoreCorrupted(
        this.path,
        `Database was truncated: it has ${bytes} bytes of ${
          size * PAGE_BYTES
        }; restore a backup`,
      );
    }
  }

  /**
   * Truncates the WAL. An unfinished write that a power cut left at its end would,
   * after another power cut, look like damage before a later write.
   */
  #truncateWAL(db: DatabaseSync): void {
    db.exec("COMMIT");
    try {
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    } catch {
      // The WAL stays as it is; the next write reports the error.
    }
    db.exec("BEGIN IMMEDIATE");
  }

  /**
   * Extends the WAL in advance, doubling it each time: a commit that extends its file
   * takes half as long again as one into existing space. SQLite knows the end of the
   * WAL and overwrites the added bytes.
   */
  #extendWAL({ put = [] }: Changes): void {
    for (const { bytes } of put) this.#walBytes += bytes.length;
    this.#walBytes += 2 * PAGE_BYTES;
    if (this.#walBytes < this.#walExtended || this.#walExtended >= WAL_BYTES) {
      return;
    }
    this.#walExtended = Math.min(4 * this.#walBytes, WAL_BYTES);
    try {
      const path = `${this.path}-wal`;
      const missing = this.#walExtended - statSync(path).size;
      if (missing > 0) appendFileSync(path, new Uint8Array(missing));
    } catch {
      // Commits are slower then, or fail and report the error.
    }
  }

  /** Checks that the database belongs to this library and has a supported version. */
  #checkKind(connection: Connection): void {
    const id = connection.pragma("application_id");
    const version = connection.pragma("user_version");
    const isNew = id === 0 && version === 0 &&
      connection.pragma("schema_version") === 0;
    if (isNew) return;
    if (id !== APPLICATION_ID) {
      throw new ErrStoreCorrupted(
        this.path,
        "Database belongs to another application and was not changed; choose another path",
      );
    }
    if (version !== VERSION) {
      throw newerVersion(this.path, Number(version), VERSION);
    }
  }

  /** Converts an error of SQLite to one of this library. */
  #error(cause: unknown): unknown {
    switch (codeOf(cause)) {
      case Code.Busy:
      case Code.Locked:
        return new ErrStoreLocked(
          `Another process has the database open; stop it first: ${this.path}`,
          { cause },
        );
      case Code.Corrupt:
      case Code.NotADatabase:
        return new ErrStoreCorrupted(this.path, "Database is damaged", {
          cause,
        });
      case Code.Full:
        return new ErrStoreFull(
          `No space left for the database: ${this.path}`,
          {
            cause,
          },
        );
      case undefined:
        return cause;
      default:
        // SQLite says "disk I/O error" without the file.
        return new ErrStoreFailed(
          this.path,
          `Database cannot be used (${messageOf(cause)})`,
          { cause },
        );
    }
  }

  #run<T>(work: (connection: Connection) => T): T {
    const connection = this.#open();
    try {
      return work(connection);
    } catch (error) {
      throw this.#error(error);
    }
  }

  /**
   * Random name given to the store when it was created.
   *
   * @throws ErrStoreLocked if another process has the database open
   * @throws ErrStoreCorrupted if the database is damaged, or belongs to another application
   * @throws ErrClusterClosed after `close()`
   */
  identity(): string {
    this.#open();
    return this.#identity;
  }

  /** Contents of the named blocks. Throws the errors of {@linkcode SqliteBlockStore.identity}. */
  get(keys: readonly string[]): (Uint8Array | undefined)[] {
    return this.#run((connection) => {
      const get = connection.statement(
        "SELECT bytes FROM blocks WHERE key = ?",
      );
      return keys.map((key) => {
        const row = get.get(key);
        return row === undefined ? undefined : bytesOf(key, row.bytes);
      });
    });
  }

  /** Blocks of a range of names. Throws the errors of {@linkcode SqliteBlockStore.identity}. */
  list(from: string, to: string, options?: ListOptions): Block[] {
    const rows = this.#range("key, bytes", from, to, options);
    return rows.map(({ key, bytes }) => ({
      key: key as string,
      bytes: bytesOf(key as string, bytes),
    }));
  }

  /** Names of the blocks of a range. Throws the errors of {@linkcode SqliteBlockStore.identity}. */
  keys(from: string, to: string, options?: ListOptions): string[] {
    const rows = this.#range("key", from, to, options);
    return rows.map(({ key }) => key as string);
  }

  #range(
    columns: string,
    from: string,
    to: string,
    { limit = Infinity, reverse = false }: ListOptions = {},
  ): Record<string, SQLOutputValue>[] {
    const sql = `SELECT ${columns} ${RANGE} ${
      reverse ? "DESC" : "ASC"
    } LIMIT ?`;
    const values: SQLInputValue[] = [from, to, limit === Infinity ? -1 : limit];
    return this.#run((connection) => connection.statement(sql).all(...values));
  }

  /**
   * Makes changes in one atomic step.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the disk failed during the commit; the next call settles the outcome
   * @throws ErrStoreLocked if another process has the database open
   * @throws ErrStoreCorrupted if the database is damaged, or belongs to another application
   * @throws ErrClusterClosed after `close()`
   */
  write(changes: Changes, durability: Durability): void {
    const isStrict = this.#isFull || durability === "strict";
    // Verifying is cheap compared with a commit that waits for a disk, but not with others.
    const now = performance.now();
    if (this.#damage !== undefined || now - this.#verifiedAt > VERIFY_MS) {
      this.#verifiedAt = now;
      this.verify();
    }
    const connection = this.#open();
    let isCommitting = false;
    try {
      connection.synchronous(isStrict ? "FULL" : "NORMAL");
      connection.db.exec("BEGIN IMMEDIATE");
      this.#walPages += apply(connection, changes);
      if (isStrict && this.#isDirty) {
        connection.statement(SYNC).run();
      }
      isCommitting = true;
      connection.db.exec("COMMIT");
      this.#isDirty = !isStrict;
      if (isStrict) this.#extendWAL(changes);
      connection.guard!.isWritten = true;
    } catch (error) {
      throw this.#failed(connection, error, isCommitting);
    }
    if (this.#walPages >= CHECKPOINT_PAGES) this.#checkpoint(connection);
  }

  /**
   * Moves the pages of the WAL into the database. Done here and not by SQLite, so
   * that any other change of the database file must come from another program.
   */
  #checkpoint(connection: Connection): void {
    // A change of another program must not be recorded as SQLite's own. The commit
    // stands; the next write reports the fault.
    if (connection.guard?.fault() !== undefined) {
      this.#verifiedAt = -Infinity;
      return;
    }
    let isDone = false;
    try {
      const row = connection.db.prepare("PRAGMA wal_checkpoint(PASSIVE)").get();
      isDone = row?.busy === 0 && row.log === row.checkpointed;
    } catch {
      // Then the WAL grows, and the next write reports the fault.
    }
    this.#walPages = isDone ? 0 : CHECKPOINT_PAGES / 2;
    connection.guard?.checkpointed();
  }

  /**
   * Checks that the files were not changed by another program. If only the WAL was
   * removed, its content, which SQLite still has open, is moved into the database,
   * and a new WAL is begun.
   *
   * @throws ErrStoreCorrupted if another program has changed, replaced or removed them; later writes are refused
   */
  verify(): void {
    if (this.#damage !== undefined) throw this.#damage;
    const connection = this.#connection;
    const fault = connection?.guard?.fault();
    if (fault === undefined) return;
    if (fault.isOnlyWALMissing && this.#moveWAL(connection!)) return;
    throw this.#damage = new ErrStoreCorrupted(
      fault.path,
      `Database ${fault.what} while it was in use, and accepts no more writes; stop this program, and restore a backup before it is started again`,
    );
  }

  /** Moves the content of a removed WAL into the database. */
  #moveWAL(connection: Connection): boolean {
    try {
      const row = connection.db.prepare("PRAGMA wal_checkpoint(TRUNCATE)")
        .get();
      if (row?.busy !== 0) return false;
      this.#connection = undefined;
      connection.close();
      return true;
    } catch {
      return false;
    }
  }

  /** Rolls back a failed write. */
  #failed(
    connection: Connection,
    error: unknown,
    isCommitting: boolean,
  ): unknown {
    const isUnknown = isCommitting && codeOf(error) === Code.IO;
    try {
      if (connection.db.isTransaction) connection.db.exec("ROLLBACK");
      if (!isUnknown) return this.#error(error);
    } catch {
      // SQLite rolls back when the database is next opened.
    }
    this.#connection = undefined;
    connection.close();
    return isUnknown
      ? new ErrUnknownOutcome(`Disk failed during a commit: ${this.path}`, {
        cause: error,
      })
      : this.#error(error);
  }

  /** Closes the database; idempotent. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#connection?.close();
    this.#connection = undefined;
    return Promise.resolve();
  }

  /** Closes the database. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function bytesOf(key: string, value: SQLOutputValue | undefined): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new ErrStoreCorrupted(key, "Row of a block has no bytes");
}

/** Makes changes; returns the estimated number of pages they write. */
function apply(
  connection: Connection,
  { deleteRanges = [], delete: deleted = [], put = [] }: Changes,
): number {
  let pages = 0;
  for (const [from, to] of deleteRanges) {
    const { changes } = connection.statement(
      "DELETE FROM blocks WHERE key >= ? AND key < ?",
    ).run(from, to);
    pages += Number(changes);
  }
  for (const key of deleted) {
    connection.statement("DELETE FROM blocks WHERE key = ?").run(key);
    pages += 2;
  }
  for (const { key, bytes } of put) {
    connection.statement(
      "INSERT INTO blocks VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = excluded.bytes",
    ).run(key, bytes);
    pages += 1 + Math.ceil(bytes.length / PAGE_BYTES);
  }
  return pages;
}
