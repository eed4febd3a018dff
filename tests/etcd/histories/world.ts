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
import type { HistoryLine, Line, Report, Request, State } from "./record.ts";

/** Timeout of a start, and of everything that must come to an end once the faults are mended, in milliseconds. */
const WAIT_MS_MAX = 90_000;

/** Longest pause of a client between two operations, unless options say otherwise, in milliseconds. */
const PAUSE_MS_MAX = 40;

/** Most characters kept of what a process writes to its standard error. */
const ERROR_CHARACTERS = 2_000;

/** Options of a history. */
export interface HistoryOptions extends Omit<PlanOptions, "ms"> {
  /** Length under load, in milliseconds. */
  readonly ms: number;
  /** Clients of each server's host, and clients of the servers. */
  readonly direct: number;
  readonly remote: number;
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
  readonly faults: Readonly<Record<string, number>>;
  /** File of the history. */
  readonly file: string;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/** File that gets a line for each operation. */
export class Recorder implements Disposable {
  readonly path: string;
  readonly #file: Deno.FsFile;
  readonly violations: string[] = [];
  operations = 0;
  acknowledged = 0;
  unknown = 0;

  constructor(path: string) {
    this.path = path;
    this.#file = Deno.openSync(path, { create: true, write: true });
  }

  /** Writes an operation. */
  add(
    { client, key, input, at }: Line & { type: "call" },
    end: Omit<Line & { type: "return" }, "type" | "number"> | undefined,
  ): void {
    const ok = end?.ok ?? null;
    const line: HistoryLine = {
      client,
      op: input.op,
      key,
      input,
      output: end?.output ?? null,
      ok,
      call: at,
      return: ok === null ? null : end!.at,
    };
    this.operations++;
    if (ok === true) this.acknowledged++;
    if (ok === null) this.unknown++;
    this.#file.writeSync(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Process with its lines. */
class Life {
  readonly #recorder: Recorder;
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #calls = new Map<number, Line & { type: "call" }>();
  readonly #answers: PromiseWithResolvers<unknown>[] = [];
  readonly #ended: Promise<void>;
  readonly started: PromiseWithResolvers<void> = Promise.withResolvers();
  #isExpected = false;

  constructor(recorder: Recorder, settings: ProcessSettings) {
    this.#recorder = recorder;
    const program = new URL("process.ts", import.meta.url).href;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-check",
        "--allow-all",
        program,
        JSON.stringify(settings),
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.started.promise.catch(() => {});
    const errors = new Response(this.#child.stderr).text();
    this.#ended = this.#untilEnd(settings.name, errors);
  }

  async #untilEnd(name: string, errors: Promise<string>): Promise<void> {
    await this.#take();
    const { code, signal } = await this.#child.status;
    await this.#writer.close().catch(() => {});
    const text = (await errors).slice(-ERROR_CHARACTERS);
    this.#end(`${name} has ended: ${signal ?? code} ${text}`);
  }

  async #take(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true }))
        .split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#line(JSON.parse(line) as Line);
    }
  }

  #line(line: Line): void {
    switch (line.type) {
      case "started":
        return this.started.resolve();
      case "call":
        this.#calls.set(line.number, line);
        return;
      case "return": {
        const call = this.#calls.get(line.number)!;
        this.#calls.delete(line.number);
        return this.#recorder.add(call, line);
      }
      case "violation":
        this.#recorder.violations.push(line.text);
        return;
      case "answer":
        this.#answers.shift()?.resolve(line.value);
    }
  }

  #end(how: string): void {
    // What was under way has an unknown outcome.
    for (const call of this.#calls.values()) {
      this.#recorder.add(call, undefined);
    }
    this.#calls.clear();
    const error = new Error(how);
    this.started.reject(error);
    for (const answer of this.#answers.splice(0)) answer.reject(error);
    if (!this.#isExpected) this.#recorder.violations.push(how);
  }

  /** Sends a request, one at a time; resolves to the answer. */
  async request<T>(request: Request): Promise<T> {
    const answer = Promise.withResolvers<unknown>();
    this.#answers.push(answer);
    await this.#writer.write(
      new TextEncoder().encode(`${JSON.stringify(request)}\n`),
    );
    return await within(answer.promise, request.what) as T;
  }

  signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
  }

  async kill(): Promise<void> {
    this.#isExpected = true;
    this.signal("SIGKILL");
    await this.#ended;
  }
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(new Error(`"${what}" has not ended in ${WAIT_MS_MAX} ms`)),
    WAIT_MS_MAX,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Running world. */
export class World implements AsyncDisposable {
  readonly recorder: Recorder;
  readonly nodes: EtcdNodes;
  /** Links of each server to each etcd node, and of all clients to each server. */
  readonly #toEtcd: Link[][];
  readonly #toServer: Link[];
  readonly #ports: readonly number[];
  readonly #options: HistoryOptions;
  readonly #lives = new Map<string, Life>();
  #counts = 0;
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
    this.#ports = all.map(freePort);
    this.#toServer = this.#ports.map((port) => new Link(port));
  }

  /** Starts all processes. */
  static async start(options: HistoryOptions, path: string): Promise<World> {
    const nodes = await EtcdNodes.start({ count: COUNT, hasLinks: true });
    const world = new World(options, nodes, new Recorder(path));
    try {
      for (let i = 0; i < COUNT; i++) world.startServer(i);
      await Promise.all(world.lives.map(({ started }) => started.promise));
      world.startClients();
      await world.life("pages").started.promise;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
    return world;
  }

  /** Processes that run. */
  get lives(): Life[] {
    return [...this.#lives.values()];
  }

  /** Process with a name. */
  life(name: string): Life {
    return this.#lives.get(name)!;
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
    this.#lives.set(
      name,
      new Life(this.recorder, {
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
      server: { nodeID: i + 1, port: this.#ports[i]!, endpoints },
    });
  }

  /** Stops a server as an operator does, and starts it again. */
  async restartServer(i: number): Promise<void> {
    const life = this.life(`server${i}`);
    await life.request({ what: "shut down" });
    await life.kill();
    this.startServer(i);
    await within(this.life(`server${i}`).started.promise, "start");
  }

  /** Starts the clients of the servers. */
  startClients(): void {
    const clients = this.#options.remote;
    this.#start("pages", { clients, urls: this.urls, firstNodeID: 100 });
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
        await this.life(`server${kind.server}`).kill();
        return () => this.startServer(kind.server);
      case "freeze server": {
        const life = this.life(`server${kind.server}`);
        life.signal("SIGSTOP");
        return () => life.signal("SIGCONT");
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
    for (const { started } of this.lives) {
      await within(started.promise, "start");
    }
    await Promise.all(
      this.lives.map((life) => life.request({ what: "stop load" })),
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
    return await this.life("server0").request<State>({ what: "state" });
  }

  /** Reports of all replicas at one index. */
  async #reports(): Promise<Report[]> {
    let index = 0;
    for (let tries = 0;; tries++) {
      const reports: Report[] = [];
      for (const life of this.lives) {
        reports.push(
          ...await life.request<Report[]>({ what: "report", index }),
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
    for (const life of this.lives) life.signal("SIGCONT");
    await Promise.all(this.lives.map((life) => life.kill()));
    for (const link of [...this.#toEtcd.flat(), ...this.#toServer]) {
      await link[Symbol.asyncDispose]();
    }
    await this.nodes[Symbol.asyncDispose]();
    this.recorder[Symbol.dispose]();
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
  const { operations, acknowledged, unknown } = recorder;
  return {
    violations: violations.map((text) => `${text}\n  in ${file}`),
    operations,
    acknowledged,
    unknown,
    faults,
    file,
  };
}
