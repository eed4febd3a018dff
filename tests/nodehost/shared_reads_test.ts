import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, MemoryLogDB, NodeHost } from "../../mod.ts";
import { systemEnv } from "../../src/env.ts";
import type { Log } from "../../src/log/log.ts";
import type { ReplicaContext } from "../../src/nodehost/context.ts";
import type { CurrentMachine } from "../../src/nodehost/current_machine.ts";
import { Reads } from "../../src/nodehost/reads.ts";

/** Logs whose read index takes a moment, as that of a log elsewhere; counts the requests. */
class SlowLogDB extends MemoryLogDB {
  requests = 0;

  override open(clusterID: bigint, nodeID: bigint): Log {
    const log = super.open(clusterID, nodeID);
    const readIndex = log.readIndex.bind(log);
    log.readIndex = async (options): Promise<number> => {
      this.requests++;
      const index = await readIndex(options);
      await new Promise((resolve) => setTimeout(resolve, 2));
      return index;
    };
    return log;
  }
}

Deno.test("H2 readers that have shared a request for the read index go on together and share the next one, each with an index from after its begin", async () => {
  await using logDB = new SlowLogDB();
  await using host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  let written = 0;
  const readers = 8;
  const rounds = 20;
  logDB.requests = 0;
  const read = async (_: unknown, reader: number): Promise<void> => {
    for (let i = 0; i < rounds; i++) {
      const before = written;
      const count = await replica.read(kv.count()) as number;
      assert(count >= before, `${count} keys, and ${before} were written`);
      if (i % 5 === 0) {
        await replica.propose(kv.put(`${i} ${reader}`, "x"));
        written++;
      }
    }
  };
  await Promise.all(Array.from({ length: readers }, read));
  assertEquals(await replica.read(kv.count()), readers * rounds / 5);
  // A request for every round, and a few while they gather.
  assert(logDB.requests <= rounds + 10, `${logDB.requests} requests`);
});

Deno.test("H2 a read never shares a request for the read index that has begun before it", async () => {
  const answers: ((index: number) => void)[] = [];
  const until: number[] = [];
  const turn = (): Promise<void> => systemEnv.turn();
  const reads = new Reads(
    {
      env: systemEnv,
      stopped: new AbortController().signal,
      log: {
        readIndex: () =>
          new Promise<number>((resolve) => answers.push(resolve)),
      },
    } as unknown as ReplicaContext,
    {
      applied: 0,
      check(): void {},
      until: (index: number): void => void until.push(index),
    } as unknown as CurrentMachine,
  );
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) await turn();
  };
  const first = reads.upToDate(undefined);
  assertEquals(answers.length, 1);
  const second = reads.upToDate(undefined);
  answers[0]!(1);
  await first;
  await settle();
  assertEquals([answers.length, ...until], [2, 1]);
  // The second request has begun.
  const third = reads.upToDate(undefined);
  await settle();
  assertEquals(answers.length, 2);
  answers[1]!(5);
  await second;
  await settle();
  assertEquals([answers.length, ...until], [3, 1, 5]);
  answers[2]!(9);
  await third;
  assertEquals(until, [1, 5, 9]);
});
