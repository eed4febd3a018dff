import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { kv, KVStateMachine, MemoryFileStore } from "../../mod.ts";
import { systemEnv } from "../../src/env.ts";
import { ownerOf } from "../../src/sync/server/admission.ts";

/** Values that are neither strings nor Uint8Arrays. */
const STRANGERS: readonly unknown[] = [
  new Uint16Array([258, 772]),
  [300],
  new ArrayBuffer(2),
  7,
  7n,
  null,
  true,
  {},
];

// deno-lint-ignore no-explicit-any
const wrong = (value: unknown): any => value;

Deno.test("case D1: every argument of every kv function is a string or bytes, else a TypeError that names it", () => {
  const calls: [name: string, call: (value: unknown) => unknown][] = [
    ["Key", (value) => kv.put(wrong(value), "v")],
    ["Value", (value) => kv.put("k", wrong(value))],
    ["Key", (value) => kv.delete(wrong(value))],
    ["Key", (value) => kv.compareAndSwap(wrong(value), "e", "v")],
    ["Expected value", (value) => kv.compareAndSwap("k", wrong(value), "v")],
    ["Value", (value) => kv.compareAndSwap("k", "e", wrong(value))],
    ["Value", (value) => kv.compareAndSwap("k", undefined, wrong(value))],
    ["Key", (value) => kv.get(wrong(value))],
    ["Key 1", (value) => kv.getMany(["k", wrong(value)])],
    ["start", (value) => kv.range({ start: wrong(value) })],
    ["end", (value) => kv.range({ end: wrong(value) })],
    ["Part 0 of the batch", (value) => kv.batch([wrong(value)])],
  ];
  for (const [name, call] of calls) {
    for (const stranger of STRANGERS) {
      const { message } = assertThrows(() => call(stranger), TypeError);
      assert(message.startsWith(`${name} is `), message);
    }
  }
  for (
    const missing of [
      () => kv.put("k", wrong(undefined)),
      () => kv.get(wrong(undefined)),
    ]
  ) {
    assertThrows(missing, TypeError, "undefined");
  }
  for (const stranger of STRANGERS.filter((value) => !Array.isArray(value))) {
    assertThrows(() => kv.batch(wrong(stranger)), TypeError, "Commands");
  }
  assertThrows(() => kv.getMany(wrong("k")), TypeError, "Keys");
  for (const limit of ["10", 1n, null]) {
    assertThrows(() => kv.range({ limit: wrong(limit) }), TypeError, "limit");
  }
  for (const limit of [-1, 1.5, NaN]) {
    assertThrows(() => kv.range({ limit }), RangeError, "limit");
  }
  assertThrows(() => kv.range({ reverse: wrong("no") }), TypeError, "reverse");
  assertThrows(() => kv.range(wrong(null)), TypeError, "Options");
  // Bytes of a subclass are bytes.
  class Buffer extends Uint8Array {}
  assertEquals(kv.put(new Buffer([107]), "v"), kv.put("k", "v"));
});

Deno.test("case D2: keys that differ only in a lone surrogate are refused, not taken for one another", async () => {
  for (const text of ["\ud800", "\udbff", "a\udc00b", "\udc00\ud800"]) {
    for (
      const call of [
        () => kv.put(text, "v"),
        () => kv.put("k", text),
        () => kv.delete(text),
        () => kv.get(text),
        () => kv.range({ start: text }),
        () => kv.compareAndSwap("k", text, "v"),
      ]
    ) assertThrows(call, TypeError, "lone surrogate");
    await assertRejects(
      () => ownerOf(systemEnv, text),
      TypeError,
      "lone surrogate",
    );
    const files = new MemoryFileStore();
    assertThrows(() => files.create(`a/${text}`), TypeError, "lone surrogate");
  }
  const machine = new KVStateMachine();
  machine.update(kv.put("🚣", "🛶"));
  assertEquals(
    new TextDecoder().decode(machine.lookup(kv.get("🚣"))),
    "🛶",
  );
});
