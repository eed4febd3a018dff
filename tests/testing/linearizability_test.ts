/**
 * Tests of the linearizability checker: against all permutations of small random
 * histories, and against histories with a known violation.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  checkLinearizability,
  ErrCheckUndecided,
  type RecordedCall,
  type SequentialModel,
} from "../../src/testing/linearizability.ts";
import { type Random, seeded } from "../support/random.ts";

type Input =
  | { readonly write: number }
  | { readonly add: number }
  | { readonly swap: number; readonly from: number }
  | "read";
type Call = RecordedCall<Input, number>;

/** Integer with writes, additions, conditional writes and reads; each outputs the number after it. */
const register: SequentialModel<number, Input, number> = {
  init: () => 0,
  step(state, input): [number, number] {
    if (input === "read") return [state, state];
    const next = "write" in input
      ? input.write
      : "add" in input
      ? state + input.add
      : input.from === state
      ? input.swap
      : state;
    return [next, next];
  },
  isReadOnly: (input) => input === "read",
};

/** Model that says nothing of states and inputs that the search could use. */
const plain: SequentialModel<{ value: number }, Input, number> = {
  init: () => ({ value: 0 }),
  step(state, input): [{ value: number }, number] {
    const [value, output] = register.step(state.value, input);
    return [{ value }, output];
  },
};

function drawInput({ below, oneIn }: Random): Input {
  if (oneIn(2)) return "read";
  switch (below(3)) {
    case 0:
      return { write: below(3) };
    case 1:
      return { add: 1 };
    default:
      return { swap: below(3), from: below(3) };
  }
}

/** Draws up to six overlapping calls; outputs are right now and then. */
function drawCalls(draws: Random): Call[] {
  const { below, oneIn } = draws;
  let state = 0;
  return Array.from({ length: 1 + below(6) }, (_, i) => {
    const start = below(10);
    const input = drawInput(draws);
    const [next, output] = register.step(state, input);
    state = next;
    const call = { client: `c${i}`, input, start };
    return oneIn(4) ? call : {
      ...call,
      end: start + below(6),
      output: oneIn(5) ? below(4) : output,
    };
  });
}

/** True if some permutation of the calls with a known outcome and some of the others explains the outputs. */
function hasOrder(
  state: number,
  left: readonly Call[],
): boolean {
  if (left.every(({ end }) => end === undefined)) return true;
  return left.some((call) => {
    const others = left.filter((other) => other !== call);
    if (others.some(({ end }) => end !== undefined && end < call.start)) {
      return false;
    }
    const [next, output] = register.step(state, call.input);
    return (call.end === undefined || output === call.output) &&
      hasOrder(next, others);
  });
}

Deno.test("H2 linearizability checker agrees with all permutations of random histories", () => {
  const draws = seeded();
  let violations = 0;
  const runs = 4000;
  for (let i = 0; i < runs; i++) {
    const calls = drawCalls(draws);
    const expected = hasOrder(0, calls);
    const violation = checkLinearizability(register, calls);
    assertEquals(violation === undefined, expected, JSON.stringify(calls));
    assertEquals(
      checkLinearizability(plain, calls) === undefined,
      expected,
      JSON.stringify(calls),
    );
    if (violation === undefined) continue;
    violations++;
    // The part that is reported has no order whatever the other calls did.
    const rest = calls
      .filter((call) => !violation.calls.includes(call))
      .map(({ client, input, start }) => ({ client, input, start }));
    assert(!hasOrder(0, [...violation.calls, ...rest]), violation.text);
  }
  assert(violations > runs / 10 && violations < runs * 9 / 10, `${violations}`);
});

Deno.test("H2 linearizability checker finds no violation in random histories of a correct object, and a changed output", () => {
  const { below, oneIn, pick } = seeded();
  for (let run = 0; run < 20; run++) {
    let state: readonly string[] = [];
    const calls: RecordedCall<string, readonly string[]>[] = [];
    for (let i = 0; i < 120; i++) {
      // It takes effect at time 10 * i.
      const input = oneIn(2) ? "" : `${i}`;
      if (input !== "") state = [...state, input];
      const call = { client: `c${i}`, input, start: 10 * i - below(60) };
      calls.push(
        oneIn(10)
          ? call
          : { ...call, end: 10 * i + below(60), output: [...state] },
      );
    }
    assertEquals(checkLinearizability(list, calls), undefined);
    const reads = calls.filter(({ input, output }) =>
      input === "" && output !== undefined && output.length > 20
    );
    const bad = pick(reads);
    const changed = calls.map((call) =>
      call === bad ? { ...call, output: call.output!.slice(0, -15) } : call
    );
    const violation = checkLinearizability(list, changed, {
      stepsMax: 50_000,
    })!;
    assert(violation.calls.includes(changed[calls.indexOf(bad)]!));
  }
});

/** List of strings; the empty input reads it. */
const list: SequentialModel<readonly string[], string, readonly string[]> = {
  init: () => [],
  step(state, input): [readonly string[], readonly string[]] {
    const next = input === "" ? state : [...state, input];
    return [next, next];
  },
  identify: (state) => state.join(),
  isReadOnly: (input) => input === "",
};

/** A history with a violation, and the number of calls in its smallest part. */
interface Known {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly smallest: number;
}

let time = 0;

/** Calls one after the other. */
function sequence(
  ...calls: (readonly [input: Input, output: number | "unknown"])[]
): Call[] {
  return calls.map(([input, output], i) => ({
    client: `c${i}`,
    input,
    start: ++time,
    ...(output === "unknown" ? {} : { end: ++time, output }),
  }));
}

const KNOWN: readonly Known[] = [
  {
    name: "stale read",
    calls: sequence(
      [{ write: 1 }, 1],
      ["read", 1],
      [{ write: 2 }, 2],
      ["read", 1],
    ),
    smallest: 3,
  },
  {
    name: "lost update",
    calls: sequence([{ add: 1 }, 1], [{ add: 1 }, 1], ["read", 1]),
    smallest: 2,
  },
  {
    name: "command applied twice",
    calls: sequence([{ add: 1 }, "unknown"], ["read", 1], ["read", 2]),
    smallest: 1,
  },
  {
    name: "read of a write that was aborted",
    calls: sequence(["read", 0], ["read", 7]),
    smallest: 1,
  },
  {
    name: "read from the future",
    calls: sequence(["read", 1], [{ write: 1 }, 1]),
    smallest: 1,
  },
  {
    name: "reads that go back",
    calls: sequence([{ write: 1 }, "unknown"], ["read", 1], ["read", 0]),
    smallest: 2,
  },
  {
    name: "conditional writes that both succeed",
    calls: sequence(
      [{ swap: 1, from: 0 }, 1],
      [{ swap: 2, from: 0 }, 2],
    ),
    smallest: 2,
  },
  {
    name: "write that vanishes between two reads",
    calls: sequence([{ write: 1 }, 1], ["read", 1], ["read", 0], ["read", 1]),
    smallest: 2,
  },
];

for (const { name, calls, smallest } of KNOWN) {
  Deno.test(`H2 linearizability checker names the smallest part of a history with a ${name}`, () => {
    const violation = checkLinearizability(register, calls)!;
    assertEquals(violation.calls.length, smallest, violation.text);
    assert(violation.text.includes("No order explains these calls"));
  });
}

Deno.test("H2 linearizability checker accepts an unknown outcome that takes effect late, or never", () => {
  for (const value of [0, 1]) {
    const calls = sequence(
      [{ write: 1 }, "unknown"],
      ["read", 0],
      ["read", 0],
      ["read", value],
    );
    assertEquals(checkLinearizability(register, calls), undefined);
  }
});

Deno.test("H2 linearizability checker judges each key by itself", () => {
  const [a, b] = sequence([{ write: 1 }, 1], ["read", 0]);
  const violation = checkLinearizability(register, [
    { ...a!, key: "a" },
    { ...b!, key: "b" },
    { ...a!, key: "c" },
    { ...b!, key: "c" },
  ]);
  assertEquals(violation?.key, "c");
});

Deno.test("H2 linearizability checker says so when a history has too many orders", () => {
  const calls: Call[] = Array.from({ length: 20 }, (_, i) => ({
    client: `c${i}`,
    input: { add: 2 ** i },
    start: 0,
  }));
  const read: Call = {
    client: "r",
    input: "read",
    start: 1,
    end: 2,
    output: 2 ** 21,
  };
  const error = assertThrows(
    () => checkLinearizability(register, [...calls, read], { stepsMax: 5000 }),
    ErrCheckUndecided,
  );
  assert(error.message.includes("5000 steps"));
});
