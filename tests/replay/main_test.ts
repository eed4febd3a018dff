import { assert, assertEquals, assertMatch } from "@std/assert";

const MAIN = new URL("main.ts", import.meta.url);

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function command(args: string[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    // Like the task: read permission only.
    args: ["run", "--no-prompt", "--allow-read", MAIN.href, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function main(...args: string[]): Promise<Outcome> {
  const { code, stdout, stderr } = await command(args).output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: withoutChecks(decoder.decode(stderr)),
  };
}

/**
 * Error output of the program, without deno's messages about checking and
 * loading.
 */
function withoutChecks(stderr: string): string {
  return stderr.replaceAll(/^\S*(Check|Download|Warning)\b.*\n/gm, "");
}

/** Waits until a process listens for SIGINT; earlier, the signal kills it. */
async function catchesInterrupt(pid: number): Promise<void> {
  for (let waited = 0; waited < 60_000; waited += 10) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    let status: string;
    try {
      // Until it executes its program, it has the signal handlers of this process.
      const line = await Deno.readTextFile(`/proc/${pid}/cmdline`);
      if (!line.includes(MAIN.href)) continue;
      status = await Deno.readTextFile(`/proc/${pid}/status`);
    } catch {
      // Without /proc there is no indication, but a second is ample.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      return;
    }
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
    if (BigInt(`0x${caught}`) & 2n) return;
  }
}

async function assertRefused(content: Uint8Array | undefined): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".json.gz" });
  try {
    if (content === undefined) await Deno.remove(path);
    else await Deno.writeFile(path, content);
    const { code, stdout, stderr } = await main(path);
    assertEquals([code, stdout], [2, ""]);
    assert(stderr.startsWith(`${path}: `) && stderr.endsWith("\n"), stderr);
    assertEquals(stderr.split("\n").length, 2, stderr);
    return stderr;
  } finally {
    if (content !== undefined) await Deno.remove(path);
  }
}

Deno.test("main replays the README being typed when given no file", async () => {
  const { code, stdout, stderr } = await main();
  assertEquals([code, stderr], [0, ""]);
  const lines = stdout.split("\n");
  assertEquals(lines[0], "README.md being typed");
  assertMatch(lines[2] ?? "", /^replica +came up +index +hash +length +text$/);
  assertMatch(lines[3] ?? "", /^1 +from the start .* [0-9a-f]{16} .* equal$/);
  assertMatch(lines[4] ?? "", /^2 +restarted from snapshot .* equal$/);
  assertMatch(lines[5] ?? "", /^3 +joined late from snapshot .* equal$/);
  assertMatch(stdout, /edits per second/);
  // deno-lint-ignore no-control-regex
  assert(!/[\x1b\r█░]/.test(stdout), "nothing for a terminal");
});

Deno.test("main exits with 2 and one line for a missing file", async () => {
  assertMatch(await assertRefused(undefined), /no such file/);
});

Deno.test("main exits with 2 and one line for a damaged file", async () => {
  const gzipped = new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 7, 7, 7]);
  assertMatch(await assertRefused(gzipped), /damaged/);
});

Deno.test("main exits with 2 and one line for a foreign file", async () => {
  const foreign = new TextEncoder().encode('{"name": "sampan"}');
  assertMatch(await assertRefused(foreign), /not an editing history/);
});

Deno.test("main exits with 2 and one line for what it does not understand", async () => {
  for (const args of [["--fast"], ["a", "b"]]) {
    const { code, stdout, stderr } = await main(...args);
    assertEquals([code, stdout], [2, ""]);
    assertMatch(stderr, /^Usage: [^\n]+\n$/);
  }
});

Deno.test("main exits with 1 when the replicas do not hold the recorded text", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  try {
    const txns = [{ patches: [[0, 0, "a"]] }];
    await Deno.writeTextFile(
      path,
      JSON.stringify({ startContent: "", endContent: "b", txns }),
    );
    const { code, stdout, stderr } = await main(path);
    assertEquals([code, stderr], [1, ""]);
    assertMatch(stdout, /differs\n/);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("main exits with 130 when interrupted", async () => {
  const path = await Deno.makeTempFile({ suffix: ".json" });
  try {
    // Enough edits that the replay is still running when the signal arrives.
    const txns = Array(200_000).fill({ patches: [[0, 0, "a"], [0, 1, ""]] });
    await Deno.writeTextFile(
      path,
      JSON.stringify({ startContent: "", endContent: "", txns }),
    );
    const child = command([path]).spawn();
    const output = child.output();
    await catchesInterrupt(child.pid);
    child.kill("SIGINT");
    const { code, signal, stdout, stderr } = await output;
    const texts = [stdout, stderr].map((text) =>
      new TextDecoder().decode(text)
    );
    assertEquals([code, signal], [130, null], texts.join(""));
    assertEquals([texts[0], withoutChecks(texts[1] as string)], ["", ""]);
  } finally {
    await Deno.remove(path);
  }
});
