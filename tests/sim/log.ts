/**
 * The log that the servers share: inside a server's process, or a process of its
 * own that calls reach after some time, which dies and comes back. Its appends
 * fail, are lost, land long after they were told to be of unknown outcome, or
 * land again.
 *
 * @module
 */

import { ErrUnknownOutcome, MemoryLogDB } from "../../mod.ts";
import { isPromise } from "../../src/async.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { MemoryCheckpointBoard } from "../../src/log/cluster_log.ts";
import type {
  CheckpointBoard,
  Log,
  LogBatch,
  LogDB,
  LogInfo,
  LogReader,
  LogStorage,
  ReadOptions,
  Records,
  Retention,
  SnapshotStore,
} from "../../src/ports/mod.ts";
import type { BlockStore } from "../../src/store/mod.ts";
import { recordAt, RecordKind } from "../../src/log/records.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import type { MaybePromise } from "../../src/statemachine/types.ts";
import type { SimulatedEnv } from "../../src/testing/simulated_clock.ts";
import { FaultySnapshotStore } from "../support/faults.ts";
import type { WorldContext } from "./context.ts";
import { type Backup, restoreBackup, takeBackup } from "./backup.ts";
import { type Damage, missedIfLost, SimulatedDisk } from "./disk.ts";
import { observeLogs } from "./log_observer.ts";
import type { End } from "./plan.ts";

/** Fault of one append. */
type AppendFault = "fail" | "lost" | "committed" | "late" | "twice" | "again";

const APPEND_FAULTS: readonly AppendFault[] = [
  "fail",
  "lost",
  "committed",
  "late",
  "twice",
  "again",
];

const LOST_CONNECTION = "ECONNRESET: connection to the log was lost";

/** Process that calls the log. */
export interface Caller {
  readonly name: string;
  readonly env: SimulatedEnv;
}

/** True if every record of an append is a proposal of a session, which the state machines deduplicate. */
function isDeduplicated(records: Records): boolean {
  return records.ends.every((_, i) =>
    recordAt(records, i)[0] === RecordKind.SessionProposal
  );
}

/** Log of the servers, over all lives of its process. */
export class LogService {
  readonly #context: WorldContext;
  readonly #random: () => number;
  readonly isRemote: boolean;
  readonly #boards = new Map<bigint, CheckpointBoard>();
  #memory: MemoryLogDB | undefined;
  #disk: SimulatedDisk | undefined;
  #env: SimulatedEnv;
  #logDB: LogDB | undefined;
  #stores: SnapshotStore | undefined;
  /** Number of times that the process has ended. */
  life = 0;
  readonly #broken = new Set<string>();
  readonly #readers = new Map<string, Set<(error: Error) => void>>();
  /** Called when the process ends. */
  readonly #ends = new Set<() => void>();
  /** Logs that are open in its process. */
  readonly #open = new Set<Log>();
  /** Snapshots of a log that is a process of its own: in another service, which does not die. */
  #bucket: SimulatedDisk | undefined;
  #backup: Backup | undefined;
  /** Last indexes of the logs that readers had seen when the backup began. */
  #backedUp = new Map<bigint, number>();

  constructor(context: WorldContext) {
    this.#context = context;
    const { profile, env } = context;
    this.#random = context.random("log");
    this.isRemote = profile.isRemoteLog;
    this.#env = env;
    if (profile.log === "disk") {
      this.#disk = new SimulatedDisk(env);
      if (this.isRemote) this.#bucket = new SimulatedDisk(env);
    } else {
      this.#memory = new MemoryLogDB({ env });
      observeLogs(this.#memory, context.history, "log");
    }
  }

  /** True while it can be called. */
  get isUp(): boolean {
    return this.#logDB !== undefined;
  }

  /** True if its disk is damaged. */
  get isDamaged(): boolean {
    return this.#disk?.isDamaged ?? false;
  }

  /** Disk of the log; undefined for a log in memory. */
  get disk(): SimulatedDisk | undefined {
    return this.#disk;
  }

  /** Starts it, in a process of its own or in that of the one server. */
  start(embedding?: Caller): void {
    const context = this.#context;
    const { name, env } = embedding ?? context.newProcess("log");
    this.#env = env;
    if (this.#disk === undefined) {
      this.#logDB = this.#memory!;
      this.#stores = this.#memory!.snapshots;
    } else {
      const store = this.#openDisk(this.#disk, env);
      if (this.#bucket === undefined) {
        this.#stores = new BlockSnapshotStore(store, { env });
      } else {
        this.#stores ??= new BlockSnapshotStore(
          this.#openDisk(this.#bucket, context.env),
          { env: context.env },
        );
      }
      this.#logDB = new BlockLogDB(store, { env, snapshots: this.#stores });
      observeLogs(this.#logDB, context.history, name);
    }
  }

  #openDisk(disk: SimulatedDisk, env: SimulatedEnv): BlockStore {
    const random = this.#random;
    return disk.open(
      env,
      this.#context.profile.isSlowDisk ? () => 1 + random() % 4 : undefined,
    );
  }

  #faultySnapshots(inner: SnapshotStore): SnapshotStore {
    const context = this.#context;
    const { snapshotFaults } = context.profile;
    if (snapshotFaults === 0) return inner;
    const random = this.#random;
    const faulty = new FaultySnapshotStore(inner);
    const isFaulty = (of: number): boolean =>
      !context.isHealing && random() % of === 0;
    faulty.before = (step): void => {
      if (!isFaulty(snapshotFaults)) return;
      context.history.fault("snapshot store fails");
      throw new Error(`EIO: snapshot store fails to ${step}`);
    };
    faulty.damaged = (): boolean => {
      const isDamaged = isFaulty(snapshotFaults);
      if (isDamaged) context.history.fault("snapshot is read damaged");
      return isDamaged;
    };
    return faulty;
  }

  /** Ends its process; calls under way fail, those of other processes after some time. */
  async stop(how: End): Promise<void> {
    const logDB = this.#logDB!;
    this.#logDB = undefined;
    this.life++;
    for (const end of this.#ends) end();
    this.#ends.clear();
    for (const nodes of [...this.#readers.keys()]) this.#fail(nodes);
    const open = [...this.#open];
    this.#open.clear();
    if (this.#disk === undefined) {
      for (const log of open) await log.close();
      return;
    }
    if (how === "stop") {
      await logDB.close();
      if (this.#bucket === undefined) await this.#stores!.close();
      return;
    }
    if (this.isRemote) this.#env.kill();
  }

  /** Cuts the disk off from a process that was killed; of the writes that are not synced, some survive. */
  crash(how: End, written: number): void {
    if (this.#disk === undefined) return;
    this.#disk.crash(
      how === "kill" ? Infinity : written % (this.#disk.unsynced + 1),
    );
  }

  /** Damages a block of a log; its process must have ended. */
  damage(how: Damage, block: number): boolean {
    const all = this.#disk?.names("log/") ?? [];
    const names = how === "lost" ? missedIfLost(all) : all;
    if (names.length === 0) return false;
    this.#disk!.damage(names[block % names.length]!, how, this.#random);
    return true;
  }

  /** Begins a backup of the log and the snapshots, which their processes go on to use. */
  backUp(): void {
    const logDB = this.#logDB;
    if (!(logDB instanceof BlockLogDB)) return;
    const context = this.#context;
    const { history, clusters } = context;
    const { life } = this;
    const env = this.#env;
    const seen = new Map(clusters.map((one) => [one, history.lastIndex(one)]));
    const rest = (): Promise<void> =>
      new Promise((resolve) =>
        void env.setTimer(resolve, this.#random() % 100)
      );
    context.background(
      env,
      "Backup",
      takeBackup(logDB, this.#stores!, env, rest).then((backup) => {
        // One that a restore has overtaken is of a history that is gone.
        if (this.life !== life) return;
        history.met("event", "backup");
        this.#backup = backup;
        this.#backedUp = seen;
      }, (error) => {
        history.failed(error);
        if (this.life !== life || this.isDamaged) return;
        context.fail("backup", `Backup of the log failed: ${error}`);
      }),
    );
  }

  /** True if there is a backup. */
  get hasBackup(): boolean {
    return this.#backup !== undefined;
  }

  /** Puts the last backup in the place of the disk; the process must have ended. */
  restore(): void {
    const { env } = this.#context;
    const disk = new SimulatedDisk(env);
    const bucket = this.#bucket === undefined
      ? undefined
      : new SimulatedDisk(env);
    this.#context.until(
      restoreBackup(this.#backup!, disk, bucket ?? disk, env),
      "Restore of the backup",
    );
    this.#disk = disk;
    this.#bucket = bucket;
    this.#stores = this.#backup = undefined;
    // Hashes of the history that is gone say nothing of this one.
    this.#boards.clear();
    for (const [cluster, seen] of this.#backedUp) {
      const last = this.lastIndex(cluster);
      if (last >= seen) continue;
      this.#context.fail(
        "backup",
        `Backup has cluster ${cluster} up to ${last}, and began when readers had seen ${seen}`,
      );
    }
  }

  /** Last index of a log that is on the disk, while its process does not run. */
  lastIndex(cluster: bigint): number {
    const { env } = this.#context;
    const last = async (): Promise<number> => {
      // A copy: opening may write.
      const copy = this.#disk!.copy();
      copy.repair();
      const logDB = new BlockLogDB(copy.open(env), { env });
      const log = await logDB.open(cluster, 1n);
      const { last } = log.info!();
      await logDB.close();
      return last;
    };
    return this.#context.until(last(), "Opening of the log");
  }

  /** Fails every read of a process until `mend()`. */
  break(process: string): void {
    this.#broken.add(process);
    this.#fail(process);
  }

  /** True if reads of a process reach the log. */
  isReachable(process: string): boolean {
    return this.isUp && !this.#broken.has(process);
  }

  mend(process: string | undefined): void {
    if (process === undefined) this.#broken.clear();
    else this.#broken.delete(process);
  }

  #fail(process: string): void {
    const waiting = this.#readers.get(process);
    this.#readers.delete(process);
    for (const fail of waiting ?? []) fail(new Error(LOST_CONNECTION));
  }

  /** Throws if reads of a process, in a life of the log's process, fail now. */
  checkReads(process: string, life: number = this.life): void {
    if (this.#broken.has(process) || life !== this.life) {
      throw new Error(LOST_CONNECTION);
    }
  }

  /** Calls `fail` when the reads of a process break. */
  watchReads(process: string, fail: (error: Error) => void): () => void {
    let readers = this.#readers.get(process);
    if (readers === undefined) {
      this.#readers.set(process, readers = new Set());
    }
    readers.add(fail);
    return () => void readers.delete(fail);
  }

  /**
   * Calls the process of the log; rejects if it ends before it has answered. A disk
   * that was cut off from its process never answers, but the caller notices that its
   * connection is over.
   */
  async answered<T>(call: MaybePromise<T>): Promise<T> {
    if (!isPromise(call)) return call;
    return await new Promise((resolve, reject) => {
      const end = (): void => reject(new Error(LOST_CONNECTION));
      this.#ends.add(end);
      call.then(resolve, reject).finally(() => this.#ends.delete(end));
    });
  }

  /** Draws the fault of an append. */
  drawFault(records: Records): AppendFault | undefined {
    const { appendFaults } = this.#context.profile;
    if (
      appendFaults === 0 || this.#context.isHealing ||
      this.#random() % appendFaults !== 0
    ) return undefined;
    const fault = APPEND_FAULTS[this.#random() % APPEND_FAULTS.length]!;
    if ((fault === "twice" || fault === "again") && !isDeduplicated(records)) {
      return undefined;
    }
    this.#context.history.fault(`append: ${fault}`);
    return fault;
  }

  /** Draws the fault of a read index: milliseconds that it takes, or a failure. */
  drawReadIndexFault(): number | "fail" {
    const { readIndexFaults } = this.#context.profile;
    if (
      readIndexFaults === 0 || this.#context.isHealing ||
      this.#random() % readIndexFaults !== 0
    ) return 0;
    const isSlow = this.#random() % 3 > 0;
    this.#context.history.fault(`read index: ${isSlow ? "slow" : "fail"}`);
    return isSlow ? 1 + this.#random() % 3_000 : "fail";
  }

  /** Draws the time of a message to a log that is a process of its own. */
  delay(): number {
    return this.#random() % 4;
  }

  /** Time until an append lands that was told to be of unknown outcome. */
  lateBy(): number {
    return 1 + this.#random() % 6_000;
  }

  /** Runs `work` after `ms` in the process of the log, unless that has ended. */
  later(ms: number, work: () => void): void {
    const { life } = this;
    this.#context.env.setTimer(() => {
      if (this.life === life && this.isUp) work();
    }, ms);
  }

  /** Opens a log inside its process. */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    if (this.#logDB === undefined) throw new Error(LOST_CONNECTION);
    const { life } = this;
    const log = await this.answered(this.#logDB.open(clusterID, nodeID));
    if (this.life !== life) {
      await log.close();
      throw new Error(LOST_CONNECTION);
    }
    this.#open.add(log);
    return log;
  }

  board(clusterID: bigint): CheckpointBoard {
    let board = this.#boards.get(clusterID);
    if (board === undefined) {
      this.#boards.set(clusterID, board = new MemoryCheckpointBoard());
    }
    return board;
  }

  /** Snapshots that its users share. */
  get snapshots(): SnapshotStore {
    return this.#faultySnapshots(this.#stores!);
  }

  /** Log database of a process that uses it. */
  client(caller: Caller): LogDB {
    return new ClientLogDB(this, caller);
  }

  /** Closes a log in memory, which survives its process. */
  async close(): Promise<void> {
    await this.#memory?.close();
    if (this.#bucket !== undefined) await this.#stores?.close();
  }
}

/** Log database of one process. */
class ClientLogDB implements LogDB {
  readonly #service: LogService;
  readonly #caller: Caller;
  readonly snapshots: SnapshotStore;

  constructor(service: LogService, caller: Caller) {
    this.#service = service;
    this.#caller = caller;
    this.snapshots = service.snapshots;
  }

  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const log = new ClientLog(this.#service, this.#caller, clusterID, nodeID);
    await log.connect();
    return log;
  }

  async close(): Promise<void> {}

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Log of one cluster as one process has it open. */
class ClientLog implements Log {
  readonly #service: LogService;
  readonly #caller: Caller;
  readonly #clusterID: bigint;
  readonly #nodeID: bigint;
  #inner: Log | undefined;
  life = -1;
  #isClosed = false;
  readonly #retentions = new Set<ClientRetention>();
  /** Settles with the newest append: the next one follows it. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(
    service: LogService,
    caller: Caller,
    clusterID: bigint,
    nodeID: bigint,
  ) {
    this.#service = service;
    this.#caller = caller;
    this.#clusterID = clusterID;
    this.#nodeID = nodeID;
  }

  /** Opens the log in its process, again if that has restarted. */
  async connect(): Promise<Log> {
    if (this.#inner !== undefined && this.life === this.#service.life) {
      return this.#inner;
    }
    const { life } = this.#service;
    const inner = await this.#service.open(this.#clusterID, this.#nodeID);
    if (this.#isClosed || this.#caller.env.isDead) {
      await inner.close();
      throw new Error(LOST_CONNECTION);
    }
    this.#inner = inner;
    this.life = life;
    for (const retention of this.#retentions) retention.connect(inner);
    this.#caller.env.onKill(() => void inner.close());
    return inner;
  }

  /** True if calls reach the log at once. */
  get #isLocal(): boolean {
    return !this.#service.isRemote;
  }

  /** Sends a message to the log or back. */
  #travel(): Promise<void> {
    const delay = this.#service.delay();
    return new Promise((resolve) =>
      void this.#caller.env.setTimer(resolve, delay)
    );
  }

  /** Calls the log in its process, after the time of a message, and answers after that of another. */
  async #call<T>(call: (log: Log) => MaybePromise<T>): Promise<T> {
    await this.#travel();
    const log = await this.connect();
    let end!: () => void;
    /** Rejects once the process of the log has ended. */
    const lost = new Promise<never>((_, reject) => {
      end = this.#service.watchReads(this.#caller.name, reject);
    });
    try {
      return await Promise.race([call(log), lost]);
    } finally {
      end();
      await this.#travel();
    }
  }

  append(records: Records): MaybePromise<number> {
    const fault = this.#service.drawFault(records);
    if (this.#isLocal && fault === undefined) {
      return this.#inner!.append(records);
    }
    // The caller may reuse its bytes.
    const { bytes, ends } = records;
    const copy = { bytes: bytes.slice(), ends: [...ends] };
    const appended = this.#tail.then(() => this.#append(copy, fault));
    this.#tail = appended.catch(() => {});
    return appended;
  }

  async #append(
    records: Records,
    fault: AppendFault | undefined,
  ): Promise<number> {
    const service = this.#service;
    if (!this.#isLocal) await this.#travel();
    const inner = await this.connect();
    const unknown = (): Error =>
      new ErrUnknownOutcome("append() got no answer from the log");
    const again = (): void => {
      service.later(service.lateBy(), () => {
        if (this.life !== service.life) return;
        try {
          const appended = inner.append(records);
          if (isPromise(appended)) appended.catch(() => {});
        } catch {
          // It was closed in between.
        }
      });
    };
    switch (fault) {
      case "fail":
        throw new Error("append() failed: the log is overloaded");
      case "lost":
        throw unknown();
      case "late":
        again();
        throw unknown();
    }
    const { life } = service;
    let index: number;
    try {
      index = await service.answered(inner.append(records));
      if (fault === "twice") await service.answered(inner.append(records));
    } catch (error) {
      if (service.life !== life) throw unknown();
      throw error;
    }
    if (fault === "again") again();
    if (!this.#isLocal) await this.#travel();
    if (fault === "committed") throw unknown();
    return index;
  }

  read(after: number, options?: ReadOptions): MaybePromise<LogReader> {
    const { name } = this.#caller;
    this.#service.checkReads(name);
    const wrap = (reader: LogReader): LogReader =>
      new ClientReader(this.#service, this.#caller, reader, this.life);
    if (!this.#isLocal) {
      return this.#call((log) => log.read(after, options)).then(wrap);
    }
    const reader = this.#inner!.read(after, options);
    return isPromise(reader) ? reader.then(wrap) : wrap(reader);
  }

  readIndex(
    options?: { signal?: AbortSignal | undefined },
  ): MaybePromise<number> {
    const fault = this.#service.drawReadIndexFault();
    if (fault === 0 && this.#isLocal) return this.#inner!.readIndex(options);
    return this.#readIndex(fault, options);
  }

  async #readIndex(
    fault: number | "fail",
    options: { signal?: AbortSignal | undefined } | undefined,
  ): Promise<number> {
    if (fault === "fail") {
      await this.#travel();
      throw new Error("ETIMEDOUT: read index got no answer");
    }
    if (fault > 0) {
      // Late on its way there or back: it is of some moment after the call.
      await new Promise<void>((resolve) =>
        void this.#caller.env.setTimer(resolve, fault)
      );
    }
    if (this.#isLocal) return await this.#inner!.readIndex(options);
    return await this.#call((log) => log.readIndex(options));
  }

  retain(after: number): Retention {
    const retention = new ClientRetention(after, (one) => {
      this.#retentions.delete(one);
    });
    this.#retentions.add(retention);
    // While its process is down, the claim waits for the next one.
    if (this.#inner !== undefined && this.life === this.#service.life) {
      retention.connect(this.#inner);
    }
    return retention;
  }

  compact(upTo: number): MaybePromise<void> {
    return this.#isLocal
      ? this.#inner!.compact!(upTo)
      : this.#call((log) => log.compact!(upTo));
  }

  startAt(...args: Parameters<Log["startAt"]>): MaybePromise<void> {
    return this.#isLocal
      ? this.#inner!.startAt(...args)
      : this.#call((log) => log.startAt(...args));
  }

  isEmpty(): MaybePromise<boolean> {
    return this.#isLocal
      ? this.#inner!.isEmpty()
      : this.#call((log) => log.isEmpty());
  }

  get snapshotFrom(): number | undefined {
    return this.#inner?.snapshotFrom;
  }

  info(): LogInfo {
    return this.#inner!.info!();
  }

  get checkpoints(): CheckpointBoard {
    return this.#service.board(this.#clusterID);
  }

  get storage(): LogStorage | undefined {
    return this.#isLocal ? this.#inner!.storage : undefined;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#inner?.close();
  }
}

/** Claim on records, which outlives the process of the log. */
class ClientRetention implements Retention {
  #after: number;
  #inner: Retention | undefined;
  readonly #released: (retention: ClientRetention) => void;

  constructor(after: number, released: (retention: ClientRetention) => void) {
    this.#after = after;
    this.#released = released;
  }

  connect(log: Log): void {
    this.#inner = log.retain(this.#after);
  }

  move(index: number): void {
    this.#after = Math.max(this.#after, index);
    this.#inner?.move(index);
  }

  release(): void {
    this.#inner?.release();
    this.#released(this);
  }
}

class ClientReader implements LogReader {
  readonly #service: LogService;
  readonly #caller: Caller;
  readonly #inner: LogReader;
  /** Life of the log's process in which it was opened. */
  readonly #life: number;

  constructor(
    service: LogService,
    caller: Caller,
    inner: LogReader,
    life: number,
  ) {
    this.#life = life;
    this.#service = service;
    this.#caller = caller;
    this.#inner = inner;
  }

  get lastAtStart(): number {
    return this.#inner.lastAtStart;
  }

  next(): MaybePromise<LogBatch> {
    this.#service.checkReads(this.#caller.name, this.#life);
    const batch = this.#inner.next();
    if (!isPromise(batch)) return batch;
    return new Promise((resolve, reject) => {
      const end = this.#service.watchReads(this.#caller.name, reject);
      batch.then((batch) => this.#arrive(() => resolve(batch)), reject)
        .finally(end);
    });
  }

  /** Continues in the process of the reader. */
  #arrive(work: () => void): void {
    if (!this.#service.isRemote) return work();
    this.#caller.env.setTimer(work, this.#service.delay());
  }

  applied(index: number): void {
    this.#inner.applied?.(index);
  }

  close(): void {
    this.#inner.close();
  }
}
