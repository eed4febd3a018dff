/**
 * Fills the disk of a server while a client submits, and checks that both report
 * it and go on by themselves once space is free.
 *
 * ```sh
 * deno run -A tests/sqlite/full_server.ts /mnt/small   # a directory on a small disk
 * ```
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryOutbox,
  NodeHost,
} from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve, type ServerLogRecord } from "../../src/sync/server/mod.ts";

const EDITS = 60;
const EDIT_BYTES = 100_000;
/** Longest wait for a change, in milliseconds. */
const WAIT_MS_MAX = 60_000;

/** Takes all the room a disk has. */
function fill(path: string): void {
  using file = Deno.openSync(path, { create: true, write: true });
  for (let size = 1 << 20; size >= 512; size >>= 1) {
    const bytes = new Uint8Array(size);
    try {
      for (;;) file.writeSync(bytes);
    } catch {
      // Less than that is left.
    }
  }
}

/** Waits until something is so; looked at often, since a health check has no events. */
async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = performance.now() + WAIT_MS_MAX;
  while (!await isTrue()) {
    assert(performance.now() < end, `Waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function main(root: string): Promise<void> {
  const events: HostEvent[] = [];
  const records: ServerLogRecord[] = [];
  await using folder = await DataFolder.open(`${root}/data`);
  await using host = new NodeHost({
    logDB: folder.logDB,
    snapshots: folder.snapshots,
    onEvent: (event) => events.push(event),
  });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  await using server = serve(host, {
    sigterm: false,
    log: (record) => records.push(record),
  });
  await using remote = new RemoteLogDB(server.url);
  await using device = new NodeHost({
    logDB: remote,
    outbox: new MemoryOutbox(),
  });
  const copy = await device.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  const health = async (): Promise<[number, string]> => {
    const response = await fetch(new URL("health", server.httpURL));
    return [response.status, await response.text()];
  };
  const count = (event: string): number =>
    records.filter((record) => record.event === event).length;
  const first = await copy.submit(kv.put("first", "1"));
  await first.result;
  assertEquals((await health())[0], 200);

  fill(`${root}/ballast`);
  for (let i = 0; i < EDITS; i++) {
    await copy.submit(kv.put(`${i}`, new Uint8Array(EDIT_BYTES)));
  }
  const reason = (): string | undefined =>
    remote.status.clusters[0]?.reason?.code;
  await until("the client to be told", () => reason() === "storage");
  assertMatch(remote.status.reason?.message ?? "", /its disk is full/);
  const [status, text] = await health();
  assertEquals(status, 503);
  assertMatch(text, /"cannot store"/);
  // Several tries of the server and of the client later nothing more is said.
  const told = records.length;
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  assertEquals(records.length, told);
  assertEquals(reason(), "storage");
  assertEquals(replica.error, undefined);

  Deno.removeSync(`${root}/ballast`);
  await until("the edits", () => copy.pending().length === 0);
  await until("the health", async () => (await health())[0] === 200);
  await until("the client to be live", () => reason() === undefined);
  assertEquals(await replica.read(kv.count()), EDITS + 1);
  assertEquals(count("append failed"), 0);
  // Around the last free byte a small append may go where a large one does not.
  const began = count("cannot store");
  assert(began >= 1 && began <= 3, `Said ${began} times`);
  assertEquals(count("storing again"), began);
  const ofHost = (type: string): number =>
    events.filter((event) => event.type === type).length;
  assertEquals(ofHost("log unwritable"), began);
  assertEquals(ofHost("log writable"), began);
}

if (import.meta.main) await main(Deno.args[0]!);
