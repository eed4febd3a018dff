import { assertEquals } from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import type { OutboxParts } from "../../src/nodehost/outbox.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import type {
  OutboxQueue,
  SharedOutboxStore,
} from "../../src/offline/outbox_store.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";
import type { StoreLease } from "../../src/store/lease.ts";
import {
  AttachedTabOutbox,
  type OutboxTab,
} from "../../src/tabs/tab_outbox.ts";

Deno.test("U34 M3: submissions of a tab keep their author while the tab goes from one role to another", async () => {
  const stored = new BlockOutbox(new MemoryBlockStore());
  stored.share({ add: () => {} } as unknown as StoreLease);
  const queue = await stored.open(1n, () => {});
  queue.author = "ada";
  await queue.add(new Uint8Array([65]));
  await queue.close();

  const opening = Promise.withResolvers<OutboxQueue>();
  const store = {
    open: () => opening.promise,
    joining: () => stored.joining(),
  } as unknown as SharedOutboxStore;
  const tab = {
    isLeading: false,
    refusal: undefined,
    store,
    post: () => {},
    attached: () => {},
  };
  const stopped = new AbortController().signal;
  const machine = {
    changed: () => {},
    group: () => undefined,
    until: () => Promise.resolve(),
  };
  const context = {
    clusterID: 1n,
    env: systemEnv,
    event: () => {},
    factory: {},
    log: {},
    stopped,
  };
  const outbox = new AttachedTabOutbox(
    tab as unknown as OutboxTab,
    { machine, context } as unknown as OutboxParts,
  );
  await outbox.load();
  assertEquals([outbox.author, outbox.pendingCount], ["ada", 1]);
  tab.isLeading = true;
  const leading = outbox.lead(0).catch((error: Error) => error.message);
  await systemEnv.turn();
  assertEquals(outbox.author, "ada");
  opening.reject(new Error("closed"));
  assertEquals(await leading, "closed");
  outbox.close(undefined, new Error("closed"));
  await outbox.end();
});
