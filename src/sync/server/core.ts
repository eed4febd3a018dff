/**
 * A server without its sockets: whoever brings a connection has it served.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_CREDIT_TOTAL_BYTES,
  SYNC_LOG_RECORDS_MAX,
  SYNC_PARTS_TOTAL_BYTES_MAX,
  SYNC_TICK_MS,
} from "../../limits.ts";
import { type NodeHost, rehearseOn } from "../../nodehost/node_host.ts";
import { makeRehearsal } from "../../rehearsal/rehearsal.ts";
import { rehearsalOf } from "../../nodehost/replica.ts";
import { abortable, isPromise, onAbort } from "../../async.ts";
import { isA } from "../../options.ts";
import { ErrUnauthenticated } from "../errors.ts";
import { PROTOCOL_VERSIONS, type Versions } from "../messages.ts";
import { CloseCode, type Transport } from "../transport.ts";
import { checkOptions, copyOptions, CORE_CHECKS, LIMITS } from "./checks.ts";
import { Hub } from "./hub.ts";
import {
  type CoreOptions,
  SERVER_LIMITS,
  type ServerLimits,
  type ServerLogRecord,
} from "./options.ts";
import { NOT_GOOD, type Upgrade } from "./greeting.ts";
import { Origins } from "./origins.ts";
import { type Place, Places } from "./places.ts";
import { networkOf, Quota } from "./quota.ts";
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
  /** Connections of each principal; of those that no `authenticate` tells apart, none. */
  readonly #principals: Quota;
  /** Connections from each remote address. */
  readonly #addresses: Quota;
  /** Gives a connection's place among those of its address back. */
  readonly #places = new Map<Peer, () => void>();
  /** Commands that each principal may send, on all its connections together. */
  readonly #rates = new Map<string, Rate>();
  /** Ranges that are being replayed to explain a divergence. */
  explaining = 0;
  /** Snapshots that are being sent to, or taken from, each principal. */
  readonly #principalTransfers: Quota;
  /** Snapshots that are being sent to, or taken from, each remote address. */
  readonly #addressTransfers: Quota;
  /** Tells whether new connections are accepted; set by what brings them. */
  isListening: () => boolean = (): boolean => true;
  /** Connections that have some parts of a message, with how many bytes of it, in the order in which they began. */
  readonly #parts = new Map<Peer, number>();
  #partBytes = 0;
  /** Refusals since that time. */
  #refusals = 0;
  #refusalsFrom = -Infinity;
  #connections = 0;
  readonly #transfers: Places;
  #cancelTick: (() => void) | undefined;
  #stopping: Promise<void> | undefined;
  #drained: (() => void) | undefined;
  /** Ends that what the host itself proposes is tried; undefined if nothing is. */
  readonly #unrehearse: (() => void) | undefined;

  /**
   * A server of the clusters of `host`.
   *
   * @throws TypeError if an option cannot be used
   */
  constructor(host: NodeHost, given: CoreOptions) {
    isA("a NodeHost", "replica", "clusterStatus")("host", host);
    checkOptions(given, CORE_CHECKS);
    const options = copyOptions(given, CORE_CHECKS);
    const { health } = options;
    this.host = host;
    this.pace = new Pace(host.env);
    this.turns = new Turns(host.env, this.pace);
    this.options = health === undefined
      ? options
      : { ...options, health: { ...health } };
    const set = copyOptions(options.limits as ServerLimits ?? {}, LIMITS);
    const limits = this.limits = { ...SERVER_LIMITS, ...set };
    this.#transfers = new Places(host.env, limits.transfers, limits.slowMs);
    this.#principals = new Quota(limits.principalConnections);
    this.#addresses = new Quota(limits.addressConnections);
    this.#principalTransfers = new Quota(limits.principalTransfers);
    this.#addressTransfers = new Quota(limits.addressTransfers);
    const { first, last } = options.versions ?? PROTOCOL_VERSIONS;
    this.versions = { first, last };
    this.hooks = new Hooks(options, host.env, this.limits.hookMs, () => {
      this.telemetry.counts.hookFailures++;
    });
    const { rehearse = true, validate } = options;
    if (!rehearse && validate === undefined) return;
    this.#unrehearse = rehearseOn(host, {
      make: makeRehearsal,
      isTrying: rehearse,
    });
  }

  /** Frees what a server holds that never served. */
  close(): void {
    this.#unrehearse?.();
    this.telemetry.close();
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
    return this.#transfers.size;
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

  /** Logs a refusal that anyone can cause, any number of times: a bounded number in each second, and then how many more there were. */
  logRefusal(record: ServerLogRecord): void {
    const now = this.env.now();
    if (now - this.#refusalsFrom >= SYNC_TICK_MS) {
      const more = this.#refusals - SYNC_LOG_RECORDS_MAX;
      this.#refusalsFrom = now;
      this.#refusals = 0;
      if (more > 0) {
        this.log({
          level: "warn",
          event: "refusals not logged",
          reason: `${more} more refusals`,
        });
      }
    }
    if (++this.#refusals <= SYNC_LOG_RECORDS_MAX) this.log(record);
  }

  /** Serves a connection. */
  accept(transport: Transport, upgrade: Upgrade): void {
    // It has its share of what there is for all.
    this.telemetry.counts.connections++;
    const peer = new Peer(this, ++this.#connections, transport, upgrade);
    this.#peers.add(peer);
    transport.listen(peer);
    const place = this.#addresses.take(networkOf(upgrade.address));
    if (place !== undefined) this.#places.set(peer, place);
    if (this.isStopping) {
      peer.close(CloseCode.GoingAway, "Server is stopping; try again later");
    } else if (place === undefined) {
      const { addressConnections } = this.limits;
      peer.close(
        CloseCode.TooMany,
        `Your address has ${addressConnections} connections already`,
      );
    } else if (this.#peers.size > this.limits.connections) {
      const { connections } = this.limits;
      peer.close(
        CloseCode.TooMany,
        `Server has ${connections} connections already; try again later`,
      );
    }
    this.#tickLater();
  }

  /** Refuses a connection, in words a browser hands on. */
  refuse(transport: Transport, code: number, reason: string): void {
    this.telemetry.counts.closed++;
    this.logRefusal({ level: "warn", event: "refused", code, reason });
    transport.listen({
      opened: () => transport.close(code, reason),
      frame: () => {},
      closed: () => {},
    });
  }

  /**
   * The principal that sends a request.
   *
   * @throws ErrUnauthenticated if the request has no principal
   * @throws ErrHookFailed if `authenticate` cannot tell now
   */
  async identify(request: Request): Promise<Identity> {
    const identity = await this.hooks.authenticate(request);
    if (identity === undefined || identity.signal?.aborted) {
      throw new ErrUnauthenticated(NOT_GOOD);
    }
    return identity;
  }

  /** Counts a connection of a principal; returns what ends that, undefined if there are too many. */
  admit(
    peer: Peer,
    { id, signal, isAnonymous }: Identity,
  ): (() => void) | undefined {
    // All clients without a name are one principal, to which no limit of one applies.
    const place = this.#principals.take(isAnonymous ? undefined : id);
    if (place === undefined) {
      const { principalConnections } = this.limits;
      peer.close(
        CloseCode.TooMany,
        `You have ${principalConnections} connections already`,
      );
      return undefined;
    }
    let ignore: () => void;
    try {
      ignore = onAbort(signal, () => peer.invalidated());
    } catch (error) {
      // A signal of the program's own making may throw.
      place();
      throw error;
    }
    return () => {
      ignore();
      place();
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

  /** Counts a snapshot that is sent to a principal at a remote address, or taken from it; returns its place, undefined if there are too many. */
  transfer(
    { id, isAnonymous }: Identity,
    address: string | undefined,
  ): Place | undefined {
    // No principal, and where it is told no address, takes the places of all others.
    const ofAddress = this.#addressTransfers.take(networkOf(address));
    if (ofAddress === undefined) return undefined;
    const ofPrincipal = this.#principalTransfers.take(
      isAnonymous ? undefined : id,
    );
    if (ofPrincipal === undefined) {
      ofAddress();
      return undefined;
    }
    const left = (): void => {
      ofAddress();
      ofPrincipal();
    };
    if (this.#transfers.makeRoom()) return this.#transfers.take(left);
    left();
    return undefined;
  }

  /** Notes how much a connection has of a message in parts: what all have together is bounded. */
  assembling(peer: Peer, bytes: number): void {
    this.#partBytes += bytes - (this.#parts.get(peer) ?? 0);
    // One that goes on keeps its place: the first is the one under way for longest.
    if (bytes > 0) this.#parts.set(peer, bytes);
    else this.#parts.delete(peer);
    for (const [oldest] of this.#parts) {
      if (this.#partBytes <= SYNC_PARTS_TOTAL_BYTES_MAX) break;
      oldest.close(
        CloseCode.TooSlow,
        "Parts of a message come too slowly; reconnect",
      );
    }
  }

  /** A connection is over. */
  left(peer: Peer): void {
    this.assembling(peer, 0);
    if (this.#peers.delete(peer)) this.telemetry.counts.connections--;
    this.#places.get(peer)?.();
    this.#places.delete(peer);
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
      this.#unrehearse && rehearsalOf(replica, makeRehearsal),
    );
    this.#hubs.set(clusterID, opening);
    opening.then((hub) => this.#report(hub)).catch(() => {
      if (this.#hubs.get(clusterID) === opening) this.#hubs.delete(clusterID);
    });
    this.#tickLater();
    return await opening;
  }

  /** Logs what becomes of a cluster: once for each change, however many appends fail with it. */
  #report(hub: Hub): void {
    const { clusterID } = hub;
    if (hub.ended) return;
    const unwatch = hub.log.storage?.watch((error) =>
      this.log(
        error === undefined
          ? { level: "info", event: "storing again", clusterID }
          : { level: "error", event: "cannot store", clusterID, error },
      )
    );
    hub.onEnd(() => {
      unwatch?.();
      const error = hub.failure;
      if (error === undefined) return;
      this.log({ level: "error", event: "cluster failed", clusterID, error });
    });
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
      peer.close(CloseCode.GoingAway, "Server is stopping; try again later");
    }
    for (const [clusterID, opening] of [...this.#hubs]) {
      const hub = await opening.catch(() => undefined);
      if (hub !== undefined) this.#drop(clusterID, opening, hub);
    }
    this.hooks.end();
    this.close();
    this.log({ level: "info", event: "stopped" });
  }
}
