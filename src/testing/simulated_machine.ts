/**
 * A server and devices of a typed application in simulated network and time.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { NodeHost } from "../nodehost/node_host.ts";
import type { Replica } from "../nodehost/replica.ts";
import {
  checkOptions,
  isCount,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { RemoteLogDB } from "../sync/client/remote_log_db.ts";
import type { CoreOptions } from "../sync/server/options.ts";
import {
  type App,
  type MachineDefinition,
  typed,
  type TypedQuery,
} from "../typed/mod.ts";
import { derivedSeed, SimulatedClock } from "./simulated_clock.ts";
import type { Cut } from "./simulated_network.ts";
import {
  simulate,
  type SimulatedDevice,
  type SimulatedWorld,
} from "./simulated_world.ts";

/** Options of {@linkcode simulateMachine}. */
export interface SimulateMachineOptions {
  /** Options of the server. Each device sends its name as its token; without `authenticate` that is its principal. @default {the definition's `validate`} */
  readonly server?: CoreOptions | undefined;
  /** Seed from which all delays, random numbers and the order of simultaneous events follow. @default {1} */
  readonly seed?: number | undefined;
  /** Bound of the simulated time, in milliseconds. @default {3600000} */
  readonly limitMs?: number | undefined;
}

const CHECKS: OptionChecks<SimulateMachineOptions> = {
  // Checked by the server.
  server: optional(() => {}),
  seed: optional(isCount(0, 0xffff_ffff)),
  limitMs: optional(isCount(1)),
};

/** Device of a simulated world with the application's typed access. */
export interface MachineDevice<I, R, Q, S>
  extends Omit<SimulatedDevice, "replica"> {
  /** Typed access to the replica of the running process; the author is the name of the device. */
  readonly app: App<I, R, Q, S>;
  /** Replica of the running process. */
  readonly replica: Replica<TypedQuery, unknown>;
}

/** Server and devices of a typed application in simulated network and time. */
export interface MachineWorld<I, R, Q, S>
  extends Omit<SimulatedWorld, "devices" | "addDevice"> {
  /** Devices in the order in which they were added. */
  readonly devices: readonly MachineDevice<I, R, Q, S>[];
  /** Adds a device and starts it; its name is its principal and the author of its commands. */
  addDevice(name: string): Promise<MachineDevice<I, R, Q, S>>;
}

class Device<I, R, Q, S> implements MachineDevice<I, R, Q, S> {
  readonly #device: SimulatedDevice;
  readonly #open: (replica: Replica<TypedQuery, unknown>) => App<I, R, Q, S>;
  #opened: Replica<TypedQuery, unknown> | undefined;
  #app: App<I, R, Q, S> | undefined;

  constructor(
    device: SimulatedDevice,
    open: (replica: Replica<TypedQuery, unknown>) => App<I, R, Q, S>,
  ) {
    this.#device = device;
    this.#open = open;
  }

  get app(): App<I, R, Q, S> {
    const { replica } = this;
    if (this.#app === undefined || this.#opened !== replica) {
      this.#opened = replica;
      this.#app = this.#open(replica);
    }
    return this.#app;
  }

  get replica(): Replica<TypedQuery, unknown> {
    return this.#device.replica as unknown as Replica<TypedQuery, unknown>;
  }

  get name(): string {
    return this.#device.name;
  }

  get host(): NodeHost {
    return this.#device.host;
  }

  get logDB(): RemoteLogDB {
    return this.#device.logDB;
  }

  get isRunning(): boolean {
    return this.#device.isRunning;
  }

  get isOffline(): boolean {
    return this.#device.isOffline;
  }

  start(): Promise<void> {
    return this.#device.start();
  }

  stop(): Promise<void> {
    return this.#device.stop();
  }

  kill(): void {
    this.#device.kill();
  }

  suspend(): void {
    this.#device.suspend();
  }

  resume(): void {
    this.#device.resume();
  }

  goOffline(how?: Cut): void {
    this.#device.goOffline(how);
  }

  goOnline(): void {
    this.#device.goOnline();
  }
}

/** Earliest time in commands of a simulated world, in milliseconds since 1970. */
const FIRST_TIME = 1_700_000_000_000;

/**
 * Runs a test of a typed application in a simulated world: a server with the
 * definition's machine and `validate`, and the devices that the test adds. Time,
 * ids and random numbers of commands are simulated, too.
 *
 * ```ts ignore
 * await simulateMachine(board, async (world) => {
 *   const ann = await world.addDevice("ann");
 *   const bob = await world.addDevice("bob");
 *   ann.goOffline();
 *   await ann.app.do.add({ id: "1", text: "Buy rice" });
 *   ann.goOnline();
 *   await world.settle();
 *   assertEquals(await bob.app.ask.open(), [{ text: "Buy rice", done: false }]);
 * });
 * ```
 *
 * @throws what the test throws
 * @throws Error if the test waits for something that never happens, or longer than `limitMs`
 */
export async function simulateMachine<S, I, R, Q>(
  definition: MachineDefinition<S, I, R, Q>,
  test: (world: MachineWorld<I, R, Q, S>) => Promise<void>,
  options: SimulateMachineOptions = {},
): Promise<void> {
  checkOptions("Options of simulateMachine()", options, CHECKS);
  const { seed = 1, server } = options;
  // Only for the random numbers of commands.
  const env = new SimulatedClock(derivedSeed(seed, "commands")).env("seeds");
  const start = (host: NodeHost, nodeID: bigint): Promise<Replica> =>
    host.startConcurrentCluster(definition.create, {
      clusterID: 1n,
      nodeID,
    }) as unknown as Promise<Replica>;
  await simulate({
    ...options,
    start,
    server: { validate: definition.validate, ...server },
  }, async (world) => {
    const devices: Device<I, R, Q, S>[] = [];
    await test({
      server: world.server,
      devices,
      get now(): number {
        return world.now;
      },
      sleep: (ms) => world.sleep(ms),
      settle: () => world.settle(),
      async addDevice(name): Promise<Device<I, R, Q, S>> {
        const device = await world.addDevice(name);
        const typedDevice = new Device(
          device,
          (replica) =>
            typed(replica, definition, {
              by: name,
              now: () => FIRST_TIME + world.now,
              seed: () =>
                new Uint8Array(
                  new BigUint64Array([env.random64(), env.random64()]).buffer,
                ),
            }),
        );
        devices.push(typedDevice);
        return typedDevice;
      },
    });
  });
}
