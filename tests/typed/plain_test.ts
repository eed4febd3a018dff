import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { fc } from "../../src/deps/fast_check.ts";
import { ErrNotPlain } from "../../src/typed/errors.ts";
import { decodePlain, encodePlain } from "../../src/typed/plain.ts";

const plain = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) =>
      Object.is(n, -0) ? 0 : n
    ),
    fc.string({ unit: "grapheme" }),
    fc.uint8Array(),
    fc.bigInt({ min: -(1n << 63n), max: (1n << 64n) - 1n }),
    fc.array(tie("value")),
    fc.dictionary(
      fc.string().filter((key) => key !== "__proto__"),
      tie("value"),
      { noNullPrototype: true },
    ),
  ),
})).value;

Deno.test("Y4 decoding what was encoded gives the same value, the order of keys included", () => {
  fc.assert(fc.property(plain, (value) => {
    const decoded = decodePlain(encodePlain(value));
    assertEquals(decoded, value as never);
    assertEquals(keysOf(decoded), keysOf(value));
    assertEquals(encodePlain(decoded), encodePlain(value));
  }));
});

/** Keys of all objects of a value, in order. */
function keysOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(keysOf);
  if (typeof value !== "object" || value === null) return [];
  if (value instanceof Uint8Array) return [];
  return Object.entries(value).map(([key, part]) => [key, keysOf(part)]);
}

Deno.test("Y4 −0 becomes 0, and integer-like keys come first as in every object", () => {
  assertStrictEquals(decodePlain(encodePlain(-0)), 0);
  assertEquals(Object.keys(decodePlain(encodePlain({ b: 1, 2: 1, a: 1 }))!), [
    "2",
    "b",
    "a",
  ]);
});

const holes: unknown[] = [1, 2];
delete holes[0];
class Point {
  x = 1;
}
const cycle: Record<string, unknown> = {};
cycle["self"] = cycle;

for (
  const [what, value, path] of [
    ["undefined", { a: { b: undefined } }, "value.a.b is undefined"],
    ["NaN", [NaN], "value[0] is NaN"],
    ["an infinite number", Infinity, "value is Infinity"],
    ["a lone surrogate", { "a b": "\ud800" }, 'value["a b"] is "\\ud800"'],
    ["a key with a lone surrogate", { "\ud800": 1 }, "lone surrogate"],
    ["a Map", { m: new Map() }, "value.m is an object of class Map"],
    ["a Set", new Set(), "value is an object of class Set"],
    ["a Date", new Date(0), "value is an object of class Date"],
    ["a class", new Point(), "value is an object of class Point"],
    ["a function", [() => 1], "value[0] is a function"],
    ["a symbol", Symbol("s"), "value is Symbol(s)"],
    ["a symbol as key", { [Symbol("s")]: 1 }, "value is an object"],
    ["a hole", holes, "value is an array with holes"],
    [
      "a property of an array",
      Object.assign([1], { x: 1 }),
      "array with holes",
    ],
    ["a bigint over 64 bits", 1n << 64n, "value is 18446744073709551616n"],
    ["a cycle", cycle, "or a cycle"],
    ["another view of bytes", new Uint16Array(1), "class Uint16Array"],
  ] as const
) {
  Deno.test(`Y4 ${what} is refused with its path`, () => {
    assertThrows(() => encodePlain(value), ErrNotPlain, path);
  });
}

Deno.test("Y4 bytes that are no plain value throw a RangeError, whatever they are", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
    try {
      const value = decodePlain(bytes);
      encodePlain(value);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }));
});

Deno.test("Y4 what is decoded can be encoded again: numbers and nesting beyond what is plain are no values", () => {
  const deep = (levels: number, value: readonly number[]): Uint8Array =>
    new Uint8Array([...Array(levels).fill([10, 1]).flat(), ...value]);
  const most = new Array(7).fill(0xff);
  const ends = [[0], [7, 1, 5], [3, 7]];
  for (const end of ends) encodePlain(decodePlain(deep(100, end)));
  for (
    const bytes of [
      new Uint8Array([9, ...most, 0x80]),
      deep(100, [10, 0]),
      deep(100, [11, 0]),
    ]
  ) assertThrows(() => decodePlain(bytes), RangeError);
});
