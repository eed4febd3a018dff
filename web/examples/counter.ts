/**
 * A counter in the terminal, replicated.
 *
 * ```sh
 * deno run -A web/examples/counter.ts
 * ```
 *
 * Run it in two terminals. The first one serves, the others join. Press Enter
 * to count one, or type a number to add it. Stop the first terminal and count on
 * in the others: they send what they counted once the first one runs again.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import {
  type IFork,
  type IStateMachine,
  MemoryOutbox,
  newNodeID,
  NodeHost,
  type Result,
} from "@sampan/sampan";
import { DataFolder, ErrStoreLocked } from "@sampan/sampan/sqlite";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { serve } from "@sampan/sampan/sync/server";

/** A sum. Each command is a number in decimal; the answer to any query is the sum. */
class Counter implements IStateMachine<null, bigint>, IFork<IStateMachine> {
  #count: bigint;

  constructor(count = 0n) {
    this.#count = count;
  }

  update(cmd: Uint8Array): Result {
    this.#count += BigInt(new TextDecoder().decode(cmd));
    return { value: BigInt.asUintN(64, this.#count) };
  }

  lookup(): bigint {
    return this.#count;
  }

  // With a fork, the host shows what is not committed yet, and tries commands
  // before they are in the log: one that makes `update()` throw never gets there.
  fork(): Counter {
    return new Counter(this.#count);
  }

  saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    return new Blob([`${this.#count}`]).stream().pipeTo(w);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.#count = BigInt(await new Response(r).text());
  }

  close(): void {}
}

const [folder = "data/counter", port = "8001"] = Deno.args;
const cluster = { clusterID: 1n, snapshotEntries: 1000 };

/** Serves the counter, with its log in a folder; undefined if another terminal does that already. */
async function serveCounter(): Promise<NodeHost | undefined> {
  let data: DataFolder;
  try {
    data = await DataFolder.open(folder);
  } catch (error) {
    if (error instanceof ErrStoreLocked) return undefined;
    throw error;
  }
  const { logDB, snapshots } = data;
  const host = new NodeHost({ logDB, snapshots, outbox: new MemoryOutbox() });
  await host.startCluster(() => new Counter(), { ...cluster, nodeID: 1n });
  const server = serve(host, { port: Number(port) });
  console.log(`Serving at ${server.url}`);
  return host;
}

/** Joins the counter that another terminal serves. */
async function joinCounter(): Promise<NodeHost> {
  const logDB = new RemoteLogDB(`ws://127.0.0.1:${port}`);
  let shown = "";
  logDB.watch(({ state }) => {
    if (state !== shown) console.log(`(${state})`);
    shown = state;
  });
  const host = new NodeHost({ logDB, outbox: new MemoryOutbox() });
  await host.startCluster(() => new Counter(), {
    ...cluster,
    nodeID: newNodeID(),
  });
  return host;
}

const host = await serveCounter() ?? await joinCounter();
const replica = host.replica(cluster.clusterID)!;

/** Prints the count whenever it changes, wherever it was changed. */
async function printCount(): Promise<void> {
  for await (const count of replica.watch(null)) console.log(`${count}`);
}

/** Submits a command for each line that is typed. */
async function readNumbers(): Promise<void> {
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  for await (const line of lines) {
    const text = line.trim() || "1";
    // Resolves at once, connected or not; the command is sent when it can be.
    if (/^-?\d+$/.test(text)) {
      await replica.submit(new TextEncoder().encode(text));
    } else console.log(`${text} is not a whole number`);
  }
}

await Promise.all([printCount(), readNumbers()]);
