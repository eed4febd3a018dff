/**
 * Server in its own process that is killed at random while clients submit.
 *
 * ```sh
 * deno run -A tests/sync/kill.ts 20      # with a seed drawn at random, which is printed
 * deno run -A tests/sync/kill.ts 20 123  # with this one
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";
import { newSeed, random, seedFrom } from "../support/random.ts";
import { type Kind, Site, type SiteReport } from "../browser/sync_site.ts";
import type { ServerSettings, ServerState } from "./kill_server.ts";
import { Proxy, STORM } from "./proxy.ts";

/** Longest time before the server is killed, in milliseconds. */
const LOAD_MS = 400;

/** Commands that a client has in flight at any time. */
const IN_FLIGHT = 40;

/** Timeout for the start of a server, in milliseconds. */
const START_MS_MAX = 30_000;

/** Timeout for everything else a test waits for, in milliseconds. */
export const WAIT_MS_MAX = 120_000;

/** Resolves after a number of milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Server in its own process. */
export class ServerProcess implements AsyncDisposable {
  readonly #settings: ServerSettings;
  readonly #program: string;
  #child: Deno.ChildProcess | undefined;
  #port: number;

  private constructor(settings: ServerSettings, program: string) {
    this.#settings = settings;
    this.#program = program;
    this.#port = settings.port;
  }

  /** Starts a server. */
  static async start(
    directory: string,
    settings: Partial<ServerSettings> = {},
    program = "kill_server.ts",
  ): Promise<ServerProcess> {
    const server = new ServerProcess({
      port: 0,
      origins: [],
      snapshotEntries: 1_000,
      farEntries: 16_384,
      ...settings,
      directory,
    }, program);
    await server.restart();
    return server;
  }

  /** URL of the server, the same after every restart. */
  get port(): number {
    return this.#port;
  }

  /** Restarts the server on its files and its port. */
  async restart(): Promise<void> {
    const settings = { ...this.#settings, port: this.#port };
    const program = new URL(this.#program, import.meta.url).href;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", program, JSON.stringify(settings)],
      // The server exits when this process does.
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#child = child;
    const reader = child.stdout.getReader();
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
    const { value } = await reader.read();
    clearTimeout(timer);
    await reader.cancel();
    assert(value !== undefined, "Server did not come up");
    this.#port = Number(new URL(new TextDecoder().decode(value)).port);
  }

  /** Kills the server with SIGKILL, and resolves once it has exited. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    child.kill("SIGKILL");
    await child.status;
    await child.stdin.close().catch(() => {});
  }

  /** States of its clusters: the one on disk, and that of the journal. */
  async state(): Promise<[disk: ServerState, memory: ServerState]> {
    return await this.#ask("state");
  }

  /** Makes the server write rows with values of a size in bytes to the cluster on disk. */
  async fill(count: number, bytes: number): Promise<void> {
    await this.#ask(`fill?count=${count}&bytes=${bytes}`);
  }

  async #ask(what: string): Promise<[ServerState, ServerState]> {
    const response = await fetch(`http://127.0.0.1:${this.#port}/${what}`);
    return await response.json();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

/** Client in this process that stores everything in a directory. */
export function openSite(
  kind: Kind,
  directory: string,
  url: string,
  nodeID: number,
): Promise<Site> {
  return Site.open({
    kind,
    url,
    nodeID,
    outbox: new SqliteOutbox(`${directory}/outbox.db`),
    snapshots: new FileSnapshotStore(`${directory}/snapshots`),
    machine: () => new SqliteKVStateMachine(`${directory}/state.db`),
    copy: () => new SqliteBlockStore(`${directory}/copy.db`),
  });
}

/** Asserts that a client has the server's state, with every command of these clients once and in order. */
export function checkSite(
  report: SiteReport,
  server: ServerState,
  expected: Readonly<Record<string, number>>,
  said: string,
): void {
  assertEquals(report.wrong, [], said);
  assertEquals([report.queued, report.other], [0, 0], said);
  assertEquals(report.index, server.index, said);
  assertEquals(report.hash, server.hash, said);
  assertEquals(report.last, expected, said);
  assertEquals(report.shown, expected, said);
}

/** Result of a run. */
export interface ServerKills {
  /** Number of kills. */
  readonly kills: number;
  /** Commands that clients know to be applied. */
  readonly applied: number;
}

/** Client that submits until it is stopped. */
class Client {
  readonly name: string;
  readonly site: Site;
  /** Last number that was submitted durably. */
  count = 0;
  #isStopped = false;
  readonly #working: Promise<void>;

  constructor(name: string, site: Site, next: () => number) {
    this.name = name;
    this.site = site;
    this.#working = this.#work(next);
    this.#working.catch(() => {});
  }

  async #work(next: () => number): Promise<void> {
    while (!this.#isStopped) {
      const count = 1 + Math.floor(next() * 8);
      await this.site.submit(this.name, this.count + 1, count);
      this.count += count;
      while (this.site.replica.pending().length > IN_FLIGHT) {
        if (this.#isStopped) return;
        await sleep(1);
      }
      await sleep(next() * 4);
    }
  }

  /** Number of acknowledged commands. */
  get acknowledged(): number {
    return this.count - this.site.replica.pending().length;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#working;
  }
}

/**
 * Kills a server `kills` times, at times drawn from the seed, while clients of both
 * kinds submit, some of them over an unreliable network. Afterwards no command that
 * a client knows to be applied may be missing, and none may be applied twice or out
 * of order (H3, H5).
 */
export async function killServer(
  kills: number,
  seed: number,
  told: (line: string) => void = () => {},
): Promise<ServerKills> {
  const next = random(seed);
  const directory = await Deno.makeTempDir({ prefix: "kill-" });
  const clients: Client[] = [];
  try {
    await using server = await ServerProcess.start(`${directory}/server`, {
      snapshotEntries: 300,
      farEntries: 2_000,
    });
    await using proxy = new Proxy(server.port, seedFrom(next), STORM);
    for (const [i, kind] of (["disk", "memory", "memory"] as const).entries()) {
      const port = i === 2 ? proxy.port : server.port;
      const site = await openSite(
        kind,
        `${directory}/${i}`,
        `ws://127.0.0.1:${port}/sync`,
        i + 2,
      );
      clients.push(new Client(`c${i}`, site, random(seedFrom(next))));
    }
    for (let life = 1; life <= kills; life++) {
      // There is load only once a client is connected again.
      await Promise.race(clients.map(async ({ site }) => {
        await site.live();
      }));
      await sleep(next() * LOAD_MS);
      await server.kill();
      const known = clients.map(({ acknowledged }) => acknowledged);
      await sleep(next() * 50);
      await server.restart();
      const [disk, memory] = await server.state();
      for (const [i, { name, site }] of clients.entries()) {
        const { last } = site.kind === "disk" ? disk : memory;
        const there = last[name] ?? 0;
        assert(there >= known[i]!, `${name}: ${there} of ${known[i]}`);
        site.logDB.reconnect();
      }
      told(`Server: kill ${life}, ${known.join(", ")} acknowledged`);
    }
    proxy.faultRates = undefined;
    proxy.cut();
    let applied = 0;
    for (const client of clients) {
      await client.stop();
      client.site.logDB.reconnect();
      await client.site.sent();
      applied += client.count;
    }
    const [disk, memory] = await server.state();
    for (const { site } of clients) {
      const right = site.kind === "disk" ? disk : memory;
      await site.reach(right.index);
      const expected = clients.filter(({ site: { kind } }) =>
        kind === site.kind
      ).map(({ name, count }) => [name, count] as const);
      checkSite(
        await site.report(),
        right,
        Object.fromEntries(expected),
        `seed ${seed}`,
      );
    }
    // A counter, and a row for each command.
    assertEquals(disk.rows, clients[0]!.count + 1);
    return { kills, applied };
  } catch (error) {
    throw new Error(`Seed ${seed}`, { cause: error });
  } finally {
    for (const { site } of clients) await site.close();
    for (const client of clients) await client.stop().catch(() => {});
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) {
  const say = (line: string): void =>
    void Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
  const seed = Number(Deno.args[1] ?? newSeed());
  say(`Server: seed ${seed}`);
  const { kills, applied } = await killServer(
    Number(Deno.args[0] ?? 20),
    seed,
    say,
  );
  say(`Server: killed ${kills} times, ${applied} commands there once each`);
}
