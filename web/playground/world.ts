/**
 * World of the playground: a log, three replicas on it, each a host of the library
 * in a simulated process of its own, and what a person does to them. Everything that
 * the page shows is read from the hosts, the log and the links; a seed and the
 * actions repeat it.
 *
 * @module
 */

import {
  type ErrDiverged,
  ErrProposalRefused,
  ErrUnknownOutcome,
  ErrUpdateFailed,
  type HostEvent,
  MemoryLogDB,
  NodeHost,
  type Replica,
  type Session,
} from "../../mod.ts";
import { encodeShown } from "../../src/bytes.ts";
import { systemEnv } from "../../src/env.ts";
import { preload } from "../../src/statemachine/load.ts";
import type { Checkpoint, Log, Records } from "../../src/ports/mod.ts";
import { recordAt, RecordKind } from "../../src/log/records.ts";
import { RecordCursor } from "../../src/rsm/record_codec.ts";
import {
  derivedSeed,
  generator,
  SimulatedClock,
  type SimulatedEnv,
} from "../../src/testing/simulated_clock.ts";
import {
  type HashName,
  hashName,
  type Machine,
  PageMachine,
} from "./machine.ts";
import { type AppendFault, Link, LinkedLogDB, type Packet } from "./network.ts";

/** Names of the replicas, in the order of their node ids. */
export const NAMES = ["A", "B", "C"] as const;

/** Name of a replica. */
export type Name = typeof NAMES[number];

/** Cluster of the playground. */
const CLUSTER_ID = 1n;

/** Node id under which the process of the log has it open. */
const LOG_NODE_ID = 99n;

/** Replica whose hashes are authoritative. */
const TRUSTED_NODE_ID = 1n;

/** Distance of the indexes at which the replicas compare their hashes. */
export const HASH_ENTRIES = 4;

/** Entries that a snapshot on request leaves in the log: the log is compacted by its own button. */
const SNAPSHOT_OVERHEAD = Number.MAX_SAFE_INTEGER;

/** Time between the starts of two replicas while a world is set up, in milliseconds: their sessions get the order of their names. */
const START_GAP_MS = 20;

/** Longest simulated time in which a world is set up, in milliseconds. */
const SETUP_MS_MAX = 1_000;

/** Differences of the clocks of the replicas, in milliseconds. */
const CLOCK_OFFSETS: Readonly<Record<Name, number>> = {
  A: 0,
  B: 1_370,
  C: -2_840,
};

/** Time of day at which every run begins on the clock of A. */
const BEGINS_AT = Date.UTC(2026, 0, 5, 9, 0, 0);

/** Time without a change after which the world counts as quiet, in milliseconds. */
const QUIET_MS = 12_000;

/** Something that a person does. */
export type Action =
  | {
    readonly do: "propose";
    readonly on: Name;
    readonly command: string;
    /** True to propose in the replica's session: exactly once. */
    readonly session: boolean;
  }
  | {
    readonly do:
      | "pause"
      | "resume"
      | "crash"
      | "restart"
      | "cut"
      | "join"
      | "slow"
      | "fast"
      | "snapshot"
      | "compact"
      | "skip"
      | AppendFault;
    readonly on: Name;
  };

/** Entry of the log, as the page draws it. */
export interface LogCell {
  readonly index: number;
  readonly kind: "command" | "session" | "control";
  /** Command, or a word for a record of the host. */
  readonly text: string;
  /** Replica that appended it; undefined for the log itself. */
  readonly from: string | undefined;
  /** Index of the record that it repeats, if a message arrived twice or was sent again. */
  readonly repeats: number | undefined;
  /** True if it is a command in a session. */
  readonly inSession: boolean;
}

/** Relation of a replica's state to one entry. */
export type Mark = "applied" | "passed" | "snapshot";

/** State of a replica, as the page shows it. */
export type Phase =
  | "starting"
  | "running"
  | "paused"
  | "crashed"
  | "diverged"
  | "failed";

/** Proposal without a result. */
export interface Waiting {
  readonly id: number;
  readonly command: string;
}

/** Event of the world, for the narration. */
export type WorldEvent =
  | { readonly type: "action"; readonly action: Action }
  | { readonly type: "appended"; readonly cell: LogCell }
  | { readonly type: "lost"; readonly packet: Packet }
  | { readonly type: "unanswered"; readonly on: Name; readonly label: string }
  | {
    readonly type: "applied";
    readonly on: Name;
    /** First and last index. */
    readonly from: number;
    readonly to: number;
    /** True if it was a start of the replica. */
    readonly isStart: boolean;
    /** Index of the snapshot that the start recovered. */
    readonly snapshot: number | undefined;
  }
  | {
    readonly type: "answered";
    readonly on: Name;
    readonly command: string;
    readonly answer: string;
  }
  | {
    readonly type: "unknown";
    readonly on: Name;
    readonly command: string;
  }
  | {
    readonly type: "host";
    readonly on: Name;
    readonly event: HostEvent;
    readonly isStart: boolean;
  }
  | {
    readonly type: "refused";
    readonly on: Name;
    readonly what: string;
    readonly why: string;
  }
  | {
    readonly type: "agreed";
    readonly index: number;
    readonly hash: HashName;
  }
  | { readonly type: "healed"; readonly on: Name; readonly index: number }
  | { readonly type: "nothing to compact" };

/** Options of a {@linkcode World}. */
export interface WorldOptions {
  readonly seed: number;
  readonly machine: Machine;
  /** Called with each event, in order, and its simulated time in milliseconds. */
  readonly onEvent: (event: WorldEvent, at: number) => void;
}

function capture(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** One replica with its process, over all lives of it. */
export class ReplicaView {
  readonly name: Name;
  readonly nodeID: bigint;
  readonly link: Link;
  phase: Phase = "crashed";
  /** Index of the last entry in its state; 0 while it has none. */
  applied = 0;
  /** State as JSON; undefined while it has none. */
  state: string | undefined;
  hash: HashName | undefined;
  /** Entry that explains why its state differs from that of the trusted replica, once it is found. */
  differsAt: number | undefined;
  /** Range in which it began to differ. */
  differs: { readonly after: number; readonly upTo: number } | undefined;
  /** Error with which it failed. */
  failure: string | undefined;
  /** Index of the entry at which `update()` threw. */
  failedAt: number | undefined;
  readonly marks: Map<number, Mark> = new Map();
  readonly waiting: Map<number, Waiting> = new Map();
  env: SimulatedEnv | undefined;
  host: NodeHost | undefined;
  replica: Replica | undefined;
  session: Promise<Session> | undefined;
  /** Number of starts. */
  lives = 0;
  /** Index of the snapshot that the present start has recovered. */
  recovered: number | undefined;
  /** True until the start of the present life has resolved. */
  isStarting = false;

  constructor(name: Name, link: Link) {
    this.name = name;
    this.nodeID = BigInt(NAMES.indexOf(name) + 1);
    this.link = link;
  }

  /** True while its process exists. */
  get isAlive(): boolean {
    return this.phase !== "crashed" && this.phase !== "failed";
  }

  /** Forgets the state of a replica that has none any more. */
  forget(): void {
    this.applied = 0;
    this.marks.clear();
    this.state = this.hash = this.recovered = undefined;
    this.differs = this.differsAt = undefined;
    this.failure = this.failedAt = undefined;
  }

  /** Time of day on its clock, in milliseconds since 1970. */
  get clock(): number {
    return Math.floor(BEGINS_AT + (this.env?.now() ?? 0));
  }
}

/** The log, the replicas and the time. */
export class World {
  readonly seed: number;
  readonly machine: Machine;
  readonly replicas: readonly ReplicaView[];
  /** Entries of the log from the beginning; compacted ones stay here as what they were. */
  readonly cells: LogCell[] = [];
  /** Increases with each visible change. */
  version = 0;
  readonly #onEvent: WorldOptions["onEvent"];
  readonly #clock: SimulatedClock;
  /** Environment of the network, the log and the person. */
  readonly #env: SimulatedEnv;
  readonly #logDB: MemoryLogDB;
  readonly #log: Log;
  readonly #seen = new Map<string, number>();
  readonly #skipped = new Set<number>();
  #packets = 0;
  #proposals = 0;
  #agreedAt = 0;
  #changedAt = 0;
  #isBusy = false;

  private constructor(options: WorldOptions) {
    const { seed, machine, onEvent } = options;
    this.seed = seed;
    this.machine = machine;
    this.#onEvent = onEvent;
    this.#clock = new SimulatedClock(seed);
    this.#env = this.#clock.env("network");
    this.#logDB = new MemoryLogDB({ env: this.#clock.env("log") });
    this.#log = this.#logDB.open(CLUSTER_ID, LOG_NODE_ID);
    const listener = {
      lost: (packet: Packet): void => this.#emit({ type: "lost", packet }),
      changed: (isShown: boolean): void => this.#changed(isShown),
      unanswered: (on: string, label: string): void =>
        this.#emit({ type: "unanswered", on: on as Name, label }),
    };
    this.replicas = NAMES.map((name) =>
      new ReplicaView(
        name,
        new Link({
          replica: name,
          env: this.#env,
          nextID: () => ++this.#packets,
          listener,
        }),
      )
    );
  }

  /** Creates a world and starts its replicas. */
  static async create(options: WorldOptions): Promise<World> {
    // Loading takes real time, which the simulated clock does not wait for.
    await preload();
    const world = new World(options);
    world.replicas.forEach((view, i) =>
      world.later(() => world.#start(view), i * START_GAP_MS)
    );
    await world.#setUp();
    return world;
  }

  /** Runs until every replica has its session. */
  async #setUp(): Promise<void> {
    let open = 0;
    const begun = new Set<Promise<Session>>();
    while (open < this.replicas.length && this.now < SETUP_MS_MAX) {
      await this.#settle();
      for (const { session } of this.replicas) {
        if (session === undefined || begun.has(session)) continue;
        begun.add(session);
        session.then(() => open++, () => open++);
      }
      this.#clock.runNext(SETUP_MS_MAX);
    }
    await this.#settle();
    for (const { link } of this.replicas) link.setUp();
  }

  /** Simulated time, in milliseconds. */
  get now(): number {
    return this.#clock.now;
  }

  /** Number of simulated events so far: with the seed it identifies a moment. */
  get events(): number {
    return this.#clock.events;
  }

  /** First index that the log still has. */
  get first(): number {
    return this.#log.info!().first;
  }

  /** Last index of the log. */
  get last(): number {
    return this.#log.info!().last;
  }

  /** Indexes of the snapshots that the replicas share, oldest first. */
  get snapshots(): readonly number[] {
    return this.#snapshots;
  }

  #snapshots: readonly number[] = [];

  /** Indexes of the entries that every replica skips. */
  get skipped(): ReadonlySet<number> {
    return this.#skipped;
  }

  /** Returns a replica by its name. */
  replica(name: Name): ReplicaView {
    return this.replicas[NAMES.indexOf(name)]!;
  }

  /** True if nothing is under way, and nothing will happen for a while. */
  get isQuiet(): boolean {
    return this.#clock.nextAt === Infinity ||
      this.#clock.now - this.#changedAt > QUIET_MS;
  }

  /** Calls `callback` after `delay` milliseconds of simulated time. */
  later(callback: () => void, delay: number): void {
    this.#env.setTimer(callback, delay);
  }

  #emit(event: WorldEvent): void {
    this.#changed();
    this.#onEvent(event, this.now);
  }

  #changed(isShown = true): void {
    if (isShown) this.version++;
    this.#changedAt = this.#clock.now;
  }

  // --------------------------------------------------------------------- time

  /** True while `advance()` or `step()` runs: an action would not be repeatable. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Runs what is due up to a time, in the order of the simulated clock. */
  async advance(to: number): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      await this.#settle();
      while (this.#clock.runNext(to)) await this.#settle();
    } finally {
      this.#isBusy = false;
    }
  }

  /** Runs until something visible has changed. */
  async step(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      await this.#settle();
      const { version } = this;
      const end = this.now + QUIET_MS;
      do {
        if (!this.#clock.runNext(end)) break;
        await this.#settle();
      } while (this.version === version);
      // Afterwards nothing is due any more, as after `advance()`.
      while (this.#clock.nextAt <= this.now) {
        this.#clock.runNext(this.now);
        await this.#settle();
      }
    } finally {
      this.#isBusy = false;
    }
  }

  /** Lets every process do what it can do without time, and reads what has changed. */
  async #settle(): Promise<void> {
    await systemEnv.turn();
    let isChanged = false;
    for (const view of this.replicas) {
      if (this.#observe(view)) isChanged = true;
    }
    if (!isChanged) return;
    await systemEnv.turn();
    this.#compare();
  }

  // ------------------------------------------------------------------ the log

  #labelOf(records: Records, first?: number): string {
    const texts = records.ends.map((_, i) => {
      const { text } = describeRecord(recordAt(records, i));
      return first === undefined ? text : `#${first + i}`;
    });
    return texts.length <= 2
      ? texts.join(", ")
      : `${texts[0]} … ${texts.at(-1)}`;
  }

  #append(replica: string, records: Records): number {
    const before = this.last;
    // The log in memory never returns a promise.
    const first = this.#log.append(records) as number;
    for (let index = before + 1; index < first; index++) {
      this.#addCell({
        index,
        kind: "control",
        text: "epoch",
        from: undefined,
        repeats: undefined,
        inSession: false,
      });
    }
    records.ends.forEach((_, i) => {
      const record = recordAt(records, i);
      const { kind, text, identity, inSession } = describeRecord(record);
      const index = first + i;
      const repeats = this.#seen.get(identity);
      if (repeats === undefined) this.#seen.set(identity, index);
      this.#addCell({ index, kind, text, from: replica, repeats, inSession });
    });
    return first;
  }

  #addCell(cell: LogCell): void {
    this.cells.push(cell);
    this.#emit({ type: "appended", cell });
  }

  /** Has the trusted replica replay entries. */
  async #explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    const { replica, phase } = this.replicas[0]!;
    if (replica === undefined || phase !== "running") return undefined;
    return await replica.explain(after, upTo, { signal });
  }

  // ------------------------------------------------------------- the replicas

  #start(view: ReplicaView): void {
    const { name, nodeID, link } = view;
    const life = ++view.lives;
    const env = this.#clock.env(`${name} ${life}`, {
      offset: CLOCK_OFFSETS[name],
    });
    view.env = env;
    view.phase = "starting";
    view.isStarting = true;
    view.forget();
    const isCurrent = (): boolean => view.lives === life && !env.isDead;
    const host = new NodeHost({
      env,
      logDB: new LinkedLogDB(
        link,
        {
          logDB: this.#logDB,
          trusted: TRUSTED_NODE_ID,
          labelOf: (records, first) => this.#labelOf(records, first),
          append: (replica, records) => this.#append(replica, records),
          explain: (...args) => this.#explain(...args),
        },
        env,
      ),
      onEvent: (event) => {
        if (isCurrent()) this.#hostEvent(view, event);
      },
    });
    view.host = host;
    view.replica = view.session = undefined;
    const random = generator(derivedSeed(this.seed, `machine ${name} ${life}`));
    const starting = host.startConcurrentCluster(
      () =>
        new PageMachine(
          this.machine.create({
            now: () => Math.floor(BEGINS_AT + env.now()),
            random: () => random() / 2 ** 32,
          }),
          (index) => {
            // A replay, which explains a divergence, applies earlier entries again.
            if (isCurrent() && index > view.applied) {
              view.marks.set(index, "applied");
            }
          },
        ),
      {
        clusterID: CLUSTER_ID,
        nodeID,
        hashEntries: HASH_ENTRIES,
      },
    );
    this.#follow(view, starting);
  }

  /** Shows a replica once its start has resolved. */
  #follow(view: ReplicaView, starting: Promise<Replica>): void {
    const { lives } = view;
    const isCurrent = (): boolean => view.lives === lives && view.isAlive;
    starting.then((replica) => {
      if (!isCurrent()) return;
      view.replica = replica;
      // A process that is paused may have been told before.
      if (view.phase === "starting") view.phase = "running";
      view.session = replica.openSession();
      view.session.catch(() => {});
      this.#changed();
    }, (error) => {
      if (isCurrent()) this.#failed(view, error);
    });
    this.#changed();
  }

  #failed(view: ReplicaView, error: unknown): void {
    const isOfUpdate = error instanceof ErrUpdateFailed;
    view.phase = "failed";
    view.failure = capture(isOfUpdate ? error.cause : error);
    view.failedAt = isOfUpdate ? error.index : undefined;
    view.waiting.clear();
    this.#changed();
  }

  /** Has every replica skip the entry at which `update()` threw, and starts those again that have failed. */
  async #skip({ host, failedAt }: ReplicaView): Promise<void> {
    await host!.skipEntry(CLUSTER_ID, failedAt!, "update() threw");
    this.#skipped.add(failedAt!);
    for (const view of this.replicas) {
      if (view.phase !== "failed" || view.failedAt !== failedAt) continue;
      view.forget();
      view.phase = "starting";
      view.isStarting = true;
      view.replica = view.session = undefined;
      this.#follow(view, view.host!.restartCluster(CLUSTER_ID));
    }
  }

  #hostEvent(view: ReplicaView, event: HostEvent): void {
    switch (event.type) {
      case "recovered":
        view.recovered = event.snapshot.index;
        for (let i = 1; i <= event.snapshot.index; i++) {
          view.marks.set(i, "snapshot");
        }
        break;
      case "diverged": {
        if (event.from !== TRUSTED_NODE_ID) {
          // The trusted replica hears of it too; the other one acts on it.
          this.#changed();
          return;
        }
        const error = event.error as ErrDiverged;
        view.phase = "diverged";
        view.differs = { after: error.after ?? 0, upTo: error.upTo ?? 0 };
        view.differsAt = error.index;
        break;
      }
      case "failed":
        this.#failed(view, event.failure);
        break;
      case "snapshot":
        void this.#listSnapshots();
        break;
    }
    this.#emit({
      type: "host",
      on: view.name,
      event,
      isStart: view.isStarting,
    });
  }

  async #listSnapshots(): Promise<void> {
    const list = await this.#logDB.snapshots.list(CLUSTER_ID);
    this.#snapshots = list.map(({ index }) => index).sort((a, b) => a - b);
    this.#changed();
  }

  /** Reads the applied index of a replica, and what it says of its state; returns true if it has changed. */
  #observe(view: ReplicaView): boolean {
    const { replica } = view;
    if (replica === undefined || !view.isAlive) return false;
    const { appliedIndex } = replica;
    if (view.phase === "diverged") {
      if (replica.status.state !== "running") return false;
      view.phase = "running";
      view.differs = view.differsAt = undefined;
      view.applied = appliedIndex;
      this.#emit({ type: "healed", on: view.name, index: appliedIndex });
      this.#read(view, replica);
      return true;
    }
    if (appliedIndex <= view.applied) return false;
    const from = view.applied + 1;
    for (let index = from; index <= appliedIndex; index++) {
      if (!view.marks.has(index)) view.marks.set(index, "passed");
    }
    view.applied = appliedIndex;
    const { isStarting, recovered } = view;
    view.isStarting = false;
    this.#emit({
      type: "applied",
      on: view.name,
      from: isStarting ? (recovered ?? 0) + 1 : from,
      to: appliedIndex,
      isStart: isStarting,
      snapshot: isStarting ? recovered : undefined,
    });
    this.#read(view, replica);
    return true;
  }

  #read(view: ReplicaView, replica: Replica): void {
    const isCurrent = (): boolean => view.replica === replica;
    void (async () => {
      try {
        const state = await replica.staleRead(null);
        const { hash } = await replica.getHash();
        if (!isCurrent()) return;
        view.state = state as string;
        view.hash = hashName(hash);
        this.#changed();
      } catch {
        // It is recovering, or was stopped: the page shows that in other words.
      }
    })();
  }

  /** Reports when all replicas that run have the whole log, and one hash. */
  #compare(): void {
    const { last } = this;
    const hash = this.replicas[0]!.hash;
    const isAgreed = last > this.#agreedAt && hash !== undefined &&
      this.replicas.every((view) =>
        view.phase === "running" && view.applied === last &&
        view.hash?.text === hash.text
      );
    if (!isAgreed || this.cells.at(-1)?.kind !== "command") return;
    this.#agreedAt = last;
    this.#emit({ type: "agreed", index: last, hash });
  }

  // ------------------------------------------------------------------ actions

  /** True if an action makes sense now. */
  can(action: Action): boolean {
    const view = this.replica(action.on);
    const { phase, link } = view;
    switch (action.do) {
      case "propose":
        return phase === "running";
      case "pause":
        return phase === "running" || phase === "starting";
      case "resume":
        return phase === "paused";
      case "crash":
        return phase !== "crashed";
      case "restart":
        return phase === "crashed";
      case "cut":
        return !link.isCut;
      case "join":
        return link.isCut;
      case "slow":
        return !link.isSlow;
      case "fast":
        return link.isSlow;
      case "snapshot":
      case "compact":
        return phase === "running";
      case "skip":
        return phase === "failed" && view.failedAt !== undefined;
      case "lose":
      case "lose answer":
      case "double":
        return phase === "running" && !link.isCut;
    }
  }

  /** Does something, if it makes sense now; returns true if it was done. */
  act(action: Action): boolean {
    if (!this.can(action)) return false;
    const view = this.replica(action.on);
    this.#emit({ type: "action", action });
    switch (action.do) {
      case "propose":
        this.#propose(view, action.command, action.session);
        break;
      case "pause":
        view.phase = "paused";
        view.env!.suspend();
        break;
      case "resume":
        view.phase = view.replica === undefined ? "starting" : "running";
        view.env!.resume();
        break;
      case "crash":
        this.#crash(view);
        break;
      case "restart":
        this.#start(view);
        break;
      case "cut":
        view.link.cut();
        break;
      case "join":
        view.link.join();
        break;
      case "slow":
      case "fast":
        view.link.slow(action.do === "slow");
        break;
      case "snapshot":
        this.#ask(view, "a snapshot", async (replica) => {
          await replica.requestSnapshot({
            compactionOverhead: SNAPSHOT_OVERHEAD,
          });
        });
        break;
      case "compact":
        this.#ask(view, "a compaction", async (replica) => {
          const upTo = await replica.requestCompaction();
          if (upTo === 0) this.#emit({ type: "nothing to compact" });
        });
        break;
      case "skip":
        this.#skip(view).catch((error) => {
          const why = capture(error);
          this.#emit({ type: "refused", on: view.name, what: "the skip", why });
        });
        break;
      default:
        view.link.fault = action.do;
    }
    this.#changed();
    return true;
  }

  #crash(view: ReplicaView): void {
    view.env!.kill();
    view.phase = "crashed";
    view.host = view.replica = view.session = undefined;
    view.forget();
    view.waiting.clear();
    view.link.fault = undefined;
  }

  #ask(
    view: ReplicaView,
    what: string,
    work: (replica: Replica) => Promise<void>,
  ): void {
    const { env } = view;
    work(view.replica!).catch((error) => {
      if (env!.isDead) return;
      this.#emit({ type: "refused", on: view.name, what, why: capture(error) });
    });
  }

  #propose(view: ReplicaView, command: string, inSession: boolean): void {
    const id = ++this.#proposals;
    const { env, name } = view;
    view.waiting.set(id, { id, command });
    const decoder = new TextDecoder();
    const propose = async (): Promise<void> => {
      const bytes = encodeShown(command);
      const replica = view.replica!;
      const session = inSession ? await view.session : undefined;
      const { data } = await replica.propose(
        bytes,
        session === undefined ? {} : { session },
      );
      if (env!.isDead) return;
      view.waiting.delete(id);
      const answer = decoder.decode(data);
      this.#emit({ type: "answered", on: name, command, answer });
    };
    propose().catch((error) => {
      if (env!.isDead) return;
      view.waiting.delete(id);
      // Said of the replica already.
      if (view.phase === "failed") return;
      if (error instanceof ErrUnknownOutcome) {
        this.#emit({ type: "unknown", on: name, command });
      } else {
        this.#emit({
          type: "refused",
          on: name,
          what: `“${command}”`,
          why: error instanceof ErrProposalRefused
            ? error.message
            : capture(error),
        });
      }
    });
  }

  /** Ends the processes and the log. */
  async close(): Promise<void> {
    for (const view of this.replicas) view.env?.kill();
    await this.#logDB.close();
  }
}

/** Description of a record. */
interface Described {
  readonly kind: LogCell["kind"];
  readonly text: string;
  /** Same for a record that was sent twice. */
  readonly identity: string;
  readonly inSession: boolean;
}

function describeRecord(record: Uint8Array): Described {
  const cursor = new RecordCursor();
  cursor.read(record, 0, record.length);
  const { kind, session, series, originLow, originHigh, start } = cursor;
  switch (kind) {
    case RecordKind.SessionProposal:
      return {
        kind: "command",
        text: new TextDecoder().decode(record.subarray(start)),
        identity: `session ${session} ${series}`,
        inSession: true,
      };
    case RecordKind.Proposal:
      return {
        kind: "command",
        text: new TextDecoder().decode(record.subarray(start)),
        identity: `origin ${originHigh} ${originLow} ${series}`,
        inSession: false,
      };
    case RecordKind.Register:
      return {
        kind: "session",
        text: "session",
        identity: `register ${cursor.registration().clientID}`,
        inSession: false,
      };
    default:
      return {
        kind: "control",
        text: "control",
        identity: `record ${record.join()}`,
        inSession: false,
      };
  }
}
