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
import { skipsAfter } from "./skipping.ts";
import { abortable, anySignal, pacedSink, pacedSource } from "../async.ts";

/** Whether an error says that a snapshot itself is of no use. */
function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Second reader of a container that is copied. */
interface Inspection {
  /** Gives it the next bytes. Rejects with what is wrong, if anything is. */
  write(bytes: Uint8Array): Promise<void>;
  /** Waits until it has read all. Rejects with what is wrong, if anything is. */
  close(): Promise<void>;
  /** Gives it up, where the copy has failed. */
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
      // What it does not take any more, it has failed with.
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

/** Copies a container into a store, verified on the way; `check` may refuse it by its header. */
export async function copySnapshot(
  source: ReadableStream<Uint8Array>,
  store: SnapshotStore,
  check: (header: SnapshotHeader) => void,
  options: {
    readonly imported?: boolean;
    readonly signal?: AbortSignal;
    readonly beforeCommit?: (header: SnapshotHeader) => unknown;
    /** Reads the same container; the copy is dropped if it rejects. */
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
    inspection = inspecting(options.inspect);
    for (const bytes of held) {
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

/** Takes a replica's snapshots. */
export class Snapshotter {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #stopped = new AbortController();
  /** One snapshot at a time. */
  #last: Promise<unknown> = Promise.resolve();
  #busy = 0;
  /** Index at which a snapshot was last taken, or tried. */
  #index = 0;
  #metadataTaken = 0;
  /** What the machine failed with. */
  #failure: unknown;
  /** Ids of those that were read back, by store: an id means something only there. */
  readonly #verified = new Map<SnapshotStore, Set<string>>();
  /** Ids of those, in the host's own store, that the machine wrote to after it had ended them (H16). */
  readonly #bad = new Set<string>();
  /** What the log must keep for this replica to come up again. */
  readonly #retention: Retention | undefined;

  /** The snapshots of a replica that came up from `index`; its log keeps what comes after `retain`, if given. */
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

  /** From now on the log is to keep what comes after `index` for an on-disk machine that was brought up from there. */
  retain(index: number): void {
    this.#retention?.move(index);
  }

  /** Takes a snapshot if it is time (H7). */
  applied(index: number): void {
    if (
      !this.#isDue(index) || this.#busy > 0 || this.#machine.current.behind ||
      this.#machine.current.ahead
    ) return;
    this.#index = index;
    this.request().catch(() => {
      // Told by an event.
    });
  }

  #isDue(index: number): boolean {
    const { config: { snapshotEntries = 0 }, log, isDurable } = this.#context;
    if (snapshotEntries > 0 && index - this.#index >= snapshotEntries) {
      return true;
    }
    // One that is gone with the host would take with it what is cut for it.
    const from = log.snapshotFrom ?? 0;
    return isDurable && this.#index < from && index >= from;
  }

  /** An on-disk machine that keeps the host's rows is durable up to `index`. */
  synced(index: number): void {
    if (this.#machine.current.machine.hostState !== undefined) {
      this.#retention?.move(index);
    }
  }

  /** Takes a snapshot into the host's store, after those under way; `overhead` replaces the replica's `compactionOverhead` for this one. */
  request(signal?: AbortSignal, overhead?: number): Promise<SnapshotInfo> {
    return this.#request(signal, (info) => info, overhead);
  }

  /** Cuts the log as far as the snapshots that are there allow, after what is under way; resolves with the index asked for, 0 if they allow nothing. */
  compact(signal?: AbortSignal, overhead?: number): Promise<number> {
    const { log } = this.#context;
    if (log.compact === undefined) {
      return Promise.reject(
        new ErrNotImplemented(
          "Log is on another host and has no copy here: request the compaction there",
        ),
      );
    }
    const compacted = this.#enqueue(() => {
      signal?.throwIfAborted();
      return this.#tidy(undefined, overhead);
    });
    return abortable(compacted, signal);
  }

  /** As `request()`; `use` comes before another snapshot may take its place. */
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
          // Before older ones make room, or another replica's take its place.
          used = await use(info);
        } catch (error) {
          // It is another replica's, which has replaced or removed it meanwhile.
          if (
            error instanceof ErrSnapshotNotFound &&
            info.nodeID !== this.#context.config.nodeID
          ) continue;
          throw error;
        }
        await this.#tidy(info, overhead).catch((error) => this.#untidy(error));
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
            "Replica has skipped an entry for which the record that decides so is still to be applied: request the snapshot again later",
          );
        }
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
    if (error instanceof MachineFailure) return this.#fail(error.cause);
    this.#context.event({ type: "snapshot failed", error });
    // Nobody asked it to stop: it chose to (R8).
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
      // It may have been found to be wrong while the store was asked.
      this.#machine.check(saved);
      if (late !== undefined) throw late;
      const info = made = await sink!.commit(totals);
      if (late !== undefined) {
        this.#bad.add(info.id);
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

  /** Removes a snapshot that turned out to lack a part of the state, wherever it is by now. */
  #discard(made: SnapshotInfo, error: ErrSnapshotUnfinished): void {
    const { store, shared, event } = this.#context;
    // Until it is removed it does not count as good.
    this.#bad.add(made.id);
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

  /** Removes what is older than what is kept, then cuts the log as far as that allows. */
  async #tidy(
    taken: SnapshotInfo | undefined,
    overhead: number | undefined,
  ): Promise<number> {
    const { config, store, shared, log, event } = this.#context;
    const { clusterID, nodeID, compactionOverhead = 0 } = config;
    // What others have decided may be in the log, and not applied here yet.
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

  /** Removes the snapshots of states that hold an entry which is skipped. */
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

  /** The snapshot is there all the same; what could not be removed goes with the next one. */
  #untidy(error: unknown): void {
    if (this.#stopped.signal.aborted || error instanceof MachineFailure) {
      throw error;
    }
    this.#context.event({ type: "snapshot failed", error });
  }

  /**
   * The full snapshot of that index that another replica has put into the store
   * meanwhile: the first one stays, so that what its maker says of it holds.
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

  /** Puts the newest full snapshot where every replica can get it; undefined if it is there already. */
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
   * Finds the two newest full snapshots that read back good, removes all that is
   * older, and returns the older of the two. Of damaged ones only that `taken`
   * just now is removed: others the log may have been cut for, and what was read
   * wrong once may be read right the next time.
   */
  async #keepGood(
    store: SnapshotStore,
    taken: SnapshotInfo | undefined,
    skips: readonly SkippedEntry[],
  ): Promise<SnapshotInfo | undefined> {
    // One with an entry that is skipped does not replace an older one.
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
    const bad = (): boolean =>
      store === this.#context.store && this.#bad.has(info.id);
    if (bad()) return false;
    if (verified.has(info.id)) return true;
    try {
      const { transform } = verifySnapshot();
      await pacedSource(await store.open(info), this.#context.env)
        .pipeThrough(transform).pipeTo(new WritableStream());
    } catch (error) {
      // Another replica that shares the store has removed it meanwhile.
      if (error instanceof ErrSnapshotNotFound) return false;
      if (!isDamage(error)) throw error;
      this.#context.event({ type: "snapshot failed", error });
      return false;
    }
    if (bad()) return false;
    // Those that are gone are of no interest any more.
    if (verified.size > 4 * SNAPSHOTS_KEPT) verified.clear();
    verified.add(info.id);
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
    const lost = new AbortController();
    const ended = new AbortController();
    const stopped = this.#stopped.signal;
    // A write that waits for a reader ends with the reader, or not at all.
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
          throw this.#judgeExport(error);
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

  /** The machine failed: the end of the replica, and of all that is under way. */
  #fail(cause: unknown): unknown {
    this.#failure = cause;
    this.#context.fail(cause);
    return cause;
  }

  /** What to tell the receiver. */
  #judgeExport(error: unknown): unknown {
    if (error instanceof MachineFailure) return error.cause;
    return this.#failure !== undefined
      ? this.#failure
      : this.#stopped.signal.aborted
      ? new ErrClusterClosed(undefined, { cause: error })
      // The machine was not asked to stop: it chose to (R8).
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
        // It is saved under a lock, which a slow receiver must not hold.
        const taken = await this.#request(ended, (info) => {
          retention = log.retain(info.index);
          return store.open(info);
        });
        await taken.pipeTo(writable, { signal });
        return;
      }
      const saved = this.#machine.current;
      if (saved.ahead) {
        throw new ErrSystemBusy("Replica is about to apply a skipped entry");
      }
      await saveSnapshot(saved, {
        header: { clusterID, nodeID, kind: "full", compression },
        create: (header) => {
          // Who receives it needs the log after it (H7).
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

  /** Ends what is under way; settles once it has ended. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ErrSnapshotStopped());
    await this.#last;
    this.#retention?.release();
  }
}
