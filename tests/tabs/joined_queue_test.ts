import { assertEquals } from "@std/assert";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import { JoinedQueue } from "../../src/offline/joined_queue.ts";
import type { SharedOutboxQueue } from "../../src/offline/outbox_store.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";
import type { StoreLease } from "../../src/store/lease.ts";
import type { UpdateReads } from "../../src/store/store.ts";

const CLUSTER = 1n;
const SESSION = { index: 7, clientID: 5n, holders: [5n], base: 0 };

function cmd(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

/** Store with a queue of the leader, and of other tabs. */
class Device {
  /** Reads of each update so far. */
  readonly updates: UpdateReads[] = [];
  /** Called before an update by the leader. */
  beforeLeader: () => Promise<void> = () => Promise.resolve();
  readonly store = new MemoryBlockStore();
  readonly outbox: BlockOutbox;

  constructor() {
    const { store, updates } = this;
    const before = (): Promise<void> => this.beforeLeader();
    this.outbox = new BlockOutbox({
      identity: () => store.identity(),
      get: (keys) => store.get(keys),
      keys: (...range) => store.keys(...range),
      list: (...range) => store.list(...range),
      write: (...changes) => store.write(...changes),
      update: async (reads, decide, durability, isShared) => {
        updates.push(reads);
        if (!isShared) await before();
        return store.update(reads, decide, durability);
      },
      close: () => store.close(),
      [Symbol.asyncDispose]: () => store.close(),
    });
    this.outbox.share({ add: () => {} } as unknown as StoreLease);
  }

  /** Queue of the leader, once it is open. */
  lead(): Promise<SharedOutboxQueue> {
    return this.outbox.open(CLUSTER, () => {});
  }

  /** Queue of another tab, once it is open. */
  join(): Promise<JoinedQueue> {
    return JoinedQueue.open(CLUSTER, this.outbox.joining());
  }

  /** Number up to which commands may have been sent, as a tab that takes the lead now finds it. */
  async sendLimit(): Promise<number> {
    const outbox = new BlockOutbox(this.store);
    const { sendLimit } = (await outbox.open(CLUSTER, () => {})).contents;
    return sendLimit;
  }
}

Deno.test("M3: the leader adds a command in one write although other tabs have added some in the meantime, each after those that it follows", async () => {
  const device = new Device();
  const leader = await device.lead();
  const follower = await device.join();
  const heard: string[] = [];
  leader.onAdded = (first, commands) => {
    heard.push(`${first}: ${commands.length}`);
  };
  device.beforeLeader = async () => {
    await follower.add(cmd("b"));
    await follower.add(cmd("c"));
  };
  device.updates.length = 0;
  assertEquals(await leader.add(cmd("a")), 3);
  assertEquals(device.updates.length, 3);
  assertEquals(heard, ["1: 1", "2: 1"]);
  device.beforeLeader = () => Promise.resolve();
  assertEquals(await follower.add(cmd("d")), 4);
  // Word of what it knows, and of the next one.
  await leader.heard(2, [cmd("c")], 0);
  await leader.heard(4, [cmd("d")], 0);
  assertEquals(heard, ["1: 1", "2: 1", "4: 1"]);
  await leader.close();
});

Deno.test("M3: what a tab adds while the leader sends at once may be sent without another write, and a tab that takes the lead takes it as sent", async () => {
  const device = new Device();
  const leader = await device.lead();
  await leader.assign(SESSION, 0);
  const follower = await device.join();
  const told: [number, number | undefined][] = [];
  follower.onStored = (first, _commands, session) => {
    told.push([first, session]);
  };
  follower.sendsAdded = true;
  assertEquals(await follower.add(cmd("a")), 1);
  assertEquals(told, [[1, SESSION.index]]);
  assertEquals(await device.sendLimit(), 1);
  await leader.heard(1, [cmd("a")], SESSION.index);
  assertEquals(leader.sendLimit, 1);
  leader.sendsAdded = true;
  assertEquals(await leader.add(cmd("b")), 2);
  assertEquals(await follower.add(cmd("c")), 3);
  assertEquals(told.at(-1), [3, SESSION.index]);
  // The leader reads what it has not heard of.
  await leader.sync();
  assertEquals(leader.sendLimit, 3);
  assertEquals(await device.sendLimit(), 3);
  await leader.close();
});

Deno.test("M3: a command after one that may not be sent, or of another session, is not stored as one that may be sent", async () => {
  const device = new Device();
  const leader = await device.lead();
  await leader.assign(SESSION, 0);
  const follower = await device.join();
  assertEquals(await follower.add(cmd("a")), 1);
  follower.sendsAdded = true;
  assertEquals(await follower.add(cmd("b")), 2);
  assertEquals(await device.sendLimit(), 0);
  await leader.sync();
  await leader.assign(SESSION, 2);
  assertEquals(await follower.add(cmd("c")), 3);
  assertEquals(await device.sendLimit(), 3);
  // Word of it arrives after the session was replaced.
  await leader.assign({ ...SESSION, index: 9 }, 2);
  await leader.heard(3, [cmd("c")], SESSION.index);
  assertEquals(leader.sendLimit, 2);
  assertEquals(await device.sendLimit(), 2);
  await leader.close();
});

Deno.test("M3: a tab that has heard of a part of a block reads the store from its beginning, and takes no number twice", async () => {
  const device = new Device();
  const leader = await device.lead();
  const writer = await device.join();
  const tab = await device.join();
  const heard: string[] = [];
  tab.onAdded = (first, commands) => {
    heard.push(`${first}: ${commands.length}`);
  };
  // In one block, of which the tab hears as of two.
  await Promise.all([cmd("a"), cmd("b")].map((one) => writer.add(one)));
  await tab.heard(1, [cmd("a")]);
  await tab.heard(2, [cmd("b")]);
  device.updates.length = 0;
  assertEquals(await tab.add(cmd("c")), 3);
  assertEquals(device.updates.length, 2);
  assertEquals(await writer.add(cmd("d")), 4);
  await tab.sync();
  assertEquals(heard, ["1: 1", "2: 1", "4: 1"]);
  await leader.close();
});
