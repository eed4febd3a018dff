import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  kv,
  type KVRow,
  OnDiskKVStateMachine,
} from "../../src/kv/mod.ts";
import { systemEnv } from "../../src/env.ts";
import type { Entry } from "../../src/statemachine/mod.ts";
import { ErrStoreFull } from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import {
  applyAll,
  Commands,
  opened,
  recovered,
  saved,
} from "./on_disk_util.ts";
import { apply, never, save, source } from "./util.ts";
import { bytes, text } from "../support/bytes.ts";

const options = { memoryBudgetBytes: 120_000 };
const full = new ErrStoreFull("ENOSPC: no space left");

/** A history in batches, and the hash after each entry. */
function randomHistory(seed: number, batches: number): {
  batches: Uint8Array[][];
  hashes: bigint[];
} {
  const commands = new Commands(seed, 900, 400);
  const memory = new ConcurrentKVStateMachine();
  const hashes = [0n];
  return {
    hashes,
    batches: Array.from({ length: batches }, () => {
      const batch = commands.commands(1 + commands.next(90));
      for (const cmd of batch) {
        apply(memory, cmd);
        hashes.push(memory.getHash());
      }
      return batch;
    }),
  };
}

/** Applies a batch with rows of a host that say how far it got. */
async function step(
  machine: OnDiskKVStateMachine,
  from: number,
  batch: readonly Uint8Array[],
): Promise<number> {
  const entries = batch.map((cmd, i): Entry => ({ index: from + i + 1, cmd }));
  const index = from + batch.length;
  await machine.updateWithHost(entries, () => ({
    index,
    rows: [
      { key: "index", value: bytes(`${index}`) },
      { key: `s/${index % 7}`, value: bytes(`${index}`) },
      { key: `s/${(index + 3) % 7}`, value: undefined },
    ],
  }));
  return index;
}

/** Goes through a history, with a sync now and then, until something is thrown. */
async function applyUntilFailure(
  store: FaultyBlockStore,
  batches: readonly Uint8Array[][],
): Promise<{ synced: number; end: number; error: unknown }> {
  const machine = new OnDiskKVStateMachine(store, options);
  let synced = 0;
  let index = 0;
  try {
    await machine.open(new AbortController().signal);
    for (const [n, batch] of batches.entries()) {
      index = await step(machine, index, batch);
      if (n % 2 !== 1) continue;
      await machine.sync();
      synced = index;
    }
    await machine.sync();
    return { synced: index, end: index, error: undefined };
  } catch (error) {
    return { synced, end: index, error };
  }
}

/** Opens the store after a crash and compares its state with the history. */
async function expectPrefix(
  store: FaultyBlockStore,
  hashes: readonly bigint[],
  least: number,
): Promise<void> {
  const [machine, index] = await opened(store, options);
  assert(index >= least, `Opened at ${index}, but ${least} was synced`);
  assertEquals(machine.getHash(), hashes[index]);
  const rows = await machine.readHostRows();
  const said = rows.find(({ key }) => key === "index");
  assertEquals(
    said === undefined ? "0" : text(said.value),
    `${index}`,
    "Rows and state differ",
  );
  const copy = new ConcurrentKVStateMachine();
  for (const { key, value } of await machine.lookup(kv.range())) {
    apply(copy, kv.put(key, value));
  }
  assertEquals(copy.getHash(), hashes[index]);
  assertEquals(await machine.lookup(kv.count()), copy.lookup(kv.count()));
}

for (const asynchronous of [false, true]) {
  for (const after of [false, true]) {
    const how = `${after ? "after" : "before"} it takes effect, ${
      asynchronous ? "slow" : "fast"
    } blocks`;
    Deno.test(`H6 whichever write fails ${how}, a prefix is found with the host's rows`, async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const { batches, hashes } = randomHistory(seed, 24);
      const whole = new FaultyBlockStore({ asynchronous });
      await applyUntilFailure(whole, batches);
      assert(whole.writes > 8, `${whole.writes} writes`);
      for (let at = 1; at <= whole.writes; at++) {
        const store = new FaultyBlockStore({ asynchronous });
        store.fault = { at, after, error: new Error("Broken"), times: 1000 };
        const { synced, error } = await applyUntilFailure(store, batches);
        assert(
          error instanceof Error,
          `Seed ${seed}: write ${at} is swallowed`,
        );
        assertEquals(error.message, "Broken", `Seed ${seed}: ${error.stack}`);
        await expectPrefix(
          store.crash(at % 2 === 0 ? 0 : store.unsynced),
          hashes,
          synced,
        );
      }
    });

    Deno.test(`U8 whichever write finds no room ${how}, work continues once there is`, async () => {
      const seed = Math.floor(Math.random() * 2 ** 31);
      const { batches, hashes } = randomHistory(seed, 15);
      for (let at = 1; at <= 20; at += 1 + at % 3) {
        const store = new FaultyBlockStore({ asynchronous });
        store.fault = { at, after, error: full, times: 3 };
        const [machine] = await opened(store, options);
        let index = 0;
        let refused = 0;
        for (const batch of batches) {
          for (;;) {
            try {
              index = await step(machine, index, batch);
              break;
            } catch (error) {
              assert(error instanceof ErrStoreFull, `Seed ${seed}: ${error}`);
              refused++;
            }
          }
        }
        for (;;) {
          try {
            await machine.sync();
            break;
          } catch (error) {
            assert(error instanceof ErrStoreFull, `Seed ${seed}: ${error}`);
            refused++;
          }
        }
        assert(
          refused > 0 || store.writes < at,
          `Seed ${seed}: no error was reported`,
        );
        assertEquals(machine.getHash(), hashes[index]);
        await expectPrefix(store.crash(), hashes, index);
      }
    });
  }

  Deno.test(`D11 whichever write of a recovery fails, the old state or the new one is found, ${asynchronous ? "slow" : "fast"} blocks`, async () => {
    const source = new ConcurrentKVStateMachine();
    const commands = new Commands(5, 4000, 900);
    for (const cmd of commands.commands(5000)) apply(source, cmd);
    const payload = await save(source);
    const { batches, hashes } = randomHistory(9, 6);
    const old = hashes.length - 1;
    for (let at = 1; at < 12; at++) {
      for (const after of [false, true]) {
        const first = new FaultyBlockStore({ asynchronous });
        await applyUntilFailure(first, batches);
        let store = first.crash();
        const [machine] = await opened(store, options);
        store.fault = { at: store.writes + at, after, error: full, times: 99 };
        const rows = [{ key: "index", value: bytes("9999") }];
        const outcome = await recovered(machine, payload, 9999, rows)
          .then(() => machine.sync()).then(() => "done", (error) => error);
        if (at < 3) assertEquals(outcome, full);
        store = store.crash(at % 2 === 0 ? 0 : store.unsynced);
        const [found, index] = await opened(store, options);
        const isNew = index === 9999;
        if (!isNew) assertEquals(index, old);
        assertEquals(found.getHash(), isNew ? source.getHash() : hashes[old]);
        const held = await found.readHostRows();
        assertEquals(
          text(held.find(({ key }) => key === "index")?.value),
          `${index}`,
        );
        const pages = store.names().filter((name) => name.includes("page/"));
        if (!isNew) assert(pages.length < 20, `${pages.length} pages are left`);
        const copy = new ConcurrentKVStateMachine();
        for (const { key, value } of await found.lookup(kv.range())) {
          apply(copy, kv.put(key, value));
        }
        assertEquals(copy.getHash(), found.getHash());
        if (outcome === "done") return;
      }
    }
  });
}

Deno.test("R8 a recovery that is stopped leaves the old state usable, and no block", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, options);
  await applyAll(machine, 0, [kv.put("a", "old")]);
  await machine.sync();
  const names = store.names();
  const source = new ConcurrentKVStateMachine();
  for (const cmd of new Commands(5, 4000, 900).commands(5000)) {
    apply(source, cmd);
  }
  const payload = await save(source);
  const cut = payload.slice(0, payload.length - 9);
  await assertRejects(() => recovered(machine, cut, 7));
  assertEquals(store.names(), names);
  await applyAll(machine, 1, [kv.put("b", "more")]);
  await machine.sync();
  const [again, index] = await opened(store.crash(), options);
  assertEquals(index, 2);
  assertEquals(text(await again.lookup(kv.get("a"))), "old");
  assertEquals(text(await again.lookup(kv.get("b"))), "more");
});

Deno.test("D11 lookups see the old state until a recovery is done, and then the new one", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const [machine] = await opened(store, options);
  const commands = new Commands(3, 2000, 300);
  await applyAll(machine, 0, commands.commands(3000));
  await machine.sync();
  const before = machine.getHash();
  const source = new ConcurrentKVStateMachine();
  for (const cmd of commands.commands(3000)) apply(source, cmd);
  let done = false;
  const recovering = recovered(machine, await save(source), 5000)
    .finally(() => done = true);
  let looked = 0;
  while (!done) {
    const rows = await machine.lookup(kv.range());
    const copy = new ConcurrentKVStateMachine();
    for (const { key, value } of rows) apply(copy, kv.put(key, value));
    const hash = copy.getHash();
    assert(hash === before || hash === source.getHash(), "A mix is seen");
    if (hash === before) looked++;
  }
  await recovering;
  assert(looked > 0);
  assertEquals(machine.getHash(), source.getHash());
  assertEquals(await saved(machine), await save(source));
});

Deno.test("D11 a range read while a recovery takes effect is of the old state or the new one", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const commands = new Commands(4, 2000, 300);
  let [machine] = await opened(store, options);
  await applyAll(machine, 0, commands.commands(3000));
  await machine.close();
  const payload = await saved(machine);
  [machine] = await opened(store, options);
  const before = machine.getHash();
  // Asked for once, right after the write that takes the old log away.
  let rows: ReturnType<typeof machine.lookup> | undefined;
  const write = store.write.bind(store);
  store.write = (changes, durability): ReturnType<typeof write> => {
    const written = write(changes, durability);
    if (changes.deleteRanges?.length) rows ??= machine.lookup(kv.range());
    return written;
  };
  await recovered(machine, payload, 3000);
  const copy = new ConcurrentKVStateMachine();
  for (const { key, value } of await rows as KVRow[]) {
    apply(copy, kv.put(key, value));
  }
  assertEquals(copy.getHash(), before);
  // No block of the old state is left.
  await machine.sync();
  const names = store.names();
  await opened(store.crash(), options);
  assertEquals(store.names(), names);
});

Deno.test("D11 what waits to be written of a state that another one replaces is not written after that", async () => {
  const memory = new ConcurrentKVStateMachine();
  for (let i = 0; i < 50; i++) apply(memory, kv.put(`new${i}`, "v"));
  const payload = await save(memory);
  const turn = Promise.withResolvers<void>();
  const store = new FaultyBlockStore({ asynchronous: true });
  const write = store.write.bind(store);
  let isRecovering = false;
  store.write = (changes, durability) => {
    const written = write(changes, durability);
    // In the middle of the step that replaces it.
    if (isRecovering && changes.deleteRanges) turn.resolve();
    return written;
  };
  const env = { ...systemEnv, turn: () => turn.promise };
  const timed = { memoryBudgetBytes: 64 * 1024 * 1024, env };
  const machine = new OnDiskKVStateMachine(store, timed);
  await machine.open(never);
  const value = "x".repeat(30_000);
  for (let index = 1; index <= 25; index++) {
    const cmd = kv.put(`old${index}`, value);
    await machine.update([{ index, cmd, result: undefined }]);
  }
  // The first write has ended, and as much as it had waits for the next one.
  await store.identity();
  isRecovering = true;
  await machine.recoverFromSnapshot(source([payload]), never);
  await turn.promise;
  await store.identity();
  const again = new OnDiskKVStateMachine(store.crash(Infinity));
  await again.open(never);
  assertEquals(again.getHash(), memory.getHash());
  assertEquals(await again.lookup(kv.count()), 50);
  await again.close();
});
