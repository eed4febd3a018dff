import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrClusterClosed,
  ErrInvalidSession,
  ErrProposalSkipped,
  ErrUnknownOutcome,
  MemoryLogDB,
  Session,
} from "../../mod.ts";
import {
  SESSION_OWNER_BYTES_MAX,
  SESSION_WINDOW_MAX,
} from "../../src/limits.ts";
import { ErrRecordsRefused } from "../../src/log/errors.ts";
import { packRecords, RecordKind } from "../../src/log/records.ts";
import {
  putSessionHead,
  sessionHeadLength,
  unregisterRecord,
} from "../../src/rsm/record_codec.ts";
import { type AppendFault, FaultyLogDB } from "../support/faults.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { Disk } from "../machines/journal.ts";
import {
  forge,
  KINDS,
  listOf,
  proposeAll,
  start,
  startThree,
  stopAll,
} from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

function sessionRecord(
  session: number,
  series: number,
  command: string,
  lag = 0,
): Uint8Array {
  const head = sessionHeadLength(session, series, lag);
  const cmd = bytes(command);
  const record = new Uint8Array(head + cmd.length);
  putSessionHead(
    record,
    0,
    RecordKind.SessionProposal,
    session,
    series,
    lag,
  );
  record.set(cmd, head);
  return record;
}

function range(n: number, prefix = ""): string[] {
  return Array.from({ length: n }, (_, i) => `${prefix}${i}`);
}

for (const fault of ["fail", "committed", "lost", "twice"] as const) {
  testInMemory(
    `H3 a session applies each proposal once and in order when appends end in "${fault}"`,
    checked(async () => {
      for (const kind of KINDS) {
        const env = new ManualEnv();
        await using logDB = new FaultyLogDB({ env });
        logDB.faults.slow = true;
        const { host, replica } = await start({ logDB, env, kind });
        const session = await replica.openSession();
        let n = 0;
        logDB.faults.append = () => n++ % 3 !== 2 ? fault : undefined;
        const answers: Promise<string>[] = [];
        for (const command of range(40)) {
          answers.push(
            replica.propose(bytes(command), { session })
              .then(({ value, data }) => `${value}=${text(data)}`),
          );
          if (Number(command) % 5 === 0) await settle(1);
        }
        assertEquals(
          await env.until(Promise.all(answers)),
          range(40).map((c) => `${Number(c) + 1}=${c}`),
        );
        assertEquals(await listOf(replica), range(40));
        await host.stop();
      }
    }),
  );
}

testInMemory(
  "H3 exactly-once holds under any mix of faults, with several sessions and many proposals in flight",
  checked(async () => {
    const faults: AppendFault[] = [
      undefined,
      "fail",
      "committed",
      "lost",
      "twice",
    ];
    for (let seed = 1; seed <= 40; seed++) {
      const random = random32(seed);
      const env = new ManualEnv(seed);
      await using logDB = new FaultyLogDB({ env });
      logDB.faults.slow = random() % 2 === 0;
      const { host, replica } = await start({ logDB, env });
      logDB.faults.append = () => faults[random() % faults.length];
      const sessions = await env.until(Promise.all(
        range(3).map(() => replica.openSession()),
      ));
      const answers: Promise<unknown>[] = [];
      for (const i of range(30)) {
        for (const [s, session] of sessions.entries()) {
          answers.push(replica.propose(bytes(`${s}/${i}`), { session }));
        }
        if (random() % 4 === 0) await settle(1);
      }
      await env.until(Promise.all(answers));
      const list = await listOf(replica);
      for (const [s] of sessions.entries()) {
        assertEquals(
          list.filter((command) => command.startsWith(`${s}/`)),
          range(30, `${s}/`),
          `seed ${seed}`,
        );
      }
      await host.stop();
    }
  }),
);

test(
  "H3 U20 a copy of a proposal gets the first result before its acknowledgement, and is ignored after it",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica } = await start({ logDB });
    const session = await replica.openSession();
    await replica.propose(bytes("a"), { session });
    await forge(logDB, packRecords(sessionRecord(session.id, 1, "a")));
    await replica.propose(bytes("b"), { session });
    await replica.propose(bytes("c"), { session });
    // Series 1 and 2 are acknowledged now.
    for (let i = 0; i < 3; i++) {
      await forge(
        logDB,
        packRecords(
          sessionRecord(session.id, 1, "a"),
          sessionRecord(session.id, 2, "b", 1),
        ),
      );
    }
    await replica.propose(bytes("d"), { session });
    assertEquals(await listOf(replica), ["a", "b", "c", "d"]);
    await host.stop();
  }),
);

test(
  "H3 a session queues more proposals than its window",
  checked(async () => {
    const { host, replica } = await start();
    const session = await replica.openSession();
    const count = SESSION_WINDOW_MAX + 500;
    const answers = await Promise.all(
      range(count).map((c) => replica.propose(bytes(c), { session })),
    );
    assertEquals(answers.at(-1)?.value, BigInt(count));
    assertEquals(await listOf(replica), range(count));
    await host.stop();
  }),
);

testInMemory(
  "H14 an aborted proposal does not block those behind it",
  checked(async () => {
    for (const fault of ["fail", "committed", "lost", "twice"] as const) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const { host, replica } = await start({ logDB, env });
      const session = await replica.openSession();
      logDB.faults.append = () => fault;
      const controller = new AbortController();
      const reason = new Error("Enough");
      const given = rejection(
        replica.propose(bytes("given up"), {
          session,
          signal: controller.signal,
        }),
      );
      const rest = [
        replica.propose(bytes("b"), { session }),
        replica.propose(bytes("c"), { session }),
      ];
      // The first send is in flight when the caller aborts.
      queueMicrotask(() => queueMicrotask(() => controller.abort(reason)));
      assertStrictEquals(
        fault === "twice" ? reason : await given,
        reason,
      );
      logDB.faults.append = () => undefined;
      await env.until(Promise.all(rest));
      const list = await listOf(replica);
      const applied = list.filter((command) => command === "given up");
      assert(applied.length <= 1);
      assertEquals(list.slice(-2), ["b", "c"]);
      if (fault === "fail" || fault === "lost") assertEquals(applied, []);
      if (fault === "twice") await given.catch(() => {});
      await host.stop();
    }
  }),
);

testInMemory(
  "H14 a series skipped by another process is ErrProposalSkipped, and those behind it are applied",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    const skip = new Uint8Array(sessionHeadLength(session.id, 1, 0));
    putSessionHead(skip, 0, RecordKind.Skip, session.id, 1, 0);
    await forge(logDB, packRecords(skip));
    const [first, second] = [
      rejection(replica.propose(bytes("a"), { session })),
      replica.propose(bytes("b"), { session }),
    ];
    assertInstanceOf(await first, ErrProposalSkipped);
    assertEquals((await second).value, 1n);
    assertEquals(await listOf(replica), ["b"]);
    await host.stop();
  }),
);

testInMemory(
  "H14 a series with another command is refused, and the outcome of those behind it is reported as unknown",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    logDB.faults.slow = true;
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    await forge(logDB, packRecords(sessionRecord(session.id, 1, "stolen")));
    const gate = new Gate();
    const mine = rejection(replica.propose(bytes("mine"), { session }));
    await Promise.resolve();
    logDB.faults.append = async () => {
      await gate.opened;
      return undefined;
    };
    const next = rejection(replica.propose(bytes("next"), { session }));
    const errors = await Promise.all([mine, next]) as ErrInvalidSession[];
    for (const error of errors) {
      assertInstanceOf(error, ErrInvalidSession);
      assertEquals(error.reason, "conflict");
    }
    gate.open();
    await settle();
    // The one behind it is in flight: it may still be applied.
    assertEquals(await replica.read(null), ["stolen", "next"]);
    assertEquals(errors.map(({ applied }) => applied), [false, undefined]);
    const later = await rejection(replica.propose(bytes("z"), { session }));
    assertInstanceOf(later, ErrInvalidSession);
    assertEquals([later.reason, later.applied], ["conflict", false]);
    await host.stop();
  }),
);

testInMemory(
  "H14 a session is refused on a log that does not have its decided series",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const one = await start({ logDB, env });
    const session = await one.replica.openSession();
    for (const c of range(3)) await one.replica.propose(bytes(c), { session });
    await one.host.stop();
    // Another history of the cluster, with a session of the same index.
    await using other = new MemoryLogDB({ env });
    const two = await start({ logDB: other, env });
    await two.replica.openSession();
    const error = await env.until(
      rejection(two.replica.propose(bytes("3"), { session })),
    );
    assertInstanceOf(error, ErrInvalidSession);
    assertEquals([error.reason, error.applied], ["foreign", false]);
    assertEquals(await listOf(two.replica), []);
    await two.host.stop();
  }),
);

test(
  "H4 proposals of an evicted session reject with ErrInvalidSession and their outcome, if known",
  checked(async () => {
    for (const kind of KINDS) {
      const { host, replica } = await start({
        kind,
        config: { sessionsMax: 2 },
      });
      const [a, b] = [await replica.openSession(), await replica.openSession()];
      await replica.propose(bytes("b1"), { session: b });
      await replica.propose(bytes("a1"), { session: a });
      // The least recently used one is evicted.
      const c = await replica.openSession();
      const error = await rejection(
        replica.propose(bytes("b2"), { session: b }),
      );
      assertInstanceOf(error, ErrInvalidSession);
      assertEquals([error.reason, error.applied], ["unknown", false]);
      const again = await rejection(
        replica.propose(bytes("b3"), { session: b }),
      );
      assertInstanceOf(again, ErrInvalidSession);
      assertEquals([again.reason, again.applied], ["unknown", false]);
      await replica.propose(bytes("a2"), { session: a });
      await replica.propose(bytes("c1"), { session: c });
      assertEquals(await listOf(replica), ["b1", "a1", "a2", "c1"]);
      await host.stop();
    }
  }),
);

testInMemory(
  "H3 H4 a proposal that is being applied is not reported as not applied when a later one is refused after their session was closed in the same batch",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const gates = new Map([["x", new Gate()], ["a1", new Gate()]]);
    const list: string[] = [];
    const { host, replica, machines } = await start({
      logDB,
      env,
      kind: "concurrent",
      faults: {
        before: (method) => {
          if (method !== "update") return;
          return gates.get(list.shift()!)?.opened;
        },
      },
    });
    const session = await replica.openSession();
    list.push("x", "a1");
    const x = replica.propose(bytes("x"));
    await settle(10);
    // Both are read while the machine applies x, and applied in one batch.
    const a1 = replica.propose(bytes("a1"), { session });
    await settle(10);
    await forge(logDB.inner, packRecords(unregisterRecord(session.id)));
    gates.get("x")!.open();
    await x;
    await settle(10);
    assertEquals(machines[0]!.list, ["x"]);
    logDB.faults.append = () => {
      logDB.faults.append = () => undefined;
      throw new ErrRecordsRefused([{ at: 0, reason: "Write is not allowed" }]);
    };
    const a2 = rejection(replica.propose(bytes("a2"), { session }));
    await settle(10);
    gates.get("a1")!.open();
    assertEquals((await env.until(a1)).value, 2n);
    const error = await env.until(a2);
    assertInstanceOf(error, ErrInvalidSession);
    assertEquals(error.applied, false);
    assertEquals(await listOf(replica), ["x", "a1"]);
    await host.stop();
  }),
);

test(
  "H4 the first record of the log sets the session limit, whatever the configuration of later replicas",
  checked(async () => {
    await using logDB = newLogDB();
    const one = await start({ logDB, config: { sessionsMax: 1 } });
    const two = await start({
      logDB,
      config: { nodeID: 2n, sessionsMax: 100 },
    });
    const three = await start({ logDB, config: { nodeID: 3n } });
    const first = await two.replica.openSession();
    const second = await three.replica.openSession();
    for (const { replica } of [one, two, three]) {
      await replica.read(null);
    }
    const error = await rejection(
      two.replica.propose(bytes("x"), { session: first }),
    );
    assertInstanceOf(error, ErrInvalidSession);
    await one.replica.propose(bytes("y"), { session: second });
    await stopAll([one, two, three]);
  }),
);

test(
  "H4 a session limit after the first record is ignored",
  checked(async () => {
    await using logDB = newLogDB();
    const one = await start({ logDB });
    await proposeAll(one.replica, "a");
    const two = await start({ logDB, config: { nodeID: 2n, sessionsMax: 1 } });
    const first = await two.replica.openSession();
    await two.replica.openSession();
    await two.replica.propose(bytes("b"), { session: first });
    await stopAll([one, two]);
  }),
);

test(
  "H4 closed, foreign and unknown sessions are refused with their reason",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica } = await start({ logDB });
    const other = await start({ logDB, config: { clusterID: 2n } });
    const session = await replica.openSession();
    const foreign = await rejection(
      other.replica.propose(bytes("x"), { session }),
    );
    assertInstanceOf(foreign, ErrInvalidSession);
    assertEquals([foreign.reason, foreign.applied], ["foreign", false]);
    const notClosed = await rejection(other.replica.closeSession(session));
    assertInstanceOf(notClosed, ErrInvalidSession);
    assertEquals(notClosed.reason, "foreign");
    await replica.propose(bytes("a"), { session });
    await replica.closeSession(session);
    const closed = await rejection(replica.propose(bytes("b"), { session }));
    assertInstanceOf(closed, ErrInvalidSession);
    assertEquals([closed.reason, closed.applied], ["closed", false]);
    const twice = await rejection(replica.closeSession(session));
    assertInstanceOf(twice, ErrInvalidSession);
    // One that another process has closed.
    const ended = await replica.openSession();
    await forge(logDB, packRecords(unregisterRecord(ended.id)));
    const unknown = await rejection(
      replica.propose(bytes("c"), { session: ended }),
    );
    assertInstanceOf(unknown, ErrInvalidSession);
    assertEquals(unknown.applied, false);
    assertEquals(await listOf(replica), ["a"]);
    await replica.closeSession(Session.noOp);
    await stopAll([other]);
    await host.stop();
  }),
);

test(
  "H3 a session continues through another replica, also after the first one's host was stopped",
  checked(async () => {
    await using logDB = newLogDB();
    const [one, two, three] = await startThree(logDB);
    const session = await one!.replica.openSession();
    await one!.replica.propose(bytes("1"), { session });
    await two!.replica.propose(bytes("2"), { session });
    await one!.replica.propose(bytes("3"), { session });
    await one!.host.stop();
    await three!.replica.propose(bytes("4"), { session });
    await two!.replica.propose(bytes("5"), { session });
    assertEquals(await two!.replica.read(null), ["1", "2", "3", "4", "5"]);
    await stopAll([two!, three!]);
  }),
);

testInMemory(
  "H3 pending proposals get their results through another replica that continues the session",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const [one, two, three] = await startThree(logDB, { env });
    const session = await one!.replica.openSession();
    logDB.faults.append = (_, nodeID) =>
      nodeID === 1n ? "committed" : undefined;
    logDB.faults.break(1n);
    const waiting = range(5).map((c) =>
      one!.replica.propose(bytes(c), { session })
    );
    await settle();
    const more = two!.replica.propose(bytes("5"), { session });
    const answers = await env.until(Promise.all([...waiting, more]));
    assertEquals(answers.map(({ data }) => text(data)), range(6));
    assertEquals(await three!.replica.read(null), range(6));
    logDB.faults.mend(1n);
    await env.until(stopAll([one!, two!, three!]));
  }),
);

testInMemory(
  "H3 proposals that failed with their host are skipped or get their result where the session continues, and are never applied twice",
  checked(async () => {
    for (const fault of ["lost", "committed"] as const) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const [one, two, three] = await startThree(logDB, { env });
      const session = await one!.replica.openSession();
      await one!.replica.propose(bytes("0"), { session });
      logDB.faults.append = (_, nodeID) => nodeID === 1n ? fault : undefined;
      logDB.faults.break(1n);
      const waiting = ["1", "2"].map((c) =>
        rejection(one!.replica.propose(bytes(c), { session }))
      );
      await settle();
      await one!.host.stop();
      for (const error of await Promise.all(waiting)) {
        assertInstanceOf(error, ErrClusterClosed);
      }
      await env.until(two!.replica.propose(bytes("3"), { session }));
      assertEquals(
        await three!.replica.read(null),
        fault === "lost" ? ["0", "3"] : ["0", "1", "2", "3"],
      );
      await env.until(stopAll([two!, three!]));
    }
  }),
);

testInMemory(
  "H11 the bound of the queue is exact when a session moves to another replica while results arrive",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const gates: Gate[] = [];
    const one = await start({
      logDB,
      env,
      kind: "concurrent",
      faults: {
        before: (method) => {
          if (method !== "update" || gates.length === 0) return;
          return gates.shift()!.opened;
        },
      },
      config: { pendingProposalsMax: 3 },
    });
    const two = await start({
      logDB,
      env,
      config: { nodeID: 2n, pendingProposalsMax: 3 },
    });
    const session = await one.replica.openSession();
    const gate = new Gate();
    gates.push(gate);
    // The first replica applies both copies before the second continues the session.
    logDB.faults.append = () => "twice";
    const first = one.replica.propose(bytes("a"), { session });
    await settle();
    logDB.faults.append = () => undefined;
    logDB.faults.break(2n);
    const second = two.replica.propose(bytes("b"), { session });
    await settle();
    gate.open();
    await settle();
    logDB.faults.mend(2n);
    await env.until(Promise.all([first, second]));
    await settle();
    for (const { replica } of [one, two]) {
      const three = range(3).map((c) => replica.propose(bytes(c)));
      assertEquals(
        (await rejection(replica.propose(bytes("4"))) as Error).name,
        "ErrSystemBusy",
      );
      await env.until(Promise.all(three));
    }
    await env.until(stopAll([one, two]));
  }),
);

testInMemory(
  "H3 Replica.closeSession() waits for pending proposals",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    const session = await replica.openSession();
    let faults = 3;
    logDB.faults.append = () => faults-- > 0 ? "fail" : undefined;
    const answers = range(5).map((c) => replica.propose(bytes(c), { session }));
    const closed = replica.closeSession(session);
    assertEquals(await peek(closed), "pending");
    await env.until(closed);
    assertEquals((await Promise.all(answers)).length, 5);
    await host.stop();
  }),
);

testInMemory(
  "H10 a session whose closing was interrupted by a stop can be closed through another replica",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const one = await start({ logDB, env });
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    const session = await one.replica.openSession();
    logDB.faults.append = (_, nodeID) => nodeID === 1n ? "fail" : undefined;
    const waiting = rejection(one.replica.propose(bytes("x"), { session }));
    const closing = rejection(one.replica.closeSession(session));
    await settle();
    await one.host.stop();
    assertInstanceOf(await waiting, ErrClusterClosed);
    assertInstanceOf(await closing, ErrClusterClosed);
    await env.until(two.replica.closeSession(session));
    const error = await rejection(
      two.replica.propose(bytes("y"), { session }),
    );
    assertInstanceOf(error, ErrInvalidSession);
    assertEquals(error.reason, "closed");
    await stopAll([two]);
  }),
);

testInMemory(
  "H4 a registration committed twice leaves no orphaned session",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({
      logDB,
      env,
      config: { sessionsMax: 2 },
    });
    const first = await replica.openSession();
    await replica.propose(bytes("a"), { session: first });
    let faults = 1;
    logDB.faults.append = () => faults-- > 0 ? "committed" : undefined;
    // The record is applied at once; the failed append is repeated.
    const second = await env.until(replica.openSession());
    await env.advance(60_000);
    // With an orphan left, one of the two would be evicted.
    await replica.propose(bytes("b"), { session: first });
    await replica.propose(bytes("c"), { session: second });
    assertEquals(await listOf(replica), ["a", "b", "c"]);
    await host.stop();
  }),
);

testInMemory(
  "H4 when a registration and its copy are both committed, the extra session is closed",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({
      logDB,
      env,
      config: { sessionsMax: 3 },
    });
    const first = await replica.openSession();
    let faults = 1;
    logDB.faults.append = () => faults-- > 0 ? "committed" : undefined;
    // The reader is cut off, so that the result comes after the second send.
    logDB.faults.break(1n);
    const opening = replica.openSession();
    await env.advance(60);
    logDB.faults.mend(1n);
    const second = await env.until(opening);
    await env.advance(10_000);
    const third = await replica.openSession();
    for (const session of [first, second, third]) {
      await replica.propose(bytes("x"), { session });
    }
    await host.stop();
  }),
);

testInMemory(
  "H4 a session whose caller has stopped waiting is closed once it is open",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    logDB.faults.slow = true;
    const { host, replica } = await start({
      logDB,
      env,
      config: { sessionsMax: 1 },
    });
    const controller = new AbortController();
    const reason = new Error("Enough");
    const opening = rejection(
      replica.openSession({ signal: controller.signal }),
    );
    await Promise.resolve();
    controller.abort(reason);
    assertStrictEquals(await opening, reason);
    await settle();
    const session = await replica.openSession();
    await replica.propose(bytes("a"), { session });
    assertEquals(
      await rejection(replica.openSession({ signal: controller.signal })),
      reason,
    );
    await host.stop();
  }),
);

test(
  "H11 an owner over the limit is refused and harms no replica",
  checked(async () => {
    await using logDB = newLogDB();
    const [one, two, three] = await startThree(logDB);
    await one!.replica.openSession({
      owner: new Uint8Array(SESSION_OWNER_BYTES_MAX),
    });
    assertInstanceOf(
      await rejection(
        one!.replica.openSession({
          owner: new Uint8Array(SESSION_OWNER_BYTES_MAX + 1),
        }),
      ),
      RangeError,
    );
    assertInstanceOf(
      await rejection(
        one!.replica.openSession({ owner: "me" as unknown as Uint8Array }),
      ),
      TypeError,
    );
    for (const { replica } of [one!, two!, three!]) {
      await proposeAll(replica, "fine");
    }
    await stopAll([one!, two!, three!]);
  }),
);

testInMemory(
  "H4 every snapshot contains sessions and results: a replica started from one gives copies the first result",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const one = await start({ logDB, env, kind, disk: new Disk() });
      const session = await one.replica.openSession();
      await one.replica.propose(bytes("a"), { session });
      // Applied, but the result never arrives: the reader is cut off.
      logDB.faults.append = () => "committed";
      logDB.faults.break(1n);
      const waiting = one.replica.propose(bytes("b"), { session });
      await settle();
      const two = await start({
        logDB,
        env,
        kind,
        disk: new Disk(),
        config: { nodeID: 2n, fullSnapshotInterval: 1 },
      });
      logDB.faults.append = () => undefined;
      await proposeAll(two.replica, "x");
      await two.replica.requestSnapshot();
      await proposeAll(two.replica, "y");
      await two.replica.requestSnapshot();
      const three = await start({
        logDB,
        env,
        kind,
        disk: new Disk(),
        config: { nodeID: 3n },
      });
      if (kind !== "hosted") {
        // It had nothing to apply.
        assert(!three.machines.some((m) => m.calls.includes("update")));
      }
      const next = three.replica.propose(bytes("c"), { session });
      const [b, c] = await env.until(Promise.all([waiting, next]));
      assertEquals([b.value, text(b.data)], [2n, "b"]);
      assertEquals([c.value, text(c.data)], [5n, "c"]);
      logDB.faults.mend(1n);
      await env.until(stopAll([one, two, three]));
    }
  }),
);

testInMemory(
  "H6 a copy whose result is lost with the host rows is ErrUnknownOutcome with applied: true",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const disk = new Disk();
    const one = await start({ logDB, env, kind: "disk", disk });
    const holder = await start({ logDB, env, config: { nodeID: 2n } });
    const session = await holder.replica.openSession();
    logDB.faults.break(2n);
    const waiting = rejection(
      holder.replica.propose(bytes("a"), { session }),
    );
    await settle();
    assertEquals(await one.replica.read(null), ["a"]);
    await env.until(one.host.stop());
    const again = await start({ logDB, env, kind: "disk", disk });
    const b = again.replica.propose(bytes("b"), { session });
    const error = await env.until(waiting);
    assertInstanceOf(error, ErrUnknownOutcome);
    assertEquals(error.applied, true);
    assertEquals((await env.until(b)).value, 2n);
    assertEquals(await listOf(again.replica), ["a", "b"]);
    logDB.faults.mend(2n);
    await env.until(stopAll([again, holder]));
  }),
);
