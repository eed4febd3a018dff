import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import { z } from "zod";
import * as mini from "zod/mini";
import * as v from "valibot";
import { toJsonSchema } from "@valibot/to-json-schema";
import {
  checkMachine,
  checkUpgrade,
  ContractViolation,
  simulateMachine,
  UpgradeViolation,
} from "../../src/testing/mod.ts";
import { defineMachine, type Schema, table } from "../../src/typed/mod.ts";

interface Note {
  readonly text: string;
  readonly tags: readonly string[];
}

const add = z.object({
  id: z.string().max(4),
  text: z.string().trim(),
  tags: z.array(z.enum(["red", "blue"])).max(3).default([]),
});

const state = () => ({
  notes: table({ indexes: { byText: (note: Note) => note.text } }),
  count: 0,
});

type Notes = ReturnType<typeof state>;

const base = {
  name: "notes",
  version: 1,
  state,
  queries: {
    all: (state: Notes) => [...state.notes],
    find: (state: Notes, text: string) => state.notes.byText(text),
  },
};

const notes = defineMachine({
  ...base,
  commands: {
    add: {
      args: add,
      run: (state, { id, ...note }, ctx) => {
        if (state.notes.has(id)) return ctx.reject("exists");
        state.notes.set(id, note);
        return ++state.count;
      },
      inverse: (_before, { id }) => ({ name: "remove", args: { id } }),
    },
    remove: {
      args: z.object({ id: z.string().max(4) }),
      run: (state, { id }) => state.notes.delete(id),
    },
  },
});

Deno.test("C6 checkMachine() draws commands from the schemas, and passes a correct definition [Y1]", async () => {
  await checkMachine(notes, { queries: { find: [["a"], [""]] }, runs: 10 });
});

/** Violation that a suite must throw. */
async function violationOf<T extends Error>(
  suite: Promise<void>,
  type: new (...args: never[]) => T,
): Promise<T> {
  const error = await suite.then(() => undefined, (error) => error);
  assertInstanceOf(error, type);
  return error;
}

Deno.test("C6 checkMachine() finds handlers that use what is not in the command, and shows the smallest history of commands", async () => {
  let calls = 0;
  const traps = {
    clock: (): unknown => Date.now(),
    random: (): unknown => Math.random(),
    closure: (): unknown => ++calls,
  };
  for (const [name, trap] of Object.entries(traps)) {
    const wrong = defineMachine({
      name,
      version: 1,
      state: () => ({ value: 0 as unknown }),
      commands: {
        set: {
          args: z.object({ id: z.string() }),
          run: (state) => {
            state.value = trap();
          },
        },
      },
      queries: { value: (state) => state.value },
    });
    const found = await violationOf(
      checkMachine(wrong, { seed: 1 }),
      ContractViolation,
    );
    assert(found.message.includes('1. set {"id":'), found.message);
    assertEquals(found.commands.length, 1, name);
  }
});

/** Machine whose command has arguments of a schema. */
// deno-lint-ignore explicit-function-return-type
function putting(args: Schema<{ key: string; value: number }>) {
  return defineMachine({
    name: "x",
    version: 1,
    state: () => ({ values: table<number>() }),
    commands: {
      put: {
        args,
        run: (state, { key, value }) => state.values.set(key, value),
      },
    },
    queries: { all: (state) => [...state.values] },
  });
}

Deno.test("C6 checkMachine() and checkUpgrade() draw arguments by the converter of a library that has no JSON Schema", async () => {
  const cases = [
    [
      putting(v.object({ key: v.string(), value: v.number() })),
      { toJSONSchema: toJsonSchema },
    ],
    [
      putting(mini.object({ key: mini.string(), value: mini.number() })),
      { toJSONSchema: mini.toJSONSchema },
    ],
  ] as const;
  for (const [machine, options] of cases) {
    await assertRejects(() => checkMachine(machine), TypeError, "toJSONSchema");
    await checkMachine(machine, { ...options, runs: 5 });
    await checkUpgrade(machine, machine, { ...options, runs: 5 });
  }
});

Deno.test("C6 checkMachine() asks for samples where a schema offers no JSON Schema", async () => {
  const machine = putting(v.object({ key: v.string(), value: v.number() }));
  await assertRejects(() => checkMachine(machine), TypeError, "commands.put");
  const put = [{ key: "a", value: 1 }, { key: "b", value: -0.5 }];
  await checkMachine(machine, { commands: { put }, runs: 5 });
  await assertRejects(
    // @ts-expect-error: samples of a command that does not exist do not compile
    () => checkMachine(machine, { commands: { put, get: [] } }),
    TypeError,
    "get",
  );
});

// ------------------------------------------------------------------- upgrades

const next = defineMachine({
  ...base,
  version: 2,
  state: () => ({
    notes: table<Note & { readonly done: boolean }>(),
    total: 0,
  }),
  commands: {
    add: {
      version: 2,
      upcast: { 1: (old: object) => ({ ...old, done: false }) },
      args: add.extend({ done: z.boolean() }),
      run: (state, { id, ...note }, ctx) => {
        if (state.notes.has(id)) return ctx.reject("exists");
        if (ctx.since("limit") && state.notes.size > 2) {
          return ctx.reject("full");
        }
        state.notes.set(id, note);
        return ++state.total;
      },
    },
    remove: {
      args: z.object({ id: z.string().max(4) }),
      run: (state, { id }) => state.notes.delete(id),
    },
    finish: {
      args: z.object({ id: z.string().max(4) }),
      run: (state, { id }) => {
        const note = state.notes.get(id);
        if (note !== undefined) state.notes.set(id, { ...note, done: true });
      },
    },
  },
  queries: { all: (state) => [...state.notes] },
  changes: ["limit"],
  migrate: {
    1: ({ notes, count }) => ({
      notes: new Map(
        [...notes as Map<string, object>].map((
          [id, note],
        ) => [id, { ...note, done: false }]),
      ),
      total: count!,
    }),
  },
});

Deno.test("Y7 checkUpgrade() passes a new version that does for old commands what the old one did [Y6, Y8]", async () => {
  await checkUpgrade(notes, next, { runs: 50 });
  await checkUpgrade(notes, notes, { queries: { find: [["a"]] }, runs: 20 });
  await assertRejects(() => checkUpgrade(next, notes), TypeError, "newer");
});

/** The machine of `notes` with another handler, schema, or more. */
// deno-lint-ignore explicit-function-return-type
function changed(
  run: (state: Notes, id: string, note: Note) => unknown,
  args = add as typeof add,
  all: (state: Notes) => unknown = base.queries.all,
) {
  return defineMachine({
    ...base,
    queries: { all },
    commands: {
      add: {
        args,
        run: (state, { id, ...note }, ctx) => {
          if (state.notes.has(id)) return ctx.reject("exists");
          return run(state, id, note);
        },
      },
      remove: {
        args: z.object({ id: z.string().max(4) }),
        run: (state, { id }) => state.notes.delete(id),
      },
    },
  });
}

Deno.test("Y7 checkUpgrade() finds results, states, answers and refusals that differ, with the smallest history", async () => {
  const keep = (state: Notes, id: string, note: Note): number => {
    state.notes.set(id, note);
    return ++state.count;
  };
  const cases = [
    // A result.
    [
      changed((state, id, note) => `${keep(state, id, note)}`),
      1,
      /result 1 in the old code, and "1" in the new/,
    ],
    // A state, once there are two notes.
    [
      changed((state, id, note) =>
        keep(state, id, state.notes.size > 0 ? { ...note, tags: [] } : note)
      ),
      2,
      /After command 2, the state of the old code, migrated, is/,
    ],
    // The order of keys is a part of the state.
    [
      changed((state, id, { text, tags }) => keep(state, id, { tags, text })),
      1,
      /After command 1, the state/,
    ],
    // An answer.
    [
      changed(keep, add, ({ notes }) => [...notes.keys()]),
      1,
      /query all\(\) is answered with .* by the old code/,
    ],
    // A queued command.
    [
      changed(keep, add.extend({ text: z.string().max(2) }) as typeof add),
      1,
      /Command 1 is refused by the new server: add.text/,
    ],
  ] as const;
  for (const [machine, length, text] of cases) {
    const found = await violationOf(
      checkUpgrade(notes, machine, {
        seed: 5,
        commands: {
          add: [
            { id: "1", text: "abc", tags: ["red"] },
            { id: "2", text: "b", tags: ["red"] },
          ],
        },
      }),
      UpgradeViolation,
    );
    assert(text.test(found.message), found.message);
    assertEquals(found.commands.length, length, found.message);
    assert(found.message.includes('1. add {"id":"1"'), found.message);
  }
});

Deno.test("Y6 checkUpgrade() finds a command and a change that the new code has dropped", async () => {
  const without = defineMachine({ ...base, commands: {} });
  const found = await violationOf(
    checkUpgrade(notes, without, { seed: 1 }),
    UpgradeViolation,
  );
  assert(/has no command|not known to the new code/.test(found.detail));
  const forgotten = defineMachine({
    name: "x",
    version: 1,
    state: () => ({}),
    commands: { a: { args: z.null(), run: () => 1 } },
    queries: {},
    changes: ["louder"],
  });
  const plain = defineMachine({
    name: "x",
    version: 1,
    state: () => ({}),
    commands: { a: { args: z.null(), run: () => 1 } },
    queries: {},
  });
  const other = await violationOf(
    checkUpgrade(forgotten, plain, { seed: 1 }),
    UpgradeViolation,
  );
  assert(other.message.includes('1. activate "louder"'), other.message);
});

// ------------------------------------------------------------------ simulation

Deno.test("U30 an application's test runs a typed machine on a server and devices in simulated network and time", async () => {
  const times: number[] = [];
  for (let i = 0; i < 2; i++) {
    await simulateMachine(notes, async (world) => {
      const ann = await world.addDevice("ann");
      const bob = await world.addDevice("bob");
      ann.goOffline();
      await ann.app.do.add({ id: "1", text: " rice " });
      await bob.app.do.add({ id: "1", text: "tea" });
      await world.sleep(1000);
      ann.kill();
      await ann.start();
      ann.goOnline();
      await world.settle();
      assertEquals(await bob.app.ask.all(), [["1", { text: "tea", tags: [] }]]);
      assertEquals(ann.app.pending().map(({ code }) => code), ["exists"]);
      const text: string | undefined = (await ann.app.ask.find("tea"))[0]?.text;
      assertEquals(text, "tea");
      times.push(world.now);
    }, { seed: 3 });
  }
  assertEquals(times[0], times[1]);
});
