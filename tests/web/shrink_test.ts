import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { shrink } from "../../web/shrink.ts";

const encoder = new TextEncoder();

function textOf(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}

Deno.test("shrink() returns the same for the same code and options, and something else for others", async () => {
  // No earlier run has a result for it.
  const id = crypto.randomUUID();
  const code = encoder.encode(
    `export function f(long) { const unused = 1; return "${id}" + long; }\n`,
  );
  const map = encoder.encode(JSON.stringify({
    version: 3,
    sources: ["f.ts"],
    names: [],
    mappings: "AAAA",
  }));
  const first = await shrink({ code, map }, { name: "f" });
  const again = await shrink({ code, map }, { name: "f" });
  assertEquals(again, first);
  assert(first.code.length < code.length);
  assert(textOf(first.code).endsWith("sourceMappingURL=f.js.map"));
  assertEquals(JSON.parse(textOf(first.map)).sources, ["f.ts"]);

  const preamble = "// A line.";
  const named = await shrink({ code, map }, { name: "f", preamble });
  assert(textOf(named.code).startsWith(preamble));
  const other = await shrink({ code, map }, { name: "g" });
  assert(textOf(other.code).endsWith("sourceMappingURL=g.js.map"));
  const alone = await shrink({ code }, { name: "f" });
  assertEquals(Object.keys(alone), ["code"]);
  const changed = await shrink(
    { code: encoder.encode(`${textOf(code)}f(2);`) },
    { name: "f" },
  );
  assertNotEquals(changed.code, alone.code);
});
