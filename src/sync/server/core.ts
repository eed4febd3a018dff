/**
 * A server without its sockets: whoever brings a connection has it served.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../../describe.ts";
import type { Env } from "../../env.ts";
import { SYNC_CREDIT_TOTAL_BYTES, SYNC_TICK_MS } from "../../limits.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import { abortable, onAbort } from "../../nodehost/waiting.ts";
import { isPromise } from "../../promises.ts";
import { ErrUnauthenticated } from "../errors.ts";
import { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
import { CloseCode, type Transport } from "../transport.ts";
import { Hub } from "./hub.ts";
import {
  type CoreOptions,
  SERVER_LIMITS,
  type ServerLimits,
  type ServerLogRecord,
} from "./options.ts";
import type { Upgrade } from "./greeting.ts";
import { Origins } from "./origins.ts";
import { Hooks, type Identity } from "./hooks.ts";
import { Peer } from "./peer.ts";
import { Telemetry } from "./telemetry.ts";
import { Pace, Rate, Turns } from "./throttle.ts";

/** Serves the clusters of a host on connections that are brought to it. */
export class Core {
  /** The host. */
  readonly host: NodeHost;
  /** What it was told. */
  readonly options: CoreOptions;
  /** Its bounds. */
  readonly limits: ServerLimits;
  /** The versions it speaks. */
  readonly versions: Versions;
  /** What it counts. */
  readonly telemetry: Telemetry = new Telemetry();
  /** How much of its time it gives to what comes. */
  readonly pace: Pace;
  /** Gives connections turns when time is short. */
  readonly turns: Turns;
  /** What it asks the program that serves. */
  readonly hooks: Hooks;
  readonly #peers = new Set<Peer>();
  readonly #hubs = new Map<bigint, Promise<Hub>>();
  /** Hubs that nobody used at the last tick: one that was just opened is about to be. */
  readonly #idle = new WeakSet<Hub>();
  /** Connections of each principal. */
  readonly #principals = new Map<string, number>();
  /** Commands that each principal may send, on all its connections together. */
  readonly #rates = new Map<string, Rate>();
  /** Ranges that are being replayed to explain a divergence. */
  explaining = 0;
  /** Snapshots that are being sent to, or taken from, each principal. */
  readonly #transferring = new Map<string, number>();
  #connections = 0;
  #transfers = 0;
  #cancelTick: (() => void) | undefined;
  #stopping: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  /** A server of the clusters of `host`. */
  constructor(host: NodeHost, options: CoreOptions) {
    this.host = host;
    this.pace = new Pace(host.env);
    this.turns = new Turns(host.env, this.pace);
    this.options = options;
    const fail: unknown = options.health?.fail ?? "any";
    if (fail !== "any" && fail !== "all") {
      throw new TypeError(
        `Option health.fail is ${describe(fail)}; write "any" or "all"`,
      );
    }
    this.limits = { ...SERVER_LIMITS, ...options.limits };
    this.versions = options.versions ?? PROTOCOL_VERSIONS;
    this.hooks = new Hooks(options, host.env, this.limits.hookMs, () => {
      this.telemetry.counts.hookFailures++;
    });
  }

  /** The host's time, random numbers and timers. */
  get env(): Env {
    return this.host.env;
  }

  /** Whether it takes nothing new. */
  get isStopping(): boolean {
    return this.#stopping !== undefined;
  }

  /** Snapshots that are being sent or taken. */
  get transfers(): number {
    return this.#transfers;
  }

  /** What each connection may send before it is granted more, in bytes. */
  get share(): number {
    const { connections } = this.telemetry.counts;
    const share = Math.floor(
      SYNC_CREDIT_TOTAL_BYTES / Math.max(1, connections),
    );
    return Math.max(1, Math.min(this.limits.creditBytes, share));
  }

  /** Logs a record. A listener that fails, now or later, changes nothing. */
  log(record: ServerLogRecord): void {
    try {
      const logged: unknown = this.options.log?.(record);
      if (isPromise(logged)) Promise.resolve(logged).catch(() => {});
    } catch {
      // There is no other place to report it.
    }
  }

  /** Serves a connection. */
  accept(transport: Transport, upgrade: Upgrade): void {
    // It has its share of what there is for all.
    this.telemetry.counts.connections++;
    const peer = new Peer(this, ++this.#connections, transport, upgrade);
    this.#peers.add(peer);
    transport.listen(peer);
    if (this.isStopping) {
      peer.close(CloseCode.GoingAway, "Server stops; come again");
    } else if (this.#peers.size > this.limits.connections) {
      const { connections } = this.limits;
      peer.close(
        CloseCode.TooMany,
        `Server has ${connections} connections already; come again`,
      );
    }
    this.#tickLater();
  }

  /** Refuses a connection, in words a browser hands on. */
  refuse(transport: Transport, code: number, reason: string): void {
    this.telemetry.counts.closed++;
    this.log({ level: "warn", event: "refused", code, reason });
    transport.listen({
      opened: () => transport.close(code, reason),
      frame: () => {},
      closed: () => {},
    });
  }

  /**
   * The principal that sends a request.
   *
   * @throws ErrUnauthenticated if there is none
   * @throws ErrHookFailed if `authenticate` cannot tell now
   */
  async identify(request: Request): Promise<Identity> {
    const identity = await this.hooks.authenticate(request);
    if (identity === undefined || identity.signal?.aborted) {
      throw new ErrUnauthenticated("Token is not, or not any more, good");
    }
    return identity;
  }

  /** Counts a connection of a principal; returns what ends that, undefined if there are too many. */
  admit(
    peer: Peer,
    { id, signal, isAnonymous }: Identity,
  ): (() => void) | undefined {
    // All who connect without a name are one principal: no limit of one is theirs.
    if (isAnonymous) return () => {};
    const count = this.#principals.get(id) ?? 0;
    const { principalConnections } = this.limits;
    if (count >= principalConnections) {
      peer.close(
        CloseCode.TooMany,
        `You have ${principalConnections} connections already`,
      );
      return undefined;
    }
    this.#principals.set(id, count + 1);
    const ignore = onAbort(
      signal,
      () => peer.close(CloseCode.Unauthenticated, "Token is not good any more"),
    );
    return () => {
      ignore();
      const left = this.#principals.get(id)! - 1;
      if (left === 0) this.#principals.delete(id);
      else this.#principals.set(id, left);
    };
  }

  /** Commands that a principal may send on all its connections together; on each one, where no principal is authenticated. */
  rateOf({ id, isAnonymous }: Identity): Rate {
    const make = (): Rate => new Rate(this.env, this.limits.commandsPerSecond);
    if (isAnonymous) return make();
    let rate = this.#rates.get(id);
    if (rate === undefined) this.#rates.set(id, rate = make());
    return rate;
  }

  /** Counts a snapshot that is sent to a principal, or taken from it; returns what ends that, undefined if there are too many. */
  transfer({ id, isAnonymous }: Identity): (() => void) | undefined {
    const count = this.#transferring.get(id) ?? 0;
    const { transfers, principalTransfers } = this.limits;
    if (this.#transfers >= transfers) return undefined;
    // No principal takes the places of all others.
    if (count >= principalTransfers && !isAnonymous) return undefined;
    this.#transfers++;
    this.#transferring.set(id, count + 1);
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#transfers--;
      const left = this.#transferring.get(id)! - 1;
      if (left === 0) this.#transferring.delete(id);
      else this.#transferring.set(id, left);
    };
  }

  /** A connection is over. */
  left(peer: Peer): void {
    if (this.#peers.delete(peer)) this.telemetry.counts.connections--;
  }

  /** The hub of a cluster that is started on the host; undefined if it is not. */
  async hub(clusterID: bigint): Promise<Hub | undefined> {
    const replica = this.host.replica(clusterID);
    if (
      replica === undefined || replica.failure !== undefined || this.isStopping
    ) return undefined;
    for (;;) {
      const opening = this.#hubs.get(clusterID);
      if (opening === undefined) break;
      const hub = await opening;
      if (hub.isLive && hub.replica === replica) return hub;
      this.#drop(clusterID, opening, hub);
    }
    const opening = Hub.open(
      this.host,
      replica,
      Origins.of(this.host.logDB, clusterID),
    );
    this.#hubs.set(clusterID, opening);
    opening.catch(() => {
      if (this.#hubs.get(clusterID) === opening) this.#hubs.delete(clusterID);
    });
    this.#tickLater();
    return await opening;
  }

  #drop(clusterID: bigint, opening: Promise<Hub>, hub: Hub): void {
    if (this.#hubs.get(clusterID) === opening) this.#hubs.delete(clusterID);
    hub.end(CloseCode.GoingAway, "Cluster was stopped on the server");
  }

  #tickLater(): void {
    if (this.#stopping !== undefined) return;
    this.#cancelTick ??= this.env.setTimer(() => {
      this.#cancelTick = undefined;
      this.#tick();
    }, SYNC_TICK_MS);
  }

  #tick(): void {
    const now = this.env.now();
    for (const peer of [...this.#peers]) peer.tick(now);
    for (const [id, rate] of this.#rates) {
      // A client that comes back at once has spent what it has spent.
      if (!this.#principals.has(id) && rate.isFull) this.#rates.delete(id);
    }
    for (const [clusterID, opening] of this.#hubs) {
      void opening.then((hub) => {
        const isIdle = hub.users.size === 0;
        if (!hub.isLive || (isIdle && this.#idle.has(hub))) {
          this.#drop(clusterID, opening, hub);
        } else if (isIdle) this.#idle.add(hub);
        else this.#idle.delete(hub);
      }).catch(() => {});
    }
    if (this.#peers.size + this.#hubs.size + this.#rates.size > 0) {
      this.#tickLater();
    }
  }

  /** An append was answered, or a connection ended. */
  answered(): void {
    if (this.#drained === undefined) return;
    for (const peer of this.#peers) if (peer.isAppending) return;
    this.#drained();
  }

  /** Takes nothing new, lets what is under way end, and ends every connection; idempotent (U40). */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.log({ level: "info", event: "stopping" });
    const over = new AbortController();
    const cancel = this.env.setTimer(
      () => over.abort(new Error("Appends take too long")),
      this.limits.shutdownMs,
    );
    const drained = new Promise<void>((resolve) => this.#drained = resolve);
    for (const peer of this.#peers) peer.drain();
    queueMicrotask(() => this.answered());
    try {
      await abortable(drained, over.signal);
    } catch (error) {
      this.log({ level: "error", event: "drain failed", error });
    }
    cancel();
    this.#cancelTick?.();
    for (const peer of [...this.#peers]) {
      peer.close(CloseCode.GoingAway, "Server stops; come again");
    }
    for (const [clusterID, opening] of [...this.#hubs]) {
      const hub = await opening.catch(() => undefined);
      if (hub !== undefined) this.#drop(clusterID, opening, hub);
    }
    this.hooks.end();
    this.telemetry.close();
    this.log({ level: "info", event: "stopped" });
  }
}
