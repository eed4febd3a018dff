import { assert } from "@std/assert";
import { isSameAnswer } from "../../src/watch/same_answer.ts";

Deno.test("isSameAnswer() compares bytes, arrays, maps, plain objects and primitives", () => {
  const make = (last: unknown): unknown => ({
    a: [1, 2n, "3", null, undefined, NaN, true],
    b: new Map<unknown, unknown>([["x", Uint8Array.of(1, 2)], [1, last]]),
  });
  assert(isSameAnswer(make(Uint8Array.of(7)), make(Uint8Array.of(7))));
  for (
    const other of [
      Uint8Array.of(8),
      Uint8Array.of(),
      [7],
      "7",
      7n,
      undefined,
      new Uint16Array([7]),
    ]
  ) assert(!isSameAnswer(make(Uint8Array.of(7)), make(other)));
  for (
    const [one, other] of [
      [{ a: 1 }, { b: 1 }],
      [{ a: undefined }, {}],
      [[], {}],
      [[1], [1, 2]],
      [new Map([[1, 1]]), new Map([[2, 1]])],
      [0, -0],
      [1, 1n],
      [null, {}],
      [new Date(1), new Date(1)],
    ]
  ) assert(!isSameAnswer(one, other));
});
