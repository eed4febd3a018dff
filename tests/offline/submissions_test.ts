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
  ErrCompacted,
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
import { COMMAND_BYTES_MAX, OUTBOX_DONE_MS } from "../../src/limits.ts";
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
import { proposal, sessionProposal } from "../support/log_records.ts";
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

/** Commands and states of the pending submissions. */
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

/** Numbers of the commands in the outbox. */
async function idsOf(outbox: BlockOutbox): Promise<number[]> {
  return (await outbox.unsynced(CLUSTER)).map(({ id }) => id);
}

/** Replicas of one log, and an outbox on a block store that can be copied and made to fail. */
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

  /** Kills the process: its memory is lost, and it writes nothing any more. */
  async kill({ host }: Started): Promise<void> {
    const killed = this.store;
    this.store = killed.crash(Infinity);
    this.outbox = this.open(this.store);
    await this.stop(host);
  }

  async stop(host: Started["host"]): Promise<void> {
    await this.env.until(host.stop());
  }

  /** Copies the outbox, as a clone of the device does. */
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

  /** Submits commands and waits until all are applied. */
  async apply(replica: Replica, ...commands: string[]): Promise<void> {
    await this.until(results(await submitAll(replica, ...commands)));
  }

  /** Lets every append fail until `reconnect()`. */
  disconnect(): void {
    this.logDB.faults.append = () => "fail";
  }

  reconnect(): void {
    this.logDB.faults.append = () => undefined;
  }

  /** Waits until the outbox has written noted changes. */
  async writeNotes(): Promise<void> {
    await this.env.advance(2 * OUTBOX_DONE_MS);
  }

  /** Starts another replica, without an outbox. */
  async startOther(): Promise<Started> {
    const { env, logDB } = this;
    const other = await start({ logDB, env, config: { nodeID: 2n } });
    this.running.push(other);
    return other;
  }

  /** Proposes x and y with a snapshot after each, and compacts the log up to them. */
  async compactPast(replica: Replica): Promise<void> {
    for (const command of ["x", "y"]) {
      await this.until(replica.propose(bytes(command)));
      await this.until(replica.requestSnapshot());
    }
    const log = await this.logDB.inner.open(CLUSTER, 9n);
    await log.compact!(replica.appliedIndex);
    await log.close();
  }

  /** Finds the first session that was opened. */
  async firstSession(): Promise<{ index: number; clientID: bigint }> {
    const log = await this.logDB.inner.open(CLUSTER, 9n);
    const reader = await log.read(0);
    const cursor = new RecordCursor();
    try {
      for (;;) {
        const { first, records } = await reader.next();
        for (let i = 0; i < records.ends.length; i++) {
          const record = recordAt(records, i);
          cursor.read(record, 0, record.length);
          if (cursor.kind !== RecordKind.Register) continue;
          return { index: first + i, ...cursor.registration() };
        }
      }
    } finally {
      reader.close();
      await log.close();
    }
  }

  /** Closes the session of the outbox without its knowledge. */
  async evict(): Promise<void> {
    const { index } = await this.firstSession();
    await forge(this.logDB.inner, packRecords(unregisterRecord(index)));
  }

  async end(): Promise<void> {
    await this.env.until(stopAll(this.running));
  }
}

/** Runs a test in a world that is stopped afterwards. */
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

/** Log that refuses some commands, as a server does: their series are skipped, with a reason. */
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
  "U15 submit() stores a command, and pending() lists it until it is applied",
  inWorld(async (world) => {
    const { replica } = await world.start();
    world.disconnect();
    assertEquals(replica.pending(), []);
    const [a, b] = await submitAll(replica, "a", "b");
    assertEquals(pendingOf(replica), ["a queued", "b queued"]);
    assertEquals([a!.id, b!.id], [1, 2]);
    assertStrictEquals(replica.pending(), replica.pending());
    assertEquals(replica.pending(), [a!, b!]);
    let called = 0;
    const end = replica.onPending(() => called++);
    world.reconnect();
    const result = await world.until(a!.result);
    assertEquals(result.value, 1n);
    assertEquals(text(result.data), "a");
    await world.until(b!.result);
    assertEquals([a!.state, b!.state], ["applied", "applied"]);
    assertEquals(replica.pending(), []);
    assert(called > 0);
    end();
    const before = called;
    await world.apply(replica, "c");
    assertEquals(called, before);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "H11 submit() refuses commands without an outbox, of a wrong type, and over the size limit",
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
  "H1 H14 submit() and propose() copy commands in a Buffer of Node, also those that wait to be sent",
  inWorld(async (world) => {
    const { replica } = await world.start();
    const session = await replica.openSession();
    world.disconnect();
    const first = replica.propose(bytes("a"), { session });
    await settle();
    // It waits behind the first, which will be sent again.
    const proposed = Buffer.from("b");
    const second = replica.propose(proposed, { session });
    proposed.fill("x");
    const submitted = Buffer.from("c");
    const submitting = replica.submit(submitted);
    submitted.fill("x");
    const third = await submitting;
    world.reconnect();
    await world.until(Promise.all([first, second, third.result]));
    // In any order, since they are in two sessions.
    assertEquals((await listOf(replica) as string[]).sort(), ["a", "b", "c"]);
  }),
);

Deno.test(
  "U15 a listener of onPending() that removes and adds itself when called is called once, and a removed one is not called",
  inWorld(async (world) => {
    const { replica } = await world.start();
    let called = 0;
    const listener = (): void => {
      end();
      if (++called < 1000) end = replica.onPending(listener);
      endOther();
    };
    let end = replica.onPending(listener);
    const endOther = replica.onPending(() => called += 1000);
    world.disconnect();
    await submitAll(replica, "a");
    await settle();
    assert(called < 10, `${called}`);
    end();
  }),
);

Deno.test(
  "U18 a submission whose dismissal could not be written stays, and can be dismissed again",
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
      // With the commands before it removed, and not.
      if (isApplied) await env.advance(2 * OUTBOX_DONE_MS);
      const error = new ErrStoreFull("Full");
      store.fault = { at: store.writes + 1, times: 1, error };
      const both = [b!.dismiss(), b!.dismiss()].map(rejection);
      assertEquals(pendingOf(first.replica).includes("b refused"), true);
      for (const one of both) assertStrictEquals(await one, error);
      assertEquals(pendingOf(first.replica), ["b refused"]);
      await env.until(first.host.stop());
      const second = await start({ logDB, env, outbox });
      const [refused] = second.replica.pending();
      assertEquals([text(refused!.cmd), refused!.reason], ["b", "no"]);
      await refused!.dismiss();
      assertEquals(pendingOf(second.replica), []);
      await refused!.dismiss();
      await env.until(second.host.stop());
      assertEquals(await outbox.unsynced(CLUSTER), []);
    }
  }),
);

Deno.test(
  "H11 submit() refuses commands over the bound of the outbox, and accepts more once there is room",
  inWorld(async (world) => {
    const { env } = world;
    const bytesMax = 16 * COMMAND_BYTES_MAX;
    const outbox = new BlockOutbox(world.store, { env, bytesMax });
    const { replica } = await world.start(outbox);
    world.disconnect();
    const big = new Uint8Array(COMMAND_BYTES_MAX);
    const submissions: Submission[] = [];
    for (let i = 0; i < 16; i++) {
      submissions.push(await replica.submit(big));
    }
    await assertRejects(() => replica.submit(bytes("more")), ErrSystemBusy);
    world.reconnect();
    await world.until(results(submissions));
    await world.apply(replica, "more");
  }),
);

Deno.test(
  "U8 a command that the device has no room for is not submitted in part",
  inWorld(async (world) => {
    const { replica } = await world.start();
    world.disconnect();
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
    world.reconnect();
    await world.until(d!.result);
    assertEquals(await listOf(replica), ["a", "d"]);
  }),
);

Deno.test(
  "H10 a stop rejects pending results, and the commands are pending again after it, in order",
  inWorld(async (world) => {
    const { host, replica } = await world.start();
    world.disconnect();
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
    world.reconnect();
    await world.until(results(again.replica.pending()));
    assertEquals(await listOf(again.replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "U21 a command is sent even if its process is killed right after submit()",
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
  "U19 a command that could not be sent is sent again without another write",
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
  "U20 a command whose answer was lost is applied once, and gets its first result",
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
  "U20 a process that is killed before an answer gets it after a restart",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    // It is committed, and this process never reads it.
    world.logDB.faults.break(1n);
    const [b] = await submitAll(first.replica, "b", "c");
    await settle();
    await world.kill(first);
    assertInstanceOf(await rejection(b!.result), ErrClusterClosed);
    world.logDB.faults.mend(1n);
    const { replica } = await world.start();
    // The records of the log at the start are applied: it is no longer pending.
    assertEquals(pendingOf(replica), []);
    assertEquals(await listOf(replica), ["a", "b", "c"]);
    await world.apply(replica, "d");
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
  }),
);

Deno.test(
  "U15 a command leaves pending() in the step that applies it",
  inWorld(async (world) => {
    const { replica, machines } = await world.start();
    const seen: string[] = [];
    const machine = machines[0]!;
    world.disconnect();
    const [a, b] = await submitAll(replica, "a", "b");
    const check = (): void => {
      const pending = replica.pending().map(({ cmd }) => text(cmd));
      seen.push([...machine.list, ...pending].join(""));
    };
    a!.result.then(check);
    b!.result.then(check);
    world.reconnect();
    await world.until(b!.result);
    assertEquals(seen, ["ab", "ab"]);
  }),
);

Deno.test(
  "U15 a command that an earlier process has sent leaves pending() when it is applied, before anything is sent",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    world.logDB.faults.break(1n);
    await submitAll(first.replica, "b", "c");
    await settle();
    await world.kill(first);
    world.logDB.faults.mend(1n);
    // The next process starts with an old state and reads the rest only later.
    const held = new Gate();
    let gated = true;
    world.logDB.faults.append = async () => {
      await held.opened;
      return undefined;
    };
    world.logDB.faults.batch = (batch) => {
      if (gated) throw new Error("create() is blocked by the test");
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
  "U30 a command leaves the outbox only once an on-disk machine has it durably",
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
  "U17 U18 a refused command does not block those behind it, and stays until it is dismissed",
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
    const [refused] = second.replica.pending();
    assertEquals(pendingOf(second.replica), ["bad refused"]);
    assertEquals(refused!.reason, "No such boat");
    assertInstanceOf(await rejection(refused!.result), ErrProposalRefused);
    await refused!.dismiss();
    await refused!.dismiss();
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
  "U18 a refusal is known after the process was killed before it was stored",
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
  "U18 a refusal is known after the process was killed and a snapshot was taken past it",
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
    // It was not acknowledged before it was stored.
    const second = await start({ logDB, snapshots, outbox });
    assertEquals(pendingOf(second.replica), ["bad refused"]);
    assertEquals(second.replica.pending()[0]!.reason, "No");
    await second.host.stop();
  }),
);

Deno.test(
  "U35 a queued command cannot be dismissed, and is not cleared without discard",
  inWorld(async (world) => {
    const { host, replica } = await world.start();
    world.disconnect();
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
    world.reconnect();
    const again = await world.start();
    assertEquals(again.replica.pending(), []);
    await world.apply(again.replica, "c");
    assertEquals(await listOf(again.replica), ["c"]);
    await world.stop(again.host);
    await world.outbox.clear(CLUSTER);
  }),
);

Deno.test(
  "U28 a start with nothing to send writes nothing to outbox and log",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
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
  "U19 a command that is sent at once costs one write, and its removal no write of its own",
  inWorld(async (world) => {
    const { replica } = await world.start();
    await world.apply(replica, "a");
    await world.writeNotes();
    const before = world.store.writes;
    for (let i = 0; i < 100; i++) {
      const [one] = await submitAll(replica, `${i}`);
      await one!.result;
    }
    assertEquals(world.store.writes, before + 100);
    await world.writeNotes();
    assertEquals(world.store.writes, before + 101);
    assertEquals(world.store.names().length, 1);
  }),
);

Deno.test(
  "H14 a copy of an outbox is detected, sends nothing and loses nothing",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    world.disconnect();
    await submitAll(first.replica, "b");
    await world.stop(first.host);
    const copy = world.copy();
    world.reconnect();
    const original = await world.start();
    await world.until(results(original.replica.pending()));

    const copied = await world.start(copy, 2n);
    // The command that both have was applied once, which the copy sees, too.
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
    await world.apply(original.replica, "e");
    assertEquals(await listOf(original.replica), ["a", "b", "e"]);

    // Either may have sent the commands that both have.
    copied.replica.adoptOutbox();
    assertEquals(pendingOf(copied.replica), ["c unknown"]);
    await c!.dismiss();
    await world.apply(copied.replica, "f");
    assertEquals(await listOf(copied.replica), ["a", "b", "e", "f"]);
  }),
);

Deno.test(
  "H14 an outbox that was copied before it had a session is detected, and nothing is applied twice",
  inWorld(async (world) => {
    world.disconnect();
    const first = await world.start();
    await submitAll(first.replica, "a", "b");
    await world.stop(first.host);
    const copy = world.copy();
    world.reconnect();
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
  "H14 a command that a copy has sent in the same series is not confused with the device's own",
  inWorld(async (world) => {
    const original = await world.start();
    await world.apply(original.replica, "a");
    await world.writeNotes();
    const copy = world.copy();
    // The original is offline with its next command …
    world.disconnect();
    const [b] = await submitAll(original.replica, "b");
    world.reconnect();
    // … and the copy has used its series by the time it is back.
    const copied = await world.start(copy, 2n);
    await world.apply(copied.replica, "c");
    assertInstanceOf(await world.until(rejection(b!.result)), ErrOutboxCopied);
    assertEquals(pendingOf(original.replica), ["b queued"]);
    assertEquals(await listOf(copied.replica), ["a", "c"]);
  }),
);

/** Lets the log refuse records of sessions from now on, as a server does. */
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

/** Starts a device whose concurrent machine waits for the next gate, if there is one, before each update. */
async function startGated(
  world: World,
  gates: (Gate | undefined)[],
): Promise<Started> {
  const { env, logDB, outbox } = world;
  const device = await env.until(start({
    logDB,
    env,
    outbox,
    kind: "concurrent",
    faults: {
      before: (method) =>
        method === "update" ? gates.shift()?.opened : undefined,
    },
  }));
  world.running.push(device);
  return device;
}

Deno.test(
  "H3 H4 a submission that is being applied is not sent again when a later one is refused after their session was closed in the same batch",
  inWorld(async (world) => {
    const { env } = world;
    const gates: (Gate | undefined)[] = [];
    const { replica, machines } = await startGated(world, gates);
    await world.apply(replica, "a");
    await world.writeNotes();
    const [held, batch] = [new Gate(), new Gate()];
    gates.push(held, batch);
    const x = replica.propose(bytes("x"));
    await settle(10);
    // Both are read while the machine applies x, and applied in one batch.
    const [b] = await submitAll(replica, "b");
    await settle(20);
    await world.evict();
    held.open();
    await x;
    await settle(10);
    assertEquals(machines[0]!.list, ["a", "x"]);
    refuseSessions(world);
    const [c] = await submitAll(replica, "c");
    await settle(50);
    world.reconnect();
    await env.advance(1_000);
    batch.open();
    await world.until(results([b!, c!]));
    assertEquals(await listOf(replica), ["a", "x", "b", "c"]);
  }),
);

Deno.test(
  "H3 H19 a start over gets the result of a command that is being applied while it looks for the outcome",
  inWorld(async (world) => {
    const { logDB } = world;
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.writeNotes();
    world.disconnect();
    await submitAll(first.replica, "b");
    await world.stop(first.host);
    const { index } = await world.firstSession();
    await world.outbox.startOver(CLUSTER);
    world.reconnect();
    const gates: Gate[] = [];
    const [asked, x, b] = [new Gate(), new Gate(), new Gate()];
    logDB.faults.readIndex = () => asked.opened;
    const { replica, machines } = await startGated(world, gates);
    const [submission] = replica.pending();
    gates.push(x, b);
    // The state is up to date with x, while b is being applied.
    await forge(logDB.inner, packRecords(proposal(1, bytes("x"))));
    asked.open();
    await settle(20);
    await forge(
      logDB.inner,
      packRecords(sessionProposal(index, 2, 0, bytes("b"))),
    );
    x.open();
    await settle(50);
    assertEquals(machines[0]!.list, ["a", "x"]);
    b.open();
    assertEquals(text((await world.until(submission!.result)).data), "b");
    await world.apply(replica, "c");
    assertEquals(await listOf(replica), ["a", "x", "b", "c"]);
  }),
);

for (const during of ["recoverFromSnapshot", "sync"] as const) {
  Deno.test(
    `H3 H4 a command that was applied before a snapshot is not sent again when a copy of it is refused in ${during}() of the recovery`,
    inWorld(async (world) => {
      const { env, logDB, outbox } = world;
      const gate = new Gate();
      let isRecovering = false;
      const device = await env.until(start({
        logDB,
        env,
        outbox,
        kind: "hosted",
        faults: {
          before: (method) => {
            if (method === "recoverFromSnapshot") isRecovering = true;
            return isRecovering && method === during ? gate.opened : undefined;
          },
        },
      }));
      world.running.push(device);
      const { replica } = device;
      await world.apply(replica, "a");
      const two = await world.startOther();
      // It commits a command and does not see that.
      logDB.faults.append = (_, nodeID) =>
        nodeID === 1n ? "committed" : undefined;
      logDB.faults.break(1n);
      const [b] = await submitAll(replica, "b");
      const rejected = rejection(b!.result);
      await settle();
      await world.evict();
      await world.compactPast(two.replica);
      refuseSessions(world);
      const { appliedIndex } = two.replica;
      // As a server does if a snapshot is smaller than the entries.
      logDB.faults.batch = (batch, nodeID) => {
        if (nodeID !== 1n || batch.first > appliedIndex) return batch;
        throw new ErrCompacted(appliedIndex);
      };
      logDB.faults.mend(1n);
      await env.advance(20_000);
      assert(isRecovering);
      world.reconnect();
      await settle();
      gate.open();
      await world.until(rejected);
      assertEquals(pendingOf(replica), ["b unknown"]);
      await world.apply(replica, "c");
      assertEquals(await listOf(replica), ["a", "b", "x", "y", "c"]);
    }),
  );
}

function failVerify(): never {
  throw new ErrOtherHistory("Log ends at 1");
}

/** Errors that the outbox of a replica has reported. */
function outboxErrors({ events }: Started): unknown[] {
  return events.flatMap((event) =>
    event.type === "outbox failed" ? [event.error] : []
  );
}

for (const when of ["of this process", "of an earlier process"] as const) {
  Deno.test(
    `case B2: commands that a log of another history refuses in a session ${when} are not reported as another principal's [H19, U34]`,
    inWorld(async (world) => {
      let device = await world.start();
      await world.apply(device.replica, "a");
      if (when === "of an earlier process") {
        await world.stop(device.host);
        device = await world.start();
        // The history is the same until then.
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
      // Submissions are accepted, for when the device starts over.
      await submitAll(replica, "c");
      assertEquals(pendingOf(replica), ["b queued", "c queued"]);
    }),
  );

  Deno.test(
    `U34 commands that are refused in a session ${when} are another principal's once the log is known to have the same history [H19]`,
    inWorld(async (world) => {
      let device = await world.start();
      await world.apply(device.replica, "a");
      if (when === "of an earlier process") {
        await world.stop(device.host);
        device = await world.start();
        await world.env.advance(1_000);
      }
      const { replica } = device;
      refuseSessions(world);
      // The history cannot be verified at first.
      world.logDB.faults.verify = () => {
        throw new Error("ECONNRESET: connection lost");
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
      world.reconnect();
      await world.until(b!.result);
      assertEquals(replica.status, { state: "running" });
      assertEquals(await listOf(replica), ["a", "b"]);
    }),
  );
}

Deno.test(
  "case B2: a session that seems to be used by a copy, in a log that was restored since its history was verified, is of another history [H14, H19]",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.writeNotes();
    await world.stop(first.host);
    const original = await world.start();
    await world.apply(original.replica, "b");
    await world.writeNotes();
    const copied = await world.start(world.copy(), 2n);
    await world.apply(copied.replica, "c");
    world.logDB.faults.verify = failVerify;
    await submitAll(original.replica, "d");
    await world.env.advance(20_000);
    assertInstanceOf(original.replica.status.error, ErrOtherHistory);
    assertEquals(outboxErrors(original).length, 1);
    assertEquals(pendingOf(original.replica), ["d queued"]);
  }),
);

Deno.test(
  "H14 an outbox whose copy was faster reports it, and sends nothing more",
  inWorld(async (world) => {
    const original = await world.start();
    await world.apply(original.replica, "a");
    await world.writeNotes();
    const copied = await world.start(world.copy(), 2n);
    await world.apply(copied.replica, "b");
    const [c] = await submitAll(original.replica, "c");
    assertInstanceOf(await world.until(rejection(c!.result)), ErrOutboxCopied);
    assertEquals(pendingOf(original.replica), ["c queued"]);
    assertEquals(await listOf(copied.replica), ["a", "b"]);
  }),
);

Deno.test(
  "H14 an outbox whose process is killed around its claim is not confused with a copy",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.kill(first);
    const expected = ["a"];
    // The claim is lost, or committed without an answer.
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
    world.reconnect();
    const { replica, events } = await world.start();
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), expected);
    assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  }),
);

Deno.test(
  "H14 a session that another client has opened with the client id of an outbox is not used by it",
  inWorld(async (world) => {
    const { env, logDB: { inner, faults } } = world;
    for (const isRestarted of [false, true]) {
      let { host, replica, events } = await world.start();
      await world.apply(replica, "a");
      await env.advance(2 * OUTBOX_DONE_MS);
      const { clientID } = await world.firstSession();
      if (isRestarted) {
        await world.stop(host);
        ({ host, replica, events } = await world.start());
      }
      faults.append = () => "fail";
      for (let index = replica.appliedIndex; index > 0; index--) {
        if (replica.sessionInfo(index) === undefined) continue;
        await forge(inner, packRecords(unregisterRecord(index)));
      }
      const submitted = await submitAll(replica, "b");
      // Before, and while its own registration does not get through.
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
        assertEquals(replica.sessionInfo(other)?.next, 1);
      }
      // Reported once, not for each; not at all if all were opened before.
      const failures = events.filter(({ type }) => type === "outbox failed");
      assertEquals(failures.length, isRestarted ? 0 : 1);
      await world.stop(host);
    }
  }),
);

Deno.test(
  "H14 an outbox that does not know the owner of its sessions takes the first one, from the log and from a snapshot",
  checked(async () => {
    for (const way of ["log", "snapshot"]) {
      const world = new World();
      const { logDB: { inner, faults } } = world;
      const other = await world.startOther();
      const first = await world.start();
      // Killed before it reads of its session.
      faults.break(1n);
      await submitAll(first.replica, "a");
      await settle();
      await world.kill(first);
      const { clientID } = await world.firstSession();
      const own = other.replica.appliedIndex;
      assertEquals(other.replica.sessionInfo(own)?.clientID, clientID);
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
        await world.compactPast(other.replica);
        faults.mend(1n);
        faults.append = () => undefined;
        await world.until(results(replica.pending()));
      }
      await world.until(other.replica.read(null));
      for (const one of others) {
        assert(!(other.replica.sessionInfo(one)?.next! > 1), way);
      }
      assertEquals(other.replica.sessionInfo(own)?.next, 2, way);
      await world.end();
    }
  }),
);

Deno.test(
  "U34 H14 submissions wait for their owner while sessions can only be opened by another, which is reported once",
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
    // Each try appends a record, so the tries back off.
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
  "U25 the view of an outbox shows each command exactly once at any time, committed or not",
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
        // It is in the view once it is durable, and stays there.
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
  "U17 a command at which the machine throws in the view is refused before it is sent, and its dismissal is durable",
  inWorld(async ({ env, logDB, outbox }) => {
    class Picky extends RegularJournal {
      override apply(cmd: Uint8Array): Result {
        if (text(cmd) === "poison") {
          throw new RangeError(`Unknown command ${text(cmd)}`);
        }
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
    assertEquals(poison!.reason, "RangeError: Unknown command poison");
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

Deno.test(
  "H4 when the session is evicted, commands that were not applied go through another one, in order",
  inWorld(async (world) => {
    const { replica } = await world.start();
    await world.apply(replica, "a");
    world.logDB.faults.append = (_, nodeID) =>
      nodeID === 1n ? "fail" : undefined;
    const rest = await submitAll(replica, "b", "c");
    await world.evict();
    world.reconnect();
    await world.until(results(rest));
    assertEquals(await listOf(replica), ["a", "b", "c"]);
  }),
);

Deno.test(
  "H4 when the session was evicted while the device was off, and the log has every record, all commands are applied",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    // Sent, and not answered.
    let fault: AppendFault = "committed";
    world.logDB.faults.append = () => fault;
    world.logDB.faults.break(1n);
    await submitAll(first.replica, "b");
    fault = "lost";
    await submitAll(first.replica, "c");
    await settle();
    await world.kill(first);
    world.logDB.faults.mend(1n);
    await world.evict();
    const { replica } = await world.start();
    world.reconnect();
    await submitAll(replica, "d");
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
  }),
);

Deno.test(
  "H4 when the session was evicted before a snapshot, unsent commands are sent, and those that may have been sent are of unknown outcome",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.writeNotes();
    // Sent, and not answered.
    world.logDB.faults.append = () => "lost";
    await submitAll(first.replica, "b");
    await settle();
    world.logDB.faults.break(1n);
    await world.evict();
    await world.kill(first);
    world.logDB.faults.mend(1n);
    const { logDB } = world;
    const other = await world.startOther();
    await world.until(other.replica.requestSnapshot());
    const second = await world.start();
    await submitAll(second.replica, "c");
    // Not shown on top of a state that may have it.
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
  "H4 a command that was lost when the session was evicted is sent after a restart",
  inWorld(async (world) => {
    const { env, logDB } = world;
    const first = await world.start();
    await world.apply(first.replica, "a");
    await env.advance(2 * OUTBOX_DONE_MS);
    logDB.faults.append = (_, nodeID) => nodeID === 1n ? "lost" : undefined;
    await submitAll(first.replica, "b");
    await world.evict();
    await env.advance(100);
    assertEquals(pendingOf(first.replica), ["b queued"]);
    await world.kill(first);
    const other = await world.startOther();
    await world.until(other.replica.requestSnapshot());
    logDB.faults.append = () => undefined;
    const { replica } = await world.start();
    await world.until(results(replica.pending()));
    assertEquals(await listOf(replica), ["a", "b"]);
  }),
);

Deno.test(
  "H4 a snapshot taken after the session was evicted leaves commands that were sent of unknown outcome",
  inWorld(async (world) => {
    const { logDB } = world;
    const one = await world.start();
    await world.apply(one.replica, "a");
    const two = await world.startOther();
    // The first replica is cut off: its commands may be in the log.
    logDB.faults.append = (_, nodeID) => nodeID === 1n ? "lost" : undefined;
    logDB.faults.break(1n);
    const [b] = await submitAll(one.replica, "b");
    await settle();
    await world.evict();
    await world.compactPast(two.replica);
    logDB.faults.append = () => undefined;
    logDB.faults.mend(1n);
    await world.until(rejection(b!.result));
    assertEquals(pendingOf(one.replica), ["b unknown"]);
    await world.apply(one.replica, "c");
    assertEquals(await listOf(one.replica), ["a", "x", "y", "c"]);
  }),
);

Deno.test(
  "D13 a number that a power cut has freed is not confused with the command that was applied under it",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.writeNotes();
    const before = world.copy();
    // Each acknowledges those before it.
    for (const command of ["b", "c", "d"]) {
      await world.apply(first.replica, command);
      await world.writeNotes();
    }
    await world.stop(first.host);
    // The outbox is restored.
    const { replica } = await world.start(before);
    const [e] = await submitAll(replica, "e");
    assertInstanceOf(await world.until(rejection(e!.result)), ErrOutboxCopied);
    replica.adoptOutbox();
    assertEquals(pendingOf(replica), ["e unknown"]);
    await world.apply(replica, "f");
    assertEquals(await listOf(replica), ["a", "b", "c", "d", "f"]);
  }),
);

for (const sent of [["b"], ["b", "c", "d"]]) {
  Deno.test(
    `H14 an outbox that was put back before ${sent} sends nothing after a restart either, with commands of its own under those numbers`,
    inWorld(async (world) => {
      const first = await world.start();
      await world.apply(first.replica, "a");
      await world.writeNotes();
      const before = world.copy();
      for (const command of sent) {
        // Each acknowledges those before it.
        await world.apply(first.replica, command);
        await world.writeNotes();
      }
      await world.kill(first);
      const second = await world.start(before);
      const [x] = await submitAll(second.replica, "x", "y", "z", "!");
      assertInstanceOf(
        await world.until(rejection(x!.result)),
        ErrOutboxCopied,
      );
      await world.until(second.replica.requestSnapshot());
      await world.kill(second);
      // As far as the outbox knows, all of it was submitted in order.
      const { replica } = await world.start(before);
      const pending = replica.pending();
      assertEquals(pending.length, 4);
      for (const { result } of pending) {
        assertInstanceOf(
          await world.until(rejection(result)),
          ErrOutboxCopied,
        );
      }
      await world.env.advance(1_000);
      assertEquals(await listOf(replica), ["a", ...sent]);
      replica.adoptOutbox();
      await world.apply(replica, "e");
      assertEquals(await listOf(replica), ["a", ...sent, "e"]);
    }),
  );
}

Deno.test(
  "H13 on a log that never had the session, all queued commands are sent",
  inWorld(async (world) => {
    const first = await world.start();
    await world.apply(first.replica, "a");
    await world.writeNotes();
    world.logDB.faults.append = () => "lost";
    await submitAll(first.replica, "b");
    await settle();
    await world.kill(first);
    const other = new World(2);
    const { replica: another } = await other.start();
    await other.apply(another, "x", "y", "z");
    const { replica } = await other.start(world.outbox, 2n);
    const [c] = await submitAll(replica, "c");
    await other.until(c!.result);
    assertEquals(await listOf(replica), ["x", "y", "z", "b", "c"]);
    assertEquals(replica.pending(), []);
    await other.end();
  }),
);

Deno.test(
  "H3 every command is applied once and in order, at whichever write of the outbox the process is killed",
  checked(async () => {
    // Each process ends with a write that fails, with or without effect, and a kill.
    for (let at = 1; at <= 14; at++) {
      for (const after of [false, true]) {
        const world = new World(at);
        const error = new Error("EIO: power was cut");
        world.store.fault = { at, after, times: Infinity, error };
        const submitted: string[] = [];
        let next = 0;
        const submit = async (
          replica: Replica,
          count: number,
        ): Promise<void> => {
          for (let i = 0; i < count; i++) {
            const command = `${next++}`;
            try {
              await world.until(replica.submit(bytes(command)));
              submitted.push(command);
            } catch {
              if (after) submitted.push(`${command}?`);
            }
            if (i % 3 === 2) await world.env.advance(1500);
          }
        };
        const first = await world.start();
        await submit(first.replica, 8);
        await world.kill(first);
        // Once more, in the writes of a process that finds stored commands.
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
        // Commands that submit() rejected may be there, since their write has taken effect.
        assertEquals(
          list.filter((cmd) => !submitted.includes(`${cmd}?`)),
          submitted.filter((cmd) => !cmd.endsWith("?")),
          name,
        );
        assertEquals(list.length, new Set(list).size, name);
        await world.end();
      }
    }
  }),
);

Deno.test(
  "H3 over a log that fails, loses and duplicates records, with processes that are killed, every command is applied once and in order",
  checked(() => runSeeds(1, 40, {})),
);

Deno.test(
  "H3 H4 the same while sessions are evicted again and again",
  checked(() => runSeeds(101, 140, { sessionsMax: 2 })),
);

Deno.test(
  "H3 H4 the same while snapshots hide outcomes: commands that are not applied are of unknown outcome, and no others",
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
  const submitted: string[] = [];
  let next = 0;
  for (let life = 0; life < 6; life++) {
    rate = random() % 60;
    const started = await world.start();
    const steps = random() % 12;
    for (let step = 0; step < steps; step++) {
      const burst = 1 + random() % 4;
      const commands = Array.from({ length: burst }, () => `${next++}`);
      await env.until(submitAll(started.replica, ...commands), 20);
      submitted.push(...commands);
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
  const missing = submitted.filter((cmd) => unknown.includes(`${cmd} unknown`));
  assertEquals(unknown, missing.map((cmd) => `${cmd} unknown`));
  if (config.snapshotEntries === undefined) assertEquals(missing, []);
  const list = await listOf(replica);
  assertEquals(await listOf(witness.replica), list);
  assertEquals(machines.at(-1)!.list, list);
  // Commands of unknown outcome may be applied or not.
  const sure = (commands: readonly string[]): string[] =>
    commands.filter((command) => !missing.includes(command));
  assertEquals(sure(list), sure(submitted));
  assertEquals(list.length, new Set(list).size);
  assertEquals(
    list,
    submitted.filter((command) => list.includes(command)),
  );
  assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  await world.end();
}
