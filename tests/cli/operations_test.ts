import { assert, assertEquals } from "@std/assert";
import type { NodeHost } from "../../mod.ts";
import { type Call, type Outcome, run } from "../../src/cli/operations.ts";
import {
  type FolderReplica,
  takeSnapshots,
  withReplica,
} from "../support/replicas.ts";

/** Runs `work` with a replica that has two snapshots, and with what runs an operation in its server, which calls `turn` between two steps. */
async function withServer(
  work: (
    replica: FolderReplica,
    operate: (call: Call, turn?: () => Promise<void>) => Promise<Outcome>,
  ) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempDir({ prefix: "operations-" });
  try {
    await withReplica(path, async (folder, replica, host) => {
      await takeSnapshots(replica);
      await work(replica, (call, turn = () => host.env.turn()) => {
        const env = Object.assign(Object.create(host.env), { turn });
        const slow = Object.create(host, { env: { value: env } }) as NodeHost;
        return run(call, {
          folder,
          host: call.name === "log verify" ? slow : host,
          progress: () => {},
          signal: new AbortController().signal,
        });
      });
    });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

Deno.test("H7 the log of a server is compacted also after an operator has asked for its clusters, or has its records counted or verified", async () => {
  await withServer(async (replica, operate) => {
    for (const name of ["info", "log stat", "log verify"] as const) {
      const before = replica.logInfo!.first;
      const { ok } = await operate({ name, args: {} });
      assert(ok);
      await takeSnapshots(replica);
      assert(replica.logInfo!.first > before, name);
    }
  });
});

Deno.test("H8 a snapshot that a newer one replaces while a log is verified is no damage", async () => {
  await withServer(async (replica, operate) => {
    let turns = 0;
    const { ok, data } = await operate(
      { name: "log verify", args: {} },
      async () => {
        if (turns++ === 0) await takeSnapshots(replica);
      },
    );
    assert(turns > 0);
    assertEquals([ok, data], [true, { problems: [] }]);
  });
});

Deno.test("H8 a snapshot that another program has removed is reported when a log is verified", async () => {
  await withServer(async (_, operate) => {
    const { data: info } = await operate({ name: "info", args: {} });
    const { path } = info as { path: string };
    const snapshots = `${path}/snapshots`;
    for await (const { name } of Deno.readDir(snapshots)) {
      if (name.endsWith(".snapshot")) await Deno.remove(`${snapshots}/${name}`);
    }
    const { ok, data } = await operate({ name: "log verify", args: {} });
    const { problems } = data as { problems: unknown[] };
    assertEquals([ok, problems.length], [false, 2]);
  });
});
