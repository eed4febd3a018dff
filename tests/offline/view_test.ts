import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  type CommandGroup,
  ConcurrentKVStateMachine,
  ErrClusterClosed,
  ErrNotImplemented,
  ErrProposalRefused,
  ErrSnapshotAborted,
  ErrStoreFull,
  type IGroup,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryFileStore,
  MemoryOutbox,
  NodeHost,
  OnDiskKVStateMachine,
  type Submission,
} from "../../mod.ts";
import { systemEnv } from "../../src/env.ts";
import {
  OptimisticView,
  type PendingCommand,
  type PendingCommandList,
  type PendingCommands,
} from "../../src/offline/optimistic_view.ts";
import { isPromise } from "../../src/async.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import { type MachineFactory, StateMachine } from "../../src/rsm/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import {
  batchesOf,
  Listener,
  place,
  proposal,
} from "../support/log_records.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { RETRY_LAST_MS } from "../../src/limits.ts";
import {
  ConcurrentJournal,
  Disk,
  type Journal,
  type MachineFaults,
  PlainDiskJournal,
  RegularJournal,
} from "../machines/journal.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { random32 } from "../support/random.ts";
import { start } from "../support/clusters.ts";

/** State machine, pending commands, and the optimistic view of both. */
class World implements PendingCommands {
  readonly machine: StateMachine<string>;
  readonly view: OptimisticView<string>;
  readonly poison: [PendingCommand, unknown][] = [];
  readonly failures: unknown[] = [];
  readonly stopped = new AbortController();
  readonly pending: PendingCommand[] = [];
  recovering: Promise<void> | undefined;
  generation = 0;
  #id = 0;
  #sent = 0;
  #index = 0;

  constructor(factory: MachineFactory) {
    const listener = new Listener();
    listener.proposalApplied = (sequence) => {
      const at = this.pending.findIndex(({ id }) => id === sequence);
      if (at < 0) return;
      this.remove(at);
      this.view.changed();
    };
    const options = { hashEntries: 0 };
    this.machine = new StateMachine(factory, 7n, 1n, listener, options);
    const context = {
      factory,
      clusterID: 7n,
      nodeID: 1n,
      files: new MemoryFileStore(),
      env: systemEnv,
      fail: (cause: unknown) => this.failures.push(cause),
      stopped: this.stopped.signal,
      ended: this.stopped.signal,
    };
    const recovering = (): Promise<void> | undefined => this.recovering;
    const machine = {
      current: this.machine,
      check: () => this.stopped.signal.throwIfAborted(),
      get recovering() {
        return recovering();
      },
    };
    this.view = new OptimisticView(
      { context, machine },
      this,
      {
        poisoned: (command, error) => this.poison.push([command, error]),
        caughtUp: () => {},
      },
    );
  }

  get next(): number {
    return this.#id + 1;
  }

  get shown(): number {
    return this.pending.length;
  }

  list(from: number): PendingCommandList {
    const commands = this.pending.filter(({ id }) => id >= from);
    return { commands, next: this.next };
  }

  read(): Promise<void> {
    return Promise.resolve();
  }

  remove(at: number): void {
    this.pending.splice(at, 1);
    this.generation++;
  }

  submit(cmd: Uint8Array): void {
    this.pending.push({ id: ++this.#id, bytes: cmd });
    this.view.changed();
  }

  /** Commits the first `own` pending commands, then those of other replicas. */
  async commit(own: number, ...others: Uint8Array[]): Promise<void> {
    const records = this.pending.filter(({ id }) => id > this.#sent)
      .slice(0, own).map(({ id, bytes }) => {
        this.#sent = id;
        return proposal(id, bytes);
      });
    const all = [...records, ...others.map((cmd) => proposal(1, cmd, [1, 1]))];
    const batches = batchesOf(place(all, this.#index + 1), this.#index);
    this.#index += all.length;
    await this.machine.apply(batches);
  }

  async stop(): Promise<void> {
    this.stopped.abort(new Error("Stopped"));
    await this.machine.close();
    this.view.close();
    await settle();
  }
}

class ForkJournal extends RegularJournal {
  fork(): ForkJournal | Promise<ForkJournal> {
    return this.call("fork", () => {
      const fork = new ForkJournal(this.faults, ...this.ids);
      fork.list = [...this.list];
      return fork;
    }) as ForkJournal;
  }
}

class ConcurrentForkJournal extends ConcurrentJournal {
  fork(): ConcurrentForkJournal | Promise<ConcurrentForkJournal> {
    return this.call("fork", () => {
      const fork = new ConcurrentForkJournal(this.faults, ...this.ids);
      fork.list = [...this.list];
      return fork;
    }) as ConcurrentForkJournal;
  }
}

/** Kinds of machines in memory, with `fork()` and without. */
function factories(faults: MachineFaults): [string, MachineFactory][] {
  return [
    ["regular", {
      type: 1,
      create: (c, n) => new RegularJournal(faults, c, n),
    }],
    ["concurrent", {
      type: 2,
      create: (c, n) => new ConcurrentJournal(faults, c, n),
    }],
    ["regular fork", {
      type: 1,
      create: (c, n) => new ForkJournal(faults, c, n),
    }],
    ["concurrent fork", {
      type: 2,
      create: (c, n) => new ConcurrentForkJournal(faults, c, n),
    }],
  ];
}

const kvFactories: [string, () => MachineFactory][] = [
  ["regular", () => ({ type: 1, create: () => new KVStateMachine() })],
  ["concurrent", () => ({
    type: 2,
    create: () => new ConcurrentKVStateMachine(),
  })],
  ["on disk", () => ({
    type: 3,
    create: () => new OnDiskKVStateMachine(() => new MemoryBlockStore()),
  })],
];

async function kvWorld(factory: MachineFactory): Promise<World> {
  const world = new World(factory);
  await world.machine.open(world.stopped.signal);
  return world;
}

Deno.test(
  "U25 the view is the committed state with pending commands applied, and re-run after every commit",
  checked(async () => {
    for (const [name, factory] of factories({})) {
      const world = new World(factory);
      const { view } = world;
      assertEquals(await view.lookup(null), [], name);
      world.submit(bytes("a"));
      world.submit(bytes("b"));
      assertEquals(await view.lookup(null), ["a", "b"], name);
      world.submit(bytes("c"));
      assertEquals(await view.lookup(null), ["a", "b", "c"], name);
      await world.commit(0, bytes("x"));
      assertEquals(await view.lookup(null), ["x", "a", "b", "c"], name);
      await world.commit(1, bytes("y"));
      assertEquals(await view.lookup(null), ["x", "a", "y", "b", "c"], name);
      // A command that is given up without being committed.
      world.remove(0);
      assertEquals(await view.lookup(null), ["x", "a", "y", "c"], name);
      await world.commit(1);
      assertEquals(await view.lookup(null), ["x", "a", "y", "c"], name);
      await world.stop();
    }
  }),
);

Deno.test(
  "U25 H10 without an outbox the view is the committed state, of any kind of machine, until the replica stops",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "disk"] as const) {
      const { host, replica } = await start({ kind });
      await replica.propose(bytes("a"));
      assertEquals(await replica.view.lookup(null), ["a"], kind);
      await host.stop();
      const closed = await rejection(
        (async () => await replica.view.lookup(null))(),
      );
      assertInstanceOf(closed, ErrClusterClosed, kind);
    }
  }),
);

Deno.test(
  "U25 a pending command whose condition no longer holds is shown as not done",
  checked(async () => {
    for (const [name, factory] of kvFactories) {
      const world = await kvWorld(factory());
      const { view } = world;
      const seat = async (): Promise<string> =>
        text(await view.lookup(kv.get("seat")) as Uint8Array);
      world.submit(kv.compareAndSwap("seat", undefined, "mine"));
      world.submit(kv.compareAndSwap("seat", "mine", "paid"));
      assertEquals(await seat(), "paid", name);
      await world.commit(0, kv.compareAndSwap("seat", undefined, "theirs"));
      assertEquals(await seat(), "theirs", name);
      await world.commit(2);
      assertEquals(await seat(), "theirs", name);
      assertEquals(world.pending.length, 0);
      await world.stop();
    }
  }),
);

async function simulate(next: () => number): Promise<void> {
  for (let round = 0; round < 6; round++) {
    const slow: MachineFaults = {
      before: (method) =>
        round % 2 === 1 && method !== "close" && next() % 2 === 0
          ? settle(next() % 3)
          : undefined,
      result: (method, value) =>
        round % 2 === 1 && method === "update" && next() % 2 === 0
          ? settle(1).then(() => value)
          : value,
    };
    for (const [name, factory] of factories(slow)) {
      const world = new World(factory);
      const submitted: string[] = [];
      const others: string[] = [];
      const asked: Promise<void>[] = [];
      let committing = Promise.resolve();
      for (let step = 0; step < 60; step++) {
        const kind = next() % 10;
        if (kind < 3) {
          submitted.push(`own ${submitted.length}`);
          world.submit(bytes(submitted.at(-1)!));
        } else if (kind < 5) {
          const own = next() % 3;
          const other = Array.from(
            { length: next() % 2 },
            () => `other ${others.length}`,
          );
          others.push(...other);
          committing = committing.then(() =>
            world.commit(own, ...other.map(bytes))
          );
        } else if (kind < 9) {
          const known = [...submitted];
          asked.push((async () => {
            const list = await world.view.lookup(null) as string[];
            const own = list.filter((one) => one.startsWith("own"));
            assert(own.length >= known.length, name);
            assertEquals(own, submitted.slice(0, own.length), name);
          })());
        } else await settle(1);
      }
      await committing;
      await Promise.all(asked);
      await world.commit(1000);
      assertEquals(world.pending, []);
      await world.stop();
    }
  }
}

Deno.test(
  "U25 U30 in any interleaving, each submitted command is in every answer once, in order",
  checked(async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    try {
      await simulate(random32(seed));
    } catch (cause) {
      throw new Error(`Failed with seed ${seed}: ${cause}`, { cause });
    }
  }),
);

Deno.test(
  "U25 a view queried while a command is being applied and still pending shows it once",
  checked(async () => {
    let gate = new Gate();
    gate.open();
    const result = (method: string, value: unknown): unknown =>
      method === "update" ? gate.opened.then(() => value) : value;
    for (const [name, factory] of factories({ result })) {
      const world = new World(factory);
      world.submit(bytes("a"));
      world.submit(bytes("b"));
      assertEquals(await world.view.lookup(null), ["a", "b"], name);
      gate = new Gate();
      const committing = world.commit(1, bytes("x"));
      await settle();
      const asked = Promise.resolve(world.view.lookup(null));
      await settle();
      // A command that is given up: the copy has to be replaced.
      world.remove(-1);
      const again = Promise.resolve(world.view.lookup(null));
      await settle();
      gate.open();
      // Without a fork, the copy from before is fresh enough.
      const answer = await asked as string[];
      assertEquals(answer.filter((one) => one !== "x")[0], "a", name);
      assertEquals(await again, ["a", "x"], name);
      await committing;
      assertEquals(await world.view.lookup(null), ["a", "x"], name);
      await world.stop();
    }
  }),
);

async function compareForks(next: () => number): Promise<void> {
  const memory = new World({ type: 1, create: () => new KVStateMachine() });
  const disk = await kvWorld({
    type: 3,
    create: () =>
      new OnDiskKVStateMachine(() => new MemoryBlockStore(), {
        memoryBudgetBytes: 64 * 1024,
      }),
  });
  const command = (): Uint8Array => {
    const key = `k${next() % 2000}`;
    const value = new Uint8Array(next() % 300).fill(next());
    return next() % 4 === 0
      ? kv.delete(key)
      : next() % 5 === 0
      ? kv.batch([kv.delete(key), kv.put(`k${next() % 2000}`, value)])
      : kv.put(key, value);
  };
  const fill = Array.from({ length: 2000 }, command);
  let async = 0;
  for (let round = 0; round < 60; round++) {
    const others = round === 0 ? fill : [command()];
    const own = next() % 4;
    const committing = [memory, disk].map((world) =>
      world.commit(own, ...others)
    );
    if (next() % 2 === 0) await Promise.all(committing);
    const cmd = command();
    for (const world of [memory, disk]) world.submit(cmd);
    const low = next() % 2000;
    for (
      const query of [
        kv.get(`k${low}`),
        kv.count(),
        kv.range({
          start: `k${low}`,
          end: `k${low + next() % 500}`,
          reverse: next() % 2 === 0,
          limit: next() % 3 === 0 ? undefined : next() % 40,
        }),
        kv.range({ limit: 3 }),
      ]
    ) {
      const answer = disk.view.lookup(query);
      if (isPromise(answer)) async++;
      assertEquals(await answer, await memory.view.lookup(query));
    }
    await Promise.all(committing);
  }
  assert(async > 0);
  await Promise.all([memory, disk].map((world) => world.stop()));
}

Deno.test(
  "U25 the fork of the on-disk machine answers as the machine in memory, with a cold or warm cache",
  checked(async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    try {
      await compareForks(random32(seed));
    } catch (cause) {
      throw new Error(`Failed with seed ${seed}: ${cause}`, { cause });
    }
  }),
);

Deno.test(
  "U17 a command at which the machine throws is left out and reported, and the others are shown",
  checked(async () => {
    class Picky extends ForkJournal {
      override apply(cmd: Uint8Array): ReturnType<Journal["apply"]> {
        // Its changes before it throws must not be shown.
        this.list.push("half");
        if (text(cmd).startsWith("poison")) throw new Error(text(cmd));
        this.list.pop();
        return super.apply(cmd);
      }
      override fork(): ForkJournal {
        const fork = new Picky({}, ...this.ids);
        fork.list = [...this.list];
        return fork;
      }
    }
    class PickyUnforked extends RegularJournal {
      override apply(cmd: Uint8Array): ReturnType<Journal["apply"]> {
        if (text(cmd).startsWith("poison")) throw new Error(text(cmd));
        return super.apply(cmd);
      }
    }
    for (const Machine of [Picky, PickyUnforked]) {
      const world = new World({
        type: 1,
        create: (c, n) => new Machine({}, c, n),
      });
      for (const cmd of ["a", "poison 1", "b", "poison 2", "c"]) {
        world.submit(bytes(cmd));
      }
      assertEquals(await world.view.lookup(null), ["a", "b", "c"]);
      world.submit(bytes("d"));
      await world.commit(1, bytes("x"));
      assertEquals(await world.view.lookup(null), ["a", "x", "b", "c", "d"]);
      assertEquals(
        world.poison.map(([{ bytes }, error]) => [text(bytes), `${error}`]),
        [["poison 1", "Error: poison 1"], ["poison 2", "Error: poison 2"]],
      );
      await world.stop();
    }
  }),
);

Deno.test(
  "U25 forks that are replaced are closed, and no lookup follows",
  checked(async () => {
    for (const slow of [false, true]) {
      const machines = new Set<ForkJournal>();
      class Counted extends ForkJournal {
        override fork(): ForkJournal {
          const fork = super.fork() as ForkJournal;
          machines.add(fork);
          return fork;
        }
      }
      const world = new World({
        type: 1,
        create: (c, n) =>
          new Counted(
            {
              before: (method) =>
                slow && method === "lookup" ? settle(1) : undefined,
            },
            c,
            n,
          ),
      });
      for (let i = 0; i < 5; i++) {
        world.submit(bytes(`${i}`));
        const asked = [world.view.lookup(null), world.view.lookup(null)];
        if (i === 2) world.remove(0);
        asked.push(world.view.lookup(null));
        await Promise.all(asked);
        await world.commit(0, bytes("x"));
      }
      await world.view.lookup(null);
      assert(machines.size >= 5);
      const open = [...machines].filter(({ closed }) => !closed);
      assertEquals(open.length, 1);
      await world.stop();
      assert(open[0]!.closed);
    }
  }),
);

Deno.test(
  "U25 an on-disk machine without fork() has no view of pending commands",
  checked(async () => {
    const world = await kvWorld({
      type: 3,
      create: (c, n) => new PlainDiskJournal(new Disk(), {}, c, n),
    });
    assertEquals(await world.view.lookup(null), []);
    world.submit(bytes("a"));
    const error = await rejection(
      (async () => await world.view.lookup(null))(),
    );
    assertInstanceOf(error, ErrNotImplemented);
    await world.commit(1);
    assertEquals(await world.view.lookup(null), ["a"]);
    await world.stop();
  }),
);

Deno.test(
  "U25 many lookups share one copy of a machine that cannot fork, and each waits for no more than two",
  checked(async () => {
    const made: Journal[] = [];
    const world = new World({
      type: 1,
      create: (c, n) => {
        const machine = new RegularJournal({}, c, n);
        made.push(machine);
        return machine;
      },
    });
    world.submit(bytes("a"));
    const asked: Promise<unknown>[] = [];
    for (let i = 0; i < 20; i++) {
      asked.push(Promise.resolve(world.view.lookup(null)));
    }
    await settle(1);
    await world.commit(0, bytes("x"));
    for (let i = 0; i < 20; i++) {
      asked.push(Promise.resolve(world.view.lookup(null)));
    }
    const answers = await Promise.all(asked);
    assertEquals(answers.slice(20), Array(20).fill(["x", "a"]));
    assert(made.length <= 3, `${made.length}`);
    await world.stop();
    for (const { closed } of made) assert(closed);
  }),
);

Deno.test(
  "R7 lookup() throws when the machine aborts the snapshot for it, and the next one succeeds",
  checked(async () => {
    let refuse = true;
    const world = new World({
      type: 1,
      create: (c, n) =>
        new RegularJournal(
          {
            before: (method) => {
              if (refuse && method === "saveSnapshot") {
                throw new ErrSnapshotAborted();
              }
            },
          },
          c,
          n,
        ),
    });
    world.submit(bytes("a"));
    const error = await rejection(
      (async () => await world.view.lookup(null))(),
    );
    assertInstanceOf(error, ErrSnapshotAborted);
    refuse = false;
    assertEquals(await world.view.lookup(null), ["a"]);
    assertEquals(world.failures, []);
    await world.stop();
  }),
);

Deno.test(
  "R8 a machine that fails when it is saved for the view has failed",
  checked(async () => {
    const broken = new Error("Broken");
    const world = new World({
      type: 1,
      create: (c, n) =>
        new RegularJournal(
          {
            before: (method) => {
              if (method === "saveSnapshot") throw broken;
            },
          },
          c,
          n,
        ),
    });
    world.submit(bytes("a"));
    const error = await rejection(
      (async () => await world.view.lookup(null))(),
    );
    assertEquals(error, broken);
    assertEquals(world.failures, [broken]);
    await world.stop();
  }),
);

Deno.test(
  "H10 a view that is being made when the replica stops is ended and closed",
  checked(async () => {
    const gate = new Gate();
    const made: Journal[] = [];
    for (const method of ["saveSnapshot", "recoverFromSnapshot", "update"]) {
      const world = new World({
        type: 1,
        create: (c, n) => {
          const machine = new RegularJournal(
            {
              before: (called) => called === method ? gate.opened : undefined,
            },
            c,
            n,
          );
          made.push(machine);
          return machine;
        },
      });
      world.submit(bytes("a"));
      const asked = rejection(Promise.resolve(world.view.lookup(null)));
      await settle();
      const stopped = world.stop();
      assertEquals(`${await asked}`, "Error: Stopped");
      gate.open();
      await stopped;
      await settle();
    }
    for (const { closed } of made) assert(closed);
  }),
);

Deno.test(
  "H9 while the replica recovers in place, the view waits until the pending commands are known",
  checked(async () => {
    const world = new World({ type: 1, create: () => new KVStateMachine() });
    world.submit(kv.put("a", "1"));
    const gate = new Gate();
    world.recovering = gate.opened;
    const asked = world.view.lookup(kv.count()) as Promise<unknown>;
    await settle();
    world.remove(0);
    world.recovering = undefined;
    gate.open();
    assertEquals(await asked, 0);
    await world.stop();
  }),
);

Deno.test(
  "U15 U25 a submission is shown at once, and is in every answer exactly once, before and after it is committed",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "fork"] as const) {
      await using logDB = new FaultyLogDB();
      await using outbox = new MemoryOutbox();
      const host = new NodeHost({ logDB, outbox });
      const config = { clusterID: 1n, nodeID: 1n };
      const replica = kind === "concurrent"
        ? await host.startConcurrentCluster(
          (c, n) => new ConcurrentJournal({}, c, n),
          config,
        )
        : await host.startCluster(
          (c, n) =>
            kind === "fork"
              ? new ForkJournal({}, c, n)
              : new RegularJournal({}, c, n),
          config,
        );
      const other = await start({ logDB, config: { nodeID: 2n } });
      const seen: string[][] = [];
      const watching = (async () => {
        for await (const list of replica.watch<string[]>(null)) seen.push(list);
      })().catch(() => {});
      let gate = new Gate();
      logDB.faults.append = async (_, nodeID) => {
        if (nodeID === 1n) await gate.opened;
        return undefined;
      };
      const submitted: Submission[] = [];
      for (const cmd of ["a", "b", "c"]) {
        submitted.push(await replica.submit(bytes(cmd)));
      }
      assertEquals(await replica.view.lookup(null), ["a", "b", "c"]);
      assertEquals(await replica.staleRead(null), []);
      await other.replica.propose(bytes("x"));
      await settle();
      assertEquals(await replica.view.lookup(null), ["x", "a", "b", "c"]);
      gate.open();
      await Promise.all(submitted.map(({ result }) => result));
      assertEquals(await replica.view.lookup(null), ["x", "a", "b", "c"]);
      gate = new Gate();
      gate.open();
      for (let i = 0; i < 20; i++) {
        submitted.push(await replica.submit(bytes(`own ${i}`)));
        if (i % 3 === 0) await other.replica.propose(bytes(`x ${i}`));
        if (i % 4 === 0) await settle(1);
      }
      await Promise.all(submitted.map(({ result }) => result));
      // A copy by snapshot takes some turns.
      const last = await replica.staleRead(null) as string[];
      for (let i = 0; i < 500 && seen.at(-1)!.length < last.length; i++) {
        await settle(1);
      }
      assertEquals(seen.at(-1), last);
      let count = 0;
      for (const list of seen) {
        const own = list.filter((one) => !one.startsWith("x"));
        assertEquals(new Set(own).size, own.length);
        assert(own.length >= count, `${own} after ${count}`);
        count = own.length;
      }
      assertEquals(count, 23);
      await host.stop();
      await watching;
      await other.host.stop();
    }
  }),
);

Deno.test(
  "U17 a command at which a machine with fork() throws is refused before it is sent, and does not block those after it",
  checked(async () => {
    class Picky extends ForkJournal {
      override apply(cmd: Uint8Array): ReturnType<Journal["apply"]> {
        if (text(cmd) === "poison") throw new TypeError("Poisoned");
        return super.apply(cmd);
      }
      override fork(): ForkJournal {
        const fork = new Picky({}, ...this.ids);
        fork.list = [...this.list];
        return fork;
      }
    }
    await using outbox = new MemoryOutbox();
    const host = new NodeHost({ outbox });
    const replica = await host.startCluster(
      (c, n) => new Picky({}, c, n),
      { clusterID: 1n, nodeID: 1n },
    );
    const results: Promise<unknown>[] = [];
    for (const cmd of ["a", "poison", "b", "poison", "c"]) {
      results.push((await replica.submit(bytes(cmd))).result);
    }
    const settled = await Promise.allSettled(results);
    assertEquals(settled.map(({ status }) => status), [
      "fulfilled",
      "rejected",
      "fulfilled",
      "rejected",
      "fulfilled",
    ]);
    assertEquals(await replica.view.lookup(null), ["a", "b", "c"]);
    assertEquals(
      replica.pending().map(({ state, reason }) => [state, reason]),
      Array(2).fill(["refused", "TypeError: Poisoned"]),
    );
    assertEquals(replica.error, undefined);
    await host.stop();
  }),
);

/** Machine whose forks throw at "a", of which "b" is of the same group. */
class Picky extends ForkJournal implements IGroup {
  override fork(): ForkJournal {
    const fork = new ForkJournal({}, ...this.ids);
    const { apply } = fork;
    fork.apply = (cmd, ...rest) => {
      if (text(cmd) === "a") throw new TypeError("Poisoned");
      return apply.call(fork, cmd, ...rest);
    };
    return fork;
  }

  group(): CommandGroup {
    return { key: "g", refusal: { reason: "After a", result: { value: 0n } } };
  }
}

for (
  const [end, written] of [["was killed", Infinity], ["lost power", 1]] as const
) {
  for (
    const [told, which] of ["a command", "one after it in its group"].entries()
  ) {
    Deno.test(
      `U17 a refusal that the log has no record of, of ${which}, is durable once it is told: after the device ${end}, code that does not throw never applies the command`,
      checked(async () => {
        const disk = new MemoryBlockStore();
        const store = new FaultyBlockStore({ store: disk, asynchronous: true });
        const host = new NodeHost({ outbox: new BlockOutbox(store) });
        const ids = { clusterID: 1n, nodeID: 1n };
        const replica = await host.startCluster(
          (c, n) => new Picky({}, c, n),
          ids,
        );
        const submissions = await Promise.all(
          ["a", "b"].map((cmd) => replica.submit(bytes(cmd))),
        );
        await rejection(submissions[told]!.result);
        store.crash(written);
        const other = new NodeHost({ outbox: new BlockOutbox(disk) });
        const later = await other.startCluster(
          (c, n) => new ForkJournal({}, c, n),
          ids,
        );
        assertEquals(later.pending()[told]?.state, "refused");
        await other.stop();
        await host.stop().catch(() => {});
      }),
    );
  }
}

Deno.test(
  "U17 a refusal that cannot be stored is told once it can be, or the result rejects as the replica stops",
  checked(async () => {
    const env = new ManualEnv(1);
    const store = new FaultyBlockStore({ asynchronous: true });
    const events: string[] = [];
    const host = new NodeHost({
      env,
      outbox: new BlockOutbox(store, { env }),
      onEvent: ({ type }) => events.push(type),
    });
    const replica = await env.until(host.startCluster(
      (c, n) => new Picky({}, c, n),
      { clusterID: 1n, nodeID: 1n },
    ));
    const submitted = async (): Promise<{ result: Promise<unknown> }> => {
      store.fault = {
        at: store.writes + 2,
        error: new ErrStoreFull("ENOSPC: no space left"),
      };
      const submission = await env.until(replica.submit(bytes("a")));
      const result = rejection(submission.result);
      await settle(20);
      assertEquals(submission.state, "refused");
      assertEquals(await peek(result), "pending");
      return { result };
    };
    const first = await submitted();
    assertEquals(events, ["outbox failed"]);
    await env.advance(RETRY_LAST_MS);
    assertInstanceOf(await env.until(first.result), ErrProposalRefused);
    const second = await submitted();
    await env.until(host.stop());
    assertInstanceOf(await second.result, ErrClusterClosed);
  }),
);

Deno.test(
  "U8 U25 a submission is in the view from the call on; one that cannot be stored leaves it, and those after it are stored",
  checked(async () => {
    const store = new FaultyBlockStore({ asynchronous: true });
    const outbox = new BlockOutbox(store);
    await using logDB = new FaultyLogDB();
    const host = new NodeHost({ logDB, outbox });
    const replica = await host.startCluster(
      (c, n) => new ForkJournal({}, c, n),
      { clusterID: 1n, nodeID: 1n },
    );
    const gate = new Gate();
    logDB.faults.append = async () => {
      await gate.opened;
      return undefined;
    };
    const a = replica.submit(bytes("a"));
    assertEquals(replica.view.lookup(null), ["a"]);
    assertEquals(replica.pendingCount, 0);
    assertEquals((await a).id, 1);
    const full = new ErrStoreFull("Full");
    store.fault = { at: store.writes + 1, error: full };
    const b = rejection(replica.submit(bytes("b")));
    // The write of it begins.
    await Promise.resolve();
    await Promise.resolve();
    const c = replica.submit(bytes("c"));
    const d = replica.submit(bytes("d"));
    assertEquals(replica.view.lookup(null), ["a", "b", "c", "d"]);
    assertStrictEquals(await b, full);
    assertEquals(replica.view.lookup(null), ["a", "c", "d"]);
    assertEquals([(await c).id, (await d).id], [2, 3]);
    assertEquals(replica.view.lookup(null), ["a", "c", "d"]);
    gate.open();
    await Promise.all([a, c, d].map(async (one) => (await one).result));
    assertEquals(replica.staleRead(null), ["a", "c", "d"]);
    await host.stop();
    await outbox.close();
  }),
);
