import { assert, assertEquals } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  ErrOutboxCopied,
  kv,
  MemoryBlockStore,
  NodeHost,
  type Replica,
  type Submission,
} from "../../mod.ts";
import {
  OUTBOX_BLOCKS_MERGED,
  OUTBOX_MEMORY_COMMANDS,
  PENDING_LISTED_MAX,
} from "../../src/limits.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import { checked, ManualEnv } from "../support/environment.ts";
import { FaultyLogDB } from "../support/faults.ts";

/** Commands that do not fit into memory by far. */
const COUNT = 2 * OUTBOX_MEMORY_COMMANDS + 5000;

class World {
  readonly env = new ManualEnv();
  readonly logDB = new FaultyLogDB({ env: this.env });
  readonly store = new MemoryBlockStore();
  readonly hosts: NodeHost[] = [];

  async start(store = this.store, nodeID = 1n): Promise<Replica> {
    const { env, logDB } = this;
    const outbox = new BlockOutbox(store, { env });
    const host = new NodeHost({ logDB, env, outbox });
    this.hosts.push(host);
    return await env.until(host.startConcurrentCluster(
      () => new ConcurrentKVStateMachine(),
      { clusterID: 1n, nodeID },
    ));
  }

  async stop(): Promise<void> {
    for (const host of this.hosts.splice(0)) {
      await this.env.until(host.stop());
    }
  }
}

function key(i: number): string {
  return `key ${String(i % 1000).padStart(4, "0")}`;
}

async function submitAll(replica: Replica, count: number): Promise<void> {
  for (let i = 0; i < count;) {
    const group: Promise<Submission>[] = [];
    while (group.length < 512 && i < count) {
      group.push(replica.submit(kv.put(key(i), `${i++}`)));
    }
    await Promise.all(group);
  }
}

async function numbersOf(replica: Replica): Promise<number[]> {
  const numbers: number[] = [];
  for (let cursor: number | undefined = 0; cursor !== undefined;) {
    const page = await replica.pendingFrom(cursor);
    assert(page.submissions.length <= PENDING_LISTED_MAX);
    for (const { id, state } of page.submissions) {
      assertEquals(state, "queued");
      numbers.push(id);
    }
    cursor = page.next;
  }
  return numbers;
}

const ALL = Array.from({ length: COUNT + 1 }, (_, i) => i + 1);

Deno.test(
  "U25 a view that is made in several turns of the event loop catches up without another lookup",
  checked(async () => {
    const world = new World();
    world.logDB.faults.append = () => "fail";
    let replica = await world.start();
    await submitAll(replica, OUTBOX_MEMORY_COMMANDS + 2000);
    await replica.submit(kv.put("last", "one"));
    await world.stop();
    replica = await world.start();
    let now = world.env.now();
    world.env.now = (): number => now += 10;
    assertEquals(
      await world.env.until(
        Promise.resolve(replica.view.lookup(kv.get("last"))),
      ),
      undefined,
    );
    for (let i = 0; i < 10_000 && replica.view.lag > 0; i++) {
      await world.env.turn();
    }
    assertEquals(replica.view.lag, 0);
    await world.stop();
  }),
);

Deno.test(
  "U15 U21 U25 an outbox keeps more commands than fit into memory, shows all of them, also after a restart, and sends them in order",
  checked(async () => {
    const world = new World();
    let replica = await world.start();
    world.logDB.faults.append = () => "fail";
    await replica.submit(kv.put("first", "one"));
    assertEquals(await replica.view.lookup(kv.count()), 1);
    await submitAll(replica, COUNT - 1);
    const { result } = await replica.submit(kv.put("last", "one"));
    assertEquals(replica.pending().length, PENDING_LISTED_MAX);
    assertEquals(replica.pendingCount, COUNT + 1);
    assertEquals(await numbersOf(replica), ALL);
    // One fork has run all of them.
    assertEquals(replica.status, { state: "running" });
    assertEquals(replica.view.lookup(kv.count()), 1002);
    assertEquals(replica.view.lag, 0);
    result.catch(() => {});
    await world.stop();

    replica = await world.start();
    assertEquals(replica.pendingCount, COUNT + 1);
    // Another one begins with those in memory.
    assertEquals(await replica.view.lookup(kv.get("last")), undefined);
    const { viewLag } = replica.status;
    assert(viewLag! > COUNT - 2 * OUTBOX_MEMORY_COMMANDS, `${viewLag}`);
    await world.env.until(
      (async () => {
        while (replica.view.lag > 0) await world.env.turn();
      })(),
    );
    assertEquals(
      await replica.view.lookup(kv.get("last")),
      new TextEncoder().encode("one"),
    );
    assertEquals(await numbersOf(replica), ALL);
    const last = (await replica.pendingFrom(COUNT + 1)).submissions[0]!;
    assertEquals(last.id, COUNT + 1);
    const { result: lastResult } = last;
    const again = (await replica.pendingFrom(COUNT + 1)).submissions[0]!;

    world.logDB.faults.append = () => undefined;
    await world.env.until(lastResult, 500);
    assertEquals([last.state, again.state], ["applied", "applied"]);
    assertEquals([replica.pendingCount, replica.pending()], [0, []]);
    assertEquals(replica.staleRead(kv.count()), 1002);
    for (const i of [COUNT - 2, COUNT - 500, COUNT - 1001]) {
      assertEquals(
        new TextDecoder().decode(
          replica.staleRead(kv.get(key(i))) as Uint8Array,
        ),
        `${i}`,
      );
    }
    await world.stop();
  }),
);

Deno.test(
  "U21 commands that are submitted one by one share blocks once there are many, and none is lost",
  checked(async () => {
    const world = new World();
    const count = OUTBOX_BLOCKS_MERGED + 1000;
    let replica = await world.start();
    world.logDB.faults.append = () => "fail";
    for (let i = 0; i < count; i++) {
      await replica.submit(kv.put(key(i), `${i}`));
    }
    const blocks = world.store.keys("", "~").length;
    assert(blocks < OUTBOX_BLOCKS_MERGED + 50, `${blocks}`);
    await world.stop();
    replica = await world.start();
    assertEquals(replica.pendingCount, count);
    world.logDB.faults.append = () => undefined;
    const { result } = await replica.submit(kv.put("last", "one"));
    await world.env.until(result, 500);
    assertEquals(replica.pendingCount, 0);
    assertEquals(
      new TextDecoder().decode(
        replica.staleRead(kv.get(key(count - 1))) as Uint8Array,
      ),
      `${count - 1}`,
    );
    await world.stop();
  }),
);

Deno.test(
  "H14 a copy of an outbox that does not fit into memory leaves all of its commands to the other holder",
  checked(async () => {
    const world = new World();
    const first = await world.start();
    const { result } = await first.submit(kv.put("a", "a"));
    await world.env.until(result, 500);
    world.logDB.faults.append = () => "fail";
    await submitAll(first, COUNT);
    const copy = new MemoryBlockStore();
    copy.write({ put: world.store.list("", "~") }, "strict");
    await world.stop();
    world.logDB.faults.append = () => undefined;
    const original = await world.start();
    const other = await world.start(copy, 2n);
    await world.env.advance(5000);
    const replica = [original, other].find(({ status }) =>
      status.error instanceof ErrOutboxCopied
    )!;
    const before = replica.pendingCount;
    assert(before > 0);
    replica.adoptOutbox();
    await world.env.advance(1000);
    assertEquals(replica.pending().length, before);
    assert(replica.pending().every(({ state }) => state === "unknown"));
    await world.stop();
  }),
);
