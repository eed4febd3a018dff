import { assert, assertEquals, assertRejects } from "@std/assert";
import { kv, KVStateMachine, type NodeHost, type Replica } from "../../mod.ts";
import { simulate } from "../../src/testing/mod.ts";
import { sha256 } from "../../src/testing/sha256.ts";
import { seeded } from "../support/random.ts";
import { text } from "../support/bytes.ts";

const start = (host: NodeHost, nodeID: bigint): Promise<Replica> =>
  host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID,
  });

async function valueOf(replica: Replica, key: string): Promise<string> {
  return text(await replica.staleRead(kv.get(key)) as Uint8Array);
}

Deno.test("U21 U30 an application's test submits offline, kills a device, and reads elsewhere, in simulated network and time", async () => {
  await simulate({ start }, async (world) => {
    const a = await world.addDevice("a");
    const b = await world.addDevice("b");
    a.goOffline();
    await a.replica.submit(kv.put("color", "red"));
    await world.sleep(60_000);
    a.kill();
    await a.start();
    assertEquals(a.replica.pending().length, 1);
    a.goOnline();
    await world.settle();
    assertEquals(await valueOf(b.replica, "color"), "red");
    world.server.kill();
    await b.replica.submit(kv.put("color", "blue"));
    await world.server.start();
    await world.settle();
    assertEquals(await valueOf(a.replica, "color"), "blue");
    assert(world.now > 60_000);
  });
});

Deno.test("U15 a server in a simulated world refuses what `validate` refuses, and knows the device", async () => {
  const principals: string[] = [];
  const validate = (
    { id }: { id: string },
  ): string => (principals.push(id), "No");
  await simulate({ start, server: { validate } }, async (world) => {
    const a = await world.addDevice("a");
    const submission = await a.replica.submit(kv.put("color", "red"));
    const error = await assertRejects(() => submission.result);
    assert(`${error}`.includes("No"));
    assertEquals(principals, ["a"]);
  });
});

Deno.test("H3 a simulated world is a pure function of its seed", async () => {
  const run = async (seed: number): Promise<number[]> => {
    const times: number[] = [];
    await simulate({ start, seed }, async (world) => {
      const a = await world.addDevice("a");
      for (let i = 0; i < 20; i++) {
        const { result } = await a.replica.submit(kv.put("key", `${i}`));
        await result;
        times.push(world.now);
      }
    });
    return times;
  };
  assertEquals(await run(1), await run(1));
  assert(`${await run(1)}` !== `${await run(2)}`);
});

Deno.test("H10 a simulated test that waits for nothing fails with the time at which it does", async () => {
  await assertRejects(
    () => simulate({ start }, () => new Promise(() => {})),
    Error,
    "never happens",
  );
  await assertRejects(
    () =>
      simulate({ start, limitMs: 10_000 }, async (world) => {
        await world.addDevice("a");
        await new Promise(() => {});
      }),
    Error,
    "within 10000 ms",
  );
});

Deno.test("H14 the hash of simulations is that of Web Crypto", async () => {
  const random = seeded();
  for (let length = 0; length < 130; length++) {
    const bytes = Uint8Array.from({ length }, () => random.below(256));
    const hash = await crypto.subtle.digest("SHA-256", bytes);
    assertEquals(sha256(bytes), new Uint8Array(hash));
  }
});
