import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  ErrKVInvalidCommand,
  ErrKVInvalidQuery,
  kv,
  type KVQuery,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import {
  COMMAND_BYTES_MAX,
  KV_BATCH_PARTS_MAX,
  KV_KEY_BYTES_MAX,
} from "../../src/limits.ts";
import { SampanError } from "../../src/statemachine/mod.ts";
import { apply, machines, putAll } from "./util.ts";
import { bytes, text } from "../support/bytes.ts";

const unchanged = { value: 0n };
const changed = { value: 1n };

for (const [name, create] of machines) {
  Deno.test(`${name} answers a put with whether it changed anything`, () => {
    const m = create();
    assertEquals(apply(m, kv.put("a", "1")), changed);
    assertEquals(apply(m, kv.put("a", "1")), unchanged);
    assertEquals(apply(m, kv.put("a", "2")), changed);
    assertEquals(apply(m, kv.put("a", "")), changed);
    assertEquals(apply(m, kv.put("", "empty key")), changed);
    assertEquals(text(m.lookup(kv.get("a"))), "");
    assertEquals(text(m.lookup(kv.get(""))), "empty key");
    assertEquals(m.lookup(kv.count()), 2);
  });

  Deno.test(`${name} answers a delete with whether there was a key`, () => {
    const m = create();
    assertEquals(apply(m, kv.delete("a")), unchanged);
    apply(m, kv.put("a", "1"));
    assertEquals(apply(m, kv.delete("a")), changed);
    assertEquals(m.lookup(kv.get("a")), undefined);
    assertEquals(m.getHash(), 0n);
  });

  Deno.test(`${name} swaps a value that is as expected`, () => {
    const m = create();
    assertEquals(apply(m, kv.compareAndSwap("a", undefined, "1")), changed);
    assertEquals(apply(m, kv.compareAndSwap("a", undefined, "2")), {
      value: 0n,
      data: bytes("1"),
    });
    assertEquals(apply(m, kv.compareAndSwap("a", "0", "2")), {
      value: 0n,
      data: bytes("1"),
    });
    assertEquals(apply(m, kv.compareAndSwap("a", "1", "2")), changed);
    assertEquals(apply(m, kv.compareAndSwap("a", "2", "2")), unchanged);
    assertEquals(apply(m, kv.compareAndSwap("b", "1", "2")), unchanged);
    assertEquals(apply(m, kv.compareAndSwap("a", "22", "3")).data, bytes("2"));
    assertEquals(text(m.lookup(kv.get("a"))), "2");
    assertEquals(m.lookup(kv.get("b")), undefined);
  });

  Deno.test(`${name} applies all of a batch or nothing`, () => {
    const m = create();
    putAll(m, [["a", "1"], ["b", "2"]]);
    const hash = m.getHash();
    const failing = kv.batch([
      kv.put("c", "3"),
      kv.compareAndSwap("b", "x", "y"),
      kv.compareAndSwap("a", "x", "y"),
      kv.delete("a"),
    ]);
    assertEquals(apply(m, failing), { value: 0n, data: bytes("2") });
    assertEquals(m.getHash(), hash);
    const passing = kv.batch([
      kv.put("c", "3"),
      kv.compareAndSwap("b", "2", "y"),
      kv.delete("a"),
      kv.put("a", "4"),
    ]);
    assertEquals(apply(m, passing), changed);
    assertEquals(
      m.lookup(kv.range()).map(({ key, value }) =>
        `${text(key)}=${text(value)}`
      ),
      ["a=4", "b=y", "c=3"],
    );
    assertEquals(apply(m, kv.batch([])), unchanged);
    assertEquals(
      apply(m, kv.batch([kv.put("c", "3"), kv.delete("z")])),
      unchanged,
    );
  });

  Deno.test(`${name} compares with the state before the batch`, () => {
    const m = create();
    const cmd = kv.batch([
      kv.put("a", "1"),
      kv.compareAndSwap("a", "1", "2"),
    ]);
    assertEquals(apply(m, cmd), unchanged);
    assertEquals(m.lookup(kv.count()), 0);
  });

  Deno.test(`R5 ${name}.update() gives kv.INVALID for bytes that are no command`, () => {
    const m = create();
    putAll(m, [["a", "1"]]);
    const hash = m.getHash();
    const good = [
      kv.put("a", "2"),
      kv.delete("a"),
      kv.compareAndSwap("a", "1", "2"),
      kv.compareAndSwap("c", undefined, "2"),
    ];
    const inner = kv.batch([kv.put("a", "2")]);
    const bad: Uint8Array[] = [
      new Uint8Array(),
      bytes("hello"),
      Uint8Array.of(0x21, 0, 0),
      Uint8Array.of(0x11, 0x80, 0x80, 0x80, 0x80, 0x80),
      Uint8Array.of(0x11, 0xff, 0xff, 0xff, 0xff, 0x0f),
      new Uint8Array([...inner, ...inner]),
      new Uint8Array([...kv.batch([kv.put("a", "2")]), 0x11]),
      new Uint8Array(COMMAND_BYTES_MAX + 1).fill(0x15),
    ];
    for (const cmd of good) {
      for (let n = 1; n < cmd.length; n++) bad.push(cmd.slice(0, n));
      bad.push(new Uint8Array([...cmd, 0]));
    }
    for (const cmd of bad) {
      const { value, data } = apply(m, cmd);
      assertEquals(value, kv.INVALID, `${cmd.subarray(0, 40)}`);
      assert((text(data) ?? "").length > 5);
      assertEquals(m.getHash(), hash, `${cmd.subarray(0, 40)}`);
    }
  });

  Deno.test(`R5 ${name}.update() gives kv.INVALID for a key over the limit`, () => {
    const m = create();
    const head = Uint8Array.of(0x12, 0x81, 0x80, 0x04);
    const cmd = new Uint8Array(head.length + KV_KEY_BYTES_MAX + 1);
    cmd.set(head);
    assertEquals(apply(m, cmd).value, kv.INVALID);
    assertEquals(
      apply(m, kv.delete(new Uint8Array(KV_KEY_BYTES_MAX))),
      unchanged,
    );
  });

  Deno.test(`R5 ${name}.update() gives kv.INVALID for too many parts`, () => {
    const m = create();
    const part = kv.delete("");
    const parts = new Array(KV_BATCH_PARTS_MAX).fill(part);
    const full = kv.batch(parts);
    assertEquals(apply(m, full), unchanged);
    const over = new Uint8Array([...full, ...part]);
    assertEquals(apply(m, over).value, kv.INVALID);
    assertThrows(() => kv.batch([...parts, part]), ErrKVInvalidCommand);
  });

  Deno.test(`R4 ${name}.lookup() throws on what is no query`, () => {
    const m = create();
    const bad: unknown[] = [
      undefined,
      null,
      "get",
      {},
      { type: "put", key: bytes("a") },
      { type: "get" },
      { type: "get", key: "a" },
      { type: "getMany" },
      { type: "getMany", keys: ["a"] },
      { type: "getMany", keys: [bytes("a"), undefined] },
      { type: "range", start: "a" },
      { type: "range", end: 1 },
      { type: "range", limit: -1 },
      { type: "range", limit: 1.5 },
      { type: "range", reverse: 1 },
    ];
    for (const query of bad) {
      assertThrows(
        () => m.lookup(query as KVQuery),
        ErrKVInvalidQuery,
        undefined,
        JSON.stringify(query),
      );
    }
  });

  Deno.test(`E2 ${name}.naLookup() answers as lookup() does`, () => {
    const m = create();
    putAll(m, [["a", "1"], ["b", ""], ["c", "3".repeat(300)], ["", "0"]]);
    const queries: KVQuery[] = [
      kv.get("a"),
      kv.get("b"),
      kv.get("nothing"),
      kv.get(""),
      kv.getMany(["c", "nothing", "", "a", "b", "a"]),
      kv.getMany([]),
      kv.count(),
      kv.range(),
      kv.range({ start: "a", end: "c" }),
      kv.range({ start: "", end: "" }),
      kv.range({ limit: 2, reverse: true }),
      kv.range({ limit: 0 }),
      kv.range({ start: "b" }),
      kv.range({ limit: Number.MAX_SAFE_INTEGER }),
    ];
    for (const query of queries) {
      const answer = m.naLookup(kv.encodeQuery(query));
      assertEquals(kv.decodeAnswer(query, answer), m.lookup(query));
    }
  });

  Deno.test(`E2 ${name}.naLookup() throws on bytes that are no query`, () => {
    const m = create();
    const bad = [
      new Uint8Array(),
      Uint8Array.of(0x13, 0),
      Uint8Array.of(0x12),
      Uint8Array.of(0x12, 16),
      Uint8Array.of(0x12, 1, 5, 0),
      Uint8Array.of(0x12, 0, 0),
      Uint8Array.of(0x22, 0),
      Uint8Array.of(0x14, 2, 0),
      bytes("get"),
    ];
    for (const query of bad) {
      assertThrows(() => m.naLookup(query), ErrKVInvalidQuery);
    }
  });

  Deno.test(`R11 what ${name} returns is the caller's`, () => {
    const m = create();
    putAll(m, [["key", "value"]]);
    const failed = apply(m, kv.compareAndSwap("key", "x", "y"));
    failed.data?.fill(0);
    m.lookup(kv.get("key"))?.fill(0);
    const [row] = m.lookup(kv.range());
    assertEquals(text(row?.key), "key");
    assertEquals(row?.value.buffer.byteLength, 5);
    row?.key.fill(0);
    row?.value.fill(0);
    assertEquals(text(m.lookup(kv.get("key"))), "value");
  });

  Deno.test(`R10 ${name}.close() changes nothing that lookup() can see`, () => {
    const m = create();
    putAll(m, [["key", "value"]]);
    m.close();
    assertEquals(text(m.lookup(kv.get("key"))), "value");
  });
}

Deno.test("kv refuses keys, values and commands over the limits", () => {
  const bad = [
    () => kv.put(new Uint8Array(KV_KEY_BYTES_MAX + 1), ""),
    () => kv.delete(new Uint8Array(KV_KEY_BYTES_MAX + 1)),
    () => kv.put("", new Uint8Array(COMMAND_BYTES_MAX)),
    () => kv.compareAndSwap("", new Uint8Array(COMMAND_BYTES_MAX + 1), ""),
    () => kv.batch(new Array(20).fill(kv.put("", new Uint8Array(1 << 16)))),
  ];
  for (const build of bad) {
    assertThrows(build, ErrKVInvalidCommand, "over the limit");
  }
  assertThrows(build, SampanError);
  function build(): void {
    kv.put("", new Uint8Array(COMMAND_BYTES_MAX));
  }
});

Deno.test("kv.batch() refuses what is no command, and batches", () => {
  for (
    const part of [
      kv.batch([]),
      bytes("no"),
      new Uint8Array(),
      kv.put("a", "b").slice(1),
      new Uint8Array([...kv.delete("a"), ...kv.delete("b")]),
    ]
  ) {
    assertThrows(() => kv.batch([kv.delete("a"), part]), ErrKVInvalidCommand);
  }
});

Deno.test("kv.decodeAnswer() throws on bytes that are no answer", () => {
  const bad: [KVQuery, Uint8Array][] = [
    [kv.count(), new Uint8Array()],
    [kv.count(), Uint8Array.of(1, 1)],
    [kv.get("a"), Uint8Array.of(2, 1)],
    [kv.getMany(["a", "b"]), Uint8Array.of(2, 1)],
    [kv.getMany(["a"]), Uint8Array.of(1, 1)],
    [kv.getMany(["a"]), Uint8Array.of(4, 1)],
    [kv.range(), Uint8Array.of(5, 1)],
    [kv.range(), Uint8Array.of(1, 1)],
  ];
  for (const [query, answer] of bad) {
    assertThrows(() => kv.decodeAnswer(query, answer), ErrKVInvalidQuery);
  }
});

Deno.test("T4 the machines' constructors serve as factories", () => {
  for (const [, create] of machines) {
    const factory = (_clusterID: bigint, _nodeID: bigint) => create();
    apply(factory(1n, 1n), kv.put("a", "1"));
    assertEquals(factory(1n, 2n).getHash(), 0n);
  }
});

Deno.test("E1 the state hash does not depend on the way to the state", () => {
  const a = new KVStateMachine();
  const b = new KVStateMachine();
  putAll(a, [["x", "1"], ["y", "2"], ["z", "3"]]);
  putAll(b, [["z", "0"], ["q", "9"], ["z", "33"], ["z", "3"], ["y", "2"]]);
  apply(b, kv.delete("q"));
  apply(b, kv.batch([kv.put("x", "0"), kv.put("x", "1")]));
  assertEquals(a.getHash(), b.getHash());
});
