import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrUpdateFailed,
  type HostEvent,
  kv,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { OnDiskKVStateMachine } from "../../src/kv/on_disk_kv_state_machine.ts";
import { ErrStoreFull } from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import {
  checked,
  ManualEnv,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { listOf, proposeAll, start, stopAll } from "../support/clusters.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Starts a replica whose machine is in a store that may be full, with the log in another one. */
async function startOn(store: FaultyBlockStore): Promise<{
  env: ManualEnv;
  events: HostEvent[];
  host: NodeHost;
  replica: Replica;
}> {
  const env = new ManualEnv();
  const events: HostEvent[] = [];
  const host = new NodeHost({ env, onEvent: (event) => events.push(event) });
  const replica = await host.startOnDiskCluster(
    () => new OnDiskKVStateMachine(store),
    CLUSTER,
  );
  await replica.propose(kv.put("a", "1"));
  return { env, events, host, replica };
}

function fill(store: FaultyBlockStore): void {
  const error = new ErrStoreFull("Store is full (test)");
  store.fault = { at: store.writes + 1, times: Infinity, error };
}

const isFull = ({ type }: HostEvent): boolean => type === "store full";

for (const asynchronous of [false, true]) {
  const kind = asynchronous ? "asynchronous" : "synchronous";

  Deno.test(
    `U8 a replica whose ${kind} disk is full continues where it was, once there is room`,
    checked(async () => {
      const store = new FaultyBlockStore({ asynchronous });
      const { env, events, host, replica } = await startOn(store);
      fill(store);
      await env.advance(1_000);
      await settle(20);
      assert(events.some(isFull));
      assertInstanceOf(
        await rejection(replica.requestSnapshot()),
        ErrStoreFull,
      );
      // The state in memory is not lost, and answers queries.
      const first = replica.propose(kv.put("a", "2"));
      const second = replica.propose(kv.put("b", "3"));
      for (let i = 0; i < 10; i++) {
        await env.advance(5_000);
        await settle(20);
      }
      assertEquals([await peek(first), await peek(second)], [
        "pending",
        "pending",
      ]);
      assertEquals(await replica.staleRead(kv.count()), 1);
      assertEquals(replica.error, undefined);
      store.fault = undefined;
      await env.until(Promise.all([first, second]));
      assertEquals(await replica.read(kv.count()), 2);
      const { index, hash } = await replica.getHash();
      // It becomes durable.
      await env.advance(5_000);
      await settle(20);
      await env.until(host.stop());
      const again = new OnDiskKVStateMachine(store.crash());
      assertEquals(await again.open(new AbortController().signal), index);
      assertEquals(again.getHash(), hash);
      await again.close();
      const told = events.filter(isFull).length;
      assert(told > 5 && told < 100, `Told ${told} times`);
    }),
  );
}

Deno.test(
  "U8 H10 a replica whose disk is full can be stopped",
  checked(async () => {
    const store = new FaultyBlockStore({ asynchronous: true });
    const { env, host, replica } = await startOn(store);
    fill(store);
    await env.advance(3_000);
    const waiting = rejection(replica.propose(kv.put("a", "2")));
    await env.advance(5_000);
    await env.until(host.stop());
    assertInstanceOf(await waiting, ErrClusterClosed);
    await settle(5);
    assertEquals(env.timers, 0);
  }),
);

Deno.test(
  "U8 H17 an on-disk replica without room to be rebuilt without a skipped entry is rebuilt once there is room",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const snapshots = new MemorySnapshotStore();
    const apply = (command: string): void => {
      if (command === "poison") throw new TypeError(`No ${command}`);
    };
    const kind = "disk";
    const broken = await start({ logDB, env, kind, faults: { apply } });
    let full = 0;
    const two = await start({
      logDB,
      env,
      snapshots,
      kind,
      config: { nodeID: 2n, fullSnapshotInterval: 1 },
      faults: {
        before: (method) => {
          if (method !== "open" || full === 0) return;
          full--;
          throw new ErrStoreFull("Store is full (test)");
        },
      },
    });
    await proposeAll(two.replica, "a");
    await two.replica.requestSnapshot();
    await proposeAll(two.replica, "poison", "b");
    await settle(20);
    const { error } = broken.host.clusterStatus(1n)!;
    assertInstanceOf(error, ErrUpdateFailed);
    full = 2;
    await broken.host.skipEntry(1n, error.index, "no poison");
    for (let i = 0; i < 5; i++) {
      await env.advance(5_000);
      await settle(20);
    }
    assertEquals([full, two.replica.error], [0, undefined]);
    assertEquals(await listOf(two.replica), ["a", "b"]);
    await env.until(stopAll([broken, two]));
  }),
);

Deno.test(
  "R9 U8 an on-disk replica without room for a snapshot, or to be reopened, recovers once there is room",
  checked(async () => {
    for (const times of [0, 1, 3]) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const kind = "hosted";
      const config = { fullSnapshotInterval: 1 };
      const one = await start({ logDB, env, kind, config });
      let cut = 0;
      const open = logDB.open.bind(logDB);
      logDB.open = async (...given) => {
        const log = await open(...given);
        const read = log.read.bind(log);
        log.read = (after, options) => {
          if (after < cut) throw new ErrCompacted(cut + 1);
          return read(after, options);
        };
        return log;
      };
      let fails: Record<string, number> = {};
      let isRecovered = false;
      const before = (method: string): void => {
        isRecovered ||= method === "recoverFromSnapshot";
        if (!isRecovered || !(fails[method]! > 0)) return;
        fails[method]!--;
        throw new ErrStoreFull("Store is full (test)");
      };
      const two = await start({
        logDB,
        env,
        kind,
        config: { ...config, nodeID: 2n },
        faults: { before },
      });
      await proposeAll(one.replica, "a");
      await two.replica.read(null);
      logDB.faults.break(2n);
      await settle();
      await proposeAll(one.replica, "b", "c");
      await one.replica.requestSnapshot();
      cut = two.replica.appliedIndex + 1;
      fails = { sync: 1, open: times };
      logDB.faults.mend(2n);
      for (let i = 0; i < 10; i++) {
        await env.advance(10_000);
        await settle(20);
      }
      assertEquals(fails, { sync: 0, open: 0 });
      assertEquals(await listOf(two.replica), ["a", "b", "c"]);
      await env.until(stopAll([one, two]));
    }
  }),
);
