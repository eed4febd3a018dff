/**
 * Snapshot store in a bucket of an S3 service.
 *
 * The bytes of a snapshot are one object with a random name, uploaded in parts. It
 * becomes visible with a second, empty object whose key carries its header, so that
 * listing snapshots reads none. Bytes without such an object were left by a crash, and
 * are removed some time later.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";
import {
  S3_LEFTOVER_MS,
  S3_LEFTOVERS_MAX,
  S3_PART_BYTES,
  S3_PARTS_MAX,
  S3_SLOW_MS_MAX,
} from "../limits.ts";
import {
  type Check,
  checkOptions,
  isEnv,
  isFunction,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { abortable, timeLimit } from "../async.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
  incompleteError,
} from "../snapshot/errors.ts";
import {
  type NamedSnapshot,
  nameOf,
  parseName,
} from "../snapshot/snapshot_name.ts";
import {
  compareSnapshots,
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
} from "../snapshot/store.ts";
import { ErrClosed } from "../statemachine/errors.ts";
import { S3Client } from "./client.ts";
import { ErrS3 } from "./errors.ts";

/** Options of {@linkcode S3SnapshotStore}. */
export interface S3SnapshotStoreOptions {
  /** Name of the bucket, which must exist. */
  readonly bucket: string;
  /** URL of the service, such as `https://s3.eu-central-1.amazonaws.com` or `http://10.0.0.9:9000`. */
  readonly endpoint: string;
  /** Id of the access key. */
  readonly accessKeyId: string;
  /** Secret of the access key. */
  readonly secretAccessKey: string;
  /** Token of temporary credentials. */
  readonly sessionToken?: string | undefined;
  /** Region of the bucket. @default {"us-east-1"} */
  readonly region?: string | undefined;
  /** Beginning of all keys; stores with different ones are independent. @default {"sampan"} */
  readonly prefix?: string | undefined;
  /** Sends signed requests, as through a proxy. @default {fetch} */
  readonly fetch?: ((request: Request) => Promise<Response>) | undefined;
  /** Random numbers and timers. @default {systemEnv} */
  readonly env?: Env | undefined;
}

const isEndpoint: Check = (name, value) => {
  isText(name, value);
  const url = URL.parse(value as string);
  if (url !== null && /^https?:$/.test(url.protocol) && url.search === "") {
    return;
  }
  throw new TypeError(
    `${name} is "${value}"; give the URL of an S3 service, as https://s3.eu-central-1.amazonaws.com`,
  );
};

const isBucket: Check = (name, value) => {
  isText(name, value);
  if (/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(value as string)) return;
  throw new RangeError(
    `${name} is "${value}"; use 3 to 63 lower-case letters, digits, dots and hyphens`,
  );
};

const isPrefix: Check = (name, value) => {
  isText(name, value);
  if (/^[\w.-]+(?:\/[\w.-]+)*$/.test(value as string)) return;
  throw new RangeError(
    `${name} is "${value}"; use letters, digits, and any of . / _ -`,
  );
};

/** Snapshot of the bucket: its description, and its order among those of its cluster. */
interface Stored extends NamedSnapshot {
  /** Name of the object with its bytes. */
  readonly data: string;
}

/** Parses an id: the name that carries the header, and that of the object with the bytes. */
function parseID(id: string): Stored | undefined {
  const [name = "", data = "", ...others] = id.split("_");
  const made = parseName(name);
  if (made === undefined || !/^[0-9a-f]{32}$/.test(data) || others.length > 0) {
    return undefined;
  }
  return { order: made.order, info: { ...made.info, id }, data };
}

function idOf(clusterID: bigint): string {
  return clusterID.toString(16).padStart(16, "0");
}

/**
 * {@linkcode SnapshotStore} in a bucket of an S3 service, for any number of processes:
 * the servers of one etcd share it with `new EtcdLogDB({ snapshots })`. Uploads hold
 * one part of 8 MiB in memory, of at most 80 GB together. Give the bucket a rule that
 * aborts incomplete multipart uploads after some days: those of a process that was
 * killed are not listed, and cost space.
 */
export class S3SnapshotStore implements SnapshotStore {
  readonly #client: S3Client;
  readonly #env: Env;
  readonly #prefix: string;
  readonly #closing = new AbortController();
  readonly #uploads = new Set<Upload>();
  /** Objects with bytes that no snapshot has, and the times at which this process has seen them first. */
  readonly #leftovers = new Map<string, number>();

  /**
   * Creates a store; it connects when it is first used.
   *
   * @throws TypeError or RangeError if an option is invalid
   */
  constructor(options: S3SnapshotStoreOptions) {
    const checks: OptionChecks<S3SnapshotStoreOptions> = {
      bucket: isBucket,
      endpoint: isEndpoint,
      accessKeyId: isText,
      secretAccessKey: isText,
      sessionToken: optional(isText),
      region: optional(isText),
      prefix: optional(isPrefix),
      fetch: optional(isFunction),
      env: optional(isEnv),
    };
    checkOptions("Options of the snapshots on S3", options, checks);
    const { bucket, endpoint, accessKeyId, secretAccessKey } = options;
    this.#env = options.env ?? systemEnv;
    this.#prefix = options.prefix ?? "sampan";
    this.#client = new S3Client({
      bucket,
      endpoint,
      accessKeyId,
      secretAccessKey,
      sessionToken: options.sessionToken,
      region: options.region ?? "us-east-1",
      env: this.#env,
      fetch: options.fetch ?? ((request) => fetch(request)),
      signal: this.#closing.signal,
    });
  }

  #check(): void {
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
  }

  #infoKey({ clusterID, id }: SnapshotInfo): string {
    return `${this.#prefix}/info/${idOf(clusterID)}/${id}`;
  }

  #dataKey(clusterID: bigint, data: string): string {
    return `${this.#prefix}/data/${idOf(clusterID)}/${data}`;
  }

  #newName(): string {
    const word = (): string =>
      this.#env.random64().toString(16).padStart(16, "0");
    return word() + word();
  }

  /** Begins writing a snapshot. */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): SnapshotSink {
    this.#check();
    const data = this.#newName();
    const upload = new Upload(
      this.#client,
      this.#dataKey(header.clusterID, data),
      () => this.#uploads.delete(upload),
    );
    this.#uploads.add(upload);
    let info: SnapshotInfo | undefined;
    let mayBeVisible = false;
    return {
      writable: upload.writable,
      commit: async (totals: SnapshotTotals): Promise<SnapshotInfo> => {
        if (info !== undefined) return info;
        this.#check();
        if (!upload.isComplete) throw incompleteError();
        const imported = options?.imported ?? false;
        const { size } = upload;
        return info = await this.#commit(
          { ...header, files: totals.files, imported, size },
          data,
          () => {
            mayBeVisible = true;
          },
        );
      },
      abort: async (reason?: unknown): Promise<void> => {
        // A commit without an answer may have been carried out, or be carried out
        // later. The bytes stay then; a later snapshot removes them if nothing has them.
        if (mayBeVisible) return;
        await upload.abort(reason);
      },
    };
  }

  async #commit(
    made: Omit<SnapshotInfo, "id">,
    data: string,
    begins: () => void,
  ): Promise<SnapshotInfo> {
    const before = await this.#stored(made.clusterID);
    const equal = before.filter(({ info }) => isSameSnapshot(info, made));
    const order = 1 + Math.max(0, ...before.map((one) => one.order));
    const { info } = parseID(`${nameOf(made, order)}_${data}`)!;
    begins();
    // No other process writes this key, as the name of the data is random: it may be
    // written again after a lost answer.
    await this.#client.done({
      method: "PUT",
      key: this.#infoKey(info),
      body: new Uint8Array(0),
      what: `the snapshot of cluster ${info.clusterID} at ${info.index}`,
    });
    try {
      for (const one of equal) await this.#remove(one);
      await this.#sweep(info.clusterID);
    } catch {
      // The snapshot is stored, and hides the equal ones; the next one tries again.
    }
    return info;
  }

  async #remove({ info, data }: Stored): Promise<void> {
    const what = `the removal of a snapshot of cluster ${info.clusterID}`;
    for (
      const key of [this.#infoKey(info), this.#dataKey(info.clusterID, data)]
    ) await this.#client.done({ method: "DELETE", key, what });
  }

  /**
   * Removes bytes that no snapshot has, once this process has seen them for so long
   * that no upload can be about to make them one. Bytes are visible when they are
   * complete, and the age that S3 gives for them counts from the begin of the upload,
   * which may take hours.
   */
  async #sweep(clusterID: bigint): Promise<void> {
    const prefix = this.#dataKey(clusterID, "");
    const { keys } = await this.#client.list(prefix);
    const used = new Set(
      (await this.#stored(clusterID)).map(({ data }) => data),
    );
    const unused = new Set(
      keys.filter((key) => !used.has(key.slice(prefix.length))),
    );
    for (const key of [...this.#leftovers.keys()]) {
      if (key.startsWith(prefix) && !unused.has(key)) {
        this.#leftovers.delete(key);
      }
    }
    const now = this.#env.now();
    for (const key of unused) {
      const seen = this.#leftovers.get(key);
      if (seen === undefined) {
        // The others are noted once there is room.
        if (this.#leftovers.size < S3_LEFTOVERS_MAX) {
          this.#leftovers.set(key, now);
        }
        continue;
      }
      if (now - seen <= S3_LEFTOVER_MS) continue;
      await this.#client.done({
        method: "DELETE",
        key,
        what: `the removal of what a crash left of cluster ${clusterID}`,
      });
      this.#leftovers.delete(key);
    }
  }

  /** Snapshots of a cluster, the equal ones of a replacement under way included. */
  async #stored(clusterID: bigint): Promise<Stored[]> {
    const prefix = `${this.#prefix}/info/${idOf(clusterID)}/`;
    const { keys } = await this.#client.list(prefix);
    const found: Stored[] = [];
    for (const key of keys) {
      const stored = parseID(key.slice(prefix.length));
      if (stored?.info.clusterID === clusterID) found.push(stored);
    }
    return found.sort((a, b) =>
      compareSnapshots(a.info, b.info) || b.order - a.order
    );
  }

  /** Complete snapshots of a cluster, in the order defined by the port. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    this.#check();
    const infos: SnapshotInfo[] = [];
    for (const { info } of await this.#stored(clusterID)) {
      if (!infos.some((newer) => isSameSnapshot(newer, info))) infos.push(info);
    }
    return infos;
  }

  /**
   * Opens the container's bytes.
   *
   * @throws ErrSnapshotNotFound if it is not in the store, or was removed
   * @throws ErrSnapshotCorrupted if the object has another size than its key says
   */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    this.#check();
    const stored = parseID(info.id);
    if (stored === undefined) throw new ErrSnapshotNotFound(info.id);
    const what = `the snapshot of cluster ${info.clusterID} at ${info.index}`;
    const response = await this.#client.send({
      method: "GET",
      key: this.#dataKey(info.clusterID, stored.data),
      what,
    });
    if (response === undefined) throw new ErrSnapshotNotFound(info.id);
    const { size } = stored.info;
    const length = Number(response.headers.get("content-length") ?? size);
    if (length !== size) {
      await response.body?.cancel();
      throw new ErrSnapshotCorrupted(
        `Object of the snapshot has ${length} bytes, not ${size}`,
        Math.min(length, size),
      );
    }
    return this.#content(response, size, what);
  }

  /** Bytes of a response; fails if it ends early, or no byte arrives for some time. */
  #content(
    { body }: Response,
    size: number,
    what: string,
  ): ReadableStream<Uint8Array> {
    const reader = body?.getReader();
    let received = 0;
    return new ReadableStream<Uint8Array>({
      pull: async (controller): Promise<void> => {
        const { signal, release } = timeLimit(
          this.#env,
          S3_SLOW_MS_MAX,
          `No byte of ${what} after ${received} of ${size} arrived`,
        );
        try {
          const { done = true, value } = await abortable(
            reader?.read() ??
              Promise.resolve({ done: true, value: undefined } as const),
            signal,
          );
          if (!done && value !== undefined) {
            received += value.length;
            return controller.enqueue(value);
          }
          if (received === size) return controller.close();
          throw new Error(`It ended after ${received} of ${size} bytes`);
        } catch (cause) {
          reader?.cancel(cause).catch(() => {});
          throw new ErrS3(
            "Interrupted",
            0,
            `S3 did not send all of ${what}: ${
              (cause as Error).message
            }; open it again`,
            { cause },
          );
        } finally {
          release();
        }
      },
      cancel: (reason) => reader?.cancel(reason),
    }, { highWaterMark: 0 });
  }

  /** Removes a snapshot; does nothing if it was removed before. */
  async remove(info: SnapshotInfo): Promise<void> {
    this.#check();
    const stored = parseID(info.id);
    if (stored !== undefined) await this.#remove(stored);
  }

  /** Ids of the clusters that have a snapshot here, in ascending order. */
  async clusters(): Promise<readonly bigint[]> {
    this.#check();
    const prefix = `${this.#prefix}/info/`;
    const { prefixes } = await this.#client.list(prefix, "/");
    return prefixes
      .map((one) => one.slice(prefix.length, -1))
      .filter((hex) => /^[0-9a-f]{16}$/.test(hex))
      .map((hex) => BigInt(`0x${hex}`))
      .sort((a, b) => a < b ? -1 : 1);
  }

  /** Ends uploads under way, after which the other methods fail; idempotent. */
  async close(): Promise<void> {
    const error = new ErrClosed(
      `S3SnapshotStore of ${this.#prefix} is closed; create another one`,
    );
    if (this.#closing.signal.aborted) return;
    for (const upload of [...this.#uploads]) {
      await upload.abort(error);
    }
    this.#closing.abort(error);
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Object that is being uploaded: in one request if it is small, else in parts. */
class Upload {
  /** Stream for the bytes. */
  readonly writable: WritableStream<Uint8Array>;
  /** Bytes written. */
  size = 0;
  /** True once all bytes are in the object. */
  isComplete = false;
  readonly #client: S3Client;
  readonly #key: string;
  readonly #ended: () => void;
  #part = new Uint8Array(0);
  #filled = 0;
  #uploadID: string | undefined;
  readonly #tags: string[] = [];
  #controller: WritableStreamDefaultController | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(client: S3Client, key: string, ended: () => void) {
    this.#client = client;
    this.#key = key;
    this.#ended = ended;
    this.writable = new WritableStream({
      start: (controller): void => {
        this.#controller = controller;
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#complete(),
      abort: (reason) => this.abort(reason),
    });
  }

  #checkFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #write(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      this.#checkFailure();
      if (this.#filled === S3_PART_BYTES) await this.#putPart();
      const taken = Math.min(S3_PART_BYTES - this.#filled, chunk.length - at);
      this.#reserve(this.#filled + taken);
      this.#part.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
    }
    this.size += chunk.length;
  }

  /** Makes room in the part: small snapshots do not need a whole one. */
  #reserve(size: number): void {
    if (this.#part.length >= size) return;
    const length = Math.min(S3_PART_BYTES, Math.max(64 * 1024, 2 * size));
    const grown = new Uint8Array(length);
    grown.set(this.#part.subarray(0, this.#filled));
    this.#part = grown;
  }

  get #what(): string {
    return `the upload of a snapshot after ${this.size} bytes`;
  }

  async #putPart(): Promise<void> {
    if (this.#tags.length === S3_PARTS_MAX) {
      throw new ErrS3(
        "EntityTooLarge",
        0,
        `Snapshot has more than ${this.size} bytes, the most that ${S3_PARTS_MAX} parts have; compress it, or keep it in another store`,
      );
    }
    const what = this.#what;
    if (this.#uploadID === undefined) {
      const text = await this.#client.text({
        method: "POST",
        key: this.#key,
        query: { uploads: "" },
        what,
      });
      const id = /<UploadId>([^<]+)/.exec(text ?? "")?.[1];
      if (id === undefined) {
        throw new ErrS3(
          "NoUploadId",
          200,
          `S3 answered ${what} without an upload id; check that endpoint is an S3 service`,
        );
      }
      this.#uploadID = unescaped(id);
    }
    const response = await this.#client.send({
      method: "PUT",
      key: this.#key,
      query: {
        partNumber: String(this.#tags.length + 1),
        uploadId: this.#uploadID,
      },
      body: this.#part.slice(0, this.#filled),
      what,
    });
    await response?.body?.cancel();
    const tag = response?.headers.get("etag");
    if (tag === null || tag === undefined) {
      throw new ErrS3(
        "NoSuchUpload",
        404,
        `S3 has ended ${what}; give the bucket a rule that ends uploads later`,
      );
    }
    this.#tags.push(tag);
    this.#filled = 0;
    // Aborted in the meantime: the part would stay.
    if (this.#failure !== undefined) await this.#end();
    this.#checkFailure();
  }

  async #complete(): Promise<void> {
    this.#checkFailure();
    const what = this.#what;
    if (this.#uploadID === undefined) {
      await this.#client.done({
        method: "PUT",
        key: this.#key,
        body: this.#part.slice(0, this.#filled),
        what,
      });
    } else {
      if (this.#filled > 0) await this.#putPart();
      const parts = this.#tags.map((tag, i) =>
        `<Part><PartNumber>${i + 1}</PartNumber><ETag>${
          tag.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
        }</ETag></Part>`
      );
      const text = await this.#client.text({
        method: "POST",
        key: this.#key,
        query: { uploadId: this.#uploadID },
        headers: { "content-type": "application/xml" },
        body: bytesOf(
          `<CompleteMultipartUpload>${
            parts.join("")
          }</CompleteMultipartUpload>`,
        ),
        what,
      });
      // An error may come with status 200, after the headers were sent.
      if (text === undefined || text.includes("<Error>")) {
        throw new ErrS3(
          /<Code>([^<]*)/.exec(text ?? "")?.[1] ?? "NoSuchUpload",
          200,
          `S3 has not joined the parts of ${what}; the next snapshot is tried again`,
        );
      }
    }
    this.#part = new Uint8Array(0);
    this.isComplete = true;
    this.#ended();
  }

  /** Ends the upload, fails its stream and removes what it has written; idempotent. */
  async abort(reason?: unknown): Promise<void> {
    const error = reason ??
      new Error(`Upload of ${this.size} bytes was aborted`);
    const isFirst = this.#failure === undefined;
    this.#failure ??= { error };
    this.#controller?.error(error);
    this.#ended();
    if (!isFirst) return;
    this.#part = new Uint8Array(0);
    await this.#end().catch(() => {
      // The rule of the bucket ends it, and a later snapshot removes its bytes.
    });
  }

  async #end(): Promise<void> {
    const what = "the end of an upload";
    if (this.isComplete) {
      this.isComplete = false;
      await this.#client.done({ method: "DELETE", key: this.#key, what });
    } else if (this.#uploadID !== undefined) {
      await this.#client.done({
        method: "DELETE",
        key: this.#key,
        query: { uploadId: this.#uploadID },
        what,
      });
    }
  }
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

function unescaped(text: string): string {
  return text.replaceAll("&quot;", '"').replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}
