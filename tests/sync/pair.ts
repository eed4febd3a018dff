/**
 * Server and clients in one process, on a network that a test can cut.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  KVStateMachine,
  MemoryLogDB,
  NodeHost,
  type NodeHostOptions,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import type { LogDB } from "../../src/ports/mod.ts";

import {
  RemoteLogDB,
  type RemoteLogOptions,
} from "../../src/sync/client/mod.ts";
import { decodeMessage } from "../../src/sync/message_codec.ts";
import { unpackFrame } from "../../src/sync/packing.ts";
import { Core } from "../../src/sync/server/core.ts";
import type { CoreOptions } from "../../src/sync/server/options.ts";
import { ManualEnv, settle } from "../support/environment.ts";
import { random32 } from "../support/random.ts";
import { startOn, type StartOptions } from "../support/clusters.ts";
import { wire, type WireEnd } from "./client_support.ts";

const config = { clusterID: 1n, nodeID: 1n };

/** Environment whose clock waits for work that takes turns of the event loop, as snapshots do. */
class PairEnv extends ManualEnv {
  override async advance(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 200) {
      await super.advance(Math.min(left, 200));
      await settle(4);
    }
  }
}

/** Server and clients in one process, on a network that a test can cut. */
export class Pair {
  readonly env: ManualEnv;
  readonly #random: () => number;
  readonly #options: CoreOptions;
  /** State machine of the server, if it records what was applied. */
  readonly #journal: StartOptions | undefined;
  serverLog: LogDB;
  server!: NodeHost;
  #core!: Core;
  replica!: Replica;
  readonly #wires = new Set<WireEnd>();
  readonly #closing: (() => Promise<void>)[] = [];
  isDown = false;
  /** True to withhold committed entries from the clients; answers are delivered. */
  isWithheld = false;

  constructor(
    seed: number,
    options: CoreOptions = {},
    journal: StartOptions | undefined = undefined,
  ) {
    this.#journal = journal;
    this.env = new PairEnv(seed);
    this.#random = random32(seed);
    this.#options = options;
    this.serverLog = new MemoryLogDB({ env: this.env });
  }

  async start(
    snapshotEntries = 0,
    more: Partial<ReplicaConfig> = {},
  ): Promise<void> {
    const { env } = this;
    this.server = new NodeHost({ logDB: this.serverLog, env });
    this.#core = new Core(this.server, this.#options);
    this.replica = await env.until(
      this.#journal
        ? startOn(this.server, {
          ...this.#journal,
          config: { ...config, snapshotEntries, ...more },
        })
        : this.server.startCluster(() => new KVStateMachine(), {
          ...config,
          snapshotEntries,
        }),
      10,
    );
  }

  /** Stops the server and closes every connection. */
  async stop(): Promise<void> {
    this.cut();
    await this.env.until(this.#core.stop(), 100);
    await this.env.until(this.server.stop(), 100);
  }

  /** Breaks every connection, at both ends or first at one of them. */
  cut(): void {
    for (const end of this.#wires) {
      const [first, second] = this.#random() % 2 === 0
        ? [end, end.other]
        : [end.other, end];
      first.end(1006, "");
      // The other end notices later, and continues until then.
      if (this.#random() % 2 === 0) second.end(1006, "");
      else {
        const late = 1 + this.#random() % 500;
        this.env.setTimer(() => second.end(1006, ""), late);
      }
    }
    this.#wires.clear();
  }

  /** Transport that delays frames and keeps their order. */
  #wire(): [WireEnd, WireEnd] {
    let last = 0;
    return wire((deliver) => {
      const at = Math.max(last, this.env.now() + this.#random() % 20);
      last = at + 0.001;
      this.env.setTimer(deliver, at - this.env.now());
    });
  }

  client(options: RemoteLogOptions = {}): RemoteLogDB {
    const db = new RemoteLogDB("ws://server/sync", {
      env: this.env,
      hints: () => () => {},
      connect: (url) => {
        const [client, server] = this.#wire();
        if (this.isDown) this.env.setTimer(() => client.end(1006, ""), 5);
        else {
          this.#wires.add(client);
          const send = server.send.bind(server);
          server.send = (bytes) => {
            const { type } = decodeMessage(unpackFrame(bytes));
            if (type !== "entries" || !this.isWithheld) send(bytes);
          };
          this.#core.accept(server, {
            url: url.replace("ws:", "http:"),
            headers: new Headers(),
          });
        }
        return client;
      },
      ...options,
    });
    this.#closing.push(() => db.close());
    return db;
  }

  host(
    logDB: RemoteLogDB,
    options: NodeHostOptions = {},
  ): NodeHost {
    const host = new NodeHost({ ...options, logDB, env: this.env });
    this.#closing.unshift(() => host.stop());
    return host;
  }

  async closeAndCheck(): Promise<void> {
    for (const close of this.#closing) await this.env.until(close(), 10);
    await this.stop();
    await this.env.advance(1_000);
    assertEquals(this.env.timers, 0, "A timer is left");
    await this.serverLog.close();
  }
}

/** Waits until the replicas have applied all that the server has. */
export async function caughtUp(
  pair: Pair,
  replicas: readonly Replica[],
): Promise<void> {
  const isThere = (): boolean =>
    replicas.every(({ appliedIndex }) =>
      appliedIndex === pair.replica.appliedIndex
    );
  for (let i = 0; i < 2000 && !isThere(); i++) await pair.env.advance(50);
  assert(isThere(), `${replicas.map((r) => r.appliedIndex)}`);
}
