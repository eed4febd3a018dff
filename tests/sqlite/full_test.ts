import { assert } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { makeDirectory } from "../support/directory.ts";

/** Runs a command with a small disk mounted at a directory until the command ends. */
async function onSmallDisk(
  directory: string,
  command: readonly string[],
): Promise<{ success: boolean; said: string }> {
  const script = 'mount -t tmpfs -o size=32m tmpfs "$0" && exec "$@"';
  try {
    const { success, stdout, stderr } = await new Deno.Command("unshare", {
      args: ["--map-root-user", "--mount", "sh", "-c", script, directory]
        .concat(command),
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    return { success, said: decoder.decode(stdout) + decoder.decode(stderr) };
  } catch (error) {
    return { success: false, said: `${error}` };
  }
}

using directory = makeDirectory();
const { success: canMount } = await onSmallDisk(directory.path("."), ["true"]);

Deno.test({
  name:
    "U8 a full disk is reported, nothing is half written, and work continues when there is room",
  // Where no disk can be mounted, which needs a namespace of its own, it is skipped.
  ignore: !canMount,
  async fn(): Promise<void> {
    using directory = makeDirectory();
    const program = new URL("full.ts", import.meta.url).pathname;
    const seed = newSeed();
    const { success, said } = await onSmallDisk(directory.path("."), [
      Deno.execPath(),
      "run",
      "--allow-all",
      program,
      directory.path("."),
      `${seed}`,
    ]);
    assert(success, `Seed ${seed}: ${said}`);
  },
});

Deno.test({
  name:
    "case A15: a server whose disk is full reports it once, to its host, its health check and its clients, and continues by itself [U8, H18]",
  ignore: !canMount,
  async fn(): Promise<void> {
    using directory = makeDirectory();
    const program = new URL("full_server.ts", import.meta.url).pathname;
    const { success, said } = await onSmallDisk(directory.path("."), [
      Deno.execPath(),
      "run",
      "--allow-all",
      program,
      directory.path("."),
    ]);
    assert(success, said);
  },
});
