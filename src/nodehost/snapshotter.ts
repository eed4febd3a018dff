/**
 * When snapshots are taken, which are kept, and how far the log may be cut (H7).
 *
 * The log is cut at the older of two full snapshots that were read back and
 * found good, in the place where every replica that may come can get them: where
 * the log shares snapshots, if it has such a place, else the host's own store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { SNAPSHOTS_KEPT } from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Log, Retention } from "../log/log.ts";
import type { Driver } from "../rsm/driver.ts";
import { MachineFailure, saveSnapshot } from "../rsm/snapshots.ts";
import { verifySnapshot } from "../snapshot/container.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotVersion,
} from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
} from "../snapshot/store.ts";
import {
  ErrSnapshotAborted,
  ErrSnapshotStopped,
} from "../statemachine/errors.ts";
import {
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import type { HostEvent, ReplicaConfig } from "./config.ts";
import type { SessionState } from "./session.ts";
import { pacedSink, pacedSource } from "./pace.ts";
import { abortable } from "./waiting.ts";

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K>
  : never;

/** An event without the names of the replica. */
export type ReplicaEvent = DistributiveOmit<HostEvent, "clusterID" | "nodeID">;

/** What a snapshotter takes of its replica. */
export interface SnapshotterOptions {
  readonly config: ReplicaConfig;
  readonly log: Log;
  /** The host's own store. */
  readonly store: SnapshotStore;
  /** Where the log shares snapshots. */
  readonly shared: SnapshotStore | undefined;
  readonly files: FileStore;
  readonly env: Env;
  /** The driver of the moment. */
  readonly driver: () => Driver<SessionState>;
  /** Throws if the state is not to be saved or offered (H12). */
  readonly check: () => void;
  readonly event: (event: ReplicaEvent) => void;
  /** The machine failed. */
  readonly fail: (cause: unknown) => void;
}

/** Whether an error says that a snapshot itself is of no use. */
function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Copies a container into a store, verified on the way; `check` may refuse it by its header. */
export async function copySnapshot(
  source: ReadableStream<Uint8Array>,
  store: SnapshotStore,
  check: (header: SnapshotHeader) => void,
  options: {
    readonly imported?: boolean;
    readonly beforeCommit?: (header: SnapshotHeader) => unknown;
  } = {},
): Promise<SnapshotInfo> {
  const { transform, header, totals } = verifySnapshot();
  const verified = source.pipeThrough(transform);
  const reader = verified.getReader();
  let sink: SnapshotSink | undefined;
  try {
    // The header is known once enough has come through; until then it is held.
    const held: Uint8Array[] = [];
    let known: SnapshotHeader | undefined;
    header.then((header) => known = header, () => {});
    let chunk = await reader.read();
    for (; known === undefined && !chunk.done; chunk = await reader.read()) {
      held.push(chunk.value);
    }
    known = await header;
    check(known);
    sink = await store.create(known, { imported: options.imported ?? false });
    const writer = sink.writable.getWriter();
    for (const bytes of held) await writer.write(bytes);
    for (; !chunk.done; chunk = await reader.read()) {
      await writer.write(chunk.value);
    }
    await writer.close();
    await options.beforeCommit?.(known);
    return await sink.commit(await totals);
  } catch (error) {
    await reader.cancel(error).catch(() => {});
    await sink?.abort(error);
    throw error;
  }
}

/** Takes a replica's snapshots. */
export class Snapshotter {
  readonly #options: SnapshotterOptions;
  readonly #stopped = new AbortController();
  /** One snapshot at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #busy = 0;
  /** Index at which a snapshot was last taken, or tried. */
  #index = 0;
  #metadataTaken = 0;
  readonly #verified = new Set<string>();
  /** What the log must keep for this replica to come up again. */
  readonly #retention: Retention | undefined;

  /** The snapshots of a replica that came up from `index`; its log keeps what comes after `retain`, if given. */
  constructor(
    options: SnapshotterOptions,
    index: number,
    retain: number | undefined,
  ) {
    this.#options = options;
    this.#index = index;
    if (retain !== undefined) {
      this.#retention = options.log.retain(retain);
    }
  }

  get #onDisk(): boolean {
    return this.#options.driver().machine.type === OnDiskStateMachine;
  }

  /** Takes a snapshot if it is time (H7). */
  applied(index: number): void {
    const { snapshotEntries = 0 } = this.#options.config;
    if (
      snapshotEntries === 0 || index - this.#index < snapshotEntries ||
      this.#busy > 0
    ) return;
    this.#index = index;
    this.request().catch(() => {
      // Told by an event.
    });
  }

  /** An on-disk machine that keeps the host's rows is durable up to `index`. */
  synced(index: number): void {
    if (this.#options.driver().machine.hostState !== undefined) {
      this.#retention?.move(index);
    }
  }

  /** Takes a snapshot into the host's store, after those under way. */
  request(signal?: AbortSignal): Promise<SnapshotInfo> {
    const taken = this.#enqueue(async () => {
      signal?.throwIfAborted();
      const info = await this.#take(this.#kind(), signal);
      await this.#tidy();
      return info;
    });
    return abortable(taken, signal);
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++;
    const done = this.#last.then(async () => {
      try {
        this.#stopped.signal.throwIfAborted();
        this.#options.check();
        return await work();
      } catch (error) {
        throw this.#judge(error);
      } finally {
        this.#busy--;
      }
    });
    this.#last = done.catch(() => {});
    return done;
  }

  /** What to tell whoever asked; a machine that failed ends its replica. */
  #judge(error: unknown): unknown {
    if (this.#stopped.signal.aborted) {
      return new ErrClusterClosed(undefined, { cause: error });
    }
    if (error instanceof MachineFailure) {
      this.#options.fail(error.cause);
      return error.cause;
    }
    this.#options.event({ type: "snapshot failed", error });
    // Nobody asked it to stop: it chose to (R8).
    return error instanceof ErrSnapshotStopped
      ? new ErrSnapshotAborted(undefined, { cause: error })
      : error;
  }

  #kind(): "full" | "metadata" {
    if (!this.#onDisk) return "full";
    const { fullSnapshotInterval = 8 } = this.#options.config;
    const full = fullSnapshotInterval > 0 &&
      ++this.#metadataTaken % fullSnapshotInterval === 0;
    return full ? "full" : "metadata";
  }

  async #take(
    kind: "full" | "metadata",
    signal: AbortSignal | undefined,
  ): Promise<SnapshotInfo> {
    const { config, store, files, driver, event, env } = this.#options;
    const { clusterID, nodeID, compression = "none" } = config;
    let sink: SnapshotSink | undefined;
    const unwanted = new AbortController();
    const abort = (): void => unwanted.abort(new ErrSnapshotStopped());
    signal?.addEventListener("abort", abort);
    try {
      const totals = await saveSnapshot(driver(), {
        header: { clusterID, nodeID, kind, compression },
        create: async (header) => {
          sink = await store.create(header);
          return pacedSink(sink.writable, env);
        },
        files,
        signal: AbortSignal.any([this.#stopped.signal, unwanted.signal]),
      });
      const info = await sink!.commit(totals);
      if (this.#onDisk && driver().machine.hostState === undefined) {
        this.#retention?.move(info.index);
      }
      event({ type: "snapshot", snapshot: info });
      return info;
    } catch (error) {
      await sink?.abort(error);
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Removes what is older than what is kept, then cuts the log as far as that allows. */
  async #tidy(): Promise<void> {
    const { config, store, shared, log, driver, event } = this.#options;
    const { clusterID, nodeID, compactionOverhead = 0 } = config;
    const own = await store.list(clusterID);
    const full = own.filter(({ kind }) => kind === "full");
    const metadata = own.filter((info) =>
      info.kind === "metadata" && info.nodeID === nodeID
    );
    for (
      const info of [
        ...full.slice(SNAPSHOTS_KEPT),
        ...metadata.slice(SNAPSHOTS_KEPT),
      ]
    ) await store.remove(info);
    if (log.compact === undefined) return;
    const reachable = shared ?? store;
    if (reachable !== store && full[0] !== undefined) {
      await this.#share(full[0], reachable);
    }
    const older = await this.#olderGood(reachable);
    if (older === undefined) return;
    const upTo = older.index - compactionOverhead;
    if (upTo <= 0) return;
    if (this.#onDisk) {
      const index = driver().applied;
      await driver().sync();
      this.synced(index);
    }
    await log.compact(upTo);
    event({ type: "compacted", upTo });
  }

  /** Puts a snapshot where every replica can get it. */
  async #share(info: SnapshotInfo, shared: SnapshotStore): Promise<void> {
    const { store, env, config: { clusterID } } = this.#options;
    const isFull = ({ kind }: SnapshotInfo): boolean => kind === "full";
    const there = (await shared.list(clusterID)).filter(isFull);
    if (there.length > 0 && there[0]!.index >= info.index) return;
    await copySnapshot(
      pacedSource(await store.open(info), env),
      shared,
      () => {},
    );
    const all = (await shared.list(clusterID)).filter(isFull);
    for (const old of all.slice(SNAPSHOTS_KEPT)) await shared.remove(old);
  }

  /** The older of the two newest full snapshots, both read back and found good; one that is not is removed. */
  async #olderGood(store: SnapshotStore): Promise<SnapshotInfo | undefined> {
    const list = await store.list(this.#options.config.clusterID);
    const full = list.filter(({ kind }) => kind === "full");
    const good: SnapshotInfo[] = [];
    for (const info of full) {
      if (await this.#isGood(store, info)) good.push(info);
      if (good.length === SNAPSHOTS_KEPT) return good.at(-1);
    }
    return undefined;
  }

  async #isGood(store: SnapshotStore, info: SnapshotInfo): Promise<boolean> {
    if (this.#verified.has(info.id)) return true;
    try {
      const { transform } = verifySnapshot();
      await pacedSource(await store.open(info), this.#options.env)
        .pipeThrough(transform).pipeTo(new WritableStream());
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#options.event({ type: "snapshot failed", error });
      await store.remove(info);
      return false;
    }
    // Those that are gone are of no interest any more.
    if (this.#verified.size > 4 * SNAPSHOTS_KEPT) this.#verified.clear();
    this.#verified.add(info.id);
    return true;
  }

  /** The whole state at the applied index, as one stream that begins with its first read (H9). */
  export(): ReadableStream<Uint8Array> {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>(
      undefined,
      undefined,
      { highWaterMark: 1 },
    );
    const reader = readable.getReader();
    const ended = new AbortController();
    let begun = false;
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        if (!begun) {
          begun = true;
          this.#export(writable, ended.signal).catch((error) => {
            writable.abort(error).catch(() => {});
          });
        }
        const { done, value } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async (reason) => {
        ended.abort(new ErrSnapshotStopped(undefined, { cause: reason }));
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  async #export(
    writable: WritableStream<Uint8Array>,
    ended: AbortSignal,
  ): Promise<void> {
    const { config, store, files, driver, log, env } = this.#options;
    const { clusterID, nodeID, compression = "none" } = config;
    const signal = AbortSignal.any([this.#stopped.signal, ended]);
    let retention: Retention | undefined;
    try {
      this.#options.check();
      if (driver().machine.type === RegularStateMachine) {
        // It is saved under a lock, which a slow receiver must not hold.
        const info = await this.request(ended);
        retention = log.retain(info.index);
        await (await store.open(info)).pipeTo(writable, { signal });
        return;
      }
      await saveSnapshot(driver(), {
        header: { clusterID, nodeID, kind: "full", compression },
        create: (header) => {
          // Who receives it needs the log after it (H7).
          retention = log.retain(header.index);
          return pacedSink(writable, env);
        },
        streaming: true,
        files,
        signal,
      });
    } catch (error) {
      if (this.#stopped.signal.aborted) {
        throw new ErrClusterClosed(undefined, { cause: error });
      }
      if (!(error instanceof MachineFailure)) throw error;
      this.#options.fail(error.cause);
      throw error.cause;
    } finally {
      retention?.release();
    }
  }

  /** Ends what is under way; settles once it has ended. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ErrSnapshotStopped());
    await this.#last;
    this.#retention?.release();
  }
}
