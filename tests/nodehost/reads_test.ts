import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import { ErrSystemBusy } from "../../mod.ts";
import { PENDING_READS_MAX } from "../../src/limits.ts";
import { bytes } from "../support/bytes.ts";
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
  "H2 Replica.read() reflects every proposal that had its result, on any replica, before the read",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const three = await startThree(logDB, { kind });
      for (let i = 0; i < 60; i++) {
        await three[i % 3]!.replica.propose(bytes(`${i}`));
        assertEquals(await three[(i + 1) % 3]!.replica.read("count"), i + 1);
      }
      await stopAll(three);
    }
  }),
);

testInMemory(
  "H2 a read waits until its read index is applied, a stale read does not",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const [one, two] = await startThree(logDB, { env });
    logDB.faults.break(2n);
    await proposeAll(one!.replica, "a");
    const read = two!.replica.read(null);
    assertEquals(await listOf(two!.replica), []);
    assertEquals(await peek(read), "pending");
    const controller = new AbortController();
    const reason = new Error("Enough");
    const given = rejection(
      two!.replica.read(null, { signal: controller.signal }),
    );
    const never = rejection(
      two!.replica.read(null, { signal: AbortSignal.abort(reason) }),
    );
    assertStrictEquals(await never, reason);
    controller.abort(reason);
    assertStrictEquals(await given, reason);
    logDB.faults.mend(2n);
    assertEquals(await env.until(read), ["a"]);
    await env.until(one!.host.stop());
    await env.until(two!.host.stop());
  }),
);

testInMemory(
  "H2 a read that begins during a read index request does not use its answer",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const [one, two, three] = await startThree(logDB, { env });
    const gates = [new Gate(), new Gate()];
    let asked = 0;
    logDB.faults.readIndex = () => gates[asked++]!.opened;
    const first = two!.replica.read("count");
    await proposeAll(one!.replica, "a");
    // The proposal had its result before these reads began: they must see it.
    const later = [two!.replica.read("count"), two!.replica.read("count")];
    logDB.faults.break(2n);
    await settle();
    gates[0]!.open();
    await settle();
    assertEquals(
      asked,
      2,
      "reads that begin while a read index is requested share the next request",
    );
    await proposeAll(one!.replica, "b");
    gates[1]!.open();
    logDB.faults.mend(2n);
    for (const count of await env.until(Promise.all(later))) {
      assert((count as number) >= 1);
    }
    await first;
    logDB.faults.readIndex = () => {};
    await env.until(stopAll([one!, two!, three!]));
  }),
);

testInMemory(
  "H2 a read without a connection waits until its signal aborts",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    logDB.faults.readIndex = () => new Promise(() => {});
    const reason = new Error("Enough");
    const controller = new AbortController();
    const read = rejection(replica.read(null, { signal: controller.signal }));
    await settle();
    controller.abort(reason);
    assertStrictEquals(await read, reason);
    await host.stop();
  }),
);

testInMemory(
  "H11 a read over the bound of waiting reads is ErrSystemBusy; aborted reads free their places",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const [one, two, three] = await startThree(logDB, { env });
    logDB.faults.break(2n);
    await proposeAll(one!.replica, "a");
    const controllers = [];
    const reads = [];
    for (let i = 0; i < PENDING_READS_MAX; i++) {
      const { signal } = controllers[i] = new AbortController();
      reads.push(
        two!.replica.read("count", { signal })
          .catch((error) => error),
      );
    }
    assertInstanceOf(await rejection(two!.replica.read(null)), ErrSystemBusy);
    const reason = new Error("Enough");
    for (const controller of controllers) controller.abort(reason);
    for (const error of await Promise.all(reads)) {
      assertStrictEquals(error, reason);
    }
    const read = two!.replica.read("count");
    await settle();
    logDB.faults.mend(2n);
    assertEquals(await env.until(read), 1);
    await env.until(stopAll([one!, two!, three!]));
  }),
);

testInMemory(
  "H11 reads that wait for their read index count as waiting; one signal aborts them all",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const { host, replica } = await start({ logDB, env });
    logDB.faults.readIndex = () => new Promise(() => {});
    const controller = new AbortController();
    const { signal } = controller;
    const reads = Array.from(
      { length: PENDING_READS_MAX },
      () => replica.read("count", { signal }).catch((error) => error),
    );
    await settle();
    for (
      const more of [
        () => replica.read(null),
        () => replica.naRead(bytes("x")),
      ]
    ) {
      const state = await peek(more());
      assert(state !== "pending" && "error" in state);
      assertInstanceOf(state.error, ErrSystemBusy);
    }
    const reason = new Error("Enough");
    controller.abort(reason);
    for (const error of await Promise.all(reads)) {
      assertStrictEquals(error, reason);
    }
    const given = new AbortController();
    const read = replica.read(null, { signal: given.signal });
    assertEquals(await peek(read), "pending");
    given.abort(reason);
    assertStrictEquals(await rejection(read), reason);
    await host.stop();
  }),
);
