import { assertEquals, assertInstanceOf, assertMatch } from "@std/assert";
import { ErrOtherHistory } from "../../src/log/errors.ts";
import { ErrStoreBlocked, ErrStoreFull } from "../../src/store/errors.ts";
import { TabsWorld, type Visitor } from "./tabs_world.ts";

/** Leader and follower of a world, which have started. */
async function pair(world: TabsWorld): Promise<[Visitor, Visitor]> {
  const leader = world.open();
  await world.pass(100);
  const follower = world.open();
  await world.pass(100);
  assertEquals([leader.state, follower.state], ["leading", "following"]);
  return [leader, follower];
}

const cmd = new TextEncoder().encode("full");

Deno.test("U6 U7 U9 M1: tabs whose databases cannot be opened are devices in memory, and say why", async () => {
  const world = new TabsWorld(1);
  world.origin.fault = () =>
    new ErrStoreBlocked(10, "Database 7 does not open");
  const tabs = [world.open(), world.open()];
  await world.pass(500);
  for (const one of tabs) {
    assertEquals(one.state, "memory");
    assertMatch(
      one.tabs.status.reason!,
      /nothing can be stored: Database 7 does not open/,
    );
    one.submit();
  }
  await world.pass(100);
  assertEquals(tabs.map((one) => one.look()), [["t1.1"], ["t2.1"]]);
});

Deno.test("U8 M3: submissions of any tab fail with an error of their own while the device is full, nothing is half written, and work goes on once there is room", async () => {
  const world = new TabsWorld(1);
  const [leader, follower] = await pair(world);
  leader.submit();
  await world.pass(100);
  world.origin.fault = () => new ErrStoreFull("Device 7 is full");
  for (const { replica } of [leader, follower]) {
    const submitting = replica!.submit(cmd).then(
      () => "stored",
      (error: Error) => error.name,
    );
    await world.pass(100);
    assertEquals(await submitting, "ErrStoreFull");
  }
  world.origin.fault = () => undefined;
  follower.submit();
  leader.submit();
  await world.pass(10_000);
  assertEquals(leader.look()!.toSorted(), ["t1.1", "t1.2", "t2.1"]);
  assertEquals(follower.look(), leader.look());
  await world.end();
  assertEquals(world.violations, []);
});

Deno.test("U4 U5 M3: a database whose connection is lost for a while in the leading tab costs no submission", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new TabsWorld(seed);
    const [leader, follower] = await pair(world);
    leader.submit();
    await world.pass(20);
    world.origin.fault = (tab) =>
      tab === leader.tab ? new Error("Connection 7 was lost") : undefined;
    follower.submit();
    await world.pass(seed * 50);
    world.origin.fault = () => undefined;
    follower.submit();
    await world.pass(40_000);
    await world.end();
    assertEquals(world.violations, [], `Seed ${seed}`);
    assertEquals(follower.look()!.length, 3);
  }
});

Deno.test("U1 M2: tabs whose databases the browser has cleared report it, and none shows less than it had", async () => {
  const world = new TabsWorld(1);
  const [leader, follower] = await pair(world);
  leader.submit();
  follower.submit();
  await world.pass(200);
  const before = leader.look();
  assertEquals(before!.length, 2);
  world.origin.clear();
  const states = (): unknown[] =>
    [leader, follower].map(({ replica }) => replica!.status.state);
  // Noticed by the next question of a follower.
  await world.pass(70_000);
  assertEquals(states().includes("failed"), true);
  for (const { replica } of [leader, follower]) {
    const { state, error } = replica!.status;
    if (state === "failed") {
      assertInstanceOf(error, ErrOtherHistory);
      assertMatch(`${error}`, /Export the local data .* startOver/);
    } else assertEquals(replica!.staleRead(null), before);
  }
});
