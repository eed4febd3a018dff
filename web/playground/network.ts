/**
 * Network of the playground: a link between each replica and the log, on which
 * messages take simulated time, are lost, and arrive twice; and the log as a replica
 * uses it over that link.
 *
 * The log is at one end of every link. What a replica appends travels there, and the
 * answer travels back; the records that the log has committed travel to each replica
 * in order, and wait while its link is cut.
 *
 * @module
 */

import { ErrUnknownOutcome } from "../../mod.ts";
import type {
  Announcements,
  Checkpoint,
  CheckpointBoard,
  Log,
  LogBatch,
  LogDB,
  LogInfo,
  LogReader,
  ReadOptions,
  Records,
  Retention,
  SnapshotStore,
} from "../../src/ports/mod.ts";
import type { SimulatedEnv } from "../../src/testing/simulated_clock.ts";

/** Time that a message takes on a link, in milliseconds. */
export const LATENCY_MS = 600;

/** Time that a message takes on a slow link, in milliseconds. */
export const SLOW_LATENCY_MS = 2_500;

/** Time that a message takes while a world is set up, in milliseconds. */
const SETUP_LATENCY_MS = 1;

/** Time for which messages to a replica are lost after an answer was, in milliseconds: its connection broke, and it connects again. */
const BROKEN_MS = 3_000;

/** Shortest time between two messages of one direction, in milliseconds: they stay apart for the eye. */
const GAP_MS = 200;

/** Round trips after which an append counts as unanswered. */
const ROUND_TRIPS_MAX = 2;

/** Shortest time after which an append counts as unanswered, in milliseconds. */
const ANSWER_MS_MIN = 1_000;

/** Direction of a message: to the log, or to the replica. */
export type Direction = "up" | "down";

/** Contents of a message, as the page draws it. */
export type PacketKind = "append" | "answer" | "records" | "control" | "hash";

/** Message on a link. */
export interface Packet {
  /** Number of the message in this run. */
  readonly id: number;
  /** Replica at the one end of its link. */
  readonly replica: string;
  readonly direction: Direction;
  readonly kind: PacketKind;
  /** Text on the message. */
  readonly label: string;
  /** Simulated times, in milliseconds. */
  readonly sentAt: number;
  readonly arrivesAt: number;
  /** Time at which it is lost; undefined if it arrives. */
  lostAt: number | undefined;
}

/** Fault of the next append on a link. */
export type AppendFault = "lose" | "lose answer" | "double";

/** Events of a link, reported as they happen. */
export interface LinkListener {
  /** Called when a message is lost. */
  lost(packet: Packet): void;
  /** Called when a message was sent or has arrived; `isShown` is true for one that carries commands, answers or records. */
  changed(isShown: boolean): void;
  /** Called when an append had no answer in time. */
  unanswered(replica: string, label: string): void;
}

/** Dependencies of a {@linkcode Link}. */
export interface LinkParts {
  readonly replica: string;
  /** Environment of the network, which outlives every replica. */
  readonly env: SimulatedEnv;
  /** Numbers the messages. */
  readonly nextID: () => number;
  readonly listener: LinkListener;
}

/** True if a message carries commands, an answer or records: the others are small, and many. */
export function isShown({ kind }: Packet): boolean {
  return kind !== "hash" && kind !== "control";
}

/** Link between one replica and the log. */
export class Link {
  /** Messages under way, and those that were lost a moment ago. */
  readonly packets: Set<Packet> = new Set();
  /** Fault of the next append. */
  fault: AppendFault | undefined;
  readonly #parts: LinkParts;
  readonly #freeAt: Record<Direction, number> = { up: 0, down: 0 };
  readonly #onJoin: Set<() => void> = new Set();
  #isCut = false;
  #isSlow = false;
  #isSetUp = false;
  /** True while messages to the replica are lost. */
  #isBroken = false;

  /** Creates a link that works. */
  constructor(parts: LinkParts) {
    this.#parts = parts;
  }

  /** Replica at the one end of the link. */
  get replica(): string {
    return this.#parts.replica;
  }

  /** Events of the link. */
  get listener(): LinkListener {
    return this.#parts.listener;
  }

  /** True while no message arrives. */
  get isCut(): boolean {
    return this.#isCut;
  }

  /** True while messages take long. */
  get isSlow(): boolean {
    return this.#isSlow;
  }

  /** True while messages to the replica can arrive. */
  get canReceive(): boolean {
    return !this.#isCut && !this.#isBroken;
  }

  get #latency(): number {
    if (!this.#isSetUp) return SETUP_LATENCY_MS;
    return this.#isSlow ? SLOW_LATENCY_MS : LATENCY_MS;
  }

  /** Cuts the link: messages under way are lost. */
  cut(): void {
    this.#isCut = true;
    for (const packet of this.packets) this.#lose(packet);
  }

  /** Makes a link that was cut work again. */
  join(): void {
    this.#isCut = false;
    for (const joined of [...this.#onJoin]) joined();
  }

  /** Makes the link slow, or fast again. */
  slow(isSlow: boolean): void {
    this.#isSlow = isSlow;
  }

  /** Ends the time in which a world is set up: from now on messages take their time. */
  setUp(): void {
    this.#isSetUp = true;
  }

  /** Loses what is sent to the replica, for a while. */
  break(): void {
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#parts.env.setTimer(() => {
      this.#isBroken = false;
      for (const joined of [...this.#onJoin]) joined();
    }, BROKEN_MS);
  }

  /** Calls `joined` whenever the link works again after a cut; returns a function that ends the calls. */
  onJoin(joined: () => void): () => void {
    this.#onJoin.add(joined);
    return () => void this.#onJoin.delete(joined);
  }

  /** Sends a message; `arrived` is called if it arrives. Returns it. */
  send(
    direction: Direction,
    kind: PacketKind,
    label: string,
    arrived: () => void,
    { isLost = false }: { isLost?: boolean } = {},
  ): Packet {
    const { env, nextID, replica, listener } = this.#parts;
    const now = env.now();
    // Messages that are not drawn one by one need not be kept apart.
    const isDrawn = this.#isSetUp && kind !== "hash" && kind !== "control";
    // Messages of one direction arrive in order.
    const gap = isDrawn ? GAP_MS : 1;
    const jitter = this.#isSetUp ? Number(env.random64() % 80n) : 0;
    const arrivesAt = Math.max(
      now + this.#latency + jitter,
      this.#freeAt[direction] + gap,
    );
    this.#freeAt[direction] = arrivesAt;
    const packet: Packet = {
      id: nextID(),
      replica,
      direction,
      kind,
      label,
      sentAt: now,
      arrivesAt,
      lostAt: undefined,
    };
    this.packets.add(packet);
    listener.changed(isShown(packet));
    if (
      isLost || this.#isCut || direction === "down" && this.#isBroken
    ) {
      env.setTimer(
        () => this.#lose(packet),
        (arrivesAt - now) * (this.#isCut ? 0.12 : 0.5),
      );
    }
    env.setTimer(() => {
      if (packet.lostAt === undefined) {
        this.packets.delete(packet);
        listener.changed(isShown(packet));
        arrived();
      }
    }, arrivesAt - now);
    return packet;
  }

  #lose(packet: Packet): void {
    if (packet.lostAt !== undefined) return;
    const { env, listener } = this.#parts;
    packet.lostAt = env.now();
    if (isShown(packet)) listener.lost(packet);
    listener.changed(isShown(packet));
    env.setTimer(() => {
      this.packets.delete(packet);
      listener.changed(isShown(packet));
    }, LATENCY_MS);
  }
}

/** The process that keeps the log, as the links reach it. */
export interface LogService {
  /** Logs inside the process. */
  readonly logDB: LogDB;
  /** Text of records, for messages that carry them. */
  labelOf(records: Records, first?: number): string;
  /** Appends records that have arrived from a replica; returns the index of the first. */
  append(replica: string, records: Records): number;
  /** Has the trusted replica replay entries; see `CheckpointBoard.explain`. */
  explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined>;
  /** Node id of the replica whose hashes are authoritative. */
  readonly trusted: bigint;
}

/** Logs, as one process of a replica uses them over its link. */
export class LinkedLogDB implements LogDB {
  readonly #link: Link;
  readonly #service: LogService;
  readonly #env: SimulatedEnv;

  /** Creates the logs of the process of `env`. */
  constructor(link: Link, service: LogService, env: SimulatedEnv) {
    this.#link = link;
    this.#service = service;
    this.#env = env;
  }

  /** Snapshots that all replicas share. */
  get snapshots(): SnapshotStore {
    return this.#service.logDB.snapshots!;
  }

  /** Opens a log, over the link. */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const link = this.#link;
    await roundTrip(link, this.#env);
    const log = await this.#service.logDB.open(clusterID, nodeID);
    if (this.#env.isDead) {
      await log.close();
      return await forever();
    }
    this.#env.onKill(() => void log.close());
    return new LinkedLog(link, this.#service, this.#env, log);
  }

  /** Has nothing of its own to close. */
  async close(): Promise<void> {}

  /** Has nothing of its own to close. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Promise that never settles: nothing happens any more in a process that was killed. */
function forever(): Promise<never> {
  return new Promise(() => {});
}

/** Resolves after a message to the log and its answer, which are sent until they arrive. */
function roundTrip(link: Link, env: SimulatedEnv): Promise<void> {
  return new Promise((resolve) => {
    let isDone = false;
    const send = (): void => {
      link.send("up", "control", "", () => {
        link.send("down", "control", "", () => {
          isDone = true;
          unwatch();
          env.setTimer(resolve, 0);
        });
      });
    };
    const unwatch = link.onJoin(() => {
      if (!isDone && !env.isDead) send();
    });
    env.onKill(unwatch);
    if (!link.isCut) send();
  });
}

/** Log of one cluster, as one process of a replica uses it over its link. */
class LinkedLog implements Log {
  readonly #link: Link;
  readonly #service: LogService;
  readonly #env: SimulatedEnv;
  readonly #inner: Log;
  readonly checkpoints: CheckpointBoard;

  constructor(
    link: Link,
    service: LogService,
    env: SimulatedEnv,
    inner: Log,
  ) {
    this.#link = link;
    this.#service = service;
    this.#env = env;
    this.#inner = inner;
    this.checkpoints = new LinkedBoard(link, service, env, inner.checkpoints!);
  }

  get announcements(): Announcements | undefined {
    return this.#inner.announcements;
  }

  /** Runs `work` in the process of the replica: not before it continues if it is suspended, and never once it was killed. */
  #here(work: () => void): void {
    this.#env.setTimer(work, 0);
  }

  append({ bytes, ends }: Records): Promise<number> {
    const link = this.#link;
    const service = this.#service;
    // The caller may use its bytes again.
    const records = { bytes: bytes.slice(), ends: [...ends] };
    const label = service.labelOf(records);
    const { fault } = link;
    link.fault = undefined;
    return new Promise((resolve, reject) => {
      const arrived = (isLost: boolean): void => {
        // Also if the sender has died since: the log does not know.
        const first = service.append(link.replica, records);
        if (isLost) link.break();
        link.send("down", "answer", `#${first}`, () => {
          this.#here(() => {
            giveUp();
            resolve(first);
          });
        });
      };
      const { sentAt, arrivesAt } = link.send(
        "up",
        "append",
        label,
        () => arrived(fault === "lose answer"),
        { isLost: fault === "lose" },
      );
      if (fault === "double") {
        link.send("up", "append", label, () => arrived(false));
      }
      const answerMs = Math.max(
        ANSWER_MS_MIN,
        2 * ROUND_TRIPS_MAX * (arrivesAt - sentAt),
      );
      const giveUp = this.#env.setTimer(() => {
        link.listener.unanswered(link.replica, label);
        reject(
          new ErrUnknownOutcome(
            `Log has not answered the append within ${answerMs} ms`,
          ),
        );
      }, answerMs);
    });
  }

  async read(after: number, options?: ReadOptions): Promise<LogReader> {
    await roundTrip(this.#link, this.#env);
    const inner = await this.#inner.read(after, options);
    return new LinkedReader(this.#link, this.#service, this.#env, inner);
  }

  async readIndex(): Promise<number> {
    await roundTrip(this.#link, this.#env);
    return await this.#inner.readIndex();
  }

  retain(after: number): Retention {
    return this.#inner.retain(after);
  }

  async compact(upTo: number): Promise<void> {
    await roundTrip(this.#link, this.#env);
    await this.#inner.compact!(upTo);
  }

  async startAt(...args: Parameters<Log["startAt"]>): Promise<void> {
    await this.#inner.startAt(...args);
  }

  async isEmpty(): Promise<boolean> {
    return await this.#inner.isEmpty();
  }

  info(): LogInfo {
    return this.#inner.info!();
  }

  close(): void {
    void this.#inner.close();
  }
}

/** Reader of the log over a link: batches arrive in order, and are sent again if the link was cut. */
class LinkedReader implements LogReader {
  readonly lastAtStart: number;
  readonly #link: Link;
  readonly #service: LogService;
  readonly #env: SimulatedEnv;
  readonly #inner: LogReader;
  /** Batches that were sent and have not arrived, oldest first. */
  #sent: LogBatch[] = [];
  /** Number of messages of a stream that was cut, which are void. */
  #stream = 0;
  readonly #arrived: LogBatch[] = [];
  #waiting: PromiseWithReject<LogBatch> | undefined;
  #error: unknown;
  readonly #unwatch: () => void;

  constructor(
    link: Link,
    service: LogService,
    env: SimulatedEnv,
    inner: LogReader,
  ) {
    this.#link = link;
    this.#service = service;
    this.#env = env;
    this.#inner = inner;
    this.lastAtStart = inner.lastAtStart;
    this.#unwatch = link.onJoin(() => this.#resend());
    env.onKill(() => this.close());
    void this.#pump();
  }

  /** Sends what the log has, and then each batch as it is committed. */
  async #pump(): Promise<void> {
    try {
      for (;;) {
        const batch = await this.#inner.next();
        this.#sent.push(batch);
        if (this.#link.canReceive) this.#send(batch);
      }
    } catch (error) {
      this.#env.setTimer(() => this.#fail(error), 0);
    }
  }

  #send(batch: LogBatch): void {
    const stream = this.#stream;
    const { records, first } = batch;
    const label = this.#service.labelOf(records, first);
    this.#link.send("down", "records", label, () => {
      if (stream !== this.#stream) return;
      this.#sent.shift();
      this.#arrived.push(batch);
      // The process may be suspended, or dead.
      this.#env.setTimer(() => this.#wake(), 0);
    });
  }

  /** Sends again what has not arrived. */
  #resend(): void {
    this.#stream++;
    for (const batch of this.#sent) this.#send(batch);
  }

  #wake(): void {
    const waiting = this.#waiting;
    if (waiting === undefined || this.#arrived.length === 0) return;
    this.#waiting = undefined;
    waiting.resolve(this.#arrived.shift()!);
  }

  #fail(error: unknown): void {
    this.#error = error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  next(): LogBatch | Promise<LogBatch> {
    const batch = this.#arrived.shift();
    if (batch !== undefined) return batch;
    if (this.#error !== undefined) throw this.#error;
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  close(): void {
    this.#unwatch();
    this.#stream++;
    this.#sent = [];
    this.#inner.close();
  }
}

interface PromiseWithReject<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
}

/** Exchange of checkpoints over a link. */
class LinkedBoard implements CheckpointBoard {
  readonly trusted: bigint;
  readonly #link: Link;
  readonly #service: LogService;
  readonly #env: SimulatedEnv;
  readonly #inner: CheckpointBoard;

  constructor(
    link: Link,
    service: LogService,
    env: SimulatedEnv,
    inner: CheckpointBoard,
  ) {
    this.trusted = service.trusted;
    this.#link = link;
    this.#service = service;
    this.#env = env;
    this.#inner = inner;
  }

  publish(checkpoint: Checkpoint): void {
    this.#link.send(
      "up",
      "hash",
      `#${checkpoint.index}`,
      () => this.#inner.publish(checkpoint),
    );
  }

  watch(
    nodeID: bigint,
    listener: (checkpoint: Checkpoint) => void,
  ): () => void {
    const unwatch = this.#inner.watch(nodeID, (checkpoint) => {
      this.#link.send(
        "down",
        "hash",
        `#${checkpoint.index}`,
        () => this.#env.setTimer(() => listener(checkpoint), 0),
      );
    });
    this.#env.onKill(unwatch);
    return unwatch;
  }

  async explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    await roundTrip(this.#link, this.#env);
    return await this.#service.explain(after, upTo, signal);
  }
}
