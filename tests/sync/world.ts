/**
 * A whole world in one process, over simulated network and time: a server that
 * dies and comes back, devices that submit commands, die, are offline, copied
 * and refused, and what must be true of all of them whatever happens.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import {
  type Block,
  BlockOutbox,
  type BlockStore,
  type Changes,
  type Durability,
  ErrClusterClosed,
  ErrDiverged,
  ErrOtherHistory,
  ErrOutboxCopied,
  ErrProposalRefused,
  ErrStoreFull,
  ErrUnknownOutcome,
  ErrUpdateFailed,
  type HostEvent,
  type ListOptions,
  type LogDB,
  type MaybePromise,
  MemoryBlockStore,
  MemoryLogDB,
  NodeHost,
  type Replica,
  type Result,
  type Submission,
} from "../../mod.ts";
import type { Env } from "../../src/env.ts";
import { SYNC_BUFFERED_BYTES_MAX } from "../../src/limits.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import { RemoteLogDB, type RemoteState } from "../../src/sync/client/mod.ts";
import { decodeMessage } from "../../src/sync/messages.ts";
import { Core } from "../../src/sync/server/core.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { bytes, text } from "../support/bytes.ts";
import { random32 } from "../support/random.ts";
import { settle } from "../support/environment.ts";
import { DENIED, LEDGERS, POISON, startLedger } from "./world_machines.ts";
import { type Cut, Network } from "./world_network.ts";

const CLUSTER = 1n;
const REFUSED = "No machine takes that";
/** What the server refuses. */
const BAD = "bad";
const CUTS: readonly Cut[] = ["clean", "halves", "silent"];

/** What is to go wrong in a world; that connections break and processes die always does. */
export interface Profile {
  /** Commands that are refused, one in so many; 0 for none. */
  readonly refusals: number;
  /** Whether sessions are evicted while their clients are away. */
  readonly evictions: boolean;
  /** Whether the log is cut while clients are away. */
  readonly compaction: boolean;
  /** Whether tokens expire. */
  readonly tokens: boolean;
  /** Whether an outbox is copied to another device. */
  readonly copies: boolean;
  /** Whether outboxes fail to write. */
  readonly fullStores: boolean;
  /** Whether power is cut, so that what was written last is lost. */
  readonly powerCuts: boolean;
  /** Whether snapshots are cut off on the way, and no network comes for a while. */
  readonly cutSnapshots: boolean;
  /** True if the server is put back to older copies of its store, and devices start over. */
  readonly restores: boolean;
  /** True if commands at which every machine throws get into the log, and an operator has them skipped. */
  readonly poisons: boolean;
}

/** What happened in worlds, so that one sees that it happened at all. */
export type Counts = Record<string, number>;

/** A command of a device, and what is known of it. */
interface Command {
  readonly text: string;
  /** Whether the device may say that it has it; `kept` once it does. */
  state: "asked" | "kept" | "turned down";
  submission: Submission | undefined;
  result: Result | undefined;
  error: unknown;
  /** Whether power was cut before it was surely written. */
  mayBeLost: boolean;
  isDismissed: boolean;
  /** History of the server in which it was submitted. */
  readonly history: number;
}

function isBad({ text }: { text: string }): boolean {
  return text.includes(BAD) || isNeverShown(text);
}

/** True for commands that no machine shows, committed or not. */
function isNeverShown(command: string): boolean {
  return command.includes(POISON) || command.includes(DENIED);
}

/** A store that takes its time, in order. */
class SlowStore implements BlockStore {
  readonly #inner: FaultyBlockStore;
  readonly #env: Env;
  readonly #delay: () => number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(inner: FaultyBlockStore, env: Env, delay: () => number) {
    this.#inner = inner;
    this.#env = env;
    this.#delay = delay;
  }

  #call<T>(call: () => MaybePromise<T>): Promise<T> {
    const called = this.#last.then(async () => {
      await new Promise<void>((resolve) => {
        this.#env.setTimer(resolve, this.#delay());
      });
      return await call();
    });
    this.#last = called.catch(() => {});
    return called;
  }

  identity(): Promise<string> {
    return this.#call(() => this.#inner.identity());
  }

  get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    return this.#call(() => this.#inner.get(keys));
  }

  list(from: string, to: string, options?: ListOptions): Promise<Block[]> {
    return this.#call(() => this.#inner.list(from, to, options));
  }

  keys(from: string, to: string, options?: ListOptions): Promise<string[]> {
    return this.#call(() => this.#inner.keys(from, to, options));
  }

  write(changes: Changes, durability: Durability): Promise<void> {
    // What is given may change when the call has returned.
    const put = (changes.put ?? []).map(({ key, bytes }) => ({
      key,
      bytes: bytes.slice(),
    }));
    return this.#call(() => this.#inner.write({ ...changes, put }, durability));
  }

  async close(): Promise<void> {
    await this.#last;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A store and what is under it. */
class Store {
  readonly inner: MemoryBlockStore;
  faulty: FaultyBlockStore;

  constructor(inner: MemoryBlockStore = new MemoryBlockStore()) {
    this.inner = inner;
    this.faulty = new FaultyBlockStore({ store: inner });
  }

  /** Whoever has it open has it no more; of what was written last, `kept` writes are there. */
  crash(kept: number): void {
    this.faulty = this.faulty.crash(kept);
  }

  /** Another store with the same in it. */
  copy(): Store {
    const copy = new MemoryBlockStore();
    copy.write({ put: this.inner.list("", "\x7f") }, "strict");
    return new Store(copy);
  }
}

/** One life of a device: from a start to a stop or crash. */
class Life {
  readonly db: RemoteLogDB;
  readonly host: NodeHost;
  replica: Replica | undefined;
  isOver = false;
  /** Whether its outbox has turned out to be a copy. */
  isCopied = false;
  /** Error of a start that failed. */
  failure: unknown;
  isStartingOver = false;
  /** History of the server that what it shows comes from, as far as it is known. */
  history = 0;
  /** The highest index it had applied when it was last looked at. */
  applied = 0;
  /** The longest list of what was committed that it has shown. */
  committed: readonly string[] = [];
  readonly events: HostEvent[] = [];
  readonly states: Set<RemoteState> = new Set();

  constructor(db: RemoteLogDB, host: NodeHost) {
    this.db = db;
    this.host = host;
    db.watch(({ state }) => this.states.add(state));
  }
}

/** A device that submits commands. */
export class Device {
  readonly name: string;
  readonly nodeID: bigint;
  readonly kind: (typeof LEDGERS)[number];
  /** Whose it is. */
  readonly owner: string;
  outbox: Store;
  readonly stores: Store[];
  /** Whether it has a copy of the log and its own snapshots. */
  readonly hasCopy: boolean;
  readonly snapshotEntries: number;
  /** Whether its stores take their time. */
  readonly isSlow: boolean;
  readonly commands: Map<string, Command> = new Map();
  /** Those that it must show in its present life, until they are refused. */
  readonly shown: Set<string> = new Set();
  life: Life | undefined;
  isOffline = false;
  isCopied = false;
  /** Set once it has started over, as long as it may not know yet, also in a later life, what of its submissions the server has. */
  isJudging = false;
  /** History of the server that its last connection led to. */
  connected = 0;
  /** Whether it may have missed what became of a command. */
  hasSkipped = false;
  count = 0;

  constructor(
    name: string,
    nodeID: bigint,
    random: () => number,
    options: { owner?: string; outbox?: Store } = {},
  ) {
    this.name = name;
    this.nodeID = nodeID;
    this.owner = options.owner ?? name;
    this.kind = LEDGERS[random() % LEDGERS.length]!;
    this.hasCopy = this.kind !== "disk" && random() % 2 === 0;
    this.snapshotEntries = random() % 2 === 0 ? 0 : 10 + random() % 20;
    this.isSlow = random() % 2 === 0;
    this.outbox = options.outbox ?? new Store();
    this.stores = [1, 2, 3].map(() => new Store());
  }

  /** Whether what it has applied is there again after it was killed. */
  get isDurable(): boolean {
    return this.kind === "disk" || this.hasCopy;
  }

  get replica(): Replica | undefined {
    return this.life?.replica;
  }

  add(name: string, more: Partial<Command> = {}): Command {
    const command: Command = {
      text: name,
      state: "asked",
      submission: undefined,
      result: undefined,
      error: undefined,
      mayBeLost: false,
      isDismissed: false,
      history: 0,
      ...more,
    };
    this.commands.set(name, command);
    return command;
  }

  /** Whether a command is one that it has, and that the cluster may have. */
  mustShow(command: string): boolean {
    const { submission, isDismissed } = this.commands.get(command)!;
    const state = submission?.state ?? "queued";
    // What is copied is sent by somebody else, and shown once they have.
    return !isDismissed && !this.isCopied &&
      (state === "queued" || state === "applied");
  }
}

/**
 * All that needs no time has happened when this settles. A message to oneself is
 * not enough: now and then it comes before what was there to be done first.
 */
function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** Time that goes on only when it is told to; timers are as coarse as real ones. */
class WorldEnv implements Env {
  readonly #random: () => number;
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  #now = 0;

  constructor(seed: number) {
    this.#random = random32(seed);
  }

  now(): number {
    return this.#now;
  }

  random64(): bigint {
    return BigInt(this.#random()) << 32n | BigInt(this.#random());
  }

  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + Math.ceil(delay), callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return Promise.resolve();
  }

  get timers(): number {
    return this.#timers.size;
  }

  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settled();
    for (;;) {
      let next: { at: number; callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.at <= until && !(next && next.at <= timer.at)) next = timer;
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settled();
    }
    this.#now = until;
  }

  /** Lets time pass until a promise has settled. */
  async until<T>(promise: Promise<T>, step: number): Promise<T> {
    let isDone = false;
    const end = (): void => void (isDone = true);
    promise.then(end, end);
    await settled();
    for (let i = 0; !isDone && i < 1000; i++) await this.advance(step);
    if (!isDone) throw new Error("Did not settle however long it took");
    return await promise;
  }
}

/** What a view has shown, to be compared with what was committed in the end. */
interface Seen {
  readonly device: string;
  readonly from: number;
  readonly list: readonly string[];
}

/** The server and its devices. */
export class World {
  readonly seed: number;
  readonly profile: Profile;
  readonly env: WorldEnv;
  readonly random: () => number;
  readonly network: Network;
  readonly devices: Device[] = [];
  readonly counts: Counts;
  readonly #serverKind: (typeof LEDGERS)[number];
  readonly #snapshotEntries: number;
  readonly #sessionsMax: number;
  #store: Store | undefined;
  readonly #isSlow: boolean;
  #memory: MemoryLogDB | undefined;
  #logDB: LogDB | undefined;
  #host: NodeHost | undefined;
  #core: Core | undefined;
  #replica: Replica | undefined;
  isDown = false;
  /** How far apart replicas compare their hashes. */
  hashEntries = 8;
  /** What goes on beside what a test does: the end of what was killed, mostly. */
  readonly #background = new Set<Promise<unknown>>();
  readonly #failures: string[] = [];
  readonly #tokens = new Map<string, { held: number; good: number }>();
  #signals = new Map<string, AbortController>();
  readonly #seen: Seen[] = [];
  #evictions = 0;
  /** Whether nothing is to go wrong for the moment. */
  #isHealing = false;
  /** Whether the server was put back to an older state of its store. */
  isRestored = false;
  /** Number of restores so far. */
  history = 0;
  /** Commands that were committed in some history. */
  readonly #everCommitted = new Set<string>();
  #backup: (() => void) | undefined;
  #poisoned = 0;
  /** Since when the server's cluster has failed. */
  #failedAt: number | undefined;

  constructor(seed: number, profile: Profile, counts: Counts = {}) {
    this.seed = seed;
    this.profile = profile;
    this.counts = counts;
    this.env = new WorldEnv(seed);
    this.random = random32(seed);
    this.network = new Network(this.env, this.random);
    this.#serverKind = (["fork", "plain", "concurrent"] as const)[
      this.random() % 3
    ]!;
    this.#snapshotEntries = profile.compaction ? 8 + this.random() % 25 : 0;
    this.#sessionsMax = profile.evictions ? 6 : 4096;
    if (this.random() % 3 === 0) {
      this.#memory = new MemoryLogDB({ env: this.env });
    } else this.#store = new Store();
    if (profile.restores) this.useStore();
    this.#isSlow = this.chance(2);
  }

  chance(of: number): boolean {
    return this.random() % of === 0;
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  fail(what: string): void {
    this.#failures.push(`${what} (at ${this.env.now()} ms)`);
  }

  /** Throws what has gone wrong so far. */
  check(): void {
    if (this.#failures.length > 0) throw new Error(this.#failures.join("\n"));
  }

  #behind(work: Promise<unknown>): void {
    const done = work.catch(() => {}).finally(() =>
      this.#background.delete(done)
    );
    this.#background.add(done);
  }

  // ------------------------------------------------------------- the server

  get server(): Replica {
    return this.#replica!;
  }

  get isUp(): boolean {
    return this.#core !== undefined;
  }

  #openLog(): LogDB {
    const { env } = this;
    if (this.#store === undefined) return this.#memory!;
    const store = this.#openStore(this.#store, this.#isSlow);
    const snapshots = new BlockSnapshotStore(store, { env });
    return new BlockLogDB(store, { env, snapshots });
  }

  /** A store as a process has it. */
  #openStore({ faulty }: Store, isSlow: boolean): BlockStore {
    return isSlow
      ? new SlowStore(faulty, this.env, () => 1 + this.random() % 4)
      : faulty;
  }

  async startServer(): Promise<void> {
    const { env } = this;
    const logDB = this.#logDB = this.#openLog();
    const host = this.#host = new NodeHost({
      logDB,
      env,
      onEvent: (event) => {
        if (this.#host === host) this.#serverEvent(event);
      },
    });
    const started = env.until(
      startLedger(
        host,
        this.#serverKind,
        {
          clusterID: CLUSTER,
          nodeID: 1n,
          sessionsMax: this.#sessionsMax,
          snapshotEntries: this.#snapshotEntries,
          compactionOverhead: this.#snapshotEntries === 0 ? 0 : this.seed % 9,
          hashEntries: this.hashEntries,
        },
        new MemoryBlockStore(),
        {
          filling: this.profile.cutSnapshots ? 300_000 : 0,
        },
      ),
      50,
    );
    try {
      this.#replica = await started;
    } catch (error) {
      // The operator looks after it.
      if (!this.profile.poisons || !(error instanceof ErrUpdateFailed)) {
        throw error;
      }
    }
    this.#core = new Core(host, {
      limits: {
        farEntries: 30,
        heartbeatMs: 2_000,
        creditBytes: 4_096,
        commandsPerSecond: 300,
      },
      rehearse: !this.profile.poisons,
      authenticate: (request) => this.#authenticate(request),
      validate: async (_, cmd) => {
        // It takes its time now and then.
        if (this.chance(4)) await Promise.resolve();
        const command = text(cmd);
        // Where its machine forks, the server finds out by itself.
        const isTold = this.#serverKind !== "fork" &&
          !this.profile.poisons && command.includes(POISON);
        return isTold || command.includes(BAD) ? REFUSED : undefined;
      },
      log: ({ event, code, error }) => {
        if (code !== undefined) this.count(`server: ${event} ${code}`);
        if (error !== undefined && event === "connection failed") {
          this.fail(`${event}: ${error}`);
        }
      },
    });
  }

  #serverEvent(event: HostEvent): void {
    this.count(`server: ${event.type}`);
    if (event.type === "failed" && this.profile.poisons) {
      this.#failedAt ??= this.env.now();
      if (event.failure instanceof ErrUpdateFailed) return;
    }
    if (event.type === "failed" || event.type === "diverged") {
      this.fail(`server ${event.type}: ${event.error}`);
    }
  }

  /** The server stops as it should, or its process is killed; its store stays. */
  async stopServer(how: "stop" | "kill" | "power cut"): Promise<void> {
    const core = this.#core!;
    const host = this.#host!;
    const logDB = this.#logDB!;
    this.#noteCommitted();
    this.#core = this.#host = this.#replica = undefined;
    this.count(`server: ${how}`);
    const end = async (): Promise<void> => {
      await core.stop();
      await host.stop();
      assertEquals(core.telemetry.counts.connections, 0);
      if (this.#store === undefined) return;
      await logDB.close();
      await logDB.snapshots?.close();
    };
    if (how === "stop") return await this.env.until(end(), 50);
    this.network.die(undefined, "server");
    if (this.#store === undefined) return await this.env.until(end(), 50);
    const { faulty } = this.#store;
    this.#store.crash(
      how === "kill" ? Infinity : this.random() % (faulty.unsynced + 1),
    );
    this.#behind(end());
  }

  /** The server's log is in blocks, which can be copied. */
  useStore(): void {
    this.#store ??= new Store();
    this.#memory = undefined;
  }

  /** True if the cluster of the server runs. */
  get isWell(): boolean {
    return this.isUp &&
      this.#host!.clusterStatus(CLUSTER)?.state === "running";
  }

  /** The operator looks after a cluster that a command has ended, until it is well. */
  async operate(): Promise<void> {
    const host = this.#host!;
    for (;;) {
      const { state, error } = host.clusterStatus(CLUSTER)!;
      if (state !== "failed") break;
      this.#checkFailed();
      if (!(error instanceof ErrUpdateFailed)) throw error;
      assertEquals(error.index, error.upTo, "The entry is not named");
      const skip = host.skipEntry(CLUSTER, error.index, REFUSED);
      await this.env.until(skip, 20);
      this.count("skipped");
      try {
        this.#replica = await this.env.until(host.restartCluster(CLUSTER), 20);
      } catch (error) {
        if (!(error instanceof ErrUpdateFailed)) throw error;
      }
    }
    this.#failedAt = undefined;
  }

  /** No device says that all is well for long where the server's cluster is not. */
  #checkFailed(): void {
    if (this.env.now() - (this.#failedAt ?? Infinity) < 20_000) return;
    for (const { name, life, isOffline } of this.devices) {
      if (!isOffline && life?.db.state === "live") {
        this.fail(`${name} is live while the server's cluster has failed`);
      }
    }
  }

  /** Notes what is committed in the present history. */
  #noteCommitted(): void {
    const replica = this.#host?.replica(CLUSTER);
    if (replica === undefined || replica.failure !== undefined) return;
    for (const name of replica.staleRead(null) as string[]) {
      this.#everCommitted.add(name);
    }
  }

  /** A copy of the server's store is taken, or put in its place. */
  async #backUpOrRestore(): Promise<void> {
    if (this.#backup === undefined || this.chance(2)) {
      this.#backup = this.backup();
      this.count("backups");
      return;
    }
    const restore = this.#backup;
    this.#backup = undefined;
    if (this.isUp) await this.stopServer("kill");
    this.history++;
    this.#seen.length = 0;
    this.count("restores");
    restore();
    await this.startServer();
  }

  /** True if a device has been told that its history is not the server's. */
  #isOther({ life }: Device): boolean {
    return life !== undefined && !life.isOver && !life.isStartingOver &&
      (life.failure instanceof ErrOtherHistory ||
        // It was cut off by a store that failed.
        life.failure instanceof ErrStoreFull ||
        life.failure instanceof ErrUnknownOutcome ||
        life.replica?.status.error instanceof ErrOtherHistory);
  }

  /** The user of a device has it start over. */
  #beginOver(device: Device): void {
    const life = device.life!;
    this.count("starts over");
    this.#failureOf(device, life, undefined);
    life.isStartingOver = true;
    life.replica = undefined;
    life.history = -1;
    device.isJudging = true;
    this.#behind(
      life.host.startOver(CLUSTER).then((replica) => {
        life.isStartingOver = false;
        if (life.isOver) return;
        device.shown.clear();
        life.applied = 0;
        life.committed = [];
        life.failure = undefined;
        this.#started(device, life, replica);
      }, (error) => {
        life.isStartingOver = false;
        if (life.isOver || device.life !== life) return;
        this.#failureOf(device, life, error);
      }),
    );
  }

  #failureOf(device: Device, life: Life, error: unknown): void {
    life.failure = error;
    if (error === undefined) return;
    if (this.#mayDiverge && error instanceof ErrDiverged) {
      this.count("device: start diverged");
    } else if (
      this.profile.restores && this.profile.fullStores &&
      (error instanceof ErrStoreFull || error instanceof ErrUnknownOutcome)
    ) this.count("device: start over cut off");
    else this.fail(`${device.name} did not start: ${error}`);
  }

  /** The server is put back, goes on, and devices meet it again. */
  async restore(restore: () => void): Promise<void> {
    this.isRestored = true;
    await this.stopServer("kill");
    restore();
    await this.startServer();
    for (let i = 0; i < 5; i++) {
      await this.env.until(this.server.propose(bytes(`other ${i}`)), 20);
    }
    await this.env.advance(120_000);
    this.check();
  }

  /** What the server has on its store. */
  backup(): () => void {
    const copy = this.#store!.copy();
    return () => this.#store = copy;
  }

  #authenticate(
    request: Request,
  ): { id: string; signal: AbortSignal } | undefined {
    const [, owner, number] = /^Bearer (.*) (\d+)$/.exec(
      request.headers.get("authorization") ?? "",
    )!;
    if (Number(number) < this.#token(owner!).good) return undefined;
    let controller = this.#signals.get(owner!);
    if (controller === undefined || controller.signal.aborted) {
      this.#signals.set(owner!, controller = new AbortController());
    }
    return { id: owner!, signal: controller.signal };
  }

  #token(owner: string): { held: number; good: number } {
    let token = this.#tokens.get(owner);
    if (token === undefined) {
      this.#tokens.set(owner, token = { held: 1, good: 1 });
    }
    return token;
  }

  #expire(owner: string): void {
    const token = this.#token(owner);
    token.good = token.held + 1;
    this.#signals.get(owner)?.abort();
  }

  #renew(owner: string): void {
    const token = this.#token(owner);
    if (token.held >= token.good) return;
    token.held = token.good;
    for (const device of this.devices) {
      if (device.owner === owner) device.life?.db.reconnect();
    }
  }

  // ------------------------------------------------------------ the devices

  addDevice(
    name: string,
    options: { owner?: string; outbox?: Store } = {},
  ): Device {
    const nodeID = BigInt(this.devices.length + 2);
    const device = new Device(name, nodeID, this.random, options);
    this.devices.push(device);
    return device;
  }

  #db(device: Device, copy: BlockStore): RemoteLogDB {
    const { name, owner } = device;
    return new RemoteLogDB("ws://server/sync", {
      env: this.env,
      hints: () => () => {},
      token: () => `${owner} ${this.#token(owner).held}`,
      ...(device.hasCopy ? { copy } : {}),
      connect: (url) => {
        const [here, there] = this.network.connect(name);
        here.onFrame = (frame) => this.#arrived(device, frame);
        if (device.isOffline || this.isDown || this.#core === undefined) {
          this.network.refuse(here);
        } else {
          device.connected = this.history;
          this.#core.accept(there, {
            url: url.replace("ws:", "http:"),
            headers: new Headers(),
          });
        }
        return here;
      },
    });
  }

  /** Something has arrived at a device: a part of a snapshot may be the last for long. */
  #arrived(device: Device, frame: Uint8Array): void {
    if (!this.profile.cutSnapshots) return;
    if (decodeMessage(frame).type !== "chunk") return;
    this.count("chunks");
    if (this.#isHealing || !this.chance(6)) return;
    this.count("snapshots cut off");
    device.isOffline = true;
    this.network.cut(device.name, CUTS[this.random() % 3]!);
  }

  /** A device begins to start; others go on meanwhile. */
  start(device: Device): void {
    const { env } = this;
    const open = (store: Store): BlockStore =>
      this.#openStore(store, device.isSlow);
    const [copy, snapshots, machine] = device.stores.map(open);
    const db = this.#db(device, copy!);
    const outbox = new BlockOutbox(open(device.outbox), { env });
    const own = device.hasCopy || device.kind === "disk"
      ? new BlockSnapshotStore(snapshots!, { env })
      : undefined;
    const host = new NodeHost({
      logDB: db,
      env,
      outbox,
      ...(own === undefined ? {} : { snapshots: own }),
      onEvent: (event) => this.#deviceEvent(device, life, event),
    });
    const life: Life = new Life(db, host);
    life.history = this.profile.restores ? -1 : 0;
    device.life = life;
    // What was committed is known from the log alone, and it may be far away.
    if (!device.isDurable) device.shown.clear();
    const config = {
      clusterID: CLUSTER,
      nodeID: device.nodeID,
      snapshotEntries: device.snapshotEntries,
      hashEntries: this.hashEntries,
    };
    this.#behind(
      startLedger(host, device.kind, config, machine!).then(
        (replica) => this.#started(device, life, replica),
        (error) => {
          if (life.isOver || device.life !== life) return;
          this.#failureOf(device, life, error);
        },
      ),
    );
  }

  #deviceEvent(device: Device, life: Life, event: HostEvent): void {
    life.events.push(event);
    if (life.isOver) return;
    this.count(`device: ${event.type}`);
    switch (event.type) {
      case "outbox failed":
        if (event.error instanceof ErrOutboxCopied) {
          device.isCopied = life.isCopied = true;
          this.count("copied");
          // What a power cut takes back looks the same.
          if (!this.profile.copies && !this.profile.powerCuts) {
            this.fail(`${device.name} is no copy`);
          }
        }
        break;
      case "recovered":
        device.hasSkipped = true;
        break;
      case "failed":
        if (this.#mayDiverge && event.error instanceof ErrDiverged) break;
        if (
          this.profile.poisons && event.failure instanceof ErrUpdateFailed
        ) break;
        this.fail(`${device.name} failed: ${event.error}`);
        break;
      case "diverged":
      case "hash failed":
        // Hashes may tell it before the log does.
        if (this.#mayDiverge) break;
        this.fail(`${device.name} ${event.type}: ${event.error}`);
        break;
      case "close failed":
        this.fail(`${device.name} ${event.type}: ${event.error}`);
    }
  }

  get #mayDiverge(): boolean {
    return this.isRestored || this.profile.restores;
  }

  #started(device: Device, life: Life, replica: Replica): void {
    if (life.isOver) return;
    life.replica = replica;
    for (const submission of replica.pending()) {
      const name = text(submission.cmd);
      const command = device.commands.get(name);
      if (command === undefined || command.state === "turned down") {
        this.fail(`${device.name} has ${name}, which nobody gave it`);
        continue;
      }
      if (command.isDismissed) continue;
      command.state = "kept";
      command.mayBeLost = false;
      device.shown.add(name);
      this.#follow(command, submission);
    }
    this.#watch(device, life, replica);
  }

  #follow(command: Command, submission: Submission): void {
    command.submission = submission;
    command.error = undefined;
    submission.result.then(
      (result) => command.result = result,
      (error) => command.error = error,
    );
  }

  /** Somebody looks at a device all the time: nothing they have submitted is to vanish from there (U30). */
  #watch(device: Device, life: Life, replica: Replica): void {
    if (device.kind === "plain" || device.kind === "concurrent") return;
    if (this.profile.copies) return;
    const watch = replica.watch<string[]>(null);
    let mine: string[] = [];
    watch.subscribe(() => {
      const list = watch.getSnapshot();
      if (list === undefined || life.isOver || this.isRestored) return;
      if (life.replica !== replica || life.history !== this.history) return;
      const has = new Set(list);
      if (has.size < list.length) {
        this.fail(`${device.name} sees one twice: ${list}`);
      }
      for (const name of mine) {
        if (!has.has(name) && device.mustShow(name)) {
          this.fail(`${device.name} sees ${name} no more`);
        }
      }
      mine = list.filter((name) => device.commands.has(name));
    });
  }

  submit(device: Device): void {
    const { replica, life } = device;
    if (replica === undefined) return;
    const { refusals } = this.profile;
    const kind = refusals === 0 || !this.chance(refusals)
      ? ""
      : [POISON, DENIED, BAD][this.random() % 3]!;
    const name = `${device.name}:${device.count++}:${kind}`;
    const { history } = life!;
    const command = device.add(name, { history });
    this.count("submitted");
    replica.submit(bytes(name)).then(
      (submission) => {
        if (life!.isOver) return;
        command.state = "kept";
        device.shown.add(name);
        this.#follow(command, submission);
      },
      (error) => {
        // Of what was asked of a process that is dead, nobody knows.
        if (life!.isOver) return;
        if (error instanceof ErrStoreFull) command.state = "turned down";
        else if (error instanceof ErrOutboxCopied && device.isCopied) {
          // It may have been written just before that was found out.
        } else if (error instanceof ErrUnknownOutcome) {
          this.count("submit unknown");
        } else if (error instanceof ErrClusterClosed && this.#mayDiverge) {
          command.state = "turned down";
        } else this.fail(`submit of ${name}: ${error}`);
      },
    );
  }

  /** A device stops as it should, or its process dies, or its power is cut. */
  async stop(
    device: Device,
    how: "stop" | "kill" | "power cut",
  ): Promise<void> {
    const { life } = device;
    if (life === undefined) return;
    device.life = undefined;
    this.count(`device: ${how}`);
    const end = async (): Promise<void> => {
      await life.host.stop();
      await life.db.close();
    };
    if (how === "stop") {
      await this.env.until(end(), 20);
      life.isOver = true;
      device.hasSkipped = true;
      return;
    }
    life.isOver = true;
    this.network.die(device.name, "client");
    for (const store of [device.outbox, ...device.stores]) {
      const { unsynced } = store.faulty;
      store.crash(
        how === "kill" ? Infinity : this.random() % (unsynced + 1),
      );
    }
    if (how === "power cut") {
      device.shown.clear();
      for (const command of device.commands.values()) command.mayBeLost = true;
    }
    device.hasSkipped = true;
    this.#behind(end());
  }

  /** Whether there is a copy of its outbox, or it is one. */
  #isOfCopies({ owner }: Device): boolean {
    return this.devices.some((one) =>
      one.owner === owner && one.name !== owner
    );
  }

  /** Another device begins with what a device has in its outbox. */
  copy(device: Device): void {
    const outbox = device.outbox.copy();
    const { owner } = device;
    let name = `${device.name}'`;
    while (this.devices.some((one) => one.name === name)) name += "'";
    const copy = this.addDevice(name, { owner, outbox });
    for (const [name, command] of device.commands) {
      copy.commands.set(name, { ...command, mayBeLost: true });
    }
    copy.hasSkipped = true;
    this.count("copies");
    this.start(copy);
  }

  // ------------------------------------------------------------ looking at it

  /** Looks at a device, as its user does. */
  observe(device: Device): void {
    const { replica, life } = device;
    if (replica === undefined || replica.error !== undefined) return;
    const { appliedIndex } = replica;
    if (life!.history !== this.history) {
      if (!this.#isCurrent(device)) return;
      life!.history = this.history;
      life!.applied = 0;
      life!.committed = [];
    }
    if (appliedIndex < life!.applied) {
      this.fail(
        `${device.name} went back from ${life!.applied} to ${appliedIndex}`,
      );
    }
    life!.applied = appliedIndex;
    try {
      this.#look(device, life!, replica);
    } catch (error) {
      this.fail(`${device.name} cannot be looked at: ${error}`);
    }
  }

  /** True if a device that is live shows a part of what the server has: it does, or says what is not true. */
  #isCurrent(device: Device): boolean {
    const { name, life, connected } = device;
    const { db, replica } = life!;
    if (
      connected !== this.history || db.state !== "live" || !this.isWell ||
      replica!.status.state !== "running"
    ) return false;
    // They are not shown before that.
    if (device.isJudging) {
      device.isJudging = replica!.pending().some(({ state }) =>
        state === "queued"
      );
    }
    if (device.isJudging) return false;
    const list = replica!.staleRead(null) as string[] | Promise<unknown>;
    if (list instanceof Promise) {
      list.catch(() => {});
      return false;
    }
    const all = this.server.staleRead(null) as string[];
    const most = Math.min(all.length, list.length);
    if (`${all.slice(0, most)}` !== `${list.slice(0, most)}`) {
      this.fail(`${name} is live with ${list}, where the server has ${all}`);
    }
    return true;
  }

  #look(device: Device, life: Life, replica: Replica): void {
    const committed = replica.staleRead(null) as string[] | Promise<unknown>;
    if (committed instanceof Promise) {
      // It is taking a snapshot in.
      committed.catch(() => {});
      return;
    }
    if (this.profile.restores) {
      for (const name of committed) this.#everCommitted.add(name);
    }
    if (committed.length < life.committed.length) {
      this.fail(`${device.name} shows less than before`);
    }
    life.committed = committed;
    // Until it is known who goes on, both may show what is the other's to send.
    if (this.#isOfCopies(device)) return;
    const must = [...device.shown];
    const queued = replica.pending()
      .filter(({ state }) => state === "queued" && !life.isCopied)
      .map(({ cmd }) => text(cmd)).filter((cmd) => !isNeverShown(cmd));
    const answer = replica.view.lookup(null) as string[] | Promise<string[]>;
    if (!(answer instanceof Promise)) {
      this.count("views");
      const expected = [...committed, ...queued];
      if (`${answer}` !== `${expected}`) {
        this.fail(`${device.name} sees ${answer}, not ${expected}`);
      }
      return this.#judge(device, must, committed.length, answer);
    }
    this.#behind(
      answer.then((list) => {
        this.count("later views");
        if (life.isOver) return;
        this.#judge(device, must, committed.length, list);
      }, (error) => {
        if (!(error instanceof ErrClusterClosed)) {
          this.fail(`${device.name} cannot be looked at: ${error}`);
        }
      }),
    );
  }

  #judge(
    device: Device,
    must: readonly string[],
    from: number,
    list: readonly string[],
  ): void {
    const has = new Set(list);
    if (has.size < list.length) {
      this.fail(`${device.name} sees a command twice: ${list}`);
    }
    for (const name of must) {
      const isMissing = !has.has(name) && device.mustShow(name) &&
        !isNeverShown(name);
      // What was refused just now is to be gone.
      if (isMissing) this.fail(`${device.name} does not see ${name}: ${list}`);
    }
    if (device.life?.history === this.history) {
      this.#seen.push({ device: device.name, from, list });
    }
  }

  // ------------------------------------------------------------- what happens

  /** Something happens, and some time passes. */
  async step(): Promise<void> {
    const { random, network } = this;
    for (const device of this.devices) {
      if (device.isCopied) continue;
      for (let n = random() % 6 - 2; n > 0; n--) this.submit(device);
    }
    if (this.chance(6)) this.isDown = false;
    if (!this.isUp && this.chance(5)) await this.startServer();
    if (this.isUp && !this.isWell && this.chance(4)) await this.operate();
    for (const device of this.devices) {
      if (this.#isOther(device) && this.chance(3)) this.#beginOver(device);
    }
    const device = this.devices[random() % this.devices.length]!;
    if (device.isOffline && this.chance(3)) device.isOffline = false;
    switch (random() % 24) {
      case 0:
        network.cut(device.name, CUTS[random() % 3]!);
        break;
      case 1:
        network.cut(undefined, CUTS[random() % 3]!);
        break;
      case 2:
        network.stall(device.name, random() % 6_000);
        break;
      case 3:
      case 4:
        device.isOffline = true;
        network.cut(device.name, CUTS[random() % 3]!);
        break;
      case 5:
        this.isDown = true;
        break;
      case 6:
      case 7:
        await this.#dieOrStart(device);
        break;
      case 8:
        await this.#serverDies();
        break;
      case 9:
        if (!this.profile.tokens) break;
        if (this.chance(2)) this.#expire(device.owner);
        else this.#renew(device.owner);
        break;
      case 10:
        if (this.profile.evictions) this.#evict();
        break;
      case 11:
        if (this.profile.compaction && this.isWell) {
          this.#behind(this.server.requestSnapshot());
        }
        break;
      case 12:
        if (this.profile.copies && this.devices.length < 5) {
          if (device.owner === device.name) this.copy(device);
        }
        break;
      case 13:
        if (this.profile.fullStores) this.#breakStore(device);
        break;
      case 14:
        this.#dismiss(device);
        break;
      case 15:
      case 16:
        if (this.profile.restores) await this.#backUpOrRestore();
        break;
      case 17:
        if (this.profile.poisons && this.isWell) {
          const name = `${POISON} ${this.#poisoned++}`;
          this.#behind(this.server.propose(bytes(name)));
        }
        break;
    }
    const time = this.chance(12) ? random() % 40_000 : random() % 400;
    for (let left = time; left > 0;) {
      const part = Math.min(left, 1 + random() % (1 + (time >> 1)));
      await this.env.advance(part);
      left -= part;
      for (const device of this.devices) {
        if (this.chance(2)) this.observe(device);
      }
    }
    this.check();
  }

  async #dieOrStart(device: Device): Promise<void> {
    if (device.life === undefined) return this.start(device);
    const { powerCuts } = this.profile;
    await this.stop(
      device,
      this.chance(3)
        ? "stop"
        : powerCuts && this.chance(2)
        ? "power cut"
        : "kill",
    );
    if (this.chance(2)) this.start(device);
  }

  async #serverDies(): Promise<void> {
    if (this.isUp) {
      await this.stopServer(
        this.chance(3) ? "stop" : this.chance(2) ? "kill" : "power cut",
      );
      if (this.chance(2)) return;
    }
    await this.startServer();
  }

  /** Others open so many sessions that those of the devices have to go. */
  #evict(): void {
    if (!this.isWell) return;
    this.#evictions++;
    this.count("evictions");
    for (let i = 0; i < this.#sessionsMax; i++) {
      this.#behind(this.server.openSession());
    }
  }

  #breakStore(device: Device): void {
    const { faulty } = device.outbox;
    const isUnknown = this.chance(2);
    faulty.fault = {
      at: faulty.writes + 1 + this.random() % 4,
      times: 1 + this.random() % 3,
      after: isUnknown && this.chance(2),
      error: isUnknown
        ? new ErrUnknownOutcome("Who knows")
        : new ErrStoreFull("No room"),
    };
  }

  #dismiss(device: Device): void {
    for (const submission of device.replica?.pending() ?? []) {
      if (submission.state !== "refused" || this.chance(2)) continue;
      device.commands.get(text(submission.cmd))!.isDismissed = true;
      this.#behind(submission.dismiss());
    }
  }

  // ----------------------------------------------------------------- the end

  /** All is well again; resolves once everybody has everything. */
  async heal(): Promise<void> {
    this.#isHealing = true;
    await this.#heal();
    this.#isHealing = false;
  }

  async #heal(): Promise<void> {
    this.isDown = false;
    if (!this.isUp) await this.startServer();
    for (const device of this.devices) {
      device.isOffline = false;
      device.outbox.faulty.fault = undefined;
      this.#renew(device.owner);
      if (device.life === undefined) this.start(device);
    }
    for (let i = 0; i < 600 && !this.#isSettled; i++) {
      await this.env.advance(500);
      if (!this.isWell) await this.operate();
      for (const device of this.devices) {
        if (this.#isOther(device)) this.#beginOver(device);
      }
      for (const device of this.devices) this.observe(device);
      this.check();
    }
    if (!this.#isSettled) this.fail(`Never settled: ${this.#standing()}`);
    this.check();
  }

  get #isSettled(): boolean {
    return this.isWell && this.devices.every((device) => {
      const { replica } = device;
      if (this.isRestored && this.hasDiverged(device)) return true;
      return replica !== undefined &&
        replica.appliedIndex === this.server.appliedIndex &&
        // One whose outbox is a copy says so.
        (device.life!.db.state === "live" ||
          device.isCopied && device.life!.db.state === "blocked") &&
        (device.isCopied ||
          replica.pending().every(({ state }) => state !== "queued"));
    });
  }

  /**
   * Has a device start over on the server's history; fails if a command that was
   * pending is neither in that history, once, nor said to be unknown.
   */
  async startOver(device: Device): Promise<void> {
    const life = device.life!;
    const pending = (life.replica?.pending() ?? [])
      .filter(({ state }) => state === "queued")
      .map(({ cmd }) => text(cmd));
    this.count("started over");
    const over = life.host.startOver(CLUSTER);
    const replica = life.replica = await this.env.until(over, 50);
    const isSettled = (): boolean =>
      life.db.state === "live" &&
      replica.appliedIndex === this.server.appliedIndex &&
      replica.pending().every(({ state }) => state !== "queued");
    for (let i = 0; i < 600 && !isSettled(); i++) await this.env.advance(500);
    if (!isSettled()) this.fail(`${device.name} did not start over`);
    const list = await this.server.staleRead(null) as string[];
    if (new Set(list).size < list.length) this.fail(`Twice in ${list}`);
    assertEquals(await replica.staleRead(null), list, device.name);
    const kept = new Map(
      replica.pending().map(({ cmd, state }) => [text(cmd), state]),
    );
    for (const name of pending) {
      const state = kept.get(name);
      this.count(state ?? "sent after");
      if (state === undefined && !list.includes(name)) {
        this.fail(`${device.name} has lost ${name}`);
      }
      if (state === "unknown" && list.includes(name)) {
        this.fail(`${name} of ${device.name} is unknown, and there`);
      }
    }
  }

  /** Whether a device has been told that the server has another log than it knew. */
  hasDiverged({ life }: Device): boolean {
    if (life!.events.some(({ type }) => type === "diverged")) return true;
    return life!.replica === undefined
      ? life!.events.length === 0
      : life!.replica.error instanceof ErrDiverged;
  }

  #standing(): string {
    const devices = this.devices.map(({ name, kind, life }) => {
      const { replica } = life!;
      if (replica === undefined) return `${name} (${kind}) ${life!.failure}`;
      const pending = replica?.pending().map(({ cmd, state }) =>
        `${text(cmd)} ${state}`
      );
      return `${name} (${kind}) ${life!.db.state} ${
        life!.db.status.error
      } at ${replica?.appliedIndex}: ${pending}`;
    });
    return `server at ${this.server.appliedIndex}; ${devices.join("; ")}`;
  }

  /** Sees to it that the log is cut where it can be, and that it is short then. */
  async checkLog(): Promise<void> {
    if (this.#snapshotEntries === 0) return;
    // Nobody is kept in mind for ever.
    await this.env.advance(310_000);
    for (let i = 0; i < 3 * this.#snapshotEntries; i++) {
      await this.env.until(this.server.propose(bytes(`filler ${i}`)), 20);
    }
    await this.env.advance(5_000);
    const log = await this.#logDB!.open(CLUSTER, 99n);
    const last = await log.readIndex();
    let first = 1;
    try {
      (await log.read(0)).close();
    } catch (error) {
      first = (error as { firstIndex: number }).firstIndex;
    }
    await log.close();
    const most = 3 * this.#snapshotEntries + 20;
    assert(
      last - first <= most,
      `Log has entries ${first} to ${last}, more than ${most}`,
    );
  }

  /** What must be true in the end. */
  async checkAll(): Promise<void> {
    const list = await this.server.staleRead(null) as string[];
    const hash = await this.server.getHash();
    const places = new Map(list.map((name, i) => [name, i]));
    assertEquals(places.size, list.length, "A command was applied twice");
    for (const device of this.devices) {
      const replica = device.replica!;
      assertEquals(await replica.getHash(), hash, device.name);
      assertEquals(await replica.staleRead(null), list, device.name);
      this.#checkCommands(device, replica, places);
    }
    if (!this.profile.powerCuts) this.#checkOrder(list);
    for (const { device, from, list: seen } of this.#seen) {
      let same = 0;
      while (same < seen.length && seen[same] === list[same]) same++;
      const rest = seen.slice(same);
      const isOwn = rest.every((name) =>
        name.startsWith(`${device.split("'")[0]}`)
      );
      if (same < from || !isOwn) {
        this.fail(`${device} saw ${seen}, which never was: ${list}`);
      }
    }
    assert(
      this.network.bufferedBytesMax <= 2 * SYNC_BUFFERED_BYTES_MAX,
      `${this.network.bufferedBytesMax} bytes waited at one end`,
    );
    assert(
      this.#core!.telemetry.counts.connections <= this.network.open,
      "Server has connections that are over",
    );
    this.check();
  }

  #checkCommands(
    device: Device,
    replica: Replica,
    places: ReadonlyMap<string, number>,
  ): void {
    const pending = new Map(
      replica.pending().map((one) => [text(one.cmd), one]),
    );
    for (const command of device.commands.values()) {
      const place = places.get(command.text);
      const one = pending.get(command.text);
      const wrong = this.#whatIsWrong(device, command, place, one);
      if (wrong !== undefined) {
        this.fail(
          `${device.name} (${device.kind}) ${command.text}: ${wrong}; at ${place}, ${command.state}, ${one?.state} (${one?.reason}), ${command.error}`,
        );
      }
    }
  }

  #whatIsWrong(
    device: Device,
    command: Command,
    place: number | undefined,
    one: Submission | undefined,
  ): string | undefined {
    const { state, error, mayBeLost, isDismissed, history } = command;
    const isApplied = place !== undefined;
    const isOld = history < this.history;
    // It was decided in a history that is gone.
    const isRewound = isOld &&
      (command.result !== undefined || this.#everCommitted.has(command.text));
    const result = isRewound ? undefined : command.result;
    if (isBad(command) && isApplied) return "applied though refused";
    if (state === "turned down" && isApplied) {
      return "applied though not submitted";
    }
    if (result !== undefined) {
      if (!isApplied) return "answered though not applied";
      if (result.value !== BigInt(place) + 1n) return `result ${result.value}`;
      if (text(result.data) !== command.text) return "another one's result";
    }
    if (
      error instanceof ErrUnknownOutcome && error.applied && !isApplied &&
      !isRewound
    ) return "told applied";
    if (
      error !== undefined &&
      !(error instanceof ErrUnknownOutcome ||
        error instanceof ErrProposalRefused && isBad(command) ||
        error instanceof ErrOutboxCopied && device.isCopied ||
        error instanceof ErrClusterClosed)
    ) return "rejected";
    if (state !== "kept" || isDismissed) return undefined;
    switch (one?.state) {
      case "refused":
        this.count("refused");
        if (!isBad(command)) return "refused";
        if (
          command.text.includes(DENIED) &&
          error instanceof ErrProposalRefused &&
          error.result?.value !== 0n
        ) return "refused without its result";
        // A process that dies before it has written the reason down has refused
        // it all the same, by leaving its place out.
        return one.reason!.includes(REFUSED) ||
            command.text.includes(POISON) &&
              one.reason!.includes("was skipped")
          ? undefined
          : "reason";
      case "unknown":
        this.count("unknown");
        // A power cut has an outbox give up a session that knows more than it.
        return this.#evictions > 0 && device.hasSkipped || isOld ||
            this.profile.powerCuts || this.#isOfCopies(device)
          ? undefined
          : "unknown";
      case "queued":
        return device.isCopied ? undefined : "queued";
      default:
        if (mayBeLost || isRewound) return undefined;
        if (isBad(command)) return "gone though refused";
        this.count("applied");
        return isApplied ? undefined : "lost";
    }
  }

  #checkOrder(list: readonly string[]): void {
    const last = new Map<string, number>();
    for (const command of list) {
      const [name, number] = command.split(":");
      if (number === undefined) continue;
      if (Number(number) <= (last.get(name!) ?? -1)) {
        this.fail(`${command} after ${last.get(name!)}`);
      }
      last.set(name!, Number(number));
    }
  }

  /** Ends everything; nothing may be left behind. */
  async over(): Promise<void> {
    for (const device of this.devices) await this.stop(device, "stop");
    if (this.isUp) await this.stopServer("stop");
    for (let i = 0; i < 100 && this.#background.size > 0; i++) {
      await this.env.advance(5_000);
    }
    assertEquals(this.#background.size, 0, "Something never ended");
    await this.env.advance(60_000);
    assertEquals(this.env.timers, 0, "A timer is left");
    await this.#memory?.close();
    await settle();
    this.check();
  }
}
