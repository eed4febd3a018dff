/**
 * Server that a test kills: it stores everything in one folder, for the next one.
 *
 * @module
 */

import { kv, NodeHost, type Replica } from "../../mod.ts";
import {
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { JournalMachine } from "../machines/client_counters.ts";
import { lastOf } from "../browser/sync_site.ts";

/** Options of the server, as JSON. */
export interface ServerSettings {
  /** Data folder of the server. */
  readonly directory: string;
  /** Port to listen on, 0 for a free one. */
  readonly port: number;
  /** Origins whose pages may connect. */
  readonly origins: readonly string[];
  /** Entries between snapshots. */
  readonly snapshotEntries: number;
  /** Entries past which a client that is behind fetches a snapshot. */
  readonly farEntries: number;
}

/** State of one cluster on the server. */
export interface ServerState {
  /** Applied index of the replica. */
  readonly index: number;
  /** State hash of the machine. */
  readonly hash: string;
  /** Last number applied of each client. */
  readonly last: Readonly<Record<string, number>>;
  /** Number of rows of the on-disk machine. */
  readonly rows: number;
}

const { directory, port, origins, snapshotEntries, farEntries } = JSON
  .parse(Deno.args[0]!) as ServerSettings;
const config = {
  nodeID: 1n,
  snapshotEntries,
  compactionOverhead: snapshotEntries,
  fullSnapshotInterval: 1,
  hashEntries: 64,
};
// With the default durability.
const logDB = new SqliteLogDB(`${directory}/log.db`);
const snapshots = new FileSnapshotStore(`${directory}/snapshots`);
const host = new NodeHost({
  logDB,
  snapshots,
  onEvent(event): void {
    if (event.type === "failed" || event.type === "diverged") {
      throw event.error;
    }
  },
});
const disk = await host.startOnDiskCluster(
  () => new SqliteKVStateMachine(`${directory}/state.db`),
  { ...config, clusterID: 1n },
);
const memory = await host.startCluster(() => new JournalMachine(), {
  ...config,
  clusterID: 2n,
});

async function stateOf(replica: Replica): Promise<ServerState> {
  const rows = await replica.read(kv.count());
  const last = await lastOf(replica);
  const { index, hash } = await replica.getHash();
  return { index, hash: `${hash}`, last, rows: Number(rows) };
}

/** Number of rows written at a time. */
const AT_ONCE = 10_000;

/** Writes rows, one per command. */
async function fill(count: number, bytes: number): Promise<void> {
  const value = "x".repeat(bytes);
  for (let from = 0; from < count; from += AT_ONCE) {
    await Promise.all(
      Array.from(
        { length: Math.min(AT_ONCE, count - from) },
        (_, i) => {
          const key = `fill/${String(from + i).padStart(8, "0")}`;
          return disk.propose(kv.put(key, value));
        },
      ),
    );
  }
}

const server = serve(host, {
  port,
  origins,
  limits: { farEntries },
  async fetch(request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const number = (name: string): number => Number(searchParams.get(name));
    if (pathname === "/fill") await fill(number("count"), number("bytes"));
    return Response.json([await stateOf(disk), await stateOf(memory)]);
  },
});
Deno.stdout.writeSync(new TextEncoder().encode(`${server.url}\n`));

// The parent process has exited.
for await (const _ of Deno.stdin.readable);
Deno.exit();
