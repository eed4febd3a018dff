/**
 * The cluster to play with, in a process of its own.
 *
 * @module
 */

import { assert } from "@std/assert";

/** Process of `deno task cluster`. */
export class ClusterProcess {
  readonly child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<string>;
  /** Output so far. */
  said = "";

  /** Starts it with its data in a folder. */
  constructor(data: string) {
    this.child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--lock=web/etcd.lock",
        "--quiet",
        "--allow-all",
        "web/cluster.ts",
        "--port=0",
        `--data=${data}`,
      ],
      cwd: new URL("../../", import.meta.url),
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#reader = this.child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
  }

  /** Waits until it has printed some words. */
  async read(words: string): Promise<void> {
    while (!this.said.includes(words)) {
      const { done, value } = await this.#reader.read();
      assert(!done, `It ended: ${this.said}`);
      this.said += value;
    }
  }

  /** Stops it, and waits until it has ended. */
  async stop(): Promise<void> {
    this.child.kill("SIGTERM");
    while (!(await this.#reader.read()).done);
    await this.child.status;
  }

  /** Gives up the output. */
  async cancel(): Promise<void> {
    await this.#reader.cancel();
  }
}
