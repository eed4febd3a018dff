import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/mod.ts";
import {
  type Listening,
  RestartingListener,
} from "../../src/sync/server/restarting_listener.ts";
import { ManualEnv, settle } from "../support/environment.ts";
import {
  idleConnections,
  linesOf,
  spawnServer,
  untilServed,
} from "./crowd_server.ts";

const DESCRIPTORS = 64;

Deno.test("case A11: a server without free file descriptors logs it, and accepts connections again once some are free [H21, H18]", async () => {
  const child = spawnServer(DESCRIPTORS);
  const lines = linesOf(child);
  // The first line that the process prints.
  const url = (await lines.next()).value === "listening"
    ? (await lines.next()).value!
    : "";
  assertMatch(url, /^ws:/);
  const { port } = new URL(url);
  const logDB = new RemoteLogDB(url);
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  await replica.propose(kv.put("boat", "sampan"));
  const idle = await idleConnections(Number(port), 2 * DESCRIPTORS);
  assertEquals((await lines.next()).value, "listener ended");
  // Connected clients are unaffected.
  await replica.propose(kv.put("boat", "junk"));
  for (const conn of idle) conn.close();
  await untilServed(`http://127.0.0.1:${port}/`);
  const newcomer = new RemoteLogDB(url);
  const other = new NodeHost({ logDB: newcomer });
  const copy = await other.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 3n,
  });
  assertEquals(await copy.read(kv.count()), 1);
  await replica.propose(kv.put("boat", "dhow"));
  assertEquals((await lines.next()).value, "listening again");
  for (const ended of [host, other]) await ended.stop();
  for (const db of [logDB, newcomer]) await db.close();
  child.kill("SIGTERM");
  for await (const _ of lines);
  assertEquals((await child.status).code, 0);
});

/** Listener that a test ends. */
class FakeListening implements Listening {
  readonly addr: { port: number };
  readonly end = Promise.withResolvers<void>();
  isShut = false;

  constructor(port: number) {
    this.addr = { port };
  }

  get finished(): Promise<void> {
    return this.end.promise;
  }

  // deno-lint-ignore require-await
  async shutdown(): Promise<void> {
    this.isShut = true;
    this.end.resolve();
  }

  unref(): void {}
}

Deno.test("case A11: a listener that ends is restarted on its port with backoff, reported once, and not restarted after a shutdown [H18]", async () => {
  const env = new ManualEnv();
  const opened: FakeListening[] = [];
  const told: string[] = [];
  let isFull = false;
  const listener = new RestartingListener({
    env,
    port: 0,
    listen: (port) => {
      if (isFull) throw new Error("EMFILE: too many open files");
      const listening = new FakeListening(port === 0 ? 8080 : port);
      opened.push(listening);
      return listening;
    },
    ended: (error) => told.push(String(error)),
    resumed: () => told.push("resumed"),
  });
  assertEquals(listener.port, 8080);
  assert(listener.isListening);
  opened[0]!.end.reject(new Error("EMFILE: too many open files"));
  await settle();
  assert(!listener.isListening);
  assertEquals(told, ["Error: EMFILE: too many open files"]);
  isFull = true;
  await env.advance(60_000);
  assertEquals([opened.length, told.length], [1, 1]);
  isFull = false;
  await env.advance(2_000);
  assert(listener.isListening);
  assertEquals(opened[1]!.addr.port, 8080);
  // It ends before it is stable, which is not reported again.
  opened[1]!.end.reject(new Error("EMFILE: too many open files"));
  await env.advance(2_000);
  assertEquals([opened.length, told.length], [3, 1]);
  await env.advance(5_000);
  assertEquals(told, ["Error: EMFILE: too many open files", "resumed"]);
  opened[2]!.end.reject(new Error("Again"));
  await settle();
  assertEquals(told.at(-1), "Error: Again");
  await env.advance(150);
  assertEquals(opened.length, 4);
  await listener.shutdown();
  assert(opened[3]!.isShut);
  await env.advance(60_000);
  assertEquals([opened.length, env.timers], [4, 0]);
  assertThrows(
    () =>
      new RestartingListener({
        env,
        port: 1,
        listen: () => {
          throw new Error("EADDRINUSE: port 1 is in use");
        },
        ended: () => {},
        resumed: () => {},
      }),
    Error,
    "EADDRINUSE: port 1 is in use",
  );
});
