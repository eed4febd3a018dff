import { assertEquals, assertThrows } from "@std/assert";
import { fc } from "../../src/deps/fast_check.ts";
import { SortedMap } from "../../src/typed/sorted_map.ts";
import { type IndexScalar, Lookups } from "../../src/typed/lookups.ts";
import type { Hashed } from "../../src/typed/hashed.ts";
import { Reads } from "../../src/typed/reads.ts";
import { TypedState } from "../../src/typed/state.ts";
import { ErrInvalidDefinition, table } from "../../src/typed/mod.ts";

const step = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constant("set"), fc.nat(300)) },
  { weight: 5, arbitrary: fc.tuple(fc.constant("delete"), fc.nat(300)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("clone"), fc.nat(300)) },
);

Deno.test("an ordered map equals a sorted list, and its copies change independently", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 1500, size: "max" }), (steps) => {
      const compare = (a: number, b: number): number => a - b;
      let map = new SortedMap<number, number>(compare);
      const model = new Map<number, number>();
      const copies: [SortedMap<number, number>, [number, number][]][] = [];
      const sorted = (): [number, number][] =>
        [...model].sort(([a], [b]) => a - b);
      let i = 0;
      for (const [what, key] of steps) {
        i++;
        if (what === "set") {
          assertEquals(map.set(key, i), model.get(key));
          model.set(key, i);
        } else if (what === "delete") {
          assertEquals(map.delete(key), model.get(key));
          model.delete(key);
        } else {
          copies.push([map, sorted()]);
          map = map.clone();
        }
      }
      copies.push([map, sorted()]);
      for (const [copy, expected] of copies) {
        assertEquals([...copy.entries()], expected);
        assertEquals(copy.size, expected.length);
        const from = expected.length >> 1;
        const first = expected[from]?.[0] ?? 301;
        assertEquals([...copy.entries(first)], expected.slice(from));
      }
    }),
    { numRuns: 30 },
  );
});

interface Row {
  readonly group: string;
  readonly place?: number;
}

function newState(): TypedState {
  return new TypedState({
    rows: table({
      indexes: {
        byGroup: (row: Row) => row.group,
        byPlace: ({ group, place }: Row) =>
          place === undefined ? undefined : [group, place] as const,
      },
    }),
    count: 0,
  });
}

interface Root {
  rows: ReturnType<typeof tableOfRows>;
  count: number;
}

// deno-lint-ignore explicit-function-return-type
function tableOfRows() {
  return table({
    indexes: {
      byGroup: (row: Row) => row.group,
      byPlace: ({ group, place }: Row) =>
        place === undefined ? undefined : [group, place] as const,
    },
  });
}

/** Runs a command. */
function run(
  state: TypedState,
  command: () => unknown,
  isKept: boolean,
): void {
  state.begin();
  let isDone = false;
  try {
    command();
    if (isKept) state.commit();
    isDone = isKept;
  } finally {
    if (!isDone) state.rollback();
  }
}

Deno.test("Y3 a command that throws, or is not kept, changes neither rows, indexes, values nor hash", () => {
  const state = newState();
  const root = state.root as unknown as Root;
  run(state, () => {
    root.rows.set("a", { group: "x", place: 2 });
    root.rows.set("b", { group: "x", place: 1 });
    root.count = 2;
  }, true);
  const before = state.sums;
  const seen = (): unknown => [
    [...root.rows],
    root.rows.byGroup("x"),
    root.rows.byPlace("x"),
    root.count,
  ];
  const shown = seen();
  const change = (): void => {
    root.rows.set("a", { group: "y" });
    root.rows.delete("b");
    root.rows.set("c", { group: "x", place: 0 });
    root.rows.set("c", { group: "z", place: 5 });
    root.count = 99;
  };
  assertThrows(() =>
    run(state, () => {
      change();
      throw new Error("handler");
    }, true)
  );
  assertEquals(seen(), shown);
  assertEquals(state.sums, before);
  run(state, change, false);
  assertEquals(seen(), shown);
  assertEquals(state.sums, before);
});

Deno.test("Y4 the hash depends on rows and values, not on how they came about", () => {
  const one = newState();
  const other = newState();
  const a = one.root as unknown as Root;
  const b = other.root as unknown as Root;
  run(one, () => {
    a.rows.set("1", { group: "x" });
    a.rows.set("2", { group: "y", place: 1 });
    a.count = 7;
  }, true);
  run(other, () => {
    b.rows.set("2", { group: "q" });
    b.rows.set("3", { group: "q" });
    b.count = 3;
  }, true);
  run(other, () => {
    b.rows.delete("3");
    b.rows.set("2", { group: "y", place: 1 });
    b.rows.set("1", { group: "x" });
    b.count = 7;
  }, true);
  assertEquals(one.sums, other.sums);
  run(other, () => b.rows.delete("1"), true);
  assertEquals(one.sums[0] === other.sums[0], false);
});

Deno.test("an index finds rows by leading parts of its key, in the order of the rest", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  run(state, () => {
    rows.set("a", { group: "x", place: 10 });
    rows.set("b", { group: "x", place: 9 });
    rows.set("c", { group: "x" });
    rows.set("d", { group: "xy", place: 1 });
  }, true);
  assertEquals(rows.byPlace("x").map(({ place }) => place), [9, 10]);
  assertEquals(rows.byPlace("x", 9), [{ group: "x", place: 9 }]);
  assertEquals(rows.byPlace().length, 3);
  assertEquals(rows.byGroup("x").length, 3);
  assertEquals(rows.byGroup("none"), []);
});

Deno.test("an index that was asked before finds the same rows as one that was not, after any change, in any copy", () => {
  const change = fc.record({
    key: fc.constantFrom(..."abcdefghij"),
    group: fc.constantFrom(undefined, "x", "y", "xy"),
    place: fc.constantFrom(undefined, 1, 2, 10, -0),
    isKept: fc.boolean(),
    isCopied: fc.boolean(),
    asked: fc.constantFrom<IndexScalar[]>([], ["x"], ["y"], ["x", 1], ["z"]),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      let state = newState();
      const copies: [TypedState, string][] = [];
      const answers = (state: TypedState): string => {
        const { rows } = state.root as unknown as Root;
        return JSON.stringify([
          rows.byPlace(),
          rows.byPlace("x"),
          rows.byPlace("x", 1),
          rows.byGroup("x"),
          rows.byGroup("y"),
        ]);
      };
      for (const { key, group, place, isKept, isCopied, asked } of changes) {
        const { rows } = state.root as unknown as Root;
        rows.byPlace(...asked as []);
        run(state, () => {
          if (group === undefined) rows.delete(key);
          else {
            const at = place === undefined ? {} : { place };
            rows.set(key, { group, ...at });
          }
        }, isKept);
        // Made of the rows alone.
        const fresh = newState();
        const copy = fresh.root as unknown as Root;
        run(fresh, () => {
          for (const [key, row] of rows) copy.rows.set(key, row);
        }, true);
        assertEquals(answers(state), answers(fresh));
        if (!isCopied) continue;
        copies.push([state, answers(state)]);
        state = state.clone();
      }
      for (const [copy, expected] of copies) {
        assertEquals(answers(copy), expected);
      }
    }),
    { numRuns: 100 },
  );
});

Deno.test("a lookup in an index is made once, and then follows the changes of single rows; what was handed out does not change", () => {
  const lookups = new Lookups<string>();
  let made = 0;
  const row = (value: string): Hashed<string> => ({
    value,
    low: 0,
    high: 0,
  });
  const found = (group: string): string =>
    lookups.get(
      [group],
      function* (): Generator<[IndexScalar[], Hashed<string>]> {
        made++;
        for (let i = 0; i < 500; i++) yield [[group, i], row(`${group}${i}`)];
      },
    ).rows.map(({ value }) => value).join();
  const first = lookups.get(
    ["x"],
    function* (): Generator<[IndexScalar[], Hashed<string>]> {
      made++;
      for (let i = 0; i < 500; i++) yield [["x", i], row(`x${i}`)];
    },
  );
  const before = found("y");
  lookups.set(["x", 7], row("changed"));
  lookups.set(["x", 6.5], row("added"));
  lookups.set(["x", 499], undefined);
  assertEquals(first.rows.length, 500);
  assertEquals(first.rows[7]!.value, "x7");
  const after = found("x").split(",");
  assertEquals(after.length, 500);
  assertEquals(after.slice(6, 9), ["x6", "added", "changed"]);
  assertEquals(found("y"), before);
  assertEquals(made, 2);
});

Deno.test("an iteration sees the table as it was when it began, also with rows deleted and set again", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  run(state, () => {
    for (let i = 0; i < 100; i++) rows.set(`${i}`, { group: "x" });
  }, true);
  const before = [...rows.keys()];
  const seen: string[] = [];
  run(state, () => {
    for (const [key] of rows) {
      seen.push(key);
      rows.delete(key);
      rows.set(`${key}'`, { group: "y" });
    }
  }, true);
  assertEquals(seen, before);
  assertEquals([...rows.keys()], before.map((key) => `${key}'`));
});

Deno.test("Y4 rows are copied and frozen, and change only in a command", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  const row = { group: "x", place: 1 };
  run(state, () => rows.set("a", row), true);
  row.group = "changed later";
  assertEquals(rows.get("a"), { group: "x", place: 1 });
  assertThrows(() => {
    (rows.get("a") as { group: string }).group = "y";
  }, TypeError);
  assertThrows(() => rows.set("b", row), TypeError, "outside of a command");
  assertThrows(() => rows.delete("a"), TypeError, "outside of a command");
});

Deno.test("an index cannot have the name of a method, and a table one state", () => {
  // Also one that only the library calls, or a field.
  for (const name of ["get", "find", "version", "clone", "name", "toString"]) {
    assertThrows(
      () => table({ indexes: { [name]: (row: Row) => row.group } }),
      ErrInvalidDefinition,
      `"${name}"`,
    );
  }
  const shared = tableOfRows();
  new TypedState({ shared });
  assertThrows(
    () => new TypedState({ shared }),
    ErrInvalidDefinition,
    "shared",
  );
});

Deno.test("U15 reads are not those of a table without common changes, such as an empty one from a snapshot", () => {
  const fill = (state: TypedState): void => {
    const { rows } = state.root as unknown as Root;
    run(state, () => rows.set("a", { group: "x" }), true);
  };
  const read = (state: TypedState): unknown => {
    const { rows } = state.root as unknown as Root;
    return [rows.get("a"), ...rows.byGroup("x")];
  };
  // Its changes are not kept yet: this test is the first here that notes reads.
  const [one, other] = [newState(), newState()];
  fill(one);
  const reads = new Reads(one);
  one.noting(reads, () => read(one));
  assertEquals(reads.isSame(one), true);
  assertEquals(reads.isSame(other), false);
});

Deno.test("U15 reads are known to be the same exactly if the rows are, in copies that have changed apart, and after more changes than are known", () => {
  const change = fc.tuple(fc.nat(2), fc.nat(30), fc.nat(3));
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 60 }),
      fc.array(change, { minLength: 1, maxLength: 12 }),
      fc.array(change, { maxLength: 4 }),
      fc.nat(20),
      (before, later, apart, more) => {
        const apply = (
          state: TypedState,
          changes: readonly (readonly [number, number, number])[],
        ): void => {
          const { rows } = state.root as unknown as Root;
          run(state, () => {
            for (const [what, key, place] of changes) {
              if (what === 0) rows.delete(`${key}`);
              else rows.set(`${key}`, { group: `${place % 2}`, place });
            }
          }, true);
        };
        const state = newState();
        apply(state, before);
        const read = (state: TypedState): unknown[] => {
          const { rows } = state.root as unknown as Root;
          return [
            rows.get("3"),
            rows.get("7"),
            ...rows.byGroup("1"),
            ...rows.byPlace("0", 2),
          ];
        };
        const reads = new Reads(state);
        const known = state.noting(reads, () => read(state));
        const fork = state.clone();
        apply(fork, apart);
        apply(state, later);
        // Rarely, as it takes long.
        if (more === 0) {
          const many = Array.from({ length: 2_000 }, () => [1, 99, 3] as const);
          apply(state, many);
        }
        for (const other of [fork, state, fork.clone()]) {
          const now = read(other);
          const isSame = now.length === known.length &&
            now.every((row, i) => row === known[i]);
          assertEquals(reads.isSame(other), isSame);
          if (!isSame) return;
        }
      },
    ),
    { numRuns: 400 },
  );
});
