/**
 * Making of snapshots, their removal, and compaction of the log (H7): loaded when
 * the first snapshot is due.
 *
 * The log is compacted up to the older of two full snapshots that were read back
 * and verified, in the store that every later replica can reach: the shared store
 * of the log if it has one, otherwise the host's own store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, anySignal, pacedSink, pacedSource } from "../async.ts";
import { SNAPSHOTS_KEPT } from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Retention } from "../log/log.ts";
import { ErrSystemBusy, MachineFailure } from "../rsm/errors.ts";
import { saveSnapshot } from "../rsm/save_snapshot.ts";
import { isUsable, type SkippedEntry } from "../rsm/skipped_entries.ts";
import { copySnapshot } from "../snapshot/copy_snapshot.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotNotFound,
  type ErrSnapshotUnfinished,
  ErrSnapshotVersion,
} from "../snapshot/errors.ts";
import {
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
} from "../snapshot/store.ts";
import { verifySnapshot } from "../snapshot/verifier.ts";
import {
  ErrNotImplemented,
  ErrSnapshotAborted,
  ErrSnapshotStopped,
} from "../statemachine/errors.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { skipsAfter } from "./skip_decisions.ts";

/** True if an error means that the snapshot itself is damaged or unreadable. */
function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Set of ids of a store. */
function setOf(
  sets: Map<SnapshotStore, Set<string>>,
  store: SnapshotStore,
): Set<string> {
  let ids = sets.get(store);
  if (ids === undefined) sets.set(store, ids = new Set());
  // Bounds the set: snapshots that others remove stay in it otherwise.
  if (ids.size > 4 * SNAPSHOTS_KEPT) ids.clear();
  return ids;
}

/** Dependencies of a {@linkcode SnapshotMaker}. */
export interface SnapshotMakerParts {
  /** Context of the replica. */
  readonly context: ReplicaContext;
  /** State machine of the replica. */
  readonly machine: CurrentMachine;
  /** Retention of the entries that an on-disk machine needs for its next start. */
  readonly retention: Retention | undefined;
  /** Aborts when the replica is stopped. */
  readonly stopped: AbortSignal;
}

/** Takes the snapshots of one replica, removes old ones and compacts the log. */
export class SnapshotMaker {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #retention: Retention | undefined;
  readonly #stopped: AbortSignal;
  /** Settles once all queued work is done: snapshots, removals and compactions run one at a time. */
  #queue: Promise<unknown> = Promise.resolve();
  /** Number of snapshots of an on-disk machine: every Nth is full. */
  #taken = 0;
  /** Error of the machine, once it has failed. */
  #failure: unknown;
  /** Ids of verified snapshots, by store: ids are unique within a store only. */
  readonly #verified = new Map<SnapshotStore, Set<string>>();
  /** Ids of snapshots that this replica could not read back when it had taken them, by store. */
  readonly #doubtful = new Map<SnapshotStore, Set<string>>();
  /** Ids of snapshots in the host's own store to which the machine wrote after they were complete (H16). */
  readonly #invalid = new Set<string>();

  /** Creates the maker of a replica that has its first state. */
  constructor({ context, machine, retention, stopped }: SnapshotMakerParts) {
    this.#context = context;
    this.#machine = machine;
    this.#retention = retention;
    this.#stopped = stopped;
  }

  get #onDisk(): boolean {
    return this.#machine.current.machine.type === OnDiskStateMachine;
  }

  /** Takes a snapshot that is due, unless another process stores those of the cluster. */
  async scheduled(): Promise<void> {
    const { store, shared } = this.#context;
    if (store === shared && !(await store.isOnDuty?.() ?? true)) return;
    await this.request();
  }

  /** Takes a snapshot after the queued work; `overhead` replaces the replica's `compactionOverhead`. */
  request(signal?: AbortSignal, overhead?: number): Promise<SnapshotInfo> {
    return this.#request(signal, (info) => info, overhead);
  }

  /** Compacts the log after the queued work, as far as the snapshots allow; resolves with the index requested, 0 if they allow nothing. */
  async compact(signal?: AbortSignal, overhead?: number): Promise<number> {
    if (this.#context.log.compact === undefined) {
      throw new ErrNotImplemented(
        `Log of cluster ${this.#context.clusterID} is on another host and has no copy here: request the compaction there`,
      );
    }
    const compacted = this.#enqueue(() => {
      signal?.throwIfAborted();
      return this.#prune(undefined, overhead);
    });
    return await abortable(compacted, signal);
  }

  /** Takes a snapshot and calls `use` before another one may replace it; one in another store than the host's replaces none. */
  #request<T>(
    signal: AbortSignal | undefined,
    use: (info: SnapshotInfo) => MaybePromise<T>,
    overhead?: number,
    store: SnapshotStore = this.#context.store,
  ): Promise<T> {
    const taken = this.#enqueue(async () => {
      signal?.throwIfAborted();
      const kind = this.#kind();
      for (;;) {
        const info = await this.#take(kind, signal, store);
        let used: T;
        try {
          // Before older ones are removed, and before another replica's replaces it.
          used = await use(info);
        } catch (error) {
          // It was another replica's, which has replaced or removed it.
          if (
            error instanceof ErrSnapshotNotFound &&
            info.nodeID !== this.#context.config.nodeID
          ) continue;
          throw error;
        }
        if (store === this.#context.store) {
          await this.#prune(info, overhead).catch((error) =>
            this.#pruneFailed(error)
          );
        }
        return used;
      }
    });
    return abortable(taken, signal);
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(async () => {
      try {
        this.#stopped.throwIfAborted();
        this.#machine.check();
        if (this.#machine.current.ahead) {
          throw new ErrSystemBusy(
            `Replica has skipped an entry at or before ${this.#machine.applied} whose decision is still to be applied: request the snapshot again later`,
          );
        }
        return await work();
      } catch (error) {
        throw this.#errorFor(error);
      }
    });
    this.#queue = done.catch(() => {});
    return done;
  }

  /** Error for the caller; the failure of a machine ends its replica. */
  #errorFor(error: unknown): unknown {
    if (this.#stopped.aborted) {
      return new ErrClusterClosed(undefined, { cause: error });
    }
    if (error instanceof MachineFailure) return this.#fail(error.cause);
    this.#context.event({ type: "snapshot failed", error });
    // Without a request to stop, the machine has declined to save its state (R8).
    return error instanceof ErrSnapshotStopped
      ? new ErrSnapshotAborted(undefined, { cause: error })
      : error;
  }

  #kind(): "full" | "metadata" {
    if (!this.#onDisk) return "full";
    const { fullSnapshotInterval = 8 } = this.#context.config;
    const full = fullSnapshotInterval > 0 &&
      ++this.#taken % fullSnapshotInterval === 0;
    return full ? "full" : "metadata";
  }

  async #take(
    kind: "full" | "metadata",
    signal: AbortSignal | undefined,
    store: SnapshotStore,
  ): Promise<SnapshotInfo> {
    const { config, files, event, env } = this.#context;
    const { clusterID, nodeID, compression = "none" } = config;
    let sink: SnapshotSink | undefined;
    let header: SnapshotHeader | undefined;
    const cancelled = new AbortController();
    const abort = (): void => cancelled.abort(new ErrSnapshotStopped());
    signal?.addEventListener("abort", abort);
    const either = anySignal(this.#stopped, cancelled.signal);
    const saved = this.#machine.current;
    let committed: SnapshotInfo | undefined;
    let late: ErrSnapshotUnfinished | undefined;
    try {
      const totals = await saveSnapshot(saved, {
        header: { clusterID, nodeID, kind, compression },
        create: async (known) => {
          sink = await store.create(header = known);
          return pacedSink(sink.writable, env);
        },
        files,
        onLate: (error) => {
          late = error;
          if (committed !== undefined) this.#discard(committed, error);
        },
        signal: either.signal,
      });
      this.#machine.check(saved);
      const same = await this.#sameOfAnother(header!, store);
      if (same !== undefined) {
        await sink!.abort();
        return same;
      }
      // The replica may have diverged in the meantime.
      this.#machine.check(saved);
      if (late !== undefined) throw late;
      const info = committed = await sink!.commit(totals);
      if (late !== undefined) {
        this.#invalid.add(info.id);
        await store.remove(info);
        throw late;
      }
      if (
        this.#onDisk && this.#machine.current.machine.hostState === undefined
      ) {
        this.#retention?.move(info.index);
      }
      if (store === this.#context.store) {
        event({ type: "snapshot", snapshot: info });
      }
      return info;
    } catch (error) {
      await sink?.abort(error);
      throw signal?.aborted ? signal.reason : error;
    } finally {
      either.release();
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Removes a snapshot that turned out to be incomplete after its commit, also from the shared store. */
  #discard(snapshot: SnapshotInfo, error: ErrSnapshotUnfinished): void {
    const { store, shared, event } = this.#context;
    // From now on it does not count as verified.
    this.#invalid.add(snapshot.id);
    event({ type: "snapshot failed", error });
    const removed = this.#queue.then(async () => {
      for (const place of new Set([store, shared ?? store])) {
        for (const info of await this.#full(place)) {
          if (
            isSameSnapshot(info, snapshot) && info.nodeID === snapshot.nodeID
          ) {
            await place.remove(info);
          }
        }
      }
    });
    this.#queue = removed.catch((error) => {
      event({ type: "snapshot failed", error });
    });
  }

  /** Removes old snapshots, then compacts the log as far as the others allow. */
  async #prune(
    taken: SnapshotInfo | undefined,
    overhead: number | undefined,
  ): Promise<number> {
    const { config, store, shared, log, event } = this.#context;
    const { clusterID, nodeID, compactionOverhead = 0 } = config;
    let older = await this.#keepGood(store, taken);
    const metadata = (await store.list(clusterID)).filter((info) =>
      info.kind === "metadata" && info.nodeID === nodeID
    );
    for (const info of metadata.slice(SNAPSHOTS_KEPT)) await store.remove(info);
    if (log.compact === undefined) return 0;
    if (shared !== undefined && shared !== store) {
      older = await this.#keepGood(shared, await this.#share(shared));
    }
    if (older === undefined) return 0;
    const upTo = older.index - (overhead ?? compactionOverhead);
    if (upTo <= 0) return 0;
    if (this.#onDisk) {
      const index = this.#machine.current.applied;
      await this.#machine.current.sync();
      // Moved by snapshots instead if the machine does not store the host's rows.
      if (this.#machine.current.machine.hostState !== undefined) {
        this.#retention?.move(index);
      }
    }
    // As late as possible, since replicas of other hosts append decisions too.
    if (!isUsable(older.index, await this.#decisions())) return 0;
    await log.compact(upTo);
    event({ type: "compacted", upTo });
    return upTo;
  }

  /** Decisions to skip entries, with those in the log that are still to be applied here. */
  async #decisions(): Promise<readonly SkippedEntry[]> {
    const { log } = this.#context;
    const { skips, applied } = this.#machine.current;
    if (log.snapshots !== undefined) return skips;
    return [...skips, ...await skipsAfter(log, applied, this.#stopped)];
  }

  /** Removes snapshots of states that contain one of some skipped entries. */
  removeSuperseded(skips: readonly SkippedEntry[]): void {
    const { store, shared, config: { clusterID }, log, event } = this.#context;
    const removed = this.#queue.then(async () => {
      const places = [store, ...(log.snapshots ? [] : [shared ?? store])];
      for (const place of new Set(places)) {
        for (const info of await place.list(clusterID)) {
          if (!isUsable(info.index, skips)) await place.remove(info);
        }
      }
    });
    this.#queue = removed.catch((error) => {
      event({ type: "snapshot failed", error });
    });
  }

  /** Reports that old snapshots could not be removed; they are removed after the next one. */
  #pruneFailed(error: unknown): void {
    if (this.#stopped.aborted || error instanceof MachineFailure) {
      throw error;
    }
    this.#context.event({ type: "snapshot failed", error });
  }

  /**
   * Full snapshot that another replica has already stored at the same index. It stays
   * in the store, because that replica may have reported it.
   */
  async #sameOfAnother(
    header: SnapshotHeader,
    store: SnapshotStore,
  ): Promise<SnapshotInfo | undefined> {
    if (header.kind !== "full") return undefined;
    return (await this.#full(store)).find(({ index, nodeID }) =>
      index === header.index && nodeID !== header.nodeID
    );
  }

  async #full(store: SnapshotStore): Promise<SnapshotInfo[]> {
    const list = await store.list(this.#context.config.clusterID);
    return list.filter(({ kind }) => kind === "full");
  }

  /** Copies the newest full snapshot to the shared store; undefined if it is there already. */
  async #share(shared: SnapshotStore): Promise<SnapshotInfo | undefined> {
    const { store, env } = this.#context;
    const [newest] = await this.#full(store);
    if (newest === undefined) return undefined;
    if (!(await shared.isOnDuty?.() ?? true)) return undefined;
    const [there] = await this.#full(shared);
    if (there !== undefined && there.index >= newest.index) return undefined;
    const source = pacedSource(await store.open(newest), env);
    return await copySnapshot(source, shared, () => {});
  }

  /**
   * Verifies the two newest full snapshots, removes all older ones, and returns the
   * older of the two. Of damaged ones only one that was `taken` here and never read
   * back is removed, and only when it is damaged after the next one, too: another
   * replica may have read it, and compacted the log because of it. The log may also be
   * compacted up to an older one, or because of one of another replica, which may be
   * readable the next time.
   */
  async #keepGood(
    store: SnapshotStore,
    taken: SnapshotInfo | undefined,
  ): Promise<SnapshotInfo | undefined> {
    const own = taken?.nodeID === this.#context.nodeID ? taken : undefined;
    // A snapshot with a skipped entry does not replace an older one.
    const skips = await this.#decisions();
    const full = (await this.#full(store)).filter(({ index }) =>
      isUsable(index, skips)
    );
    const doubtful = setOf(this.#doubtful, store);
    let good = 0;
    for (const [i, info] of full.entries()) {
      if (await this.#isGood(store, info)) {
        good++;
        doubtful.delete(info.id);
      } else if (info.id === own?.id) doubtful.add(info.id);
      else if (doubtful.delete(info.id)) await store.remove(info);
      if (good < SNAPSHOTS_KEPT) continue;
      for (const old of full.slice(i + 1)) {
        // Verifying takes time, in which another host may have appended a decision.
        if (!isUsable(info.index, await this.#decisions())) return undefined;
        await store.remove(old);
      }
      return info;
    }
    return undefined;
  }

  async #isGood(store: SnapshotStore, info: SnapshotInfo): Promise<boolean> {
    const verified = setOf(this.#verified, store);
    const isInvalid = (): boolean =>
      store === this.#context.store && this.#invalid.has(info.id);
    if (isInvalid()) return false;
    if (verified.has(info.id)) return true;
    try {
      const { transform } = verifySnapshot();
      await pacedSource(await store.open(info), this.#context.env)
        .pipeThrough(transform).pipeTo(new WritableStream());
    } catch (error) {
      // Removed by another replica that shares the store.
      if (error instanceof ErrSnapshotNotFound) return false;
      if (!isDamage(error)) throw error;
      this.#context.event({ type: "snapshot failed", error });
      return false;
    }
    if (isInvalid()) return false;
    verified.add(info.id);
    return true;
  }

  /** Exports the state at the applied index as one stream that starts with its first read (H9). */
  export(): ReadableStream<Uint8Array> {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>(
      undefined,
      undefined,
      { highWaterMark: 1 },
    );
    const reader = readable.getReader();
    // Both are aborted when the receiver cancels: `lost` with its reason, `ended` with
    // the error for the state machine.
    const lost = new AbortController();
    const ended = new AbortController();
    const stopped = this.#stopped;
    // A write that waits for backpressure ends only if the reader is cancelled.
    const stop = (): void => void reader.cancel(stopped.reason).catch(() => {});
    let begun = false;
    let complete = false;
    const begin = async (): Promise<void> => {
      stopped.addEventListener("abort", stop);
      try {
        await this.#export(writable, ended.signal, lost.signal);
        complete = true;
      } catch (error) {
        await writable.abort(error);
      } finally {
        stopped.removeEventListener("abort", stop);
      }
    };
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        if (!begun) {
          begun = true;
          begin().catch(() => {});
        }
        try {
          const { done, value } = await reader.read();
          if (!done) return controller.enqueue(value);
          if (!complete) stopped.throwIfAborted();
        } catch (error) {
          throw this.#exportError(error);
        }
        controller.close();
      },
      cancel: async (reason) => {
        lost.abort(reason);
        ended.abort(new ErrSnapshotStopped(undefined, { cause: reason }));
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  /** Ends the replica because its machine failed. */
  #fail(cause: unknown): unknown {
    this.#failure = cause;
    this.#context.fail(cause);
    return cause;
  }

  /** Error for the receiver of an export. */
  #exportError(error: unknown): unknown {
    if (error instanceof MachineFailure) return error.cause;
    return this.#failure !== undefined
      ? this.#failure
      : this.#stopped.aborted
      ? new ErrClusterClosed(undefined, { cause: error })
      // Without a request to stop, the machine has declined to save its state (R8).
      : error instanceof ErrSnapshotStopped
      ? new ErrSnapshotAborted(undefined, { cause: error })
      : error;
  }

  /** Takes a snapshot for an export: into memory while another process keeps the snapshots, also if it began to during a first attempt. */
  async #takeForExport<T>(
    signal: AbortSignal,
    use: (info: SnapshotInfo, store: SnapshotStore) => MaybePromise<T>,
  ): Promise<T> {
    const { log, store } = this.#context;
    if (log.keeper === undefined) {
      try {
        return await this.#request(signal, (info) => use(info, store));
      } catch (error) {
        if (signal.aborted || log.keeper === undefined) throw error;
      }
    }
    const memory = new MemorySnapshotStore();
    return await this.#request(
      signal,
      (info) => use(info, memory),
      undefined,
      memory,
    );
  }

  async #export(
    writable: WritableStream<Uint8Array>,
    ended: AbortSignal,
    lost: AbortSignal,
  ): Promise<void> {
    const { config, files, log, env } = this.#context;
    const { clusterID, nodeID, compression = "none" } = config;
    const { signal, release } = anySignal(this.#stopped, ended);
    let retention: Retention | undefined;
    try {
      this.#machine.check();
      if (this.#machine.current.machine.type === RegularStateMachine) {
        // A regular machine is saved while updates are excluded: into the store first,
        // so that they do not wait for a slow receiver.
        const taken = await this.#takeForExport(ended, (info, store) => {
          retention = log.retain(info.index);
          return store.open(info);
        });
        await taken.pipeTo(writable, { signal });
        return;
      }
      const saved = this.#machine.current;
      if (saved.ahead) {
        throw new ErrSystemBusy(
          `Replica is about to apply the decision to skip an entry at or before ${saved.applied}: export again later`,
        );
      }
      await saveSnapshot(saved, {
        header: { clusterID, nodeID, kind: "full", compression },
        create: (header) => {
          // The receiver needs the entries after it (H7).
          retention = log.retain(header.index);
          return pacedSink(writable, env);
        },
        streaming: true,
        files,
        check: () => this.#machine.check(saved),
        signal,
        lost,
      });
    } catch (error) {
      throw !this.#stopped.aborted && error instanceof MachineFailure
        ? this.#fail(error.cause)
        : error;
    } finally {
      retention?.release();
      release();
    }
  }

  /** Resolves once the snapshots under way have ended. */
  async ended(): Promise<void> {
    await this.#queue;
  }
}
