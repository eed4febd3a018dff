import { assert, assertEquals } from "@std/assert";
import { NodeHost } from "../../mod.ts";
import { SqliteOutbox } from "../../src/sqlite/mod.ts";
import { listOf } from "../support/clusters.ts";
import { RegularJournal } from "../machines/journal.ts";

const SCRIPT = new URL("kill.ts", import.meta.url).pathname;

/** Lets a process submit from `start` on, kills it, and returns the last command it reported as durable. */
async function submitAndKill(path: string, start: number): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--allow-all", SCRIPT, path, `${start}`],
    stdout: "piped",
  }).spawn();
  let said = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    said += decoder.decode(chunk, { stream: true });
    if (said.length < 2000) continue;
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }
  await child.status;
  const lines = said.slice(0, said.lastIndexOf("\n")).split("\n");
  assertEquals(lines, lines.map((_, i) => `${start + i}`));
  return start + lines.length - 1;
}

Deno.test("U21 H3 submissions of a killed process in SQLite are applied once, in order", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/outbox.db`;
    let next = 0;
    for (let life = 0; life < 3; life++) {
      const last = await submitAndKill(path, next);
      await using outbox = new SqliteOutbox(path);
      const unsynced = await outbox.unsynced(1n);
      // A command that was written and not reported may be there, too.
      assert(unsynced.length > last, `${unsynced.length} of ${last}`);
      next = unsynced.length;
    }
    await using outbox = new SqliteOutbox(path);
    await using host = new NodeHost({ outbox });
    const replica = await host.startCluster(
      (c, n) => new RegularJournal({}, c, n),
      { clusterID: 1n, nodeID: 1n },
    );
    await Promise.all(replica.pending().map(({ result }) => result));
    const expected = Array.from({ length: next }, (_, i) => `${i}`);
    assertEquals(await listOf(replica), expected);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
