/** Tests of logs whose store cannot be written or read: events, retries and recovery. */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import {
  ErrStoreFull,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  NodeHost,
} from "../../mod.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import type { Block, Changes, Durability } from "../../src/store/store.ts";
import { ManualEnv, settle } from "../support/environment.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Store that is full or unreadable while a test says so. */
class FailingStore extends MemoryBlockStore {
  isFull = false;
  /** Blocks that may be read before reading fails; undefined for all. */
  readable: number | undefined;

  override write(changes: Changes, durability: Durability): void {
    if (this.isFull && changes.put !== undefined) {
      throw new ErrStoreFull("ENOSPC: no space left");
    }
    super.write(changes, durability);
  }

  override list(...args: Parameters<MemoryBlockStore["list"]>): Block[] {
    const found = super.list(...args);
    if (this.readable === undefined) return found;
    if (args[0] > `log/${"0".repeat(15)}1/b/${"0".repeat(13)}2`) {
      throw new Error("ETIMEDOUT: disk does not answer");
    }
    return found.slice(0, this.readable);
  }
}

function typesOf(events: readonly HostEvent[]): string[] {
  return events.map(({ type }) => type);
}

Deno.test("case A15: a full store is reported once to the host, and its end once, found by a probe of the log [H18, U8]", async () => {
  const env = new ManualEnv();
  const events: HostEvent[] = [];
  const store = new FailingStore();
  await using logDB = new BlockLogDB(store, { env });
  await using host = new NodeHost({
    logDB,
    env,
    onEvent: (event) => events.push(event),
  });
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  await replica.propose(kv.put("boat", "sampan"));
  store.isFull = true;
  for (let i = 0; i < 50; i++) {
    await assertRejects(
      () => replica.propose(kv.put("boat", "junk")),
      ErrStoreFull,
    );
  }
  assertEquals(typesOf(events), ["log unwritable"]);
  assertInstanceOf(host.clusterStatus(1n)?.storageError, ErrStoreFull);
  for (let i = 0; i < 20; i++) {
    env.advance(10_000);
    await settle();
  }
  assertEquals(typesOf(events), ["log unwritable"]);
  store.isFull = false;
  // No proposal is needed to find out.
  env.advance(10_000);
  await settle();
  assertEquals(typesOf(events), ["log unwritable", "log writable"]);
  assertEquals(host.clusterStatus(1n)?.storageError, undefined);
  await replica.propose(kv.put("boat", "junk"));
  // Nothing is left of the try.
  assert(store.keys("log/", "log0").every((key) => /meta$|\/b\//.test(key)));
});

Deno.test("case A17: a start on an unreadable log retries with backoff, reports each cause once, and fails [H18]", async () => {
  const env = new ManualEnv();
  const store = new FailingStore();
  {
    await using logDB = new BlockLogDB(store, { env });
    await using host = new NodeHost({ logDB, env });
    const replica = await host.startCluster(
      () => new KVStateMachine(),
      CLUSTER,
    );
    for (let i = 0; i < 600; i++) await replica.propose(kv.put(`${i}`, ""));
  }
  store.readable = 256;
  const events: HostEvent[] = [];
  await using logDB = new BlockLogDB(store, { env });
  await using host = new NodeHost({
    logDB,
    env,
    onEvent: (event) => events.push(event),
  });
  let error: unknown;
  const from = env.now();
  const started = host.startCluster(() => new KVStateMachine(), CLUSTER)
    .catch((cause) => error = cause);
  for (let i = 0; i < 500 && error === undefined; i++) {
    await settle();
    env.advance(100);
  }
  assertInstanceOf(error, Error);
  assertEquals(error.message, "ETIMEDOUT: disk does not answer");
  await started;
  assertEquals(typesOf(events), ["log failed", "failed"]);
  const took = env.now() - from;
  assert(took > 1_000 && took < 60_000, `It took ${took} ms`);
  // Once the disk answers again it starts.
  store.readable = undefined;
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  assertEquals(await replica.read(kv.count()), 600);
});
