/**
 * A simulated server: replicas of the clusters and their sync server, with the
 * operator who looks after them.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrSkippedApplied,
  ErrSkipRefused,
  ErrUpdateFailed,
  type HostEvent,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { Core } from "../../src/sync/server/core.ts";
import type { Transport } from "../../src/sync/transport.ts";
import type { SimulatedEnv } from "../../src/testing/simulated_clock.ts";
import { REFUSED, type WorldContext } from "./context.ts";
import { reportsDamage, SimulatedDisk } from "./disk.ts";
import type { LogService } from "./log.ts";
import {
  type Build,
  commandOf,
  drawCode,
  POISON,
  startLedger,
} from "./machines.ts";
import { BAD, type End, type ServerProfile } from "./plan.ts";
import type { Tokens } from "./tokens.ts";

/** Principal of all servers' limits: small, so that they are met. */
const LIMITS = {
  farEntries: 30,
  heartbeatMs: 2_000,
  creditBytes: 4_096,
  commandsPerSecond: 300,
};

/** One life of a server's process. */
interface Process {
  readonly name: string;
  readonly env: SimulatedEnv;
  readonly host: NodeHost;
  /** Build of its machines. */
  readonly build: Build;
  core: Core | undefined;
}

/** True if a machine failed for which no entry can be skipped: only another state helps. */
function isWithoutBase(error: unknown): boolean {
  return error instanceof ErrSkippedApplied ||
    error instanceof ErrUpdateFailed && error.index < error.upTo;
}

/** A server, over all lives of its process. */
export class Server {
  readonly name: string;
  /** True while no connection reaches it. */
  isUnreachable = false;
  readonly #context: WorldContext;
  readonly #random: () => number;
  readonly #code: () => number;
  readonly #profile: ServerProfile;
  readonly #nodeID: bigint;
  readonly #log: LogService;
  readonly #tokens: Tokens;
  /** Disks of on-disk machines, by cluster. */
  readonly #disks: readonly SimulatedDisk[];
  #process: Process | undefined;
  /** States of its clusters when it was last looked at. */
  readonly #states = new Map<bigint, string>();
  /** Clusters whose start or restart has not ended. */
  readonly #starting = new Set<bigint>();
  /** Time at which a cluster failed, undefined while none has. */
  #failedAt: number | undefined;

  constructor(
    context: WorldContext,
    number: number,
    log: LogService,
    tokens: Tokens,
  ) {
    this.#context = context;
    this.name = `s${number}`;
    this.#random = context.random(this.name);
    this.#code = context.random(`code of ${this.name}`);
    this.#profile = context.profile.servers[number]!;
    // Those of the devices and of copies of their outboxes begin at 1.
    const devices = context.profile.devices.length;
    this.#nodeID = BigInt(Math.max(1_000, 2 * devices + 1) + number);
    this.#log = log;
    this.#tokens = tokens;
    this.#disks = this.#profile.kinds.map(() => new SimulatedDisk(context.env));
  }

  /** Replica of a cluster that runs; undefined otherwise. */
  replica(cluster: bigint): Replica | undefined {
    const replica = this.#process?.host.replica(cluster);
    return replica?.failure === undefined ? replica : undefined;
  }

  /** Name of its process in this life. */
  get process(): string {
    return this.#process?.name ?? this.name;
  }

  /** Environment of its process, while that runs. */
  get env(): SimulatedEnv | undefined {
    return this.#process?.env;
  }

  /** State version of its machines. */
  get version(): number {
    return this.#profile.version;
  }

  /** Kind of its machine of a cluster. */
  kind(cluster: bigint): string {
    return this.#profile.kinds[Number(cluster) - 1]!;
  }

  /** True while connections to it can be opened. */
  get isServing(): boolean {
    return this.#process?.core !== undefined && !this.isUnreachable;
  }

  /** True while the process runs. */
  get isUp(): boolean {
    return this.#process !== undefined;
  }

  /** True if the process runs, and all its clusters too. */
  get isWell(): boolean {
    const { host } = this.#process ?? {};
    return host !== undefined &&
      this.#context.clusters.every((cluster) =>
        host.clusterStatus(cluster)?.state === "running"
      );
  }

  /** Records the transitions of its clusters. */
  observe(): void {
    const { host } = this.#process ?? {};
    for (const cluster of this.#context.clusters) {
      const state = host?.clusterStatus(cluster)?.state ?? "down";
      const before = this.#states.get(cluster) ?? "down";
      if (state === before) continue;
      this.#context.history.transition("served cluster", before, state);
      this.#states.set(cluster, state);
    }
  }

  /** Milliseconds since a cluster failed; 0 while none has. */
  get failedForMs(): number {
    return this.#failedAt === undefined
      ? 0
      : this.#context.clock.now - this.#failedAt;
  }

  /** Number of connections that the server knows. */
  get connections(): number {
    return this.#process?.core?.telemetry.counts.connections ?? 0;
  }

  /** Gives the server one end of a connection. */
  accept(transport: Transport, url: string): void {
    this.#process!.core!.accept(transport, {
      url: url.replace("ws:", "http:"),
      headers: new Headers(),
    });
  }

  /** Starts the process; the log must be up if it is in the same process. */
  start(): void {
    if (this.isUp) return;
    const context = this.#context;
    const { clock } = this.#profile;
    const caller = context.newProcess(this.name, clock);
    const { name, env } = caller;
    if (!this.#log.isRemote) this.#log.start(caller);
    if (!this.#log.isUp) return;
    const host = new NodeHost({
      logDB: this.#log.client(caller),
      env,
      onEvent: (event) => {
        if (this.#process === process) this.#noteEvent(event);
      },
    });
    const build: Build = {
      version: this.#profile.version,
      filling: context.profile.snapshotFilling,
      throwsAt: context.profile.mixedCode ? drawCode(this.#code) : undefined,
    };
    const process: Process = { name, env, host, build, core: undefined };
    this.#process = process;
    this.#failedAt = undefined;
    this.#starting.clear();
    const started = Promise.all(
      context.clusters.map((cluster) => this.#startCluster(process, cluster)),
    );
    context.background(
      env,
      `start of ${name}`,
      started.then(() => {
        if (this.#process === process) process.core = this.#newCore(host);
      }),
    );
  }

  async #startCluster(process: Process, cluster: bigint): Promise<void> {
    const context = this.#context;
    const { profile } = context;
    const place = Number(cluster) - 1;
    this.#starting.add(cluster);
    try {
      await startLedger(
        process.host,
        this.#profile.kinds[place]!,
        {
          clusterID: cluster,
          nodeID: this.#nodeID,
          sessionsMax: profile.sessionsMax,
          snapshotEntries: profile.snapshotEntries,
          compactionOverhead: profile.compactionOverhead,
          fullSnapshotInterval: profile.fullSnapshotInterval,
          hashEntries: profile.hashEntries,
          compression: profile.compression,
        },
        this.#disks[place]!.open(process.env),
        process.build,
      );
    } catch (error) {
      context.history.failed(error);
      if (this.#process !== process) return;
      this.#reportsDamage(error);
      this.#failedAt ??= context.clock.now;
    } finally {
      if (this.#process === process) this.#starting.delete(cluster);
    }
  }

  #newCore(host: NodeHost): Core {
    const context = this.#context;
    const { profile, history } = context;
    const random = this.#random;
    return new Core(host, {
      limits: LIMITS,
      rehearse: !profile.poisons,
      authenticate: (request) => this.#tokens.authenticate(request),
      validate: async (_, cmd) => {
        // Sometimes it is asynchronous.
        if (random() % 4 === 0) await host.env.turn();
        const command = commandOf(cmd);
        // Where its machine forks, the server finds out by itself.
        const refusesPoison = !profile.poisons && command.endsWith(POISON);
        return refusesPoison || command.endsWith(BAD) ? REFUSED : undefined;
      },
      log: ({ event, code, error }) => {
        if (code !== undefined) history.met("event", `close ${code}`);
        if (error !== undefined) history.failed(error);
        if (
          error !== undefined && event === "connection failed" &&
          !this.#reportsDamage(error)
        ) {
          context.fail("server", `${event}: ${error}`);
        }
      },
    });
  }

  /** True if an error rightly reports a damaged log. */
  #reportsDamage(error: unknown): boolean {
    if (!this.#log.isDamaged || !reportsDamage(error)) return false;
    this.#context.history.met("event", "damage of the log reported");
    return true;
  }

  #noteEvent(event: HostEvent): void {
    const context = this.#context;
    context.noteEvent("server", event);
    if (event.type === "failed") {
      this.#failedAt ??= context.clock.now;
      const { clusterID, failure } = event;
      // A start ends after some failed reads of a log on the server's side; a replica
      // that runs waits for the log.
      const isUnread = this.#starting.has(clusterID) &&
        !this.#log.isReachable(this.process);
      if (isUnread || this.#reportsDamage(failure)) return;
      if (
        context.profile.poisons &&
        (failure instanceof ErrUpdateFailed ||
          failure instanceof ErrSkippedApplied ||
          // A state without an entry is recovered once, like the first one.
          context.profile.snapshotFaults > 0)
      ) return;
      context.fail("server", `${this.name} failed: ${event.error}`);
    }
    if (event.type === "diverged") {
      context.fail("server", `${this.name} diverged: ${event.error}`);
    }
  }

  /** Ends the process; disks stay. */
  stop(end: End, written: number): void {
    const process = this.#process;
    if (process === undefined) return;
    const context = this.#context;
    const how = context.profile.sharesSessions ? "stop" : end;
    process.env.resume();
    const { network, history } = context;
    const { core, host, env } = process;
    this.#process = undefined;
    history.fault(`server: ${how}`);
    if (how === "stop") {
      const stop = async (): Promise<void> => {
        await core?.stop();
        await host.stop();
        const left = core?.telemetry.counts.connections ?? 0;
        if (left > 0) context.fail("server", `${left} connections are left`);
        if (!this.#log.isRemote) await this.#log.stop(how);
      };
      context.until(stop(), `Stop of ${process.name}`);
      return;
    }
    network.die(this.name);
    env.kill();
    for (const disk of this.#disks) {
      disk.crash(how === "kill" ? Infinity : written % (disk.unsynced + 1));
    }
    if (this.#log.isRemote) return;
    // Resolves at once: it only forgets its process.
    void this.#log.stop(how);
    this.#log.crash(how, written);
  }

  /** Removes the state of on-disk machines, which a log that was put back may not have; the process must have ended. */
  erase(): void {
    for (const disk of this.#disks) disk.erase();
  }

  /** Has the operator skip entries until all clusters run; `whileFailed` is called before each. */
  operate(whileFailed: () => void): void {
    const context = this.#context;
    const process = this.#process;
    // A suspended process carries out no command of an operator before it runs again.
    if (process === undefined || process.env.isSuspended) return;
    for (const cluster of context.clusters) {
      for (let i = 0; i < 50; i++) {
        const status = process.host.clusterStatus(cluster);
        if (status?.state !== "failed") break;
        whileFailed();
        if (isWithoutBase(status.error)) return this.#rebuild();
        const isRefused = !this.#skip(process, cluster, status.error);
        if (isRefused && context.profile.mixedCode) return this.#restart();
      }
    }
    if (this.isWell) {
      this.#failedAt = undefined;
      process.core ??= this.#newCore(process.host);
    }
  }

  /** Starts again without the state of on-disk machines: the log, or the snapshot of another replica, leads to another one. */
  #rebuild(): void {
    this.stop("stop", 0);
    this.erase();
    this.start();
  }

  /** Starts again, perhaps with other code, at which nothing throws: a skip that is refused does not help. */
  #restart(): void {
    this.stop("stop", 0);
    this.start();
  }

  /** Has the operator skip the entry at which a machine of a device throws. */
  skipFor(cluster: bigint, error: ErrUpdateFailed): void {
    const process = this.#process;
    if (process === undefined || process.env.isSuspended) return;
    this.#append(process.host, cluster, error);
  }

  /** Has an entry skipped; false if that is refused. */
  #append(host: NodeHost, cluster: bigint, error: ErrUpdateFailed): boolean {
    const context = this.#context;
    const { history } = context;
    const skipped = context.settle(
      host.skipEntry(cluster, error.index, REFUSED),
    );
    if (skipped === undefined) throw new Error("skipEntry() did not settle");
    if (!("error" in skipped)) {
      history.met("event", "entry skipped");
      return true;
    }
    history.failed(skipped.error);
    const { error: refused } = skipped;
    if (refused instanceof ErrSkipRefused) {
      history.met("event", `skip refused: ${refused.why}`);
    } else if (context.isHealing) throw refused;
    return false;
  }

  /** Has the entry skipped at which a machine throws, and starts its cluster again; false if the skip is refused. */
  #skip({ host }: Process, cluster: bigint, error: unknown): boolean {
    const context = this.#context;
    const { history } = context;
    const isSkipped = !(error instanceof ErrUpdateFailed) ||
      this.#append(host, cluster, error);
    this.#starting.add(cluster);
    const restarted = context.settle(host.restartCluster(cluster));
    this.#starting.delete(cluster);
    if (restarted === undefined) {
      throw new Error("restartCluster() did not settle");
    }
    if (
      "error" in restarted && !(restarted.error instanceof ErrClusterClosed)
    ) {
      history.failed(restarted.error);
    }
    return isSkipped;
  }
}
