import { assert, assertEquals } from "@std/assert";
import {
  copyOf,
  overwrite,
  showBytes,
  structuralEquals,
} from "../../src/testing/value.ts";

const u8 = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

Deno.test("structuralEquals() holds for values of the same structure", () => {
  const cyclic = (): unknown[] => {
    const list: unknown[] = [1];
    list.push(list);
    return list;
  };
  const pairs: readonly (readonly [unknown, unknown])[] = [
    [1n, 1n],
    [NaN, NaN],
    [u8(1, 2), u8(0, 1, 2).subarray(1)],
    [{ a: [u8(1)], b: undefined }, { b: undefined, a: [u8(1)] }],
    [new Map([[u8(1), "a"]]), new Map([[u8(1), "a"]])],
    [new Set([1, { a: 1 }]), new Set([{ a: 1 }, 1])],
    [new Date(1), new Date(1)],
    [new Error("a"), new Error("a")],
    [cyclic(), cyclic()],
  ];
  for (const [a, b] of pairs) assert(structuralEquals(a, b), showPair(a, b));
});

Deno.test("structuralEquals() tells apart what is not the same", () => {
  const pairs: readonly (readonly [unknown, unknown])[] = [
    [0, -0],
    [1, 1n],
    [null, undefined],
    [u8(1), u8(2)],
    [u8(1), [1]],
    [{ a: undefined }, {}],
    [[1, 2], [1]],
    [new Map([["a", 1]]), new Map([["a", 2]])],
    [new Set([1]), new Set([1, 2])],
    [new Date(1), new Date(2)],
    [new Error("a"), new Error("b")],
    [new Error("a"), new TypeError("a")],
  ];
  for (const [a, b] of pairs) assert(!structuralEquals(a, b), showPair(a, b));
});

function showPair(a: unknown, b: unknown): string {
  return `${String(a)} and ${String(b)}`;
}

Deno.test("copyOf() shares no bytes, and overwrite() overwrites all of them", () => {
  const value = {
    list: [u8(1)],
    map: new Map([["k", u8(2)]]),
    set: new Set([u8(3)]),
  };
  const copy = copyOf(value);
  assert(structuralEquals(value, copy));
  overwrite(value);
  assertEquals(copy.list, [u8(1)]);
  assertEquals(value.list, [u8(254)]);
  assertEquals([...value.map.values(), ...value.set], [u8(253), u8(252)]);
  assertEquals([...copy.map.values(), ...copy.set], [u8(2), u8(3)]);
});

Deno.test("showBytes() shows text where it can be printed", () => {
  assertEquals(showBytes(u8(97, 61)), `61 3d "a="`);
  assertEquals(showBytes(u8(0, 255)), "00 ff");
  assertEquals(showBytes(u8()), "(empty)");
  assert(showBytes(new Uint8Array(1000)).endsWith("… 1000 bytes"));
});
