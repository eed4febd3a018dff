/**
 * World of a soak: a server, devices in Deno and a browser, each in processes of
 * its own, which are killed at random until the world ends. Then they come up a
 * last time, and what all of them have written down is checked.
 *
 * This module needs Deno.
 *
 * @module
 */

import { verifySnapshot } from "../../src/ports/mod.ts";
import { FileSnapshotStore, SqliteLogDB } from "../../src/sqlite/mod.ts";
import { freePort } from "../../web/free_ports.ts";
import { type Engine, ENGINES, removeFolder } from "../browser/browser.ts";
import type { PageServer } from "../browser/server.ts";
import { type Random, seeded } from "../support/random.ts";
import { Proxy, STORM } from "../sync/proxy.ts";
import { History } from "./history.ts";
import { launchPage, launchProcess, type Life } from "./life.ts";
import type { ReplicaReport, Requests } from "./record.ts";
import { replay } from "./replay.ts";
import { type ClientSettings, KINDS } from "./station.ts";

/** Kind of process that a soak kills. */
export type Victim = "server" | "device" | Engine;

/** All kinds of processes that a soak kills. */
export const VICTIMS: readonly Victim[] = ["server", "device", ...ENGINES];

/** Kills of each kind. */
export type Kills = Record<Victim, number>;

/** Clusters of the server: the log of the first is compacted, that of the second is complete. */
const CLUSTERS = 2;
const COMPLETE = 2;

/** Cluster that a page has for itself, with the log in IndexedDB. */
const LOCAL = 3;

/** Most lines that a process writes under load before it is killed, and the longest time, in milliseconds. */
const LOAD_LINES = 400;
const LOAD_MS: Kills = {
  server: 3_000,
  device: 2_000,
  Chromium: 4_000,
  Firefox: 4_000,
  WebKitGTK: 4_000,
};

/** Share of the kills that come during a start, and the longest time into it, in milliseconds. */
const STARTING = 1 / 5;
const START_MS = 500;

/** Longest time between a kill and the next start, in milliseconds. */
const DOWN_MS = 60;

/** Timeout of a start, and of everything that must come to an end once the faults have stopped, in milliseconds. */
const WAIT_MS_MAX = 90_000;

/** Options of a world. */
export interface WorldOptions {
  readonly seed: number;
  /** Number of devices in Deno. */
  readonly devices: number;
  /** Engine of the browser; without one the world has no browser. */
  readonly engine?: Engine | undefined;
  readonly pages?: PageServer | undefined;
  /** Kinds of processes that are killed; by default all. */
  readonly victims?: readonly Victim[] | undefined;
  /** Called after each kill; returns true when the world shall end. */
  readonly killed: (victim: Victim) => boolean;
}

/** Outcome of a world. */
export interface WorldResult {
  readonly violations: readonly string[];
  readonly operations: number;
  readonly acknowledged: number;
  readonly views: number;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Process of a world that is killed and started again. */
class Member {
  readonly name: string;
  readonly victim: Victim;
  /** Number of its clusters. */
  readonly clusters: number;
  readonly #start: (life: number) => Promise<Life>;
  #lives = 0;
  /** Present life; undefined while there is no process. */
  life: Life | undefined;

  constructor(
    name: string,
    victim: Victim,
    start: (life: number) => Promise<Life>,
  ) {
    this.name = name;
    this.victim = victim;
    this.clusters = victim === "server" || victim === "device"
      ? CLUSTERS
      : LOCAL;
    this.#start = start;
  }

  async start(): Promise<Life> {
    return this.life = await this.#start(++this.#lives);
  }

  async kill(): Promise<void> {
    const { life } = this;
    this.life = undefined;
    await life?.kill();
  }

  request<K extends keyof Requests>(
    what: K,
    argument?: Parameters<Requests[K]>[0],
  ): Promise<Awaited<ReturnType<Requests[K]>>> {
    return this.life!.request(what, argument, WAIT_MS_MAX);
  }
}

/** Running world. */
class World {
  readonly history: History = new History();
  readonly #options: WorldOptions;
  readonly #directory: string;
  readonly #random: Random;
  readonly #port: number = freePort();
  readonly #members: Member[] = [];
  readonly #proxies: Proxy[] = [];
  #isOver = false;

  constructor(options: WorldOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    this.#random = seeded(options.seed);
  }

  get #server(): Member {
    return this.#members[0]!;
  }

  get #clients(): Member[] {
    return this.#members.slice(1);
  }

  /** Runs the world to its end. */
  async run(): Promise<void> {
    const { devices, engine } = this.#options;
    this.#addServer();
    for (let i = 1; i <= devices; i++) this.#addDevice(i);
    if (engine !== undefined) await this.#addPage(engine);
    try {
      await Promise.all(this.#members.map((member) => this.#live(member)));
      if (this.history.violations.length === 0) await this.#end();
    } catch (error) {
      this.history.violate(Deno.inspect(error));
    } finally {
      await Promise.all(this.#members.map((member) => member.kill()));
      for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
    }
    if (this.history.violations.length === 0) await this.#replay();
    this.history.checkRegisters();
  }

  #addServer(): void {
    const { pages } = this.#options;
    const random = this.#random;
    const snapshotEntries = random.pick([50, 300, 2_000]);
    const origins = pages === undefined ? [] : [pages.origin];
    const start = (life: number): Promise<Life> =>
      launchProcess(this.history, "server", life, {
        directory: `${this.#directory}/server`,
        server: {
          client: "server",
          nodeID: 1,
          life,
          seed: this.#seed(),
          kinds: ["on disk", "on disk"],
          snapshotEntries,
          compactionOverhead: [snapshotEntries, Number.MAX_SAFE_INTEGER],
          port: this.#port,
          origins,
          farEntries: random.pick([200, 2_000, 16_384]),
          forgotten: random.oneIn(2) ? 0.1 : 0,
        },
      });
    this.#members.push(new Member("server", "server", start));
  }

  #clientSettings(client: string): ClientSettings {
    const random = this.#random;
    let port = this.#port;
    if (random.oneIn(3)) {
      const proxy = new Proxy(port, this.#seed(), STORM);
      this.#proxies.push(proxy);
      port = proxy.port;
    }
    const snapshotEntries = random.pick([0, 100, 1_000]);
    return {
      client,
      nodeID: this.#members.length + 1,
      life: 0,
      seed: 0,
      kinds: [random.pick(KINDS), random.pick(KINDS)],
      snapshotEntries,
      compactionOverhead: [snapshotEntries, snapshotEntries],
      url: `ws://127.0.0.1:${port}/sync`,
      hasCopy: !random.oneIn(3),
    };
  }

  #addDevice(number: number): void {
    const name = `device${number}`;
    const directory = `${this.#directory}/${name}`;
    const settings = this.#clientSettings(name);
    const start = (life: number): Promise<Life> =>
      launchProcess(this.history, name, life, {
        directory,
        device: { ...settings, life, seed: this.#seed() },
      });
    this.#members.push(new Member(name, "device", start));
  }

  async #addPage(engine: Engine): Promise<void> {
    const profile = `${this.#directory}/profile`;
    await Deno.mkdir(profile);
    const settings = this.#clientSettings(engine);
    const start = (life: number): Promise<Life> =>
      launchPage(this.history, engine, this.#options.pages!, profile, {
        ...settings,
        life,
        seed: this.#seed(),
      });
    this.#members.push(new Member(engine, engine, start));
  }

  #seed(): number {
    return this.#random.below(2 ** 32);
  }

  /** Starts a member and kills it, again and again, until the world is over; leaves it running. */
  async #live(member: Member): Promise<void> {
    const random = this.#random;
    const { victims, killed } = this.#options;
    const isVictim = victims?.includes(member.victim) ?? true;
    try {
      for (;;) {
        const life = await member.start();
        if (!isVictim) {
          await life.started(member.clusters, WAIT_MS_MAX);
          return;
        }
        if (!this.#isOver && random.chance(STARTING)) {
          await life.unlessEnded(sleep(random.below(START_MS)));
        } else {
          await life.started(member.clusters, WAIT_MS_MAX);
          if (member === this.#server) this.#reconnect();
          if (this.#isOver) return;
          const lines = random.below(LOAD_LINES);
          await life.worked(lines, random.below(LOAD_MS[member.victim]));
        }
        if (this.#isOver) {
          await life.started(member.clusters, WAIT_MS_MAX);
          return;
        }
        await member.kill();
        if (killed(member.victim) || this.history.violations.length > 0) {
          this.#isOver = true;
        }
        await sleep(random.below(DOWN_MS));
      }
    } catch (error) {
      this.#isOver = true;
      throw error;
    }
  }

  #reconnect(): void {
    for (const { life } of this.#clients) {
      life?.request("reconnect", undefined, WAIT_MS_MAX).catch(() => {});
    }
  }

  /** Lets everything become live, and compares the states. */
  async #end(): Promise<void> {
    for (const proxy of this.#proxies) {
      proxy.faultRates = undefined;
      proxy.cut();
    }
    this.#reconnect();
    await Promise.all(this.#members.map((member) => member.request("quiesce")));
    const { right, reports } = await this.#reports();
    for (const [i, report] of right.entries()) {
      this.history.checkReports(
        i + 1,
        new Map<string, ReplicaReport>([
          ["server", report],
          ...reports.map(([name, all]) => [name, all[i]!] as const),
        ]),
      );
      if (i + 1 === COMPLETE) this.#right = report;
    }
    for (const [name, { [LOCAL - 1]: local }] of reports) {
      if (local === undefined) continue;
      this.history.checkReports(LOCAL, new Map([[name, local]]));
      this.history.checkReplay(LOCAL, name, local, local.replayed!);
    }
  }

  /** Reports of the server and the clients, once none is ahead of the server: a late duplicate of a command may still come. */
  async #reports(): Promise<{
    readonly right: readonly ReplicaReport[];
    readonly reports: readonly (readonly [string, readonly ReplicaReport[]])[];
  }> {
    for (let indexes: readonly number[] = [0, 0];;) {
      const right = await this.#server.request("report", indexes);
      const asked = right.map(({ index }) => index);
      const reports = await Promise.all(
        this.#clients.map(async (member) =>
          [member.name, await member.request("report", asked)] as const
        ),
      );
      indexes = asked.map((index, i) =>
        Math.max(index, ...reports.map(([, all]) => all[i]!.index))
      );
      if (indexes.every((index, i) => index === asked[i])) {
        return { right, reports };
      }
    }
  }

  /** State of the cluster whose log is complete. */
  #right: ReplicaReport | undefined;

  /** Replays the complete log into a fresh machine of another kind, and reads every snapshot of the server. */
  async #replay(): Promise<void> {
    const { history } = this;
    const folder = `${this.#directory}/server`;
    await using logDB = new SqliteLogDB(`${folder}/log.db`);
    history.checkReplay(
      COMPLETE,
      "the coordinator",
      this.#right!,
      await replay(logDB, COMPLETE, this.#right!.index),
    );
    await using snapshots = new FileSnapshotStore(`${folder}/snapshots`);
    for (let cluster = 1; cluster <= CLUSTERS; cluster++) {
      for (const info of await snapshots.list(BigInt(cluster))) {
        const { transform, totals } = verifySnapshot();
        await snapshots.open(info).pipeThrough(transform).pipeTo(
          new WritableStream(),
        );
        await totals;
      }
    }
  }
}

/**
 * Runs one world. Its folder, with the stores as they were, is kept if something
 * is wrong.
 */
export async function runWorld(options: WorldOptions): Promise<WorldResult> {
  const directory = await Deno.makeTempDir({ prefix: "soak-" });
  const world = new World(options, directory);
  await world.run();
  const { violations, size, acknowledged, views } = world.history;
  if (violations.length === 0) await removeFolder(directory);
  return {
    violations: violations.map((text) => `${text}\n  in ${directory}`),
    operations: size,
    acknowledged,
    views,
  };
}
