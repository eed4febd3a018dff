import { assert, assertEquals } from "@std/assert";
import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { z } from "zod";
import * as mini from "zod/mini";
import {
  defineMachine,
  describeMachine,
  fingerprintOf,
  type MachineDescription,
  table,
} from "../../src/typed/mod.ts";
import { compareWithLock } from "../../src/cli/schema_lock.ts";
import { anything } from "../typed/schemas.ts";

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).href;
const TYPED = new URL("../../src/typed/mod.ts", import.meta.url).href;

const options = {
  name: "board",
  version: 1,
  state: () => ({
    cards: table({
      indexes: { byList: (card: { list: string }) => card.list },
    }),
    title: "",
  }),
  commands: {
    add: {
      args: z.object({ id: z.string(), list: z.string().trim() }),
      run: () => {},
    },
    rename: { args: z.object({ title: z.string() }), run: () => {} },
  },
  queries: {},
  changes: ["louder"],
};

const board = defineMachine(options);

Deno.test("Y9 the fingerprint is of names and versions, and of no schema, function or order", () => {
  const { add, rename } = options.commands;
  const same = [
    defineMachine({ ...options, queries: { all: () => 1 } }),
    defineMachine({ ...options, commands: { rename, add } }),
    defineMachine({
      ...options,
      commands: { add: { ...add, args: anything() }, rename },
    }),
    defineMachine({
      ...options,
      state: () => ({
        title: "x",
        cards: table({ indexes: { byList: () => "other" } }),
      }),
    }),
  ];
  for (const one of same) {
    assertEquals(fingerprintOf(one), fingerprintOf(board));
  }
  const others = [
    defineMachine({ ...options, name: "boards" }),
    defineMachine({ ...options, version: 2, migrate: { 1: (old) => old } }),
    defineMachine({ ...options, changes: [] }),
    defineMachine({ ...options, commands: { add } }),
    defineMachine({
      ...options,
      commands: {
        add: { ...add, version: 2, upcast: { 1: (a) => a } },
        rename,
      },
    }),
    defineMachine({ ...options, state: () => ({ cards: 1, title: "" }) }),
    defineMachine({ ...options, state: () => ({ cards: table() }) }),
  ];
  const all = [board, ...others].map(fingerprintOf);
  assertEquals(new Set(all).size, all.length);
  // Stored by applications: it must stay the same in later versions of the library.
  assertEquals(fingerprintOf(board), "469d5770aa05f5fd");
});

Deno.test("Y9 a definition is compared with its lock: what is stored may change only with a version", () => {
  const locked = describeMachine(board);
  const compare = (change: Partial<MachineDescription>): string[] => {
    const { problems, news } = compareWithLock(locked, {
      ...locked,
      ...change,
    });
    return [...problems.map((one) => `! ${one}`), ...news];
  };
  const { add, rename } = locked.commands;
  const other = {
    version: 1,
    args: { type: "object", properties: { id: { type: "number" } } },
  };
  const titled = { ...(add!.args as object), title: "Card", $comment: "x" };
  const cases: [Partial<MachineDescription>, RegExp | undefined][] = [
    [{}, undefined],
    // Annotations, and the order of keys, say nothing.
    [
      { commands: { rename: rename!, add: { version: 1, args: titled } } },
      undefined,
    ],
    [
      { commands: { add: other, rename: rename! } },
      /^! arguments of command add of board changed, its version did not/,
    ],
    [
      { commands: { add: { version: 1, args: null }, rename: rename! } },
      /^! arguments of command add of board cannot be compared/,
    ],
    [
      { commands: { add: { ...other, version: 2 }, rename: rename! } },
      /^command add of board has version 2$/,
    ],
    [
      { commands: { add: add! } },
      /^! command rename of board is gone: it is in logs/,
    ],
    [
      { commands: { add: add!, rename: rename!, more: other } },
      /^command more of board is new$/,
    ],
    [{ changes: [] }, /^! change "louder" of board is gone/],
    [{ changes: ["louder", "more"] }, /^change "more" of board is new$/],
    [
      { state: { cards: ["byList"] } },
      /^! value title is gone from the state of board, its version did not/,
    ],
    [
      { state: { cards: null, title: null } },
      /^! table cards is gone from the state/,
    ],
    [
      { state: { ...locked.state, more: [] } },
      /^! table more is new in the state of board, its version did not/,
    ],
    [
      { state: { cards: [], title: null } },
      /^indexes of cards in the state of board changed$/,
    ],
    [{ state: {}, version: 2 }, /^state of board has version 2$/],
    [{ version: 0 }, /^! state of board has version 0, and had 1$/],
  ];
  for (const [change, text] of cases) {
    const found = compare(change);
    assertEquals(found.length, text === undefined ? 0 : 1, `${found}`);
    if (text !== undefined) assert(text.test(found[0]!), found[0]);
  }
});

Deno.test("Y9 data in a schema, and names of its definitions, are compared although they are called like annotations", () => {
  const withArguments = (args: object): MachineDescription => ({
    ...describeMachine(board),
    commands: { add: { version: 1, args: { ...args } } },
  });
  const of = (key: string, title: unknown): MachineDescription =>
    withArguments({ [key]: { title } });
  const type = (type: string): object => ({ type });
  const cases = [
    [of("default", "a"), of("default", "b")],
    [of("const", "a"), of("const", "b")],
    [of("$defs", type("string")), of("$defs", type("null"))],
    [of("patternProperties", type("string")), of("patternProperties", true)],
  ] as const;
  for (const [before, after] of cases) {
    assertEquals(compareWithLock(before, before).problems, []);
    assertEquals(compareWithLock(before, after).problems.length, 1);
  }
});

Deno.test("Y9 arguments of valibot and zod/mini are described by their own converters", () => {
  const commands = {
    valibot: {
      args: v.object({ id: v.pipe(v.string(), v.minLength(1)) }),
      run: () => {},
    },
    mini: { args: mini.object({ id: mini.string() }), run: () => {} },
    zod: { args: z.object({ id: z.string() }), run: () => {} },
  };
  const machine = defineMachine({ ...options, commands });
  const alone = describeMachine(machine).commands;
  assertEquals(alone.valibot!.args, null);
  assertEquals(alone.mini!.args, null);
  const convert = (schema: { "~standard": { vendor: string } }): unknown =>
    schema["~standard"].vendor === "valibot"
      ? toJsonSchema(schema as never)
      : mini.toJSONSchema(schema as never);
  const described = describeMachine(machine, convert);
  for (const { args } of Object.values(described.commands)) {
    const { type, properties, required } = args as Record<string, unknown>;
    assertEquals([type, required], ["object", ["id"]]);
    assertEquals(
      (properties as { id: { type: string } }).id.type,
      "string",
    );
  }
  const { news, problems } = compareWithLock(
    describeMachine(machine),
    described,
  );
  assertEquals([news.length, problems.length], [2, 0]);
  const lost = compareWithLock(described, describeMachine(machine));
  assertEquals(lost.problems.length, 2);
});

interface Ended {
  readonly code: number;
  readonly text: string;
}

Deno.test("Y9 sampan schema lock and check keep a lock file in the application's repository", async () => {
  const folder = await Deno.makeTempDir({ prefix: "schema-" });
  const sampan = async (command: string): Promise<Ended> => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--allow-all", "--quiet", "--no-lock", "--no-check"],
        ...[MAIN, "schema", command, "board.ts"],
      ],
      cwd: folder,
      env: { NO_COLOR: "1" },
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
  };
  const write = (version: number, args: string, upcast = ""): Promise<void> =>
    Deno.writeTextFile(
      `${folder}/board.ts`,
      `import { defineMachine, table } from "${TYPED}";
       import * as z from "npm:zod@4.6.7/mini";
       export { toJSONSchema } from "npm:zod@4.6.7/mini";
       export const board = defineMachine({
         name: "board",
         version: 1,
         state: () => ({ cards: table() }),
         commands: {
           add: { args: ${args}, version: ${version}, upcast: {${upcast}}, run() {} },
         },
         queries: {},
       });
       export const other = 1;`,
    );
  const steps: [string, number, RegExp][] = [
    ["check", 1, /sampan\.lock\.json does not exist: write it with/],
    ["lock", 0, /sampan\.lock\.json has board/],
    ["check", 0, /sampan\.lock\.json is up to date/],
  ];
  try {
    await write(1, "z.object({ id: z.string() })");
    for (const [command, status, text] of steps) {
      const { code, text: found } = await sampan(command);
      assertEquals(code, status, found);
      assert(text.test(found), found);
    }
    const args = "z.object({ id: z.string(), text: z.string() })";
    await write(1, args);
    for (const command of ["check", "lock"]) {
      const { code, text } = await sampan(command);
      assertEquals(code, 1, text);
      assert(
        text.includes(
          "Arguments of command add of board changed, its version did not",
        ),
        text,
      );
    }
    await write(2, args, "1: (old) => ({ ...old, text: '' })");
    const { code, text } = await sampan("check");
    assertEquals(code, 1, text);
    assert(text.includes("Command add of board has version 2"), text);
    assertEquals((await sampan("lock")).code, 0);
    assertEquals((await sampan("check")).code, 0);
    await Deno.writeTextFile(`${folder}/board.ts`, "export const none = 1;");
    const none = await sampan("check");
    assert(none.text.includes("exports no machine"), none.text);
    await Deno.writeTextFile(
      `${folder}/board.ts`,
      `import { defineMachine } from "${TYPED}";
       const define = () => defineMachine({
         name: "board", version: 1, state: () => ({}), commands: {}, queries: {},
       });
       export const old = define(), board = define();`,
    );
    const two = await sampan("check");
    assert(two.text.includes("exports two machines of the name"), two.text);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
