import {
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertThrows,
} from "@std/assert";
import {
  ErrClusterClosed,
  ErrProposalRefused,
  ErrUpdateFailed,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryLogDB,
  MemoryOutbox,
  NodeHost,
  type Result,
} from "../../mod.ts";
import { ErrClusterFailed } from "../../src/sync/errors.ts";
import { Core } from "../../src/sync/server/core.ts";
import { handle } from "../../src/sync/server/http.ts";
import type { CoreOptions } from "../../src/sync/server/options.ts";
import { OriginPolicy } from "../../src/sync/server/origin_policy.ts";
import { bytes } from "../support/bytes.ts";
import { checked, rejection, settle } from "../support/environment.ts";
import { listOf, startOn } from "../support/clusters.ts";
import type { MachineFaults } from "../machines/journal.ts";
import { Pair } from "./pair.ts";
import { world } from "./server_support.ts";

/** State machine that throws at every command that contains `poison`, until it is mended. */
class Poisonable extends KVStateMachine {
  static isMended = false;

  override update(cmd: Uint8Array): Result {
    if (
      !Poisonable.isMended && new TextDecoder().decode(cmd).includes("poison")
    ) throw new TypeError("Cannot read undefined.field");
    return super.update(cmd);
  }
}

async function ask(
  core: Core,
  path: string,
  method = "GET",
): Promise<[number, unknown]> {
  const url = `http://127.0.0.1/${path}`;
  const response = await handle(
    core,
    new Request(url, { method }),
    new OriginPolicy(undefined, "127.0.0.1"),
  )!;
  assertEquals(response.headers.get("cache-control"), "no-store");
  const body = response.headers.get("content-type") === "application/json"
    ? await response.json()
    : await response.text();
  return [response.status, body];
}

async function serving(
  options: CoreOptions = {},
): Promise<{ host: NodeHost; core: Core; stop: () => Promise<void> }> {
  const logDB = new MemoryLogDB();
  const host = new NodeHost({ logDB });
  for (const clusterID of [1n, 2n]) {
    await host.startCluster(() => new Poisonable(), { clusterID, nodeID: 1n });
  }
  const core = new Core(host, options);
  return {
    host,
    core,
    stop: async () => {
      await core.stop();
      await host.stop();
      await logDB.close();
    },
  };
}

Deno.test(
  "case A10: /health answers 503 with the cluster and the cause, /health/live 200, /health/clusters/<id> of one [H17, H18]",
  checked(async () => {
    const { host, core, stop } = await serving();
    assertEquals(await ask(core, "health"), [200, {
      status: "ok",
      connections: 0,
    }]);
    await rejection(host.replica(1n)!.propose(kv.put("poison", "1")));
    const reason =
      "Cluster 1 has failed on the server: entry 2 cannot be applied: Cannot read undefined.field";
    const failed = { clusterID: "1", reason, index: 2, upTo: 2 };
    assertEquals(await ask(core, "health"), [503, {
      status: "failed",
      connections: 0,
      failed: [failed],
    }]);
    assertEquals(await ask(core, "health/live"), [200, { status: "ok" }]);
    assertEquals(await ask(core, "health/clusters/1"), [503, {
      status: "failed",
      applied: 0,
      ...failed,
    }]);
    assertEquals(await ask(core, "health/clusters/2"), [200, {
      status: "ok",
      clusterID: "2",
      applied: 0,
    }]);
    assertEquals((await ask(core, "health/clusters/3"))[0], 404);
    assertEquals(await ask(core, "clusters/1/snapshot"), [503, `${reason}\n`]);
    assertEquals((await ask(core, "health", "POST"))[0], 405);
    assertEquals((await ask(core, "health", "HEAD"))[0], 503);
    await stop();
  }),
);

Deno.test(
  "case A10: with health.fail all, /health answers 503 only once every cluster is down, including one that could not be started [H17]",
  checked(async () => {
    const { host, core, stop } = await serving({ health: { fail: "all" } });
    await rejection(host.replica(1n)!.propose(kv.put("poison", "1")));
    const [status, body] = await ask(core, "health");
    assertEquals([status, (body as { status: string }).status], [200, "ok"]);
    assertEquals((body as { failed: unknown[] }).failed.length, 1);
    const factory = (): never => {
      throw new Error("EIO: no disk");
    };
    await host.stopCluster(2n);
    await rejection(host.startCluster(factory, { clusterID: 2n, nodeID: 1n }));
    const [down, both] = await ask(core, "health");
    assertEquals(down, 503);
    assertMatch(JSON.stringify(both), /EIO: no disk/);
    assertThrows(
      () => new Core(host, { health: { fail: "some" } } as never),
      TypeError,
      'health.fail is "some"; write "any" or "all"',
    );
    await stop();
  }),
);

Deno.test(
  "case A10: open channels and later ones get the failure of the cluster, with the cause [H17]",
  checked(async () => {
    const w = await world();
    const one = await w.client();
    const failing = new Error("EIO: disk of the machine is gone");
    await w.host.stopCluster(1n);
    assertEquals((await one.next("refused")).code, 1001);
    const factory = (): never => {
      throw failing;
    };
    await rejection(
      w.host.startCluster(factory, { clusterID: 1n, nodeID: 1n }),
    );
    one.send({ type: "open", channel: 2, clusterID: 1n, nodeID: 100n });
    const refused = await one.next("refused");
    assertEquals(refused.code, 4500);
    assertEquals(
      refused.reason,
      "Cluster 1 has failed on the server: EIO: disk of the machine is gone",
    );
    await w.stop();
  }),
);

Deno.test(
  "case A10: a client reports failed with the reason while the server's cluster is down, keeps its queue, and becomes live again by itself [H17, H18]",
  checked(async () => {
    Poisonable.isMended = false;
    const pair = new Pair(1);
    await pair.start();
    await pair.server.stopCluster(1n);
    await pair.server.startCluster(() => new Poisonable(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    const { env } = pair;
    const client = pair.client();
    const replica = await pair.host(client).startCluster(
      () => new KVStateMachine(),
      { clusterID: 1n, nodeID: 2n },
    );
    await env.until(replica.propose(kv.put("a", "1")), 50);
    assertEquals(client.state, "live");
    const states: string[] = [];
    client.watch(({ state }) => states.push(state));
    const session = await env.until(replica.openSession(), 50);
    await env.until(replica.propose(kv.put("poison", "1"), { session }), 50);
    await env.advance(1_000);
    const { state, error } = client.status;
    assertEquals(state, "failed");
    assertInstanceOf(error, ErrClusterFailed);
    assertMatch(error.message, /entry \d+ cannot be applied: Cannot read/);
    // Proposals wait across reconnects.
    let isDone = false;
    const waiting = replica.propose(kv.put("b", "2"), { session })
      .then(() => isDone = true);
    await env.advance(60_000);
    assertEquals([client.state, isDone], ["failed", false]);
    Poisonable.isMended = true;
    await pair.server.restartCluster(1n);
    await env.until(waiting, 100);
    await settle();
    assertEquals(client.state, "live");
    assertEquals(states.includes("failed"), true);
    await pair.closeAndCheck();
  }),
);

for (const kind of ["regular", "concurrent", "disk", "hosted"] as const) {
  Deno.test(
    `case A10: a ${kind} replica of a client that throws at the same command waits, and continues with its queue once the command is skipped [R5, H17]`,
    checked(async () => {
      const faults: MachineFaults = {
        apply(command): void {
          if (command === "poison") throw new TypeError("update() got poison");
        },
      };
      const pair = new Pair(3, {}, { faults });
      await pair.start();
      const { env } = pair;
      const client = pair.client();
      const host = pair.host(client, { outbox: new MemoryOutbox({ env }) });
      const events: HostEvent[] = [];
      const replica = await env.until(
        startOn(host, { kind, faults, config: { nodeID: 2n } }),
        50,
      );
      await env.until((await replica.submit(bytes("a"))).result, 50);
      const poison = await replica.submit(bytes("poison"));
      const waiting = await replica.submit(bytes("b"));
      await env.advance(5_000);
      assertEquals(client.state, "failed");
      assertInstanceOf(replica.failure, ErrUpdateFailed);
      assertEquals(host.clusterStatus(1n)!.state, "failed");
      assertEquals(replica.pending().map(({ state }) => state), [
        "queued",
        "queued",
      ]);
      assertInstanceOf(
        await rejection(replica.propose(bytes("x"))),
        ErrClusterClosed,
      );
      assertInstanceOf(await rejection(replica.read(null)), ErrClusterClosed);
      // More can be queued.
      const more = await replica.submit(bytes("c"));
      const { index } = pair.server.clusterStatus(1n)!.error as ErrUpdateFailed;
      await pair.server.skipEntry(1n, index, "poison is not for eating");
      const up = await pair.server.restartCluster(1n);
      const error = await env.until(rejection(poison.result), 200);
      assertInstanceOf(error, ErrProposalRefused);
      assertEquals(error.reason, "poison is not for eating");
      await env.until(waiting.result, 200);
      await env.until(more.result, 200);
      await env.advance(1_000);
      assertEquals(replica.failure, undefined);
      assertEquals(await listOf(replica), ["a", "b", "c"]);
      assertEquals(await replica.getHash(), await up.getHash());
      assertEquals(client.state, "live");
      assertEquals(poison.state, "refused");
      assertEquals(events, []);
      await pair.closeAndCheck();
    }),
  );
}
