/**
 * Snapshots of a replica, their retention, and compaction of the log (H7).
 *
 * The log is compacted up to the older of two full snapshots that were read back
 * and verified, in the store that every later replica can reach: the shared store
 * of the log if it has one, otherwise the host's own store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SNAPSHOTS_KEPT } from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Retention } from "../log/log.ts";
import { MachineFailure } from "../rsm/errors.ts";
import { saveSnapshot } from "../rsm/save_snapshot.ts";
import { verifySnapshot } from "../snapshot/verifier.ts";
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
import { isUsable, type SkippedEntry } from "../rsm/skipped_entries.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import { skipsAfter } from "./skip_decisions.ts";
import { abortable, anySignal, pacedSink, pacedSource } from "../async.ts";

/** True if an error means that the snapshot itself is damaged or unreadable. */
function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Additional reader of the bytes of a snapshot while it is copied. */
interface Inspection {
  /** Passes the next bytes on; rejects if they are invalid. */
  write(bytes: Uint8Array): Promise<void>;
  /** Resolves once all was read; rejects if the snapshot is invalid. */
  close(): Promise<void>;
  /** Ends the inspection because the copy has failed. */
  abort(reason: unknown): void;
}

function inspecting(
  inspect: ((source: ReadableStream<Uint8Array>) => Promise<void>) | undefined,
): Inspection {
  if (inspect === undefined) {
    const write = (): Promise<void> => Promise.resolve();
    return { write, close: write, abort: () => {} };
  }
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  writer.closed.catch(() => {});
  let failure: { readonly error: unknown } | undefined;
  const done = inspect(readable).catch((error) => {
    failure = { error };
  });
  const check = (): void => {
    if (failure !== undefined) throw failure.error;
  };
  return {
    async write(bytes): Promise<void> {
      check();
      // A write that fails because the inspection has failed: `check()` throws the cause.
      await Promise.race([writer.write(bytes).catch(() => {}), done]);
      check();
    },
    async close(): Promise<void> {
      writer.close().catch(() => {});
      await done;
      check();
    },
    abort(reason): void {
      writer.abort(reason).catch(() => {});
    },
  };
}

/** Copies a snapshot into a store and verifies it; `check` may refuse it by its header. */
export async function copySnapshot(
  source: ReadableStream<Uint8Array>,
  store: SnapshotStore,
  check: (header: SnapshotHeader) => void,
  options: {
    readonly imported?: boolean;
    readonly signal?: AbortSignal;
    readonly beforeCommit?: (header: SnapshotHeader) => unknown;
    /** Reads the same bytes; the copy is dropped if this rejects. */
    readonly inspect?: (source: ReadableStream<Uint8Array>) => Promise<void>;
  } = {},
): Promise<SnapshotInfo> {
  const { transform, header, totals } = verifySnapshot();
  const { signal } = options;
  const verified = source.pipeThrough(transform, signal ? { signal } : {});
  const reader = verified.getReader();
  let sink: SnapshotSink | undefined;
  let inspection: Inspection | undefined;
  try {
    // Chunks are buffered until the header is complete.
    const buffered: Uint8Array[] = [];
    let known: SnapshotHeader | undefined;
    header.then((header) => known = header, () => {});
    let chunk = await reader.read();
    for (; known === undefined && !chunk.done; chunk = await reader.read()) {
      buffered.push(chunk.value);
    }
    known = await header;
    check(known);
    sink = await store.create(known, { imported: options.imported ?? false });
    const writer = sink.writable.getWriter();
    inspection = inspecting(options.inspect);
    for (const bytes of buffered) {
      await writer.write(bytes);
      await inspection.write(bytes);
    }
    for (; !chunk.done; chunk = await reader.read()) {
      await writer.write(chunk.value);
      await inspection.write(chunk.value);
    }
    await inspection.close();
    await writer.close();
    await options.beforeCommit?.(known);
    return await sink.commit(await totals);
  } catch (error) {
    inspection?.abort(error);
    await reader.cancel(error).catch(() => {});
    await sink?.abort(error);
    throw error;
  }
}

/** Takes the snapshots of one replica, removes old ones and compacts the log. */
export class Snapshotter {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #stopped = new AbortController();
  /** Settles once the queued snapshots, removals and compactions are done: they run one at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #busy = 0;
  /** Index at which a snapshot was last taken, or tried. */
  #index = 0;
  #metadataTaken = 0;
  /** Error with which the machine failed. */
  #failure: unknown;
  /** Ids of verified snapshots, by store: ids are unique within a store only. */
  readonly #verified = new Map<SnapshotStore, Set<string>>();
  /** Ids of snapshots in the host's own store to which the machine wrote after they were complete (H16). */
  readonly #invalid = new Set<string>();
  /** Retention of the entries that an on-disk machine needs for its next start. */
  readonly #retention: Retention | undefined;

  /** Creates the snapshotter of a replica that has its first state; the log keeps the entries after `retain`, if given. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    retain: number | undefined,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#index = machine.applied;
    if (retain !== undefined) this.#retention = context.log.retain(retain);
  }

  get #onDisk(): boolean {
    return this.#machine.current.machine.type === OnDiskStateMachine;
  }

  /** Moves the retention to `index`, from which an on-disk machine was rebuilt. */
  retain(index: number): void {
    this.#retention?.move(index);
  }

  /** Takes a snapshot if one is due (H7). */
  applied(index: number): void {
    if (
      !this.#isDue(index) || this.#busy > 0 || this.#machine.current.behind ||
      this.#machine.current.ahead
    ) return;
    this.#index = index;
    this.request().catch(() => {
      // Reported as an event.
    });
  }

  #isDue(index: number): boolean {
    const { config: { snapshotEntries = 0 }, log, isDurable } = this.#context;
    if (snapshotEntries > 0 && index - this.#index >= snapshotEntries) {
      return true;
    }
    // No compaction because of snapshots that do not outlive the host.
    const from = log.snapshotFrom ?? 0;
    return isDurable && this.#index < from && index >= from;
  }

  /** Saves a local snapshot after a recovery from the server, so that the next start works offline. */
  saveRemoteState(): void {
    const { isDurable, type } = this.#context;
    if (!isDurable || type === OnDiskStateMachine) return;
    this.request().catch(() => {
      // Reported as an event.
    });
  }

  /** Notes that an on-disk machine which stores the host's rows is durable up to `index`. */
  synced(index: number): void {
    if (this.#machine.current.machine.hostState !== undefined) {
      this.#retention?.move(index);
    }
  }

  /** Takes a snapshot after those under way; `overhead` replaces the replica's `compactionOverhead`. */
  request(signal?: AbortSignal, overhead?: number): Promise<SnapshotInfo> {
    return this.#request(signal, (info) => info, overhead);
  }

  /** Compacts the log as far as the present snapshots allow, after those under way; resolves with the index requested, 0 if they allow nothing. */
  compact(signal?: AbortSignal, overhead?: number): Promise<number> {
    const { log } = this.#context;
    if (log.compact === undefined) {
      return Promise.reject(
        new ErrNotImplemented(
          `Log of cluster ${this.#context.clusterID} is on another host and has no copy here: request the compaction there`,
        ),
      );
    }
    const compacted = this.#enqueue(() => {
      signal?.throwIfAborted();
      return this.#prune(undefined, overhead);
    });
    return abortable(compacted, signal);
  }

  /** Takes a snapshot and calls `use` before another one may replace it. */
  #request<T>(
    signal: AbortSignal | undefined,
    use: (info: SnapshotInfo) => MaybePromise<T>,
    overhead?: number,
  ): Promise<T> {
    const taken = this.#enqueue(async () => {
      signal?.throwIfAborted();
      const kind = this.#kind();
      for (;;) {
        const info = await this.#take(kind, signal);
        let used: T;
        try {
          // Before older ones are removed, or another replica's replaces it.
          used = await use(info);
        } catch (error) {
          // Another replica's snapshot, which that replica has replaced or removed.
          if (
            error instanceof ErrSnapshotNotFound &&
            info.nodeID !== this.#context.config.nodeID
          ) continue;
          throw error;
        }
        await this.#prune(info, overhead).catch((error) =>
          this.#pruneFailed(error)
        );
        return used;
      }
    });
    return abortable(taken, signal);
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++;
    const done = this.#last.then(async () => {
      try {
        this.#stopped.signal.throwIfAborted();
        this.#machine.check();
        if (this.#machine.current.ahead) {
          throw new ErrSystemBusy(
            `Replica has skipped an entry at or before ${this.#machine.applied} whose decision is still to be applied: request the snapshot again later`,
          );
        }
        return await work();
      } catch (error) {
        throw this.#errorFor(error);
      } finally {
        this.#busy--;
      }
    });
    this.#last = done.catch(() => {});
    return done;
  }

  /** Error for the caller; the failure of a machine ends its replica. */
  #errorFor(error: unknown): unknown {
    if (this.#stopped.signal.aborted) {
      return new ErrClusterClosed(undefined, { cause: error });
    }
    if (error instanceof MachineFailure) return this.#fail(error.cause);
    this.#context.event({ type: "snapshot failed", error });
    // The machine was not asked to stop: it declined (R8).
    return error instanceof ErrSnapshotStopped
      ? new ErrSnapshotAborted(undefined, { cause: error })
      : error;
  }

  #kind(): "full" | "metadata" {
    if (!this.#onDisk) return "full";
    const { fullSnapshotInterval = 8 } = this.#context.config;
    const full = fullSnapshotInterval > 0 &&
      ++this.#metadataTaken % fullSnapshotInterval === 0;
    return full ? "full" : "metadata";
  }

  async #take(
    kind: "full" | "metadata",
    signal: AbortSignal | undefined,
  ): Promise<SnapshotInfo> {
    const { config, store, files, event, env } = this.#context;
    const { clusterID, nodeID, compression = "none" } = config;
    let sink: SnapshotSink | undefined;
    let header: SnapshotHeader | undefined;
    const unwanted = new AbortController();
    const abort = (): void => unwanted.abort(new ErrSnapshotStopped());
    signal?.addEventListener("abort", abort);
    const either = anySignal(this.#stopped.signal, unwanted.signal);
    const saved = this.#machine.current;
    let made: SnapshotInfo | undefined;
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
          if (made !== undefined) this.#discard(made, error);
        },
        signal: either.signal,
      });
      this.#machine.check(saved);
      const same = await this.#sameOfAnother(header!);
      if (same !== undefined) {
        await sink!.abort();
        return same;
      }
      // The replica may have diverged in the meantime.
      this.#machine.check(saved);
      if (late !== undefined) throw late;
      const info = made = await sink!.commit(totals);
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
      event({ type: "snapshot", snapshot: info });
      return info;
    } catch (error) {
      await sink?.abort(error);
      throw signal?.aborted ? signal.reason : error;
    } finally {
      either.release();
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Removes a snapshot that turned out to be incomplete, also from the shared store. */
  #discard(made: SnapshotInfo, error: ErrSnapshotUnfinished): void {
    const { store, shared, event } = this.#context;
    // It does not count as verified from here on.
    this.#invalid.add(made.id);
    event({ type: "snapshot failed", error });
    const removed = this.#last.then(async () => {
      for (const place of new Set([store, shared ?? store])) {
        for (const info of await this.#full(place)) {
          if (isSameSnapshot(info, made) && info.nodeID === made.nodeID) {
            await place.remove(info);
          }
        }
      }
    });
    this.#last = removed.catch((error) => {
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
    // Decisions to skip entries may be in the log without being applied here.
    const { skips, applied } = this.#machine.current;
    if (log.snapshots === undefined) {
      skips.push(...await skipsAfter(log, applied));
    }
    let older = await this.#keepGood(store, taken, skips);
    const metadata = (await store.list(clusterID)).filter((info) =>
      info.kind === "metadata" && info.nodeID === nodeID
    );
    for (const info of metadata.slice(SNAPSHOTS_KEPT)) await store.remove(info);
    if (log.compact === undefined) return 0;
    if (shared !== undefined && shared !== store) {
      older = await this.#keepGood(shared, await this.#share(shared), skips);
    }
    if (older === undefined) return 0;
    const upTo = older.index - (overhead ?? compactionOverhead);
    if (upTo <= 0) return 0;
    if (this.#onDisk) {
      const index = this.#machine.current.applied;
      await this.#machine.current.sync();
      this.synced(index);
    }
    await log.compact(upTo);
    event({ type: "compacted", upTo });
    return upTo;
  }

  /** Removes snapshots of states that contain a skipped entry. */
  removeSuperseded(skip: SkippedEntry): void {
    const { store, shared, config: { clusterID }, log, event } = this.#context;
    const removed = this.#last.then(async () => {
      const places = [store, ...(log.snapshots ? [] : [shared ?? store])];
      for (const place of new Set(places)) {
        for (const info of await place.list(clusterID)) {
          if (!isUsable(info.index, [skip])) await place.remove(info);
        }
      }
    });
    this.#last = removed.catch((error) => {
      event({ type: "snapshot failed", error });
    });
  }

  /** Reports that old snapshots could not be removed; they are removed after the next one. */
  #pruneFailed(error: unknown): void {
    if (this.#stopped.signal.aborted || error instanceof MachineFailure) {
      throw error;
    }
    this.#context.event({ type: "snapshot failed", error });
  }

  /**
   * Full snapshot of the same index that another replica has stored first: it is
   * kept, because that replica may have reported it.
   */
  async #sameOfAnother(
    header: SnapshotHeader,
  ): Promise<SnapshotInfo | undefined> {
    if (header.kind !== "full") return undefined;
    return (await this.#full(this.#context.store)).find(({ index, nodeID }) =>
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
    const [there] = await this.#full(shared);
    if (there !== undefined && there.index >= newest.index) return undefined;
    const source = pacedSource(await store.open(newest), env);
    return await copySnapshot(source, shared, () => {});
  }

  /**
   * Verifies the two newest full snapshots, removes all older ones, and returns the
   * older of the two. Of damaged ones only the one just `taken` is removed: the log
   * may have been compacted for others, which may be readable the next time.
   */
  async #keepGood(
    store: SnapshotStore,
    taken: SnapshotInfo | undefined,
    skips: readonly SkippedEntry[],
  ): Promise<SnapshotInfo | undefined> {
    // A snapshot with a skipped entry does not replace an older one.
    const full = (await this.#full(store)).filter(({ index }) =>
      isUsable(index, skips)
    );
    let good = 0;
    for (const [i, info] of full.entries()) {
      if (await this.#isGood(store, info)) good++;
      else if (info.id === taken?.id) await store.remove(info);
      if (good < SNAPSHOTS_KEPT) continue;
      for (const old of full.slice(i + 1)) await store.remove(old);
      return info;
    }
    return undefined;
  }

  async #isGood(store: SnapshotStore, info: SnapshotInfo): Promise<boolean> {
    let verified = this.#verified.get(store);
    if (verified === undefined) {
      this.#verified.set(store, verified = new Set());
    }
    const isInvalid = (): boolean =>
      store === this.#context.store && this.#invalid.has(info.id);
    if (isInvalid()) return false;
    if (verified.has(info.id)) return true;
    try {
      const { transform } = verifySnapshot();
      await pacedSource(await store.open(info), this.#context.env)
        .pipeThrough(transform).pipeTo(new WritableStream());
    } catch (error) {
      // Another replica that shares the store has removed it.
      if (error instanceof ErrSnapshotNotFound) return false;
      if (!isDamage(error)) throw error;
      this.#context.event({ type: "snapshot failed", error });
      return false;
    }
    if (isInvalid()) return false;
    // Bounds the set: removed snapshots stay in it otherwise.
    if (verified.size > 4 * SNAPSHOTS_KEPT) verified.clear();
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
    const lost = new AbortController();
    const ended = new AbortController();
    const stopped = this.#stopped.signal;
    // A write that waits for its reader ends only with the reader.
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
      : this.#stopped.signal.aborted
      ? new ErrClusterClosed(undefined, { cause: error })
      // The machine was not asked to stop: it declined (R8).
      : error instanceof ErrSnapshotStopped
      ? new ErrSnapshotAborted(undefined, { cause: error })
      : error;
  }

  async #export(
    writable: WritableStream<Uint8Array>,
    ended: AbortSignal,
    lost: AbortSignal,
  ): Promise<void> {
    const { config, store, files, log, env } = this.#context;
    const { clusterID, nodeID, compression = "none" } = config;
    const { signal, release } = anySignal(this.#stopped.signal, ended);
    let retention: Retention | undefined;
    try {
      this.#machine.check();
      if (this.#machine.current.machine.type === RegularStateMachine) {
        // It is saved under a lock, which must not wait for a slow receiver.
        const taken = await this.#request(ended, (info) => {
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
          // The receiver needs the log after it (H7).
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
      throw !this.#stopped.signal.aborted && error instanceof MachineFailure
        ? this.#fail(error.cause)
        : error;
    } finally {
      retention?.release();
      release();
    }
  }

  /** Ends the snapshots under way; resolves once they have ended. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ErrSnapshotStopped());
    await this.#last;
    this.#retention?.release();
  }
}
