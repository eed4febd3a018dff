/**
 * The snapshot container: one stream that holds a header, the sessions, what
 * the machine wrote and its external files, in checksummed blocks, and a tail
 * that proves it complete. Written and read with bounded memory; `format.md`
 * beside this file says what each byte means.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32 } from "../bytes.ts";
import {
  SNAPSHOT_BLOCK_BYTES_MAX,
  SNAPSHOT_FILES_MAX,
  SNAPSHOT_INFLATE_BYTES_MAX,
  SNAPSHOT_SESSIONS_BYTES_MAX,
} from "../limits.ts";
import { withResolvers } from "../async.ts";
import { ErrSnapshotStreaming } from "../statemachine/errors.ts";
import type { Type } from "../statemachine/types.ts";
import { checkFile } from "./collection.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotUnfinished,
  ErrSnapshotVersion,
} from "./errors.ts";
import type { SnapshotHeader, SnapshotTotals } from "./store.ts";

const VERSION = 2;

/** Magic, version and their checksum: the same 16 bytes before every container of this version. */
const PREAMBLE = /* @__PURE__ */ preamble();

function preamble(): Uint8Array<ArrayBuffer> {
  // As in PNG: not text, and it does not survive a transfer that takes it for text.
  const bytes = [0x89, 0x53, 0x4d, 0x50, 0x4e, 0x0d, 0x0a, 0x1a];
  const writer = new ByteWriter().raw(new Uint8Array(bytes)).u32(VERSION);
  return writer.u32(crc32(writer.finish())).finish();
}

/** Checksum (4 bytes), length (3) and type (1) before the data of each block. */
const BLOCK_HEAD = 8;
const BLOCK_END = BLOCK_HEAD + SNAPSHOT_BLOCK_BYTES_MAX;

const START = 0;
const HEADER = 1;
const SESSIONS = 2;
const PAYLOAD = 3;
const FILE = 4;
const CONTENT = 5;
const TAIL = 6;

/** For each type of block the types it may follow, as bits. */
const FOLLOWS = [0, 0b1, 0b110, 0b1110, 0b111110, 0b110000, 0b111110];

/** Which of the parts that need not be there follow in a header, as bits. */
const MARK = 1;
const STATE_HASH = 2;

const KINDS = ["full", "metadata"] as const;
const COMPRESSIONS = ["none", "gzip", "deflate-raw"] as const;

/** Microtasks within which a `close()` called on an idle stream reaches its sink, in any engine. */
const CLOSE_STEPS = 32;

function noop(): void {}

function encodeHeader(header: SnapshotHeader): Uint8Array {
  const { epoch, stateHash } = header;
  const writer = new ByteWriter().u64(header.clusterID).u64(header.nodeID)
    .u8(header.type).u8(KINDS.indexOf(header.kind))
    .u8(COMPRESSIONS.indexOf(header.compression)).varint(header.index)
    .u8((epoch ? MARK : 0) | (stateHash ? STATE_HASH : 0));
  if (epoch) writer.varint(epoch.index).u64(epoch.id);
  if (stateHash) writer.u64(stateHash.hash).varint(stateHash.version);
  return writer.finish();
}

/** Reads a header; in version 1 the rest of it, if there is any, is the epoch. */
function decodeHeader(data: Uint8Array, version: number): SnapshotHeader {
  try {
    const reader = new ByteReader(data);
    const fixed = {
      clusterID: reader.u64(),
      nodeID: reader.u64(),
      type: reader.u8() as Type,
      kind: KINDS[reader.u8()],
      compression: COMPRESSIONS[reader.u8()],
      index: reader.varint(),
    };
    const parts = version > 1 ? reader.u8() : reader.remaining ? MARK : 0;
    const epoch = parts & MARK
      ? { index: reader.varint(), id: reader.u64() }
      : undefined;
    const stateHash = parts & STATE_HASH
      ? { hash: reader.u64(), version: reader.varint() }
      : undefined;
    const { type, kind, compression } = fixed;
    if (
      type > 0 && type < 4 && kind && compression && !reader.remaining &&
      parts <= (MARK | STATE_HASH)
    ) {
      const header = { ...fixed, kind, compression, epoch };
      return stateHash ? { ...header, stateHash } : header;
    }
  } catch { /* Too short: damaged all the same. */ }
  throw new ErrSnapshotCorrupted("Header makes no sense", PREAMBLE.length);
}

/** What both ends keep count of, so that a block lost, moved or doubled shows in the next checksum, and in the tail. */
class Chain {
  crc = 0;
  length: number = PREAMBLE.length;
  blocks = 0;
  payload = 0;
  files = 0;

  add(block: Uint8Array, type: number, crc: number): void {
    this.crc = crc;
    this.length += block.length;
    this.blocks++;
    if (type === PAYLOAD) this.payload += block.length - BLOCK_HEAD;
    if (type === FILE) this.files++;
  }

  /** The data of the tail that fits here. */
  tail(): Uint8Array {
    return new ByteWriter().varint(this.length).varint(this.blocks)
      .varint(this.payload).varint(this.files).finish();
  }
}

interface Block {
  readonly type: number;
  /** Where it begins in the container. */
  readonly offset: number;
  /** The block as it stands in the container. */
  readonly raw: Uint8Array;
  readonly data: Uint8Array;
}

/**
 * The one parser of containers. Yields each block once it is verified, and
 * `undefined` when it needs the next chunk, passed to `next()`; no chunk means
 * the end of the stream. Blocks are views of the chunk where it holds them whole.
 */
function* parse(): Generator<
  Block | undefined,
  SnapshotTotals,
  Uint8Array | undefined
> {
  const chain = new Chain();
  const files = new Set<bigint>();
  let sessions = 0;
  let rest: Uint8Array = new Uint8Array();
  let offset = 0;

  function check(good: unknown, what: string): asserts good {
    if (!good) throw new ErrSnapshotCorrupted(what, offset);
  }

  /** The next `count` bytes behind the bytes `before` them. */
  function* take(
    count: number,
    before: Uint8Array,
  ): Generator<undefined, Uint8Array, Uint8Array | undefined> {
    const end = before.length + count;
    if (
      rest.length >= count && before.buffer === rest.buffer &&
      before.byteOffset + before.length === rest.byteOffset
    ) {
      rest = rest.subarray(count);
      return new Uint8Array(before.buffer, before.byteOffset, end);
    }
    const bytes = new Uint8Array(end);
    bytes.set(before);
    for (let at = before.length;;) {
      const part = rest.subarray(0, end - at);
      bytes.set(part, at);
      rest = rest.subarray(part.length);
      at += part.length;
      if (at === end) return bytes;
      const chunk = yield;
      check(chunk, "Snapshot is cut off");
      rest = chunk;
    }
  }

  let raw = yield* take(PREAMBLE.length, rest.subarray(0, 0));
  check(
    raw.every((byte, i) => i > 7 || byte === PREAMBLE[i]),
    "This is no snapshot",
  );
  const preamble = new ByteReader(raw, 8);
  const version = preamble.u32();
  check(
    preamble.u32() === crc32(raw, 0, 0, 12),
    "Checksum of the preamble is wrong",
  );
  if (version < 1 || version > VERSION) {
    throw new ErrSnapshotVersion(version, VERSION);
  }

  for (let type = START;;) {
    yield { type, offset, raw, data: raw.subarray(BLOCK_HEAD) };
    offset = chain.length;
    if (type === TAIL) break;
    raw = yield* take(BLOCK_HEAD, rest.subarray(0, 0));
    const head = new ByteReader(raw);
    const crc = head.u32();
    const word = head.u32();
    const length = word & 0xffffff;
    const previous = type;
    type = word >>> 24;
    check(
      length > 0 && length <= SNAPSHOT_BLOCK_BYTES_MAX,
      "Length of the block is wrong",
    );
    raw = yield* take(length, raw);
    check(
      crc32(raw, chain.crc, 4) === crc,
      "Checksum of the block is wrong",
    );
    // What follows fails only for a container that was written wrong.
    check((FOLLOWS[type] ?? 0) >> previous & 1, "Block is out of place");
    if (type === SESSIONS) sessions += length;
    check(sessions <= SNAPSHOT_SESSIONS_BYTES_MAX, "Sessions are too large");
    if (type === FILE) {
      check(length >= 8, "Block of a file is too short");
      files.add(new ByteReader(raw, BLOCK_HEAD).u64());
      check(
        files.size > chain.files && files.size <= SNAPSHOT_FILES_MAX,
        "File is there twice, or there are too many",
      );
    }
    if (type === TAIL) {
      const tail = chain.tail();
      check(
        tail.length === length &&
          tail.every((byte, i) => byte === raw[BLOCK_HEAD + i]),
        "Snapshot is not what its tail says",
      );
    }
    chain.add(raw, type, crc);
  }
  for (let chunk: Uint8Array | undefined = rest; chunk; chunk = yield) {
    check(!chunk.length, "There are bytes after the end");
  }
  return { files: chain.files };
}

/** What a {@linkcode SnapshotWriter} takes besides what to write. */
export interface SnapshotWriterOptions {
  /**
   * Whether the sink is a receiver elsewhere, so that losing it is
   * `ErrSnapshotStreaming` to the machine (D9).
   *
   * @default {false}
   */
  readonly streaming?: boolean;
  /**
   * Called once if the machine writes to the payload after it has ended, also
   * after {@linkcode SnapshotWriter.finish} has resolved: the snapshot is bad.
   */
  readonly onLate?: (error: ErrSnapshotUnfinished) => void;
}

/**
 * Writes one container into a sink, in the order header, sessions, payload,
 * files, tail; holds a few blocks besides what the sink queues.
 *
 * The first failure, whoever's it is, fails everything that comes after it, so a
 * machine that swallows an error does not get its snapshot made. Who is done
 * with a writer calls {@linkcode SnapshotWriter.finish} or
 * {@linkcode SnapshotWriter.abort}.
 */
export class SnapshotWriter {
  /**
   * Takes what the machine writes: bytes in chunks of any size. The machine may
   * close it, or release its lock and leave the closing to the host, and may leave
   * writes unawaited: all that was written before
   * {@linkcode SnapshotWriter.finish} is in the snapshot (R6). A payload that is
   * open and locked then, or is written to afterwards, makes the snapshot bad
   * (H16). Late writes are dropped and do not fail: the promise of a `pipeTo()`
   * that the machine forgot has no other handler, and would end the process.
   */
  readonly payload: WritableStream<Uint8Array>;
  readonly #sink: WritableStreamDefaultWriter<Uint8Array>;
  readonly #streaming: boolean;
  readonly #onLate: ((error: ErrSnapshotUnfinished) => void) | undefined;
  readonly #compression: SnapshotHeader["compression"];
  readonly #begun: Promise<void>;
  /** Writes what is left of the payload. */
  readonly #close: () => Promise<void>;
  readonly #chain = new Chain();
  /** Aborted by the first failure, with it as the reason. */
  readonly #failed = new AbortController();
  #controller?: WritableStreamDefaultController;
  #ended?: Promise<void>;
  #sinkError: unknown;
  #block = new Uint8Array(BLOCK_END);
  #filled = BLOCK_HEAD;
  /** Writes of the machine that were queued and not yet written. */
  #queued = 0;
  #closed = false;
  /** Set once the payload has ended; a write that comes later has missed it. */
  #over = false;
  /** Set once a write came after the end. */
  #late = false;
  /** Set once the machine has returned: what fails from now on it is not told, see `payload`. */
  #returned = false;
  #wake = noop;

  /**
   * A writer into `sink`, which it locks, and closes or aborts at the end.
   *
   * @throws RangeError if the sessions are larger than a container may hold
   */
  constructor(
    sink: WritableStream<Uint8Array>,
    header: SnapshotHeader,
    sessions: Uint8Array,
    options: SnapshotWriterOptions = {},
  ) {
    if (sessions.length > SNAPSHOT_SESSIONS_BYTES_MAX) {
      throw new RangeError("Sessions are too large for a snapshot");
    }
    this.#sink = sink.getWriter();
    this.#streaming = options.streaming ?? false;
    this.#onLate = options.onLate;
    this.#compression = header.compression;
    this.#begun = this.#begin(encodeHeader(header), sessions);
    // Found by whatever comes next; nothing comes if the rest of this throws.
    this.#begun.catch(noop);
    const [writable, packed] = this.#section(PAYLOAD);
    const writer = writable.getWriter();
    this.payload = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
        return this.#begun;
      },
      write: async (chunk) => {
        if (this.#over) return this.#tooLate();
        try {
          if (!(chunk instanceof Uint8Array)) {
            throw new TypeError("Snapshot payload takes Uint8Array chunks");
          }
          await writer.write(chunk);
        } catch (error) {
          const failure = this.#fail(error);
          if (!this.#returned) throw failure;
        }
        this.#queued--;
        this.#wake();
      },
      close: () => {
        this.#closed = true;
        this.#wake();
      },
      abort: (reason) => {
        this.#fail(reason);
      },
    }, {
      highWaterMark: 1,
      // A stream that somebody else has locked does not tell what it queues, so
      // each chunk is counted as it comes in.
      size: () => {
        this.#queued++;
        return 1;
      },
    });
    this.#close = async () => {
      await writer.close();
      await packed;
    };
  }

  /** What the sink failed with, undefined while it has not: tells a sink's error that a machine passes on from the machine's own (R8). */
  get sinkError(): unknown {
    return this.#sinkError;
  }

  /**
   * Takes in an external file, after the payload, which ends here. Not to be
   * called again before the call before it has settled (F1).
   *
   * @throws RangeError if the id is not in 0…2^64-1, or the metadata is too large
   */
  async addFile(
    fileID: bigint,
    metadata: Uint8Array,
    content: ReadableStream<Uint8Array>,
  ): Promise<void> {
    const { signal } = this.#failed;
    try {
      checkFile(fileID, metadata);
      await this.#end();
      const file = new ByteWriter().u64(fileID).raw(metadata).finish();
      await this.#write(FILE, file);
      const [writable, packed] = this.#section(CONTENT);
      await content.pipeTo(writable, { signal });
      await packed;
    } catch (error) {
      content.cancel(error).catch(noop);
      throw this.#fail(error);
    }
  }

  /**
   * Ends the payload, once what the machine has queued is written, writes the
   * tail and closes the sink.
   *
   * @throws ErrSnapshotStreaming if the sink was lost and the writer is a streaming one (D9); otherwise what failed first
   */
  async finish(): Promise<SnapshotTotals> {
    try {
      await this.#end();
      await this.#write(TAIL, this.#chain.tail());
    } catch (error) {
      throw this.#fail(error);
    }
    try {
      await this.#sink.close();
    } catch (error) {
      throw this.#lose(error);
    }
    this.#failed.signal.throwIfAborted();
    return { files: this.#chain.files };
  }

  /** Aborts the sink; writes that wait fail with `reason`. Never throws; idempotent, and harmless after `finish()`. */
  async abort(reason: unknown): Promise<void> {
    this.#fail(reason);
    await this.#sink.abort(reason).catch(noop);
  }

  /** Tells that `saveSnapshot()` has returned, or failed: what it left running is not to fail where nothing awaits it. */
  returned(): void {
    this.#returned = true;
  }

  #end(): Promise<void> {
    this.#returned = true;
    return this.#ended ??= (async () => {
      await this.#begun;
      // Closed counts too: a write after the close was counted, never queued.
      while (this.#queued && !this.#closed && !this.#failed.signal.aborted) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      this.#failed.signal.throwIfAborted();
      // A close that the machine has called takes a few steps to get here.
      for (let i = 0; i < CLOSE_STEPS && !this.#closed; i++) await undefined;
      this.#over = true;
      if (!this.#closed && this.payload.locked) {
        throw new ErrSnapshotUnfinished(
          "saveSnapshot() ended while its stream was open and locked: await the pipeTo(), or close the writer or release its lock before returning",
        );
      }
      await this.#close();
    })();
  }

  /** Takes note of a write after the end, once. */
  #tooLate(): void {
    if (this.#late) return;
    this.#late = true;
    const error = new ErrSnapshotUnfinished(
      "The stream was written to after saveSnapshot() had ended: await every write and pipeTo() before returning",
    );
    this.#failed.abort(error);
    this.#wake();
    this.#onLate?.(error);
  }

  /** Makes `error` the failure of this writer, unless it has one; returns the failure. */
  #fail(error: unknown): unknown {
    const { signal } = this.#failed;
    this.#failed.abort(error);
    if (!this.#returned) this.#controller?.error(signal.reason);
    this.#wake();
    return signal.reason;
  }

  #lose(error: unknown): unknown {
    if (this.#failed.signal.aborted) return this.#fail(error);
    this.#sinkError = error ?? new Error("Snapshot sink failed");
    return this.#fail(
      this.#streaming
        ? new ErrSnapshotStreaming(undefined, { cause: error })
        : this.#sinkError,
    );
  }

  async #begin(header: Uint8Array, sessions: Uint8Array): Promise<void> {
    await this.#push(PREAMBLE.slice());
    await this.#write(HEADER, header);
    await this.#write(SESSIONS, sessions);
  }

  /** A stream that packs what it gets into blocks of a type, and what tells that the last one is written. */
  #section(type: number): [WritableStream<Uint8Array>, Promise<void>?] {
    const blocks = new WritableStream<Uint8Array>({
      write: (chunk) => this.#append(type, chunk),
      close: () => this.#flush(type),
    });
    if (this.#compression === "none") return [blocks];
    const { readable, writable } = new CompressionStream(this.#compression);
    const packed = readable.pipeTo(blocks, { signal: this.#failed.signal });
    packed.catch(noop);
    return [writable as WritableStream<Uint8Array>, packed];
  }

  async #write(type: number, bytes: Uint8Array): Promise<void> {
    await this.#append(type, bytes);
    await this.#flush(type);
  }

  /** Copies bytes into the block at hand: their owner may use them again. */
  async #append(type: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + BLOCK_END - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === BLOCK_END) await this.#flush(type);
    }
  }

  async #flush(type: number): Promise<void> {
    const length = this.#filled - BLOCK_HEAD;
    if (!length) return;
    let block = this.#block;
    // The sink may keep what it is given.
    if (this.#filled < BLOCK_END) block = block.slice(0, this.#filled);
    else this.#block = new Uint8Array(BLOCK_END);
    this.#filled = BLOCK_HEAD;
    const view = new DataView(block.buffer);
    view.setUint32(4, type << 24 | length, true);
    const crc = crc32(block, this.#chain.crc, 4);
    view.setUint32(0, crc, true);
    this.#chain.add(block, type, crc);
    await this.#push(block);
  }

  async #push(bytes: Uint8Array): Promise<void> {
    try {
      await this.#sink.ready;
    } catch (error) {
      throw this.#lose(error);
    }
    this.#failed.signal.throwIfAborted();
    this.#sink.write(bytes).catch((error) => this.#lose(error));
  }
}

/** The blocks of a source, one at a time, in whatever order they are asked for. */
class BlockReader {
  /** What reading failed with, also if it was cancelled. */
  failure: unknown;
  /** The damage, or what the source failed with. */
  sourceError: unknown;
  /** Where the block begins that was taken last. */
  offset = 0;
  readonly #source: ReadableStreamDefaultReader<Uint8Array>;
  readonly #parser = parse();
  #step = this.#parser.next();
  #taken = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(source: ReadableStream<Uint8Array>) {
    this.#source = source.getReader();
  }

  /** The data of the next block if it is of that type; otherwise undefined, and the block stays. */
  take(type: number): Promise<Uint8Array | undefined> {
    const taken = this.#turn.then(() => this.#take(type));
    this.#turn = taken.catch(noop);
    return taken;
  }

  async #take(type: number): Promise<Uint8Array | undefined> {
    try {
      if (this.failure) throw this.failure;
      if (this.#taken) this.#step = this.#parser.next();
      this.#taken = false;
      while (!this.#step.value) {
        const { value } = await this.#source.read();
        if (this.failure) throw this.failure;
        this.#step = this.#parser.next(value);
      }
    } catch (error) {
      throw this.fail(error);
    }
    if (this.#step.done || this.#step.value.type !== type) return;
    this.#taken = true;
    this.offset = this.#step.value.offset;
    return this.#step.value.data;
  }

  /** What the tail says, once nothing but the end comes after it. */
  async end(): Promise<SnapshotTotals> {
    await this.take(TAIL);
    await this.take(START);
    return this.#step.value as SnapshotTotals;
  }

  fail(error: unknown): unknown {
    const first = !this.failure;
    // Never rejects: what the source answers is ignored.
    this.cancel(error);
    if (first) this.sourceError = this.failure;
    return this.failure;
  }

  async cancel(reason?: unknown): Promise<void> {
    this.failure ??= reason ?? new Error("Reading the snapshot was cancelled");
    await this.#source.cancel(reason).catch(noop);
  }
}

/**
 * Reads one container; {@linkcode openSnapshot} makes it. What is handed out is
 * verified, block by block, and nothing is read before it is asked for (H8).
 */
export class SnapshotReader {
  /** What the container is a snapshot of. */
  readonly header: SnapshotHeader;
  /** The sessions, as they were given to the writer. */
  readonly sessions: Uint8Array;
  /**
   * Exactly the bytes the machine wrote (R9). Errors with `ErrSnapshotCorrupted`
   * where the container is damaged, or with the source's own error.
   */
  readonly payload: ReadableStream<Uint8Array>;
  readonly #blocks: BlockReader;
  /** Ends the section that is being read. */
  #seal: () => Promise<void>;

  private constructor(
    blocks: BlockReader,
    header: SnapshotHeader,
    sessions: Uint8Array,
  ) {
    this.#blocks = blocks;
    this.header = header;
    this.sessions = sessions;
    [this.payload, this.#seal] = this.#section(PAYLOAD);
  }

  /** As {@linkcode openSnapshot}. */
  static async open(
    source: ReadableStream<Uint8Array>,
  ): Promise<SnapshotReader> {
    const blocks = new BlockReader(source);
    try {
      const start = new ByteReader(await blocks.take(START) as Uint8Array);
      const header = decodeHeader(
        await blocks.take(HEADER) as Uint8Array,
        start.u32(),
      );
      const parts: Uint8Array[] = [];
      let length = 0;
      for (let part; (part = await blocks.take(SESSIONS)) !== undefined;) {
        parts.push(part);
        length += part.length;
      }
      const sessions = new Uint8Array(length);
      for (const part of parts.reverse()) {
        sessions.set(part, length -= part.length);
      }
      return new SnapshotReader(blocks, header, sessions);
    } catch (error) {
      throw blocks.fail(error);
    }
  }

  /** The damage that was found, or what the source failed with, undefined while neither is: tells it from an error of the machine that reads (R8). */
  get sourceError(): unknown {
    return this.#blocks.sourceError;
  }

  /**
   * Gives each external file to `onFile`, after the payload; what is left unread
   * of the payload or of a file is verified and dropped (F3).
   *
   * @throws ErrSnapshotCorrupted where the container is damaged; otherwise what the source or `onFile` failed with
   */
  async files(
    onFile: (
      fileID: bigint,
      metadata: Uint8Array,
      content: ReadableStream<Uint8Array>,
    ) => Promise<void> | void,
  ): Promise<void> {
    await this.#seal();
    for (let file; (file = await this.#blocks.take(FILE)) !== undefined;) {
      const [content, seal] = this.#section(CONTENT);
      this.#seal = seal;
      await onFile(new ByteReader(file).u64(), file.slice(8), content);
      await seal();
    }
  }

  /**
   * Verifies everything up to the tail, also what was left unread, whatever was
   * done with the streams (R9).
   *
   * @throws ErrSnapshotCorrupted if anything is damaged; otherwise what the source failed with, or the reason of `cancel()`
   */
  async finish(): Promise<SnapshotTotals> {
    await this.files(noop);
    return await this.#blocks.end();
  }

  /** Gives the source back; reads that wait fail with `reason`. Never throws; idempotent. */
  cancel(reason?: unknown): Promise<void> {
    return this.#blocks.cancel(reason);
  }

  /** The stream of a section, and what ends it: drops what of it was not read. */
  #section(type: number): [ReadableStream<Uint8Array>, () => Promise<void>] {
    const blocks = this.#blocks;
    const { compression } = this.header;
    let sealed = false;
    let over = false;
    let reading: Promise<void> | undefined;
    let inflated: ReadableStreamDefaultReader<Uint8Array> | undefined;
    if (compression !== "none") {
      const stored = new ReadableStream<BufferSource>({
        async pull(controller): Promise<void> {
          const data = over ? undefined : await blocks.take(type);
          if (!data) return controller.close();
          // Few bytes at a time: they may become a thousand times as many.
          for (let at = 0; at < data.length;) {
            const part = data.slice(at, at += SNAPSHOT_INFLATE_BYTES_MAX);
            controller.enqueue(part);
          }
        },
      }, { highWaterMark: 0 });
      inflated = stored.pipeThrough(new DecompressionStream(compression))
        .getReader();
    }

    async function next(): Promise<Uint8Array | undefined> {
      if (!inflated) return blocks.take(type);
      try {
        return (await inflated.read()).value;
      } catch (cause) {
        const what = "Compressed bytes make no sense";
        throw blocks.failure ??
          blocks.fail(new ErrSnapshotCorrupted(what, blocks.offset, { cause }));
      }
    }

    const stream = new ReadableStream<Uint8Array>({
      pull(controller): Promise<void> {
        if (sealed) throw new TypeError("Reading the snapshot is over");
        return reading = next().then((data) =>
          data ? controller.enqueue(data) : controller.close()
        );
      },
    }, { highWaterMark: 0 });

    return [stream, async () => {
      sealed = true;
      // A read under way is served: to fail it might reject a promise nobody holds.
      await reading?.catch(noop);
      over = true;
      await inflated?.cancel().catch(noop);
      while (await blocks.take(type));
    }];
  }
}

/**
 * Opens a container for reading, up to and with the sessions. It locks `source`,
 * and cancels it on an error.
 *
 * @throws ErrSnapshotCorrupted if it is damaged so far, or no snapshot at all (H8)
 * @throws ErrSnapshotVersion if it has a version that is not known
 */
export function openSnapshot(
  source: ReadableStream<Uint8Array>,
): Promise<SnapshotReader> {
  return SnapshotReader.open(source);
}

/** A container that is verified on its way through; {@linkcode verifySnapshot} makes it. */
export interface SnapshotVerifier {
  /** Lets the container's bytes through, each once its block is verified; errors where it is damaged. */
  readonly transform: TransformStream<Uint8Array, Uint8Array>;
  /** The header, once it is verified; rejects as the stream does, and may be left alone. */
  readonly header: Promise<SnapshotHeader>;
  /** The totals, once all is verified; rejects as the stream does, and may be left alone. */
  readonly totals: Promise<SnapshotTotals>;
}

/**
 * Verifies a container that passes through, without decompressing it: its bytes
 * come out as they are, none before it is verified. The stream fails with
 * `ErrSnapshotCorrupted` or `ErrSnapshotVersion` (H8).
 */
export function verifySnapshot(): SnapshotVerifier {
  const header = withResolvers<SnapshotHeader>();
  const totals = withResolvers<SnapshotTotals>();
  header.promise.catch(noop);
  totals.promise.catch(noop);
  const parser = parse();
  parser.next();
  let version = VERSION;

  function fail(error: unknown): unknown {
    header.reject(error);
    totals.reject(error);
    return error;
  }

  function feed(
    chunk: Uint8Array | undefined,
    controller: TransformStreamDefaultController<Uint8Array>,
  ): void {
    try {
      let step = parser.next(chunk);
      for (; !step.done && step.value; step = parser.next()) {
        const { type, raw, data } = step.value;
        if (type === START) version = new ByteReader(data).u32();
        if (type === HEADER) header.resolve(decodeHeader(data, version));
        controller.enqueue(raw);
      }
      if (step.done) totals.resolve(step.value);
    } catch (error) {
      throw fail(error);
    }
  }

  // `cancel` is missing in the type, and in browsers of 2023: there the promises
  // stay open when somebody gives the stream up.
  const transformer: Transformer<Uint8Array, Uint8Array> & {
    cancel(reason: unknown): void;
  } = {
    transform: feed,
    flush: (controller) => feed(undefined, controller),
    cancel: (reason) => {
      fail(reason);
    },
  };
  const transform = new TransformStream(transformer);
  return { transform, header: header.promise, totals: totals.promise };
}
