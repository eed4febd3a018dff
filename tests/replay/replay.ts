/**
 * Replays an editing history through a session on three replicas that start in
 * three ways, and compares their final states.
 *
 * @module
 */

import {
  ErrCompacted,
  MemoryLogDB,
  NodeHost,
  type Replica,
  type Result,
  type Session,
} from "../../mod.ts";
import { systemEnv } from "../../src/env.ts";
import { commandChunks, transactions } from "./commands.ts";
import { TextStateMachine } from "./text_machine.ts";
import type { Trace } from "./trace.ts";

/**
 * Maximum number of commands proposed at once; as many again may be in flight.
 */
const CHUNK_MAX = 1024;
const CHUNKS_IN_FLIGHT = 3;

/**
 * Number of snapshots a replica takes in the course of a history: enough that
 * the log is compacted well before the third replica joins. Odd, so that the
 * half-way point lies between two, and the replica stopped there finds its own
 * snapshot the newest.
 */
const SNAPSHOTS = 15;

/** Maximum number of commands between two snapshots. */
const SNAPSHOT_ENTRIES_MAX = 32_768;

const CLUSTER = 1n;

/** Progress of a replay. */
export interface Progress {
  /** Number of acknowledged edits. */
  readonly done: number;
  /** Total number of edits. */
  readonly total: number;
}

/** Start of a replica. */
export interface ReplicaStart {
  /** Kind of start: with the log, after a stop, or late. */
  readonly how: "start" | "restart" | "late";
  /**
   * Index of the snapshot it recovered from; undefined if it applied every
   * command itself.
   */
  readonly snapshot: number | undefined;
}

/** Final state of one replica. */
export interface ReplicaReport {
  /** Node id of the replica. */
  readonly nodeID: bigint;
  /** Start that led to the state. */
  readonly start: ReplicaStart;
  /** Applied index. */
  readonly index: number;
  /** Hash of the machine at that index. */
  readonly hash: bigint;
  /** Length of its text, in code points. */
  readonly length: number;
  /** True if its text is the recorded final text. */
  readonly sameText: boolean;
}

/** Result of a replay. */
export interface ReplayReport {
  /** Name of the history. */
  readonly name: string;
  /** Number of commands that were applied, one per transaction. */
  readonly edits: number;
  /** Number of commands that a machine rejected; 0 on success. */
  readonly refused: number;
  /**
   * Time from the first proposal until every replica had applied the last, in
   * seconds.
   */
  readonly seconds: number;
  /**
   * First index in the log when the third replica joined; 1 if nothing was
   * compacted.
   */
  readonly logStart: number;
  /** Replicas by node id. */
  readonly replicas: readonly ReplicaReport[];
  /**
   * True if nothing was rejected, and all replicas have the same index and
   * hash, and the recorded text.
   */
  readonly same: boolean;
}

/** Options of `replay()`. */
export interface ReplayOptions {
  /**
   * Aborts the replay; it rejects with the reason after everything was stopped.
   */
  readonly signal?: AbortSignal;
  /** Called after each batch of acknowledged edits, so rather often. */
  readonly onProgress?: (progress: Progress) => void;
}

/** Replica on a host of its own. */
class Member {
  readonly nodeID: bigint;
  readonly #logDB: MemoryLogDB;
  readonly #snapshotEntries: number;
  #host: NodeHost | undefined;
  #replica: Replica | undefined;
  #lastStart: ReplicaStart = { how: "start", snapshot: undefined };

  constructor(nodeID: bigint, logDB: MemoryLogDB, snapshotEntries: number) {
    this.nodeID = nodeID;
    this.#logDB = logDB;
    this.#snapshotEntries = snapshotEntries;
  }

  get replica(): Replica {
    if (this.#replica === undefined) {
      throw new Error(`Replica ${this.nodeID} is not started`);
    }
    return this.#replica;
  }

  /** Starts the replica on a new host, as after a crash or on a new machine. */
  async start(how: ReplicaStart["how"]): Promise<void> {
    this.#lastStart = { how, snapshot: undefined };
    this.#host = new NodeHost({
      logDB: this.#logDB,
      onEvent: (event) => {
        if (event.type !== "recovered") return;
        this.#lastStart = { how, snapshot: event.snapshot.index };
      },
    });
    this.#replica = await this.#host.startConcurrentCluster(
      () => new TextStateMachine(),
      {
        clusterID: CLUSTER,
        nodeID: this.nodeID,
        snapshotEntries: this.#snapshotEntries,
        compactionOverhead: Math.floor(this.#snapshotEntries / 4),
      },
    );
  }

  async stop(): Promise<void> {
    await this.#host?.stop();
    this.#host = undefined;
    this.#replica = undefined;
  }

  async report(endContent: string): Promise<ReplicaReport> {
    const text = await this.replica.read("text");
    const length = await this.replica.read("length");
    const { index, hash } = await this.replica.getHash();
    return {
      nodeID: this.nodeID,
      start: this.#lastStart,
      index,
      hash,
      length: length as number,
      sameText: text === endContent,
    };
  }
}

/** First index in the log for a replica that is not started yet. */
async function firstIndex(logDB: MemoryLogDB, nodeID: bigint): Promise<number> {
  const log = await logDB.open(CLUSTER, nodeID);
  try {
    (await log.read(0)).close();
    return 1;
  } catch (error) {
    if (error instanceof ErrCompacted) return error.firstIndex;
    throw error;
  } finally {
    await log.close();
  }
}

/**
 * Proposes commands with a bounded number in flight, and counts the results.
 */
class Feed {
  readonly #session: Session;
  readonly #replica: Replica;
  readonly #chunks: Iterator<Uint8Array[]>;
  readonly #options: ReplayOptions;
  readonly #total: number;
  #waiting: Promise<Result[]>[] = [];
  done = 0;
  refused = 0;

  constructor(
    replica: Replica,
    session: Session,
    chunks: Iterator<Uint8Array[]>,
    total: number,
    options: ReplayOptions,
  ) {
    this.#replica = replica;
    this.#session = session;
    this.#chunks = chunks;
    this.#total = total;
    this.#options = options;
  }

  /** Proposes until `until` commands are acknowledged, or all. */
  async run(until: number): Promise<void> {
    let proposed = this.done;
    while (proposed < until) {
      const { value: chunk, done } = this.#chunks.next();
      if (done) break;
      const answers = Promise.all(
        chunk.map((cmd) =>
          this.#replica.propose(cmd, { session: this.#session })
        ),
      );
      // Awaited later; until then a failure must not count as an unhandled
      // rejection.
      answers.catch(() => {});
      this.#waiting.push(answers);
      proposed += chunk.length;
      if (this.#waiting.length >= CHUNKS_IN_FLIGHT) await this.#settle();
    }
    while (this.#waiting.length > 0) await this.#settle();
  }

  async #settle(): Promise<void> {
    const results = await this.#waiting.shift() as Result[];
    for (const { value } of results) if (value === 0n) this.refused++;
    this.done += results.length;
    this.#options.onProgress?.({ done: this.done, total: this.#total });
    // In memory everything runs in microtasks: without a turn of the event
    // loop, interrupts and snapshots would starve.
    await systemEnv.turn();
    this.#options.signal?.throwIfAborted();
  }
}

/**
 * Replays a history on three replicas that share a log: one from the start; one
 * that is stopped half way, misses some edits and is restarted from a snapshot;
 * one that joins when three quarters are done and the log no longer reaches back
 * to the beginning.
 */
export async function replay(
  trace: Trace,
  options: ReplayOptions = {},
): Promise<ReplayReport> {
  options.signal?.throwIfAborted();
  const txns = transactions(trace);
  const total = txns.length;
  const snapshotEntries = Math.min(
    SNAPSHOT_ENTRIES_MAX,
    Math.max(1, Math.floor(total / SNAPSHOTS)),
  );
  await using logDB = new MemoryLogDB();
  const members = [1n, 2n, 3n].map((nodeID) =>
    new Member(nodeID, logDB, snapshotEntries)
  );
  const [first, second, third] = members as [Member, Member, Member];
  try {
    await first.start("start");
    await second.start("start");
    const session = await first.replica.openSession();
    const feed = new Feed(
      first.replica,
      session,
      commandChunks(txns, Math.min(CHUNK_MAX, Math.ceil(snapshotEntries / 16))),
      total,
      options,
    );
    const started = performance.now();
    await feed.run(total / 2);
    await second.replica.requestSnapshot();
    await second.stop();
    await feed.run(total / 2 + snapshotEntries / 4);
    await second.start("restart");
    await feed.run(total * 3 / 4);
    const logStart = await firstIndex(logDB, third.nodeID);
    await third.start("late");
    await feed.run(total);
    // A linearizable read waits for everything acknowledged before it.
    for (const { replica } of members) await replica.read("length");
    const seconds = (performance.now() - started) / 1000;
    await first.replica.closeSession(session);
    const replicas: ReplicaReport[] = [];
    for (const member of members) {
      replicas.push(await member.report(trace.endContent));
    }
    const { index, hash } = replicas[0] as ReplicaReport;
    return {
      name: trace.name,
      edits: feed.done,
      refused: feed.refused,
      seconds,
      logStart,
      replicas,
      same: feed.refused === 0 &&
        replicas.every((replica) =>
          replica.sameText && replica.hash === hash && replica.index === index
        ),
    };
  } finally {
    for (const member of members) await member.stop();
  }
}
