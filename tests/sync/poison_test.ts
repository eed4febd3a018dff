import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
} from "@std/assert";
import {
  ErrProposalRefused,
  MemoryOutbox,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/mod.ts";
import { rejection } from "../support/environment.ts";
import { ServerProcess, sleep, WAIT_MS_MAX } from "./server_process.ts";
import {
  entry,
  type Journal,
  JournalMachine,
} from "../machines/client_counters.ts";
import { PoisonableMachine } from "../machines/poisonable.ts";

/** Polls until a condition holds. */
async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = performance.now() + WAIT_MS_MAX;
  while (!await isSo()) {
    if (performance.now() > end) throw new Error(`Never came: ${what}`);
    await sleep(20);
  }
}

/** Client that stores everything in memory, like a page without storage. */
class Client implements AsyncDisposable {
  readonly logDB: RemoteLogDB;
  readonly host: NodeHost;
  replica!: Replica;

  constructor(url: string) {
    this.logDB = new RemoteLogDB(url);
    this.host = new NodeHost({
      logDB: this.logDB,
      outbox: new MemoryOutbox(),
    });
  }

  async start(
    clusterID: bigint,
    nodeID: bigint,
    isPoisonable: boolean,
  ): Promise<void> {
    this.replica = await this.host.startCluster(
      () => isPoisonable ? new PoisonableMachine() : new JournalMachine(),
      { clusterID, nodeID, hashEntries: 8 },
    );
  }

  /** Submits commands with the numbers `from` to `upTo`, and resolves once they are applied. */
  async submit(name: string, from: number, upTo: number): Promise<void> {
    const results: Promise<unknown>[] = [];
    for (let number = from; number <= upTo; number++) {
      const { result } = await this.replica.submit(entry(name, number));
      results.push(result);
    }
    await Promise.all(results);
  }

  get journal(): Journal {
    return this.replica.staleRead(null) as Journal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.stop();
    await this.logDB.close();
  }
}

Deno.test(
  "case A10: a command at which the machine throws fails one cluster of a server process, as health, clients and a restart report; once it is skipped, the queues drain [R5, H17, H18]",
  async () => {
    const directory = await Deno.makeTempDir();
    try {
      await using server = await ServerProcess.start(
        directory,
        { snapshotEntries: 10 },
        "poison_server.ts",
      );
      const http = `http://127.0.0.1:${server.port}`;
      const health = async (
        path = "",
      ): Promise<{ status: number; body: Record<string, unknown> }> => {
        const response = await fetch(`${http}/health${path}`);
        return { status: response.status, body: await response.json() };
      };
      const url = `ws://127.0.0.1:${server.port}/sync`;
      // One client whose machine throws at the same command, and one with other code.
      await using same = new Client(url);
      await using fine = new Client(url);
      await using other = new Client(url);
      await same.start(1n, 11n, true);
      await fine.start(1n, 12n, false);
      await other.start(2n, 13n, false);
      await Promise.all([
        same.submit("same", 1, 15),
        fine.submit("fine", 1, 15),
        other.submit("other", 1, 15),
      ]);
      assertEquals((await health()).status, 200);

      const poison = await same.replica.submit(entry("poison", 1));
      await until("503", async () => (await health()).status === 503);
      const { body } = await health();
      const [failed] = body["failed"] as {
        clusterID: string;
        index: number;
        reason: string;
      }[];
      assertEquals(failed!.clusterID, "1");
      assertMatch(failed!.reason, /cannot be applied: Cannot read properties/);
      assertEquals((await health("/live")).status, 200);
      assertEquals((await health("/clusters/1")).status, 503);
      assertEquals((await health("/clusters/2")).status, 200);
      await until("failed", () => same.logDB.state === "failed");
      await until("failed", () => fine.logDB.state === "failed");
      assertEquals(fine.logDB.status.reason?.code, "cluster-failed");
      assertMatch(fine.logDB.status.reason!.message, /cannot be applied/);
      const queued = [same.submit("same", 16, 20), fine.submit("fine", 16, 20)];
      await other.submit("other", 16, 20);

      // The cluster fails at the same command again, and the others start.
      await server.kill();
      await server.restart();
      const again = await health();
      assertEquals(again.status, 503);
      assertEquals(again.body["failed"], body["failed"]);
      assertEquals((await health("/clusters/2")).status, 200);
      await other.submit("other", 21, 25);
      await until("failed", () => same.logDB.state === "failed");
      assert(same.replica.pending().every(({ state }) => state === "queued"));

      const reason = encodeURIComponent("decoder of 1.2");
      const skipped = await fetch(
        `${http}/skip?index=${failed!.index}&reason=${reason}`,
      );
      assertEquals(skipped.status, 200);
      await skipped.body?.cancel();
      const error = await rejection(poison.result);
      assertInstanceOf(error, ErrProposalRefused);
      assertEquals(error.reason, "decoder of 1.2");
      await Promise.all(queued);
      await until("live", () => same.logDB.state === "live");
      await until("live", () => fine.logDB.state === "live");
      assertEquals((await health()).status, 200);

      // The decision holds for later clients, and after every restart.
      await server.kill();
      await server.restart();
      assertEquals((await health()).status, 200);
      await using late = new Client(url);
      await late.start(1n, 14n, true);
      const last = { same: 20, fine: 20 };
      for (const client of [same, fine, late]) {
        await until("all", () => client.journal.last["fine"] === 20);
        assertEquals(client.journal, { last, wrong: [] });
        assertEquals(client.replica.failure, undefined);
      }
      const [one, two] = await (await fetch(`${http}/state`)).json();
      assertEquals(one, { last, wrong: [] });
      assertEquals(two, { last: { other: 25 }, wrong: [] });
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);
