import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { Result } from "../../src/statemachine/mod.ts";
import { SampanError } from "../../src/statemachine/mod.ts";
import {
  checkOnDiskStateMachine,
  checkStateMachine,
  ContractViolation,
} from "../../src/testing/mod.ts";
import { withSeededGlobals } from "../../src/testing/seeded_globals.ts";
import {
  applyTo,
  commands,
  MemoryDisk,
  OnDiskNotes,
  queries,
  RegularNotes,
} from "../machines/notes.ts";

// Few and short histories: with another seed they may not find what is wrong.
const common = { commands, queries, runs: 10, maxCommands: 6, seed: 1 };

/** A machine that is wrong from its third note on. */
class Forgetful extends RegularNotes {
  override update(cmd: Uint8Array): Result {
    applyTo(this.notes, cmd);
    return { value: this.notes.size > 2 ? -1n : 0n };
  }
}

Deno.test("R12 ContractViolation shows the smallest commands, and how to repeat them", async () => {
  const check = (more: { seed?: number; path?: string } = {}): Promise<void> =>
    checkStateMachine({
      ...common,
      ...more,
      runs: 40,
      create: () => new Forgetful(),
    });
  const violation = await assertRejects(() => check(), ContractViolation);
  assertInstanceOf(violation, SampanError);
  assertEquals(violation.name, "ContractViolation");
  assertEquals(violation.rule, "T3");
  // Three names are needed, each set once.
  assertEquals(violation.commands.length, 3);
  assertStringIncludes(violation.message, `62 3d 32 "b=2"`);
  assertStringIncludes(violation.message, `seed: ${violation.seed}`);
  const { seed, path } = violation;
  const again = await assertRejects(
    () => check({ seed, path }),
    ContractViolation,
  );
  assertEquals(again.message, violation.message);
});

Deno.test("R12 checkStateMachine() restores the clock when it passes and when it fails", async () => {
  const found = [Date, Date.now, performance.now, Math.random];
  const before = Date.now();
  await checkStateMachine({ ...common, create: () => new RegularNotes() });
  await assertRejects(
    () =>
      checkStateMachine({ ...common, runs: 40, create: () => new Forgetful() }),
    ContractViolation,
  );
  assertEquals([Date, Date.now, performance.now, Math.random], found);
  assert(!Object.hasOwn(crypto, "getRandomValues"));
  assert(Date.now() - before < 60_000);
});

Deno.test("R12 suites that are started at once run one after another", async () => {
  const now = Date.now;
  const checks = [1, 2, 3].map(() =>
    checkStateMachine({ ...common, create: () => new RegularNotes() })
  );
  await Promise.all(checks);
  assertEquals(Date.now, now);
});

Deno.test("R12 withSeededGlobals() gives the same numbers for the same seed, and others for another seed", async () => {
  const read = (seed: number): Promise<unknown[]> =>
    withSeededGlobals(seed, () =>
      Promise.resolve([
        Date.now(),
        new Date().getTime(),
        performance.now(),
        Math.random(),
        crypto.randomUUID(),
        [...crypto.getRandomValues(new Uint8Array(8))],
      ]));
  const [one, same, other] = [await read(1), await read(1), await read(2)];
  assertEquals(one, same);
  other.forEach((value, i) => assert(`${value}` !== `${one[i]}`));
});

Deno.test("R12 withSeededGlobals() leaves dates that are given alone", async () => {
  await withSeededGlobals(1, () => {
    assertEquals(new Date(5).getTime(), 5);
    assertEquals(new Date("2020-01-01").getUTCFullYear(), 2020);
    assertInstanceOf(new Date(), Date);
    assertEquals(typeof Date(), "string");
    return Promise.resolve();
  });
});

Deno.test("R12 checkStateMachine() refuses to draw from no commands", async () => {
  await assertRejects(
    () =>
      checkStateMachine({
        ...common,
        commands: [],
        create: () => new RegularNotes(),
      }),
    TypeError,
    "commands is an empty array",
  );
});

Deno.test("R12 checkStateMachine() takes equality of answers from the caller", async () => {
  const machine = class extends RegularNotes {
    override lookup(): unknown {
      return Math.random();
    }
  };
  await checkStateMachine({
    ...common,
    create: () => new machine(),
    equals: (a, b) => typeof a === typeof b,
  });
});

Deno.test("T4 checkStateMachine() makes machines with the ids it is given, and with another node id", async () => {
  const ids = new Set<string>();
  await checkStateMachine({
    ...common,
    clusterID: 9n,
    nodeID: 4n,
    create: (clusterID, nodeID) => {
      ids.add(`${clusterID} ${nodeID}`);
      return new RegularNotes();
    },
  });
  assertEquals([...ids].sort(), ["9 4", "9 5"]);
});

Deno.test("D6 checkOnDiskStateMachine() removes every place it was given", async () => {
  let places = 0;
  await checkOnDiskStateMachine({
    ...common,
    runs: 3,
    disk: () => {
      const disk = new MemoryDisk();
      places++;
      return {
        create: () => new OnDiskNotes(disk),
        crash: () => disk.crash(),
        remove: () => void places--,
      };
    },
  });
  assertEquals(places, 0);
});

Deno.test("D6 checkOnDiskStateMachine() does not wait for calls that hang after a crash", async () => {
  class Ghost extends OnDiskNotes {
    override async update(
      ...args: Parameters<OnDiskNotes["update"]>
    ): Promise<Awaited<ReturnType<OnDiskNotes["update"]>>> {
      const ghost = new Promise<never>(() => {});
      return await super.update(...args).catch(() => ghost);
    }
  }
  await checkOnDiskStateMachine({
    ...common,
    seed: 3,
    disk: () => {
      const disk = new MemoryDisk();
      return { create: () => new Ghost(disk), crash: () => disk.crash() };
    },
  });
});

Deno.test("R4 checkStateMachine() shows an answer before and after it changed", async () => {
  const machine = class extends RegularNotes {
    asked = 0;
    override lookup(): unknown {
      return ++this.asked;
    }
  };
  const violation = await assertRejects(
    () =>
      checkStateMachine({
        ...common,
        queries: ["x"],
        create: () => new machine(),
      }),
    ContractViolation,
    "lookup() changes the state",
  );
  assertEquals(violation.rule, "R4");
  assertStringIncludes(violation.message, `lookup("x") gives 1 and `);
  assertEquals(violation.commands.length, 0);
});
