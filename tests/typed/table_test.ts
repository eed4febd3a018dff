import { assertEquals, assertThrows } from "@std/assert";
import { fc } from "../../src/deps/fast_check.ts";
import { SortedMap } from "../../src/typed/sorted_map.ts";
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

Deno.test("Y3 a command that throws, or is not kept, changes neither rows, indexes, values nor hash", () => {
  const state = newState();
  const root = state.root as unknown as Root;
  state.run(() => {
    root.rows.set("a", { group: "x", place: 2 });
    root.rows.set("b", { group: "x", place: 1 });
    root.count = 2;
  }, () => true);
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
    state.run(() => {
      change();
      throw new Error("handler");
    }, () => true)
  );
  assertEquals(seen(), shown);
  assertEquals(state.sums, before);
  state.run(change, () => false);
  assertEquals(seen(), shown);
  assertEquals(state.sums, before);
});

Deno.test("Y4 the hash depends on rows and values, not on how they came about", () => {
  const one = newState();
  const other = newState();
  const a = one.root as unknown as Root;
  const b = other.root as unknown as Root;
  one.run(() => {
    a.rows.set("1", { group: "x" });
    a.rows.set("2", { group: "y", place: 1 });
    a.count = 7;
  }, () => true);
  other.run(() => {
    b.rows.set("2", { group: "q" });
    b.rows.set("3", { group: "q" });
    b.count = 3;
  }, () => true);
  other.run(() => {
    b.rows.delete("3");
    b.rows.set("2", { group: "y", place: 1 });
    b.rows.set("1", { group: "x" });
    b.count = 7;
  }, () => true);
  assertEquals(one.sums, other.sums);
  other.run(() => b.rows.delete("1"), () => true);
  assertEquals(one.sums[0] === other.sums[0], false);
});

Deno.test("an index finds rows by leading parts of its key, in the order of the rest", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  state.run(() => {
    rows.set("a", { group: "x", place: 10 });
    rows.set("b", { group: "x", place: 9 });
    rows.set("c", { group: "x" });
    rows.set("d", { group: "xy", place: 1 });
  }, () => true);
  assertEquals(rows.byPlace("x").map(({ place }) => place), [9, 10]);
  assertEquals(rows.byPlace("x", 9), [{ group: "x", place: 9 }]);
  assertEquals(rows.byPlace().length, 3);
  assertEquals(rows.byGroup("x").length, 3);
  assertEquals(rows.byGroup("none"), []);
});

Deno.test("an iteration sees the table as it was when it began, also with rows deleted and set again", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  state.run(() => {
    for (let i = 0; i < 100; i++) rows.set(`${i}`, { group: "x" });
  }, () => true);
  const before = [...rows.keys()];
  const seen: string[] = [];
  state.run(() => {
    for (const [key] of rows) {
      seen.push(key);
      rows.delete(key);
      rows.set(`${key}'`, { group: "y" });
    }
  }, () => true);
  assertEquals(seen, before);
  assertEquals([...rows.keys()], before.map((key) => `${key}'`));
});

Deno.test("Y4 rows are copied and frozen, and change only in a command", () => {
  const state = newState();
  const { rows } = state.root as unknown as Root;
  const row = { group: "x", place: 1 };
  state.run(() => rows.set("a", row), () => true);
  row.group = "changed later";
  assertEquals(rows.get("a"), { group: "x", place: 1 });
  assertThrows(() => {
    (rows.get("a") as { group: string }).group = "y";
  }, TypeError);
  assertThrows(() => rows.set("b", row), TypeError, "outside of a command");
  assertThrows(() => rows.delete("a"), TypeError, "outside of a command");
});

Deno.test("an index cannot have the name of a method, and a table one state", () => {
  assertThrows(
    () => table({ indexes: { get: (row: Row) => row.group } }),
    ErrInvalidDefinition,
    '"get"',
  );
  const shared = tableOfRows();
  new TypedState({ shared });
  assertThrows(
    () => new TypedState({ shared }),
    ErrInvalidDefinition,
    "shared",
  );
});
