import { assert } from "@std/assert";
import { removeFolder, within } from "../browser/browser.ts";

const COUNTER = new URL("../../web/examples/counter.ts", import.meta.url).href;

/** Terminal in which the counter runs. */
class Terminal {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: ReadableStreamDefaultReader<string>;
  /** Output since the last line that was awaited. */
  #printed = "";

  constructor(folder: string, port: number) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", "--quiet", COUNTER, folder, `${port}`],
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  /** Types a line. */
  async type(line: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
  }

  /** Waits until a line is printed, for up to 30 seconds. */
  async prints(line: string): Promise<void> {
    await within(30_000, `Printing "${line}"`, this.#read(line));
  }

  async #read(line: string): Promise<void> {
    while (!`\n${this.#printed}`.includes(`\n${line}\n`)) {
      const { value } = await this.#output.read();
      assert(value !== undefined, `It ended without "${line}"`);
      this.#printed += value;
    }
    const at = `\n${this.#printed}`.indexOf(`\n${line}\n`);
    this.#printed = this.#printed.slice(at + line.length + 1);
  }

  /** Ends the process as Ctrl+C does. */
  async end(): Promise<void> {
    this.#child.kill("SIGINT");
    await this.#input.abort().catch(() => {});
    await this.#output.cancel();
    await this.#child.status;
  }
}

/** A port that is free. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

Deno.test("the counter example counts in two terminals, and goes on in one while the other is stopped [U15, U30]", async () => {
  const folder = await Deno.makeTempDir({ prefix: "counter-" });
  const port = freePort();
  let one = new Terminal(`${folder}/data`, port);
  await one.prints("0");
  const two = new Terminal(`${folder}/data`, port);
  try {
    await two.prints("(live)");
    await one.type("");
    await two.prints("1");
    await two.type("10");
    await one.prints("11");
    await two.type("ten");
    await two.prints("ten is not a whole number");
    await one.end();
    await two.prints("(offline)");
    await two.type("-4");
    await two.prints("7");
    one = new Terminal(`${folder}/data`, port);
    await one.prints("7");
    await two.prints("(live)");
  } finally {
    await one.end();
    await two.end();
    await removeFolder(folder);
  }
});
