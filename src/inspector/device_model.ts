/**
 * Model of an inspected replica: what its state is, what can be done with it, and
 * what its earlier states were. Knows nothing of a page.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, anySignal, notify, timeLimit } from "../async.ts";
import type { Env } from "../env.ts";
import {
  INSPECTOR_ANSWER_MS_MAX,
  INSPECTOR_EDITS_MAX,
  INSPECTOR_SAMPLE_MS,
} from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type {
  Agreement,
  LoggedSession,
  NodeHost,
  PastState,
  Replica,
  ReplicaHistory,
  ReplicaStatus,
  Submission,
} from "../nodehost/mod.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { verifySnapshot } from "../snapshot/verifier.ts";
import type { RemoteStatus } from "../sync/client/status.ts";
import type { TabStatus } from "../tabs/shared_tabs.ts";
import type { OtherTab } from "../tabs/tab_state.ts";
import { type Differences, differencesOf } from "./difference.ts";
import { decoded, LogTail, type ShownEntry } from "./log_tail.ts";
import { envOf, type InspectorOptions } from "./options.ts";
import { type Sample, Samples } from "./samples.ts";
import { errorText } from "./show.ts";
import { type StorageReport, storageReport } from "./storage.ts";

/** State of a replica at one moment. */
export interface DeviceReport {
  readonly replica: Replica;
  readonly status: ReplicaStatus;
  /** Submissions that are not applied; the oldest of them. */
  readonly pending: readonly Submission[];
  readonly pendingCount: number;
  readonly sessions: readonly LoggedSession[];
  readonly snapshots: readonly SnapshotInfo[];
  /** State hash with its index; undefined for a machine without one. */
  readonly hash: { readonly index: number; readonly hash: bigint } | undefined;
  /** Undefined where there is no storage manager. */
  readonly storage: StorageReport | undefined;
  /** Last agreement of the state with that of another replica; undefined before the first. */
  readonly agreement: Agreement | undefined;
  readonly connection: RemoteStatus | undefined;
  readonly tabs: TabStatus | undefined;
  /** Other tabs that have answered, the leader first. */
  readonly others: readonly OtherTab[];
}

/** State as of an entry beside the present one. */
export interface Travelled {
  /** Entry of the earlier state. */
  readonly index: number;
  /** Index of the snapshot from which the earlier state was computed; 0 for the beginning of the log. */
  readonly base: number;
  /** Index of the present state. */
  readonly now: number;
  /** Earlier state; undefined if the options do not say how to read it. */
  readonly before: unknown;
  /** Present state. */
  readonly after: unknown;
  readonly hash: bigint | undefined;
  readonly hashNow: bigint | undefined;
  readonly differences: Differences;
}

/** State hash of a replica beside others at the same index. */
export interface Comparison {
  readonly index: number;
  readonly here: bigint;
  /** Hash after a replay of the log into a new machine; an error if that was not possible. */
  readonly replayed: bigint | Error;
  /** Hash of the server or of another trusted replica; undefined without such a replica, or if it does not answer. */
  readonly trusted: bigint | undefined;
}

/** File that an export results in. */
export interface ExportedFile {
  readonly name: string;
  readonly content: Blob;
}

/** Submission in an exported file. */
interface ExportedEdit {
  readonly id: number;
  readonly state: string;
  /** Command in Base64. */
  readonly cmd: string;
}

/** Model of an inspected replica. */
export class DeviceModel {
  readonly #options: InspectorOptions;
  readonly #env: Env;
  readonly #samples = new Samples();
  readonly #listeners = new Set<() => void>();
  readonly #stopped = new AbortController();
  /** Submissions whose latency is measured or was, by number. */
  readonly #timed = new Set<number>();
  #replica: Replica;
  #tail: LogTail;
  #unwatch: () => void;
  #report: DeviceReport | undefined;
  #cancel: (() => void) | undefined;

  /** Begins to look at the replica in the options, until it is closed. */
  constructor(options: InspectorOptions & { readonly replica: Replica }) {
    this.#options = options;
    this.#env = envOf(options);
    this.#replica = options.replica;
    this.#tail = this.#follow();
    this.#unwatch = this.#watchPending();
    // Those that were pending before have no beginning.
    for (const { id } of this.#replica.pending()) this.#timed.add(id);
    // Never rejects: parts that fail are left out.
    void this.#look();
  }

  /** Replica that is shown: another one after it was started over. */
  get replica(): Replica {
    return this.#replica;
  }

  /** State at the last look; undefined before the first. */
  get report(): DeviceReport | undefined {
    return this.#report;
  }

  /** Newest entries of the log. */
  get entries(): readonly ShownEntry[] {
    return this.#tail.entries;
  }

  /** Reason why the log cannot be read now. */
  get logProblem(): string | undefined {
    return this.#tail.problem;
  }

  /** Samples of throughput and latency. */
  get samples(): readonly Sample[] {
    return this.#samples.list;
  }

  /** Calls `listener` after each look and each part of the log; returns a function that ends the calls. */
  watch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Ends all work. */
  close(): void {
    this.#stopped.abort();
    this.#tail.close();
    this.#unwatch();
    this.#cancel?.();
  }

  /** Decodes a command for people; undefined if the options do not say how. */
  decode(cmd: Uint8Array): unknown {
    const { machine } = this.#options;
    return machine?.decode === undefined
      ? undefined
      : decoded((cmd) => machine.decode!(cmd), cmd);
  }

  #follow(): LogTail {
    const { machine } = this.#options;
    return new LogTail({
      replica: this.#replica,
      env: this.#env,
      decode: machine?.decode &&
        ((cmd, result) => machine.decode!(cmd, result)),
      changed: () => this.#changed(),
    });
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) notify(listener);
  }

  // ------------------------------------------------------------------- looking

  async #look(): Promise<void> {
    const { signal } = this.#stopped;
    if (signal.aborted) return;
    this.#samples.tick(this.#replica.appliedIndex, Date.now());
    this.#report = await this.#describe();
    if (signal.aborted) return;
    this.#changed();
    this.#cancel = this.#env.setTimer(
      () => void this.#look(),
      INSPECTOR_SAMPLE_MS,
    );
  }

  async #describe(): Promise<DeviceReport> {
    const replica = this.#replica;
    const { host, connection, tabs } = this.#options;
    const { clusterID } = replica;
    const [history, snapshots, hash, storage, others] = await Promise.all([
      optionally(() => replica.history()),
      optionally(async () => await host?.snapshots.list(clusterID)),
      optionally(() => replica.getHash()),
      optionally(storageReport),
      optionally(async () => await tabs?.others?.()),
    ]);
    return {
      replica,
      status: replica.status,
      pending: replica.pending(),
      pendingCount: replica.pendingCount,
      sessions: history?.sessions() ?? [],
      agreement: history?.agreement(),
      snapshots: snapshots ?? [],
      hash,
      storage,
      connection: connection?.status,
      tabs: tabs?.status,
      others: others ?? [],
    };
  }

  /** Measures the time from the submission of a command to its result. */
  #watchPending(): () => void {
    const replica = this.#replica;
    return replica.onPending(() => {
      for (const { id, state, result } of replica.pending()) {
        if (state !== "queued" || this.#timed.has(id)) continue;
        this.#timed.add(id);
        const from = this.#env.now();
        result.then(
          () => this.#samples.took(this.#env.now() - from),
          () => {},
        );
      }
      if (this.#timed.size <= 2 * replica.pendingCount + 1024) return;
      const open = new Set(replica.pending().map(({ id }) => id));
      for (const id of this.#timed) if (!open.has(id)) this.#timed.delete(id);
    });
  }

  // --------------------------------------------------------------- time travel

  /** Reads the state through a query function; undefined if the options do not say how. */
  async #stateOf(lookup: (query: unknown) => unknown): Promise<unknown> {
    return await this.#options.machine?.stateOf?.(lookup);
  }

  /**
   * Computes the state as of an entry, and compares it with the present one.
   *
   * @throws Error if the log does not lead to that state any more, with a reason for people
   */
  async travel(
    index: number,
    signal?: AbortSignal,
    progress?: (index: number) => void,
  ): Promise<Travelled> {
    const replica = this.#replica;
    const history = await replica.history();
    signal?.throwIfAborted();
    const past = await this.#stateAt(history, index, signal, progress);
    try {
      signal?.throwIfAborted();
      const [before, hash] = [
        await this.#stateOf((query) => past.lookup(query)),
        await past.getHash(),
      ];
      const present = await optionally(() => replica.getHash());
      const after = await this.#stateOf((query) => replica.staleRead(query));
      return {
        index,
        base: past.base,
        now: present?.index ?? replica.appliedIndex,
        before,
        after,
        hash,
        hashNow: present?.hash,
        differences: differencesOf(before, after),
      };
    } finally {
      await past.close();
    }
  }

  async #stateAt(
    history: ReplicaHistory,
    index: number,
    signal?: AbortSignal,
    progress?: (index: number) => void,
  ): Promise<PastState> {
    try {
      return await history.stateAt(index, {
        ...(signal === undefined ? {} : { signal }),
        ...(progress === undefined ? {} : { progress }),
      });
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof ErrCompacted)) throw error;
      const first = await this.firstState();
      throw new Error(
        `The log no longer has entry ${index}, and no snapshot on this device is at or below it; choose ${
          first > index ? `an entry from ${first} on` : "a later entry"
        }`,
        { cause: error },
      );
    }
  }

  /** Index of the first entry as of which the state can be computed, as far as is known: another tab or a server may have the log. */
  async firstState(): Promise<number> {
    const { logInfo, clusterID, appliedIndex } = this.#replica;
    if (logInfo === undefined || logInfo.first > logInfo.last) return 0;
    const { first } = logInfo;
    if (first === 1) return 0;
    const { host } = this.#options;
    const known = await optionally(async () =>
      await host?.snapshots.list(clusterID)
    );
    const bases = (known ?? [])
      .filter(({ kind, index }) => kind === "full" && index >= first - 1)
      .map(({ index }) => index);
    return Math.min(appliedIndex, ...bases);
  }

  // ------------------------------------------------------------------- actions

  /** Compares the state hash of this replica with a replay of the log, and with that of the server. */
  async compare(wanted?: AbortSignal): Promise<Comparison> {
    const replica = this.#replica;
    const { index, hash: here } = await replica.getHash();
    const history = await replica.history();
    const late = timeLimit(
      this.#env,
      INSPECTOR_ANSWER_MS_MAX,
      "Nothing was answered",
    );
    const { signal, release } = anySignal(late.signal, wanted);
    try {
      const [replayed, trusted] = await Promise.all([
        this.#replayedHash(history, index, signal),
        optionally(() => abortable(history.trustedHash(index, signal), signal)),
      ]);
      wanted?.throwIfAborted();
      return { index, here, replayed, trusted };
    } finally {
      late.release();
      release();
    }
  }

  async #replayedHash(
    history: ReplicaHistory,
    index: number,
    signal: AbortSignal,
  ): Promise<bigint | Error> {
    try {
      const past = await abortable(
        this.#stateAt(history, index, signal),
        signal,
      );
      const hash = await past.getHash().finally(() => past.close());
      return hash ?? new Error("Machine has no getHash()");
    } catch (error) {
      return error instanceof Error ? error : new Error(errorText(error));
    }
  }

  /** Takes a snapshot now. */
  async snapshot(): Promise<SnapshotInfo> {
    const info = await this.#replica.requestSnapshot();
    this.#lookSoon();
    return info;
  }

  #lookSoon(): void {
    this.#cancel?.();
    // Never rejects: parts that fail are left out.
    void this.#look();
  }

  get #host(): NodeHost {
    const { host } = this.#options;
    if (host !== undefined) return host;
    throw new TypeError(
      "Option `host` of the inspector is not set; give the NodeHost of the replica",
    );
  }

  /** Exports the state as a snapshot, and the submissions that the cluster may not have as a file beside it. */
  async exportFiles(): Promise<readonly ExportedFile[]> {
    const { clusterID } = this.#replica;
    const { snapshot, pending, appliedIndex } = await this.#host.exportData(
      clusterID,
    );
    const name = `cluster-${clusterID}-${appliedIndex}`;
    const content = await new Response(snapshot).blob();
    const edits = pending.map(({ id, state, cmd }): ExportedEdit => ({
      id,
      state,
      cmd: toBase64(cmd),
    }));
    return [
      { name: `${name}.snapshot`, content },
      ...(edits.length === 0 ? [] : [{
        name: `${name}-edits.json`,
        content: new Blob([JSON.stringify(edits)], {
          type: "application/json",
        }),
      }]),
    ];
  }

  /**
   * Imports a file of {@linkcode DeviceModel.exportFiles}: submits edits again, or
   * replaces state and log by a snapshot. Returns a description of what was done.
   *
   * @throws Error if the file is neither, or cannot be imported here, with a reason for people
   */
  async importFile(file: Blob): Promise<string> {
    const first = new Uint8Array(await file.slice(0, 1).arrayBuffer())[0];
    if (first === "[".charCodeAt(0)) return await this.#importEdits(file);
    const host = this.#host;
    const { clusterID } = this.#replica;
    await checkSnapshot(file, clusterID);
    if (host.logDB.isCopy) {
      throw new Error(
        `The log of cluster ${clusterID} is ordered by a server, so its state cannot be replaced on one device; import the snapshot on the server`,
      );
    }
    const { restart } = this.#options;
    if (restart === undefined) {
      throw new TypeError(
        "Option `restart` of the inspector is not set; give a function that starts the cluster again",
      );
    }
    const [backup] = await this.exportFiles();
    await host.stopCluster(clusterID);
    try {
      await host.removeData(clusterID);
    } catch (error) {
      await this.#restart(restart);
      throw error;
    }
    try {
      await host.importSnapshot(clusterID, file.stream());
      await this.#restart(restart);
    } catch (error) {
      await host.stopCluster(clusterID).catch(() => {});
      await host.removeData(clusterID).catch(() => {});
      await host.importSnapshot(clusterID, backup!.content.stream());
      await this.#restart(restart);
      throw new Error(
        `The snapshot could not be imported, and the state before is back: ${
          errorText(error)
        }`,
        { cause: error },
      );
    }
    return `The state is now that of the file, at entry ${this.#replica.appliedIndex}`;
  }

  async #importEdits(file: Blob): Promise<string> {
    const edits: unknown = JSON.parse(await file.text());
    if (!Array.isArray(edits) || edits.length > INSPECTOR_EDITS_MAX) {
      throw new RangeError(
        `File is not a list of up to ${INSPECTOR_EDITS_MAX} edits; choose one that was exported here`,
      );
    }
    const cmds = edits.map((edit: Partial<ExportedEdit> | null, i) => {
      const cmd = typeof edit?.cmd === "string"
        ? fromBase64(edit.cmd)
        : undefined;
      if (cmd !== undefined) return cmd;
      throw new RangeError(
        `Edit ${
          i + 1
        } of the file has no command in Base64; nothing was imported`,
      );
    });
    for (const cmd of cmds) await this.#replica.submit(cmd);
    return `Submitted ${cmds.length} ${
      cmds.length === 1 ? "edit" : "edits"
    } of the file`;
  }

  async #restart(restart: () => Promise<Replica>): Promise<void> {
    this.#use(await restart());
  }

  /** Starts the cluster over on the server's history; edits that wait stay. */
  async startOver(): Promise<void> {
    const { startOver } = this.#options;
    if (startOver !== undefined) {
      await startOver();
      return;
    }
    this.#use(await this.#host.startOver(this.#replica.clusterID));
  }

  /** Shows another replica. */
  #use(replica: Replica): void {
    this.#replica = replica;
    this.#tail.close();
    this.#unwatch();
    this.#timed.clear();
    this.#tail = this.#follow();
    this.#unwatch = this.#watchPending();
    this.#lookSoon();
  }
}

/** Value of a function; undefined if it throws: the rest is shown all the same. */
async function optionally<T>(
  work: () => T | Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch {
    return undefined;
  }
}

/** Checks that a file is a whole snapshot of a cluster, before anything is removed for it. */
async function checkSnapshot(file: Blob, clusterID: bigint): Promise<void> {
  const { transform, header } = verifySnapshot();
  await file.stream().pipeThrough(transform).pipeTo(new WritableStream());
  const { clusterID: found, kind } = await header;
  if (found === clusterID && kind === "full") return;
  throw new RangeError(
    `File is a ${kind} snapshot of cluster ${found}; choose a full one of cluster ${clusterID}`,
  );
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Decodes Base64; undefined for another text. */
function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}
