/**
 * Small correct state machines of the three kinds, from which tests derive wrong
 * ones: named notes, set by "name=text" and removed by "name".
 *
 * @module
 */

import { bytes, text } from "../support/bytes.ts";
import type {
  Entry,
  IConcurrentStateMachine,
  IExtended,
  IHash,
  IOnDiskStateMachine,
  ISnapshotFileCollection,
  IStateMachine,
  MaybePromise,
  Result,
} from "../../src/statemachine/mod.ts";
import type { Disk } from "../../src/testing/mod.ts";

/** Notes by name. */
export type Notes = ReadonlyMap<string, string>;

/** Applies one command to notes in place. */
export function applyTo(notes: Map<string, string>, cmd: Uint8Array): Result {
  const [name = "", value] = text(cmd).split("=");
  const before = notes.get(name);
  if (value === undefined) notes.delete(name);
  else notes.set(name, value);
  return before === undefined
    ? { value: BigInt(notes.size) }
    : { value: BigInt(notes.size), data: bytes(before) };
}

/** Answers a query: a name, or null for all names. Throws at a number. */
export function answer(notes: Notes, query: unknown): unknown {
  if (typeof query === "number") {
    throw new TypeError(
      `Query ${query} is a number; pass a name, or null for all names`,
    );
  }
  if (query === null) return new Map(notes);
  const name = query instanceof Uint8Array ? text(query) : String(query);
  const value = notes.get(name);
  return value === undefined ? undefined : bytes(value);
}

/** Computes a hash that does not depend on the order of notes. */
export function hashOf(notes: Notes): bigint {
  let sum = 0n;
  for (const [name, value] of notes) {
    let hash = 14695981039346656037n;
    for (const byte of bytes(`${name}=${value}`)) {
      hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
    }
    sum = BigInt.asUintN(64, sum + hash);
  }
  return sum;
}

/** Encodes notes as sorted lines. */
export function linesOf(notes: Notes): string[] {
  return [...notes].map(([name, value]) => `${name}=${value}\n`).sort();
}

/** Decodes notes from lines. */
export function notesOf(lines: readonly string[]): Map<string, string> {
  return new Map(
    lines.filter((line) => line !== "").map((line) =>
      line.split("=") as [string, string]
    ),
  );
}

/** Writes lines, one chunk each, and checks the signal between them. */
export async function writeLines(
  lines: readonly string[],
  w: WritableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<void> {
  const writer = w.getWriter();
  for (const line of lines) {
    stopped.throwIfAborted();
    await writer.write(bytes(line));
  }
  stopped.throwIfAborted();
  await writer.close();
}

/** Reads all lines and checks the signal between chunks. */
export async function readLines(
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<string[]> {
  const reader = r.getReader();
  const decoder = new TextDecoder();
  let all = "";
  while (true) {
    stopped.throwIfAborted();
    const { done, value } = await reader.read();
    if (done) return (all + decoder.decode()).split("\n").slice(0, -1);
    all += decoder.decode(value, { stream: true });
  }
}

/** Regular state machine; all calls but snapshots are synchronous. */
export class RegularNotes implements IStateMachine, IHash, IExtended {
  notes: Map<string, string> = new Map();

  update(cmd: Uint8Array): MaybePromise<Result> {
    return applyTo(this.notes, cmd);
  }
  lookup(query: unknown): unknown {
    return answer(this.notes, query);
  }
  naLookup(query: Uint8Array): Uint8Array {
    return bytes(this.notes.get(text(query)) ?? "(none)");
  }
  getHash(): bigint {
    return hashOf(this.notes);
  }
  async saveSnapshot(
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    await writeLines(linesOf(this.notes), w, stopped);
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: unknown,
    stopped: AbortSignal,
  ): Promise<void> {
    this.notes = notesOf(await readLines(r, stopped));
  }
  close(): MaybePromise<void> {}
}

/** Concurrent state machine: each batch copies the notes, so that older ones can be saved. Leaves closing the stream to the host. */
export class ConcurrentNotes
  implements IConcurrentStateMachine, IHash, IExtended {
  notes: Map<string, string> = new Map();

  update(entries: Entry[]): MaybePromise<Entry[]> {
    const notes = new Map(this.notes);
    for (const entry of entries) entry.result = applyTo(notes, entry.cmd);
    this.notes = notes;
    return entries;
  }
  lookup(query: unknown): unknown {
    return answer(this.notes, query);
  }
  naLookup(query: Uint8Array): Uint8Array {
    return bytes(this.notes.get(text(query)) ?? "(none)");
  }
  getHash(): bigint {
    return hashOf(this.notes);
  }
  prepareSnapshot(): MaybePromise<unknown> {
    return this.notes;
  }
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const writer = w.getWriter();
    for (const line of linesOf(context as Notes)) {
      stopped.throwIfAborted();
      await writer.write(bytes(line));
    }
    writer.releaseLock();
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: unknown,
    stopped: AbortSignal,
  ): Promise<void> {
    this.notes = notesOf(await readLines(r, stopped));
  }
  close(): MaybePromise<void> {}
}

/** Content of a disk: notes and their applied index. */
export interface Image {
  readonly index: number;
  readonly notes: Notes;
}

/** Thrown by a disk handle that was opened before a crash. */
export class PowerCut extends Error {}

/**
 * A disk in memory. What was committed and not synced is lost in a crash, all of
 * it or, each third time, all but the first commit.
 */
export class MemoryDisk {
  /** Durable content, then each commit since the last sync. */
  #images: Image[] = [{ index: 0, notes: new Map() }];
  #life = 0;
  #crashes = 0;

  /** Opens the disk and returns its content with a handle for changes. */
  open(): DiskHandle {
    const life = this.#life;
    const check = (): void => {
      if (life !== this.#life) {
        throw new PowerCut(
          "MemoryDisk lost power after this handle was opened",
        );
      }
    };
    return {
      read: () => this.#images.at(-1) as Image,
      commit: async (image): Promise<void> => {
        await Promise.resolve();
        check();
        this.#images.push(image);
      },
      sync: async (): Promise<void> => {
        await Promise.resolve();
        check();
        this.#images = this.#images.slice(-1);
      },
    };
  }

  /** Loses the commits that are not synced and invalidates all handles. */
  crash(): void {
    this.#life++;
    const keep = this.#crashes++ % 3 === 2 ? 2 : 1;
    this.#images = this.#images.slice(0, keep).slice(-1);
  }
}

/** Handle of an open disk; each commit is atomic. */
export interface DiskHandle {
  read(): Image;
  commit(image: Image): Promise<void>;
  sync(): Promise<void>;
}

/** An on-disk machine over a {@linkcode MemoryDisk}. A snapshot begins with its index. */
export class OnDiskNotes implements IOnDiskStateMachine, IHash, IExtended {
  readonly disk: MemoryDisk;
  handle: DiskHandle | undefined;
  image: Image = { index: 0, notes: new Map() };

  constructor(disk: MemoryDisk) {
    this.disk = disk;
  }

  async open(stopped: AbortSignal): Promise<number> {
    await Promise.resolve();
    stopped.throwIfAborted();
    this.handle = this.disk.open();
    // After a close the content may be in memory only, but the index returned must be durable.
    await this.handle.sync();
    this.image = this.handle.read();
    return this.image.index;
  }
  async update(entries: Entry[]): Promise<Entry[]> {
    const notes = new Map(this.image.notes);
    for (const entry of entries) entry.result = applyTo(notes, entry.cmd);
    await this.put({ index: (entries.at(-1) as Entry).index, notes });
    return entries;
  }
  async put(image: Image): Promise<void> {
    await this.handle?.commit(image);
    this.image = image;
  }
  lookup(query: unknown): unknown {
    return answer(this.image.notes, query);
  }
  naLookup(query: Uint8Array): Uint8Array {
    return bytes(this.image.notes.get(text(query)) ?? "(none)");
  }
  getHash(): MaybePromise<bigint> {
    return hashOf(this.image.notes);
  }
  async sync(): Promise<void> {
    await this.handle?.sync();
  }
  prepareSnapshot(): unknown {
    return this.image;
  }
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const { index, notes } = context as Image;
    await writeLines([`${index}\n`, ...linesOf(notes)], w, stopped);
  }
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const [index, ...lines] = await readLines(r, stopped);
    await this.put({ index: Number(index), notes: notesOf(lines) });
  }
  close(): MaybePromise<void> {}
}

/** Creates an empty disk for on-disk state machines of a class. */
export function diskOf(
  machine: new (disk: MemoryDisk) => IOnDiskStateMachine,
): Disk {
  const disk = new MemoryDisk();
  return { create: () => new machine(disk), crash: () => disk.crash() };
}

/** Commands on few names, so that they collide, and one that has no effect. */
export const commands: readonly Uint8Array[] = [
  "a=1",
  "b=2",
  "a=33",
  "a",
  "c=3",
].map(bytes);

/** Queries that cover the whole state, one of bytes, and one that throws. */
export const queries: readonly unknown[] = [null, "a", bytes("b"), 7];
