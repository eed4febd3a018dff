/**
 * A server and devices in simulated network and time, for the tests of an
 * application.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { systemEnv } from "../env.ts";
import { BlockLogDB } from "../log/block_log.ts";
import { preload } from "../statemachine/load.ts";
import { NodeHost } from "../nodehost/node_host.ts";
import type { Replica } from "../nodehost/replica.ts";
import {
  checkOptions,
  isCount,
  isFunction,
  optional,
  type OptionChecks,
} from "../options.ts";
import { BlockOutbox } from "../offline/block_outbox.ts";
import { BlockSnapshotStore } from "../snapshot/block_snapshot_store.ts";
import { MemoryBlockStore } from "../store/memory_block_store.ts";
import { RemoteLogDB } from "../sync/client/remote_log_db.ts";
import { Core } from "../sync/server/core.ts";
import type { CoreOptions } from "../sync/server/options.ts";
import type { Transport } from "../sync/transport.ts";
import {
  derivedSeed,
  SimulatedClock,
  type SimulatedEnv,
} from "./simulated_clock.ts";
import { type Cut, SimulatedNetwork } from "./simulated_network.ts";

/** Default bound of the simulated time of one test, in milliseconds. */
const LIMIT_MS = 3_600_000;

/** Interval at which `settle()` looks at the devices, in simulated milliseconds. */
const SETTLE_STEP_MS = 100;

/** Bound of the simulated time of `settle()`, in milliseconds. */
const SETTLE_MS = 600_000;

/** Turns of the event loop in which nothing happens before a test is known to wait for nothing. */
const IDLE_TURNS = 1_000;

/** Global function of Deno and Node that runs a callback after all microtasks; browsers lack it. */
const IMMEDIATE: string = "set" + "Immediate";

const NODE_OF_SERVER = 1n;

/** Options of {@linkcode simulate}. */
export interface SimulateOptions {
  /**
   * Starts the replica of the application's cluster, on the server and on each
   * device, for example
   * `(host, nodeID) => host.startCluster(create, { clusterID: 1n, nodeID })`.
   */
  readonly start: (host: NodeHost, nodeID: bigint) => Promise<Replica>;
  /**
   * Options of the server, such as `validate` and `authorize`. Each device sends
   * its name as its token; without `authenticate` that is its principal.
   */
  readonly server?: CoreOptions | undefined;
  /** Seed from which all delays, random numbers and the order of simultaneous events follow. @default {1} */
  readonly seed?: number | undefined;
  /** Bound of the simulated time, in milliseconds. @default {3600000} */
  readonly limitMs?: number | undefined;
}

/** Computer of a simulated world: a process that can be ended and started again, and storage that survives it. */
export interface SimulatedComputer {
  /** Name of the computer. */
  readonly name: string;
  /** True while the process runs. */
  readonly isRunning: boolean;
  /** Host of the running process. */
  readonly host: NodeHost;
  /** Replica of the running process. */
  readonly replica: Replica;
  /** Starts the process with what is stored. */
  start(): Promise<void>;
  /** Stops the process in order. */
  stop(): Promise<void>;
  /** Kills the process: none of its code runs any more, and its storage keeps what was written. */
  kill(): void;
  /** Suspends the process, as a laptop that sleeps, until `resume()`. */
  suspend(): void;
  /** Continues a suspended process. */
  resume(): void;
}

/** Device of a simulated world, with an outbox, a copy of the log and snapshots. */
export interface SimulatedDevice extends SimulatedComputer {
  /** Connection of the running process, with its status. */
  readonly logDB: RemoteLogDB;
  /** True while it has no network. */
  readonly isOffline: boolean;
  /** Takes the network away; an open connection fails as `how` says. @default {"clean"} */
  goOffline(how?: Cut): void;
  /** Gives the network back. */
  goOnline(): void;
}

/** Server and devices in simulated network and time. */
export interface SimulatedWorld {
  /** Server, which runs from the start. */
  readonly server: SimulatedComputer;
  /** Devices in the order in which they were added. */
  readonly devices: readonly SimulatedDevice[];
  /** Simulated time, in milliseconds. */
  readonly now: number;
  /** Adds a device and starts it. */
  addDevice(name: string): Promise<SimulatedDevice>;
  /** Resolves after `ms` of simulated time. */
  sleep(ms: number): Promise<void>;
  /**
   * Resolves once each device that runs and is online is connected, has applied
   * what the server has, and has nothing left to send.
   */
  settle(): Promise<void>;
}

const CHECKS: OptionChecks<SimulateOptions> = {
  start: isFunction,
  // Checked by the server.
  server: optional(() => {}),
  seed: optional(isCount(0, 0xffff_ffff)),
  limitMs: optional(isCount(1)),
};

/** One process of a simulated world: the server, or that of a device. */
interface Process {
  readonly env: SimulatedEnv;
  readonly host: NodeHost;
  readonly replica: Replica;
  /** Stops the process in order. */
  readonly stop: () => Promise<void>;
}

abstract class Computer implements SimulatedComputer {
  /** Name of the computer. */
  readonly name: string;
  /** Network of the world. */
  protected readonly network: SimulatedNetwork;
  readonly #clock: SimulatedClock;
  #lives = 0;
  #process: Process | undefined;

  /** Creates a computer that is off. */
  constructor(name: string, clock: SimulatedClock, network: SimulatedNetwork) {
    this.name = name;
    this.network = network;
    this.#clock = clock;
  }

  /** Opens the stores and starts the replica in a new process. */
  protected abstract open(env: SimulatedEnv): Promise<Omit<Process, "env">>;

  /** True while the process runs. */
  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  /** Host of the running process. */
  get host(): NodeHost {
    return this.#running.host;
  }

  /** Replica of the running process. */
  get replica(): Replica {
    return this.#running.host.replica(this.#running.replica.clusterID) ??
      this.#running.replica;
  }

  get #running(): Process {
    if (this.#process === undefined) {
      throw new Error(
        `Simulated process of ${this.name} does not run; call start() first`,
      );
    }
    return this.#process;
  }

  /** Starts the process with what is stored. */
  async start(): Promise<void> {
    if (this.#process !== undefined) return;
    const env = this.#clock.env(`${this.name}/${++this.#lives}`);
    this.#process = { env, ...await this.open(env) };
  }

  /** Stops the process in order. */
  async stop(): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    await process?.stop();
  }

  /** Kills the process: it ends between two events, and its stores keep what was written. */
  kill(): void {
    this.#process?.env.kill();
    this.#process = undefined;
    this.network.die(this.name);
  }

  /** Suspends the process, as a page in the background or a laptop that sleeps, until `resume()`. */
  suspend(): void {
    this.#running.env.suspend();
  }

  /** Continues a suspended process. */
  resume(): void {
    this.#running.env.resume();
  }
}

class Server extends Computer {
  readonly #options: SimulateOptions;
  readonly #store: MemoryBlockStore;
  #core: Core | undefined;

  /** Creates a server that is off. */
  constructor(
    clock: SimulatedClock,
    network: SimulatedNetwork,
    options: SimulateOptions,
  ) {
    super("server", clock, network);
    this.#options = options;
    this.#store = new MemoryBlockStore({ env: clock.env("server's disk") });
  }

  /** Opens the log and starts to serve. */
  protected override async open(
    env: SimulatedEnv,
  ): Promise<Omit<Process, "env">> {
    const snapshots = new BlockSnapshotStore(this.#store, { env });
    const logDB = new BlockLogDB(this.#store, { env, snapshots });
    const host = new NodeHost({ logDB, env });
    const replica = await this.#options.start(host, NODE_OF_SERVER);
    const core = this.#core = new Core(host, {
      authenticate: (request) => {
        const header = request.headers.get("authorization") ?? "";
        return { id: decodeURIComponent(header.replace("Bearer ", "")) };
      },
      ...this.#options.server,
    });
    env.onKill(() => this.#core = undefined);
    const stop = async (): Promise<void> => {
      this.#core = undefined;
      await core.stop();
      await host.stop();
      await logDB.close();
      await snapshots.close();
    };
    return { host, replica, stop };
  }

  /** Connects a device; the attempt fails while the server does not run. */
  connect(device: string, env: SimulatedEnv, url: string): Transport {
    const core = this.#core;
    if (core === undefined) return this.network.refuse(env);
    const [here, there] = this.network.connect(
      device,
      env,
      this.name,
      core.env,
    );
    core.accept(there, {
      url: url.replace("ws:", "http:"),
      headers: new Headers(),
    });
    return here;
  }
}

class Device extends Computer implements SimulatedDevice {
  readonly #options: SimulateOptions;
  readonly #server: Server;
  readonly #nodeID: bigint;
  readonly #stores: readonly MemoryBlockStore[];
  #isOffline = false;
  #logDB: RemoteLogDB | undefined;

  /** Creates a device that is off. */
  constructor(
    name: string,
    nodeID: bigint,
    clock: SimulatedClock,
    network: SimulatedNetwork,
    server: Server,
    options: SimulateOptions,
  ) {
    super(name, clock, network);
    this.#options = options;
    this.#server = server;
    this.#nodeID = nodeID;
    const env = clock.env(`${name}'s disks`);
    this.#stores = [0, 1, 2].map(() => new MemoryBlockStore({ env }));
  }

  /** Opens the outbox and the copy of the log; needs no connection. */
  protected override async open(
    env: SimulatedEnv,
  ): Promise<Omit<Process, "env">> {
    const [copy, snapshots, outbox] = this.#stores as [
      MemoryBlockStore,
      MemoryBlockStore,
      MemoryBlockStore,
    ];
    const logDB = this.#logDB = new RemoteLogDB("ws://server/sync", {
      env,
      copy,
      hints: () => () => {},
      token: encodeURIComponent(this.name),
      connect: (url) =>
        this.#isOffline
          ? this.network.refuse(env)
          : this.#server.connect(this.name, env, url),
    });
    const host = new NodeHost({
      logDB,
      env,
      outbox: new BlockOutbox(outbox, { env }),
      snapshots: new BlockSnapshotStore(snapshots, { env }),
      ...(this.#options.server && "authenticate" in this.#options.server
        ? {}
        : { principal: this.name }),
    });
    const replica = await this.#options.start(host, this.#nodeID);
    const stop = async (): Promise<void> => {
      await host.stop();
      await logDB.close();
    };
    return { host, replica, stop };
  }

  /** Connection of the running process, with its status. */
  get logDB(): RemoteLogDB {
    if (this.#logDB === undefined) {
      throw new Error(`Simulated device ${this.name} was never started`);
    }
    return this.#logDB;
  }

  /** True while it has no network. */
  get isOffline(): boolean {
    return this.#isOffline;
  }

  /** Takes the network away; the connection fails as `how` says. */
  goOffline(how: Cut = "clean"): void {
    this.#isOffline = true;
    this.network.cut(this.name, how);
  }

  /** Gives the network back. */
  goOnline(): void {
    this.#isOffline = false;
    if (this.isRunning) this.#logDB?.reconnect();
  }
}

class World implements SimulatedWorld {
  /** Server, which runs from the start. */
  readonly server: Server;
  readonly #options: SimulateOptions;
  readonly #clock: SimulatedClock;
  readonly #network: SimulatedNetwork;
  readonly #env: SimulatedEnv;
  readonly #devices: Device[] = [];

  /** Creates a world whose server is off; see {@linkcode simulate}. */
  constructor(options: SimulateOptions, clock: SimulatedClock) {
    this.#options = options;
    this.#clock = clock;
    this.#network = new SimulatedNetwork(
      derivedSeed(options.seed ?? 1, "network"),
    );
    this.#env = clock.env("world");
    this.server = new Server(clock, this.#network, options);
  }

  /** Simulated time, in milliseconds. */
  get now(): number {
    return this.#clock.now;
  }

  /** Devices in the order in which they were added. */
  get devices(): readonly Device[] {
    return this.#devices;
  }

  /** Adds a device and starts it. */
  async addDevice(name: string): Promise<Device> {
    if (this.#devices.some((device) => device.name === name)) {
      throw new Error(
        `World has a device ${name} already; choose another name`,
      );
    }
    const device = new Device(
      name,
      BigInt(this.#devices.length + 2),
      this.#clock,
      this.#network,
      this.server,
      this.#options,
    );
    this.#devices.push(device);
    await device.start();
    return device;
  }

  /** Resolves after `ms` of simulated time. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#env.setTimer(resolve, ms));
  }

  /**
   * Resolves once each device that runs and is online is connected, shows what the
   * server has, and has nothing left to send.
   */
  async settle(): Promise<void> {
    const end = this.now + SETTLE_MS;
    while (!this.#isSettled) {
      if (this.now >= end) {
        throw new Error(
          `World did not settle in ${SETTLE_MS} ms of simulated time: ${this.#describe()}`,
        );
      }
      await this.sleep(SETTLE_STEP_MS);
    }
  }

  get #isSettled(): boolean {
    const { appliedIndex } = this.server.replica;
    return this.#devices.every((device) => {
      if (!device.isRunning || device.isOffline) return true;
      const { replica, logDB } = device;
      return logDB.state === "live" && replica.appliedIndex === appliedIndex &&
        replica.pending().every(({ state }) => state !== "queued");
    });
  }

  #describe(): string {
    const devices = this.#devices.map((device) => {
      if (!device.isRunning) return `${device.name} does not run`;
      const { name, logDB, replica } = device;
      const queued = replica.pending().filter(({ state }) =>
        state === "queued"
      );
      return `${name} is ${logDB.state} at ${replica.appliedIndex} with ${queued.length} queued`;
    });
    return [`server is at ${this.server.replica.appliedIndex}`, ...devices]
      .join(", ");
  }

  /** Stops every process. */
  async close(): Promise<void> {
    for (const device of this.#devices) await device.stop();
    await this.server.stop();
  }
}

/**
 * Runs a test in a simulated world: a server and the devices that the test adds.
 * The simulated time advances while the test waits, without real waiting, and the
 * run follows from the seed, as long as the test waits for nothing outside of the
 * world.
 *
 * ```ts
 * import { simulate } from "./mod.ts";
 * import { kv, KVStateMachine } from "../kv/mod.ts";
 * import type { NodeHost, Replica } from "../nodehost/mod.ts";
 *
 * const start = (host: NodeHost, nodeID: bigint): Promise<Replica> =>
 *   host.startCluster(() => new KVStateMachine(), { clusterID: 1n, nodeID });
 *
 * await simulate({ start }, async (world) => {
 *   const a = await world.addDevice("a");
 *   const b = await world.addDevice("b");
 *   a.goOffline();
 *   await a.replica.submit(kv.put("color", "red"));
 *   await world.sleep(60_000);
 *   a.goOnline();
 *   await world.settle();
 *   console.log(await b.replica.read(kv.get("color")));
 * });
 * ```
 *
 * @throws what the test throws
 * @throws Error if the test waits for something that never happens, or longer than `limitMs`
 */
export async function simulate(
  options: SimulateOptions,
  test: (world: SimulatedWorld) => Promise<void>,
): Promise<void> {
  checkOptions("Options of simulate()", options, CHECKS);
  // Loading takes real time, which the simulated clock does not wait for.
  await preload();
  const clock = new SimulatedClock(options.seed ?? 1);
  const world = new World(options, clock);
  const limitMs = options.limitMs ?? LIMIT_MS;
  await run(clock, limitMs, async () => {
    await world.server.start();
    await test(world);
  });
  await run(clock, clock.now + limitMs, () => world.close());
}

/** Resolves once all microtasks have run. */
function settled(): Promise<void> {
  const immediate = (globalThis as Record<string, unknown>)[IMMEDIATE];
  // Where it exists, a message may arrive before microtasks that were queued earlier.
  return typeof immediate === "function"
    ? new Promise((resolve) => void immediate(resolve))
    : systemEnv.turn();
}

/** Advances the clock until `work` has settled. */
async function run(
  clock: SimulatedClock,
  until: number,
  work: () => Promise<void>,
): Promise<void> {
  let isDone = false;
  let idle = 0;
  const done = work().finally(() => isDone = true);
  // Handled below, but possibly not before its rejection is noticed.
  done.catch(() => {});
  for (;;) {
    await settled();
    if (isDone) return await done;
    if (clock.nextAt === Infinity) {
      // Perhaps it waits for something outside of the world.
      if (++idle < IDLE_TURNS) continue;
      throw new Error(
        `Simulated test waits at ${clock.now} ms for something that never happens`,
      );
    }
    idle = 0;
    if (!clock.runNext(until)) {
      throw new Error(
        `Simulated test did not end within ${until} ms of simulated time`,
      );
    }
  }
}
