import { assertEquals } from "@std/assert";
import {
  kv,
  MemoryBlockStore,
  MemoryLogDB,
  NodeHost,
  OnDiskKVStateMachine,
} from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import { checked } from "../support/environment.ts";

Deno.test(
  "H19 U35 a host that is stopped right after an edit was applied keeps nothing of it in the outbox",
  checked(async () => {
    const store = new MemoryBlockStore();
    const outbox = new BlockOutbox(store);
    const host = new NodeHost({ logDB: new MemoryLogDB(), outbox });
    const replica = await host.startOnDiskCluster(
      () => new OnDiskKVStateMachine(new MemoryBlockStore()),
      { clusterID: 1n, nodeID: 1n },
    );
    const { result } = await replica.submit(kv.put("a", "1"));
    await result;
    await host.stop();
    assertEquals(await outbox.unsynced(1n), []);
  }),
);
