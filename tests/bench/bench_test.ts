import { assert, assertEquals } from "@std/assert";
import { withoutEtcd } from "../etcd/nodes.ts";
import { FILES } from "./cases.ts";
import { measure } from "./growth.ts";
import { drawGrowth } from "./plot.ts";
import { Bench, type Figure, merge, table } from "./report.ts";

/** Share of the work at which a case shows only that it runs. */
const SHARE = 0.001;

for (const [file, load] of Object.entries(FILES)) {
  const missing = file === "etcd" ? withoutEtcd() : undefined;
  const name = `the cases of ${file} run and report figures`;
  Deno.test({
    name: missing === undefined ? name : `${name}: skipped, ${missing}`,
    ignore: missing !== undefined,
    // A case ends with its process.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      const { cases } = await load();
      for (const [name, { run }] of Object.entries(cases)) {
        assert(name.split("/")[0] === file, `${name} is not found by its name`);
        const figures: Figure[] = [];
        await run(new Bench(SHARE, (figure) => figures.push(figure)));
        assert(figures.length > 0, `${name} reports nothing`);
        for (const { what, samples } of figures) {
          for (const sample of [...samples.wall, ...samples.processor]) {
            assert(Number.isFinite(sample), `${name}: ${what} is ${sample}`);
          }
        }
      }
    },
  });
}

Deno.test("the table has the median of all processes, and judges by processor time", () => {
  const figure = (wall: number, processor: number): Figure => ({
    what: "a loop",
    unit: "ns",
    samples: { wall: [wall], processor: [processor] },
    atMost: 10,
    dragonboat: 7,
    decoding: 9,
  });
  const merged = merge([figure(30, 9), figure(20, 8), figure(40, 10)]);
  assertEquals(merged.length, 1);
  const row = table(merged).split("\n")[2]!.split("|").map((cell) =>
    cell.trim()
  );
  assertEquals(row.slice(1, -1), [
    "a loop",
    "ns",
    "30 (20–40)",
    "9 (8–10)",
    "7",
    "9",
    "≤ 10 met",
    "",
  ]);
});

Deno.test("the growth of both tables is measured and drawn", () => {
  const points = ["Sampan", "JavaScript Map"].flatMap((of) => [
    ...measure(of, 100, 1_000),
    ...measure(of, 1_000, 1_000),
  ]);
  assertEquals(points.length, 12);
  const svg = drawGrowth(points);
  assert(svg.startsWith("<svg"));
  assert(svg.includes("prefers-color-scheme"));
});

/** Runs a program of the benchmarks, and resolves to what it prints. */
async function output(program: string, ...args: string[]): Promise<string> {
  const { stdout, code } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      "--no-check",
      new URL(program, import.meta.url).pathname,
      ...args,
    ],
    stderr: "inherit",
  }).output();
  const text = new TextDecoder().decode(stdout);
  assertEquals(code, 0, text);
  return text;
}

Deno.test("each case runs in a process of its own, and one table follows", async () => {
  const text = await output("main.ts", "--share", String(SHARE), "apply/kv");
  assert(text.includes("| apply, concurrent key-value, 10k keys, 16 + 16 B "));
  assert(text.includes("| apply, concurrent key-value, 10k keys, 16 + 128 B "));
});

Deno.test("Sampan does the works of the comparison, without a package of a peer", async () => {
  const works = ["W1", "W2", "W3", "W5", "W7"];
  const text = await output(
    "peers/main.ts",
    "sampan",
    ...works,
    "--runs",
    "1",
    "--share",
    String(SHARE),
  );
  for (const work of works) {
    const [, part] = text.split(`${work}: `);
    assert(/\| Sampan \| until .* \d/.test(part!), part);
  }
});
