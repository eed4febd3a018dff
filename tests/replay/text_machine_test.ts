import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { toBytes } from "@std/streams";
import { toUint8Array } from "../../src/bytes.ts";
import { ErrSnapshotStopped } from "../../src/statemachine/mod.ts";
import { checkConcurrentStateMachine } from "../../src/testing/mod.ts";
import { type Random, seeded } from "../support/random.ts";
import {
  encodeCommand,
  type Patch,
  TEXT_LENGTH_MAX,
  TextSnapshotError,
  TextStateMachine,
} from "./text_machine.ts";

const NEVER = new AbortController().signal;
const NO_FILES = { addFile(): void {} };

let index = 0;

/**
 * Applies commands to a machine in one batch; returns the values of the
 * results.
 */
function updateRaw(machine: TextStateMachine, cmds: Uint8Array[]): bigint[] {
  const entries = cmds.map((cmd) => ({
    index: ++index,
    cmd,
    result: undefined,
  }));
  const answered = machine.update(entries);
  assert(answered === entries);
  // If the machine retained a command's bytes, its state would change here
  // (R11).
  for (const cmd of cmds) cmd.fill(0xff);
  return answered.map(({ result }) => result?.value ?? -1n);
}

function update(machine: TextStateMachine, ...patches: Patch[]): bigint {
  return updateRaw(machine, [encodeCommand(patches)])[0] as bigint;
}

function machineWith(text: string): TextStateMachine {
  const machine = new TextStateMachine();
  assertEquals(update(machine, [0, 0, text]), 1n);
  return machine;
}

async function save(
  machine: TextStateMachine,
  context: unknown,
  stopped = NEVER,
): Promise<Uint8Array<ArrayBuffer>> {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const [, bytes] = await Promise.all([
    machine.saveSnapshot(context, writable, NO_FILES, stopped).then(
      () => writable.close(),
      async (error) => {
        await writable.abort(error).catch(() => {});
        throw error;
      },
    ),
    toBytes(readable),
  ]);
  return bytes;
}

/** The bytes in pieces of up to `size`. */
function inPieces(
  bytes: Uint8Array<ArrayBuffer>,
  size: number,
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller): void {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at += size));
    },
  });
}

const ALPHABET = [..."abcdefgh \nöß€字𝄞🐉\u{10ffff}\ufeff\0"];

function randomText(random: Random, max: number): string {
  let text = "";
  for (let i = random.below(max + 1); i > 0; i--) text += random.pick(ALPHABET);
  return text;
}

/** Edit near the previous one, or sometimes anywhere. */
function randomPatch(random: Random, length: number, near: number): Patch {
  const position = random.oneIn(4)
    ? random.below(length + 1)
    : Math.min(length, Math.max(0, near + random.below(5) - 2));
  const deleted = random.oneIn(2)
    ? 0
    : Math.min(length - position, random.below(random.oneIn(20) ? 200 : 4));
  const inserted = randomText(random, random.oneIn(20) ? 300 : 3);
  return [position, deleted, inserted];
}

Deno.test("TextStateMachine does to a text what a list of code points does", async (t) => {
  const seed = Number(
    Deno.env.get("SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0],
  );
  await t.step(`SEED=${seed}`, () => {
    const random = seeded(seed);
    const machine = new TextStateMachine();
    const model: string[] = [];
    let near = 0;
    for (let round = 0; round < 400; round++) {
      const cmds: Uint8Array[] = [];
      for (let i = random.below(12); i >= 0; i--) {
        const patches: Patch[] = [];
        for (let j = random.below(3); j >= 0; j--) {
          const patch = randomPatch(random, model.length, near);
          patches.push(patch);
          near = patch[0];
          model.splice(patch[0], patch[1], ...patch[2]);
        }
        cmds.push(encodeCommand(patches));
      }
      assertEquals(updateRaw(machine, cmds), cmds.map(() => 1n));
      assertEquals(machine.lookup("length"), model.length);
      if (round % 10 !== 0) continue;
      const text = model.join("");
      assertEquals(machine.lookup("text"), text);
      assertEquals(machine.getHash(), machineWith(text).getHash());
    }
    assertEquals(machine.lookup("text"), model.join(""));
  });
});

Deno.test("TextStateMachine keeps the contract", async () => {
  const transactions: Patch[][] = [
    [[0, 0, "a"]],
    [[0, 0, "bc🐉"]],
    [[1, 0, "öd"], [0, 1, ""]],
    [[2, 1, "€"]],
    [[0, 3, ""]],
    [],
  ];
  await checkConcurrentStateMachine({
    create: () => new TextStateMachine(),
    commands: [
      ...transactions.map((patches) => encodeCommand(patches)),
      new Uint8Array([0, 0, 2, 0x61]),
    ],
    queries: ["text", "length", "words"],
  });
});

Deno.test("TextStateMachine counts an astral code point as one", () => {
  const machine = machineWith("a🐉b");
  assertEquals(machine.lookup("length"), 3);
  assertEquals(update(machine, [2, 1, "𝄞"]), 1n);
  assertEquals(update(machine, [1, 1, ""]), 1n);
  assertEquals(machine.lookup("text"), "a𝄞");
});

Deno.test("TextStateMachine applies the patches of a transaction one after the other", () => {
  const machine = machineWith("world");
  assertEquals(update(machine, [0, 0, "Hello "], [11, 0, "!"]), 1n);
  assertEquals(machine.lookup("text"), "Hello world!");
  assertEquals(update(machine), 1n);
  assertEquals(machine.lookup("text"), "Hello world!");
});

Deno.test("TextStateMachine refuses a transaction whole when a patch is out of range", () => {
  const machine = machineWith("a🐉b");
  const hash = machine.getHash();
  for (
    const patches of [
      [[4, 0, "x"]],
      [[3, 1, ""]],
      [[0, 4, "x"]],
      [[0x7fffffff, 0x7fffffff, ""]],
      [[Number.MAX_SAFE_INTEGER, 0, ""]],
      [[0, 0, "fits"], [8, 0, "does not"]],
      [[0, 3, ""], [0, 1, ""]],
    ] satisfies Patch[][]
  ) {
    assertEquals(update(machine, ...patches), 0n);
    assertEquals(machine.lookup("text"), "a🐉b");
    assertEquals(machine.getHash(), hash);
  }
});

Deno.test("TextStateMachine refuses a command that makes no sense", () => {
  const machine = machineWith("abc");
  const bad = [
    [0],
    [0, 0],
    [0, 0, 2, 0x61],
    [0x80],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0, 0, 0],
    [0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0],
    [0, 0, 1, 0x61, 0],
    // Not UTF-8: a lone continuation, cut off, overlong, a surrogate, too large.
    [0, 0, 1, 0x80],
    [0, 0, 1, 0xc3],
    [0, 0, 2, 0xc0, 0x80],
    [0, 0, 2, 0xc3, 0x28],
    [0, 0, 3, 0xe0, 0x80, 0x80],
    [0, 0, 3, 0xed, 0xa0, 0x80],
    [0, 0, 3, 0xe2, 0x82, 0x28],
    [0, 0, 4, 0xf0, 0x80, 0x80, 0x80],
    [0, 0, 4, 0xf4, 0x90, 0x80, 0x80],
    [0, 0, 1, 0xff],
  ];
  assertEquals(
    updateRaw(machine, bad.map((bytes) => new Uint8Array(bytes))),
    bad.map(() => 0n),
  );
  assertEquals(machine.lookup("text"), "abc");
});

Deno.test("TextStateMachine refuses text beyond its limit", () => {
  const machine = new TextStateMachine();
  const half = encodeCommand([[0, 0, "x".repeat(TEXT_LENGTH_MAX / 2)]]);
  assertEquals(
    updateRaw(machine, [half.slice(), half.slice(), half]),
    [1n, 1n, 0n],
  );
  assertEquals(update(machine, [7, 0, "x"]), 0n);
  assertEquals(update(machine, [7, 1, "y"]), 1n);
  assertEquals(machine.lookup("length"), TEXT_LENGTH_MAX);
});

Deno.test("getHash() tells texts apart and does not tell how one came to be", () => {
  const long = "all work and no play makes jack a dull boy\n".repeat(200);
  const hash = machineWith(long).getHash();
  assert(hash >= 0n && hash < 1n << 64n);
  const typed = new TextStateMachine();
  for (let at = long.length; at > 0;) {
    const start = Math.max(0, at - 37);
    update(typed, [0, 0, long.slice(start, at)]);
    at = start;
  }
  update(typed, [4000, 0, "🐉"]);
  assertNotEquals(typed.getHash(), hash);
  update(typed, [4000, 1, ""]);
  assertEquals(typed.getHash(), hash);

  const texts = [
    "",
    "\0",
    "\0\0",
    "a",
    "b",
    "ab",
    "ba",
    "aab",
    "aba",
    "𝄞",
    "🐉",
  ];
  const hashes = texts.map((text) => machineWith(text).getHash());
  assertEquals(new Set(hashes).size, texts.length);
  assertEquals(hashes[0], new TextStateMachine().getHash());
});

Deno.test("saveSnapshot() saves the text as of prepareSnapshot() while edits go on", async () => {
  const random = seeded(4);
  const text = randomText(random, 100_000);
  const machine = machineWith(text);
  const context = machine.prepareSnapshot();
  const again = machine.prepareSnapshot();
  const saving = save(machine, context);
  for (let i = 0; i < 50; i++) {
    update(machine, randomPatch(random, [...text].length - 20_000, 9));
    await Promise.resolve();
  }
  const bytes = await saving;
  assertNotEquals(machine.lookup("text"), text);
  assertEquals(await save(machine, again), bytes);

  for (const size of [1, 7, 1024, bytes.length]) {
    const other = machineWith("something else");
    const recovering = other.recoverFromSnapshot(
      inPieces(bytes, size),
      [],
      NEVER,
    );
    assertEquals(other.lookup("text"), "something else");
    await recovering;
    assertEquals(other.lookup("text"), text);
    assertEquals(other.getHash(), machineWith(text).getHash());
    assertEquals(update(other, [0, 1, "x"], [1, 0, "y"]), 1n);
  }
});

Deno.test("saveSnapshot() and recoverFromSnapshot() do an empty text", async () => {
  const machine = new TextStateMachine();
  const bytes = await save(machine, machine.prepareSnapshot());
  const other = machineWith("x");
  await other.recoverFromSnapshot(inPieces(bytes, 1024), [], NEVER);
  assertEquals(other.lookup("text"), "");
});

Deno.test("saveSnapshot() and recoverFromSnapshot() end with the signal's reason", async () => {
  const machine = machineWith("abc");
  const bytes = await save(machine, machine.prepareSnapshot());
  const stopped = AbortSignal.abort(new ErrSnapshotStopped());
  await assertRejects(
    () => save(machine, machine.prepareSnapshot(), stopped),
    ErrSnapshotStopped,
  );
  await assertRejects(
    () => machine.recoverFromSnapshot(inPieces(bytes, 4), [], stopped),
    ErrSnapshotStopped,
  );
});

Deno.test("recoverFromSnapshot() refuses what is no snapshot of a text and keeps the text", async () => {
  const machine = machineWith("ab€");
  const good = await save(machine, machine.prepareSnapshot());
  const changed = (at: number, byte: number): Uint8Array<ArrayBuffer> => {
    const bytes = good.slice();
    bytes[at] = byte;
    return bytes;
  };
  const longer = new Uint8Array(good.length + 1);
  longer.set(good);
  for (
    const bad of [
      new Uint8Array(0),
      good.slice(0, 8),
      good.slice(0, -3),
      good.slice(0, -1),
      longer,
      changed(0, 0),
      changed(4, 9),
      changed(8, 0xff),
      changed(good.length - 1, 0x20),
    ]
  ) {
    for (const size of [1, 1024]) {
      await assertRejects(
        () => machine.recoverFromSnapshot(inPieces(bad, size), [], NEVER),
        TextSnapshotError,
      );
    }
  }
  assertEquals(machine.lookup("text"), "ab€");
});

Deno.test("lookup() throws on an unknown query", () => {
  const machine = machineWith("abc");
  assertThrows(() => machine.lookup("words" as "text"), TypeError, "words");
});

Deno.test("close() leaves the text to be looked up", () => {
  const machine = machineWith("abc");
  machine.close();
  assertEquals(machine.lookup("text"), "abc");
});

Deno.test("encodeCommand() takes five bytes for a keystroke", () => {
  assertEquals(encodeCommand([[10_000, 0, "a"]]).length, 5);
  assertEquals(encodeCommand([[10_000, 1, ""]]).length, 4);
  assertEquals([...encodeCommand([[1, 2, "ö"]])], [
    1,
    2,
    2,
    ...toUint8Array("ö", "Text"),
  ]);
});
