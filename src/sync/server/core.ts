/**
 * Server core: serves connections that a listener accepts.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_CREDIT_TOTAL_BYTES,
  SYNC_LOG_END_MS_MAX,
  SYNC_TICK_MS,
} from "../../limits.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import { abortable, timeLimit } from "../../async.ts";
import { isA } from "../../options.ts";
import { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
import { CloseCode, type Transport } from "../transport.ts";
import { Connection } from "./connection.ts";
import type { ServerContext } from "./context.ts";
import { FairScheduler } from "./fair_scheduler.ts";
import type { UpgradeRequest } from "./handshake.ts";
import { Hooks } from "./hooks.ts";
import { LoadLimiter } from "./load_limiter.ts";
import { LogReach } from "./log_reach.ts";
import {
  checkOptions,
  copyOptions,
  CORE_CHECKS,
  LIMITS,
} from "./option_checks.ts";
import {
  type CoreOptions,
  SERVER_LIMITS,
  type ServerLimits,
} from "./options.ts";
import { Quotas } from "./quotas.ts";
import { ServedClusters } from "./served_clusters.ts";
import { ServerLog } from "./server_log.ts";
import { Telemetry } from "./telemetry.ts";

const STOPPING = "Server is stopping; try again later";

/** Owns the connections of a server and the services that they share. */
export class Core implements ServerContext {
  /** Host whose clusters are served. */
  readonly host: NodeHost;
  /** Options of the application. */
  readonly options: CoreOptions;
  /** Bounds of the server. */
  readonly limits: ServerLimits;
  /** Protocol versions that the server speaks. */
  readonly versions: Versions;
  /** Counters, histograms and traces. */
  readonly telemetry: Telemetry = new Telemetry();
  /** Reach of the engine that orders the logs. */
  readonly reach: LogReach;
  /** Log of the server. */
  readonly log: ServerLog;
  /** Limits the share of time spent on client messages. */
  readonly load: LoadLimiter;
  /** Schedules client messages fairly under load. */
  readonly scheduler: FairScheduler;
  /** Hooks of the application. */
  readonly hooks: Hooks;
  /** Quotas of principals, addresses and the server. */
  readonly quotas: Quotas;
  /** Clusters that are served. */
  readonly clusters: ServedClusters;
  /** Returns true while new connections are accepted; replaced by the listener. */
  isListening: () => boolean = (): boolean => true;
  /** Returns the memory of the process, in bytes; set by a listener that knows it. */
  memory: (() => { readonly rss: number; readonly heap: number }) | undefined;
  /** Time of the start, on the clock of the host. */
  readonly startedAt: number;
  /** Open connections, each with the release of its place in the quota of its address. */
  readonly #connections = new Map<Connection, (() => void) | undefined>();
  readonly #logEnds = new Map<bigint, Promise<number | undefined>>();
  #lastNumber = 0;
  #cancelTick: (() => void) | undefined;
  #stopping: Promise<void> | undefined;
  /** Called once no append awaits its answer, while the server is stopping. */
  #drained: (() => void) | undefined;

  /**
   * Creates a server of the clusters of `host`.
   *
   * @throws TypeError if an option is invalid
   */
  constructor(host: NodeHost, given: CoreOptions) {
    isA("a NodeHost", "replica", "clusterStatus")("host", host);
    checkOptions(given, CORE_CHECKS);
    const copy = copyOptions(given, CORE_CHECKS);
    const { health, inspector } = copy;
    const options: CoreOptions = {
      ...copy,
      ...(health === undefined ? {} : { health: { ...health } }),
      ...(inspector === undefined ? {} : {
        inspector: {
          authorize: inspector.authorize.bind(inspector),
          name: inspector.name,
          code: inspector.code?.bind(inspector),
        },
      }),
    };
    const { env } = host;
    this.host = host;
    this.startedAt = env.now();
    this.options = options;
    const set = copyOptions(options.limits as ServerLimits ?? {}, LIMITS);
    this.limits = { ...SERVER_LIMITS, ...set };
    const { first, last } = options.versions ?? PROTOCOL_VERSIONS;
    this.versions = { first, last };
    this.log = new ServerLog(env, options.log);
    this.reach = new LogReach(
      env,
      host.logDB.quorum,
      () => this.#reachChanged(),
    );
    this.load = new LoadLimiter(env);
    this.scheduler = new FairScheduler(env, this.load);
    this.quotas = new Quotas(env, this.limits);
    this.hooks = new Hooks(options, env, this.limits.hookMs, () => {
      this.telemetry.counts.hookFailures++;
    });
    this.clusters = new ServedClusters(
      host,
      options,
      this.log,
      () => this.#tickLater(),
    );
  }

  /** Time, timers and random numbers of the host. */
  get env(): Env {
    return this.host.env;
  }

  /** Open connections, in the order in which they began. */
  get connections(): Iterable<Connection> {
    return this.#connections.keys();
  }

  /** True if commands are decided by one server at a time. */
  get decidesAlone(): boolean {
    return this.options.decidesAlone ?? this.hooks.validates;
  }

  /** True if commands at which the state machine throws are refused. */
  get rehearses(): boolean {
    return this.options.rehearse ?? true;
  }

  /** True once the server accepts no new work. */
  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  /** Size of the credit window of each connection, in bytes. */
  get #creditBytes(): number {
    const { connections } = this.telemetry.counts;
    const share = Math.floor(
      SYNC_CREDIT_TOTAL_BYTES / Math.max(1, connections),
    );
    return Math.max(1, Math.min(this.limits.creditBytes, share));
  }

  /** Serves a connection. */
  accept(transport: Transport, upgrade: UpgradeRequest): void {
    // Counted first: the size of its credit window depends on the count.
    this.telemetry.counts.connections++;
    const connection = new Connection({
      number: ++this.#lastNumber,
      transport,
      upgrade,
      server: this,
      creditBytes: () => this.#creditBytes,
      appendAnswered: () => this.#appendAnswered(),
      ended: (connection) => this.#ended(connection),
    });
    const release = this.quotas.takeAddress(upgrade.address);
    this.#connections.set(connection, release);
    transport.listen(connection);
    const { addressConnections, connections } = this.limits;
    if (this.isStopping) connection.close(CloseCode.GoingAway, STOPPING);
    else if (release === undefined) {
      connection.close(
        CloseCode.TooMany,
        `Your address has ${addressConnections} connections already`,
      );
    } else if (this.#connections.size > connections) {
      connection.close(
        CloseCode.TooMany,
        `Server has ${connections} connections already; try again later`,
      );
    }
    this.#tickLater();
  }

  /** Rejects a connection with a close code, which a browser passes on to its page, unlike an HTTP status. */
  refuse(transport: Transport, code: number, reason: string): void {
    this.telemetry.counts.closed++;
    this.log.writeRejection({ level: "warn", event: "refused", code, reason });
    transport.listen({
      opened: () => transport.close(code, reason),
      frame: () => {},
      closed: () => {},
    });
  }

  /** Index of the end of a cluster's log, as a quorum says; undefined if it does not in time. */
  async logEnd(clusterID: bigint): Promise<number | undefined> {
    const { signal, release } = timeLimit(
      this.env,
      SYNC_LOG_END_MS_MAX,
      "The end of the log was not read",
    );
    try {
      // Asked once at a time, however often anyone asks for the health.
      let ends = this.#logEnds.get(clusterID);
      if (ends === undefined) {
        ends = this.#readEnd(clusterID)
          .finally(() => this.#logEnds.delete(clusterID));
        this.#logEnds.set(clusterID, ends);
      }
      return await abortable(ends, signal);
    } catch {
      return undefined;
    } finally {
      release();
    }
  }

  async #readEnd(clusterID: bigint): Promise<number | undefined> {
    const cluster = await this.clusters.get(clusterID);
    return await cluster?.log.readIndex();
  }

  #reachChanged(): void {
    const { reason } = this.reach;
    if (reason === undefined) {
      this.log.write({ level: "info", event: "log reached" });
    } else this.log.write({ level: "error", event: "log lost", reason });
    for (const connection of [...this.#connections.keys()]) {
      connection.reachChanged();
    }
  }

  #ended(connection: Connection): void {
    this.#connections.get(connection)?.();
    if (this.#connections.delete(connection)) {
      this.telemetry.counts.connections--;
    }
    this.#appendAnswered();
  }

  #tickLater(): void {
    if (this.isStopping) return;
    this.#cancelTick ??= this.env.setTimer(() => {
      this.#cancelTick = undefined;
      this.#tick();
    }, SYNC_TICK_MS);
  }

  #tick(): void {
    const now = this.env.now();
    for (const connection of [...this.#connections.keys()]) {
      connection.tick(now);
    }
    this.quotas.sweep();
    this.clusters.sweep();
    if (
      this.#connections.size + this.clusters.size > 0 || this.quotas.needsSweep
    ) this.#tickLater();
  }

  #appendAnswered(): void {
    if (this.#drained === undefined) return;
    for (const { streams } of this.#connections.keys()) {
      if (streams.isAppending) return;
    }
    this.#drained();
  }

  /** Accepts no new work, waits for appends in progress, and closes every connection; idempotent. */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.log.write({ level: "info", event: "stopping" });
    this.clusters.stopOpening();
    await this.#drain();
    this.#cancelTick?.();
    for (const connection of [...this.#connections.keys()]) {
      connection.close(CloseCode.GoingAway, STOPPING);
    }
    await this.clusters.closeAll();
    this.hooks.end();
    this.close();
    this.log.write({ level: "info", event: "stopped" });
  }

  /** Resolves once every append is answered, or after `shutdownMs`. */
  async #drain(): Promise<void> {
    const { shutdownMs } = this.limits;
    const { signal, release } = timeLimit(
      this.env,
      shutdownMs,
      "Appends were not answered",
    );
    const drained = new Promise<void>((resolve) => this.#drained = resolve);
    for (const connection of this.#connections.keys()) connection.drain();
    queueMicrotask(() => this.#appendAnswered());
    try {
      await abortable(drained, signal);
    } catch (error) {
      this.log.write({ level: "error", event: "drain failed", error });
    }
    release();
  }

  /** Frees the resources of a server that has no connections. */
  close(): void {
    this.reach.close();
    this.clusters.endRehearsal();
    this.telemetry.close();
  }
}
