import { assert, assertEquals } from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import type { EtcdClient } from "../../src/etcd/client.ts";
import { Keys } from "../../src/etcd/keys.ts";
import { LiveReplicas } from "../../src/etcd/live_replicas.ts";
import { ErrEtcdUnavailable, EtcdLogDB } from "../../src/etcd/mod.ts";
import { settle } from "../support/environment.ts";
import { test } from "./nodes.ts";

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
