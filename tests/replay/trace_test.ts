import { assert, assertEquals, assertRejects } from "@std/assert";
import { toBytes } from "@std/streams";
import { recorded } from "./recorded.ts";
import { commandChunks, transactions } from "./commands.ts";
import { TextStateMachine } from "./text_machine.ts";
import { loadTrace, recordTyping, type Trace, TraceError } from "./trace.ts";

const GOOD = {
  startContent: "Wörld🐉",
  endContent: "Hello Wörld",
  txns: [
    { time: "2020", patches: [[0, 0, "Hello "]] },
    { patches: [[11, 1, "?"], [11, 1, ""]] },
    { patches: [] },
  ],
};

async function gzip(
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(
    new CompressionStream("gzip"),
  );
  return await toBytes(stream);
}

/** Runs `body` with the path of a file of that content. */
async function withFile(
  content: string | Uint8Array<ArrayBuffer>,
  body: (path: string) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  try {
    await Deno.writeFile(
      path,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
    await body(path);
  } finally {
    await Deno.remove(path);
  }
}

/**
 * Final text of a history on a machine that receives `chunk` commands at a
 * time.
 */
function play(trace: Trace, chunk = 100): string {
  const machine = new TextStateMachine();
  let index = 0;
  for (const cmds of commandChunks(transactions(trace), chunk)) {
    const entries = cmds.map((cmd) => ({ index: ++index, cmd }));
    for (const { result } of machine.update(entries)) {
      assertEquals(result?.value, 1n);
    }
  }
  return machine.lookup("text") as string;
}

Deno.test("loadTrace() reads a history, gzipped or not", async () => {
  const bytes = new TextEncoder().encode(JSON.stringify(GOOD));
  for (const content of [bytes, await gzip(bytes)]) {
    await withFile(content, async (path) => {
      const trace = await loadTrace(path);
      assertEquals(trace.name, path);
      assertEquals(trace.txns.length, 3);
      assertEquals(trace.txns[1], [[11, 1, "?"], [11, 1, ""]]);
      assertEquals(play(trace), GOOD.endContent);
    });
  }
});

Deno.test("transactions() inserts a long start content in pieces", () => {
  const startContent = "ab🐉".repeat(50_000);
  const trace = { name: "", startContent, endContent: startContent, txns: [] };
  assert(transactions(trace).length > 2);
  assertEquals(play(trace), startContent);
});

Deno.test("loadTrace() throws a TraceError of one line", async (t) => {
  const good = new TextEncoder().encode(JSON.stringify(GOOD));
  const packed = await gzip(good);
  const broken = packed.slice();
  broken[packed.length >> 1] = broken[packed.length >> 1]! ^ 0xff;
  const json = (change: Record<string, unknown>): string =>
    JSON.stringify({ ...GOOD, ...change });
  const patch = (...patch: unknown[]): string =>
    json({ txns: [{ patches: [patch] }] });
  const cases: [string, string | Uint8Array<ArrayBuffer>, string][] = [
    ["empty", "", "empty"],
    ["no JSON", "Dear diary", "no JSON"],
    ["JSON cut off", good.slice(0, -5), "no JSON"],
    ["no UTF-8", new Uint8Array([0x22, 0xff, 0x22]), "not UTF-8"],
    ["gzip cut off", packed.slice(0, -20), "damaged"],
    ["gzip without its checksum", packed.slice(0, -4), "damaged"],
    ["gzip head only", packed.slice(0, 2), "damaged"],
    ["gzip broken", broken, "damaged"],
    ["null", "null", "no object"],
    ["other JSON", "[1, 2]", "no startContent"],
    ["no endContent", json({ endContent: 7 }), "no endContent"],
    ["no txns", json({ txns: {} }), "no txns"],
    ["no patches", json({ txns: [{}] }), "txns[0]"],
    ["null txn", json({ txns: [null] }), "txns[0]"],
    ["no patch", patch(1, 2), "txns[0].patches[0]"],
    ["negative position", patch(-1, 0, ""), "txns[0].patches[0]"],
    ["fractional count", patch(0, 0.5, ""), "txns[0].patches[0]"],
    ["number inserted", patch(0, 0, 1), "txns[0].patches[0]"],
    ["half a pair inserted", patch(0, 0, "\ud83d"), "txns[0].patches[0]"],
    ["half a pair in it", json({ endContent: "\ud83d" }), "not Unicode"],
    ["out of range", patch(6, 1, ""), "out of range"],
    [
      "too large a transaction",
      patch(0, 0, "€".repeat(400_000)),
      "too large",
    ],
  ];
  for (const [name, content, message] of cases) {
    await t.step(name, async () => {
      await withFile(content, async (path) => {
        const error = await assertRejects(
          () => loadTrace(path),
          TraceError,
          message,
        );
        assertEquals(error.file, path);
        assert(error.message.startsWith(`${path}: `));
        assert(!error.message.includes("\n"));
      });
    });
  }
  await t.step("missing", async () => {
    const error = await assertRejects(
      () => loadTrace("no\n\x1b[31msuch\u2028.json"),
      TraceError,
    );
    assertEquals(error.message, "no [31msuch .json: no such file");
  });
  await t.step("a folder", async () => {
    await assertRejects(() => loadTrace("."), TraceError, "not a file");
  });
});

Deno.test("recordTyping() leads to its text", () => {
  for (const text of ["", "a", "🐉", "Hello 🐉\n".repeat(500)]) {
    for (let seed = 0; seed < 20; seed++) {
      const trace = recordTyping(text, { seed });
      assertEquals(trace.endContent, text);
      assertEquals(play(trace), text);
      assertEquals(recordTyping(text, { seed }), trace);
    }
  }
});

Deno.test("recordTyping() makes typos and jumps back", () => {
  const text = "The quick brown fox jumps over the lazy dog. ".repeat(100);
  const { txns } = recordTyping(text);
  const positions = txns.map((patches) => patches[0]?.[0] as number);
  const jumps = positions.filter((position, i) =>
    i > 0 && Math.abs(position - (positions[i - 1] as number)) > 10
  );
  const deletions = txns.filter((patches) => patches[0]?.[1] === 1);
  assert(jumps.length > 5, `${jumps.length} jumps`);
  assert(deletions.length > 50, `${deletions.length} deletions`);
});

for (
  const [name, edits] of [
    ["automerge-paper", 259_778],
    ["sveltecomponent", 18_335],
  ] as const
) {
  const { url, ignore, note } = recorded(name);
  Deno.test({
    name: `loadTrace() reads ${name}, which leads to its text${note}`,
    ignore,
    async fn(): Promise<void> {
      const trace = await loadTrace(url);
      assertEquals(trace.txns.length, edits);
      assert(play(trace, 1024) === trace.endContent);
    },
  });
}
