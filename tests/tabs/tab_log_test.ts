import { assertEquals, assertRejects } from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import { withResolvers } from "../../src/async.ts";
import type { Log, LogBatch, LogReader } from "../../src/log/log.ts";
import { MemoryLogDB } from "../../src/log/memory_log.ts";
import { lastOf, packRecords } from "../../src/log/records.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import type {
  OutboxQueue,
  SettledCommand,
} from "../../src/offline/outbox_store.ts";
import { SubmissionQueue } from "../../src/offline/submission_queue.ts";
import type { OutboxParts } from "../../src/nodehost/outbox.ts";
import { ErrUnknownOutcome } from "../../src/log/errors.ts";
import { JoinedQueue } from "../../src/offline/joined_queue.ts";
import { ErrProposalRefused } from "../../src/rsm/errors.ts";
import { ErrStoreLocked } from "../../src/store/errors.ts";
import type { StoreLease } from "../../src/store/lease.ts";
import type { BlockStore } from "../../src/store/store.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";
import type { Calls, ClusterMessage } from "../../src/tabs/messages.ts";
import { SwitchingQueue } from "../../src/tabs/switching_queue.ts";
import { answerCall } from "../../src/tabs/serve_calls.ts";
import { LeadsHere, type TabCalls } from "../../src/tabs/tab_calls.ts";
import { TabLog } from "../../src/tabs/tab_log.ts";

type Read = Calls["read"];

/** Log of a tab whose leader is the test. */
class Tab {
  readonly posted: ClusterMessage[] = [];
  /** Reads that the leader has not answered. */
  readonly reads: {
    readonly args: Read["args"];
    readonly answer: (batches: readonly LogBatch[]) => void;
    readonly fail: (error: unknown) => void;
  }[] = [];
  readonly log: TabLog;

  constructor(own: Log) {
    const calls = {
      call: (_clusterID: bigint, _method: string, args: Read["args"]) => {
        const { promise, resolve, reject } = withResolvers<Read["answer"]>();
        const answer = (batches: readonly LogBatch[]): void => {
          const last = batches.length === 0
            ? args.after
            : lastOf(batches.at(-1)!);
          resolve({
            result: "read",
            batches,
            last,
            log: { first: 1, last, committed: last, bytes: 0 },
            principal: undefined,
            blocked: undefined,
          });
        };
        this.reads.push({ args, answer, fail: reject });
        return promise;
      },
    } as unknown as TabCalls;
    this.log = new TabLog({
      clusterID: 1n,
      calls,
      open: () => own,
      isCopy: false,
      post: (message) => this.posted.push(message),
      pauses: () => () => systemEnv.turn(),
      verify: () => Promise.resolve(),
      blocked: () => {},
      replica: () =>
        Promise.reject(new Error("Test has no replica of cluster 1")),
      onClose: () => {},
    });
  }

  hear(batch: LogBatch): void {
    this.log.received({ kind: "entries", batches: [batch] });
  }
}

/** Log with an epoch and records, and batches of one record each. */
async function logOf(count: number): Promise<[Log, LogBatch[]]> {
  const log = await new MemoryLogDB().open(1n, 1n);
  const batches: LogBatch[] = [];
  for (let first = 1; first <= count; first++) {
    const records = packRecords(new Uint8Array([0x14, first]));
    await log.append(records);
    batches.push({ follows: first - 1, first, records });
  }
  return [log, batches];
}

/** Reads as a replica does, until the reader is closed. */
class Reading {
  /** Index up to which batches were returned. */
  at = 0;

  constructor(reader: LogReader) {
    this.#run(reader).catch(() => {
      // Closed.
    });
  }

  async #run(reader: LogReader): Promise<void> {
    for (;;) this.at = lastOf(await reader.next());
  }
}

Deno.test("M2: a tab that takes the lead after batches arrived early tells its followers of each record that comes after them", async () => {
  const [own, [first, second]] = await logOf(3);
  const tab = new Tab(own);
  const reading = tab.log.read(0);
  tab.reads.shift()!.answer([]);
  const replica = new Reading(await reading);
  // Before the one that it follows.
  tab.hear(second!);
  tab.reads.shift()!.answer([first!]);
  await systemEnv.turn();
  assertEquals(replica.at, 2);
  await tab.log.lead();
  await systemEnv.turn();
  assertEquals(replica.at, 4);
  const posted = tab.posted.flatMap((one) =>
    one.kind === "entries" ? one.batches.map(({ first }) => first) : []
  );
  assertEquals(posted, [3, 4]);
  const answer = await answerCall("read", {
    after: 2,
    epoch: undefined,
    isStored: false,
  }, {
    log: tab.log.served,
    replica: () => Promise.reject(new TypeError("replica() is not asked for")),
    outbox: undefined,
    part: () => {},
  });
  const { last } = answer as Calls["read"]["answer"];
  assertEquals(last, 4);
  await tab.log.close();
});

Deno.test("M2: the leader tells the other tabs in one message of all batches that it reads in one turn, and not at all of those read as it loses the lead", async () => {
  const [own] = await logOf(3);
  const tab = new Tab(own);
  await tab.log.lead();
  const reader = await tab.log.read(0);
  const indexes = (): number[][] =>
    tab.posted.flatMap((one) =>
      one.kind === "entries" ? [one.batches.map(({ first }) => first)] : []
    );
  await Promise.resolve(reader.next());
  await systemEnv.turn();
  reader.next();
  reader.next();
  await systemEnv.turn();
  assertEquals(indexes(), [[1], [2, 3]]);
  reader.next();
  tab.log.lost();
  await systemEnv.turn();
  assertEquals(indexes(), [[1], [2, 3]]);
  await tab.log.close();
});

Deno.test("M2: a tab asks for a record that arrived while its first read was under way", async () => {
  const [own, [first]] = await logOf(1);
  const tab = new Tab(own);
  const reading = tab.log.read(0);
  tab.hear(first!);
  tab.reads.shift()!.answer([]);
  const replica = new Reading(await reading);
  assertEquals(tab.reads.map(({ args }) => args.after), [0]);
  tab.reads.shift()!.answer([first!]);
  await systemEnv.turn();
  assertEquals(replica.at, 1);
  await tab.log.close();
});

Deno.test("M2: a tab asks for the records up to the snapshot from which a new leader goes on", async () => {
  const [own, [first]] = await logOf(1);
  const tab = new Tab(own);
  const reading = tab.log.read(0);
  tab.reads.shift()!.answer([]);
  const replica = new Reading(await reading);
  tab.log.received({ kind: "reached", index: 1 });
  tab.reads.shift()!.answer([first!]);
  await systemEnv.turn();
  assertEquals(replica.at, 1);
  await tab.log.close();
});

Deno.test("M2: a tab that loses the lead before its log is open asks the next leader", async () => {
  const [own, [first]] = await logOf(1);
  const tab = new Tab(own);
  const reading = tab.log.read(0);
  tab.reads.shift()!.fail(new LeadsHere());
  await systemEnv.turn();
  tab.log.lost();
  await systemEnv.turn();
  tab.reads.shift()!.answer([first!]);
  const replica = new Reading(await reading);
  await systemEnv.turn();
  assertEquals(replica.at, 1);
  await tab.log.close();
});

Deno.test("M2: only the last of several pauses of a log ends it, for readers that were opened during it, too", async () => {
  const [own, [first]] = await logOf(1);
  const tab = new Tab(own);
  const superseded = tab.log.pause();
  const pause = tab.log.pause();
  const reading = tab.log.read(0);
  tab.reads.shift()!.answer([first!]);
  const replica = new Reading(await reading);
  tab.log.resume(superseded);
  await systemEnv.turn();
  assertEquals(replica.at, 0);
  tab.log.resume(pause);
  await systemEnv.turn();
  assertEquals(replica.at, 1);
  await tab.log.close();
});

Deno.test("M2 M3: an outbox whose lease was taken, and whose blocks the next holder has removed, is not reported as damaged", async () => {
  const store = new MemoryBlockStore();
  let isTaken = false;
  const shared: BlockStore = {
    identity: () => store.identity(),
    get: (keys) => store.get(keys),
    keys: (...range) => store.keys(...range),
    list: (...range) =>
      isTaken ? store.list(...range).slice(1) : store.list(...range),
    write: (...changes) => store.write(...changes),
    update: (reads, decide, durability, isShared) => {
      if (isTaken && !isShared) {
        throw new ErrStoreLocked("Another tab leads cluster 1");
      }
      return store.update(reads, decide, durability);
    },
    close: () => store.close(),
    [Symbol.asyncDispose]: () => store.close(),
  };
  const outbox = new BlockOutbox(shared);
  outbox.share({ add: () => {} } as unknown as StoreLease);
  const queue = await outbox.open(1n, () => {});
  const cmd = new Uint8Array([65]);
  assertEquals(await queue.add(cmd), 1);
  const joined = await JoinedQueue.open(1n, outbox.joining());
  for (let i = 0; i < 3; i++) await joined.add(cmd);
  // Another holder takes the lease before what was added is read.
  isTaken = true;
  await assertRejects(
    () => queue.sync(),
    ErrStoreLocked,
    "Another tab leads cluster 1",
  );
});

Deno.test("M3 U25: a command that the state has before its tab knows that it is stored is not shown again", async () => {
  const { promise: stored, resolve } = withResolvers<number>();
  const outbox = {
    contents: { decided: 0, commands: [], settled: [], last: 0, bytes: 0 },
    bytesMax: 1024,
    sendLimit: 0,
    releaseContents: () => {},
    add: () => stored,
    note: () => {},
  } as unknown as OutboxQueue;
  const machine = { group: () => undefined };
  const context = { factory: {} };
  const parts = { machine, context } as unknown as OutboxParts;
  const queue = new SubmissionQueue(parts);
  queue.load(outbox);
  const adding = queue.add(new Uint8Array([65]));
  // Of a snapshot, which does not have its digest.
  for (const number of [1, 2]) queue.learn(number, () => false);
  resolve(1);
  const { result } = await adding;
  assertEquals([queue.last, queue.next, queue.size], [2, 3, 0]);
  assertEquals(queue.list(0).commands, []);
  await assertRejects(() => result, ErrUnknownOutcome, "Submission 1");
});

Deno.test("U17 M3: a refusal by the view whose write fails as the lead is lost is not told, and the command is queued again, as the store has it", async () => {
  let isLost = true;
  const settled: SettledCommand[] = [];
  const outbox = {
    contents: { decided: 0, commands: [], settled, last: 0, bytes: 0 },
    bytesMax: 1024,
    sendLimit: 0,
    releaseContents: () => {},
    add: ([number]: Uint8Array) => Promise.resolve(number),
    note: () => {},
    flush: () =>
      isLost ? Promise.reject(new ErrStoreLocked("Lost")) : Promise.resolve(),
  } as unknown as OutboxQueue;
  const machine = { group: () => undefined };
  const events: string[] = [];
  const context = {
    factory: {},
    env: systemEnv,
    event: ({ type }: { type: string }) => events.push(type),
  };
  const queue = new SubmissionQueue(
    { machine, context } as unknown as OutboxParts,
  );
  queue.load(outbox);
  const submissions = await Promise.all(
    [1, 2, 3, 4].map((number) => queue.add(new Uint8Array([number]))),
  );
  const outcomes: unknown[] = submissions.map(() => undefined);
  for (const [i, { result }] of submissions.entries()) {
    result.then(
      ({ value }) => outcomes[i] = value,
      ({ reason }) => outcomes[i] = reason,
    );
  }
  for (const number of [1, 2, 3]) {
    const error = new ErrProposalRefused(`Poison ${number}`);
    queue.refuseHere(queue.queuedAt(number)!, error);
  }
  // The log has decided the first.
  queue.decide(1);
  await systemEnv.turn();
  assertEquals(events, ["outbox failed"]);
  const states = (): string => submissions.map(({ state }) => state).join(" ");
  assertEquals(states(), "refused refused refused queued");
  // Of those, the store has the third.
  isLost = false;
  const cmd = new Uint8Array([3]);
  queue.moved([{ number: 3, state: "refused", reason: "Poison 3", cmd }]);
  assertEquals(states(), "refused queued refused queued");
  assertEquals(queue.queuedUpTo(9).map(({ id }) => id), [2, 4]);
  await systemEnv.turn();
  assertEquals(outcomes, ["Poison 1", undefined, "Poison 3", undefined]);
  for (const number of [2, 4]) {
    const value = BigInt(number);
    queue.applied(number, (submission) => submission.resolve({ value }));
  }
  await systemEnv.turn();
  assertEquals(outcomes, ["Poison 1", 2n, "Poison 3", 4n]);
  assertEquals([queue.undecided, queue.queued, queue.size], [3, 0, 2]);
});

Deno.test("U17 M3: a refusal that a tab hears of before the command, which a third tab has added, is shown once the command is known, and its number stays undecided until the log has it", () => {
  const outbox = {
    contents: { decided: 0, commands: [], settled: [], last: 0, bytes: 0 },
    bytesMax: 1024,
    sendLimit: 0,
    releaseContents: () => {},
    note: () => {},
  } as unknown as OutboxQueue;
  const machine = { group: () => undefined };
  const queue = new SubmissionQueue(
    { machine, context: { factory: {} } } as unknown as OutboxParts,
  );
  queue.load(outbox);
  const cmd = new Uint8Array([65]);
  queue.settled({ number: 2, state: "refused", reason: "Full", cmd });
  assertEquals(queue.size, 0);
  queue.added(1, [cmd, cmd], 0);
  assertEquals(
    queue.pending().map(({ id, state }) => [id, state]),
    [[1, "queued"], [2, "refused"]],
  );
  assertEquals(queue.undecided, 1);
  queue.decide(1);
  assertEquals(queue.undecided, 2);
});

Deno.test("H10 M3: a command that no queue has stored when its tab ends is rejected because the tab has ended", async () => {
  const queue = new SwitchingQueue();
  const isLost = Promise.withResolvers<number>();
  queue.use(
    {
      add: () => isLost.promise,
      close: () => Promise.resolve(),
    } as unknown as OutboxQueue,
  );
  const cmd = new Uint8Array([65]);
  const adding = [queue.add(cmd), queue.add(cmd)];
  isLost.reject(new ErrStoreLocked("Another tab leads cluster 1"));
  await systemEnv.turn();
  const ended = new Error("Cluster 1 was stopped");
  await queue.end(ended);
  for (const one of adding) {
    await assertRejects(() => one, Error, ended.message);
  }
  await assertRejects(() => queue.add(cmd), Error, ended.message);
});
