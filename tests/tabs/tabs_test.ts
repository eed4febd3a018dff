import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  ErrClusterClosed,
  ErrNotImplemented,
  type IOnDiskStateMachine,
  NodeHost,
  type Replica,
  type Result,
  type Submission,
} from "../../mod.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import type { Outbox } from "../../src/nodehost/outbox.ts";
import { loadQueue } from "../../src/offline/block_queue.ts";
import { ErrStoreVersion } from "../../src/store/errors.ts";
import { codeIn, joinedCode } from "../../src/tabs/messages.ts";
import { shareTabs } from "../../src/tabs/mod.ts";
import { SharedTabs } from "../../src/tabs/shared_tabs.ts";
import { ListMachine } from "./list_machine.ts";
import { runTabs, TabsWorld, type Visitor } from "./tabs_world.ts";

/** Seed of the first run: `SAMPAN_SEED` repeats one. */
const SEED = Number(Deno.env.get("SAMPAN_SEED") ?? 1);

async function check(
  seeds: number,
  options: { readonly tabs: number; readonly steps: number },
): Promise<void> {
  for (let seed = SEED; seed < SEED + seeds; seed++) {
    const { violations } = await runTabs({ seed, ...options });
    assertEquals(violations, [], `Repeat with SAMPAN_SEED=${seed}`);
  }
}

Deno.test("M1 M2 M3 M4 U10 U12 U13 U21: tabs that are opened, closed, frozen, suspended and killed at random lose, double and reorder nothing, and never show an older state", async () => {
  await check(8, { tabs: 5, steps: 120 });
});

Deno.test("M1 M2 M3 M4: the same with fifty tabs", async () => {
  await check(1, { tabs: 50, steps: 300 });
});

/** World with a tab that leads and one that follows. */
async function openTwo(): Promise<
  { world: TabsWorld; leader: Visitor; follower: Visitor }
> {
  const world = new TabsWorld(1);
  const leader = world.open();
  await world.pass(100);
  const follower = world.open();
  await world.pass(100);
  return { world, leader, follower };
}

const CLUSTER = { clusterID: 1n, nodeID: 1n };

Deno.test("M2 U42: a tab lists the others that answer, the leader first, each with its state, since when, and its code", async () => {
  const { world, follower } = await openTwo();
  const third = world.open();
  await world.pass(100);
  const listed = third.tabs.others();
  await world.pass(1000);
  const others = await listed;
  assertEquals(
    others.map(({ state, code, isVisible }) => [state, code, isVisible]),
    [["leading", 1, true], ["following", 1, true]],
  );
  assert(others[0]!.sinceMs > others[1]!.sinceMs && others[1]!.sinceMs > 0);
  follower.tab.kill();
  const again = third.tabs.others();
  await world.pass(1000);
  assertEquals((await again).map(({ state }) => state), ["leading"]);
});

Deno.test("M5 U14: a tab with older code submits nothing once newer code runs, cannot open the stores again, and newer code takes the lead", async () => {
  const world = new TabsWorld(1);
  const old = world.open({ code: 1 });
  await world.pass(100);
  assertEquals(old.state, "leading");
  const newer = world.open({ code: 2 });
  await world.pass(200);
  assertEquals([old.state, newer.state], ["outdated", "leading"]);
  assertMatch(old.tabs.status.reason!, /version 2[.]\d+ .* reload the page/);
  await assertRejects(
    () => old.replica!.submit(new Uint8Array([65])),
    ErrStoreVersion,
  );
  newer.submit();
  await world.pass(200);
  assertEquals(newer.look(), ["t2.1"]);
  newer.tab.kill();
  // Also where no tab with newer code is left.
  const late = world.open({ code: 1 });
  await world.pass(200);
  assertEquals(late.state, "outdated");
  assertMatch(late.tabs.status.reason!, /Version 2[.]\d+ .* reload the page/);
});

Deno.test("M1 U9 U10: without Web Locks each tab is a device in memory of its own, and says why", async () => {
  const world = new TabsWorld(1);
  const tabs = [world.open({ locks: false }), world.open({ locks: false })];
  await world.pass(100);
  for (const one of tabs) {
    assertEquals(one.state, "memory");
    assertMatch(one.tabs.status.reason!, /has no Web Locks/);
    one.submit();
  }
  await world.pass(100);
  assertEquals(tabs.map((one) => one.look()), [["t1.1"], ["t2.1"]]);
  // Nothing was stored.
  const third = world.open();
  await world.pass(100);
  assertEquals([third.state, third.look()], ["leading", []]);
});

Deno.test("M1 U9: a tab to which the browser refuses locks or channels is a device in memory of its own, and says why", async () => {
  for (const refuses of ["locks", "channels"] as const) {
    const world = new TabsWorld(1);
    const one = world.open({ refuses });
    await world.pass(100);
    assertEquals(one.state, "memory", refuses);
    assertMatch(
      one.tabs.status.reason!,
      /the browser refuses it, .* blocked: The request was denied/,
    );
    one.submit();
    await world.pass(100);
    assertEquals(one.look(), ["t1.1"]);
  }
});

Deno.test("U11: tabs that start at the same moment all come up", async () => {
  for (let seed = SEED; seed < SEED + 20; seed++) {
    const world = new TabsWorld(seed);
    const all = Array.from({ length: 8 }, () => world.open());
    await world.pass(500);
    const states = all.map(({ state }) => state);
    assertEquals(states.filter((state) => state === "leading").length, 1);
    assertEquals(states.filter((state) => state === "following").length, 7);
    assertEquals(all.filter(({ replica }) => replica === undefined), []);
  }
});

Deno.test("M6: a follower proposes, reads, opens sessions and watches like a leader", async () => {
  const { world, leader, follower } = await openTwo();
  assertEquals(follower.state, "following");
  const { replica } = follower;
  const watch = replica!.watch<readonly string[]>(null);
  let changes = 0;
  watch.subscribe(() => changes++);
  const bytes = new TextEncoder();
  const proposed = replica!.propose(bytes.encode("proposed"));
  await world.pass(50);
  assertEquals((await proposed).value, 1n);
  const opened = replica!.openSession();
  await world.pass(50);
  const session = await opened;
  const inSession = replica!.propose(bytes.encode("in session"), { session });
  await world.pass(50);
  assertEquals((await inSession).value, 2n);
  leader.submit();
  const read = replica!.read(null);
  await world.pass(50);
  assertEquals((await read).length >= 2, true);
  await world.pass(50);
  assertEquals(watch.getSnapshot(), ["proposed", "in session", "t1.1"]);
  assertEquals(changes > 0, true);
  assertEquals(replica!.appliedIndex, leader.replica!.appliedIndex);
});

Deno.test("M6 H5: a proposal of a follower is of unknown outcome if its leader ends before it answers", async () => {
  const { world, leader, follower } = await openTwo();
  leader.tab.env.suspend();
  const proposed = follower.replica!.propose(new Uint8Array([65]));
  const outcome = proposed.then(() => "applied", (error) => error.name);
  await world.pass(5);
  leader.tab.kill();
  await world.pass(100);
  assertEquals(await outcome, "ErrUnknownOutcome");
  assertEquals(follower.state, "leading");
});

Deno.test("M2 U13: a leader that stops without a word is replaced within five seconds of the moment when something is wanted of it, and finds itself deposed when it goes on", async () => {
  const world = new TabsWorld(1);
  const leader = world.open();
  await world.pass(100);
  const follower = world.open();
  await world.pass(10_000);
  leader.tab.env.suspend();
  await world.pass(10_000);
  assertEquals(follower.state, "following");
  const since = world.clock.now;
  follower.submit();
  while (follower.state !== "leading") await world.pass(10);
  assertEquals(world.clock.now - since < 5_000, true);
  await world.pass(100);
  world.wake(leader);
  leader.submit();
  await world.pass(200);
  assertEquals([leader.state, follower.state], ["following", "leading"]);
  assertEquals(leader.look(), ["t2.1", "t1.1"]);
  assertEquals(world.violations, []);
});

Deno.test("H14 M3: the leader sends with the client id that the outbox has from its beginning, also if a follower adds the first command", async () => {
  const { world, follower } = await openTwo();
  const store = world.origin.disk("outbox").blocks;
  const env = world.clock.env("reader");
  const before = await loadQueue(store, 1n, env);
  assertEquals(before.hasHead, true);
  follower.submit();
  await world.pass(500);
  const { head } = await loadQueue(store, 1n, env);
  assertEquals(follower.look(), ["t2.1"]);
  assertEquals(head.session?.clientID, before.head.clientID);
  assertEquals(head.clientID, before.head.clientID);
});

Deno.test("U21 M3: a follower submits with no leader, and what it has submitted is applied after it has ended", async () => {
  const { world, leader, follower } = await openTwo();
  leader.tab.env.suspend();
  follower.submit();
  await world.pass(20);
  assertEquals(follower.stored, ["t2.1"]);
  assertEquals(follower.look(), ["t2.1"]);
  follower.tab.kill();
  leader.tab.kill();
  const next = world.open();
  await world.pass(500);
  assertEquals(next.look(), ["t2.1"]);
});

Deno.test("M1 M2: an idle group of tabs exchanges two messages a minute for each visible follower, and none if all are hidden; a leader that has stopped is replaced by a visible one all the same", async () => {
  const world = new TabsWorld(1);
  const tabs = Array.from({ length: 8 }, () => world.open());
  await world.pass(10_000);
  const messagesPerMinute = async (): Promise<number> => {
    const { posted } = world.origin;
    await world.pass(10 * 60_000);
    return (world.origin.posted - posted) / 10;
  };
  assertEquals(await messagesPerMinute() <= 2 * 7, true);
  const see = ({ tab }: Visitor, isVisible: boolean): void => {
    tab.isVisible = isVisible;
    tab.happen("visibility");
  };
  for (const one of tabs) see(one, false);
  await world.pass(60_000);
  assertEquals(await messagesPerMinute(), 0);
  const leader = tabs.find(({ state }) => state === "leading")!;
  leader.tab.env.suspend();
  await world.pass(10 * 60_000);
  const [one] = tabs.filter((tab) => tab !== leader);
  // Looked at.
  see(one!, true);
  await world.pass(5_000);
  assertEquals(one!.state, "leading");
  // Crashed: the browser releases its lock.
  for (const tab of tabs) see(tab, false);
  one!.tab.kill();
  await world.pass(100);
  const leaders = tabs.filter((one) => one.isAwake && one.state === "leading");
  assertEquals(leaders.length, 1);
  for (const { tab } of tabs) tab.kill();
});

Deno.test("H2 M2: a leader that goes on after it was replaced answers no read with the state of its own log", async () => {
  const { world, leader, follower } = await openTwo();
  leader.tab.env.suspend();
  follower.submit();
  await world.pass(6_000);
  assertEquals(follower.look(), ["t2.1"]);
  leader.tab.env.resume();
  const read = leader.replica!.read(null);
  await world.pass(500);
  assertEquals(await read, ["t2.1"]);
});

Deno.test("M2: a follower whose leader never starts the cluster is told what to do, and nothing polls for it without a bound", async () => {
  const { world, leader, follower } = await openTwo();
  let error: Error | undefined;
  follower.host.startCluster(() => new ListMachine(), {
    clusterID: 2n,
    nodeID: 1n,
  }).catch((reason) => error = reason);
  const { clock } = world;
  let timers = 0;
  const until = clock.now + 40_000;
  do await world.pass(0); while (clock.runNext(until) && ++timers);
  await world.pass(100);
  assertMatch(
    error!.message,
    /Leading tab has not started cluster 2 within 30000 ms: start it in every tab/,
  );
  assertEquals(timers < 500, true, `${timers} timers`);
  // Also in another tab of the group.
  assertEquals(leader.state, "leading");
});

Deno.test("M2: a follower comes up although its leader stops the cluster while it answers, and starts it again", async () => {
  const world = new TabsWorld(1);
  const gate = Promise.withResolvers<void>();
  const hosts = [0, 1].map(() => {
    const tab = world.origin.tab();
    const { platform, env } = tab;
    const tabs = new SharedTabs("slow", platform, {
      code: 1,
      onCluster: undefined,
    });
    const logDB = new BlockLogDB(tab.store("log"), { env });
    const { open } = logDB;
    logDB.open = async (...ids): ReturnType<typeof open> => {
      await gate.promise;
      return await open.apply(logDB, ids);
    };
    return new NodeHost({ env, logDB, tabs });
  });
  const [leader, follower] = hosts as [NodeHost, NodeHost];
  const start = (host: NodeHost): Promise<Replica<null, readonly string[]>> =>
    host.startCluster(() => new ListMachine(), CLUSTER);
  const first = start(leader).catch((error) => error);
  await world.pass(100);
  const following = start(follower).catch((error) => error);
  await world.pass(100);
  leader.stopCluster(1n).catch(() => {});
  await world.pass(6_000);
  assertInstanceOf(await first, ErrClusterClosed);
  gate.resolve();
  await world.pass(100);
  const leading = start(leader);
  await world.pass(1_000);
  const proposed = (await leading).propose(new TextEncoder().encode("a"));
  await world.pass(1_000);
  await proposed;
  assertEquals((await following).staleRead(null), ["a"]);
  for (const host of hosts) void host.stop();
  await world.pass(1_000);
});

/** Submits a command that is refused by the view, and returns it with its outcome. */
async function poison(
  { replica }: Visitor,
): Promise<[Submission, { error?: Error }]> {
  const outcome: { error?: Error } = {};
  const submission = await replica!.submit(new TextEncoder().encode("poison"));
  submission.result.catch((error) => outcome.error = error);
  return [submission, outcome];
}

Deno.test("H3 M3: a follower gets the results of its submissions also if their session has acknowledged them before it reads the entries", async () => {
  const { world, leader, follower } = await openTwo();
  for (const text of ["one", "two"]) {
    const submitting = follower.replica!.submit(
      new TextEncoder().encode(text),
    );
    await world.pass(10);
    follower.results.push((await submitting).result.catch((error) => error));
    follower.tab.env.suspend();
    for (let i = 0; i < 5; i++) {
      leader.submit();
      await world.pass(50);
    }
    world.wake(follower);
    await world.pass(200);
  }
  const results = await Promise.all(follower.results);
  assertEquals(results.map((one) => (one as Result).value), [1n, 7n]);
});

Deno.test("U17 M3: a refusal by the view is told only once it is stored, also if the lead is lost while it is written", async () => {
  const { world, leader, follower } = await openTwo();
  // With no session yet, so that the next leader knows that it was not sent.
  const submitting = poison(leader);
  // Another tab takes the lead, once the command is stored.
  const disk = world.origin.disk("outbox");
  while ((await Promise.race([submitting, world.pass(1)])) === undefined);
  disk.token = "tabs:2:1:f";
  const [submission, outcome] = await submitting;
  assertEquals(submission.state, "refused");
  leader.tab.happen("hide");
  await world.pass(10);
  assertEquals(outcome.error, undefined);
  leader.tab.happen("show");
  await world.pass(500);
  assertEquals([leader.state, follower.state], ["following", "leading"]);
  assertEquals([submission.state, outcome.error?.name], [
    "refused",
    "ErrProposalRefused",
  ]);
  follower.tab.kill();
  leader.tab.kill();
  const next = world.open();
  await world.pass(500);
  assertEquals(next.look(), []);
  assertEquals(next.replica!.pending().map(({ state }) => state), ["refused"]);
});

Deno.test("U17 M3: what a follower's view has refused to run is refused once that tab leads", async () => {
  const { world, leader, follower } = await openTwo();
  leader.tab.env.suspend();
  const submitting = poison(follower);
  await world.pass(50);
  const [submission, outcome] = await submitting;
  assertEquals([submission.state, outcome.error], ["queued", undefined]);
  leader.tab.kill();
  await world.pass(500);
  assertEquals(follower.state, "leading");
  assertEquals([submission.state, outcome.error?.name], [
    "refused",
    "ErrProposalRefused",
  ]);
  assertEquals(follower.look(), []);
});

Deno.test("Tabs share machines in memory only, and an outbox that can be shared", async () => {
  const world = new TabsWorld(1);
  const { host } = world.open();
  await assertRejects(
    () =>
      host.startOnDiskCluster(
        () => ({}) as unknown as IOnDiskStateMachine,
        CLUSTER,
      ),
    ErrNotImplemented,
    "Machine of cluster 1 is on disk, where it can have one instance only",
  );
  const outbox = { attach(): void {}, close(): void {} } as unknown as Outbox;
  assertThrows(
    () => new NodeHost({ outbox, tabs: shareTabs("other") }),
    TypeError,
    "Outbox cannot be shared",
  );
  assertThrows(() => shareTabs(""), TypeError);
  assertThrows(() => shareTabs("a", { code: 1.5 }), RangeError);
});

Deno.test("M5 U14: of two tabs with the same code of the application, the one with older messages is the older one", () => {
  const older = joinedCode(3) - 1;
  assert(older < joinedCode(3) && joinedCode(3) < joinedCode(4) - 1);
  assertEquals([codeIn(older), codeIn(joinedCode(3))], [3, 3]);
  // Before messages had a version, tabs sent that of the application alone.
  assert(3 < older);
});
