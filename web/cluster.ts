/**
 * Cluster to play with: three etcd nodes and three demo servers on loopback, all
 * stopped by one Ctrl-C.
 *
 * ```sh
 * deno task cluster --port 8000 --data ./data/cluster
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { freeNodePorts, nodeArguments, type NodePorts } from "./etcd_nodes.ts";
import { freePorts } from "./free_ports.ts";

const USAGE = `Three etcd nodes and three demo servers on this machine

Usage: deno task cluster [options]

  --port N       port of the first server, the others follow; 0 for free ones
                 (default: 8000)
  --data FOLDER  folder for the data of all; created if missing
                 (default: data/cluster)
  --help         print this help
`;

const COUNT = 3;
/** Longest wait for etcd or a server to start, in milliseconds. */
const START_MS_MAX = 60_000;

/** Longest wait for a process to end by itself, in milliseconds. */
const STOP_MS_MAX = 5_000;

/** Error of the command line or of the environment: printed as one line, exit status 2. */
class UsageError extends Error {}

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** True if a program can be run. */
async function isThere(name: string): Promise<boolean> {
  try {
    return (await new Deno.Command(name, {
      args: ["--version"],
      stdout: "null",
      stderr: "null",
    }).output()).success;
  } catch {
    return false;
  }
}

/** Installs Debian's etcd if it is missing and this user may. */
async function needEtcd(): Promise<void> {
  if (await isThere("etcd")) return;
  const help = "etcd is not installed: sudo apt-get install etcd-server";
  if (Deno.uid() !== 0 || !await isThere("apt-get")) throw new UsageError(help);
  print("Installing etcd-server");
  for (
    const args of [["update"], [
      "install",
      "--yes",
      "--no-install-recommends",
      "etcd-server",
    ]]
  ) {
    const { success } = await new Deno.Command("apt-get", {
      args: ["-qq", ...args],
      env: { DEBIAN_FRONTEND: "noninteractive" },
      stdout: "null",
    }).output();
    if (!success) throw new UsageError(help);
  }
}

/** Process of the cluster. */
interface Part {
  readonly name: string;
  readonly child: Deno.ChildProcess;
  hasEnded: boolean;
}

/** Processes of the cluster, which are stopped in the reverse order. */
class Parts {
  readonly #all: Part[] = [];
  #isStopping = false;

  /** Notes a process; its end is printed unless the cluster is being stopped. */
  add(name: string, child: Deno.ChildProcess): void {
    const part: Part = { name, child, hasEnded: false };
    this.#all.push(part);
    child.status.then(({ code }) => {
      part.hasEnded = true;
      if (!this.#isStopping) print(`${name} has ended with status ${code}`);
    }, () => {});
  }

  /** Stops the processes, the last ones first, and waits for their end. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const kind of ["Server", "etcd"]) {
      const parts = this.#all.filter(({ name, hasEnded }) =>
        name.startsWith(kind) && !hasEnded
      );
      for (const { child } of parts) child.kill("SIGTERM");
      // The last etcd node waits for a leader that will not come.
      const timer = setTimeout(() => {
        for (const part of parts) {
          if (!part.hasEnded) part.child.kill("SIGKILL");
        }
      }, STOP_MS_MAX);
      await Promise.all(parts.map(({ child }) => child.status));
      clearTimeout(timer);
    }
  }
}

/** Waits until an etcd node says that it has a quorum. */
async function healthy(url: string, signal: AbortSignal): Promise<void> {
  for (let waited = 0; !signal.aborted; waited += 100) {
    try {
      const response = await fetch(`${url}/health`);
      if ((await response.text()).includes('"true"')) return;
    } catch {
      // Not listening yet.
    }
    if (waited > START_MS_MAX) {
      throw new Error(`etcd at ${url} has not started`);
    }
    await pause(100);
  }
}

/** Starts a server; resolves to the URL of its page, and its process id. */
async function startServer(
  parts: Parts,
  node: number,
  args: readonly string[],
): Promise<{ readonly url: string; readonly pid: number }> {
  const root = new URL("..", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--lock=web/etcd.lock",
      "--quiet",
      "--allow-all",
      "web/start.ts",
      `--node=${node}`,
      ...args,
    ],
    cwd: root,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  parts.add(`Server ${node}`, child);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`Server ${node} has not started`);
    said += value;
    const url = /http:\/\/\S+/.exec(said)?.[0];
    if (url === undefined) continue;
    // What it prints later is not shown, and must not fill the pipe.
    (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {});
    return { url, pid: child.pid };
  }
}

async function run(
  port: number,
  folder: string,
  signal: AbortSignal,
): Promise<void> {
  await needEtcd();
  await Deno.mkdir(folder, { recursive: true });
  const at = await Deno.realPath(folder);
  const parts = new Parts();
  try {
    const ports = await portsOf(at);
    for (const [i] of ports.entries()) {
      parts.add(
        `etcd node ${i + 1}`,
        new Deno.Command("etcd", {
          args: nodeArguments(ports, i, at),
          stdin: "null",
          stdout: "null",
          stderr: "null",
        }).spawn(),
      );
    }
    const endpoints = ports.map(({ client }) => `127.0.0.1:${client}`);
    for (const endpoint of endpoints) {
      await healthy(`http://${endpoint}`, signal);
    }
    const servers = port === 0
      ? freePorts(COUNT)
      : Array.from({ length: COUNT }, (_, i) => port + i);
    for (let i = 0; i < COUNT && !signal.aborted; i++) {
      // Each begins with another etcd node.
      const order = [...endpoints.slice(i), ...endpoints.slice(0, i)];
      const { url, pid } = await startServer(parts, i + 1, [
        `--port=${servers[i]}`,
        `--peers=${
          servers.filter((one) => one !== servers[i])
            .map((one) => `http://127.0.0.1:${one}`)
            .join(",")
        }`,
        `--log=etcd://${order.join(",")}`,
        `--data=${at}/server-${i + 1}`,
      ]);
      print(
        `Server ${i + 1} with a shared board is at ${url} (process ${pid})`,
      );
    }
    for (const [i, endpoint] of endpoints.entries()) {
      print(`etcd node ${i + 1} is at http://${endpoint}`);
    }
    print(
      "Kill any of them, and the page goes on with another; Ctrl-C stops all.",
    );
    if (!signal.aborted) {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    }
  } finally {
    await parts.stop();
  }
}

/** Ports of the etcd nodes: those that their data was made with. */
async function portsOf(
  folder: string,
): Promise<NodePorts[]> {
  const file = `${folder}/ports.json`;
  try {
    return JSON.parse(await Deno.readTextFile(file));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const ports = freeNodePorts(COUNT);
  await Deno.writeTextFile(file, JSON.stringify(ports));
  return ports;
}

async function main(args: string[]): Promise<number> {
  try {
    const { values } = parseArgs({
      args,
      options: {
        port: { type: "string", default: "8000" },
        data: { type: "string", default: "data/cluster" },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    if (values.help) {
      print(USAGE.trimEnd());
      return 0;
    }
    const port = Number(values.port);
    if (!/^\d{1,5}$/.test(values.port) || port > 65_535 - COUNT) {
      throw new UsageError(`--port is "${values.port}": give a number`);
    }
    const stopping = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      Deno.addSignalListener(signal, () => stopping.abort());
    }
    await run(port, values.data, stopping.signal);
    print("Stopped.");
    return 0;
  } catch (error) {
    const { message } = error as Error;
    Deno.stderr.writeSync(new TextEncoder().encode(`cluster: ${message}\n`));
    return error instanceof UsageError ? 2 : 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
