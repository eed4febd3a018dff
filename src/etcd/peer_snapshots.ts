/**
 * Snapshot store of a server among servers that fetch snapshots from each other.
 *
 * Each server keeps its snapshots in a store of its own, announces in etcd which it
 * holds and where it serves them, and lists those of the others, too. A snapshot that
 * is opened and not here is fetched, verified and kept first. So that the loss of a
 * server loses no snapshot, each server copies the newest one of the clusters that it
 * has open, and of those of which too few servers hold it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { isSameBytes } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import type { Env } from "../env.ts";
import {
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
  ETCD_VERIFIED_SNAPSHOTS_MAX,
  PEER_ANNOUNCED_MAX,
  PEER_ANSWER_MS_MAX,
  PEER_COPY_MS,
  PEER_COPYING_MAX,
  PEER_REMOVED_MAX,
  PEER_RETRY_MS,
  PEER_ROUND_MS_MAX,
  PEER_WAIT_MS_MAX,
  SNAPSHOTS_KEPT,
} from "../limits.ts";
import {
  anySignal,
  Backoff,
  notify,
  pacedSource,
  sleep,
  timeLimit,
} from "../async.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { HeldSnapshot, SnapshotFetch, SnapshotPeers } from "../log/log.ts";
import { copySnapshot } from "../snapshot/copy_snapshot.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
} from "../snapshot/errors.ts";
import { nameOf, parseName } from "../snapshot/snapshot_name.ts";
import {
  compareSnapshots,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotStore,
} from "../snapshot/store.ts";
import type { EtcdClient } from "./client.ts";
import { ErrEtcdUnavailable, ErrPeerSnapshot } from "./errors.ts";
import type { Keys } from "./keys.ts";
import type { LiveReplicas } from "./live_replicas.ts";
import { PeerSource } from "./peer_source.ts";
import { AnnouncedCopies, hasSnapshot, hexOf } from "./snapshot_copies.ts";
import type { EtcdSnapshotPointer, SnapshotCopies } from "./values.ts";

/** Dependencies of {@linkcode PeerSnapshots}. */
export interface PeerSnapshotsParts {
  readonly client: EtcdClient;
  readonly keys: Keys;
  readonly env: Env;
  /** Random number of this process. */
  readonly writer: bigint;
  readonly live: LiveReplicas;
  /** Store of this server. */
  readonly store: SnapshotStore;
  /** Number of live servers that must hold a snapshot before a log is compacted behind it. */
  readonly copies: number;
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>;
  /** Called with the fault of a server that was asked for a snapshot. */
  readonly onFault: (error: ErrPeerSnapshot) => void;
}

/** Snapshot in the store of this server, read back. */
interface Held {
  readonly info: SnapshotInfo;
  readonly sha256: Uint8Array;
}

/** Snapshot that is being fetched. */
interface Fetching {
  readonly clusterID: bigint;
  readonly wanted: EtcdSnapshotPointer;
  source: PeerSource | undefined;
  done: Promise<SnapshotInfo>;
}

/** Id of a snapshot of another server, here: its hash, and the name that has its header. */
function remoteID({ sha256, id }: EtcdSnapshotPointer): string {
  return `${hexOf(sha256)}/${id}`;
}

/** Description of a snapshot of another server; undefined if its name does not describe one of the cluster. */
function remoteInfo(
  clusterID: bigint,
  pointer: EtcdSnapshotPointer,
): SnapshotInfo | undefined {
  const info = parseName(pointer.id)?.info;
  if (
    info === undefined || info.clusterID !== clusterID ||
    info.index !== pointer.index || info.kind !== "full"
  ) return undefined;
  return { ...info, size: pointer.size, id: remoteID(pointer) };
}

/** Snapshots of this server and of the others, as one store. */
export class PeerSnapshots implements SnapshotStore, SnapshotPeers {
  readonly #parts: PeerSnapshotsParts;
  readonly #store: SnapshotStore;
  readonly #copies: AnnouncedCopies;
  /** Base URL at which this server serves its snapshots, once it does. */
  #url: string | undefined;
  /** Hashes of snapshots of this server, by cluster and id, oldest use first. */
  readonly #hashes = new Map<string, Uint8Array>();
  /** Snapshots that this server has announced, by cluster. */
  readonly #announced = new Map<bigint, readonly Held[]>();
  /** Snapshots that were removed here, by the ids in their pointers. */
  readonly #removed = new Set<string>();
  /** Times at which no server sent a snapshot, by cluster. */
  readonly #missed = new Map<bigint, number>();
  readonly #fetching = new Map<string, Fetching>();
  /** Clusters that a replica of this process has open. */
  readonly #open = new Set<bigint>();
  /** Clusters whose copies are to be compared with etcd. */
  readonly #due = new Set<bigint>();
  /** Clusters for which that is under way. */
  readonly #busy = new Map<bigint, Promise<void>>();
  readonly #cancels = new Set<() => void>();
  readonly #unwatch: (() => void)[] = [];
  #isFollowing = false;
  readonly #closing = new AbortController();

  /** Creates the view of a process. */
  constructor(parts: PeerSnapshotsParts) {
    const { client, keys, writer, live, store } = parts;
    this.#parts = parts;
    this.#store = store;
    this.#copies = new AnnouncedCopies(client, keys, writer, live);
    this.#unwatch.push(live.lease.watch(() => {
      for (const clusterID of [...this.#announced.keys()]) {
        this.#dueLater(clusterID);
      }
    }));
  }

  // -------------------------------------------------------------------- store

  /** Begins writing a snapshot to the store of this server. */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): ReturnType<SnapshotStore["create"]> {
    return this.#store.create(header, options);
  }

  /** Complete snapshots of a cluster, here or on other servers. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    const local = await this.#store.list(clusterID);
    let remote: EtcdSnapshotPointer[];
    try {
      const { pointers, others } = await this.#copies.read(clusterID);
      const indexes = new Set(pointers.map(({ index }) => index));
      remote = pointers.filter((pointer) =>
        !this.#removed.has(pointer.id) ||
        others.some((one) => hasSnapshot(one, pointer))
      );
      for (const { snapshots } of others) {
        for (const one of snapshots) {
          if (indexes.has(one.index)) continue;
          indexes.add(one.index);
          remote.push(one);
        }
      }
    } catch (error) {
      if (
        error instanceof ErrEtcdUnavailable || error instanceof ErrClusterClosed
      ) return local;
      throw error;
    }
    const all = [...local];
    for (const pointer of remote) {
      const info = remoteInfo(clusterID, pointer);
      if (info === undefined) continue;
      if (await this.#local(clusterID, pointer) !== undefined) continue;
      all.push(info);
    }
    // Stable: of equal ones those of this server come first.
    return all.sort(compareSnapshots);
  }

  /**
   * Opens the bytes of a snapshot, which is fetched first if it is not here.
   *
   * @throws ErrPeerSnapshot if no live server has sent it
   */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    const pointer = this.#pointerOf(info);
    if (pointer === undefined) return await this.#store.open(info);
    const found = await this.#local(info.clusterID, pointer) ??
      await this.#fetch(info.clusterID, pointer);
    return await this.#store.open(found);
  }

  #pointerOf(info: SnapshotInfo): EtcdSnapshotPointer | undefined {
    const match = /^([0-9a-f]{64})\/(.+)$/.exec(info.id);
    if (match === null) return undefined;
    const sha256 = Uint8Array.from(
      match[1]!.match(/../g)!,
      (byte) => parseInt(byte, 16),
    );
    return { index: info.index, size: info.size, sha256, id: match[2]! };
  }

  /** Removes a snapshot from the store of this server. */
  async remove(info: SnapshotInfo): Promise<void> {
    const pointer = this.#pointerOf(info);
    const here = pointer === undefined
      ? info
      : await this.#local(info.clusterID, pointer);
    if (here === undefined) return;
    this.#hashes.delete(keyOf(here));
    await this.#store.remove(here);
    this.#removed.add(this.sharedID(here));
    if (this.#removed.size > PEER_REMOVED_MAX) {
      this.#removed.delete(this.#removed.keys().next().value!);
    }
    if (this.#announced.has(info.clusterID)) this.#dueLater(info.clusterID);
  }

  /** Ids of the clusters that have a snapshot here. */
  async clusters(): Promise<readonly bigint[]> {
    return await this.#store.clusters?.() ?? [];
  }

  /** Id that other servers understand, for a snapshot in the store of this one. */
  sharedID(info: SnapshotInfo): string {
    return nameOf(info, 0);
  }

  /**
   * True if enough live servers hold the snapshot of a pointer for the log to be
   * compacted behind it: this one finds it in its store, and the others answer with it.
   */
  async isServable(
    clusterID: bigint,
    pointer: EtcdSnapshotPointer,
  ): Promise<boolean> {
    const { copies } = this.#parts;
    const { own, others } = await this.#copies.read(clusterID);
    const urls = holdersOf(others, pointer).filter((url) => url !== this.#url);
    const isOwn = own !== undefined && hasSnapshot(own, pointer) &&
      await this.#local(clusterID, pointer) !== undefined;
    if (own !== undefined && !isOwn) this.#dueLater(clusterID);
    let held = isOwn ? 1 : 0;
    if (held + urls.length < copies) return false;
    for (const url of urls) {
      if (held >= copies) break;
      if (await this.#isHeldAt(url, clusterID, pointer)) held++;
    }
    return held >= copies;
  }

  /** Asks another server whether it still has a snapshot that it has announced. */
  async #isHeldAt(
    url: string,
    clusterID: bigint,
    wanted: EtcdSnapshotPointer,
  ): Promise<boolean> {
    const { env } = this.#parts;
    const limit = timeLimit(env, PEER_ANSWER_MS_MAX, "Did not answer");
    const { signal, release } = anySignal(limit.signal, this.#closing.signal);
    try {
      const { status, body } = await this.#request(
        url,
        clusterID,
        hexOf(wanted.sha256),
        0,
        signal,
      );
      // What it is good for is known now.
      await body?.cancel().catch(() => {});
      if (status === 200) return true;
      throw new Error(`Answered with status ${status}`);
    } catch (error) {
      this.#closing.signal.throwIfAborted();
      const failure = this.#error(
        { clusterID, wanted },
        `${url}: ${messageOf(error)}`,
      );
      notify(this.#parts.onFault, failure);
      return false;
    } finally {
      release();
      limit.release();
    }
  }

  /** Requests a snapshot of another server, from a byte on. */
  async #request(
    url: string,
    clusterID: bigint,
    name: string,
    offset: number,
    signal: AbortSignal,
  ): Promise<Response> {
    const token = await this.#copies.token(clusterID, name);
    return await this.#parts.fetch(
      new URL(`clusters/${clusterID}/snapshots/${name}`, url).href,
      {
        headers: {
          authorization: `Bearer ${token}`,
          ...(offset === 0 ? {} : { range: `bytes=${offset}-` }),
        },
        redirect: "error",
        signal,
      },
    );
  }

  // -------------------------------------------------------------------- peers

  /** True if the token of a request permits to fetch a snapshot. */
  permits(
    clusterID: bigint,
    name: string,
    token: string | undefined,
  ): Promise<boolean> {
    return this.#copies.permits(clusterID, name, token);
  }

  /** Snapshot that this server has announced. */
  find(clusterID: bigint, name: string): HeldSnapshot | undefined {
    const held = this.#announced.get(clusterID)
      ?.find(({ sha256 }) => hexOf(sha256) === name);
    if (held === undefined) return undefined;
    const { info } = held;
    return {
      size: info.size,
      open: async () => {
        try {
          return await this.#store.open(info);
        } catch (error) {
          // The store has lost it: it is announced no more.
          if (isUnreadable(error)) this.#dueLater(clusterID);
          throw error;
        }
      },
    };
  }

  /** Snapshots that this server is fetching. */
  get fetching(): readonly SnapshotFetch[] {
    return [...this.#fetching.values()].map((
      { clusterID, wanted: { index, size }, source },
    ) => ({
      clusterID,
      index,
      size,
      received: source?.received ?? 0,
      from: source?.from,
    }));
  }

  /** Announces the snapshots of this server, which serves them below a URL from now on. */
  announce(url: string): void {
    this.#url = url;
    for (const clusterID of this.#open) this.#dueLater(clusterID);
    this.#follow();
    // Never rejects: without the list, clusters are announced when they are opened.
    void this.clusters().then((clusters) => {
      for (const clusterID of clusters) this.#dueLater(clusterID);
    }, () => {});
  }

  /** Notes that a replica of this process has opened a cluster. */
  opened(clusterID: bigint): void {
    this.#open.add(clusterID);
    this.#dueLater(clusterID);
    this.#follow();
  }

  /** Notes that no replica of this process has a cluster open. */
  closed(clusterID: bigint): void {
    this.#open.delete(clusterID);
  }

  // --------------------------------------------------------------- what is held

  /** SHA-256 of a snapshot in the store of this server, as it is read back. */
  async #hash(info: SnapshotInfo): Promise<Uint8Array> {
    const key = keyOf(info);
    let sha256 = this.#hashes.get(key);
    if (sha256 === undefined) {
      const hash = createHash("sha256");
      const source = pacedSource(
        await this.#store.open(info),
        this.#parts.env,
      );
      await source.pipeTo(
        new WritableStream({
          write: (chunk): void => void hash.update(chunk),
        }),
        { signal: this.#closing.signal },
      );
      sha256 = new Uint8Array(hash.digest());
    }
    this.#hashes.delete(key);
    this.#hashes.set(key, sha256);
    if (this.#hashes.size > ETCD_VERIFIED_SNAPSHOTS_MAX) {
      this.#hashes.delete(this.#hashes.keys().next().value!);
    }
    return sha256;
  }

  /** Snapshot of a pointer in the store of this server; undefined if it is not there with these bytes. */
  async #local(
    clusterID: bigint,
    { index, size, sha256 }: EtcdSnapshotPointer,
  ): Promise<SnapshotInfo | undefined> {
    for (const info of await this.#store.list(clusterID)) {
      if (info.kind !== "full" || info.index !== index || info.size !== size) {
        continue;
      }
      try {
        if (isSameBytes(await this.#hash(info), sha256)) return info;
      } catch (error) {
        if (!isUnreadable(error)) throw error;
      }
    }
    return undefined;
  }

  /** Full snapshots in the store of this server that can be read, and do not differ from the pointer to their index. */
  async #held(
    clusterID: bigint,
    pointers: readonly EtcdSnapshotPointer[],
  ): Promise<Held[]> {
    const held: Held[] = [];
    for (const info of await this.#store.list(clusterID)) {
      if (info.kind !== "full") continue;
      if (held.length === PEER_ANNOUNCED_MAX) break;
      try {
        const sha256 = await this.#hash(info);
        const pointer = pointers.find(({ index }) => index === info.index);
        if (pointer !== undefined && !isSameBytes(pointer.sha256, sha256)) {
          continue;
        }
        held.push({ info, sha256 });
      } catch (error) {
        if (!isUnreadable(error)) throw error;
      }
    }
    return held;
  }

  // ------------------------------------------------------- keeping enough copies

  /** Follows the pointers, and the announcements that end. */
  #follow(): void {
    if (this.#isFollowing || this.#closing.signal.aborted) return;
    this.#isFollowing = true;
    // Never rejects: repeated until it succeeds.
    void this.#following();
  }

  async #following(): Promise<void> {
    const { client, keys, env } = this.#parts;
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const pointers = keys.range("snapshot");
        const { kvs, revision } = await client.list(pointers, {
          keysOnly: true,
        });
        if (signal.aborted) return;
        for (const { key } of kvs) this.#dueLater(keys.clusterOf(key));
        const listener = {
          // The next change has all that was missed.
          compacted: () => {},
          failed: () => {},
        };
        this.#unwatch.push(
          client.watches.add(pointers, revision + 1, {
            ...listener,
            changed: (events) => {
              for (const { kv } of events) {
                this.#dueLater(keys.clusterOf(kv.key));
              }
            },
          }),
          client.watches.add(keys.range("copy"), revision + 1, {
            ...listener,
            changed: (events) => {
              for (const { isDelete, kv } of events) {
                // A server with its copies is gone.
                if (isDelete) this.#dueLater(keys.clusterOfReplica(kv.key));
              }
            },
          }),
        );
        return;
      } catch {
        await sleep(env, backoff.next(), signal).catch(() => {});
      }
    }
  }

  /** Compares the copies of a cluster with etcd a moment later. */
  #dueLater(clusterID: bigint, ms: number = 0): void {
    const { env } = this.#parts;
    if (this.#due.has(clusterID) || this.#closing.signal.aborted) return;
    this.#due.add(clusterID);
    const delay = ms + PEER_COPY_MS * Number(env.random64() & 0xffn) / 256;
    const cancel = env.setTimer(() => {
      this.#cancels.delete(cancel);
      this.#work(clusterID);
    }, delay);
    this.#cancels.add(cancel);
  }

  #work(clusterID: bigint): void {
    this.#due.delete(clusterID);
    if (this.#busy.has(clusterID) || this.#busy.size >= PEER_COPYING_MAX) {
      return this.#dueLater(clusterID, PEER_COPY_MS);
    }
    const done = this.#settle(clusterID).then(
      () => void this.#busy.delete(clusterID),
      () => {
        this.#busy.delete(clusterID);
        this.#dueLater(clusterID, PEER_RETRY_MS);
      },
    );
    this.#busy.set(clusterID, done);
  }

  /** Announces what this server holds, copies the newest snapshot if it should, and removes what that replaces. */
  async #settle(clusterID: bigint): Promise<void> {
    const { pointers, others, own } = await this.#copies.read(clusterID);
    await this.#publish(clusterID, pointers, own);
    const [newest] = pointers;
    if (newest === undefined || remoteInfo(clusterID, newest) === undefined) {
      return;
    }
    if (await this.#local(clusterID, newest) === undefined) {
      const holders = holdersOf(others, newest);
      const isMissing = this.#url !== undefined &&
        holders.length < this.#parts.copies;
      if (!isMissing && !this.#open.has(clusterID)) return;
      // Its server announces it a moment after its pointer.
      await this.#fetch(clusterID, newest);
    }
    await this.#prune(clusterID, pointers);
    await this.#publish(
      clusterID,
      pointers,
      (await this.#copies.read(clusterID)).own,
    );
  }

  /** Removes snapshots of this server that are older than those of the pointers, once it holds these. */
  async #prune(
    clusterID: bigint,
    pointers: readonly EtcdSnapshotPointer[],
  ): Promise<void> {
    if (pointers.length < SNAPSHOTS_KEPT) return;
    for (const pointer of pointers) {
      if (await this.#local(clusterID, pointer) === undefined) return;
    }
    const oldest = pointers.at(-1)!.index;
    for (const info of await this.#store.list(clusterID)) {
      if (info.kind === "full" && info.index < oldest) {
        await this.#store.remove(info);
      }
    }
  }

  async #publish(
    clusterID: bigint,
    pointers: readonly EtcdSnapshotPointer[],
    before: SnapshotCopies | undefined,
  ): Promise<void> {
    const url = this.#url;
    if (url === undefined) return;
    const held = await this.#held(clusterID, pointers);
    if (held.length === 0 && !this.#announced.has(clusterID)) return;
    // Served as soon as it is announced.
    this.#announced.set(clusterID, held);
    const copies: SnapshotCopies = {
      url,
      snapshots: held.map(({ info, sha256 }) => ({
        index: info.index,
        size: info.size,
        sha256,
        id: this.sharedID(info),
      })),
    };
    if (isSameAnnouncement(copies, before)) return;
    await this.#copies.publish(clusterID, copies);
  }

  // ----------------------------------------------------------------- fetching

  /** Fetches a snapshot into the store of this server, once at a time. */
  #fetch(
    clusterID: bigint,
    wanted: EtcdSnapshotPointer,
  ): Promise<SnapshotInfo> {
    const key = `${clusterID} ${remoteID(wanted)}`;
    let fetching = this.#fetching.get(key);
    if (fetching === undefined) {
      const one: Fetching = {
        clusterID,
        wanted,
        source: undefined,
        done: undefined as unknown as Promise<SnapshotInfo>,
      };
      one.done = this.#fetched(one).finally(() => this.#fetching.delete(key));
      this.#fetching.set(key, fetching = one);
    }
    return fetching.done;
  }

  async #fetched(one: Fetching): Promise<SnapshotInfo> {
    const { clusterID, wanted } = one;
    /** Servers that have sent other bytes. */
    const wrong = new Set<string>();
    let isSingle = false;
    for (;;) {
      const source = one.source = this.#source(one, wrong, isSingle);
      const hash = createHash("sha256");
      const hashing = new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller): void {
          hash.update(chunk);
          controller.enqueue(chunk);
        },
      });
      try {
        const info = await copySnapshot(
          source.readable.pipeThrough(hashing),
          this.#store,
          (header) => checkHeader(header, clusterID, wanted),
          {
            imported: parseName(wanted.id)?.info.imported ?? false,
            signal: this.#closing.signal,
            beforeCommit: (): void => {
              const sha256 = new Uint8Array(hash.digest());
              if (isSameBytes(sha256, wanted.sha256)) return;
              throw new ErrSnapshotCorrupted(
                `SHA-256 is ${hexOf(sha256)}, not ${hexOf(wanted.sha256)}`,
                0,
              );
            },
          },
        );
        this.#missed.delete(clusterID);
        this.#dueLater(clusterID);
        return info;
      } catch (error) {
        if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
        const { contributors, hasFailed } = source;
        if (error instanceof ErrSnapshotCorrupted && !hasFailed) {
          const [url] = contributors;
          if (contributors.size > 1) isSingle = true;
          else if (url !== undefined) wrong.add(url);
          this.#fault(
            one,
            [...contributors].join(" or "),
            `Sent wrong bytes: ${messageOf(error)}`,
          );
        } else if (hasFailed && isSingle && contributors.size > 0) {
          for (const url of contributors) wrong.add(url);
        } else if (hasFailed) {
          this.#missed.set(clusterID, this.#parts.env.now());
          throw this.#error(one, messageOf(error), error);
        } else throw error;
      }
    }
  }

  #source(
    one: Fetching,
    wrong: ReadonlySet<string>,
    isSingle: boolean,
  ): PeerSource {
    const { clusterID, wanted } = one;
    const { env } = this.#parts;
    const name = hexOf(wanted.sha256);
    const missed = this.#missed.get(clusterID) ?? -Infinity;
    return new PeerSource({
      env,
      // One wait is enough for all snapshots that a recovery tries.
      waitMs: env.now() - missed < PEER_ROUND_MS_MAX ? 0 : PEER_WAIT_MS_MAX,
      size: wanted.size,
      isSingle,
      signal: this.#closing.signal,
      holders: async () => {
        const { others } = await this.#copies.read(clusterID);
        return holdersOf(others, wanted).filter((url) =>
          url !== this.#url && !wrong.has(url)
        );
      },
      request: (url, offset, signal) =>
        this.#request(url, clusterID, name, offset, signal),
      fault: (url, reason) => this.#fault(one, url, reason),
    });
  }

  #error(
    { clusterID, wanted: { index, size } }: Pick<
      Fetching,
      "clusterID" | "wanted"
    >,
    reason: string,
    cause?: unknown,
  ): ErrPeerSnapshot {
    return new ErrPeerSnapshot(clusterID, index, size, reason, { cause });
  }

  #fault(one: Fetching, url: string, reason: string): void {
    notify(this.#parts.onFault, this.#error(one, `${url}: ${reason}`));
  }

  /** Ends what is under way; the store of this server belongs to the code that created it. */
  async close(): Promise<void> {
    this.#closing.abort(
      new ErrClusterClosed("EtcdLogDB is closed; create another one"),
    );
    for (const cancel of this.#cancels) cancel();
    for (const unwatch of this.#unwatch) unwatch();
    await Promise.allSettled([
      ...this.#busy.values(),
      ...[...this.#fetching.values()].map(({ done }) => done),
    ]);
  }

  /** Ends what is under way. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function keyOf({ clusterID, id }: SnapshotInfo): string {
  return `${clusterID} ${id}`;
}

/** URLs of the servers that hold the snapshot of a pointer. One that has just been started again has two announcements. */
function holdersOf(
  copies: readonly SnapshotCopies[],
  pointer: EtcdSnapshotPointer,
): string[] {
  const holders = copies.filter((one) => hasSnapshot(one, pointer));
  return [...new Set(holders.map(({ url }) => url))];
}

/** True if two announcements are equal. */
function isSameAnnouncement(
  a: SnapshotCopies,
  b: SnapshotCopies | undefined,
): boolean {
  return a.url === b?.url && a.snapshots.length === b.snapshots.length &&
    a.snapshots.every((one) => hasSnapshot(b, one));
}

/** True if an error means that a snapshot is damaged, or was removed. */
function isUnreadable(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotNotFound;
}

function checkHeader(
  { clusterID, index, kind }: SnapshotHeader,
  wantedCluster: bigint,
  wanted: EtcdSnapshotPointer,
): void {
  if (
    clusterID === wantedCluster && index === wanted.index && kind === "full"
  ) return;
  throw new ErrSnapshotCorrupted(
    `Header is of a ${kind} snapshot of cluster ${clusterID} at ${index}`,
    0,
  );
}
