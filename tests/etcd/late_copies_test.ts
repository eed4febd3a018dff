import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrInvalidSession,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { rejection } from "../support/environment.ts";
import { Link, type LinkState } from "./histories/link.ts";
import { type EtcdNodes, test } from "./nodes.ts";

/** Sessions that the clusters of these tests keep. */
const SESSIONS_MAX = 2;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Two hosts on one log, of which the first reaches etcd through a link. */
class Hosts implements AsyncDisposable {
  readonly link: Link;
  readonly #logs: EtcdLogDB[] = [];
  readonly #hosts: NodeHost[] = [];
  readonly #appendMs: number;
  readonly #prefix: string;
  far!: Replica;
  near!: Replica;

  private constructor(endpoint: string, appendMs: number, prefix: string) {
    this.#prefix = prefix;
    this.link = new Link(Number(new URL(endpoint).port));
    this.#appendMs = appendMs;
  }

  static async start(
    { endpoints }: EtcdNodes,
    appendMs: number,
    prefix = "sampan",
  ): Promise<Hosts> {
    const hosts = new Hosts(endpoints[0]!, appendMs, prefix);
    hosts.far = await hosts.#start(`http://127.0.0.1:${hosts.link.port}`, 1n);
    hosts.near = await hosts.#start(endpoints[0]!, 2n);
    return hosts;
  }

  async #start(endpoint: string, nodeID: bigint): Promise<Replica> {
    const logDB = new EtcdLogDB({
      endpoints: [endpoint],
      appendMs: this.#appendMs,
      prefix: this.#prefix,
    });
    const host = new NodeHost({ logDB });
    this.#logs.push(logDB);
    this.#hosts.push(host);
    return await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID,
      sessionsMax: SESSIONS_MAX,
    });
  }

  /** Opens sessions on the near host until those before are evicted. */
  async evict(): Promise<void> {
    for (let i = 0; i < SESSIONS_MAX; i++) {
      const session = await this.near.openSession();
      await this.near.propose(kv.put(`other ${i}`, "x"), { session });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.link.set("open");
    for (const host of this.#hosts) await host.stop();
    for (const logDB of this.#logs) await logDB.close();
    await this.link[Symbol.asyncDispose]();
  }
}

const STATES = ["mute", "deaf", "silent"] as const satisfies LinkState[];

/** Proposes over a link that is silent for some seconds; fails unless the command is applied once. */
async function applyOnce(
  nodes: EtcdNodes,
  appendMs: number,
  state: LinkState,
): Promise<void> {
  await using hosts = await Hosts.start(nodes, appendMs, state);
  const { far, near, link } = hosts;
  const session = await far.openSession();
  await far.propose(kv.put("n", "1"), { session });
  link.set(state);
  // Applied a second time it would change nothing, and fail.
  const late = far.propose(kv.compareAndSwap("n", "1", "2"), { session });
  await pause(2_500);
  // Another writer moves the log on.
  await near.propose(kv.put("other", "x"));
  await pause(500);
  link.set("open");
  assertEquals((await late).value, 1n, state);
  const next = kv.compareAndSwap("n", "2", "3");
  assertEquals((await far.propose(next, { session })).value, 1n, state);
  await pause(1_000);
  for (const replica of [far, near]) {
    const found = await replica.read(kv.get("n")) as Uint8Array;
    assertEquals(new TextDecoder().decode(found), "3", state);
  }
}

// With a short wait the host sends the proposal again as other records, with a long one the put is repeated as it is.
for (const appendMs of [700, 60_000]) {
  const sent = appendMs < 1_000 ? "several records" : "one record";
  test(
    `H3 H4 a session's proposal in ${sent} that waits in a silent connection while the session is evicted is never applied, and refused by name`,
    async (nodes) => {
      await using hosts = await Hosts.start(nodes, appendMs);
      const { far, near, link } = hosts;
      const session = await far.openSession();
      await far.propose(kv.put("before", "x"), { session });
      link.set("mute");
      const late = rejection(far.propose(kv.put("late", "x"), { session }));
      await pause(2_500);
      await hosts.evict();
      link.set("open");
      const error = await late;
      assertInstanceOf(error, ErrInvalidSession);
      // Copies that are on their way have arrived then.
      await pause(1_000);
      for (const replica of [far, near]) {
        assertEquals(await replica.read(kv.get("late")), undefined);
        assert(await replica.read(kv.get("before")) !== undefined);
      }
      assertEquals(await far.getHash(), await near.getHash());
    },
    { leavesTimers: true },
  );

  test(
    `H3 a session's proposal in ${sent} over a link that is silent for seconds, in one direction or both, is applied once, however late its copies arrive`,
    async (nodes) => {
      await Promise.all(
        STATES.map((state) => applyOnce(nodes, appendMs, state)),
      );
    },
    { leavesTimers: true },
  );
}
