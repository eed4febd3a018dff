import { assertEquals, assertRejects } from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import {
  OUTBOX_MEMORY_COMMANDS,
  OUTBOX_SETTLED_EARLY_MAX,
  TAB_EARLY_MESSAGES_MAX,
} from "../../src/limits.ts";
import type { OutboxParts } from "../../src/nodehost/outbox.ts";
import { BlockOutbox } from "../../src/offline/block_outbox.ts";
import type {
  OutboxQueue,
  SharedOutboxStore,
} from "../../src/offline/outbox_store.ts";
import { ErrProposalRefused } from "../../src/rsm/errors.ts";
import { digest, SKIPPED } from "../../src/rsm/session_table.ts";
import type { SeriesOutcome } from "../../src/rsm/state_machine.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";
import type { BlockStore } from "../../src/store/store.ts";
import type { StoreLease } from "../../src/store/lease.ts";
import type { OutboxMessage } from "../../src/tabs/messages.ts";
import {
  AttachedTabOutbox,
  type OutboxTab,
} from "../../src/tabs/tab_outbox.ts";

/** Outbox that tabs share, in memory. */
function newStored(): BlockOutbox {
  const stored = new BlockOutbox(new MemoryBlockStore());
  stored.share({ add: () => {} } as unknown as StoreLease);
  return stored;
}

/** Parts of a replica as the outbox of a tab sees them. */
function partsOf(
  parts: { readonly machine: object; readonly proposals?: object },
): OutboxParts {
  const context = {
    clusterID: 1n,
    env: systemEnv,
    event: () => {},
    factory: {},
    log: {},
    stopped: new AbortController().signal,
  };
  return { context, ...parts } as unknown as OutboxParts;
}

/** Tab that does not lead, on a store. */
function followerOn(store: object): { isLeading: boolean } & OutboxTab {
  const tab = {
    isLeading: false,
    refusal: undefined,
    store,
    post: () => {},
    attached: () => {},
  };
  return tab as unknown as { isLeading: boolean } & OutboxTab;
}

/** Outbox of a tab that follows, on a state as `machine` answers for it. */
async function openFollowing(
  store: object,
  machine: object,
): Promise<AttachedTabOutbox> {
  const proposals = { observe: () => () => {} };
  const outbox = new AttachedTabOutbox(
    followerOn(store),
    partsOf({ machine, proposals }),
  );
  await outbox.load();
  outbox.start();
  return outbox;
}

Deno.test("U34 M3: submissions of a tab keep their author while the tab goes from one role to another", async () => {
  const stored = newStored();
  const queue = await stored.open(1n, () => {});
  queue.author = "ada";
  await queue.add(new Uint8Array([65]));
  await queue.close();

  const opening = Promise.withResolvers<OutboxQueue>();
  const store = {
    open: () => opening.promise,
    joining: () => stored.joining(),
  } as unknown as SharedOutboxStore;
  const tab = followerOn(store);
  const machine = {
    changed: () => {},
    group: () => undefined,
    until: () => Promise.resolve(),
  };
  const outbox = new AttachedTabOutbox(
    tab,
    partsOf({ machine }),
  );
  await outbox.load();
  assertEquals([outbox.author, outbox.pendingCount], ["ada", 1]);
  tab.isLeading = true;
  const leading = outbox.lead(0).catch((error: Error) => error.message);
  await systemEnv.turn();
  assertEquals(outbox.author, "ada");
  opening.reject(new Error("closed"));
  assertEquals(await leading, "closed");
  outbox.close(undefined, new Error("closed"));
  await outbox.end();
});

/** Outbox of a follower, and the queue of the leader of the same store. */
async function openFollower(): Promise<{
  leader: OutboxQueue;
  outbox: AttachedTabOutbox;
  /** Number of times that the outbox was opened again. */
  rejoined: () => number;
  close: () => Promise<void>;
}> {
  const stored = newStored();
  const leader = await stored.open(1n, () => {});
  let rejoined = 0;
  const tab = Object.assign(followerOn(stored), {
    rejoin: () => {
      rejoined++;
      // Never rejects: the store is in memory.
      void outbox.follow();
    },
  });
  const machine = { changed: () => {}, group: () => undefined };
  const outbox: AttachedTabOutbox = new AttachedTabOutbox(
    tab,
    partsOf({ machine }),
  );
  const close = async (): Promise<void> => {
    outbox.close(undefined, new Error("closed"));
    await outbox.end();
    await leader.close();
    await stored.close();
  };
  return { leader, outbox, rejoined: () => rejoined, close };
}

/** Adds commands to the queue of a leader, which refuses them; returns what it tells the other tabs. */
async function refuse(
  leader: OutboxQueue,
  count: number,
): Promise<OutboxMessage[]> {
  const told: OutboxMessage[] = [];
  for (let i = 0; i < count; i++) {
    const cmd = new Uint8Array([65]);
    const number = await leader.add(cmd);
    const settle = { number, state: "refused", reason: "Full", cmd } as const;
    leader.note({ settle });
    told.push({ kind: "settled", settled: settle });
  }
  await leader.flush();
  return told;
}

Deno.test("U17 M3: a tab that hears of more refusals of commands that it does not know than it keeps reads them from the store", async () => {
  const { leader, outbox, rejoined, close } = await openFollower();
  await outbox.load();
  const told = await refuse(leader, OUTBOX_SETTLED_EARLY_MAX + 20);
  for (const message of told) outbox.received(message, true);
  assertEquals(rejoined(), 1);
  await outbox.follow();
  const refused = outbox.pending().filter(({ state }) => state === "refused");
  assertEquals([refused.length, outbox.pending().length], [276, 276]);
  assertEquals(rejoined(), 1);
  await close();
});

Deno.test("U17 M3: a tab that hears of more refusals while it opens its outbox than it keeps reads them from the store", async () => {
  const { leader, outbox, rejoined, close } = await openFollower();
  const loading = outbox.load();
  // The leader has told the tab nothing of these.
  await refuse(leader, 3);
  const told = await refuse(leader, TAB_EARLY_MESSAGES_MAX + 20);
  for (const message of told) outbox.received(message, true);
  await loading;
  await outbox.follow();
  const refused = outbox.pending().filter(({ state }) => state === "refused");
  assertEquals([refused.length, outbox.pending().length], [279, 279]);
  assertEquals(rejoined(), 1);
  await close();
});

Deno.test("H10 M3: a tab whose replica ends while it takes over the outbox begins no session", async () => {
  const opening = Promise.withResolvers<void>();
  const stored = newStored();
  const store = {
    open: async (...args: Parameters<SharedOutboxStore["open"]>) => {
      await opening.promise;
      const queue = await stored.open(...args);
      const { read } = queue;
      // The replica ends while commands of other tabs are read.
      queue.read = (from) => {
        outbox.close(undefined, new Error("Replica 1 ended"));
        return read.call(queue, from);
      };
      return queue;
    },
    joining: () => stored.joining(),
  } as unknown as SharedOutboxStore;
  const tab = followerOn(store);
  let resumed = 0;
  const machine = {
    changed: () => {},
    group: () => undefined,
    until: () => Promise.resolve(),
    sessionInfo: () => undefined,
    applied: 0,
  };
  const proposals = {
    observe: () => () => {},
    abandon: () => {},
    resume: () => void resumed++,
  };
  const outbox: AttachedTabOutbox = new AttachedTabOutbox(
    tab,
    partsOf({ machine, proposals }),
  );
  await outbox.load();
  const queue = await stored.open(1n, () => {});
  await queue.add(new Uint8Array([65]));
  await queue.assign(
    { index: 1, clientID: 2n, base: 0, holders: [3n] },
    1,
  );
  await queue.close();
  tab.isLeading = true;
  const leading = outbox.lead(0).catch((error: Error) => error.message);
  opening.resolve();
  assertEquals(await leading, "Replica 1 ended");
  assertEquals(resumed, 0);
  await outbox.end();
  await stored.close();
});

Deno.test("H14 M3: a command stored in the place of one that a power cut took out of the outbox stays queued in a tab that knew that place as decided", async () => {
  const stored = newStored();
  const queue = await stored.open(1n, () => {});
  await queue.assign({ index: 1, clientID: 2n, base: 0, holders: [3n] }, 0);
  const machine = {
    changed: () => {},
    group: () => undefined,
    history: undefined,
    // The state has a command in the first place which the store has lost.
    sessionInfo: () => ({ clientID: 2n, next: 2 }),
    outcomeOf: () => ({ outcome: "applied", digest: 7, result: { value: 1n } }),
    refusalOf: () => undefined,
  };
  const outbox = await openFollowing(stored, machine);
  await queue.add(new Uint8Array([65]));
  await queue.add(new Uint8Array([66]));
  await queue.close();
  outbox.received({
    kind: "added",
    first: 1,
    commands: [new Uint8Array([65]), new Uint8Array([66])],
  }, true);
  await outbox.follow();
  assertEquals(outbox.pending().map(({ id, cmd }) => [id, ...cmd]), [
    [1, 65],
    [2, 66],
  ]);
  outbox.close(undefined, new Error("closed"));
  await outbox.end();
  await stored.close();
});

/** Outcome of a command in the state of a follower. */
type Decided = Pick<SeriesOutcome, "outcome" | "digest" | "result">;

/**
 * Outbox of a follower which does not hear that its commands are stored until it is
 * resumed, in a session of which its state decides commands.
 */
async function openSuspended(): Promise<{
  outbox: AttachedTabOutbox;
  /** Applies what decides the next command. */
  decide: (outcome: Decided) => void;
  /** Resolves once the store has the commands. */
  stored: Promise<void>;
  resume: () => void;
  close: () => Promise<void>;
}> {
  const blocks: BlockStore = new MemoryBlockStore();
  const written = Promise.withResolvers<void>();
  const resumed = Promise.withResolvers<void>();
  const store = new BlockOutbox(blocks);
  store.share({ add: () => {} } as unknown as StoreLease);
  const queue = await store.open(1n, () => {});
  await queue.assign({ index: 1, clientID: 2n, base: 0, holders: [3n] }, 0);
  await queue.close();
  const update = blocks.update!.bind(blocks);
  blocks.update = async (...args) => {
    const isDone = await update(...args);
    written.resolve();
    await resumed.promise;
    return isDone;
  };
  const decided: Decided[] = [];
  const machine = {
    changed: () => {},
    group: () => undefined,
    sessionInfo: () => ({ clientID: 2n, next: decided.length + 1 }),
    outcomeOf: (_: number, series: number) => decided[series - 1],
    refusalOf: () => undefined,
    onAdvanced: () => {},
  };
  const outbox = await openFollowing(store, machine);
  return {
    outbox,
    decide: (outcome) => {
      decided.push(outcome);
      machine.onAdvanced();
    },
    stored: written.promise,
    resume: resumed.resolve,
    close: async () => {
      outbox.close(undefined, new Error("closed"));
      await outbox.end();
      await store.close();
    },
  };
}

/** Outcome of a command that the server has refused. */
const FORBIDDEN: Decided = {
  outcome: "skipped",
  digest: SKIPPED,
  result: { value: 0n, data: new TextEncoder().encode("Forbidden") },
};

/** Outcome of a command that was applied. */
function applied(cmd: Uint8Array, value: bigint): Decided {
  return {
    outcome: "applied",
    digest: digest(cmd, 0, cmd.length),
    result: { value },
  };
}

Deno.test("U17 M3: a tab that learns of the refusal of its command before it knows that the command is stored tells the refusal", async () => {
  const { outbox, decide, stored, resume, close } = await openSuspended();
  const submitting = outbox.submit(new Uint8Array([65]));
  await stored;
  decide(FORBIDDEN);
  resume();
  const submission = await submitting;
  const error = await assertRejects(
    () => submission.result,
    ErrProposalRefused,
  );
  const { id, state, reason } = submission;
  assertEquals(
    [id, state, reason, error.reason],
    [1, "refused", "Forbidden", "Forbidden"],
  );
  assertEquals(outbox.pending().map(({ id, state, cmd }) => [id, state, cmd]), [
    [1, "refused", new Uint8Array([65])],
  ]);
  await close();
});

Deno.test("U17 M3: a refusal that another tab has dismissed before this one knows that its command is stored is told, and not listed", async () => {
  const { outbox, decide, stored, resume, close } = await openSuspended();
  const cmd = new Uint8Array([65]);
  const submitting = outbox.submit(cmd);
  await stored;
  decide(FORBIDDEN);
  outbox.received({
    kind: "settled",
    settled: { number: 1, state: "refused", reason: "Forbidden", cmd },
  }, true);
  outbox.received({ kind: "dismissed", number: 1 }, true);
  resume();
  const submission = await submitting;
  const error = await assertRejects(
    () => submission.result,
    ErrProposalRefused,
  );
  assertEquals([submission.state, error.reason], ["refused", "Forbidden"]);
  assertEquals(outbox.pending(), []);
  await close();
});

Deno.test("U17 M3: a tab that learns of the result of its command before it knows that the command is stored tells the result, also after a refused one", async () => {
  const { outbox, decide, stored, resume, close } = await openSuspended();
  const first = outbox.submit(new Uint8Array([65]));
  const second = outbox.submit(new Uint8Array([66]));
  await stored;
  decide(FORBIDDEN);
  decide(applied(new Uint8Array([66]), 7n));
  resume();
  const refused = await first;
  await assertRejects(() => refused.result, ErrProposalRefused);
  const submission = await second;
  assertEquals(await submission.result, { value: 7n });
  assertEquals(
    [[refused.id, refused.state], [submission.id, submission.state]],
    [[1, "refused"], [2, "applied"]],
  );
  assertEquals(outbox.pending().map(({ id }) => id), [1]);
  await close();
});

/** Outbox of a follower beside a leader that has stored more commands than are kept in memory. */
async function openLarge(): Promise<{
  leader: OutboxQueue;
  outbox: AttachedTabOutbox;
  count: number;
  /** Lets the state have the first commands, up to a number. */
  decide: (upTo: number) => Promise<void>;
  close: () => Promise<void>;
}> {
  const store = newStored();
  const leader = await store.open(1n, () => {});
  await leader.assign({ index: 1, clientID: 2n, base: 0, holders: [3n] }, 0);
  const count = OUTBOX_MEMORY_COMMANDS + 100;
  await Promise.all(
    Array.from({ length: count }, () => leader.add(new Uint8Array([65]))),
  );
  let next = 1;
  const machine = {
    changed: () => {},
    group: () => undefined,
    sessionInfo: () => ({ clientID: 2n, next }),
    outcomeOf: () => applied(new Uint8Array([65]), 7n),
    refusalOf: () => undefined,
    onAdvanced: () => {},
  };
  const outbox = await openFollowing(store, machine);
  return {
    leader,
    outbox,
    count,
    decide: async (upTo) => {
      next = upTo + 1;
      machine.onAdvanced();
      // Commands are read from the store.
      for (let i = 0; i < 20; i++) await systemEnv.turn();
    },
    close: async () => {
      outbox.close(undefined, new Error("closed"));
      await outbox.end();
      await leader.close();
      await store.close();
    },
  };
}

Deno.test("U17 M3: a tab counts a refused command once, also if it has only the leader's word of it and the command is in the store only", async () => {
  const { leader, outbox, count, decide, close } = await openLarge();
  const settled = {
    number: count - 10,
    state: "refused",
    reason: "Full",
    cmd: new Uint8Array([65]),
  } as const;
  leader.note({ settle: settled });
  outbox.received({ kind: "settled", settled }, true);
  assertEquals(outbox.pendingCount, count);
  outbox.received({ kind: "dismissed", number: count - 10 }, true);
  assertEquals(outbox.pendingCount, count - 1);
  await decide(OUTBOX_MEMORY_COMMANDS - 10);
  assertEquals(outbox.pendingCount, 109);
  assertEquals((await outbox.pendingFrom(1)).submissions.length, 109);
  await decide(count);
  assertEquals(outbox.pendingCount, 0);
  await close();
});

Deno.test("U17 M3: a tab knows that commands are decided which are in the store only, and those that the leader has removed from it, and settles the results that are waited for", async () => {
  const { leader, outbox, count, decide, close } = await openLarge();
  const { submissions: [late] } = await outbox.pendingFrom(count - 10);
  const result = late!.result;
  leader.note({ decided: count });
  await leader.flush();
  await decide(count);
  assertEquals(await result, { value: 7n });
  assertEquals([late!.id, late!.state], [count - 10, "applied"]);
  assertEquals([outbox.pendingCount, outbox.decided], [0, count]);
  await close();
});
