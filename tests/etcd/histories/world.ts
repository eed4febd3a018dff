/**
 * World of a history: three etcd nodes, three servers and clients, in processes of
 * their own, with a plan of faults. At the end everything is mended, and what all
 * processes have written down is checked.
 *
 * This module needs Deno.
 *
 * @module
 */

import { seeded } from "../../support/random.ts";
import { freePorts } from "../../../web/free_ports.ts";
import { EtcdNodes } from "../nodes.ts";
import { readHistory, violationsIn } from "./check.ts";
import { Link } from "./link.ts";
import {
  COUNT,
  describeFault,
  type Fault,
  type FaultKind,
  planOf,
  type PlanOptions,
} from "./plan.ts";
import type { ProcessSettings } from "./process.ts";
import type { ChromiumPages } from "./pages.ts";
import { type Member, ProcessMember, Recorder, within } from "./members.ts";
import type { Report, State } from "./record.ts";

/** Longest pause of a client between two operations, unless options say otherwise, in milliseconds. */
const PAUSE_MS_MAX = 40;

/** Options of a history. */
export interface HistoryOptions extends Omit<PlanOptions, "ms"> {
  /** Length under load, in milliseconds. */
  readonly ms: number;
  /** Clients of each server's host, and clients of the servers. */
  readonly direct: number;
  readonly remote: number;
  /** Clients in pages of Chromium. @default {0} */
  readonly pages?: number;
  /** True if no client of the servers may see an error. @default {false} */
  readonly isStrict?: boolean;
  /** Longest pause of a client between two operations, in milliseconds. @default {40} */
  readonly pauseMsMax?: number;
  /** Happens under load; by default the faults drawn from the seed. */
  readonly script?: (world: World) => Promise<void>;
  /** Called with each line of progress. */
  readonly say?: (line: string) => void;
}

/** Result of a history. */
export interface HistoryResult {
  readonly violations: readonly string[];
  readonly operations: number;
  readonly acknowledged: number;
  readonly unknown: number;
  /** Number of clients with an acknowledged operation. */
  readonly clients: number;
  readonly faults: Readonly<Record<string, number>>;
  /** Snapshots, recoveries and compactions of the servers' replicas. */
  readonly events: Readonly<Record<string, number>>;
  /** File of the history. */
  readonly file: string;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Running world. */
export class World implements AsyncDisposable {
  readonly recorder: Recorder;
  readonly nodes: EtcdNodes;
  /** Links of each server to each etcd node, and of all clients to each server. */
  readonly #toEtcd: Link[][];
  readonly #toServer: Link[];
  readonly #ports: readonly number[];
  /** Folder with those of the servers. */
  readonly #folder = Deno.makeTempDirSync({ prefix: "history-" });
  readonly #options: HistoryOptions;
  readonly #members = new Map<string, Member>();
  #counts = 0;
  #chromium: ChromiumPages | undefined;
  /** Nodes and servers that a fault has stopped at present. */
  readonly #busy = new Set<string>();
  readonly #seeds: () => number;

  private constructor(
    options: HistoryOptions,
    nodes: EtcdNodes,
    recorder: Recorder,
  ) {
    this.#options = options;
    this.nodes = nodes;
    this.recorder = recorder;
    const { below } = seeded(options.seed ^ 0x5eed);
    this.#seeds = () => below(2 ** 32);
    const all = Array.from({ length: COUNT }, (_, i) => i);
    this.#toEtcd = all.map(() =>
      nodes.endpoints.map((url) => new Link(Number(new URL(url).port)))
    );
    this.#ports = freePorts(all.length);
    this.#toServer = this.#ports.map((port) => new Link(port));
  }

  /** Starts all processes. */
  static async start(options: HistoryOptions, path: string): Promise<World> {
    const nodes = await EtcdNodes.start({ count: COUNT, hasLinks: true });
    const world = new World(options, nodes, new Recorder(path));
    if (options.pages) {
      // Only where it is needed: the bundler and the browser.
      const { ChromiumPages } = await import("./pages.ts");
      world.#chromium = await ChromiumPages.launch();
    }
    try {
      for (let i = 0; i < COUNT; i++) world.startServer(i);
      await Promise.all(world.members.map(({ started }) => started));
      world.startClients();
      await world.member("pages").started;
      await world.#openPages();
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
    return world;
  }

  /** Processes that run. */
  get members(): Member[] {
    return [...this.#members.values()];
  }

  /** Process with a name. */
  member(name: string): Member {
    return this.#members.get(name)!;
  }

  /** URLs of the servers for clients. */
  get urls(): string[] {
    return this.#toServer.map(({ port }) => `ws://127.0.0.1:${port}/sync`);
  }

  #start(
    name: string,
    settings: Pick<
      ProcessSettings,
      "clients" | "server" | "urls" | "firstNodeID"
    >,
  ): void {
    const { isStrict = false, pauseMsMax = PAUSE_MS_MAX } = this.#options;
    this.#members.set(
      name,
      new ProcessMember(this.recorder, {
        name: `${name}.${++this.#counts}`,
        seed: this.#seeds(),
        isStrict,
        pauseMsMax,
        ...settings,
      }),
    );
  }

  /** Starts a server. */
  startServer(i: number): void {
    // Each begins with another etcd node.
    const links = this.#toEtcd[i]!;
    const endpoints = [...links.slice(i), ...links.slice(0, i)]
      .map(({ port }) => `http://127.0.0.1:${port}`);
    this.#start(`server${i}`, {
      clients: this.#options.direct,
      server: {
        nodeID: i + 1,
        port: this.#ports[i]!,
        endpoints,
        folder: this.#folderOf(i),
        announced: `http://127.0.0.1:${this.#toServer[i]!.port}/`,
        origins: this.#chromium === undefined ? [] : [this.#chromium.origin],
      },
    });
  }

  #folderOf(i: number): string {
    return `${this.#folder}/server${i}`;
  }

  /** Stops a server as an operator does, and starts it again. */
  async restartServer(i: number): Promise<void> {
    const member = this.member(`server${i}`);
    await member.request({ what: "shut down" });
    await member.kill();
    this.startServer(i);
    await within(this.member(`server${i}`).started, "start");
  }

  /** Starts the clients of the servers. */
  startClients(): void {
    const clients = this.#options.remote;
    this.#start("pages", { clients, urls: this.urls, firstNodeID: 100 });
  }

  /** Opens the pages of Chromium, each with a client. */
  async #openPages(): Promise<void> {
    const { pages = 0, isStrict = false, pauseMsMax = PAUSE_MS_MAX } =
      this.#options;
    for (let i = 0; i < pages; i++) {
      const name = `chromium${i}`;
      const { urls } = this;
      const member = await this.#chromium!.open(this.recorder, {
        name,
        seed: this.#seeds(),
        nodeID: 1_000 + i,
        urls: [...urls.slice(i % COUNT), ...urls.slice(0, i % COUNT)],
        isStrict,
        pauseMsMax,
      });
      this.#members.set(name, member);
    }
  }

  /** Runs the faults of the plan, each at its time. */
  async runPlan(plan: readonly Fault[]): Promise<void> {
    const from = performance.now();
    const running = plan.map(async (fault) => {
      await pause(fault.at - (performance.now() - from));
      await this.#fault(fault);
    });
    await Promise.all(running);
    await pause(this.#options.ms - (performance.now() - from));
  }

  async #fault(fault: Fault): Promise<void> {
    const { kind, ms } = fault;
    const targets = targetsOf(kind);
    // Another fault has it.
    if (targets.some((one) => this.#busy.has(one))) return;
    for (const one of targets) this.#busy.add(one);
    this.#options.say?.(describeFault(fault));
    this.faults[kind.type] = (this.faults[kind.type] ?? 0) + 1;
    try {
      const mend = await this.#break(kind);
      await pause(ms);
      await mend();
    } catch (error) {
      this.recorder.violations.push(`${kind.type}: ${Deno.inspect(error)}`);
    } finally {
      for (const one of targets) this.#busy.delete(one);
    }
  }

  /** Faults that were done, by type. */
  readonly faults: Record<string, number> = {};

  /** Does a fault; returns a function that mends it. */
  async #break(kind: FaultKind): Promise<() => Promise<void> | void> {
    const { nodes } = this;
    switch (kind.type) {
      case "kill etcd":
        await nodes.kill(kind.node);
        return () => nodes.run(kind.node);
      case "freeze etcd":
        nodes.signal(kind.node, "SIGSTOP");
        return () => nodes.signal(kind.node, "SIGCONT");
      case "kill server":
        await this.member(`server${kind.server}`).kill();
        return () => this.startServer(kind.server);
      case "lose disk":
        await this.member(`server${kind.server}`).kill();
        await Deno.remove(this.#folderOf(kind.server), { recursive: true });
        return () => this.startServer(kind.server);
      case "freeze server": {
        const member = this.member(`server${kind.server}`);
        member.signal("SIGSTOP");
        return () => member.signal("SIGCONT");
      }
      case "jump clock": {
        const member = this.member(`server${kind.server}`);
        await member.request({ what: "jump", ms: kind.by });
        return () => member.request({ what: "jump", ms: -kind.by });
      }
      case "cut server from etcd": {
        const links = this.#toEtcd[kind.server]!.filter((_, i) =>
          kind.node === "all" || i === kind.node
        );
        for (const link of links) link.set(kind.state);
        return () => {
          for (const link of links) link.set("open", kind.drops);
        };
      }
      case "cut clients from server": {
        const link = this.#toServer[kind.server]!;
        link.set(kind.state);
        return () => link.set("open", kind.drops);
      }
      case "cut etcd node":
      case "part etcd nodes": {
        const links = kind.type === "cut etcd node"
          ? [nodes.links[kind.node]!]
          : nodes.links;
        for (const link of links) link.set(kind.state);
        return () => {
          for (const link of links) link.set("open", kind.drops);
        };
      }
      case "lose quorum": {
        const others = [0, 1, 2].filter((i) => i !== kind.spared);
        for (const i of others) nodes.signal(i, "SIGSTOP");
        return () => {
          for (const i of others) nodes.signal(i, "SIGCONT");
        };
      }
    }
  }

  /** Ends the load, and compares the replicas; resolves to the state. */
  async end(): Promise<State> {
    for (const { started } of this.members) {
      await within(started, "start");
    }
    await Promise.all(
      this.members.map((member) => member.request({ what: "stop load" })),
    );
    const reports = await this.#reports();
    const [right] = reports as [Report];
    for (const { index, hash, applied, doubled } of reports) {
      if (hash !== right.hash || applied !== right.applied) {
        this.recorder.violations.push(
          `A replica ends at ${index} with ${applied} commands and hash ${hash}, another at ${right.index} with ${right.applied} and ${right.hash}`,
        );
      }
      for (const id of doubled) {
        this.recorder.violations.push(`${id} was applied twice`);
      }
    }
    return await this.member("server0").request<State>({ what: "state" });
  }

  /** Reports of all replicas at one index. */
  async #reports(): Promise<Report[]> {
    let index = 0;
    for (let tries = 0;; tries++) {
      const reports: Report[] = [];
      for (const member of this.members) {
        reports.push(
          ...await member.request<Report[]>({ what: "report", index }),
        );
        index = Math.max(index, ...reports.map((one) => one.index));
      }
      if (reports.every((one) => one.index === index) || tries > 20) {
        return reports;
      }
      // A record that was under way has arrived since.
      await pause(100);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.members) member.signal("SIGCONT");
    await Promise.all(this.members.map((member) => member.kill()));
    await this.#chromium?.[Symbol.asyncDispose]();
    for (const link of [...this.#toEtcd.flat(), ...this.#toServer]) {
      await link[Symbol.asyncDispose]();
    }
    await this.nodes[Symbol.asyncDispose]();
    this.recorder[Symbol.dispose]();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** Processes and links that a fault needs for itself. */
function targetsOf(kind: FaultKind): string[] {
  switch (kind.type) {
    case "kill etcd":
    case "freeze etcd":
      return [`etcd${kind.node}`];
    case "lose quorum":
      return ["etcd0", "etcd1", "etcd2"];
    case "kill server":
    case "freeze server":
    case "lose disk":
    case "jump clock":
      return [`server${kind.server}`];
    case "cut server from etcd":
      return [`etcd link${kind.server}`];
    case "cut clients from server":
      return [`client link${kind.server}`];
    case "cut etcd node":
      return [`peer link${kind.node}`];
    case "part etcd nodes":
      return ["peer link0", "peer link1", "peer link2"];
  }
}

/** Runs a history and checks it; its file is removed unless something is wrong. */
export async function runHistory(
  options: HistoryOptions,
): Promise<HistoryResult> {
  const file = await Deno.makeTempFile({
    prefix: "history-",
    suffix: ".jsonl",
  });
  const script = options.script ??
    ((world: World) => world.runPlan(planOf(options)));
  let state: State | undefined;
  const world = await World.start(options, file);
  const { recorder, faults } = world;
  try {
    await script(world);
    state = await world.end();
  } catch (error) {
    recorder.violations.push(Deno.inspect(error));
  } finally {
    await world[Symbol.asyncDispose]();
  }
  const violations = [
    ...recorder.violations,
    ...violationsIn(await readHistory(file), state),
  ];
  if (violations.length === 0) await Deno.remove(file);
  const { operations, acknowledged, unknown, clients, events } = recorder;
  return {
    violations: violations.map((text) => `${text}\n  in ${file}`),
    operations,
    acknowledged,
    unknown,
    clients: clients.size,
    faults,
    events,
    file,
  };
}
