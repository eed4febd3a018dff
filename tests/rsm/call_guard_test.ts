import {
  assert,
  assertEquals,
  assertFalse,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { isPromise } from "../../src/async.ts";
import { CallGuard, Op } from "../../src/rsm/mod.ts";
import type { Type } from "../../src/statemachine/mod.ts";
import { seeded } from "../support/random.ts";
import { ticks } from "../support/turns.ts";

type Name = keyof typeof Op;

/**
 * Contract of each pair of calls: "x" excludes, "o" may overlap, "." is
 * unspecified. Written from the rules, not from the code.
 */
const REGULAR = `
             Update Save Recover Lookup NALookup Hash Close
  Update     x      x    x       x      x        x    x
  Save       x      o    x       o      o        o    x
  Recover    x      x    x       x      x        x    x
  Lookup     x      o    x       o      o        o    x
  NALookup   x      o    x       o      o        o    x
  Hash       x      o    x       o      o        o    x
  Close      x      x    x       x      x        x    x
`;

/** C2, C3; R10 for Save and Close; D7 for when a hash is taken of any kind. */
const CONCURRENT = `
             Update Prepare Save Recover Lookup NALookup Hash Close
  Update     x      x       o    x       o      o        x    x
  Prepare    x      x       o    x       o      o        o    x
  Save       o      o       o    x       o      o        o    x
  Recover    x      x       x    x       o      x        x    x
  Lookup     o      o       o    o       o      o        o    .
  NALookup   o      o       o    x       o      o        o    .
  Hash       x      o       o    x       o      o        o    x
  Close      x      x       x    x       .      .        x    x
`;

/** D7, D11; R10 for Save and Close. */
const ON_DISK = `
             Update Sync Prepare Save Recover Lookup NALookup Hash Close
  Update     x      x    x       o    x       o      o        x    x
  Sync       x      x    x       o    x       o      o        o    x
  Prepare    x      x    x       o    x       o      o        o    x
  Save       o      o    o       o    x       o      o        o    x
  Recover    x      x    x       x    x       o      x        x    x
  Lookup     o      o    o       o    o       o      o        o    o
  NALookup   o      o    o       o    x       o      o        o    .
  Hash       x      o    o       o    x       o      o        o    x
  Close      x      x    x       x    x       o      .        x    x
`;

function parse(matrix: string): Map<Name, Map<Name, string>> {
  const [head, ...rows] = matrix.trim().split("\n")
    .map((line) => line.trim().split(/\s+/));
  return new Map(
    rows.map(([name, ...cells]) => [
      name as Name,
      new Map(head!.map((other, i) => [other as Name, cells[i]!])),
    ]),
  );
}

const MATRICES: [Type, string, Map<Name, Map<Name, string>>][] = [
  [1, "regular", parse(REGULAR)],
  [2, "concurrent", parse(CONCURRENT)],
  [3, "on-disk", parse(ON_DISK)],
];

/** Starts a call that stays in progress until the test ends it. */
function hold(guard: CallGuard, name: Name): {
  begun: () => boolean;
  end: (error?: Error) => void;
  done: Promise<unknown>;
} {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let begun = false;
  const done = guard.run(Op[name], () => {
    begun = true;
    return promise;
  });
  assert(isPromise(done));
  done.catch(() => {});
  return {
    begun: () => begun,
    end: (error) => error ? reject(error) : resolve(),
    done,
  };
}

for (const [type, what, matrix] of MATRICES) {
  Deno.test(`R2 C2 C3 D7 D11 CallGuard keeps apart exactly what must be: ${what} machine`, async () => {
    let pairs = 0;
    for (const [first, row] of matrix) {
      for (const [second, rule] of row) {
        // The rules are symmetric in the order of the two calls.
        assertEquals(matrix.get(second)!.get(first), rule);
        if (rule === ".") continue;
        pairs++;
        const guard = new CallGuard(type);
        const one = hold(guard, first);
        assert(one.begun(), `${first} alone waits`);
        const two = hold(guard, second);
        assertEquals(
          two.begun(),
          rule === "o",
          `${second} during ${first} of type ${type}`,
        );
        await ticks();
        assertEquals(two.begun(), rule === "o");
        one.end();
        await ticks();
        assert(two.begun(), `${second} never comes after ${first}`);
        two.end();
        await Promise.all([one.done, two.done]);
        // Nothing is left behind.
        for (const name of matrix.keys()) {
          assertStrictEquals(guard.run(Op[name], () => 7), 7);
        }
      }
    }
    assert(pairs > 40);
  });
}

Deno.test("R2 CallGuard lets shared calls overlap, and an exclusive one waits for the last of them", async () => {
  const guard = new CallGuard(1);
  const lookups = [1, 2, 3].map(() => hold(guard, "Lookup"));
  assert(lookups.every(({ begun }) => begun()));
  const update = hold(guard, "Update");
  for (const lookup of lookups) {
    assertFalse(update.begun());
    lookup.end();
    await ticks();
  }
  assert(update.begun());
  update.end();
  await update.done;
});

Deno.test("R2 CallGuard lets no reader overtake a waiting writer", async () => {
  const guard = new CallGuard(1);
  const one = hold(guard, "Lookup");
  const update = hold(guard, "Update");
  const two = hold(guard, "Lookup");
  const later = hold(guard, "Update");
  const three = hold(guard, "Save");
  assertEquals(
    [one, update, two, later, three].map(({ begun }) => begun()),
    [true, false, false, false, false],
  );
  one.end();
  await ticks();
  assertEquals([update, two].map(({ begun }) => begun()), [true, false]);
  update.end();
  await ticks();
  assertEquals([two, later, three].map(({ begun }) => begun()), [
    true,
    false,
    false,
  ]);
  two.end();
  await ticks();
  later.end();
  await ticks();
  assert(three.begun());
  three.end();
  await three.done;
});

Deno.test("R2 CallGuard does not let readers starve a writer", async () => {
  const guard = new CallGuard(1);
  let reading = true;
  let reads = 0;
  const reader = async (): Promise<void> => {
    while (reading) {
      await guard.run(Op.Lookup, async () => {
        reads++;
        await ticks(3);
      });
    }
  };
  const readers = [reader(), ticks(2).then(reader), ticks(5).then(reader)];
  await ticks(20);
  let wrote = 0;
  for (let i = 0; i < 20; i++) {
    await guard.run(Op.Update, async () => {
      wrote++;
      await ticks(1);
    });
    assert(reads < 100 * wrote, "Update waits for too many reads");
  }
  reading = false;
  await Promise.all(readers);
  assertEquals(wrote, 20);
  assert(reads > 20);
});

Deno.test("C3 CallGuard lets a call overtake a waiting one that it does not exclude", async () => {
  const guard = new CallGuard(2);
  const save = hold(guard, "Save");
  const recover = hold(guard, "Recover");
  assertFalse(recover.begun());
  // A lookup may overlap a recovery, so it need not wait behind one.
  const lookup = hold(guard, "Lookup");
  assert(lookup.begun());
  // An update may overlap the save, but would hold up the recovery.
  const update = hold(guard, "Update");
  assertFalse(update.begun());
  save.end();
  await ticks();
  assert(recover.begun());
  assertFalse(update.begun());
  recover.end();
  await ticks();
  assert(update.begun());
  for (const call of [lookup, update]) call.end();
  await Promise.all([lookup.done, update.done]);
});

Deno.test("R1 CallGuard runs waiting calls in FIFO order", async () => {
  for (const type of [1, 2, 3] as const) {
    const guard = new CallGuard(type);
    const order: number[] = [];
    const all = Array.from(
      { length: 50 },
      (_, i) =>
        guard.run(Op.Update, async () => {
          order.push(i);
          await ticks(i % 3);
        }),
    );
    await Promise.all(all);
    assertEquals(order, Array.from({ length: 50 }, (_, i) => i));
  }
});

Deno.test("R2 CallGuard runs a synchronous call without a promise", async () => {
  for (const type of [1, 2, 3] as const) {
    const guard = new CallGuard(type);
    for (const op of Object.values(Op)) {
      const result = {};
      assertStrictEquals(guard.run(op, () => result), result);
      assertStrictEquals(guard.run(op, () => undefined), undefined);
      assertStrictEquals(guard.run(op, () => null), null);
    }
    // Also while something goes on that it may overlap.
    const save = hold(guard, "Save");
    assertStrictEquals(guard.run(Op.Lookup, () => 1), 1);
    save.end();
    await save.done;
  }
});

Deno.test("R2 CallGuard queues a synchronous call behind those that exclude it", async () => {
  const guard = new CallGuard(1);
  const update = hold(guard, "Update");
  let value = 0;
  const one = guard.run(Op.Lookup, () => value);
  const two = guard.run(Op.Update, () => ++value);
  const three = guard.run(Op.Lookup, () => value);
  assert([one, two, three].every(isPromise));
  update.end();
  assertEquals(await Promise.all([one, two, three]), [0, 1, 1]);
});

Deno.test("R4 CallGuard rethrows a synchronous error, and continues", async () => {
  const guard = new CallGuard(1);
  const error = new Error("No");
  const fail = (): never => {
    throw error;
  };
  assertStrictEquals(assertThrows(() => guard.run(Op.Update, fail)), error);
  assertStrictEquals(guard.run(Op.Update, () => 1), 1);
  // One that had to wait rejects instead.
  const update = hold(guard, "Update");
  const failing = guard.run(Op.Update, fail);
  const next = guard.run(Op.Update, () => 2);
  assert(isPromise(failing));
  update.end();
  assertStrictEquals(await assertRejects(() => failing), error);
  assertEquals(await next, 2);
  assertStrictEquals(guard.run(Op.Close, () => 3), 3);
});

Deno.test("R4 CallGuard returns a rejection, and continues", async () => {
  const guard = new CallGuard(1);
  const error = new Error("No");
  const update = hold(guard, "Update");
  const next = hold(guard, "Update");
  update.end(error);
  assertStrictEquals(await assertRejects(() => update.done), error);
  await ticks();
  assert(next.begun());
  next.end();
  await next.done;
  assertStrictEquals(guard.run(Op.Update, () => 1), 1);
});

Deno.test("R2 CallGuard awaits a thenable", async () => {
  const guard = new CallGuard(1);
  const { promise, resolve } = Promise.withResolvers<number>();
  const thenable = {
    then: promise.then.bind(promise),
  } as unknown as Promise<number>;
  const first = guard.run(Op.Update, () => thenable);
  const second = guard.run(Op.Update, () => 2);
  assert(isPromise(second));
  resolve(1);
  assertEquals([await first, await second], [1, 2]);
});

Deno.test("C5 CallGuard.begin() overtakes waiting calls, and throws if it is excluded", async () => {
  const guard = new CallGuard(2);
  const prepare = hold(guard, "Prepare");
  const close = hold(guard, "Close");
  const { promise, resolve } = Promise.withResolvers<void>();
  const save = guard.begin(Op.Save, () => promise);
  prepare.end();
  await ticks();
  // The save keeps the close waiting.
  assertFalse(close.begun());
  assertThrows(
    () =>
      new CallGuard(1).run(Op.Update, () => guard.begin(Op.Recover, () => 1)),
    Error,
    "excluded",
  );
  resolve();
  await save;
  await ticks();
  assert(close.begun());
  assertThrows(() => guard.begin(Op.Save, () => promise), Error, "excluded");
  close.end();
  await close.done;
});

for (const [type, what, matrix] of MATRICES) {
  Deno.test(`${what} machine: CallGuard under seeded calls`, async () => {
    const { below, chance, pick } = seeded();
    const names = [...matrix.keys()];
    for (let round = 0; round < 40; round++) {
      const guard = new CallGuard(type);
      const running: Name[] = [];
      /** Calls in the order they were asked for; those that began are taken out. */
      const asked: { name: Name; id: number }[] = [];
      let id = 0;
      let finished = 0;
      const check = (name: Name): void => {
        for (const other of running) {
          assert(
            matrix.get(name)!.get(other) !== "x",
            `${name} overlaps ${other}`,
          );
        }
      };
      const enter = (name: Name, mine: number): void => {
        check(name);
        const at = asked.findIndex((one) => one.id === mine);
        // No call overtakes one that it would delay.
        for (const before of asked.slice(0, at)) {
          assert(
            matrix.get(name)!.get(before.name) !== "x",
            `${name} overtakes ${before.name}`,
          );
        }
        asked.splice(at, 1);
      };
      const call = async (): Promise<void> => {
        const name = pick(names);
        const mine = id++;
        asked.push({ name, id: mine });
        const sync = chance(0.3);
        const fails = chance(0.2);
        const long = below(6);
        try {
          await guard.run<void>(Op[name], () => {
            enter(name, mine);
            if (sync) {
              if (fails) throw new Error("No");
              return;
            }
            running.push(name);
            return (async () => {
              await ticks(long);
              running.splice(running.indexOf(name), 1);
              if (fails) throw new Error("No");
            })();
          });
          assertFalse(fails);
        } catch (error) {
          assert(fails && (error as Error).message === "No", `${error}`);
        }
        finished++;
      };
      const all: Promise<void>[] = [];
      for (let i = 0; i < 60; i++) {
        all.push(call());
        if (chance(0.4)) await ticks(below(4));
      }
      await Promise.all(all);
      assertEquals([running, asked], [[], []]);
      assertEquals(finished, 60);
      for (const name of names) {
        assertStrictEquals(guard.run(Op[name], () => 7), 7);
      }
    }
  });
}

Deno.test("R9 CallGuard.fail() rejects waiting and later calls, except close()", async () => {
  const guard = new CallGuard(1);
  const recover = hold(guard, "Recover");
  const error = new Error("Failed");
  const called: string[] = [];
  const waiting = (["Lookup", "Update", "Hash", "Save"] as const).map((name) =>
    assertRejects(async () =>
      await guard.run(Op[name], () => called.push(name))
    )
  );
  const close = guard.run(Op.Close, () => called.push("Close"));
  assertFalse(guard.failed);
  guard.fail(error);
  assert(guard.failed);
  for (const told of await Promise.all(waiting)) {
    assertStrictEquals(told, error);
  }
  recover.end();
  await recover.done;
  await close;
  assertThrows(() => guard.run(Op.Lookup, () => 1), Error, "Failed");
  assertEquals(called, ["Close"]);
});
