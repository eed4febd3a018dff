import { assert, assertEquals, assertRejects } from "@std/assert";
import { ErrChangeUnknown, type HostEvent, NodeHost } from "../../mod.ts";
import { crc32, encodeShown } from "../../src/bytes.ts";
import { systemEnv } from "../../src/env.ts";
import { EtcdClient } from "../../src/etcd/client.ts";
import { parseEndpoint } from "../../src/etcd/connection.ts";
import { Keys } from "../../src/etcd/keys.ts";
import { LiveReplicas } from "../../src/etcd/live_replicas.ts";
import { encodeTxn, Method } from "../../src/etcd/messages.ts";
import { ErrEtcdUnavailable, EtcdLogDB } from "../../src/etcd/mod.ts";
import {
  defineMachine,
  fingerprintOf,
  type MachineDefinition,
} from "../../src/typed/mod.ts";
import { settle } from "../support/environment.ts";
import { test } from "./nodes.ts";
import { ServerProcess } from "./server_process.ts";

/** Polls a condition that depends on etcd. */
async function until(what: string, condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 20) {
    assert(waited < 5_000, `${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("Y7 a change counts as known once the live replicas of all processes on etcd know it, and the first of them activates it", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new EtcdLogDB({ endpoints });
  await using two = new EtcdLogDB({ endpoints });
  const a = await one.open(1n, 1n);
  const b = await two.open(1n, 2n);
  const other = await two.open(2n, 2n);
  const [first, second] = [a.announcements!, b.announcements!];
  let calls = 0;
  const unwatch = first.watch(() => calls++);
  first.announce(["loud"]);
  await until("own announcement", () => first.isKnown("loud"));
  assert(first.isFirst && !first.isKnown("quiet"));
  // A replica that starts knows nothing yet.
  second.announce(undefined);
  await until("announcement of a start", () => !first.isKnown("loud"));
  second.announce(["loud", "quiet"]);
  await until(
    "announcement",
    () => first.isKnown("loud") && second.isKnown("loud"),
  );
  assert(first.isFirst && !second.isFirst && !second.isKnown("quiet"));
  assert(calls >= 3, `${calls} calls`);
  // Another cluster has announcements of its own.
  other.announcements!.announce(["quiet"]);
  await until(
    "announcement on the other cluster",
    () => other.announcements!.isKnown("quiet"),
  );
  assert(other.announcements!.isFirst);
  await a.close();
  await until(
    "the second is first",
    () => second.isFirst && second.isKnown("quiet"),
  );
  unwatch();
  // All leases end with their processes.
  await two.close();
  await one.close();
  const { output } = await nodes.ctl(
    "get",
    "sampan/live/",
    "--prefix",
    "--keys-only",
  );
  assertEquals(output.trim(), "");
});

/** Value of a key of cluster 1 in some format version. */
function sealed(version: number, body: readonly number[]): Uint8Array {
  const cluster = [1, 0, 0, 0, 0, 0, 0, 0];
  const value = new Uint8Array([0, 0, 0, 0, version, ...cluster, ...body]);
  new DataView(value.buffer).setUint32(0, crc32(value, 0, 4), true);
  return value;
}

/** Machine of the tests, which knows some changes. */
function notes(...changes: readonly string[]): MachineDefinition {
  return defineMachine({
    name: "notes",
    version: 1,
    state: () => ({}),
    changes,
    commands: {},
    queries: {},
  });
}

test("Y7 an activation that a live server does not know is refused and waits, with the name and code of that server, and one whose announcement cannot be read counts as such", async (nodes) => {
  const { endpoints } = nodes;
  const events: HostEvent[] = [];
  const start = async (
    name: string,
    nodeID: bigint,
    definition: MachineDefinition,
  ) => {
    const code = (): string => fingerprintOf(definition);
    const url = `https://${name}.example`;
    const logDB = new EtcdLogDB({ endpoints, server: { name, url, code } });
    const host = new NodeHost({ logDB, onEvent: (one) => events.push(one) });
    const replica = await host.startConcurrentCluster(definition.create, {
      clusterID: 1n,
      nodeID,
    });
    const close = async (): Promise<void> => {
      await host.stop();
      await logDB.close();
    };
    return { replica, logDB, close };
  };
  const old = await start("server-old", 1n, notes("quiet"));
  const newer = await start("server-new", 2n, notes("quiet", "loud"));
  const waits = () => events.filter(({ type }) => type === "activation waits");
  await until("event of the waiting activation", () => waits().length > 0);
  const code = fingerprintOf(notes("quiet"));
  assertEquals(waits(), [{
    type: "activation waits",
    clusterID: 1n,
    nodeID: 2n,
    change: "loud",
    servers: ["server-old"],
    detail: `server-old (code ${code}, which knows quiet)`,
  }]);
  const refused = await assertRejects(
    () => newer.replica.activateChange("loud"),
    ErrChangeUnknown,
    `Change loud of cluster 1 is unknown to server-old (code ${code}, which knows quiet)`,
  );
  assertEquals(refused.servers, ["server-old"]);
  await old.close();
  const isActive = (): boolean => newer.replica.appliedIndex >= 4;
  await until("activation", isActive);
  // Code that lacks the change is refused at its next start.
  const logDB = new EtcdLogDB({ endpoints });
  const host = new NodeHost({ logDB });
  const error = await assertRejects(() =>
    host.startConcurrentCluster(notes("quiet").create, {
      clusterID: 1n,
      nodeID: 1n,
    })
  ) as Error;
  assert(`${error} ${error.cause}`.includes("load the newer code"), `${error}`);
  await host.stop();
  await logDB.close();
  // A key of format version 9, and one of version 1.
  const log = await newer.logDB.open(1n, 9n);
  const { announcements } = log;
  announcements!.announce(["loud"]);
  await until("announcement", () => announcements!.isKnown("loud"));
  const keys = new Keys("sampan");
  const key = keys.ofReplica(1n, 0xaan, 1);
  const client = new EtcdClient({
    endpoints: endpoints.map(parseEndpoint),
    keys,
    user: undefined,
    tls: {},
    known: undefined,
    env: systemEnv,
  });
  for (
    const [value, servers] of [
      [sealed(9, [1]), undefined],
      [sealed(1, [1, 4, ...encodeShown("soft")]), ["process 00000000000000aa"]],
    ] as const
  ) {
    await client.request(Method.Txn, encodeTxn([], [{ put: key, value }]));
    await until(
      "other announcement",
      () =>
        !announcements!.isKnown("loud") &&
        JSON.stringify(announcements!.lacking!("loud")?.servers) ===
          JSON.stringify(servers),
    );
  }
  client.close();
  await log.close();
  await newer.close();
});

test("Y7 of three server processes on etcd, one with older code keeps a change from being activated until it is updated, and is refused once it is active", async ({ endpoints }) => {
  const start = (nodeID: number, ...changes: readonly string[]) =>
    ServerProcess.start({ endpoints, nodeID, changes }, "changes_program.ts");
  const seen = async (server: ServerProcess) =>
    await (await fetch(server.http("/seen"))).json() as {
      readonly waits: readonly string[];
      readonly applied: number;
    };
  const when = async (
    what: string,
    server: ServerProcess,
    condition: (seen: { waits: readonly string[]; applied: number }) => boolean,
  ): Promise<void> => {
    for (let waited = 0; !condition(await seen(server)); waited += 50) {
      assert(waited < 30_000, `${what} did not happen`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await using old = await start(1);
  await using one = await start(2, "loud");
  await using two = await start(3, "loud");
  for (const server of [one, two]) {
    await when(
      "wait for the older server",
      server,
      ({ waits }) => waits.at(-1) === "server-1",
    );
  }
  const before = (await seen(one)).applied;
  await using late = await start(4, "loud");
  assertEquals((await seen(one)).applied, before);
  // Killed, it counts as live until its lease ends.
  await old.kill();
  await when("activation", late, ({ applied }) => applied > before);
  await assertRejects(() => start(1), Error, "the server did not start");
  await using updated = await start(1, "loud");
  await when("start", updated, ({ applied }) => applied > before);
});

Deno.test("H10 announcements that etcd does not take end with their log: no timer is left", async () => {
  const fail = (): Promise<never> =>
    Promise.reject(new ErrEtcdUnavailable("etcd n0 does not answer"));
  const client = { request: fail, list: fail } as unknown as EtcdClient;
  const live = new LiveReplicas(client, new Keys("test"), systemEnv, 1n);
  live.board(1n).of({}).announce(["loud"]);
  // Until both wait for their next try.
  await settle(20);
  await live.close();
});
