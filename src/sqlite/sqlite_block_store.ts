/**
 * Blocks in a SQLite database: a table of names and bytes, in WAL mode.
 *
 * One process has the database at a time: SQLite's exclusive lock is held from
 * the first call on, and the system lets go of it when the process ends, however
 * it ends. A strict write commits with `synchronous=FULL`, which syncs the WAL,
 * and with it everything written before; a relaxed one with `NORMAL`, which
 * leaves that to the next strict write or checkpoint. The table has a row id: a
 * row beyond a page is read several times faster so than from a table that is
 * sorted by name.
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

/** What a {@linkcode SqliteBlockStore} takes besides its path. */
export interface SqliteBlockStoreOptions {
  /**
   * With `full`, every write is a strict one, whatever it is asked for, and a
   * WAL that is damaged before its last write is refused. (Where a power cut may
   * have left it so, it cannot be told from damage: after one, a store that was
   * `normal` is to be opened as such first.)
   *
   * @default {"normal"}
   */
  readonly durability?: "full" | "normal" | undefined;
  /**
   * How large the database may become, in bytes; past it `ErrStoreFull`. What
   * is not yet in the database, but in its WAL, is not counted.
   *
   * @default {Infinity}
   */
  readonly bytesMax?: number | undefined;
}

/** "samp": tells these databases from those of others. */
const APPLICATION_ID = 0x73616D70;
const VERSION = 1;
const PAGE_BYTES = 4096;
/** Shortest time between two looks at the files before writes, in milliseconds. */
const VERIFY_MS = 4;
/** Pages of the WAL after which they are moved into the database, and it begins anew. */
const CHECKPOINT_PAGES = 1024;
/** Page that SQLite never uses, since its locks are on bytes of it. */
const LOCK_PAGE = 0x40000000 / PAGE_BYTES + 1;
/** What a WAL of that many pages takes, each behind a header. */
const WAL_BYTES = 32 + CHECKPOINT_PAGES * (24 + PAGE_BYTES);
/** How far a WAL has come when it is first made longer, in bytes. */
const WAL_EXTENDED_FIRST = 128 * 1024;

const SCHEMA = `
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${VERSION};
  CREATE TABLE store (identity TEXT NOT NULL, syncs INTEGER NOT NULL);
  CREATE TABLE blocks (key TEXT NOT NULL UNIQUE, bytes BLOB NOT NULL);
`;

/** Changes a page, so that there is something to commit, and to be synced. */
const SYNC = "UPDATE store SET syncs = syncs + 1";

const RANGE = "FROM blocks WHERE key >= ? AND key < ? ORDER BY key";

/** SQLite's own codes, without the details in their upper bytes. */
const Code = {
  Busy: 5,
  Locked: 6,
  IO: 10,
  Corrupt: 11,
  Full: 13,
  CantOpen: 14,
  NotADatabase: 26,
} as const;

/** The codes by what SQLite says, where the code does not come through. */
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
  // One whose opening failed has no number.
  return (error as { code?: unknown }).code === "ERR_SQLITE_ERROR"
    ? Code.CantOpen
    : undefined;
}

/** The statements of an open database, each prepared when it is first used. */
class Connection {
  readonly db: DatabaseSync;
  /** Notices that another program writes to the files; undefined until it is set up. */
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

  /** Closes the database, and only then what else has its files open. */
  close(): void {
    try {
      this.db.close();
    } finally {
      this.guard?.[Symbol.dispose]();
      this.guard = undefined;
    }
  }
}

/** A {@linkcode BlockStore} in a SQLite database. Its calls are synchronous. */
export class SqliteBlockStore implements BlockStore {
  /** Where the database is. */
  readonly path: string;
  readonly #isFull: boolean;
  readonly #pagesMax: number;
  #connection: Connection | undefined;
  #identity = "";
  /** Whether something may be written that is not synced. */
  #isDirty = false;
  #isClosed = false;
  /** Set once another program was found to have changed the files: nothing is written any more. */
  #damage: ErrStoreCorrupted | undefined;
  #verifiedAt = 0;
  /** About how many pages are in the WAL and not in the database. */
  #walPages = 0;
  /** About how far strict writes have filled the WAL, and how far there is room in it, in bytes. */
  #walBytes = 0;
  #walExtended = WAL_EXTENDED_FIRST;

  /** A store in the database at `path`, which is made, with its directory, if it is not there. */
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
    if (this.#isClosed) throw new ErrClusterClosed("Block store is closed");
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

  /** Refuses to make a database in place of one that this store had open before. */
  #checkPresent(): void {
    if (this.#identity === "" || exists(this.path)) return;
    throw this.#damage = new ErrStoreCorrupted(
      this.path,
      "Database was removed while it was in use; stop this program, and restore a backup before it is started again",
    );
  }

  /** SQLite removes the WAL of a database without a first page, which it takes for a new one. */
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
      `Database is empty or missing, but there is a WAL of it; restore a backup, or remove ${wal} to begin with nothing`,
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
    if (isLeft) this.#beginWAL(db);
    if (connection.pragma("application_id") === 0) {
      db.exec(SCHEMA);
      connection.statement("INSERT INTO store VALUES (?, 0)")
        .run(crypto.randomUUID());
    }
    // What a process wrote that was killed is to outlive a power cut from now on:
    // whoever opens the store builds on it (D1).
    connection.statement(SYNC).run();
    db.exec("COMMIT");
    const row = connection.statement("SELECT identity FROM store").get();
    if (typeof row?.identity !== "string") {
      throw new ErrStoreCorrupted(this.path, "Store has lost its identity");
    }
    if (this.#identity !== "" && this.#identity !== row.identity) {
      throw new ErrStoreVanished(
        `Another database has taken the place of ${this.path}`,
      );
    }
    this.#identity = row.identity;
    if (this.#pagesMax < Infinity) {
      db.exec(`PRAGMA max_page_count = ${this.#pagesMax}`);
    }
  }

  /** SQLite drops what comes after damage in its WAL, and does not say so. Gives whether a crash has left one. */
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
   * Refuses a database that lacks pages which its WAL does not have either: it was
   * cut off. SQLite takes one of no length for one that is new.
   */
  #checkLength(wal: Uint8Array): void {
    const { size, pages } = committedIn(wal);
    const bytes = statSync(this.path).size;
    for (let page = Math.floor(bytes / PAGE_BYTES) + 1; page <= size; page++) {
      if (pages.has(page) || page === LOCK_PAGE) continue;
      throw new ErrStoreCorrupted(
        this.path,
        `Database was cut off: it has ${bytes} bytes of ${
          size * PAGE_BYTES
        }; restore a backup`,
      );
    }
  }

  /**
   * Begins the WAL anew. What a power cut left unfinished is behind its end, and
   * after another one would be taken for a write that came later: for damage.
   */
  #beginWAL(db: DatabaseSync): void {
    db.exec("COMMIT");
    try {
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    } catch {
      // Then it goes on. Whoever writes is told what is wrong.
    }
    db.exec("BEGIN IMMEDIATE");
  }

  /**
   * A commit that makes its file longer takes half as long again as one into
   * space that is there. So the WAL is made longer now and then, twice as long
   * each time; SQLite knows how far it goes, and writes over this.
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
      // Then commits are slower, or fail, and whoever writes is told.
    }
  }

  /** Leaves a database that is somebody else's, or of a newer version, alone. */
  #checkKind(connection: Connection): void {
    const id = connection.pragma("application_id");
    const version = connection.pragma("user_version");
    const isNew = id === 0 && version === 0 &&
      connection.pragma("schema_version") === 0;
    if (isNew) return;
    if (id !== APPLICATION_ID) {
      throw new ErrStoreCorrupted(
        this.path,
        "Database was not made by this library, and is left alone",
      );
    }
    if (version !== VERSION) {
      throw newerVersion(this.path, Number(version), VERSION);
    }
  }

  /** An error of SQLite as this library names it. */
  #error(cause: unknown): unknown {
    switch (codeOf(cause)) {
      case Code.Busy:
      case Code.Locked:
        return new ErrStoreLocked(
          `Somebody else has the database open: ${this.path}`,
          { cause },
        );
      case Code.Corrupt:
      case Code.NotADatabase:
        return new ErrStoreCorrupted(this.path, "Database is damaged", {
          cause,
        });
      case Code.Full:
        return new ErrStoreFull(`There is no room left for ${this.path}`, {
          cause,
        });
      case undefined:
        return cause;
      default:
        // SQLite says "disk I/O error", and not of which file.
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
   * The name this store was given when it was made.
   *
   * @throws ErrStoreLocked if somebody else has the database open
   * @throws ErrStoreCorrupted if the database is damaged, or somebody else's
   * @throws ErrClusterClosed after `close()`
   */
  identity(): string {
    this.#open();
    return this.#identity;
  }

  /** The contents of the blocks of those names. Throws as {@linkcode SqliteBlockStore.identity}. */
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

  /** The blocks of a range of names. Throws as {@linkcode SqliteBlockStore.identity}. */
  list(from: string, to: string, options?: ListOptions): Block[] {
    const rows = this.#range("key, bytes", from, to, options);
    return rows.map(({ key, bytes }) => ({
      key: key as string,
      bytes: bytesOf(key as string, bytes),
    }));
  }

  /** The names of a range. Throws as {@linkcode SqliteBlockStore.identity}. */
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
   * Makes changes in one step.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the disk failed so that nobody knows before the store is next used
   * @throws ErrStoreLocked if somebody else has the database open
   * @throws ErrStoreCorrupted if the database is damaged, or somebody else's
   * @throws ErrClusterClosed after `close()`
   */
  write(changes: Changes, durability: Durability): void {
    const isStrict = this.#isFull || durability === "strict";
    // Cheap, but not beside a commit without a disk to wait for.
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
   * Moves what is in the WAL into the database. Done here and not by SQLite, so
   * that whatever else changes the database is known to be another program.
   */
  #checkpoint(connection: Connection): void {
    // What another program has done to the database must not be taken in as
    // SQLite's own writing. The commit stands; the next write reports the fault.
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
   * Looks whether the files are still those that were written. If the WAL alone
   * was removed, what SQLite has of it is moved into the database, and it goes on
   * with another one.
   *
   * @throws ErrStoreCorrupted if another program has changed, replaced or removed them: nothing is written any more
   */
  verify(): void {
    if (this.#damage !== undefined) throw this.#damage;
    const connection = this.#connection;
    const fault = connection?.guard?.fault();
    if (fault === undefined) return;
    if (fault.isOnlyWALMissing && this.#moveWAL(connection!)) return;
    throw this.#damage = new ErrStoreCorrupted(
      fault.path,
      `Database ${fault.what} while it was in use, and is not written to any more; stop this program, and restore a backup before it is started again`,
    );
  }

  /** Moves a WAL that has no name any more into the database. */
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

  /** Undoes a write that failed. */
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
      // What cannot be undone is undone when the database is next opened.
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

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function bytesOf(key: string, value: SQLOutputValue | undefined): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new ErrStoreCorrupted(key, "Block has no bytes");
}

/** Makes changes; gives about how many pages they write. */
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
