import { Buffer } from "node:buffer";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrClusterClosed,
  ErrNoOutbox,
  ErrOtherHistory,
  ErrOtherPrincipal,
  ErrOutboxCopied,
  ErrPayloadTooBig,
  ErrProposalRefused,
  ErrStoreFull,
  ErrSystemBusy,
  ErrUnknownOutcome,
  ErrUnsynced,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryLogDB,
  MemoryOutbox,
  NodeHost,
  type Replica,
  type Result,
  type Submission,
} from "../../mod.ts";
import {
  BlockOutbox,
  type Log,
  type LogDB,
  type Records,
} from "../../src/ports/mod.ts";
import {
  COMMAND_BYTES_MAX,
  OUTBOX_BYTES_MAX,
  OUTBOX_DONE_MS,
} from "../../src/limits.ts";
import { ErrRecordsRefused } from "../../src/log/errors.ts";
import { packRecords, recordAt, RecordKind } from "../../src/log/records.ts";
import {
  RecordCursor,
  registerRecord,
  skipRecord,
  unregisterRecord,
} from "../../src/rsm/record_codec.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { type AppendFault, FaultyLogDB } from "../support/faults.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import {
  forge,
  listOf,
  start,
  type Started,
  stopAll,
} from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { RegularJournal } from "../machines/journal.ts";

const CLUSTER = 1n;

/** The commands and states of what is pending. */
function pendingOf(replica: Replica): string[] {
  return replica.pending().map(({ cmd, state }) => `${text(cmd)} ${state}`);
}

async function submitAll(
  replica: Replica,
  ...commands: readonly string[]
): Promise<Submission[]> {
  return await Promise.all(commands.map((cmd) => replica.submit(bytes(cmd))));
}

function results(submissions: readonly Submission[]): Promise<unknown> {
  return Promise.all(submissions.map(({ result }) => result));
}

/** What is in the outbox, by number. */
async function idsOf(outbox: BlockOutbox): Promise<number[]> {
  return (await outbox.unsynced(CLUSTER)).map(({ id }) => id);
}

/** A world with an outbox on blocks that can be copied and broken. */
class World {
  readonly env: ManualEnv;
  readonly logDB: FaultyLogDB;
  store: FaultyBlockStore;
  outbox: BlockOutbox;
  readonly running: Started[] = [];

  constructor(seed = 1) {
    this.env = new ManualEnv(seed);
    this.logDB = new FaultyLogDB({ env: this.env });
    this.store = new FaultyBlockStore();
    this.outbox = this.open(this.store);
  }

  open(store: FaultyBlockStore): BlockOutbox {
    return new BlockOutbox(store, { env: this.env });
  }

  async start(outbox = this.outbox, nodeID = 1n): Promise<Started> {
    const { env, logDB } = this;
    const started = await this.env.until(
      start({ logDB, env, outbox, config: { nodeID } }),
    );
    this.running.push(started);
    return started;
  }

  /** The process is killed: what it has in memory is gone, and it writes nothing any more. */
  async kill({ host }: Started): Promise<void> {
    const killed = this.store;
    this.store = killed.crash(Infinity);
    this.outbox = this.open(this.store);
    await this.stop(host);
  }

  async stop(host: Started["host"]): Promise<void> {
    await this.env.until(host.stop());
  }

  /** What the device would be as a copy. */
  copy(): BlockOutbox {
    const copy = new MemoryBlockStore();
    const names = this.store.names();
    const { store } = this;
    const blocks = store.get(names) as Uint8Array[];
    copy.write({
      put: names.map((key, i) => ({ key, bytes: blocks[i]! })),
    }, "strict");
    return this.open(new FaultyBlockStore({ store: copy }));
  }

  async until<T>(promise: Promise<T>): Promise<T> {
    return await this.env.until(promise, 500);
  }

  async end(): Promise<void> {
    await this.env.until(stopAll(this.running));
  }
}

/** Runs a test in a world that is taken down afterwards. */
function inWorld(run: (world: World) => Promise<void>): () => Promise<void> {
  return checked(async () => {
    const world = new World();
    try {
      await run(world);
    } finally {
      await world.end();
    }
  });
}

/** A log whose guard refuses some commands, as a server does: a place in a series is skipped, for a reason. */
class GuardedLogDB implements LogDB {
  readonly #inner: MemoryLogDB;
  readonly #refuse: (command: string) => string | undefined;

  constructor(
    inner: MemoryLogDB,
    refuse: (command: string) => string | undefined,
  ) {
    this.#inner = inner;
    this.#refuse = refuse;
  }

  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    const log = await this.#inner.open(clusterID, nodeID);
    const append = (records: Records): number | Promise<number> =>
      log.append(this.#guard(records));
    return new Proxy(log, {
      get: (_, key): unknown => {
        if (key === "append") return append;
        const value = log[key as keyof Log] as unknown;
        return typeof value === "function" ? value.bind(log) : value;
      },
    });
  }

  #guard(records: Records): Records {
    const cursor = new RecordCursor();
    return packRecords(...records.ends.map((_, i) => {
      const record = recordAt(records, i);
      cursor.read(record, 0, record.length);
      const { kind, session, series, lag, start } = cursor;
      if (kind !== RecordKind.SessionProposal) return record;
      const reason = this.#refuse(text(record.subarray(start)));
      return reason === undefined
        ? record
        : skipRecord(session, series, lag, reason);
    }));
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

Deno.test(
  "U15 submit() keeps a command, and pending() shows it until it is applied",
  inWorld(async (world) => {
    const { replica } = await world.start();
    world.logDB.faults.append = () => "fail";
    assertEquals(replica.pending(), []);
    const [a, b] = await submitAll(replica, "a", "b");
    assertEquals(pendingOf(replica), ["a queued", "b queued"]);
    assertEquals([a!.id, b!.id], [1, 2]);
    assertStrictEquals(replica.pending(), replica.pending());
    assertEquals(replica.pending(), [a!, b!]);
    let told = 0;
    const end = replica.onPending(() => told++);
    world.logDB.faults.append = () => undefined;
    const result = await world.until(a!.result);
    assertEquals(result.value, 1n);
    assertEquals(text(result.data), "a");
    await world.until(b!.result);
    assertEquals([a!.state, b!.state], ["applied", "applied"]);
    assertEquals(replica.pending(), []);
    assert(told > 0);
    end();
    const before = told;
    await world.until(results(await submitAll(replica, "c")));
    assertEquals(told, before);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "H11 submit() without an outbox, of what is no command, and of one too big",
  checked(async () => {
    const bare = await start();
    await assertRejects(() => bare.replica.submit(bytes("a")), ErrNoOutbox);
    assertEquals(bare.replica.pending(), []);
    await bare.host.stop();
    await using outbox = new MemoryOutbox();
    const { host, replica } = await start({ outbox });
    await assertRejects(
      () => replica.submit("a" as unknown as Uint8Array),
      TypeError,
    );
    await assertRejects(
      () => replica.submit(new Uint8Array(COMMAND_BYTES_MAX + 1)),
      ErrPayloadTooBig,
    );
    assertEquals(replica.pending(), []);
    await host.stop();
  }),
);

Deno.test(
  "H1 H14 submit() and propose() copy commands that are bytes of Node, also those that wait to be sent",
  inWorld(async (world) => {
    const { replica } = await world.start();
    const session = await replica.openSession();
    world.logDB.faults.append = () => "fail";
    const first = replica.propose(bytes("a"), { session });
    await settle();
    // It waits behind the first, which is to be sent again.
    const proposed = Buffer.from("b");
    const second = replica.propose(proposed, { session });
    proposed.fill("x");
    const submitted = Buffer.from("c");
    const submitting = replica.submit(submitted);
    submitted.fill("x");
    const third = await submitting;
    world.logDB.faults.append = () => undefined;
    await world.until(Promise.all([first, second, third.result]));
    // In whichever order: of two sessions.
    assertEquals((await listOf(replica) as string[]).sort(), ["a", "b", "c"]);
  }),
);

Deno.test(
  "U15 a listener of onPending() that leaves and comes again when it is told is told once, and one that has left is not told",
  inWorld(async (world) => {
    const { replica } = await world.start();
    let told = 0;
    const listener = (): void => {
      end();
      if (++told < 1000) end = replica.onPending(listener);
      endOther();
    };
    let end = replica.onPending(listener);
    const endOther = replica.onPending(() => told += 1000);
    world.logDB.faults.append = () => "fail";
    await submitAll(replica, "a");
    await settle();
    assert(told < 10, `${told}`);
    end();
  }),
);

Deno.test(
  "U18 a submission whose dismissal could not be written is there still, and can be dismissed again",
  checked(async () => {
    for (const isApplied of [false, true]) {
      const env = new ManualEnv();
      const store = new FaultyBlockStore();
      const outbox = new BlockOutbox(store, { env });
      const inner = new MemoryLogDB({ env });
      const refuse = (command: string): string | undefined =>
        command === "b" ? "no" : undefined;
      const logDB = new GuardedLogDB(inner, refuse);
      const first = await start({ logDB, env, outbox });
      const [, b] = await submitAll(first.replica, "a", "b", "c");
      await env.until(rejection(b!.result));
      // What is before it is forgotten by then, or not.
      if (isApplied) await env.advance(2 * OUTBOX_DONE_MS);
      const error = new ErrStoreFull("Full");
      store.fault = { at: store.writes + 1, times: 1, error };
      const both = [b!.dismiss(), b!.dismiss()].map(rejection);
      assertEquals(pendingOf(first.replica).includes("b refused"), true);
      for (const one of both) assertStrictEquals(await one, error);
      assertEquals(pendingOf(first.replica), ["b refused"]);
      await env.until(first.host.stop());
      const second = await start({ logDB, env, outbox });
      const [kept] = second.replica.pending();
      assertEquals([text(kept!.cmd), kept!.reason], ["b", "no"]);
      await kept!.dismiss();
      assertEquals(pendingOf(second.replica), []);
      await kept!.dismiss();
      await env.until(second.host.stop());
      assertEquals(await outbox.unsynced(CLUSTER), []);
    }
  }),
);

Deno.test(
  "H11 submit() refuses what is over the bound of the outbox, and takes more once there is room",
  inWorld(async (world) => {
    const { replica } = await world.start();
    world.logDB.faults.append = () => "fail";
    const big = new Uint8Array(COMMAND_BYTES_MAX);
    const submissions: Submission[] = [];
    for (let i = 0; i < OUTBOX_BYTES_MAX / COMMAND_BYTES_MAX; i++) {
      submissions.push(await replica.submit(big));
    }
    await assertRejects(() => replica.submit(bytes("more")), ErrSystemBusy);
    world.logDB.faults.append = () => undefined;
    await world.until(results(submissions));
    await world.until(results(await submitAll(replica, "more")));
  }),
);

Deno.test(
  "U8 what the device has no room for is not half submitted",
  inWorld(async (world) => {
    const { replica } = await world.start();
    world.logDB.faults.append = () => "fail";
    await submitAll(replica, "a");
    const full = new ErrStoreFull("Full");
    world.store.fault = { at: world.store.writes + 1, times: 1, error: full };
    const refused = await Promise.all(
      ["b", "c"].map((cmd) => rejection(replica.submit(bytes(cmd)))),
    );
    assertEquals(refused, [full, full]);
    assertEquals(pendingOf(replica), ["a queued"]);
    const [d] = await submitAll(replica, "d");
    assertEquals(d!.id, 2);
    world.logDB.faults.append = () => undefined;
    await world.until(d!.result);
    assertEquals(await listOf(replica), ["a", "d"]);
  }),
);

Deno.test(
  "H10 a stop fails who waits for a result, and the command is there again after it, in order",
  inWorld(async (world) => {
    const { host, replica } = await world.start();
    world.logDB.faults.append = () => "fail";
    const [a] = await submitAll(replica, "a", "b", "c");
    await world.stop(host);
    assertInstanceOf(await rejection(a!.result), ErrClusterClosed);
    assertEquals(a!.state, "queued");
    await assertRejects(() => replica.submit(bytes("d")), ErrClusterClosed);
    const again = await world.start();
    assertEquals(pendingOf(again.replica), [
      "a queued",
      "b queued",
      "c queued",
    ]);
    assertEquals(again.replica.pending().map(({ id }) => id), [1, 2, 3]);
    world.logDB.faults.append = () => undefined;
    await world.until(results(again.replica.pending()));
    assertEquals(await listOf(again.replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "U21 a command is sent also if its process is killed right after submit()",
  inWorld(async (world) => {
    const first = await world.start();
    await submitAll(first.replica, "a", "b");
    await world.kill(first);
    const { replica } = await world.start();
    const [c] = await submitAll(replica, "c");
    await world.until(c!.result);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "U19 what could not be sent is sent again without a new write",
  inWorld(async (world) => {
    const { replica } = await world.start();
    let fails = 5;
    world.logDB.faults.append = () => fails-- > 0 ? "fail" : undefined;
    const [a] = await submitAll(replica, "a");
    await world.until(a!.result);
    assertEquals(await listOf(replica), ["a"]);
  }),
);

Deno.test(
  "U20 a command whose answer was lost is applied once, with its first result",
  inWorld(async (world) => {
    const { replica } = await world.start();
    for (const fault of ["committed", "twice", "lost"] as const) {
      let done = false;
      world.logDB.faults.append = () => {
        if (done) return undefined;
        done = true;
        return fault;
      };
      const [one] = await submitAll(replica, fault);
      const { data } = await world.until(one!.result);
      assertEquals(text(data), fault);
    }
    assertEquals(await listOf(replica), ["committed", "twice", "lost"]);
  }),
);

Deno.test(
  "U20 a process that dies before the answer comes gets it in its next life",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    // It is committed, and this process never reads of it.
    world.logDB.faults.break(1n);
    const [b] = await submitAll(first.replica, "b", "c");
    await settle();
    await world.kill(first);
    assertInstanceOf(await rejection(b!.result), ErrClusterClosed);
    world.logDB.faults.mend(1n);
    const { replica } = await world.start();
    // What the host held is applied: so it is no longer pending.
    assertEquals(pendingOf(replica), []);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
    await world.until(results(await submitAll(replica, "d")));
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
  }),
);

Deno.test(
  "U15 a command leaves pending() in the very step that applies it",
  inWorld(async (world) => {
    const { replica, machines } = await world.start();
    const seen: string[] = [];
    const machine = machines[0]!;
    world.logDB.faults.append = () => "fail";
    const [a, b] = await submitAll(replica, "a", "b");
    const check = (): void => {
      const pending = replica.pending().map(({ cmd }) => text(cmd));
      seen.push([...machine.list, ...pending].join(""));
    };
    a!.result.then(check);
    b!.result.then(check);
    world.logDB.faults.append = () => undefined;
    await world.until(b!.result);
    assertEquals(seen, ["ab", "ab"]);
  }),
);

Deno.test(
  "U15 what an earlier life has sent leaves pending() as it is applied, before anything is sent",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    world.logDB.faults.break(1n);
    await submitAll(first.replica, "b", "c");
    await settle();
    await world.kill(first);
    world.logDB.faults.mend(1n);
    // The next life comes up with an old state and hears of the rest only later.
    const held = new Gate();
    let gated = true;
    world.logDB.faults.append = async () => {
      await held.opened;
      return undefined;
    };
    world.logDB.faults.batch = (batch) => {
      if (gated) throw new Error("Not yet");
      return batch;
    };
    const starting = world.start();
    await settle();
    gated = false;
    const { replica } = await starting;
    assertEquals(pendingOf(replica), []);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
    held.open();
  }),
);

Deno.test(
  "U30 a command leaves the outbox only once a machine on disk has it for good",
  inWorld(async (world) => {
    const { env, logDB, outbox } = world;
    const { host, replica } = await env.until(
      start({ logDB, env, outbox, kind: "hosted", config: { nodeID: 1n } }),
    );
    const commands = Array.from({ length: 1_100 }, (_, i) => `${i}`);
    const submitted = submitAll(replica, ...commands);
    await world.until(results(await submitted));
    await settle();
    assertEquals((await idsOf(world.copy())).length, 1_100);
    await env.advance(3_000);
    assertEquals(await idsOf(world.copy()), []);
    await world.stop(host);
  }),
);

Deno.test(
  "U17 U18 a refused command blocks none behind it, and is kept until it is dismissed",
  checked(async () => {
    await using inner = new MemoryLogDB();
    const logDB = new GuardedLogDB(
      inner,
      (command) => command === "bad" ? "No such boat" : undefined,
    );
    await using outbox = new MemoryOutbox();
    const first = await start({ logDB, outbox });
    const [a, bad, c] = await submitAll(first.replica, "a", "bad", "c");
    const error = await rejection(bad!.result);
    assertInstanceOf(error, ErrProposalRefused);
    assertEquals(error.reason, "No such boat");
    await results([a!, c!]);
    assertEquals([bad!.state, bad!.reason], ["refused", "No such boat"]);
    assertEquals(pendingOf(first.replica), ["bad refused"]);
    assertEquals(await listOf(first.replica), ["a", "c"]);
    await first.host.stop();

    const second = await start({ logDB, outbox });
    const [kept] = second.replica.pending();
    assertEquals(pendingOf(second.replica), ["bad refused"]);
    assertEquals(kept!.reason, "No such boat");
    assertInstanceOf(await rejection(kept!.result), ErrProposalRefused);
    await kept!.dismiss();
    await kept!.dismiss();
    assertEquals(second.replica.pending(), []);
    await results(await submitAll(second.replica, "d"));
    await second.host.stop();

    const third = await start({ logDB, outbox });
    assertEquals(third.replica.pending(), []);
    assertEquals(await listOf(third.replica), ["a", "c", "d"]);
    await third.host.stop();
    assertEquals(await outbox.unsynced(CLUSTER), []);
  }),
);

Deno.test(
  "U18 a refusal is known also if the process was killed before it was written down",
  checked(async () => {
    await using inner = new MemoryLogDB();
    const logDB = new GuardedLogDB(
      inner,
      (command) => command === "bad" ? "No" : undefined,
    );
    const store = new FaultyBlockStore();
    const first = await start({ logDB, outbox: new BlockOutbox(store) });
    const [bad, b] = await submitAll(first.replica, "bad", "b");
    await b!.result;
    assertEquals(bad!.state, "refused");
    const outbox = new BlockOutbox(store.crash(Infinity));
    await first.host.stop();
    const second = await start({ logDB, outbox });
    assertEquals(pendingOf(second.replica), ["bad refused"]);
    assertEquals(second.replica.pending()[0]!.reason, "No");
    await second.host.stop();
  }),
);

Deno.test(
  "U18 a refusal is known also if the process was killed and a snapshot passed over it",
  checked(async () => {
    await using inner = new MemoryLogDB();
    const logDB = new GuardedLogDB(
      inner,
      (command) => command === "bad" ? "No" : undefined,
    );
    const { snapshots } = inner;
    const store = new FaultyBlockStore();
    const first = await start({
      logDB,
      snapshots,
      outbox: new BlockOutbox(store),
    });
    for (const command of ["a", "bad", "b", "c", "d"]) {
      const [one] = await submitAll(first.replica, command);
      await one!.result.catch(() => {});
    }
    await first.replica.requestSnapshot();
    const outbox = new BlockOutbox(store.crash(Infinity));
    await first.host.stop();
    // Nothing of it was acknowledged before it was written down.
    const second = await start({ logDB, snapshots, outbox });
    assertEquals(pendingOf(second.replica), ["bad refused"]);
    assertEquals(second.replica.pending()[0]!.reason, "No");
    await second.host.stop();
  }),
);

Deno.test(
  "U35 a command that is queued is not dismissed, and an outbox is not cleared of it unless told so",
  inWorld(async (world) => {
    const { host, replica } = await world.start();
    world.logDB.faults.append = () => "fail";
    const [a] = await submitAll(replica, "a", "b");
    await assertRejects(() => a!.dismiss(), ErrUnsynced);
    await world.stop(host);
    const error = await rejection(world.outbox.clear(CLUSTER));
    assertInstanceOf(error, ErrUnsynced);
    assertEquals(
      error.unsynced.map(({ id, cmd, state }) => [id, text(cmd), state]),
      [[1, "a", "queued"], [2, "b", "queued"]],
    );
    await world.outbox.clear(CLUSTER, { discard: true });
    assertEquals(world.store.names(), []);
    world.logDB.faults.append = () => undefined;
    const again = await world.start();
    assertEquals(again.replica.pending(), []);
    await world.until(results(await submitAll(again.replica, "c")));
    assertEquals(await listOf(again.replica), ["c"]);
    await world.stop(again.host);
    await world.outbox.clear(CLUSTER);
  }),
);

Deno.test(
  "U28 a start with nothing to send writes nothing, to the outbox or the log",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.stop(first.host);
    const { writes } = world.store;
    const names = world.store.names();
    const again = await world.start();
    const { appliedIndex } = again.replica;
    await world.env.advance(60_000);
    assertEquals(again.replica.appliedIndex, appliedIndex);
    await world.stop(again.host);
    assertEquals(world.store.writes, writes);
    assertEquals(world.store.names(), names);
    assertEquals(names.length, 1);
  }),
);

Deno.test(
  "U19 a command that is sent at once costs one write, and its removal none of its own",
  inWorld(async (world) => {
    const { replica } = await world.start();
    await world.until(results(await submitAll(replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    const before = world.store.writes;
    for (let i = 0; i < 100; i++) {
      const [one] = await submitAll(replica, `${i}`);
      await one!.result;
    }
    assertEquals(world.store.writes, before + 100);
    await world.env.advance(2 * OUTBOX_DONE_MS);
    assertEquals(world.store.writes, before + 101);
    assertEquals(world.store.names().length, 1);
  }),
);

Deno.test(
  "H14 a copy of an outbox is found out, sends nothing and loses nothing",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    world.logDB.faults.append = () => "fail";
    await submitAll(first.replica, "b");
    await world.stop(first.host);
    const copy = world.copy();
    world.logDB.faults.append = () => undefined;
    const original = await world.start();
    await world.until(results(original.replica.pending()));

    const copied = await world.start(copy, 2n);
    // What both have was applied once, and the copy sees that, too.
    assertEquals(pendingOf(copied.replica), []);
    const [c] = await submitAll(copied.replica, "c");
    const error = await world.until(rejection(c!.result));
    assertInstanceOf(error, ErrOutboxCopied);
    assertEquals(pendingOf(copied.replica), ["c queued"]);
    await assertRejects(
      () => copied.replica.submit(bytes("d")),
      ErrOutboxCopied,
    );
    assertStrictEquals(
      copied.events.find(({ type }) => type === "outbox failed")?.[
        "error" as never
      ],
      error,
    );
    await world.until(results(await submitAll(original.replica, "e")));
    assertEquals(await listOf(original.replica), ["a", "b", "e"]);

    // Nobody can tell who sends what both may have.
    copied.replica.adoptOutbox();
    assertEquals(pendingOf(copied.replica), ["c unknown"]);
    await c!.dismiss();
    await world.until(results(await submitAll(copied.replica, "f")));
    assertEquals(await listOf(copied.replica), ["a", "b", "e", "f"]);
  }),
);

Deno.test(
  "H14 an outbox that was copied before it had a session is found out, and nothing is applied twice",
  inWorld(async (world) => {
    world.logDB.faults.append = () => "fail";
    const first = await world.start();
    await submitAll(first.replica, "a", "b");
    await world.stop(first.host);
    const copy = world.copy();
    world.logDB.faults.append = () => undefined;
    const original = await world.start();
    await world.until(results(original.replica.pending()));
    const copied = await world.start(copy, 2n);
    const [a] = copied.replica.pending();
    const error = await world.until(rejection(a!.result));
    assertInstanceOf(error, ErrOutboxCopied);
    assertEquals(await listOf(original.replica), ["a", "b"]);
    assertEquals(pendingOf(copied.replica), ["a queued", "b queued"]);
  }),
);

Deno.test(
  "H14 what a copy has put in a command's place is never taken for it",
  inWorld(async (world) => {
    const original = await world.start();
    await world.until(results(await submitAll(original.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    const copy = world.copy();
    // The original is offline with what comes next …
    world.logDB.faults.append = () => "fail";
    const [b] = await submitAll(original.replica, "b");
    world.logDB.faults.append = () => undefined;
    // … and the copy has taken its place by the time it is back.
    const copied = await world.start(copy, 2n);
    await world.until(results(await submitAll(copied.replica, "c")));
    assertInstanceOf(await world.until(rejection(b!.result)), ErrOutboxCopied);
    assertEquals(pendingOf(original.replica), ["b queued"]);
    assertEquals(await listOf(copied.replica), ["a", "c"]);
  }),
);

/** Has the log refuse what is sent through sessions from now on, as a server does. */
function refuseSessions({ logDB }: World): void {
  const cursor = new RecordCursor();
  logDB.faults.append = (records) => {
    const refusals = records.ends.flatMap((_, at) => {
      const record = recordAt(records, at);
      cursor.read(record, 0, record.length);
      const { kind } = cursor;
      return kind === RecordKind.SessionProposal || kind === RecordKind.Claim
        ? [{ at, reason: "There is no such session yet" }]
        : [];
    });
    if (refusals.length > 0) throw new ErrRecordsRefused(refusals);
    return undefined;
  };
}

function failVerify(): never {
  throw new ErrOtherHistory("Log ends at 1");
}

/** Events of the outbox of a device. */
function outboxErrors({ events }: Started): unknown[] {
  return events.flatMap((event) =>
    event.type === "outbox failed" ? [event.error] : []
  );
}

for (const when of ["opened in this life", "of an earlier life"] as const) {
  Deno.test(
    `case B2: what a log of another history refuses through a session ${when} is not taken for another principal's [H19, U34]`,
    inWorld(async (world) => {
      let device = await world.start();
      await world.until(results(await submitAll(device.replica, "a")));
      if (when === "of an earlier life") {
        await world.stop(device.host);
        device = await world.start();
        // It is the same history until then.
        await world.env.advance(1_000);
      }
      const { replica } = device;
      refuseSessions(world);
      world.logDB.faults.verify = failVerify;
      await submitAll(replica, "b");
      await world.env.advance(20_000);
      assertInstanceOf(replica.status.error, ErrOtherHistory);
      const [error, ...more] = outboxErrors(device);
      assertInstanceOf(error, ErrOtherHistory);
      assertEquals(more, []);
      // It is kept for when the device starts over.
      await submitAll(replica, "c");
      assertEquals(pendingOf(replica), ["b queued", "c queued"]);
    }),
  );

  Deno.test(
    `U34 what is refused through a session ${when} is another principal's once the log is known to have the same history [H19]`,
    inWorld(async (world) => {
      let device = await world.start();
      await world.until(results(await submitAll(device.replica, "a")));
      if (when === "of an earlier life") {
        await world.stop(device.host);
        device = await world.start();
        await world.env.advance(1_000);
      }
      const { replica } = device;
      refuseSessions(world);
      // It cannot be asked at first.
      world.logDB.faults.verify = () => {
        throw new Error("Connection lost");
      };
      const [b] = await submitAll(replica, "b");
      await world.env.advance(20_000);
      assertEquals(
        outboxErrors(device).filter((error) =>
          error instanceof ErrProposalRefused
        ),
        [],
      );
      assertEquals(replica.status, { state: "running" });
      world.logDB.faults.verify = () => {};
      await world.env.advance(60_000);
      assertInstanceOf(replica.status.error, ErrOtherPrincipal);
      world.logDB.faults.append = () => undefined;
      await world.until(b!.result);
      assertEquals(replica.status, { state: "running" });
      assertEquals(await listOf(replica), ["a", "b"]);
    }),
  );
}

Deno.test(
  "case B2: a session that looks as if a copy had used it, in a log that was put back since its history was asked, is of another history [H14, H19]",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    await world.stop(first.host);
    const original = await world.start();
    await world.until(results(await submitAll(original.replica, "b")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    const copied = await world.start(world.copy(), 2n);
    await world.until(results(await submitAll(copied.replica, "c")));
    world.logDB.faults.verify = failVerify;
    await submitAll(original.replica, "d");
    await world.env.advance(20_000);
    assertInstanceOf(original.replica.status.error, ErrOtherHistory);
    assertEquals(outboxErrors(original).length, 1);
    assertEquals(pendingOf(original.replica), ["d queued"]);
  }),
);

Deno.test(
  "H14 an outbox whose copy was quicker is told, and sends nothing more",
  inWorld(async (world) => {
    const original = await world.start();
    await world.until(results(await submitAll(original.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    const copied = await world.start(world.copy(), 2n);
    await world.until(results(await submitAll(copied.replica, "b")));
    const [c] = await submitAll(original.replica, "c");
    assertInstanceOf(await world.until(rejection(c!.result)), ErrOutboxCopied);
    assertEquals(pendingOf(original.replica), ["c queued"]);
    assertEquals(await listOf(copied.replica), ["a", "b"]);
  }),
);

Deno.test(
  "H14 an outbox whose process dies around its claim is not taken for a copy",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.kill(first);
    const expected = ["a"];
    // The claim is lost, committed unseen, or delayed until after the next one.
    for (const fault of ["lost", "committed", "lost", "committed"] as const) {
      let claims = 0;
      world.logDB.faults.append = (records) => {
        const isClaim = recordAt(records, 0)[0] === RecordKind.Claim;
        if (!isClaim) return undefined;
        return claims++ > 0 ? "lost" : fault;
      };
      if (fault === "committed") world.logDB.faults.break(1n);
      world.logDB.faults.mend(1n);
      const life = await world.start();
      if (fault === "committed") world.logDB.faults.break(1n);
      await submitAll(life.replica, `${expected.length}`);
      expected.push(`${expected.length}`);
      await settle();
      await world.kill(life);
      world.logDB.faults.mend(1n);
    }
    world.logDB.faults.append = () => undefined;
    const { replica, events } = await world.start();
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), expected);
    assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  }),
);

/** What the first registration in the log was made with. */
async function firstClientOf(world: World): Promise<bigint> {
  const log = await world.logDB.inner.open(CLUSTER, 9n);
  const reader = await log.read(0);
  const cursor = new RecordCursor();
  try {
    for (;;) {
      const { records } = await reader.next();
      for (let i = 0; i < records.ends.length; i++) {
        const record = recordAt(records, i);
        cursor.read(record, 0, record.length);
        if (cursor.kind !== RecordKind.Register) continue;
        return cursor.registration().clientID;
      }
    }
  } finally {
    reader.close();
    await log.close();
  }
}

Deno.test(
  "H14 a session that somebody else has opened with its client id is not taken for the next one of an outbox",
  inWorld(async (world) => {
    const { env, logDB: { inner, faults } } = world;
    for (const isRestarted of [false, true]) {
      let { host, replica, events } = await world.start();
      await world.until(results(await submitAll(replica, "a")));
      await env.advance(2 * OUTBOX_DONE_MS);
      const clientID = await firstClientOf(world);
      if (isRestarted) {
        await world.stop(host);
        ({ host, replica, events } = await world.start());
      }
      faults.append = () => "fail";
      for (let index = replica.appliedIndex; index > 0; index--) {
        if (replica.standing(index) === undefined) continue;
        await forge(inner, packRecords(unregisterRecord(index)));
      }
      const submitted = await submitAll(replica, "b");
      // While its own registration does not get through, and before.
      const others: number[] = [];
      for (let i = 0; i < 3; i++) {
        await env.advance(500);
        const record = registerRecord(clientID, bytes(`evil ${i}`));
        others.push(await forge(inner, packRecords(record)));
      }
      assertEquals(pendingOf(replica), ["b queued"]);
      faults.append = () => undefined;
      await world.until(results(submitted));
      for (const other of others) {
        assertEquals(replica.standing(other)?.next, 1);
      }
      // Once, not for each of them; none if all of them came before.
      const failures = events.filter(({ type }) => type === "outbox failed");
      assertEquals(failures.length, isRestarted ? 0 : 1);
      await world.stop(host);
    }
  }),
);

Deno.test(
  "H14 an outbox that has never known whose its sessions are takes the first one, from the log and from a snapshot",
  checked(async () => {
    for (const way of ["log", "snapshot"]) {
      const world = new World();
      const { env, logDB, logDB: { inner, faults } } = world;
      const other = await start({ logDB, env, config: { nodeID: 2n } });
      world.running.push(other);
      const first = await world.start();
      // It dies before it hears of its session.
      faults.break(1n);
      await submitAll(first.replica, "a");
      await settle();
      await world.kill(first);
      const clientID = await firstClientOf(world);
      const own = other.replica.appliedIndex;
      assertEquals(other.replica.standing(own)?.clientID, clientID);
      const evil = packRecords(registerRecord(clientID, bytes("evil")));
      let others: number[];
      faults.append = (_, nodeID) => nodeID === 1n ? "fail" : undefined;
      if (way === "log") {
        faults.mend(1n);
        const { replica } = await world.start();
        await settle();
        others = [await forge(inner, evil)];
        await settle();
        faults.append = () => undefined;
        await world.until(results(replica.pending()));
      } else {
        faults.mend(1n);
        const { replica } = await world.start();
        await settle();
        faults.break(1n);
        others = [await forge(inner, evil), await forge(inner, evil)];
        await world.until(other.replica.propose(bytes("x")));
        await world.until(other.replica.requestSnapshot());
        await world.until(other.replica.propose(bytes("y")));
        await world.until(other.replica.requestSnapshot());
        const log = await inner.open(CLUSTER, 9n);
        await log.compact!(other.replica.appliedIndex);
        await log.close();
        faults.mend(1n);
        faults.append = () => undefined;
        await world.until(results(replica.pending()));
      }
      await world.until(other.replica.read(null));
      for (const one of others) {
        assert(!(other.replica.standing(one)?.next! > 1), way);
      }
      assertEquals(other.replica.standing(own)?.next, 2, way);
      await world.end();
    }
  }),
);

Deno.test(
  "U34 H14 what was submitted waits for its owner when a session can be opened as somebody else only, and it is told once",
  inWorld(async (world) => {
    const { env, logDB: { inner } } = world;
    const queue = await world.outbox.open(CLUSTER, () => {});
    await queue.assign(undefined, 0, {
      clientID: 7n,
      lostSession: 0,
      owner: bytes("ann"),
    });
    await queue.close();
    const { replica, events } = await world.start();
    const [a] = await submitAll(replica, "a");
    await env.advance(600_000);
    const before = replica.appliedIndex;
    await env.advance(3_600_000);
    // Each try is a record: they get rare.
    assert(replica.appliedIndex - before <= 12);
    assertEquals(pendingOf(replica), ["a queued"]);
    const failures = events.filter((event) => event.type === "outbox failed");
    assertEquals(failures.length, 1);
    assertInstanceOf(failures[0]!.error, ErrProposalRefused);
    await forge(inner, packRecords(registerRecord(7n, bytes("ann"))));
    await world.until(a!.result);
  }),
);

Deno.test(
  "U25 a view over an outbox shows each command once at every moment, committed or not",
  inWorld(async ({ env, logDB, outbox }) => {
    await using host = new NodeHost({ logDB, env, outbox });
    const replica = await host.startCluster(
      () => new KVStateMachine(),
      { clusterID: CLUSTER, nodeID: 1n },
    );
    logDB.faults.slow = true;
    const random = random32(7);
    const kinds: AppendFault[] = ["fail", "committed", "lost", "twice"];
    logDB.faults.append = () => kinds[random() % 8];
    let shown = 0;
    for (let i = 0; i < 60; i++) {
      const submitting = replica.submit(kv.put(`${i}`, "x"))
        .then(() => shown++);
      for (let j = 0; j < 30; j++) {
        const before = shown;
        const count = await replica.view.lookup(kv.count()) as number;
        // It is in the view when it is durable, and stays there.
        assert(count >= before && count <= i + 1, `${count} of ${i}`);
      }
      await submitting;
      assertEquals(await replica.view.lookup(kv.count()), i + 1);
      if (random() % 2 === 0) await env.advance(random() % 60);
    }
    await env.until(results(replica.pending()));
    assertEquals(await replica.staleRead(kv.count()), 60);
    assertEquals(await replica.view.lookup(kv.count()), 60);
    await env.until(host.stop());
  }),
);

Deno.test(
  "U17 a command at which the machine throws in the view is refused before it is sent, and dismissed for good",
  inWorld(async ({ env, logDB, outbox }) => {
    class Picky extends RegularJournal {
      override apply(cmd: Uint8Array): Result {
        if (text(cmd) === "poison") throw new RangeError("Never heard of it");
        return super.apply(cmd);
      }
    }
    const begin = async (): Promise<[NodeHost, Replica]> => {
      const host = new NodeHost({ logDB, env, outbox });
      const replica = await host.startCluster(
        (c, n) => new Picky({}, c, n),
        { clusterID: CLUSTER, nodeID: 1n },
      );
      return [host, replica];
    };
    let [host, replica] = await begin();
    logDB.faults.append = () => "fail";
    const [, poison] = await submitAll(replica, "a", "poison", "c", "poison");
    const refused = [
      "a queued",
      "poison refused",
      "c queued",
      "poison refused",
    ];
    assertEquals(await replica.view.lookup(null), ["a", "c"]);
    assertEquals(pendingOf(replica), refused);
    assertEquals(poison!.reason, "RangeError: Never heard of it");
    assertInstanceOf(await rejection(poison!.result), ErrProposalRefused);
    await env.until(host.stop());
    [host, replica] = await begin();
    assertEquals(pendingOf(replica), refused);
    await replica.pending()[1]!.dismiss();
    await env.until(host.stop());
    [host, replica] = await begin();
    assertEquals(pendingOf(replica), refused.toSpliced(1, 1));
    logDB.faults.append = () => undefined;
    const [, c, last] = replica.pending();
    await env.until(c!.result);
    await env.until(results(await submitAll(replica, "d")));
    assertEquals(await listOf(replica), ["a", "c", "d"]);
    assertEquals(replica.pending(), [last!]);
    await last!.dismiss();
    await env.advance(2 * OUTBOX_DONE_MS);
    await env.until(host.stop());
    assertEquals(await outbox.unsynced(CLUSTER), []);
  }),
);

/** Ends the session of an outbox behind its back. */
async function evict(world: World): Promise<void> {
  // The first session that was opened: its register record.
  const log = await world.logDB.inner.open(CLUSTER, 9n);
  const reader = await log.read(0);
  let session = 0;
  while (session === 0) {
    const { first, records } = await reader.next();
    for (let i = 0; i < records.ends.length; i++) {
      if (recordAt(records, i)[0] === RecordKind.Register) session = first + i;
    }
  }
  reader.close();
  await log.close();
  await forge(world.logDB.inner, packRecords(unregisterRecord(session)));
}

Deno.test(
  "H4 when its session is evicted, what was not applied goes through another one, in order",
  inWorld(async (world) => {
    const { replica } = await world.start();
    await world.until(results(await submitAll(replica, "a")));
    world.logDB.faults.append = (_, nodeID) =>
      nodeID === 1n ? "fail" : undefined;
    const rest = await submitAll(replica, "b", "c");
    await evict(world);
    world.logDB.faults.append = () => undefined;
    await world.until(results(rest));
    assertEquals(await listOf(replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "H4 when its session was evicted while nobody was there, and the log tells of all, everything goes on",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    // Sent, and nobody knows how that went.
    let fault: AppendFault = "committed";
    world.logDB.faults.append = () => fault;
    world.logDB.faults.break(1n);
    await submitAll(first.replica, "b");
    fault = "lost";
    await submitAll(first.replica, "c");
    await settle();
    await world.kill(first);
    world.logDB.faults.mend(1n);
    await evict(world);
    const { replica } = await world.start();
    world.logDB.faults.append = () => undefined;
    await submitAll(replica, "d");
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
  }),
);

Deno.test(
  "H4 when its session was evicted behind a snapshot, what was never sent goes on, and what may have been is of unknown outcome",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    // Sent, and nobody knows how that went.
    world.logDB.faults.append = () => "lost";
    await submitAll(first.replica, "b");
    await settle();
    world.logDB.faults.break(1n);
    await evict(world);
    await world.kill(first);
    world.logDB.faults.mend(1n);
    const { env, logDB } = world;
    const other = await start({ logDB, env, config: { nodeID: 2n } });
    world.running.push(other);
    await world.until(other.replica.requestSnapshot());
    const second = await world.start();
    await submitAll(second.replica, "c");
    // It is not shown on top of a state that may have it.
    assertEquals(pendingOf(second.replica), ["b unknown", "c queued"]);
    logDB.faults.append = () => undefined;
    const [b, c] = second.replica.pending();
    await world.until(c!.result);
    assertEquals(await listOf(second.replica), ["a", "c"]);
    assertEquals(pendingOf(second.replica), ["b unknown"]);
    assertInstanceOf(await rejection(b!.result), ErrUnknownOutcome);
    await world.stop(second.host);

    const third = await world.start();
    assertEquals(pendingOf(third.replica), ["b unknown"]);
    await third.replica.pending()[0]!.dismiss();
    await world.stop(third.host);
    assertEquals(await idsOf(world.outbox), []);
  }),
);

Deno.test(
  "H4 that a command went nowhere when its session was evicted is known also in the next life",
  inWorld(async (world) => {
    const { env, logDB } = world;
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await env.advance(2 * OUTBOX_DONE_MS);
    logDB.faults.append = (_, nodeID) => nodeID === 1n ? "lost" : undefined;
    await submitAll(first.replica, "b");
    await evict(world);
    await env.advance(100);
    assertEquals(pendingOf(first.replica), ["b queued"]);
    await world.kill(first);
    const other = await start({ logDB, env, config: { nodeID: 2n } });
    world.running.push(other);
    await world.until(other.replica.requestSnapshot());
    logDB.faults.append = () => undefined;
    const { replica } = await world.start();
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), ["a", "b"]);
  }),
);

Deno.test(
  "H4 a snapshot that passes over the end of the session leaves what was sent of unknown outcome",
  inWorld(async (world) => {
    const { env, logDB } = world;
    const one = await world.start();
    await world.until(results(await submitAll(one.replica, "a")));
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    world.running.push(two);
    // The first replica is cut off, its commands are in the log for all it knows.
    logDB.faults.append = (_, nodeID) => nodeID === 1n ? "lost" : undefined;
    logDB.faults.break(1n);
    const [b] = await submitAll(one.replica, "b");
    await settle();
    await evict(world);
    await world.until(two.replica.propose(bytes("x")));
    await world.until(two.replica.requestSnapshot());
    await world.until(two.replica.propose(bytes("y")));
    await world.until(two.replica.requestSnapshot());
    const log = await logDB.inner.open(CLUSTER, 9n);
    await log.compact!(two.replica.appliedIndex);
    await log.close();
    logDB.faults.append = () => undefined;
    logDB.faults.mend(1n);
    await world.until(rejection(b!.result));
    assertEquals(pendingOf(one.replica), ["b unknown"]);
    await world.until(results(await submitAll(one.replica, "c")));
    assertEquals(await listOf(one.replica), ["a", "x", "y", "c"]);
  }),
);

Deno.test(
  "D13 a number that a power cut has taken back is not taken for a command that was applied",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    const before = world.copy();
    // What comes first is acknowledged with what comes later.
    for (const command of ["b", "c", "d"]) {
      await world.until(results(await submitAll(first.replica, command)));
      await world.env.advance(2 * OUTBOX_DONE_MS);
    }
    await world.stop(first.host);
    // The outbox is as it was before.
    const { replica } = await world.start(before);
    const [e] = await submitAll(replica, "e");
    assertInstanceOf(await world.until(rejection(e!.result)), ErrOutboxCopied);
    replica.adoptOutbox();
    assertEquals(pendingOf(replica), ["e unknown"]);
    await world.until(results(await submitAll(replica, "f")));
    assertEquals(await listOf(replica), ["a", "b", "c", "d", "f"]);
  }),
);

Deno.test(
  "H13 on a log that never had its session, all that is queued is sent",
  inWorld(async (world) => {
    const first = await world.start();
    await world.until(results(await submitAll(first.replica, "a")));
    await world.env.advance(2 * OUTBOX_DONE_MS);
    world.logDB.faults.append = () => "lost";
    await submitAll(first.replica, "b");
    await settle();
    await world.kill(first);
    const other = new World(2);
    const { replica: another } = await other.start();
    await other.until(results(await submitAll(another, "x", "y", "z")));
    const { replica } = await other.start(world.outbox, 2n);
    const [c] = await submitAll(replica, "c");
    await other.until(c!.result);
    assertEquals(await listOf(replica), ["x", "y", "z", "b", "c"]);
    assertEquals(replica.pending(), []);
    await other.end();
  }),
);

Deno.test(
  "H3 every command is applied once and in order, whichever write of the outbox the process dies at",
  checked(async () => {
    // Each life ends with a write that fails, with or without effect, and the kill.
    for (let at = 1; at <= 14; at++) {
      for (const after of [false, true]) {
        const world = new World(at);
        const error = new Error("Power was cut");
        world.store.fault = { at, after, times: Infinity, error };
        const kept: string[] = [];
        let next = 0;
        const submit = async (
          replica: Replica,
          count: number,
        ): Promise<void> => {
          for (let i = 0; i < count; i++) {
            const command = `${next++}`;
            try {
              await world.until(replica.submit(bytes(command)));
              kept.push(command);
            } catch {
              if (after) kept.push(`${command}?`);
            }
            if (i % 3 === 2) await world.env.advance(1500);
          }
        };
        const first = await world.start();
        await submit(first.replica, 8);
        await world.kill(first);
        // And once more, in the writes of a life that finds something.
        world.store.fault = { at, after, times: Infinity, error };
        const second = await world.start();
        await submit(second.replica, 8);
        await world.kill(second);
        const third = await world.start();
        await submit(third.replica, 2);
        await world.until(results(third.replica.pending()));
        const list = await listOf(third.replica);
        const name = `write ${at} ${after ? "after" : "before"}`;
        assertEquals(third.replica.pending(), [], name);
        // What submit() rejected may be there, since its write has taken effect.
        assertEquals(
          list.filter((cmd) => !kept.includes(`${cmd}?`)),
          kept.filter((cmd) => !cmd.endsWith("?")),
          name,
        );
        assertEquals(list.length, new Set(list).size, name);
        await world.end();
      }
    }
  }),
);

Deno.test(
  "H3 over a log that fails, loses and repeats, with processes that are killed, every command is applied once and in order",
  checked(() => runSeeds(1, 40, {})),
);

Deno.test(
  "H3 H4 the same where sessions are evicted all the time",
  checked(() => runSeeds(101, 140, { sessionsMax: 2 })),
);

Deno.test(
  "H3 H4 the same where snapshots pass over what happened: what is not applied is of unknown outcome, and nothing else",
  checked(() => runSeeds(201, 240, { sessionsMax: 2, snapshotEntries: 7 })),
);

async function runSeeds(
  from: number,
  to: number,
  config: { sessionsMax?: number; snapshotEntries?: number },
): Promise<void> {
  for (let seed = from; seed <= to; seed++) {
    try {
      await runRandom(seed, config);
    } catch (error) {
      throw new Error(`Seed ${seed}`, { cause: error });
    }
  }
}

async function runRandom(
  seed: number,
  config: { sessionsMax?: number; snapshotEntries?: number },
): Promise<void> {
  const random = random32(seed);
  const world = new World(seed);
  const { faults } = world.logDB;
  const kinds: AppendFault[] = ["fail", "committed", "lost", "twice"];
  let rate = 0;
  faults.slow = true;
  faults.append = (_, nodeID) =>
    nodeID === 1n && random() % 100 < rate
      ? kinds[random() % kinds.length]
      : undefined;
  // Another replica, which never fails, sees what is applied.
  const { env, logDB } = world;
  const witness = await env.until(
    start({ logDB, env, config: { nodeID: 2n, ...config } }),
  );
  world.running.push(witness);
  const kept: string[] = [];
  let next = 0;
  for (let life = 0; life < 6; life++) {
    rate = random() % 60;
    const started = await world.start();
    const steps = random() % 12;
    for (let step = 0; step < steps; step++) {
      const burst = 1 + random() % 4;
      const commands = Array.from({ length: burst }, () => `${next++}`);
      await env.until(submitAll(started.replica, ...commands), 20);
      kept.push(...commands);
      if (random() % 3 === 0) await env.advance(random() % 1500);
      if (random() % 8 === 0) faults.break(1n);
      if (random() % 4 === 0) faults.mend(1n);
      if (config.sessionsMax !== undefined && random() % 6 === 0) {
        for (let i = 0; i < config.sessionsMax; i++) {
          await env.until(witness.replica.openSession(), 20);
        }
      }
    }
    if (random() % 2 === 0) faults.mend(1n);
    if (random() % 3 === 0) await world.stop(started.host);
    else await world.kill(started);
    faults.mend(1n);
  }
  rate = 0;
  const { replica, machines, events } = await world.start();
  while (replica.pending().some(({ state }) => state === "queued")) {
    await env.advance(1000);
  }
  await env.until(witness.replica.read(null));
  const unknown = pendingOf(replica);
  const missing = kept.filter((cmd) => unknown.includes(`${cmd} unknown`));
  assertEquals(unknown, missing.map((cmd) => `${cmd} unknown`));
  if (config.snapshotEntries === undefined) assertEquals(missing, []);
  const list = await listOf(replica);
  assertEquals(await listOf(witness.replica), list);
  assertEquals(machines.at(-1)!.list, list);
  // Of unknown outcome is what may be there or not.
  const sure = (commands: readonly string[]): string[] =>
    commands.filter((command) => !missing.includes(command));
  assertEquals(sure(list), sure(kept));
  assertEquals(list.length, new Set(list).size);
  assertEquals(
    list,
    kept.filter((command) => list.includes(command)),
  );
  assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  await world.end();
}
