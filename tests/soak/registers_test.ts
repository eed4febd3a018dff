import { assert, assertEquals } from "@std/assert";
import {
  checkLinearizability,
  type RecordedCall,
} from "../../src/testing/mod.ts";
import { seeded } from "../support/random.ts";
import { contradictionIn, type RegisterCall } from "./registers.ts";

/** The same calls for the general checker: each finds a value, and may leave another. */
function isLinearizable(calls: readonly RegisterCall[]): boolean {
  const recorded = calls.map((
    { name, start, end, ...input },
  ): RecordedCall<Partial<RegisterCall>, string | null> => ({
    client: name,
    input,
    start,
    ...(end === Infinity ? {} : { end, output: input.reads ?? null }),
  }));
  return checkLinearizability<
    string | null,
    Partial<RegisterCall>,
    string | null
  >({
    init: () => null,
    step(state, { reads, writes }): [string | null, string | null] {
      if (reads === undefined) return [writes!, null];
      if (state !== reads) return [state, `not ${reads}`];
      return [writes ?? state, reads];
    },
  }, recorded) === undefined;
}

/** Calls with random times; some find what an order of them gives, some anything. */
function drawn(seed: number): RegisterCall[] {
  const random = seeded(seed);
  const values: (string | null)[] = [null];
  const calls: RegisterCall[] = [];
  let state: string | null = null;
  const count = 2 + random.below(6);
  for (let i = 0; i < count; i++) {
    const at = 4 * i + random.below(12);
    const start = at - random.below(8);
    const end = random.oneIn(6) ? Infinity : at + random.below(8);
    const name = `c${i}`;
    const reads = random.oneIn(6) ? random.pick(values) : state;
    switch (random.below(3)) {
      case 0:
        calls.push({ name, start, end, reads });
        continue;
      case 1:
        calls.push({ name, start, end, writes: name });
        break;
      default:
        calls.push({ name, start, end, reads, writes: name });
    }
    values.push(state = name);
  }
  return calls;
}

Deno.test("H2 registers with different values are judged as by the general checker", () => {
  const { seed, below } = seeded();
  let wrong = 0;
  for (let i = 0; i < 4_000; i++) {
    const calls = drawn(below(2 ** 32));
    const contradiction = contradictionIn(calls);
    assertEquals(
      contradiction === undefined,
      isLinearizable(calls),
      `seed ${seed}: ${contradiction} ${JSON.stringify(calls)}`,
    );
    if (contradiction !== undefined) wrong++;
  }
  assert(wrong > 200 && wrong < 3_800, `${wrong} of 4000 are wrong`);
});
