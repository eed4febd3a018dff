import { assertEquals, assertStringIncludes } from "@std/assert";
import { readHistory, violationsIn } from "./check.ts";
import type { HistoryLine, Input, Output } from "./record.ts";

let ids = 0;

/** Operation of client `client` on key "x" from `call` to `end`; null for an unknown outcome. */
function line(
  client: string,
  input: Input,
  call: number,
  end: number | null,
  output: Output | null,
): HistoryLine {
  const { op } = input;
  const id = op === "get" ? undefined : `i${++ids}`;
  return {
    client,
    op,
    key: "x",
    input: { ...input, id },
    output,
    ok: end === null ? null : true,
    call,
    return: end,
  };
}

const put = (value: string): Input => ({ op: "put", value });
const append = (value: string): Input => ({ op: "append", value });
const get: Input = { op: "get" };
const cas = (expected: string | null, value: string): Input => ({
  op: "cas",
  expected,
  value,
});

const GOOD: Readonly<Record<string, () => HistoryLine[]>> = {
  "overlapping operations in either order": () => [
    line("a", put("1"), 1, 10, { value: "1" }),
    line("b", put("2"), 2, 9, { value: "2" }),
    line("c", get, 11, 12, { value: "1" }),
  ],
  "an append of unknown outcome that takes effect long after": () => [
    line("a", put("1"), 1, 2, { value: "1" }),
    line("b", append("2"), 3, null, null),
    line("c", get, 100, 101, { value: "1" }),
    line("c", get, 200, 201, { value: "12" }),
  ],
  "a swap of unknown outcome that never takes effect": () => [
    line("a", put("1"), 1, 2, { value: "1" }),
    line("b", cas("1", "2"), 3, null, null),
    line("c", cas("1", "3"), 4, 5, { value: "3", swapped: true }),
    line("c", get, 6, 7, { value: "3" }),
  ],
  "a swap that finds another value": () => [
    line("a", cas(null, "1"), 1, 2, { value: "1", swapped: true }),
    line("b", cas(null, "2"), 3, 4, { value: "1", swapped: false }),
  ],
};

const BAD: Readonly<Record<string, () => HistoryLine[]>> = {
  "a read of an old value": () => [
    line("a", put("1"), 1, 2, { value: "1" }),
    line("a", put("2"), 3, 4, { value: "2" }),
    line("b", get, 5, 6, { value: "1" }),
  ],
  "reads that go back in time": () => [
    line("a", put("1"), 1, 2, { value: "1" }),
    line("b", put("2"), 3, null, null),
    line("c", get, 10, 11, { value: "2" }),
    line("d", get, 12, 13, { value: "1" }),
  ],
  "an append that is in the value twice": () => [
    line("a", append("1"), 1, null, null),
    line("b", get, 5, 6, { value: "11" }),
  ],
  "an acknowledged append that a later one does not show": () => [
    line("a", append("1"), 1, 2, { value: "1" }),
    line("b", append("2"), 3, 4, { value: "2" }),
  ],
  "two swaps from one value": () => [
    line("a", put("1"), 1, 2, { value: "1" }),
    line("b", cas("1", "2"), 3, 8, { value: "2", swapped: true }),
    line("c", cas("1", "3"), 3, 8, { value: "3", swapped: true }),
  ],
  "an effect before the call": () => [
    line("a", get, 1, 2, { value: "1" }),
    line("b", put("1"), 3, 4, { value: "1" }),
  ],
};

for (const [what, make] of Object.entries(GOOD)) {
  Deno.test(`H2 a good history with ${what} passes`, () => {
    assertEquals(violationsIn(make()), []);
  });
}

for (const [what, make] of Object.entries(BAD)) {
  Deno.test(`H2 a history with ${what} is a violation`, () => {
    const [text] = violationsIn(make());
    assertStringIncludes(text!, 'No order explains these calls of key "x"');
  });
}

Deno.test("H3 H5 a command that is lost, applied twice, applied though it was rejected, or never called is a violation", () => {
  const one = line("a", put("1"), 1, 2, { value: "1" });
  const { id } = one.input;
  const values = { x: "1" };
  assertEquals(violationsIn([one], { ids: [id!], values }), []);
  for (
    const [lines, applied, words] of [
      [[one], [], "acknowledged, and is lost"],
      [[one], [id!, id!], "applied twice"],
      [[{ ...one, ok: false }], [id!], "rejected, and is applied"],
      [[one], [id!, "other"], "never called"],
    ] as const
  ) {
    const found = violationsIn(lines, { ids: applied, values });
    assertStringIncludes(found.join("\n"), words);
  }
});

Deno.test("H2 the state at the end counts as a read after all operations", () => {
  const one = line("a", put("1"), 1, 2, { value: "1" });
  const late = line("b", append("2"), 3, null, null);
  const ids = [one.input.id!];
  assertEquals(
    violationsIn([one, late], {
      ids: [...ids, late.input.id!],
      values: { x: "12" },
    }),
    [],
  );
  assertStringIncludes(
    violationsIn([one, late], { ids, values: { x: "2" } }).join(),
    "No order explains",
  );
});

Deno.test("H2 a history is read from its file, one operation a line", async () => {
  const path = await Deno.makeTempFile();
  try {
    const lines = BAD["two swaps from one value"]!();
    await Deno.writeTextFile(
      path,
      lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
    );
    assertEquals(
      violationsIn(await readHistory(path)),
      violationsIn(lines),
    );
  } finally {
    await Deno.remove(path);
  }
});
