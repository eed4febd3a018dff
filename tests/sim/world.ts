/**
 * A whole system in one process, over simulated network, storage and time: a
 * server that dies and comes back, and devices that submit commands, die, are
 * offline, copied and refused.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { SYNC_BUFFERED_BYTES_MAX } from "../../src/limits.ts";
import { bytes, text } from "../support/bytes.ts";
import { settle } from "../support/environment.ts";
import {
  CLUSTER,
  type Counts,
  CUTS,
  type Profile,
  SimulationContext,
} from "./context.ts";
import { Device, type DeviceOptions } from "./device.ts";
import { Invariants } from "./invariants.ts";
import { POISON } from "./machines.ts";
import { type End, Server } from "./server.ts";

export type { Counts, Profile };

/** The server and its devices. */
export class World {
  readonly devices: Device[] = [];
  readonly server: Server;
  readonly #context: SimulationContext;
  readonly #invariants: Invariants;
  #poisoned = 0;

  constructor(seed: number, profile: Profile, counts: Counts = {}) {
    this.#context = new SimulationContext(seed, profile, counts);
    this.server = new Server(this.#context);
    this.#invariants = new Invariants(this.#context, this.server, this.devices);
  }

  /** Next random number of the seed. */
  random(): number {
    return this.#context.random();
  }

  addDevice(name: string, options?: DeviceOptions): Device {
    const nodeID = BigInt(this.devices.length + 2);
    const device = new Device(
      this.#context,
      this.server,
      name,
      nodeID,
      options,
    );
    this.devices.push(device);
    return device;
  }

  /** Another device begins with a copy of a device's outbox. */
  #copy(device: Device): void {
    const outbox = device.outbox.copy();
    const { owner } = device;
    let name = `${device.name}'`;
    while (this.devices.some((one) => one.name === name)) name += "'";
    const copy = this.addDevice(name, { owner, outbox });
    copy.inherit(device);
    this.#context.count("copies");
    copy.start();
  }

  async #stopServer(how: End): Promise<void> {
    this.#invariants.noteCommitted();
    await this.server.stop(how);
  }

  async #operate(): Promise<void> {
    await this.server.operate(() => this.#invariants.checkFailureIsKnown());
  }

  async #backUpOrRestore(): Promise<void> {
    const { server } = this;
    const restore = server.backUpOrRestore();
    if (restore === undefined) return;
    if (server.isUp) await this.#stopServer("kill");
    this.#context.history++;
    this.#invariants.forgetViews();
    this.#context.count("restores");
    restore();
    await server.start();
  }

  /** Puts the server back to an older copy of its store; it goes on, and devices connect to it again. */
  async restore(restore: () => void): Promise<void> {
    const context = this.#context;
    context.isRestored = true;
    await this.#stopServer("kill");
    restore();
    await this.server.start();
    for (let i = 0; i < 5; i++) {
      await context.env.until(
        this.server.replica.propose(bytes(`other ${i}`)),
        20,
      );
    }
    await context.env.advance(120_000);
    context.check();
  }

  #renew(owner: string): void {
    if (!this.server.tokens.renew(owner)) return;
    for (const device of this.devices) {
      if (device.owner === owner) device.process?.db.reconnect();
    }
  }

  // ------------------------------------------------------------------- steps

  /** Injects one fault or none, and lets some time pass. */
  async step(): Promise<void> {
    const context = this.#context;
    const { server, devices } = this;
    const { random } = context;
    for (const device of devices) {
      if (device.isCopied) continue;
      for (let n = random() % 6 - 2; n > 0; n--) device.submit();
    }
    if (context.chance(6)) server.isUnreachable = false;
    if (!server.isUp && context.chance(5)) await server.start();
    if (server.isUp && !server.isWell && context.chance(4)) {
      await this.#operate();
    }
    for (const device of devices) {
      if (device.isOnOtherHistory && context.chance(3)) device.startOver();
    }
    const device = devices[random() % devices.length]!;
    if (device.isOffline && context.chance(3)) device.isOffline = false;
    await this.#injectFault(device);
    const time = context.chance(12) ? random() % 40_000 : random() % 400;
    for (let left = time; left > 0;) {
      const part = Math.min(left, 1 + random() % (1 + (time >> 1)));
      await context.env.advance(part);
      left -= part;
      for (const device of devices) {
        if (context.chance(2)) this.#invariants.observe(device);
      }
    }
    context.check();
  }

  async #injectFault(device: Device): Promise<void> {
    const context = this.#context;
    const { server } = this;
    const { random, network, profile } = context;
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
        server.isUnreachable = true;
        break;
      case 6:
      case 7:
        await this.#stopOrStart(device);
        break;
      case 8:
        await this.#stopOrStartServer();
        break;
      case 9:
        if (!profile.tokens) break;
        if (context.chance(2)) server.tokens.expire(device.owner);
        else this.#renew(device.owner);
        break;
      case 10:
        if (profile.evictions) server.evict();
        break;
      case 11:
        if (profile.compaction && server.isWell) {
          context.background(server.replica.requestSnapshot());
        }
        break;
      case 12:
        if (profile.copies && this.devices.length < 5) {
          if (device.owner === device.name) this.#copy(device);
        }
        break;
      case 13:
        if (profile.fullStores) device.breakOutbox();
        break;
      case 14:
        device.dismissRefused();
        break;
      case 15:
      case 16:
        if (profile.restores) await this.#backUpOrRestore();
        break;
      case 17:
        if (profile.poisons && server.isWell) {
          const name = `${POISON} ${this.#poisoned++}`;
          context.background(server.replica.propose(bytes(name)));
        }
        break;
    }
  }

  async #stopOrStart(device: Device): Promise<void> {
    const context = this.#context;
    if (device.process === undefined) return device.start();
    const { powerCuts } = context.profile;
    await device.stop(
      context.chance(3)
        ? "stop"
        : powerCuts && context.chance(2)
        ? "power cut"
        : "kill",
    );
    if (context.chance(2)) device.start();
  }

  async #stopOrStartServer(): Promise<void> {
    const context = this.#context;
    if (this.server.isUp) {
      await this.#stopServer(
        context.chance(3) ? "stop" : context.chance(2) ? "kill" : "power cut",
      );
      if (context.chance(2)) return;
    }
    await this.server.start();
  }

  // ----------------------------------------------------------------- the end

  /** Ends all faults; resolves once every device has everything. */
  async heal(): Promise<void> {
    this.#context.isHealing = true;
    await this.#heal();
    this.#context.isHealing = false;
  }

  async #heal(): Promise<void> {
    const context = this.#context;
    const { server, devices } = this;
    server.isUnreachable = false;
    if (!server.isUp) await server.start();
    for (const device of devices) {
      device.isOffline = false;
      device.outbox.faulty.fault = undefined;
      this.#renew(device.owner);
      if (device.process === undefined) device.start();
    }
    for (let i = 0; i < 600 && !this.#isSettled; i++) {
      await context.env.advance(500);
      if (!server.isWell) await this.#operate();
      for (const device of devices) {
        if (device.isOnOtherHistory) device.startOver();
      }
      for (const device of devices) this.#invariants.observe(device);
      context.check();
    }
    if (!this.#isSettled) {
      context.fail(
        `Never settled: server at ${server.replica.appliedIndex}; ${
          devices.map((device) => device.describe()).join("; ")
        }`,
      );
    }
    context.check();
  }

  get #isSettled(): boolean {
    const { server } = this;
    return server.isWell && this.devices.every((device) => {
      const { replica, process } = device;
      if (this.#context.isRestored && device.hasDiverged) return true;
      return replica !== undefined &&
        replica.appliedIndex === server.replica.appliedIndex &&
        // A device whose outbox is a copy says so.
        (process!.db.state === "live" ||
          device.isCopied && process!.db.state === "blocked") &&
        (device.isCopied ||
          replica.pending().every(({ state }) => state !== "queued"));
    });
  }

  /**
   * Has a device start over on the server's history; fails if a command that was
   * pending is neither in that history, once, nor reported as unknown.
   */
  async startOver(device: Device): Promise<void> {
    const context = this.#context;
    const server = this.server.replica;
    const process = device.process!;
    const pending = (process.replica?.pending() ?? [])
      .filter(({ state }) => state === "queued")
      .map(({ cmd }) => text(cmd));
    context.count("started over");
    const startedOver = process.host.startOver(CLUSTER);
    const replica = process.replica = await context.env.until(startedOver, 50);
    const isSettled = (): boolean =>
      process.db.state === "live" &&
      replica.appliedIndex === server.appliedIndex &&
      replica.pending().every(({ state }) => state !== "queued");
    for (let i = 0; i < 600 && !isSettled(); i++) {
      await context.env.advance(500);
    }
    if (!isSettled()) context.fail(`${device.name} did not start over`);
    const list = await server.staleRead(null) as string[];
    if (new Set(list).size < list.length) context.fail(`Twice in ${list}`);
    assertEquals(await replica.staleRead(null), list, device.name);
    const states = new Map(
      replica.pending().map(({ cmd, state }) => [text(cmd), state]),
    );
    for (const name of pending) {
      const state = states.get(name);
      context.count(state ?? "sent after");
      if (state === undefined && !list.includes(name)) {
        context.fail(`${device.name} has lost ${name}`);
      }
      if (state === "unknown" && list.includes(name)) {
        context.fail(`${name} of ${device.name} is unknown, and committed`);
      }
    }
  }

  /** Checks that the log is compacted, and short after that. */
  async checkLog(): Promise<void> {
    const { env } = this.#context;
    const { snapshotEntries, replica } = this.server;
    if (snapshotEntries === 0) return;
    // The server holds the log for absent readers for a limited time only.
    await env.advance(310_000);
    for (let i = 0; i < 3 * snapshotEntries; i++) {
      await env.until(replica.propose(bytes(`filler ${i}`)), 20);
    }
    await env.advance(5_000);
    const log = await this.server.openLog();
    const last = await log.readIndex();
    let first = 1;
    try {
      (await log.read(0)).close();
    } catch (error) {
      first = (error as { firstIndex: number }).firstIndex;
    }
    await log.close();
    const most = 3 * snapshotEntries + 20;
    assert(
      last - first <= most,
      `Log has entries ${first} to ${last}, more than ${most}`,
    );
  }

  /** Checks what must hold at the end. */
  async checkEnd(): Promise<void> {
    await this.#invariants.checkEnd();
    const { network } = this.#context;
    assert(
      network.bufferedBytesMax <= 2 * SYNC_BUFFERED_BYTES_MAX,
      `${network.bufferedBytesMax} bytes were buffered at one end`,
    );
    assert(
      this.server.connections <= network.open,
      "Server has connections that are over",
    );
    this.#context.check();
  }

  /** Stops every process; fails if anything is left behind. */
  async end(): Promise<void> {
    for (const device of this.devices) await device.stop("stop");
    if (this.server.isUp) await this.#stopServer("stop");
    await this.#context.end();
    await this.server.close();
    await settle();
    this.#context.check();
  }
}
