import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  ErrKVInvalidSnapshot,
  kv,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import { ErrSnapshotStopped } from "../../src/statemachine/mod.ts";
import {
  apply,
  machines,
  never,
  noFiles,
  putAll,
  recover,
  save,
  sink,
  source,
} from "./util.ts";
import { bytes, concat, text } from "../support/bytes.ts";

const rows: [string, string][] = [
  ["", "of the empty key"],
  ["a", ""],
  ["ab", "2"],
  ["b".repeat(127), "v".repeat(127)],
  ["b".repeat(128), "v".repeat(128)],
  ["c", "v".repeat(20_000)],
];

/** A machine with this many keys. */
function filled(keys: number): ConcurrentKVStateMachine {
  const machine = new ConcurrentKVStateMachine();
  for (let i = 0; i < keys; i++) apply(machine, kv.put(`key ${i}`, `${i}`));
  return machine;
}

Deno.test("R6 saveSnapshot() writes for ever the same format", async () => {
  const machine = new KVStateMachine();
  putAll(machine, [["b", "2"], ["a", ""]]);
  const hash = new Uint8Array(8);
  new DataView(hash.buffer).setBigUint64(0, machine.getHash(), true);
  assertEquals(
    await save(machine),
    new Uint8Array([
      ...bytes("SKV\x01"),
      ...[2, 0, 0x61],
      ...[2, 1, 0x62, 0x32],
      ...[0, 2],
      ...hash,
    ]),
  );
});

for (const [name, create] of machines) {
  Deno.test(`R9 ${name} recovers from what any machine saved`, async () => {
    for (const [, createOther] of machines) {
      const other = createOther();
      putAll(other, rows);
      const payload = await save(other);
      const machine = create();
      putAll(machine, [["of the state before", "x"]]);
      await recover([payload], machine);
      assertEquals(
        machine.lookup(kv.range()).map((r) => [text(r.key), text(r.value)]),
        rows,
      );
      assertEquals(machine.getHash(), other.getHash());
      assertEquals(await save(machine), payload);
    }
  });

  Deno.test(`R9 ${name} recovers the empty state`, async () => {
    const machine = create();
    const empty = await save(machine);
    putAll(machine, rows);
    await recover([empty], machine);
    assertEquals(machine.lookup(kv.count()), 0);
    assertEquals(machine.getHash(), 0n);
    assertEquals(apply(machine, kv.put("a", "1")).value, 1n);
    assertEquals(text(machine.lookup(kv.get("a"))), "1");
  });

  Deno.test(`R8 ${name} gives up when stopped, with the signal's reason`, async () => {
    const machine = create();
    putAll(machine, rows);
    const payload = await save(machine);
    const reason = new ErrSnapshotStopped();
    const stopped = AbortSignal.abort(reason);
    const error = await assertRejects(() => save(machine, stopped));
    assert(error === reason);
    const hash = machine.getHash();
    const again = await assertRejects(async () => {
      await machine.recoverFromSnapshot(source([payload]), [], stopped);
    });
    assert(again === reason);
    assertEquals(machine.getHash(), hash);
  });

  Deno.test(`R9 ${name} keeps its state when recovery fails`, async () => {
    const machine = create();
    putAll(machine, [["a", "1"]]);
    const payload = await save(filled(3));
    payload[payload.length - 1]! ^= 1;
    await assertRejects(
      () => recover([payload], machine),
      ErrKVInvalidSnapshot,
    );
    const lost = new Error("ECONNRESET: source is lost");
    const broken = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(lost),
    });
    const error = await assertRejects(async () => {
      await machine.recoverFromSnapshot(broken, [], never);
    });
    assert(error === lost);
    assertEquals(text(machine.lookup(kv.get("a"))), "1");
    assertEquals(machine.lookup(kv.count()), 1);
  });

  Deno.test(`R8 ${name}.saveSnapshot() passes on what a write fails with`, async () => {
    const machine = create();
    putAll(machine, rows);
    const full = new Error("ENOSPC: sink is full");
    const w = new WritableStream<Uint8Array>({
      write: () => Promise.reject(full),
    });
    const error = await assertRejects(async () => {
      if (machine instanceof KVStateMachine) {
        await machine.saveSnapshot(w, noFiles, never);
      } else {
        const context = machine.prepareSnapshot();
        await machine.saveSnapshot(context, w, noFiles, never);
      }
    });
    assert(error === full);
    assert(!w.locked);
  });
}

Deno.test("R9 recoverFromSnapshot() takes chunks cut anywhere", async () => {
  const machine = new KVStateMachine();
  putAll(machine, rows.slice(0, 5));
  const payload = await save(machine);
  const hash = machine.getHash();
  for (let cut = 0; cut <= payload.length; cut++) {
    const chunks = [payload.slice(0, cut), payload.slice(cut)];
    const twin = await recover(chunks);
    assertEquals(twin.getHash(), hash, `cut at ${cut}`);
    assertEquals(twin.lookup(kv.count()), 5);
  }
  for (const size of [1, 2, 3, 7, 64]) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < payload.length; at += size) {
      chunks.push(payload.slice(at, at + size), new Uint8Array());
    }
    assertEquals(await save(await recover(chunks)), payload, `by ${size}`);
  }
});

Deno.test("R9 recoverFromSnapshot() takes many leaves in chunks of any size", async () => {
  const machine = filled(10_000);
  putAll(machine, [["large", "x".repeat(900_000)], [
    "larger",
    "y".repeat(1e6),
  ]]);
  const payload = await save(machine);
  for (const size of [777, 65_536, payload.length]) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < payload.length; at += size) {
      chunks.push(payload.slice(at, at + size));
    }
    const twin = await recover(chunks);
    assertEquals(await save(twin), payload);
    for (let i = 0; i < 10_000; i += 37) {
      assertEquals(text(twin.lookup(kv.get(`key ${i}`))), `${i}`);
      assertEquals(
        apply(twin, kv.put(`key ${i}`, "longer than it was")).value,
        1n,
      );
    }
  }
});

Deno.test("H8 recoverFromSnapshot() refuses a payload with any byte changed", async () => {
  const machine = new KVStateMachine();
  putAll(machine, rows.slice(0, 5));
  const payload = await save(machine);
  for (let at = 0; at < payload.length; at++) {
    for (const change of [1, 0x80, 0xff]) {
      const damaged = payload.slice();
      damaged[at]! ^= change;
      await assertRejects(
        () => recover([damaged]),
        ErrKVInvalidSnapshot,
        undefined,
        `${change} at ${at}`,
      );
    }
  }
});

Deno.test("H8 recoverFromSnapshot() refuses a payload cut short or made longer", async () => {
  const machine = new KVStateMachine();
  putAll(machine, rows.slice(0, 4));
  const payload = await save(machine);
  for (let n = 0; n < payload.length; n++) {
    await assertRejects(
      () => recover([payload.slice(0, n)]),
      ErrKVInvalidSnapshot,
      undefined,
      `${n} bytes`,
    );
  }
  for (const extra of [1, 100, 100_000]) {
    await assertRejects(
      () => recover([payload, new Uint8Array(extra)]),
      ErrKVInvalidSnapshot,
      undefined,
      `${extra} bytes more`,
    );
  }
});

Deno.test("H8 recoverFromSnapshot() refuses rows out of order and lengths in long form", async () => {
  const machine = new KVStateMachine();
  putAll(machine, [["a", "1"], ["b", "2"]]);
  const end = (await save(machine)).slice(12);
  const start = bytes("SKV\x01");
  const a = [2, 1, 0x61, 0x31];
  const b = [2, 1, 0x62, 0x32];
  const good = new Uint8Array([...start, ...a, ...b, ...end]);
  assertEquals((await recover([good])).getHash(), machine.getHash());
  for (
    const bad of [
      [...b, ...a],
      [...a, ...a, ...b],
      [0x82, 0, 1, 0x61, 0x31, ...b],
      [2, 0x81, 0x80, 0, 0x61, 0x31, ...b],
      [0xff, 0xff, 0xff, 0xff, 0xff],
      [0x80, 0x80, 0x10, 1, 0x61],
    ]
  ) {
    await assertRejects(
      () => recover([new Uint8Array([...start, ...bad, ...end])]),
      ErrKVInvalidSnapshot,
      undefined,
      `${bad}`,
    );
  }
});

Deno.test("C4 ConcurrentKVStateMachine.saveSnapshot() saves the state as of prepareSnapshot()", async () => {
  const machine = filled(3000);
  const before = await save(machine);
  const context = machine.prepareSnapshot();
  apply(machine, kv.put("new", "row"));
  const chunks: Uint8Array[] = [];
  let step = 0;
  const w = new WritableStream<Uint8Array>({
    write(chunk): void {
      chunks.push(chunk);
      // Between any two chunks the machine goes on in every way.
      for (let i = 0; i < 3000; i += 3) {
        apply(machine, kv.put(`key ${i}`, `${step}`));
        apply(machine, kv.put(`key ${i}+${step}`, "inserted"));
        apply(machine, kv.put(`key ${i + 1}`, "longer than before".repeat(3)));
        apply(machine, kv.delete(`key ${i + 2}`));
      }
      step++;
    },
  }, { highWaterMark: 0 });
  await machine.saveSnapshot(context, w, noFiles, never);
  assertEquals(concat(chunks), before);
  assert(machine.getHash() !== (await recover([before])).getHash());
});

Deno.test("C4 contexts prepared at different indexes are each saved as of their own index", async () => {
  const machine = new ConcurrentKVStateMachine();
  const contexts: unknown[] = [];
  const payloads: Uint8Array[] = [];
  for (let i = 0; i < 20; i++) {
    for (let j = 0; j < 200; j++) {
      apply(machine, kv.put(`key ${j * 7 % (i * 20 + 1)}`, `${i}`));
    }
    payloads.push(await save(machine));
    contexts.push(machine.prepareSnapshot());
  }
  for (const i of [7, 0, 19, 3, 12]) {
    const [w, chunks] = sink();
    await machine.saveSnapshot(contexts[i], w, noFiles, never);
    assertEquals(concat(chunks), payloads[i]);
  }
});

Deno.test("C5 ConcurrentKVStateMachine.saveSnapshot() frees its context, also when stopped", async () => {
  const machine = filled(10);
  for (const signal of [never, AbortSignal.abort()]) {
    const context = machine.prepareSnapshot();
    const held = () => Object.values(context as object).filter((v) => v);
    assertEquals(held().length, 1);
    const [w] = sink();
    await machine.saveSnapshot(context, w, noFiles, signal).catch(() => {});
    assertEquals(held().length, 0);
    await assertRejects(
      () => machine.saveSnapshot(context, sink()[0], noFiles, never),
      TypeError,
      "saved already",
    );
  }
});

Deno.test("C3 ConcurrentKVStateMachine.lookup() sees the old state until recovery is done", async () => {
  const machine = new ConcurrentKVStateMachine();
  apply(machine, kv.put("old", "1"));
  const payload = await save(filled(5000));
  let seen = 0;
  const r = new ReadableStream<Uint8Array>({
    pull(controller): void {
      assertEquals(text(machine.lookup(kv.get("old"))), "1");
      assertEquals(machine.lookup(kv.count()), 1);
      const at = 1000 * seen++;
      if (at >= payload.length) controller.close();
      else controller.enqueue(payload.slice(at, at + 1000));
    },
  }, { highWaterMark: 0 });
  await machine.recoverFromSnapshot(r, [], never);
  assert(seen > 10);
  assertEquals(machine.lookup(kv.count()), 5000);
});

Deno.test("R6 saveSnapshot() writes chunks of its own, of at most 64 KiB", async () => {
  const machine = filled(20_000);
  const [w, chunks] = sink();
  await machine.saveSnapshot(machine.prepareSnapshot(), w, noFiles, never);
  assert(chunks.length > 3);
  for (const { length } of chunks.slice(0, -1)) assertEquals(length, 65_536);
  assertEquals(new Set(chunks.map(({ buffer }) => buffer)).size, chunks.length);
  const hash = machine.getHash();
  for (const chunk of chunks) chunk.fill(0);
  assertEquals(machine.getHash(), hash);
  assertEquals(text(machine.lookup(kv.get("key 7"))), "7");
});

Deno.test("R8 saveSnapshot() stops between chunks", async () => {
  const machine = filled(20_000);
  const controller = new AbortController();
  let writes = 0;
  const w = new WritableStream<Uint8Array>({
    write: () => void (++writes === 2 && controller.abort()),
  });
  const context = machine.prepareSnapshot();
  await assertRejects(() =>
    machine.saveSnapshot(context, w, noFiles, controller.signal)
  );
  assertEquals(writes, 2);
});

Deno.test("R8 recoverFromSnapshot() stops between chunks", async () => {
  const payload = await save(filled(20_000));
  const machine = new ConcurrentKVStateMachine();
  const controller = new AbortController();
  let reads = 0;
  const r = new ReadableStream<Uint8Array>({
    pull(c): void {
      if (++reads === 2) controller.abort();
      c.enqueue(payload.slice(0, 4));
    },
  }, { highWaterMark: 0 });
  await assertRejects(() =>
    machine.recoverFromSnapshot(r, [], controller.signal)
  );
  assertEquals(reads, 2);
  assertEquals(machine.lookup(kv.count()), 0);
});
