import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import {
  ConcurrentKVStateMachine,
  ErrClusterClosed,
  ErrPayloadTooBig,
  ErrSystemBusy,
  ErrUnknownOutcome,
  type IStateMachine,
  kv,
  NodeHost,
  type Result,
  Session,
} from "../../mod.ts";
import { type Env, systemEnv } from "../../src/env.ts";
import {
  BATCH_RECORDS_MAX,
  COMMAND_BYTES_MAX,
  PENDING_PROPOSALS_MAX,
} from "../../src/limits.ts";
import { openSnapshot } from "../../src/snapshot/mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { FaultyLogDB } from "../support/faults.ts";
import {
  KINDS,
  listOf,
  proposeAll,
  start,
  startThree,
  stopAll,
} from "../support/clusters.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

test(
  "H1 Replica.propose() resolves with the result once the command is applied here",
  checked(async () => {
    for (const kind of KINDS) {
      const { host, replica } = await start({ kind });
      const { value, data } = await replica.propose(bytes("a"));
      assertEquals([value, text(data)], [1n, "a"]);
      assertEquals(await listOf(replica), ["a"]);
      assertEquals((await replica.propose(bytes("b"))).value, 2n);
      await host.stop();
    }
  }),
);

test(
  "R1 C7 three replicas apply every command once, in log order, whatever the batches",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const three = await startThree(logDB, { kind });
      const answers: Promise<unknown>[] = [];
      for (let i = 0; i < 3 * BATCH_RECORDS_MAX; i++) {
        answers.push(three[i % 3]!.replica.propose(bytes(`${i}`)));
        if (i % 700 === 0) await settle(1);
      }
      await Promise.all(answers);
      const lists: string[][] = [];
      for (const { replica } of three) {
        lists.push(await replica.read(null) as string[]);
      }
      assertEquals(lists[0]!.length, 3 * BATCH_RECORDS_MAX);
      assertEquals(new Set(lists[0]).size, 3 * BATCH_RECORDS_MAX);
      assertEquals(lists[1], lists[0]!);
      assertEquals(lists[2], lists[0]!);
      await stopAll(three);
    }
  }),
);

test(
  "H1 Replica.propose() copies the command before it returns",
  checked(async () => {
    const { host, replica } = await start();
    const session = await replica.openSession();
    const cmd = bytes("mine");
    const answers = [
      replica.propose(cmd),
      replica.propose(cmd, { session }),
    ];
    cmd.fill(0);
    for (const { data } of await Promise.all(answers)) {
      assertEquals(text(data), "mine");
    }
    assertEquals(await listOf(replica), ["mine", "mine"]);
    await host.stop();
  }),
);

testInMemory(
  "H1 Replica.propose() copies a command that is queued in a session",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    logDB.faults.append = () => "fail";
    const cmd = bytes("0");
    const answers = [replica.propose(cmd, { session })];
    await settle();
    for (let i = 1; i < 5; i++) {
      cmd.set(bytes(`${i}`));
      answers.push(replica.propose(cmd, { session }));
    }
    cmd.fill(0);
    await settle();
    logDB.faults.append = () => undefined;
    await env.until(Promise.all(answers));
    assertEquals(await listOf(replica), ["0", "1", "2", "3", "4"]);
    await host.stop();
  }),
);

testInMemory(
  "H3 the caller owns a result: changing it does not change a later one",
  checked(async () => {
    for (const kind of KINDS) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const { host, replica } = await start({ logDB, env, kind });
      const session = await replica.openSession();
      // The first results are overwritten while copies are in flight.
      logDB.faults.append = () => "twice";
      for (
        const { data } of await Promise.all([
          replica.propose(bytes("kept"), { session }),
          replica.propose(bytes("other"), { session }),
        ])
      ) data!.fill(0);
      logDB.faults.append = () => undefined;
      const info = await replica.requestSnapshot();
      const snapshot = await openSnapshot(logDB.inner.snapshots.open(info));
      await snapshot.cancel();
      const kept = text(snapshot.sessions);
      assert(kept.includes("kept") && kept.includes("other"), kind);
      const another = await start({
        logDB,
        env,
        kind,
        config: { nodeID: 2n },
      });
      assertEquals(await listOf(another.replica), ["kept", "other"]);
      await stopAll([another]);
      await host.stop();
    }
  }),
);

testInMemory(
  "H1 an aborted proposal rejects with the reason of its signal",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    logDB.faults.slow = true;
    const gate = new Gate();
    const { host, replica } = await start({ logDB, env });
    const reason = new Error("Timeout (test)");
    await assertRejects(
      () => replica.propose(bytes("a"), { signal: AbortSignal.abort(reason) }),
      Error,
      "Timeout (test)",
    );
    logDB.faults.append = async () => {
      await gate.opened;
      return undefined;
    };
    const controller = new AbortController();
    const answer = rejection(
      replica.propose(bytes("b"), { signal: controller.signal }),
    );
    const other = replica.propose(bytes("c"));
    await settle();
    controller.abort(reason);
    assertStrictEquals(await answer, reason);
    gate.open();
    assertEquals((await other).value, 2n, "it was applied all the same");
    await host.stop();
  }),
);

test(
  "H11 commands from 0 bytes up to the limit are accepted; one byte more is ErrPayloadTooBig",
  checked(async () => {
    const { host, replica } = await start();
    const session = await replica.openSession();
    for (const options of [{}, { session }]) {
      assertEquals(
        (await replica.propose(new Uint8Array(), options)).data?.length,
        0,
      );
      const limit = new Uint8Array(COMMAND_BYTES_MAX).fill(65);
      const { data } = await replica.propose(limit, options);
      assertEquals(data?.length, COMMAND_BYTES_MAX);
      const less = limit.subarray(1);
      await replica.propose(less, options);
      const error = await assertRejects(
        () => replica.propose(new Uint8Array(COMMAND_BYTES_MAX + 1), options),
        ErrPayloadTooBig,
      );
      assertEquals(
        [error.size, error.limit],
        [COMMAND_BYTES_MAX + 1, COMMAND_BYTES_MAX],
      );
    }
    assertEquals((await listOf(replica)).length, 6);
    // The session is intact.
    await replica.propose(bytes("after"), { session });
    await host.stop();
  }),
);

testInMemory(
  "H11 a proposal over pendingProposalsMax rejects at once with ErrSystemBusy; later ones are accepted again",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({
      logDB,
      env,
      config: { pendingProposalsMax: 3 },
    });
    const session = await replica.openSession();
    for (const options of [{}, { session }]) {
      const three = ["a", "b", "c"].map((c) =>
        replica.propose(bytes(c), options)
      );
      const refused = replica.propose(bytes("d"), options);
      assertInstanceOf(await rejection(refused), ErrSystemBusy);
      await Promise.all(three);
      await replica.propose(bytes("e"), options);
    }
    assertEquals((await listOf(replica)).join(""), "abceabce");
    await host.stop();
  }),
);

test(
  "H11 a proposal over pendingBytesMax rejects at once with ErrSystemBusy",
  checked(async () => {
    const { host, replica } = await start({ config: { pendingBytesMax: 10 } });
    const first = replica.propose(bytes("0123456789"));
    assertInstanceOf(
      await rejection(replica.propose(bytes("x"))),
      ErrSystemBusy,
    );
    await first;
    assertInstanceOf(
      await rejection(replica.propose(bytes("0123456789x"))),
      ErrSystemBusy,
    );
    await replica.propose(bytes("0123456789"));
    await host.stop();
  }),
);

testInMemory(
  "H11 by default 65,536 proposals and 64 MiB may be pending",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    logDB.faults.slow = true;
    const { host, replica } = await start({ logDB, env });
    const gate = new Gate();
    logDB.faults.append = async () => {
      await gate.opened;
      return undefined;
    };
    const some: Promise<unknown>[] = [];
    for (let i = 0; i < PENDING_PROPOSALS_MAX; i++) {
      some.push(replica.propose(new Uint8Array()));
    }
    assertInstanceOf(
      await rejection(replica.propose(new Uint8Array())),
      ErrSystemBusy,
    );
    gate.open();
    assertEquals((await Promise.all(some)).length, 65_536);
    const gate2 = new Gate();
    logDB.faults.append = async () => {
      await gate2.opened;
      return undefined;
    };
    const large = new Uint8Array(COMMAND_BYTES_MAX);
    const more: Promise<unknown>[] = [];
    for (let i = 0; i < 64; i++) more.push(replica.propose(large));
    assertInstanceOf(
      await rejection(replica.propose(new Uint8Array(1))),
      ErrSystemBusy,
    );
    gate2.open();
    await Promise.all(more);
    await host.stop();
  }),
);

testInMemory(
  "H11 the bound of the queue is exact after any outcome of earlier appends",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({
      logDB,
      env,
      config: { pendingProposalsMax: 4 },
    });
    // Every outcome of an append, for each kind of record.
    for (const fault of ["committed", "lost", "fail", "twice"] as const) {
      let faults = 1;
      logDB.faults.append = () => faults-- > 0 ? fault : undefined;
      const session = await env.until(replica.openSession());
      faults = 1;
      await env.until(replica.propose(bytes("x"), { session }));
      faults = 1;
      await env.until(replica.closeSession(session));
      faults = 1;
      await env.until(replica.propose(bytes("y")).catch(() => {}));
      faults = 1;
      const controller = new AbortController();
      const given = replica.openSession({ signal: controller.signal })
        .catch(() => {});
      await settle();
      controller.abort();
      await given;
      await env.advance(20_000);
    }
    logDB.faults.append = () => undefined;
    const four = ["a", "b", "c", "d"].map((c) => replica.propose(bytes(c)));
    const fifth = replica.propose(bytes("e"));
    assertInstanceOf(await rejection(fifth), ErrSystemBusy);
    await Promise.all(four);
    await host.stop();
  }),
);

testInMemory(
  "H5 a proposal outside of a session is never sent again; an unknown outcome is ErrUnknownOutcome",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    for (const session of [undefined, Session.noOp]) {
      const options = session ? { session } : {};
      let appends = 0;
      logDB.faults.append = () => {
        appends++;
        return "committed";
      };
      const error = await rejection(replica.propose(bytes("c"), options));
      assertInstanceOf(error, ErrUnknownOutcome);
      assertEquals(error.applied, false);
      logDB.faults.append = () => {
        appends++;
        return "lost";
      };
      assertInstanceOf(
        await rejection(replica.propose(bytes("l"), options)),
        ErrUnknownOutcome,
      );
      await env.advance(60_000);
      assertEquals(appends, 2);
    }
    logDB.faults.append = () => "fail";
    const error = await rejection(replica.propose(bytes("f")));
    assertEquals((error as Error).message, "append() failed");
    logDB.faults.append = () => undefined;
    await replica.propose(bytes("end"));
    assertEquals(await listOf(replica), ["c", "c", "end"]);
    await host.stop();
  }),
);

testInMemory(
  "H5 a failed append rejects only the proposals in it",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    logDB.faults.slow = true;
    const { host, replica } = await start({ logDB, env });
    let n = 0;
    logDB.faults.append = () => n++ === 1 ? "fail" : undefined;
    const answers: Promise<unknown>[] = [];
    for (let i = 0; i < 4; i++) {
      answers.push(replica.propose(bytes(`${i}`)));
      await Promise.resolve();
    }
    const settled = await Promise.allSettled(answers);
    assertEquals(
      settled.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled", "fulfilled"],
    );
    assertEquals(await listOf(replica), ["0", "2", "3"]);
    await host.stop();
  }),
);

testInMemory(
  "H1 proposals of one turn of the event loop share an append",
  checked(async () => {
    await using logDB = new FaultyLogDB();
    const { host, replica } = await start({ logDB });
    const sizes: number[] = [];
    logDB.faults.append = ({ ends }) => void sizes.push(ends.length);
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => replica.propose(bytes(`${i}`))),
    );
    assertEquals(sizes, [100]);
    await host.stop();
  }),
);

test(
  "H1 what follows a start, and the first batch, each begin with a turn of the event loop; later batches do not",
  checked(async () => {
    const order: string[] = [];
    const env: Env = {
      ...systemEnv,
      // No time passes: the apply loop takes no turn because of it.
      now: () => 0,
      turn(): Promise<void> {
        order.push("turn");
        return systemEnv.turn();
      },
    };
    const host = new NodeHost({ env });
    const create = (): IStateMachine => ({
      update(): Result {
        order.push("update");
        return { value: 0n };
      },
      lookup: () => undefined,
      saveSnapshot: (w) => w.close(),
      recoverFromSnapshot: () => {},
      close: () => {},
    });
    const replica = await host.startCluster(create, {
      clusterID: 1n,
      nodeID: 1n,
    });
    assertEquals(order.splice(0), ["turn"]);
    await replica.propose(bytes("a"));
    await replica.propose(bytes("b"));
    assertEquals(order, ["turn", "update", "update"]);
    await host.stop();
  }),
);

testInMemory(
  "H1 one successful append resets the retry backoff",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    for (let round = 0; round < 12; round++) {
      let faults = 1;
      logDB.faults.append = () => faults-- > 0 ? "fail" : undefined;
      const answer = replica.propose(bytes("x"), { session });
      await settle();
      await env.advance(50);
      assert(await peek(answer) !== "pending", `round ${round}`);
    }
    await host.stop();
  }),
);

test(
  "H11 a command that is not a Uint8Array, and a session not made by openSession(), reject with a TypeError",
  checked(async () => {
    const { host, replica } = await start();
    assertInstanceOf(
      await rejection(replica.propose("text" as unknown as Uint8Array)),
      TypeError,
    );
    const session = { clusterID: 1n, id: 2 } as unknown as Session;
    assertInstanceOf(
      await rejection(
        (async () => await replica.propose(bytes("x"), { session }))(),
      ),
      TypeError,
    );
    // A rejected promise, never a synchronous throw.
    const promised = replica.propose(bytes("x"), { session });
    assertInstanceOf(await rejection(promised), TypeError);
    await host.stop();
  }),
);

test(
  "T4 factories are called with cluster and node id",
  checked(async () => {
    for (const kind of KINDS) {
      const { host, machines } = await start({
        kind,
        config: { clusterID: 2n ** 64n - 1n, nodeID: 2n ** 64n - 1n },
      });
      for (const { ids } of machines) {
        assertEquals([...ids], [2n ** 64n - 1n, 2n ** 64n - 1n]);
      }
      await host.stop();
    }
  }),
);

test(
  "H1 Replica.propose() rejects with ErrClusterClosed after a stop",
  checked(async () => {
    const { host, replica } = await start();
    await proposeAll(replica, "a");
    await host.stop();
    assertInstanceOf(
      await rejection(replica.propose(bytes("b"))),
      ErrClusterClosed,
    );
    assertEquals(replica.error, undefined);
  }),
);

testInMemory(
  "H1 one signal aborts all proposals it was passed to",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    const gate = new Gate();
    logDB.faults.append = async () => {
      await gate.opened;
      return undefined;
    };
    const controller = new AbortController();
    const { signal } = controller;
    const answers = Array.from({ length: 20_000 }, (_, i) =>
      replica.propose(
        bytes(`${i}`),
        i % 2 ? { signal } : { signal, session },
      ).catch((error) => error));
    answers.push(replica.openSession({ signal }).catch((error) => error));
    await settle();
    const reason = new Error("Enough");
    controller.abort(reason);
    for (const error of await Promise.all(answers)) {
      assertStrictEquals(error, reason);
    }
    gate.open();
    await settle();
    await host.stop();
  }),
);

test(
  "R11 callers own their results, also if the machine returns one object for all",
  checked(async () => {
    await using host = new NodeHost();
    const replica = await host.startConcurrentCluster(
      () => new ConcurrentKVStateMachine(),
      { clusterID: 1n, nodeID: 1n },
    );
    const session = await replica.openSession();
    // 1 if the key was new.
    const values = [1n, 0n, 0n, 0n];
    for (const options of [{}, { session }, {}, { session }]) {
      const result = await replica.propose(kv.put("a", "b"), options);
      assert(!Object.isFrozen(result));
      assertEquals(result.value, values.shift());
      result.value = 7n;
    }
  }),
);
