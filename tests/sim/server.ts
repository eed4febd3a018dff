/**
 * The simulated server: a replica and its sync server on a store that survives
 * them, with the operator who looks after it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  ErrUpdateFailed,
  type HostEvent,
  MemoryBlockStore,
  MemoryLogDB,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import type { Log, LogDB } from "../../src/ports/mod.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import { Core } from "../../src/sync/server/core.ts";
import type { Transport } from "../../src/sync/transport.ts";
import { text } from "../support/bytes.ts";
import { BAD, CLUSTER, REFUSED, type SimulationContext } from "./context.ts";
import { SimulatedDisk } from "./disk.ts";
import { type LEDGERS, POISON, startLedger } from "./machines.ts";
import { Tokens } from "./tokens.ts";

/** Ways in which a process ends. */
export type End = "stop" | "kill" | "power cut";

/** The server, over all lives of its process. */
export class Server {
  readonly tokens: Tokens = new Tokens();
  /** True while no connection reaches it. */
  isUnreachable = false;
  readonly #context: SimulationContext;
  readonly #kind: (typeof LEDGERS)[number];
  readonly snapshotEntries: number;
  readonly #sessionsMax: number;
  readonly #isSlow: boolean;
  #disk: SimulatedDisk | undefined;
  #memory: MemoryLogDB | undefined;
  #logDB: LogDB | undefined;
  #host: NodeHost | undefined;
  #core: Core | undefined;
  #replica: Replica | undefined;
  #backup: (() => void) | undefined;
  /** Time at which the cluster failed, undefined while it has not. */
  #failedAt: number | undefined;

  constructor(context: SimulationContext) {
    this.#context = context;
    const { profile, random, env } = context;
    this.#kind = (["fork", "plain", "concurrent"] as const)[random() % 3]!;
    this.snapshotEntries = profile.compaction ? 8 + random() % 25 : 0;
    this.#sessionsMax = profile.evictions ? 6 : 4096;
    if (context.chance(3)) this.#memory = new MemoryLogDB({ env });
    else this.#disk = new SimulatedDisk();
    if (profile.restores) this.useDisk();
    this.#isSlow = context.chance(2);
  }

  /** Replica of the server; only while it is up. */
  get replica(): Replica {
    return this.#replica!;
  }

  /** True while the process runs. */
  get isUp(): boolean {
    return this.#core !== undefined;
  }

  /** True if the process runs, and its cluster too. */
  get isWell(): boolean {
    return this.isUp &&
      this.#host!.clusterStatus(CLUSTER)?.state === "running";
  }

  /** Milliseconds since the cluster failed; 0 while it has not. */
  get failedForMs(): number {
    return this.#failedAt === undefined
      ? 0
      : this.#context.env.now() - this.#failedAt;
  }

  /** Number of connections that the server knows. */
  get connections(): number {
    return this.#core!.telemetry.counts.connections;
  }

  /** Commands that the present history has committed; empty while there is no replica that can say. */
  committed(): readonly string[] {
    const replica = this.#host?.replica(CLUSTER);
    return replica === undefined || replica.failure !== undefined
      ? []
      : replica.staleRead(null) as string[];
  }

  /** Opens the log for a reader. */
  async openLog(): Promise<Log> {
    return await this.#logDB!.open(CLUSTER, 99n);
  }

  /** Keeps the log on a disk, which can be copied; before the start. */
  useDisk(): void {
    this.#disk ??= new SimulatedDisk();
    this.#memory = undefined;
  }

  /** Gives the server one end of a connection. */
  accept(transport: Transport, url: string): void {
    this.#core!.accept(transport, {
      url: url.replace("ws:", "http:"),
      headers: new Headers(),
    });
  }

  #openLogDB(): LogDB {
    const { env, random } = this.#context;
    if (this.#disk === undefined) return this.#memory!;
    const store = this.#disk.open(
      env,
      this.#isSlow ? (): number => 1 + random() % 4 : undefined,
    );
    const snapshots = new BlockSnapshotStore(store, { env });
    return new BlockLogDB(store, { env, snapshots });
  }

  /** Starts the process. */
  async start(): Promise<void> {
    const { env, profile, seed, hashEntries } = this.#context;
    const logDB = this.#logDB = this.#openLogDB();
    const host = this.#host = new NodeHost({
      logDB,
      env,
      onEvent: (event) => {
        if (this.#host === host) this.#noteEvent(event);
      },
    });
    const { snapshotEntries } = this;
    const started = env.until(
      startLedger(
        host,
        this.#kind,
        {
          clusterID: CLUSTER,
          nodeID: 1n,
          sessionsMax: this.#sessionsMax,
          snapshotEntries,
          compactionOverhead: snapshotEntries === 0 ? 0 : seed % 9,
          hashEntries,
        },
        new MemoryBlockStore(),
        { filling: profile.cutSnapshots ? 300_000 : 0 },
      ),
      50,
    );
    try {
      this.#replica = await started;
    } catch (error) {
      // The operator looks after it.
      if (!profile.poisons || !(error instanceof ErrUpdateFailed)) throw error;
    }
    this.#core = this.#newCore(host);
  }

  #newCore(host: NodeHost): Core {
    const context = this.#context;
    const { profile } = context;
    return new Core(host, {
      limits: {
        farEntries: 30,
        heartbeatMs: 2_000,
        creditBytes: 4_096,
        commandsPerSecond: 300,
      },
      rehearse: !profile.poisons,
      authenticate: (request) => this.tokens.authenticate(request),
      validate: async (_, cmd) => {
        // Sometimes it is asynchronous.
        if (context.chance(4)) await Promise.resolve();
        const command = text(cmd);
        // Where its machine forks, the server finds out by itself.
        const refusesPoison = this.#kind !== "fork" && !profile.poisons &&
          command.includes(POISON);
        return refusesPoison || command.includes(BAD) ? REFUSED : undefined;
      },
      log: ({ event, code, error }) => {
        if (code !== undefined) context.count(`server: ${event} ${code}`);
        if (error !== undefined && event === "connection failed") {
          context.fail(`${event}: ${error}`);
        }
      },
    });
  }

  #noteEvent(event: HostEvent): void {
    const context = this.#context;
    context.count(`server: ${event.type}`);
    if (event.type === "failed" && context.profile.poisons) {
      this.#failedAt ??= context.env.now();
      if (event.failure instanceof ErrUpdateFailed) return;
    }
    if (event.type === "failed" || event.type === "diverged") {
      context.fail(`server ${event.type}: ${event.error}`);
    }
  }

  /** Ends the process; the disk stays. */
  async stop(how: End): Promise<void> {
    const context = this.#context;
    const { env, network } = context;
    const core = this.#core!;
    const host = this.#host!;
    const logDB = this.#logDB!;
    this.#core = this.#host = this.#replica = undefined;
    context.count(`server: ${how}`);
    const end = async (): Promise<void> => {
      await core.stop();
      await host.stop();
      assertEquals(core.telemetry.counts.connections, 0);
      if (this.#disk === undefined) return;
      await logDB.close();
      await logDB.snapshots?.close();
    };
    if (how === "stop") return await env.until(end(), 50);
    network.die(undefined, "server");
    if (this.#disk === undefined) return await env.until(end(), 50);
    const { unsynced } = this.#disk.faulty;
    this.#disk.crash(
      how === "kill" ? Infinity : context.random() % (unsynced + 1),
    );
    context.background(end());
  }

  /** Has the operator skip entries until the cluster is well; `whileFailed` is called before each. */
  async operate(whileFailed: () => void): Promise<void> {
    const { env } = this.#context;
    const host = this.#host!;
    for (;;) {
      const { state, error } = host.clusterStatus(CLUSTER)!;
      if (state !== "failed") break;
      whileFailed();
      if (!(error instanceof ErrUpdateFailed)) throw error;
      assertEquals(error.index, error.upTo, "The entry is not named");
      const skip = host.skipEntry(CLUSTER, error.index, REFUSED);
      await env.until(skip, 20);
      this.#context.count("skipped");
      try {
        this.#replica = await env.until(host.restartCluster(CLUSTER), 20);
      } catch (error) {
        if (!(error instanceof ErrUpdateFailed)) throw error;
      }
    }
    this.#failedAt = undefined;
  }

  /** Opens so many sessions of other clients that those of the devices are evicted. */
  evict(): void {
    if (!this.isWell) return;
    this.#context.evictions++;
    this.#context.count("evictions");
    for (let i = 0; i < this.#sessionsMax; i++) {
      this.#context.background(this.replica.openSession());
    }
  }

  /** Copies the disk; the answer puts the copy in its place. */
  copyDisk(): () => void {
    const copy = this.#disk!.copy();
    return () => this.#disk = copy;
  }

  /** Takes a backup and answers with undefined, or answers with the restore of the last one. */
  backUpOrRestore(): (() => void) | undefined {
    if (this.#backup === undefined || this.#context.chance(2)) {
      this.#backup = this.copyDisk();
      this.#context.count("backups");
      return undefined;
    }
    const restore = this.#backup;
    this.#backup = undefined;
    return restore;
  }

  /** Closes the log in memory, which survives the process. */
  async close(): Promise<void> {
    await this.#memory?.close();
  }
}
