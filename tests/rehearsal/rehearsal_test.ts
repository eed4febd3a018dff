import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrProposalRefused,
  ErrStoreFull,
  type Forked,
  type IFork,
  type IStateMachine,
  MemoryOutbox,
  NodeHost,
  type Replica,
  type ReplicaConfig,
  type Result,
} from "../../mod.ts";
import { reasonOf } from "../../src/rehearsal/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve } from "../../src/sync/server/serve.ts";
import { clipReason } from "../../src/sync/server/admission.ts";
import type { ValidateContext } from "../../src/sync/server/options.ts";
import { bytes, text } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { RegularJournal } from "../machines/journal.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { listOf } from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { sleep } from "../../src/async.ts";
import { unregisterRecord } from "../../src/rsm/record_codec.ts";
import { WORD_KINDS } from "../machines/words.ts";
import {
  claimRecord,
  packRecords,
  proposal,
  registerRecord,
  sessionProposal,
  world,
} from "../sync/server_support.ts";
import { NEVER, openSession, packCommands, wordsWorld } from "./words_world.ts";

const POISON = "The state machine cannot apply it: TypeError: Cannot read me";

for (const kind of WORD_KINDS) {
  for (const isSlow of [false, true]) {
    const name = `${kind}${isSlow ? ", asynchronous" : ""}`;
    Deno.test(
      `case A10: serve() refuses a command at which the machine throws, and it never enters the log (${name}) [H17, R5]`,
      checked(async () => {
        const w = await wordsWorld(kind, { isSlow });
        const [a, b] = [await w.client(), await w.client()];
        a.append(
          1,
          packCommands("add x", "poison me", "need x", "poison me", "add y"),
        );
        b.append(1, packCommands("add z"));
        const appended = await a.next("appended");
        assertEquals(appended.refused, [1, 3]);
        // Equal reasons in a row are sent once.
        assertEquals(appended.reasons, [POISON, ""]);
        await b.next("appended");
        const session = await openSession(b);
        b.append(
          2,
          packRecords(
            sessionProposal(session, 1, bytes("add s")),
            sessionProposal(session, 2, bytes("poison me")),
            sessionProposal(session, 3, bytes("need s")),
            sessionProposal(session, 4, undefined),
            sessionProposal(session, 5, bytes("need nothing")),
            sessionProposal(session, 6, bytes("add t")),
          ),
        );
        assertEquals((await b.next("appended")).refused, []);
        await w.env.advance(100);
        assertEquals(w.replica.error, undefined);
        assertEquals(w.replica.sessionInfo(session)!.next, 7);
        const list = await listOf(w.replica);
        const own = list.filter((word) => word !== "z");
        assertEquals(own, ["x", "need x", "y", "s", "need s", "t"]);
        assertEquals(w.core.telemetry.counts.refused, 4);
        // Readers of the log see the reason.
        a.read(9, session);
        const records = await a.entriesUpTo(session + 6, session);
        assertEquals(records.map(([kind]) => kind!.toString(16)), [
          "15",
          "16",
          "15",
          "16",
          "16",
          "15",
        ]);
        assert(text(records[1]).endsWith(POISON));
        assertEquals(
          w.log.filter(({ event }) =>
            event === "command refused, the machine threw"
          ).length,
          4,
        );
        await w.stop();
        assertEquals(w.counts.closed, w.counts.forks);
      }),
    );

    Deno.test(
      `H17 a command is rehearsed after those that precede it, in flight or not, and a duplicate is not rehearsed again (${name})`,
      checked(async () => {
        const logDB = new FaultyLogDB();
        const w = await wordsWorld(kind, { isSlow, host: { logDB } });
        logDB.faults.append = () =>
          sleep(w.env, 30, NEVER).then(() => undefined);
        const client = await w.client();
        const other = await w.client();
        const session = await openSession(client);
        const once = sessionProposal(session, 1, bytes("once x"), 0);
        // In one append, in three unanswered ones, and by other clients.
        client.append(1, packRecords(once, once));
        client.append(2, packRecords(once));
        other.append(1, packCommands("need x", "once x"));
        client.append(
          3,
          packRecords(once, sessionProposal(session, 2, bytes("once x"), 1)),
        );
        for (const stream of [1, 2, 3]) {
          assertEquals((await client.next("appended", stream)).refused, []);
        }
        const appended = await other.next("appended");
        assertEquals(appended.refused, [1]);
        await w.env.advance(100);
        client.append(4, packRecords(once));
        await client.next("appended");
        await w.env.advance(100);
        assertEquals(await listOf(w.replica), ["x", "need x"]);
        assertEquals(w.replica.sessionInfo(session)!.next, 3);
        await w.stop();
        await logDB.close();
      }),
    );
  }
}

Deno.test(
  "H17 commands that a host proposes and submits itself are rehearsed while it is served, and refused with the error of the machine",
  checked(async () => {
    await using outbox = new MemoryOutbox();
    const w = await wordsWorld("regular", { host: { outbox } });
    const client = await w.client();
    const session = await w.replica.openSession();
    for (const options of [{}, { session }]) {
      const [first, refused, last] = await Promise.all([
        w.replica.propose(bytes("add x"), options),
        rejection(w.replica.propose(bytes("poison me"), options)),
        w.replica.propose(bytes("need x"), options),
      ]);
      assertEquals([first.value > 0n, last.value > 0n], [true, true]);
      assertInstanceOf(refused, ErrProposalRefused);
      assertEquals(refused.reason, POISON);
      assertInstanceOf(refused.cause, TypeError);
      assertEquals(refused.result, undefined);
    }
    // A rule that depends on a client's commands in flight.
    client.append(1, packCommands("once card"));
    const [{ refused }] = await Promise.all([
      client.next("appended"),
      w.replica.propose(bytes("once card")),
    ]);
    assertEquals(refused, [0]);
    const submission = await w.replica.submit(bytes("poison me"));
    const error = await w.env.until(rejection(submission.result), 10);
    assertInstanceOf(error, ErrProposalRefused);
    assertEquals(submission.state, "refused");
    assertEquals(w.replica.error, undefined);
    await w.stop();
  }),
);

Deno.test(
  "H17 two servers of one host rehearse commands in one order",
  checked(async () => {
    const w = await wordsWorld("regular");
    const { Core } = await import("../../src/sync/server/core.ts");
    const second = new Core(w.host, { rehearse: false });
    const a = await w.client();
    a.append(1, packCommands("add x", "poison me"));
    assertEquals((await a.next("appended")).refused, [1]);
    await second.stop();
    const refused = await rejection(w.replica.propose(bytes("poison me")));
    assertInstanceOf(refused, ErrProposalRefused);
    await w.stop();
  }),
);

Deno.test(
  "H17 with rehearse: false nothing is rehearsed",
  checked(async () => {
    const w = await wordsWorld("regular", { rehearse: false });
    const client = await w.client();
    client.append(1, packCommands("add x", "poison me"));
    await client.next("appended");
    await w.env.advance(10);
    assertInstanceOf(w.replica.error, TypeError);
    assertEquals(w.counts.forks, 0);
    await w.stop();
  }),
);

Deno.test(
  "H17 a machine without fork() is served without rehearsal",
  checked(async () => {
    const contexts: ValidateContext[] = [];
    const w = await world({
      start: (host, config) =>
        host.startCluster((c, n) => new RegularJournal({}, c, n), config),
      validate: (_who, _cmd, _cluster, context) => void contexts.push(context),
    });
    const client = await w.client();
    client.append(1, packCommands("a"));
    await client.next("appended");
    await w.env.advance(10);
    assertEquals(await listOf(w.replica), ["a"]);
    assertEquals("lookup" in contexts[0]!, false);
    await w.stop();
  }),
);

Deno.test(
  "H17 commands that cannot be rehearsed now wait, and their client is notified",
  checked(async () => {
    for (const failure of [new Error("fork() failed"), new ErrStoreFull("s")]) {
      const w = await wordsWorld("regular");
      let fails = 2;
      w.counts.beforeFork = (): void => {
        if (fails-- > 0) throw failure;
      };
      const client = await w.client();
      client.append(1, packCommands("add x", "poison me", "need x"));
      assertEquals((await client.next("held")).reason.length > 0, true);
      assertEquals((await client.next("appended")).refused, [1]);
      await w.env.advance(100);
      assertEquals(await listOf(w.replica), ["x", "need x"]);
      assertEquals(
        w.log.filter(({ event }) => event === "rehearsal failed").length,
        2,
      );
      await w.stop();
    }
  }),
);

Deno.test(
  "H17 an append with only commands at which the machine throws costs one fork each, and delays no other client",
  checked(async () => {
    const w = await wordsWorld("concurrent");
    const [a, b] = [await w.client(), await w.client()];
    const count = 500;
    a.append(
      1,
      packRecords(
        ...Array.from(
          { length: count },
          (_, i) =>
            proposal(bytes(i % 2 === 0 ? "poison me" : `add ${i}`), i + 1),
        ),
      ),
    );
    await w.env.advance(10);
    b.append(1, packCommands("add b"));
    await b.next("appended");
    assertEquals(a.messages.filter(({ type }) => type === "appended"), []);
    const { refused } = await a.next("appended");
    assertEquals(refused.length, count / 2);
    const { forks, tried } = w.counts;
    assert(forks < count * 2, `${forks} forks`);
    assert(tried < count * 4, `${tried} commands tried`);
    assertEquals((await listOf(w.replica)).length, count / 2 + 1);
    await w.stop();
  }),
);

Deno.test(
  "H17 a fork that is no longer needed is closed, also when the replica stops",
  checked(async () => {
    let ask: ValidateContext["lookup"];
    const w = await wordsWorld("regular", {
      validate: (_who, cmd, _cluster, { lookup }) => {
        ask = lookup;
        return lookup!(text(cmd)) ? "There already" : "Nothing goes in";
      },
    });
    const client = await w.client();
    client.append(1, packCommands("add x", "add y"));
    assertEquals((await client.next("appended")).refused, [0, 1]);
    assert(ask !== undefined);
    assertEquals([w.counts.forks, w.counts.closed], [1, 0]);
    await w.stop();
    assertEquals([w.counts.forks, w.counts.closed], [1, 1]);
  }),
);

Deno.test(
  "case A10: no command enters the log through a session that a record ahead of it closes or evicts [H17, H4]",
  checked(async () => {
    const w = await wordsWorld("regular", { config: { sessionsMax: 2 } });
    const client = await w.client();
    client.stepMs = 10;
    const closed = await openSession(client);
    // On the fork as in the log, the session is closed, and x was not added.
    client.append(
      1,
      packRecords(
        unregisterRecord(closed),
        sessionProposal(closed, 1, bytes("add x")),
        proposal(bytes("need x")),
      ),
    );
    assertEquals((await client.next("appended", 1)).refused, [2]);
    const evicted = await openSession(client, 6n);
    client.append(
      2,
      packRecords(
        registerRecord(7n, new Uint8Array()),
        registerRecord(8n, new Uint8Array()),
        sessionProposal(evicted, 1, bytes("add y")),
        proposal(bytes("need y"), 2),
        proposal(bytes("add z"), 3),
      ),
    );
    assertEquals((await client.next("appended", 2)).refused, [3]);
    await w.env.advance(100);
    assertEquals(w.replica.error, undefined);
    assertEquals(await w.replica.read(null), ["z"]);
    await w.stop();
  }),
);

/** State machine whose forks handle commands and queries as a test says. */
function startOdd(
  host: NodeHost,
  config: ReplicaConfig,
  fork: () => Forked<IStateMachine>,
): Promise<Replica> {
  class Odd extends RegularJournal implements IFork<IStateMachine> {
    fork = fork;
  }
  return host.startCluster((c, n) => new Odd({}, c, n), config);
}

const hang = (): Promise<never> => new Promise(() => {});

Deno.test(
  "case A10: a command at which a fork never settles is refused after a timeout, and the commands with and behind it continue [H17, H21]",
  checked(async () => {
    const w = await world({
      start: (host, config) =>
        startOdd(host, config, () => ({
          update: (cmd) =>
            text(cmd) === "hang" ? hang() : Promise.resolve({ value: 1n }),
          lookup: hang,
        })),
    });
    const [a, b] = [await w.client(), await w.client()];
    a.stepMs = b.stepMs = 100;
    a.append(1, packCommands("one", "hang", "two"));
    const { refused, reasons } = await a.next("appended");
    assertEquals(refused, [1]);
    assertEquals(reasons, [
      "The state machine cannot apply it: Error: update() has not settled within 10000 ms",
    ]);
    b.append(1, packRecords(proposal(bytes("three"), 1, 8)));
    await b.next("appended");
    assertEquals(await w.replica.read(null), ["one", "two", "three"]);
    await w.stop();
  }),
);

Deno.test(
  "case A10: a fork whose lookup() never settles, or an invalid fork, refuses nothing, and its fault is logged [H20, H21, R14]",
  checked(async () => {
    let isOdd = true;
    const good: Forked<IStateMachine> = {
      update: () => ({ value: 1n }),
      lookup: () => isOdd ? hang() : true,
    };
    const w = await world({
      validate: async (_principal, cmd, _cluster, { lookup }) => {
        if (text(cmd) === "look") await lookup!("x");
        return undefined;
      },
      start: (host, config) => startOdd(host, config, () => good),
    });
    const [a, b] = [await w.client(), await w.client()];
    a.stepMs = b.stepMs = 100;
    a.append(1, packCommands("look"));
    await a.next("held");
    b.append(1, packRecords(proposal(bytes("one"), 1, 8)));
    await b.next("appended");
    isOdd = false;
    assertEquals((await a.next("appended")).refused, []);
    await w.stop();

    for (const made of [undefined, 1, {}, { update: hang }]) {
      let isNone = true;
      const other = await world({
        start: (host, config) =>
          startOdd(host, config, () => isNone ? made as never : good),
      });
      const client = await other.client();
      client.append(1, packCommands("one"));
      await client.next("held");
      const logged = other.log.find(({ event }) =>
        event === "rehearsal failed"
      );
      assertInstanceOf((logged!.error as Error).cause, TypeError);
      isNone = false;
      client.stepMs = 100;
      assertEquals((await client.next("appended")).refused, []);
      await other.stop();
    }
  }),
);

/** Has clients append random records in a world; resolves with the number of commands refused and added. */
async function appendWhatever(
  seed: number,
  isSlow: boolean,
): Promise<{ refused: number; added: number }> {
  const random = random32(seed);
  const w = await wordsWorld(isSlow ? "concurrent" : "regular", {
    isSlow,
    seed,
    config: { sessionsMax: 3 },
  });
  const sessions = [1];
  let last = 0;
  // A word that is added in a session, and a command that throws unless the word
  // was added: that depends on the preceding records of the session.
  const records = (client: number): Uint8Array[] => {
    const made: Uint8Array[] = [];
    const session = sessions[random() % sessions.length]!;
    let series = w.replica.sessionInfo(session)?.next ?? 1;
    for (let i = random() % 4; i >= 0; i--) {
      switch (random() % 12) {
        case 0:
          made.push(unregisterRecord(session));
          break;
        case 1:
        case 2:
          for (let n = 1 + random() % 3; n > 0; n--) {
            made.push(registerRecord(BigInt(random()), new Uint8Array()));
          }
          break;
        case 3:
          made.push(claimRecord(session, BigInt(random() % 6), 3n));
          break;
        case 4:
          made.push(sessionProposal(session, series++, undefined, 0));
      }
      const word = ++last;
      const skipped = random() % 8 === 0 ? 1 : 0;
      made.push(
        sessionProposal(session, series + skipped, bytes(`add ${word}`), 0),
      );
      series++;
      if (random() % 4 > 0) {
        made.push(proposal(bytes(`need ${word}`), word, client));
      }
    }
    return made;
  };
  const clients = [await w.client(), await w.client(), await w.client()];
  let [refused, scanned] = [0, 0];
  for (let round = 1; round <= 150; round++) {
    for (const [i, client] of clients.entries()) {
      if (random() % 3 === 0) continue;
      client.append(round, packRecords(...records(10 + i)));
    }
    await w.env.advance(random() % 12);
    for (const client of clients) {
      for (const message of client.messages.splice(0)) {
        if (message.type !== "appended") continue;
        refused += message.refused.length;
      }
    }
    for (; scanned < w.replica.appliedIndex; scanned++) {
      const isOpen = w.replica.sessionInfo(scanned + 1) !== undefined;
      if (isOpen) sessions.push(scanned + 1);
    }
    // Some sessions used here no longer exist.
    if (sessions.length > 5) sessions.splice(0, sessions.length - 5);
  }
  await w.env.advance(30_000);
  assertEquals(w.replica.error, undefined);
  const added = (await w.replica.read(null) as string[]).length;
  for (const client of clients) assertEquals(client.ending, undefined);
  await w.stop();
  return { refused, added };
}

for (const isSlow of [false, true]) {
  Deno.test(
    `H17 whatever clients append, in sessions that open, close and are evicted, no command gets into the log at which the machine throws (${
      isSlow ? "asynchronous" : "at once"
    })`,
    checked(async () => {
      const seed = Number(
        Deno.env.get("SEED") ?? Math.floor(Math.random() * 2 ** 31),
      );
      // deno-lint-ignore no-console
      console.log(`SEED=${seed}`);
      // In a single world, all sessions may be evicted before they are used.
      let [refused, added] = [0, 0];
      for (let i = 0; i < 3; i++) {
        const found = await appendWhatever(seed + i, isSlow);
        refused += found.refused;
        added += found.added;
      }
      assert(refused > 0 && added > 0, `${refused} refused, ${added} added`);
    }),
  );
}

Deno.test(
  "H17 a failed append is not ahead of later commands",
  checked(async () => {
    const logDB = new FaultyLogDB();
    const w = await wordsWorld("concurrent", { host: { logDB } });
    const client = await w.client();
    client.append(1, packCommands("add x"));
    await client.next("appended");
    logDB.faults.append = () =>
      sleep(w.env, 5, NEVER).then(() => "fail" as const);
    client.append(2, packCommands("once y"));
    await client.next("failed");
    logDB.faults.append = () => undefined;
    client.append(3, packCommands("need y", "once y", "need x"));
    assertEquals((await client.next("appended")).refused, [0]);
    await w.env.advance(10);
    assertEquals(await listOf(w.replica), ["x", "y", "need x"]);
    await w.stop();
    await logDB.close();
  }),
);

Deno.test(
  "H17 commands that arrive together share a fork",
  checked(async () => {
    const w = await wordsWorld("regular");
    const client = await w.client();
    client.append(
      1,
      packCommands(...Array.from({ length: 200 }, (_, i) => `add ${i}`)),
    );
    await client.next("appended");
    assertEquals([w.counts.forks, w.counts.tried], [1, 200]);
    await w.stop();
  }),
);

// ---------------------------------------------------------------- validate

/** Hook that accepts changes of cards only if the state allows them. */
async function byState(
  cmd: Uint8Array,
  { lookup }: ValidateContext,
): Promise<string | undefined> {
  const [verb, word] = text(cmd).split(" ");
  const isThere = await lookup!(word) as boolean;
  if (verb === "move" && !isThere) return `There is no ${word}`;
  if (verb === "add" && isThere) return `${word} is there already`;
  return undefined;
}

/** Same for a machine whose lookup is synchronous. */
function byStateAtOnce(
  cmd: Uint8Array,
  { lookup }: ValidateContext,
): string | undefined {
  const [verb, word] = text(cmd).split(" ");
  const isThere = lookup!(word) as boolean;
  if (verb === "move" && !isThere) return `There is no ${word}`;
  if (verb === "add" && isThere) return `${word} is there already`;
  return undefined;
}

for (const kind of WORD_KINDS) {
  for (
    const [name, rule, isSlow] of [
      ["answers at once", byStateAtOnce, false],
      ["takes time", byState, false],
      ["takes time, as the machine does", byState, true],
    ] as const
  ) {
    for (const rehearse of [true, false]) {
      Deno.test(
        `H20 validate() that ${name} looks up the state that a command will be applied to: a card can be added and moved offline (${kind}, rehearse: ${rehearse})`,
        checked(async () => {
          const w = await wordsWorld(kind, {
            rehearse,
            isSlow,
            validate: (_who, cmd, _cluster, context) => rule(cmd, context),
          });
          const client = await w.client();
          const other = await w.client();
          const session = await openSession(client);
          client.append(
            1,
            packRecords(
              sessionProposal(session, 1, bytes("add a"), 0),
              sessionProposal(session, 2, bytes("move a b"), 1),
              sessionProposal(session, 3, bytes("move a c"), 2),
              sessionProposal(session, 4, bytes("move b c"), 3),
            ),
          );
          client.append(
            2,
            packRecords(sessionProposal(session, 5, bytes("move c d"), 4)),
          );
          for (const stream of [1, 2]) {
            assertEquals((await client.next("appended", stream)).refused, []);
          }
          other.append(
            1,
            packCommands("add d", "add e", "move e f", "move g h"),
          );
          const { refused, reasons } = await other.next("appended");
          assertEquals(refused, [0, 3]);
          assertEquals(reasons, ["d is there already", "There is no g"]);
          await w.env.advance(100);
          assertEquals(await listOf(w.replica), ["d", "f"]);
          assertEquals(w.core.telemetry.counts.refused, 3);
          await w.stop();
        }),
      );
    }
  }
}

Deno.test(
  "H20 of many clients that reserve the same item at once, one succeeds, however long validate() takes",
  checked(async () => {
    let asked = 0;
    const w = await wordsWorld("regular", {
      validate: async (_who, cmd, _cluster, { lookup }) => {
        asked++;
        const [, word] = text(cmd).split(" ");
        const isThere = await lookup!(word);
        // Commands of other clients are interleaved.
        await sleep(w.env, 3 + asked % 5, NEVER);
        return isThere ? "Taken" : undefined;
      },
    });
    const clients = await Promise.all(
      Array.from({ length: 8 }, () => w.client()),
    );
    for (const [i, client] of clients.entries()) {
      client.append(1, packCommands("add place", `add own${i}`));
    }
    const refused = [];
    for (const client of clients) {
      refused.push((await client.next("appended")).refused.length);
    }
    assertEquals(refused.toSorted(), [0, 1, 1, 1, 1, 1, 1, 1]);
    await w.env.advance(100);
    const list = await listOf(w.replica);
    assertEquals(list.filter((word) => word === "place").length, 1);
    assertEquals(list.length, 9);
    await w.stop();
  }),
);

Deno.test(
  "H20 lookup() sees the state without refused commands, and fails once validate() has returned",
  checked(async () => {
    let late: ValidateContext["lookup"];
    const w = await wordsWorld("regular", {
      validate: (_who, cmd, _cluster, { lookup }) => {
        late = lookup;
        const [, word] = text(cmd).split(" ");
        return word === "never" || lookup!("never") ? "Never" : undefined;
      },
    });
    const client = await w.client();
    client.append(
      1,
      packCommands("add never", "add a", "poison me", "need a", "add b"),
    );
    const { refused, reasons } = await client.next("appended");
    assertEquals(refused, [0, 2]);
    assertEquals(reasons, ["Never", POISON]);
    const error = await rejection((async () => await late!("a"))());
    assert(`${error}`.includes("after validate() had answered"));
    await w.stop();
  }),
);

Deno.test("H17 the reason of a refusal fits into a record, whatever the machine threw", () => {
  for (const thrown of [Object.create(null), Symbol("x"), "x".repeat(9999)]) {
    assert(clipReason(reasonOf(thrown)).length <= 512);
  }
});

/** State machine that counts words, and throws at a command that is not a word. */
class Words implements IStateMachine<unknown, string[]>, IFork<IStateMachine> {
  readonly list: string[] = [];

  update(cmd: Uint8Array): Result {
    const word = text(cmd);
    if (word.startsWith("{")) JSON.parse(word);
    if (word === "") return { value: 0n, data: bytes("Empty") };
    this.list.push(word);
    return { value: BigInt(this.list.length) };
  }

  refusal({ data }: Result): string | undefined {
    return data && text(data);
  }

  lookup(): string[] {
    return [...this.list];
  }

  fork(): Forked<IStateMachine> {
    const fork = new Words();
    fork.list.push(...this.list);
    return fork;
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const writer = w.getWriter();
    await writer.write(bytes(JSON.stringify(this.list)));
    writer.releaseLock();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    const list = await new Response(r as BodyInit).json() as string[];
    this.list.splice(0, Infinity, ...list);
  }

  close(): void {}
}

Deno.test("case A10: over real sockets, a device whose queue has a command at which the machine throws gets the reason, and others are unaffected [H17, R15]", async () => {
  const config = { clusterID: 1n, nodeID: 1n };
  await using serverHost = new NodeHost();
  const served = await serverHost.startCluster(() => new Words(), config);
  await using server = serve(serverHost, { sigterm: false });
  await using logDB = new RemoteLogDB(server.url);
  await using outbox = new MemoryOutbox();
  await using host = new NodeHost({ logDB, outbox });
  // The client's own machine, of an older version, accepts it.
  class Older extends Words {
    override update(cmd: Uint8Array): Result {
      const word = text(cmd);
      return word === "{" ? { value: 1n } : super.update(cmd);
    }
    override fork(): Forked<IStateMachine> {
      const fork = new Older();
      fork.list.push(...this.list);
      return fork;
    }
  }
  const device = await host.startCluster(
    () => new Older(),
    { ...config, nodeID: 2n },
  );
  await using otherLog = new RemoteLogDB(server.url);
  await using otherHost = new NodeHost({ logDB: otherLog });
  const other = await otherHost.startCluster(
    () => new Words(),
    { ...config, nodeID: 3n },
  );
  const submissions = await Promise.all(
    ["a", "{", "b", "", "c"].map((cmd) => device.submit(bytes(cmd))),
  );
  const outcomes = await Promise.allSettled(
    submissions.map(({ result }) => result),
  );
  assertEquals(outcomes.map(({ status }) => status), [
    "fulfilled",
    "rejected",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  const reasons = submissions.map(({ state, reason }) => [state, reason]);
  assertEquals(reasons[1]![0], "refused");
  assert(
    reasons[1]![1]!.startsWith(
      "The state machine cannot apply it: SyntaxError",
    ),
  );
  assertEquals(reasons[3], ["refused", "Empty"]);
  assertEquals(device.pending().map(({ state }) => state), [
    "refused",
    "refused",
  ]);
  // The server and the other clients are unaffected.
  await other.propose(bytes("d"));
  assertEquals(await other.read(null), ["a", "b", "c", "d"]);
  const poison = await rejection(other.propose(bytes("{")));
  assertInstanceOf(poison, ErrProposalRefused);
  assertEquals(served.error, undefined);
  assertEquals(await served.read(null), ["a", "b", "c", "d"]);
  const health = await fetch(new URL("health", server.httpURL));
  assertEquals(health.status, 200);
  await health.body?.cancel();
});
