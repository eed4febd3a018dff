/**
 * Nodes of etcd on loopback, started for a test and ended by their process ids.
 *
 * @module
 */

import {
  freeNodePorts,
  nodeArguments,
  type NodePorts,
} from "../../web/etcd_nodes.ts";
import { program } from "../browser/install.ts";
import { Link } from "./histories/link.ts";

/** Reason why tests with etcd cannot run here; undefined if they can. */
export function withoutEtcd(): string | undefined {
  try {
    program("etcd");
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Defines a test that needs the program of etcd, skipped where it is missing. */
export function testIfEtcd(
  name: string,
  fn: (t: Deno.TestContext) => Promise<void>,
  leavesTimers = false,
): void {
  const reason = withoutEtcd();
  Deno.test({
    name: reason === undefined ? name : `${name}: skipped, ${reason}`,
    ignore: reason !== undefined,
    sanitizeOps: !leavesTimers,
    sanitizeResources: !leavesTimers,
    fn,
  });
}

/** Options of {@linkcode test}. */
export interface EtcdTestOptions {
  /** Number of nodes that are started for the test. @default {1} */
  readonly count?: number;
  /** Further arguments of the nodes. */
  readonly args?: readonly string[];
  /** True for nodes that reach each other through links. @default {false} */
  readonly hasLinks?: boolean;
  /** True for a test in which connections never open: the gRPC client leaves a timer for a moment after one. @default {false} */
  readonly leavesTimers?: boolean;
}

/** Defines a test on etcd nodes of its own. */
export function test(
  name: string,
  body: (nodes: EtcdNodes, t: Deno.TestContext) => Promise<void>,
  { leavesTimers, ...options }: EtcdTestOptions = {},
): void {
  testIfEtcd(name, async (t) => {
    await using nodes = await EtcdNodes.start(options);
    await body(nodes, t);
  }, leavesTimers);
}

/** Paths of the certificates of nodes, and of a client that they accept. */
export interface NodeCertificates {
  /** Certificate and key of the nodes. */
  readonly cert: string;
  readonly key: string;
  /** Certificate and key of the client. */
  readonly clientCert: string;
  readonly clientKey: string;
}

/** Options of {@linkcode EtcdNodes}. */
export interface NodeOptions {
  /** Number of nodes. */
  readonly count?: number;
  /** Certificates, for TLS with client certificates. */
  readonly certificates?: NodeCertificates;
  /** Further arguments of each node. */
  readonly args?: readonly string[];
  /** Prepares the folder with the data of all nodes, before they run. */
  readonly prepare?: (folder: string) => Promise<void>;
  /** True for nodes that reach each other through links, which can be cut. */
  readonly hasLinks?: boolean;
}

/** An etcd cluster on loopback. */
export class EtcdNodes implements AsyncDisposable {
  /** URLs for clients, one for each node. */
  readonly endpoints: readonly string[];
  /** Folder with the data of all nodes. */
  readonly directory = Deno.makeTempDirSync({ prefix: "etcd-" });
  readonly #options: NodeOptions;
  readonly #ports: readonly NodePorts[];
  /** Links through which the other nodes reach each node, if there are any. */
  readonly links: readonly Link[];
  /** URL of a client's port without the port. */
  readonly #base: string;
  readonly #running = new Map<number, Deno.ChildProcess>();

  private constructor(options: NodeOptions) {
    const { count = 1, certificates } = options;
    this.#options = options;
    const ports = freeNodePorts(count);
    this.links = options.hasLinks
      ? ports.map(({ peer }) => new Link(peer))
      : [];
    this.#ports = ports.map((one, i) => ({
      ...one,
      ...(options.hasLinks ? { advertised: this.links[i]!.port } : {}),
    }));
    this.#base = certificates === undefined
      ? "http://127.0.0.1"
      : "https://localhost";
    this.endpoints = this.#ports.map(({ client }) => `${this.#base}:${client}`);
  }

  /** Starts the nodes and waits until they have a leader. */
  static async start(options: NodeOptions = {}): Promise<EtcdNodes> {
    const nodes = new EtcdNodes(options);
    try {
      await options.prepare?.(nodes.directory);
      for (let i = 0; i < nodes.endpoints.length; i++) nodes.run(i);
      await nodes.ready();
    } catch (error) {
      await nodes[Symbol.asyncDispose]();
      throw error;
    }
    return nodes;
  }

  /** Starts a node, on the data that it has. */
  run(i: number): void {
    const { certificates, args = [] } = this.#options;
    const tls = certificates === undefined ? [] : [
      `--cert-file=${certificates.cert}`,
      `--key-file=${certificates.key}`,
      `--trusted-ca-file=${certificates.clientCert}`,
      "--client-cert-auth",
    ];
    const child = new Deno.Command(program("etcd"), {
      args: [
        ...nodeArguments(this.#ports, i, this.directory, this.#base),
        ...tls,
        ...args,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#running.set(i, child);
  }

  /** Waits until a node has a leader and answers. */
  async ready(): Promise<void> {
    const end = Date.now() + 20_000;
    for (;;) {
      const { success } = await this.ctl("endpoint", "health");
      if (success) return;
      if (Date.now() > end) throw new Error("etcd has not started in 20 s");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Runs etcdctl on all nodes. */
  async ctl(
    ...args: readonly string[]
  ): Promise<{ success: boolean; output: string }> {
    const { certificates } = this.#options;
    const tls = certificates === undefined ? [] : [
      `--cacert=${certificates.cert}`,
      `--cert=${certificates.clientCert}`,
      `--key=${certificates.clientKey}`,
    ];
    const { success, stdout, stderr } = await new Deno.Command(
      program("etcdctl"),
      {
        args: [`--endpoints=${this.endpoints.join(",")}`, ...tls, ...args],
        env: { ETCDCTL_API: "3" },
      },
    ).output();
    const output = new TextDecoder().decode(stdout) +
      new TextDecoder().decode(stderr);
    return { success, output };
  }

  /** Process ids of the nodes that run. */
  get pids(): number[] {
    return [...this.#running.values()].map(({ pid }) => pid);
  }

  /** Sends a signal to a node. */
  signal(i: number, signal: Deno.Signal): void {
    this.#running.get(i)?.kill(signal);
  }

  /** Kills a node and waits for its end. */
  async kill(i: number): Promise<void> {
    const child = this.#running.get(i);
    if (child === undefined) return;
    this.#running.delete(i);
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await child.status;
  }

  /** Replaces the data of the only node by a backup, as an operator does after a loss. */
  async restore(backup: string): Promise<void> {
    await this.kill(0);
    const directory = `${this.directory}/n0`;
    await Deno.remove(directory, { recursive: true });
    const peer = `http://127.0.0.1:${this.#ports[0]!.peer}`;
    const { success, output } = await this.ctl(
      "snapshot",
      "restore",
      backup,
      "--name=n0",
      `--data-dir=${directory}`,
      `--initial-cluster=n0=${peer}`,
      `--initial-cluster-token=${this.directory}`,
      `--initial-advertise-peer-urls=${peer}`,
    );
    if (!success) throw new Error(output);
    this.run(0);
    await this.ready();
  }

  /** Number of the node that leads. */
  async leader(): Promise<number> {
    const { output } = await this.ctl("endpoint", "status", "-w", "json");
    const line = output.split("\n").find((one) => one.startsWith("["));
    const all = JSON.parse(line ?? "[]") as {
      Endpoint: string;
      Status: { header: { member_id: number }; leader: number };
    }[];
    const found = all.find(({ Status }) =>
      Status.header.member_id === Status.leader
    );
    if (found === undefined) throw new Error(`etcd has no leader: ${output}`);
    return this.endpoints.indexOf(found.Endpoint);
  }

  /** Kills all nodes and removes their data. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running.keys()].map((i) => this.kill(i)));
    for (const link of this.links) await link[Symbol.asyncDispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}
