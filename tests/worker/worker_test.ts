import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
} from "@std/assert";
import {
  ErrNewerCode,
  ErrNotImplemented,
  type Forked,
  type IConcurrentStateMachine,
  type IFork,
  type IOnDiskStateMachine,
  type IStateMachine,
  MemoryOutbox,
  NodeHost,
} from "../../mod.ts";
import {
  checkConcurrentStateMachine,
  checkOnDiskStateMachine,
  checkStateMachine,
} from "../../src/testing/mod.ts";
import {
  ErrWorkerFailed,
  workerMachine,
  type WorkerMachineOptions,
} from "../../src/worker/mod.ts";
import { bytes } from "../support/bytes.ts";
import { commands, queries } from "../machines/notes.ts";
import { typed } from "../../src/typed/mod.ts";
import { list } from "./typed_list.ts";

const moduleOf = (name: string): URL =>
  new URL(`./${name}_worker.ts`, import.meta.url);

const CLUSTER = { clusterID: 1n, nodeID: 1n };

function test(name: string, run: () => Promise<void>): void {
  // Workers end in turns of the event loop of their own.
  const options = { sanitizeOps: false, sanitizeResources: false };
  Deno.test(name, options, run);
}

test("R1 R12 a regular machine in a worker passes the contract suite", async () => {
  const create = await workerMachine(moduleOf("regular"));
  await checkStateMachine({
    create,
    commands,
    queries,
    seed: 7,
    runs: 1,
    maxCommands: 4,
  });
});

test("C1 C7 a concurrent machine in a worker passes the contract suite", async () => {
  const create = await workerMachine<IConcurrentStateMachine>(
    moduleOf("concurrent"),
  );
  await checkConcurrentStateMachine({
    create,
    commands,
    queries,
    seed: 7,
    runs: 1,
    maxCommands: 4,
  });
});

test("D1 D12 a machine on disk in a worker passes the contract suite", async () => {
  const directory = await Deno.makeTempDir({ prefix: "worker-" });
  let made = 0;
  try {
    await checkOnDiskStateMachine({
      commands,
      queries,
      seed: 7,
      runs: 1,
      maxCommands: 4,
      disk: async () => {
        // In the name, since Deno checks the types of each URL again.
        const name = `${directory}/${++made}`;
        const create = await workerMachine<IOnDiskStateMachine>(
          () => new Worker(moduleOf("on_disk"), { type: "module", name }),
        );
        return { create };
      },
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("R1 R3 R9 a host runs a machine in a worker: proposals, reads, snapshots, and a restart", async () => {
  const create = await workerMachine<IStateMachine>(moduleOf("regular"));
  await using host = new NodeHost();
  const replica = await host.startCluster(create, CLUSTER);
  const proposed = Array.from(
    { length: 500 },
    (_, i) => replica.propose(bytes(`n${i % 50}=${i}`)),
  );
  await Promise.all(proposed);
  const notes = await replica.read(null) as Map<string, string>;
  assertEquals([notes.size, notes.get("n7")], [50, "457"]);
  assertEquals(await replica.read("n7"), bytes("457"));
  await replica.requestSnapshot();
  await replica.propose(bytes("late=1"));
  const { hash } = await replica.getHash();
  await host.stopCluster(1n);
  const again = await host.startCluster(create, CLUSTER);
  assertEquals(await again.read("late"), bytes("1"));
  assertEquals((await again.getHash()).hash, hash);
});

test("U4 R15 a typed machine in a worker has an optimistic view, and refusals of which the page knows the reasons", async () => {
  const pure = list.create() as WorkerMachineOptions["pure"];
  await assertRejects(
    () => workerMachine(moduleOf("typed")),
    TypeError,
    "give workerMachine() the option pure",
  );
  const create = await workerMachine<IConcurrentStateMachine>(
    moduleOf("typed"),
    { pure: pure! },
  );
  await using host = new NodeHost({ outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(create, CLUSTER);
  const app = typed(replica, list);
  const first = await app.do.add({ id: "a", text: "A" });
  assertEquals(await app.ask.all(), ["a"]);
  await first.result;
  const second = await app.do.add({ id: "a", text: "B" });
  const outcome = await second.result;
  assertEquals(outcome, { ok: false, code: "there" });
  assertEquals(await replica.read({ name: "all", args: [] }), ["a"]);
});

test("R4 R5 errors of a machine in a worker keep class, message, stack and cause", async () => {
  const create = await workerMachine<IStateMachine>(moduleOf("faulty"));
  const machine = create(1n, 1n) as IStateMachine & IFork<IStateMachine>;
  const range = await assertRejects(
    async () => await machine.update(bytes("range")),
    RangeError,
    "Value 7 is out of range",
  );
  assertMatch(range.stack!, /faulty_worker/);
  assertInstanceOf(range.cause, TypeError);
  const newer = await assertRejects(
    async () => await machine.update(bytes("newer")),
    ErrNewerCode,
    "Command 7 needs newer code",
  );
  assertEquals([newer.name, newer instanceof ErrNotImplemented], [
    "ErrNewerCode",
    false,
  ]);
  await assertRejects(
    async () => await machine.lookup(7),
    TypeError,
    "Query 7",
  );
  await assertRejects(
    async () => await machine.lookup("function"),
    TypeError,
    "Answer of lookup() cannot be sent",
  );
  await assertRejects(
    async () => await machine.lookup(() => {}),
    TypeError,
    "Arguments of lookup() cannot be sent",
  );
  // Wrong results are the host's to report.
  assertEquals(await machine.update(bytes("none")), undefined);
  const forks: Forked<IStateMachine>[] = [];
  for (let i = 0; i < 16; i++) forks.push(await machine.fork());
  await forks[0]!.update(bytes("a=1"));
  assertEquals(await forks[0]!.lookup("a"), bytes("1"));
  assertEquals(await machine.lookup("a"), undefined);
  await assertRejects(
    async () => await machine.fork(),
    RangeError,
    "close those that are not used",
  );
  await forks[1]!.close!();
  await machine.fork();
  await machine.close();
  await assertRejects(
    async () => await machine.lookup("a"),
    ErrWorkerFailed,
    "its machine is closed",
  );
});

test("R5 a worker that does not load, or dies, is a failed machine, and says why", async () => {
  await assertRejects(
    () => workerMachine(moduleOf("throwing")),
    ErrWorkerFailed,
    "throwing_worker.ts has failed",
  );
  await assertRejects(
    () => workerMachine(moduleOf("missing")),
    ErrWorkerFailed,
    "missing_worker.ts has failed",
  );
  const create = await workerMachine<IStateMachine>(moduleOf("faulty"));
  await using host = new NodeHost();
  const replica = await host.startCluster(create, CLUSTER);
  await replica.propose(bytes("a=1"));
  replica.propose(bytes("crash")).catch(() => {});
  while (replica.status.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { state, error } = replica.status;
  assertEquals(state, "failed");
  assert(
    /faulty_worker.ts has failed: .*Crash/.test(
      `${error} ${(error as Error).cause}`,
    ),
    `${error}`,
  );
  const ninth = await host.startCluster(create, { clusterID: 9n, nodeID: 1n });
  await assertRejects(
    async () => await ninth.read(null),
    ErrWorkerFailed,
    "No machine for cluster 9",
  );
});
