import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import type { Entry } from "../../mod.ts";
import { checkMachine, ContractViolation } from "../../src/testing/mod.ts";
import {
  defineMachine,
  ErrInvalidQuery,
  type Plain,
  table,
  type TableOf,
} from "../../src/typed/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { decodePlain } from "../../src/typed/plain.ts";
import { codeOf } from "../../src/typed/result.ts";
import { anything } from "./schemas.ts";
import { recover, snapshotOf } from "./snapshots.ts";

/** Machine whose one handler does `run`. */
// deno-lint-ignore explicit-function-return-type
function machineOf(
  run: (state: { value: unknown; readonly rows: Rows }) => unknown,
  onThrow: (error: unknown) => void = () => {},
) {
  return defineMachine({
    name: "trap",
    version: 1,
    state: () => ({ value: null as unknown, rows: table<unknown>() }),
    commands: { run: { args: anything<null>(), run: (state) => run(state) } },
    queries: {
      value: (state) => state.value,
      rows: (state) => [...state.rows],
    },
    onThrow,
  });
}

type Rows = TableOf<unknown>;

const RUN = encodeCommand({
  name: "run",
  version: 1,
  at: 0,
  by: null,
  seed: new Uint8Array(16),
  args: null,
});

/** Applies the command once; returns the machine and the code of a rejection. */
// deno-lint-ignore explicit-function-return-type
function ran(...[run, onThrow]: Parameters<typeof machineOf>) {
  const definition = machineOf(run, onThrow);
  const machine = definition.create();
  const entry: Entry = { index: 1, cmd: RUN };
  machine.update([entry]);
  const result = entry.result!;
  return { definition, machine, code: codeOf(result), result };
}

const value = { name: "value", args: [] };
const rows = { name: "rows", args: [] };

Deno.test("Y4 trap: a snapshot keeps the order of keys, so that a recovered replica iterates alike", async () => {
  const { definition, machine } = ran((state) => {
    state.value = { z: 1, a: 2, m: { y: 1, b: 2 } };
    state.rows.set("1", { z: 1, a: 2 });
  });
  const other = await recover(definition.create(), await snapshotOf(machine));
  const keysOf = (of: unknown): string => JSON.stringify(of);
  assertEquals(keysOf(other.lookup(value)), '{"z":1,"a":2,"m":{"y":1,"b":2}}');
  assertEquals(keysOf(other.lookup(rows)), '[["1",{"z":1,"a":2}]]');
});

Deno.test("Y4 trap: integer-like keys come first, before and after a snapshot", async () => {
  const { definition, machine } = ran((state) => {
    state.value = { b: 1, "10": 2, a: 3, "9": 4, "-1": 5, "01": 6 };
  });
  const before = JSON.stringify(machine.lookup(value));
  assertEquals(before, '{"9":4,"10":2,"b":1,"a":3,"-1":5,"01":6}');
  const other = await recover(definition.create(), await snapshotOf(machine));
  assertEquals(JSON.stringify(other.lookup(value)), before);
});

Deno.test("Y4 trap: −0 is stored as 0, on the replica that ran the command as on a recovered one", async () => {
  const { definition, machine } = ran((state) => {
    state.value = { n: -0, list: [-0] };
    state.rows.set("1", -0);
  });
  const other = await recover(definition.create(), await snapshotOf(machine));
  for (const one of [machine, other]) {
    assert(Object.is((one.lookup(value) as { n: number }).n, 0));
    assertEquals(one.lookup(rows), [["1", 0]]);
  }
  assertEquals(machine.getHash(), other.getHash());
});

Deno.test("Y4 trap: undefined, Map, Set, Date, NaN, lone surrogates, holes, classes, functions, symbols and cycles are refused with their path", () => {
  class Card {
    text = "";
  }
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  const holes = new Array<unknown>(3);
  const traps: [unknown, string][] = [
    [{ a: undefined }, "value.a is undefined"],
    [{ a: [1, new Map()] }, "value.a[1] is"],
    [new Set(), "value is"],
    [{ at: new Date(0) }, "value.at is"],
    [{ n: NaN }, "value.n is NaN"],
    [[Infinity], "value[0] is Infinity"],
    [{ text: "\ud800" }, "value.text is"],
    [{ "\ud800": 1 }, "lone surrogate"],
    [holes, "value is an array with holes"],
    [new Card(), "value is"],
    [{ f: () => 1 }, "value.f is"],
    [{ s: Symbol("x") }, "value.s is"],
    [2n ** 64n, "value is 18446744073709551616n, which has over 64 bits"],
    [cycle, "nested over"],
  ];
  for (const [trap, text] of traps) {
    let thrown: unknown;
    const { machine, code } = ran((state) => {
      state.value = trap;
    }, (error) => thrown = error);
    assertEquals(code, "sampan:threw");
    assert(`${thrown}`.includes(text), `${thrown}`);
    assertEquals(machine.lookup(value), null);
  }
});

Deno.test("Y2 trap: the text of a native error is in no result, which is the same whatever was thrown", () => {
  const throws: (() => unknown)[] = [
    () => (null as unknown as { a: number }).a,
    () => JSON.parse("{"),
    () => new Array(-1),
    () => BigInt(0.5),
    () => structuredClone(() => 1),
  ];
  const results = throws.map((run) => decodePlain(ran(run).result.data!));
  assertEquals(results, results.map((): Plain => "sampan:threw"));
});

Deno.test("Y4 trap: an iteration sees the table as it was when it began, and a row that is deleted and set again keeps its place", async () => {
  const { definition, machine } = ran((state) => {
    for (const key of ["b", "a", "c"]) state.rows.set(key, 1);
    const seen: string[] = [];
    for (const [key] of state.rows) {
      seen.push(key);
      state.rows.delete(key);
      state.rows.set(`${key}${key}`, 2);
      state.rows.set(key, 2);
    }
    state.value = seen;
  });
  const expected = [["a", 2], ["aa", 2], ["b", 2], ["bb", 2], ["c", 2], [
    "cc",
    2,
  ]];
  assertEquals(machine.lookup(value), ["a", "b", "c"]);
  assertEquals(machine.lookup(rows), expected);
  const other = await recover(definition.create(), await snapshotOf(machine));
  assertEquals(other.lookup(rows), expected);
});

Deno.test("Y4 trap: what a handler keeps is frozen, and what it stored is a copy", () => {
  const kept: { list: number[] } = { list: [1] };
  let thrown: unknown;
  const first = ran((state) => {
    state.value = kept;
    state.rows.set("1", kept);
  });
  kept.list.push(2);
  assertEquals(first.machine.lookup(value), { list: [1] });
  assertEquals(first.machine.lookup(rows), [["1", { list: [1] }]]);
  const { code } = ran((state) => {
    state.rows.set("1", { list: [1] });
    (state.rows.get("1") as { list: number[] }).list.push(2);
  }, (error) => thrown = error);
  assertEquals(code, "sampan:threw");
  assert(thrown instanceof TypeError, `${thrown}`);
});

Deno.test("Y4 trap: bytes of a row or a value that are changed in place change nothing: each access gets a copy", () => {
  const change = (bytes: unknown): void => void ((bytes as Uint8Array)[0] = 2);
  const machine = machineOf((state) => {
    if (state.rows.size === 0) {
      state.value = [new Uint8Array([1])];
      state.rows.set("1", new Uint8Array([1]));
    } else change((state.value as Uint8Array[])[0]);
    change(state.rows.get("1"));
    for (const row of state.rows.values()) change(row);
  }).create();
  const apply = (one: Pick<typeof machine, "update">): void =>
    void one.update([{ index: 1, cmd: RUN }]);
  apply(machine);
  const expected = [["1", new Uint8Array([1])]];
  const hash = machine.getHash();
  apply(machine);
  apply(machine.fork() as typeof machine);
  for (const [, row] of machine.lookup(rows) as [string, unknown][]) {
    change(row);
  }
  assertEquals(machine.lookup(rows), expected);
  assertEquals(machine.lookup(value), [new Uint8Array([1])]);
  assertEquals(machine.getHash(), hash);
});

Deno.test("Y8 trap: a row that grows beyond what a snapshot can have undoes the command", async () => {
  const grow = (rows: Rows): void =>
    rows.set("1", `${rows.get("1") ?? ""}${"x".repeat(2 ** 20)}`);
  const definition = machineOf(({ rows }) => grow(rows));
  const machine = definition.create();
  const codes = [1, 2, 3, 4].map((index) => {
    const entry: Entry = { index, cmd: RUN };
    machine.update([entry]);
    return codeOf(entry.result!);
  });
  assertEquals(codes, [undefined, undefined, undefined, "sampan:threw"]);
  const other = await recover(definition.create(), await snapshotOf(machine));
  assertEquals(other.getHash(), machine.getHash());
});

Deno.test("Y3 trap: an index key that cannot be compared with others undoes the command, and stops nothing", () => {
  const keys = [NaN, new Date(0), {}, 5n, [undefined], [[1]], Symbol("x")];
  for (const key of keys) {
    const thrown: unknown[] = [];
    const machine = defineMachine({
      name: "trap",
      version: 1,
      state: () => ({
        rows: table({ indexes: { by: (_row: unknown) => key as number } }),
      }),
      commands: {
        run: {
          args: anything<null>(),
          run: ({ rows }) => rows.set("1", null),
        },
      },
      queries: { rows: ({ rows }) => [...rows.by(), ...rows] },
      onThrow: (error) => thrown.push(error),
    }).create();
    const entry: Entry = { index: 1, cmd: RUN };
    machine.update([entry]);
    assertEquals(codeOf(entry.result!), "sampan:threw");
    assertEquals(machine.lookup(rows), []);
    assert(`${thrown}`.includes("Index by has the key"), `${thrown}`);
  }
});

Deno.test("Y3 trap: an asynchronous handler is undone with a reason, and what it does later neither counts nor ends the process", async () => {
  let thrown: unknown;
  const { machine, code } = ran(async (state) => {
    state.value = 1;
    await Promise.resolve();
    state.value = 2;
    state.rows.set("1", 1);
  }, (error) => thrown = error);
  assertEquals(code, "sampan:threw");
  assert(`${thrown}`.includes("without async"), `${thrown}`);
  await new Promise((done) => setTimeout(done));
  const entry: Entry = { index: 2, cmd: new Uint8Array() };
  machine.update([entry]);
  assertEquals(machine.lookup(value), null);
  assertEquals(machine.lookup(rows), []);
});

Deno.test("an answer that is an iterator or a promise is refused: it does not stand for the state that was asked", () => {
  const machine = defineMachine({
    name: "trap",
    version: 1,
    state: () => ({ rows: table<unknown>() }),
    commands: {},
    queries: {
      iterator: ({ rows }) => rows.values(),
      // deno-lint-ignore require-await
      promise: async ({ rows }) => rows.get("1"),
    },
  }).create();
  for (const name of ["iterator", "promise"]) {
    assertThrows(
      () => machine.lookup({ name, args: [] }),
      ErrInvalidQuery,
      `Query ${name} answers with a`,
    );
  }
});

Deno.test("C6 trap: state outside of the machine, the clock and chance are found by checkMachine()", async () => {
  const outside: unknown[] = [];
  const traps: ((state: { value: unknown }) => unknown)[] = [
    (state) => state.value = outside.push(1),
    (state) => state.value = Date.now(),
    (state) => state.value = crypto.randomUUID(),
    () => new Date().getTime(),
  ];
  for (const trap of traps) {
    const machine = defineMachine({
      name: "trap",
      version: 1,
      state: () => ({ value: null as unknown }),
      commands: { run: { args: z.null(), run: (state) => trap(state) } },
      queries: { value: (state) => state.value },
    });
    const found = await checkMachine(machine, { seed: 1, runs: 5 })
      .then(() => undefined, (error) => error);
    assert(found instanceof ContractViolation, `${trap}: ${found}`);
  }
});
