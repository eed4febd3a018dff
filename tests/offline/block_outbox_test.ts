import {
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreLocked,
  ErrUnknownOutcome,
  type IMerge,
  MemoryBlockStore,
  MemoryLogDB,
} from "../../mod.ts";
import {
  BlockOutbox,
  type BlockStore,
  type OutboxQueue,
} from "../../src/ports/mod.ts";
import {
  OUTBOX_BLOCK_COMMANDS_MAX,
  OUTBOX_DONE_COMMANDS_MAX,
  OUTBOX_DONE_MS,
} from "../../src/limits.ts";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import { systemEnv } from "../../src/env.ts";
import type { OutboxParts } from "../../src/nodehost/outbox.ts";
import { SubmissionQueue } from "../../src/offline/submission_queue.ts";
import { SqliteOutbox } from "../../src/sqlite/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import type { Result } from "../../src/statemachine/types.ts";
import { bytes, text } from "../support/bytes.ts";
import { ManualEnv, rejection } from "../support/environment.ts";
import { start } from "../support/clusters.ts";

const DEAF = (): void => {};

function addAll(queue: OutboxQueue, ...names: string[]): Promise<number[]> {
  return Promise.all(names.map((name) => queue.add(bytes(name))));
}

/** Commands in a store. */
async function commandsOf(store: FaultyBlockStore): Promise<string[]> {
  const unsynced = await new BlockOutbox(store).unsynced(1n);
  return unsynced.map(({ cmd }) => text(cmd));
}

Deno.test("U21 commands that are added together, or during a write, share a write", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const queue = await new BlockOutbox(store).open(1n, DEAF);
  await addAll(queue, "a", "b", "c");
  assertEquals(store.writes, 1);
  const first = queue.add(bytes("d"));
  await Promise.resolve();
  await Promise.resolve();
  assertEquals(store.writes, 2);
  await Promise.all([first, addAll(queue, "e", "f", "g")]);
  assertEquals(store.writes, 3);
  await queue.close();
});

Deno.test("U21 a block is bounded, and commands stay in order across blocks", async () => {
  const store = new FaultyBlockStore();
  const queue = await new BlockOutbox(store).open(1n, DEAF);
  const names = Array.from(
    { length: 2 * OUTBOX_BLOCK_COMMANDS_MAX + 1 },
    (_, i) => `${i}`,
  );
  const numbers = await addAll(queue, ...names);
  assertEquals(numbers, names.map((_, i) => i + 1));
  assertEquals(store.writes, 3);
  await addAll(queue, "x".repeat(700_000), "y".repeat(700_000));
  assertEquals(store.writes, 5);
  await queue.close();
  assertEquals((await commandsOf(store)).slice(0, -2), names);
});

Deno.test("U8 a write that finds no room adds nothing, and the next one uses its numbers", async () => {
  const store = new FaultyBlockStore();
  const queue = await new BlockOutbox(store).open(1n, DEAF);
  const full = new ErrStoreFull("Full");
  store.fault = { at: 1, error: full };
  assertStrictEquals(await rejection(addAll(queue, "a", "b")), full);
  assertEquals(store.names(), []);
  assertEquals(await addAll(queue, "c"), [1]);
  await queue.close();
  assertEquals(await commandsOf(store), ["c"]);
});

Deno.test("U8 after a write of unknown outcome the store is read: the command is added, or it is not", async () => {
  for (const after of [true, false]) {
    const store = new FaultyBlockStore();
    const queue = await new BlockOutbox(store).open(1n, DEAF);
    await addAll(queue, "a");
    store.fault = { at: 2, after, error: new ErrUnknownOutcome("Lost") };
    const added = addAll(queue, "b");
    if (after) assertEquals(await added, [2]);
    else assertInstanceOf(await rejection(added), ErrUnknownOutcome);
    assertEquals(await addAll(queue, "c"), [after ? 3 : 2]);
    await queue.close();
    assertEquals(await commandsOf(store), after ? ["a", "b", "c"] : ["a", "c"]);
  }
});

Deno.test("U8 a write of unknown outcome stays unknown if the store cannot be read", async () => {
  const store = new FaultyBlockStore();
  const queue = await new BlockOutbox(store).open(1n, DEAF);
  await addAll(queue, "a");
  store.fault = { at: 2, after: true, error: new ErrUnknownOutcome("Lost") };
  const { get } = store;
  store.get = () =>
    Promise.reject(
      new Error("InvalidStateError: connection to the store is lost"),
    );
  assertInstanceOf(await rejection(addAll(queue, "b")), ErrUnknownOutcome);
  store.get = get;
  // The next command uses its number.
  assertEquals(await addAll(queue, "c"), [2]);
  await queue.close();
  assertEquals(await commandsOf(store), ["a", "c"]);
});

Deno.test("U26 decided commands are removed after a delay, or with an added command once there are many", async () => {
  const env = new ManualEnv();
  const store = new FaultyBlockStore();
  const queue = await new BlockOutbox(store, { env }).open(1n, DEAF);
  await addAll(queue, "a");
  await addAll(queue, "b");
  queue.note({ decided: 1 });
  await addAll(queue, "c");
  // The head was written with the first command.
  assertEquals([store.writes, store.names().length], [3, 4]);
  await env.advance(OUTBOX_DONE_MS);
  assertEquals([store.writes, store.names().length], [4, 3]);
  assertEquals(env.timers, 0);
  const names = Array.from({ length: OUTBOX_DONE_COMMANDS_MAX }, () => "x");
  const last = (await addAll(queue, ...names)).at(-1)!;
  queue.note({ decided: last });
  const { writes } = store;
  await addAll(queue, "d");
  assertEquals([store.writes - writes, store.names().length], [1, 2]);
  await queue.close();
  assertEquals(await commandsOf(store), ["d"]);
});

Deno.test("U26 a removal that failed is repeated with the next one", async () => {
  const env = new ManualEnv();
  const store = new FaultyBlockStore();
  const done: number[] = [];
  const queue = await new BlockOutbox(store, { env })
    .open(1n, (upTo) => done.push(upTo));
  await addAll(queue, "a", "b");
  queue.note({ decided: 1 });
  store.fault = { at: 2, error: new ErrStoreFull("Full") };
  await env.advance(OUTBOX_DONE_MS);
  assertEquals(done, []);
  queue.note({ decided: 2 });
  await env.advance(OUTBOX_DONE_MS);
  assertEquals(done, [2]);
  assertEquals(store.names().length, 1);
  await queue.close();
});

Deno.test("U26 released contents are freed", async () => {
  const store = new FaultyBlockStore();
  const outbox = new BlockOutbox(store);
  const first = await outbox.open(1n, DEAF);
  await addAll(first, "a", "b");
  await first.close();
  const second = await outbox.open(1n, DEAF);
  assertEquals(second.contents.commands.length, 2);
  second.releaseContents();
  assertEquals([second.contents.commands, second.contents.settled], [[], []]);
  await second.close();
  assertEquals(await commandsOf(store), ["a", "b"]);
});

Deno.test("U23 the head that an earlier version wrote, without an owner, is read", async () => {
  const store = new FaultyBlockStore();
  const outbox = new BlockOutbox(store);
  const queue = await outbox.open(1n, DEAF);
  await addAll(queue, "a");
  await queue.close();
  const [name] = store.names().filter((name) => name.endsWith("head"));
  for (const isOpened of [false, true]) {
    const writer = new ByteWriter().u32(0).u8(1).u64(1n).varint(0).varint(1)
      .u64(5n).varint(2);
    if (isOpened) writer.varint(3).u64(5n).varint(0).u64(6n).u64(7n);
    const head = writer.finish();
    new DataView(head.buffer).setUint32(0, crc32(head, 0, 4), true);
    store.write({ put: [{ key: name!, bytes: head }] }, "strict");
    const again = await outbox.open(1n, DEAF);
    const { clientID, lostSession, owner, session, commands } = again.contents;
    assertEquals([clientID, lostSession, owner], [5n, 2, undefined]);
    assertEquals(commands.map(text), ["a"]);
    assertEquals(session?.holders, isOpened ? [6n, 7n] : undefined);
    await again.close();
  }
});

Deno.test("H8 a damaged or missing block of an outbox is named, and none is used", async () => {
  const store = new FaultyBlockStore();
  const outbox = new BlockOutbox(store);
  const queue = await outbox.open(1n, DEAF);
  await addAll(queue, "a", "b");
  await queue.assign(
    { index: 3, clientID: 1n, holders: [1n], base: 0 },
    2,
  );
  queue.sendsAdded = true;
  await addAll(queue, "c");
  await addAll(queue, "d");
  queue.note({
    decided: 1,
    settle: { number: 1, state: "refused", reason: "No", cmd: bytes("a") },
  });
  await queue.close();
  const names = store.names();
  assertEquals(names.length, 5);
  const check = async (part: string): Promise<void> => {
    const error = await rejection(outbox.open(1n, DEAF) as Promise<unknown>);
    assertInstanceOf(error, ErrStoreCorrupted);
    assertEquals(error.part, part);
  };
  for (const name of names) {
    for (const bit of [0, 41, 43, 120]) {
      store.flip(name, bit);
      await check(name);
      store.flip(name, bit);
    }
    const [block] = store.get([name]) as [Uint8Array];
    // A missing settled command cannot be detected, nor a last block that was not sent.
    if (name.includes("/k/") || name === names[2]) continue;
    store.remove(name);
    // The error names the first command of it that was not decided.
    await check(name === names[0] ? name.replace(/1$/, "2") : name);
    store.write({ put: [{ key: name, bytes: block }] }, "strict");
  }
  await (await outbox.open(1n, DEAF)).close();
});

Deno.test("H8 the last block of an outbox is named if it is missing and was sent or settled, and the head if only settled commands are left", async () => {
  for (const isSettled of [false, true]) {
    const store = new FaultyBlockStore();
    const outbox = new BlockOutbox(store);
    const queue = await outbox.open(1n, DEAF);
    await queue.add(bytes("a"));
    await queue.add(bytes("b"));
    const session = { index: 3, clientID: 1n, holders: [1n], base: 0 };
    await queue.assign(session, isSettled ? 1 : 2);
    const settle = { state: "refused", reason: "No", cmd: bytes("b") } as const;
    if (isSettled) queue.note({ settle: { ...settle, number: 2 } });
    await queue.close();
    const names = store.names();
    const check = async (part: string): Promise<void> => {
      const error = await rejection(outbox.open(1n, DEAF) as Promise<unknown>);
      assertInstanceOf(error, ErrStoreCorrupted);
      assertEquals(error.part, part);
    };
    store.remove(names[1]!);
    await check(names[1]!);
    if (!isSettled) continue;
    store.remove(names[0]!);
    store.remove(names[2]!);
    await check(names[2]!);
  }
});

/** Store of an outbox with a block of each kind, in which commands may be sent through a session. */
async function storeWithAllKinds(session: number): Promise<FaultyBlockStore> {
  const store = new FaultyBlockStore();
  const queue = await new BlockOutbox(store).open(1n, DEAF);
  queue.sendsAdded = true;
  await queue.add(bytes("a:0:k2:"));
  await queue.assign(
    { index: session, clientID: 1n, holders: [1n], base: 0 },
    1,
  );
  await queue.add(bytes("a:1:k2:"));
  await queue.add(bytes("a:2:k2:"));
  const settle = (number: number, result?: Result): void =>
    queue.note({
      settle: {
        number,
        state: "refused",
        reason: "No",
        cmd: bytes(`a:${number - 1}:k2:`),
        result,
      },
    });
  settle(1);
  settle(2, { value: 7n, data: bytes("no") });
  queue.note({ decided: 1 });
  await queue.close();
  return store;
}

Deno.test("H8 a block of an outbox that is in the place of another one is named, whatever its kind", async () => {
  for (const session of [1, 2, 3]) {
    const store = await storeWithAllKinds(session);
    const outbox = new BlockOutbox(store);
    const names = store.names();
    assertEquals(names.length, 5);
    const blocks = store.get(names) as Uint8Array[];
    for (const [i, name] of names.entries()) {
      for (const [j, other] of blocks.entries()) {
        if (i === j) continue;
        store.write({ put: [{ key: name, bytes: other }] }, "strict");
        const error = await rejection(
          outbox.open(1n, DEAF) as Promise<unknown>,
        );
        assertInstanceOf(error, ErrStoreCorrupted, `${name}: ${names[j]}`);
        assertEquals(error.part, name);
      }
      store.write({ put: [{ key: name, bytes: blocks[i]! }] }, "strict");
    }
    await (await outbox.open(1n, DEAF)).close();
  }
});

Deno.test("H8 a cluster with a damaged outbox does not start, and others do", async () => {
  const store = new FaultyBlockStore();
  const outbox = new BlockOutbox(store);
  await using logDB = new MemoryLogDB();
  const first = await start({ logDB, outbox });
  await (await first.replica.submit(bytes("a"))).result;
  await first.host.stop();
  const [name] = store.names();
  store.flip(name!, 50);
  await assertRejects(() => start({ logDB, outbox }), ErrStoreCorrupted, name);
  const without = await start({ logDB });
  assertEquals(await without.replica.staleRead(null), ["a"]);
  await without.host.stop();
});

Deno.test("H11 an outbox in SQLite is used by one process at a time", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/outbox.db`;
    await using one = new SqliteOutbox(path);
    await (await one.open(1n, DEAF)).close();
    await using two = new SqliteOutbox(path);
    await assertRejects(
      async () => await two.open(1n, DEAF),
      ErrStoreLocked,
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("U41 U12 the commands of an outbox that several tabs share are not merged: the others know them as they are", async () => {
  const store = new MemoryBlockStore();
  const outbox = new BlockOutbox(store);
  outbox.share({
    guard: () => (): undefined => {},
    add(): void {},
    isHeld: true,
    isVoid: false,
  });
  const queue = await outbox.open(1n, DEAF);
  await addAll(queue, "a");
  assertEquals(await queue.merge!(1, bytes("ab"), bytes("b")), 2);
  await queue.close();
  const found = await outbox.unsynced(1n);
  assertEquals(found.map(({ cmd }) => text(cmd)), ["a", "b"]);
});

/** Submissions of a replica whose outbox is in a store. */
async function openSubmissions(
  store: BlockStore,
  merge: IMerge["merge"] = () => undefined,
): Promise<SubmissionQueue> {
  const context = { clusterID: 1n, env: systemEnv, event: () => {} };
  const machine = { group: () => undefined, merge };
  const queue = new SubmissionQueue(
    { context, machine } as unknown as OutboxParts,
  );
  queue.load(await new BlockOutbox(store).open(1n, DEAF));
  return queue;
}

Deno.test("U8 U17 a command that could not be stored is refused neither itself nor in the place of the next one if the machine throws at it later, and the outbox opens again", async () => {
  const store = new FaultyBlockStore();
  const queue = await openSubmissions(store);
  const first = await queue.add(bytes("first"));
  store.fault = { at: store.writes + 1, error: new ErrStoreFull("Full") };
  const adding = queue.add(bytes("poison"));
  const shown = queue.list(2).commands[0]!;
  await assertRejects(() => adding, ErrStoreFull);
  store.fault = undefined;
  queue.poisoned(shown, new Error("Poison"));
  assertEquals([queue.queued, queue.pending()], [1, [first]]);
  const next = await queue.add(bytes("next"));
  queue.poisoned(shown, new Error("Poison"));
  assertEquals([next.id, next.state, queue.queued], [2, "queued", 2]);
  await queue.outbox.close();
  const { contents } = await new BlockOutbox(store).open(1n, DEAF);
  assertEquals(contents.commands.map(text), ["first", "next"]);
  assertEquals(contents.settled, []);
});

Deno.test("U17 U41 a command that has become part of the one before it is refused neither itself nor in the place of the next one if the machine throws at it later", async () => {
  const store = new MemoryBlockStore();
  const queue = await openSubmissions(
    store,
    (a, b) => text(b) === "poison" ? bytes(`${text(a)} ${text(b)}`) : undefined,
  );
  const first = await queue.add(bytes("first"));
  const adding = queue.add(bytes("poison"));
  const shown = queue.list(2).commands[0]!;
  assertStrictEquals(await adding, first);
  queue.poisoned(shown, new Error("Poison"));
  assertEquals([queue.queued, queue.pending()], [1, [first]]);
  const next = await queue.add(bytes("next"));
  queue.poisoned(shown, new Error("Poison"));
  assertEquals([next.id, next.state, queue.queued], [2, "queued", 2]);
  await queue.outbox.close();
  const { contents } = await new BlockOutbox(store).open(1n, DEAF);
  assertEquals(contents.commands.map(text), ["first poison", "next"]);
  assertEquals(contents.settled, []);
});
