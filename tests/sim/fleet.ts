/**
 * Simulation of a fleet of a typed application: pages and a server of different
 * releases, deploys at any moment and in any order, deploys that are rolled back,
 * processes that are killed, pages without a network (Y6, Y7, Y8).
 *
 * At the end everything runs the newest release. Then nothing may be lost or
 * applied twice, and all replicas have the same state.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { NodeHost, Replica } from "../../mod.ts";
import { ErrDiverged } from "../../mod.ts";
import {
  simulate,
  type SimulatedComputer,
  type SimulatedDevice,
  type SimulatedWorld,
} from "../../src/testing/mod.ts";
import {
  derivedSeed,
  SimulatedClock,
} from "../../src/testing/simulated_clock.ts";
import { ErrNewerCode, type TypedReplica } from "../../src/typed/mod.ts";
import {
  CAP,
  type FleetOutcome,
  type Release,
  RELEASES,
  type TaggedRow,
} from "./fleet_code.ts";

const DEVICES = ["ann", "bob", "cid"];

const NEWEST = RELEASES.at(-1)!;

/** Events of a run by kind, for a test that requires each of them. */
export interface FleetCounts {
  submitted: number;
  /** Pages that stopped and asked for a reload. */
  stopped: number;
  /** Times that a queue was found waiting for a newer server. */
  waited: number;
  /** Starts of a server that were refused, as its release is older than its log. */
  refused: number;
  activated: number;
}

/** Command that a page has submitted. */
interface Submitted {
  readonly id: string;
  readonly kind: "put" | "double";
  readonly by: string;
  readonly amount: number;
  outcome: FleetOutcome | undefined;
}

class Fleet {
  readonly counts: FleetCounts = {
    submitted: 0,
    stopped: 0,
    waited: 0,
    refused: 0,
    activated: 0,
  };
  /** Release of each computer at its next start. */
  readonly releases = new Map<string, Release>();
  readonly submitted: Submitted[] = [];
  readonly diverged: unknown[] = [];
  /** True if a change is activated by the operator, and not by itself. */
  readonly isManual: boolean;
  readonly #random: () => number;
  readonly #seeds: { random64(): bigint };
  /** Newest release that a server has run. */
  #served = 1;
  #world!: SimulatedWorld;

  constructor(seed: number) {
    const env = new SimulatedClock(derivedSeed(seed, "fleet")).env("fleet");
    this.#seeds = env;
    this.#random = () => Number(env.random64() >> 11n) / 2 ** 53;
    this.isManual = this.#random() < 0.5;
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!;
  }

  release(name: string): Release {
    return this.releases.get(name) ?? RELEASES[0]!;
  }

  readonly start = (host: NodeHost, nodeID: bigint): Promise<Replica> => {
    const name = nodeID === 1n ? "server" : DEVICES[Number(nodeID) - 2]!;
    const { create } = this.release(name);
    return host.startConcurrentCluster(() => {
      const machine = create();
      if (this.isManual) {
        Object.defineProperty(machine, "changes", { value: [] });
      }
      return machine;
    }, {
      clusterID: 1n,
      nodeID,
      hashEntries: 3,
      snapshotEntries: this.#random() < 0.5 ? 0 : 5,
      compactionOverhead: 2,
    }) as unknown as Promise<Replica>;
  };

  readonly run = async (world: SimulatedWorld): Promise<void> => {
    this.#world = world;
    for (const name of DEVICES) await world.addDevice(name);
    for (let step = 0; step < 40; step++) {
      await this.#step();
      await world.sleep(Math.floor(this.#random() * 3_000));
      this.#look();
    }
    await this.#finish();
  };

  // ------------------------------------------------------------------ the steps

  async #step(): Promise<void> {
    const { server, devices } = this.#world;
    const device = this.#pick(devices);
    const at = this.#random();
    if (at < 0.55) return await this.#submit(device);
    if (at < 0.65) {
      return device.isOffline
        ? device.goOnline()
        : device.goOffline(this.#pick(["clean", "silent"]));
    }
    if (at < 0.83) return await this.#reload(device);
    if (at < 0.92) return await this.#deploy();
    if (!server.isRunning) return;
    if (this.isManual) await this.#activate();
  }

  async #submit(device: SimulatedDevice): Promise<void> {
    if (!device.isRunning) return;
    const { name } = device;
    const release = this.release(name);
    const options = {
      by: name,
      now: () => this.#world.now,
      seed: () =>
        new Uint8Array(
          new BigUint64Array([
            this.#seeds.random64(),
            this.#seeds.random64(),
          ]).buffer,
        ),
    };
    const rows = this.submitted.filter(({ kind }) => kind === "put");
    const isDouble = release.double !== undefined && rows.length > 0 &&
      this.#random() < 0.2;
    const id = isDouble ? this.#pick(rows).id : `${name} ${rows.length}`;
    const amount = Math.floor(this.#random() * 2 * CAP);
    const replica = device.replica as unknown as TypedReplica;
    const { outcome } = isDouble
      ? await release.double!(replica, options, id)
      : await release.put(replica, options, id, amount);
    const kind = isDouble ? "double" : "put";
    const one: Submitted = { id, kind, by: name, amount, outcome: undefined };
    this.submitted.push(one);
    this.counts.submitted++;
    // A process that ends first leaves the outcome to the next one.
    outcome.then((found) => one.outcome = found, () => {});
  }

  /** Restarts a page, mostly with the release of the server or a newer one, at times with an older one from its cache. */
  async #reload(device: SimulatedDevice): Promise<void> {
    const queued = device.isRunning ? queueOf(device) : [];
    if (this.#random() < 0.5) device.kill();
    else await device.stop();
    const release = this.#pick(RELEASES);
    const before = this.releases.get(device.name);
    this.releases.set(device.name, release);
    try {
      await device.start();
    } catch (error) {
      // Its snapshot is of a newer release: it asks for a reload, and nothing is lost.
      assertNewer(error, `start of ${device.name} with ${release.number}`);
      this.counts.stopped++;
      const newer = before!.number > release.number ? before! : NEWEST;
      this.releases.set(device.name, newer);
      try {
        await device.start();
      } catch (error) {
        assertNewer(error, `start of ${device.name} with ${newer.number}`);
        this.releases.set(device.name, NEWEST);
        await device.start();
      }
    }
    // What was queued is byte for byte the same, as far as it is still queued.
    const now = new Map(queueOf(device));
    for (const [id, cmd] of queued) {
      const found = now.get(id);
      if (found !== undefined) assertEquals(found, cmd);
    }
  }

  /** Restarts the server with any release; one that is older than its log is refused with words. */
  async #deploy(): Promise<void> {
    const { server } = this.#world;
    const { releases } = this;
    if (this.#random() < 0.3) server.kill();
    else await server.stop();
    const release = this.#pick(RELEASES);
    const before = this.release("server");
    releases.set("server", release);
    try {
      await server.start();
    } catch (error) {
      assert(
        release.number < this.#served,
        `release ${release.number} is refused, and no newer one has served`,
      );
      assertNewer(error, `start of the server with ${release.number}`);
      this.counts.refused++;
      const next = before.number > release.number ? before : NEWEST;
      releases.set("server", next);
      await server.start();
    }
    this.#served = Math.max(this.#served, this.release("server").number);
  }

  async #activate(): Promise<void> {
    const { server } = this.#world;
    const { number } = this.release("server");
    if (number < 3) return;
    const change = number === 4 && this.#random() < 0.5
      ? "sampan:state:2"
      : "cap";
    await server.replica.activateChange(change, { force: true });
    this.counts.activated++;
  }

  // ------------------------------------------------------------- the invariants

  /** Checks what a person could see at any time. */
  #look(): void {
    for (const device of this.#world.devices) {
      if (!device.isRunning) continue;
      const { state, error } = device.replica.status;
      const { number } = this.release(device.name);
      assert(!(error instanceof ErrDiverged), `${device.name}: ${error}`);
      if (state === "failed") {
        assertNewer(error, `${device.name} with ${number}`);
        // The server must not have ordered what no server knew.
        assert(
          number < this.#served,
          `${device.name} with release ${number} stopped, and no server has run a newer one than ${this.#served}: ${error}`,
        );
        assertEquals(device.logDB.status.reason?.code, "newer-code");
        this.counts.stopped++;
        let answer: unknown;
        try {
          answer = device.replica.staleRead({ name: "rows", args: [] });
        } catch (error) {
          assert(causesOf(error).some((one) => one instanceof ErrNewerCode));
        }
        assertEquals(answer, undefined);
      }
      const { reason, retryAt } = device.logDB.status;
      if (reason?.code === "older-server") {
        assert(retryAt !== undefined);
        this.counts.waited++;
      }
    }
    assertEquals(this.diverged, []);
  }

  async #finish(): Promise<void> {
    const { server, devices } = this.#world;
    this.releases.set("server", NEWEST);
    await server.stop();
    await server.start();
    this.#served = NEWEST.number;
    for (const device of devices) {
      await device.stop();
      this.releases.set(device.name, NEWEST);
      await device.start();
      device.goOnline();
    }
    await this.#world.settle();
    this.#look();
    const { hash } = await server.replica.getHash();
    for (const device of devices) {
      assertEquals((await device.replica.getHash()).hash, hash, device.name);
    }
    await this.#compare(server);
  }

  /** Compares the state with what was submitted. */
  async #compare(server: SimulatedComputer): Promise<void> {
    const rows = new Map(
      await server.replica.staleRead({ name: "rows", args: [] }) as [
        string,
        TaggedRow,
      ][],
    );
    const puts = this.submitted.filter(({ kind }) => kind === "put");
    // Each exactly once, and nothing else.
    assertEquals([...rows.keys()].sort(), puts.map(({ id }) => id).sort());
    const orders = [...rows.values()].map(({ order }) => order).sort((a, b) =>
      a - b
    );
    assertEquals(orders, orders.map((_, i) => i + 1));
    let isCapped = false;
    for (const row of [...rows.values()].sort((a, b) => a.order - b.order)) {
      // The change counts from one place in the log on.
      assert(
        row.capped || !isCapped,
        "a change was active and is not any more",
      );
      isCapped = row.capped;
    }
    for (const { id, by, amount } of puts) {
      const row = rows.get(id)!;
      assertEquals(row.by, by);
      const first = row.capped ? Math.min(amount, CAP) : amount;
      const doubles = this.submitted.filter((one) =>
        one.kind === "double" && one.id === id
      );
      const known = doubles.filter(({ outcome }) => outcome?.ok);
      const most = doubles.filter(({ outcome }) => outcome?.ok !== false);
      const factor = first === 0 ? known.length : Math.log2(row.amount / first);
      assert(Number.isInteger(factor), `${id}: ${first} became ${row.amount}`);
      assert(factor >= known.length && factor <= most.length, id);
    }
  }
}

/** Queued commands of a device. */
function queueOf(device: SimulatedDevice): [number, Uint8Array][] {
  return device.replica.pending().filter(({ state }) => state === "queued").map(
    ({ id, cmd }) => [id, cmd],
  );
}

/** An error with its causes. */
function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  for (let one = error; one !== undefined; one = (one as Error).cause) {
    causes.push(one);
  }
  return causes;
}

function assertNewer(error: unknown, what: string): void {
  const causes = causesOf(error);
  if (!causes.some((one) => one instanceof ErrNewerCode)) {
    throw new Error(`${what} failed with another error`, { cause: error });
  }
  assert(`${causes.map(String)}`.includes("load the newer code"), what);
}

/** Runs one fleet; throws at a violation. */
export async function simulateFleet(seed: number): Promise<FleetCounts> {
  const fleet = new Fleet(seed);
  await simulate({
    seed,
    start: fleet.start,
    server: {
      ...(seed % 2 === 0 ? {} : {
        validate: (principal, cmd) =>
          fleet.release("server").validate(principal, cmd) as
            | string
            | undefined,
      }),
      log: ({ event, error }) => {
        if (event === "client diverged") fleet.diverged.push(error);
      },
    },
  }, fleet.run);
  return fleet.counts;
}
