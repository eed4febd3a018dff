import { assert, assertEquals } from "@std/assert";
import { ErrProposalRefused, type Session } from "../../mod.ts";
import type { LogBatch } from "../../src/ports/mod.ts";
import { sleep } from "../../src/async.ts";
import { recordAt, RecordKind } from "../../src/log/records.ts";
import { RecordCursor } from "../../src/rsm/record_codec.ts";
import { bytes, text } from "../support/bytes.ts";
import { checked } from "../support/environment.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { listOf } from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { applyWords, WORD_KINDS } from "../machines/words.ts";
import {
  packRecords,
  proposal,
  type RawClient,
  sessionProposal,
  type World,
} from "../sync/server_support.ts";
import { NEVER, openSession, wordsWorld } from "./words_world.ts";

/** Random commands of one client: some always throw, some depend on the state. */
class Author {
  readonly #random: () => number;
  readonly name: string;
  #count = 0;
  readonly #own: string[] = [];

  constructor(name: string, random: () => number) {
    this.name = name;
    this.#random = random;
  }

  next(): string {
    const word = `${this.name}${this.#count++}`;
    switch (this.#random() % 8) {
      case 0:
        return `poison ${word}`;
      case 1:
        // All clients compete for these.
        return `once shared${this.#random() % 6}`;
      case 2:
        return `need shared${this.#random() % 6}`;
      case 3:
        return `no ${word}`;
    }
    const own = this.#own[this.#random() % (this.#own.length || 1)];
    // Its own additions are ahead of it, whatever is in flight.
    if (own !== undefined && this.#random() % 4 === 0) return `need ${own}`;
    this.#own.push(word);
    return `add ${word}`;
  }

  /** True if the server must never refuse the command. */
  isGood(command: string): boolean {
    const [verb, word] = command.split(" ");
    return verb === "add" || verb === "no" ||
      verb === "need" && !word!.startsWith("shared");
  }
}

/** Client in a session, or without one, that resends some of its commands. */
class Sender {
  readonly #client: RawClient;
  readonly #author: Author;
  readonly #random: () => number;
  readonly #session: number;
  readonly sent: string[] = [];
  readonly refused = new Set<string>();
  #stream = 100;

  constructor(
    client: RawClient,
    author: Author,
    random: () => number,
    session: number,
  ) {
    this.#client = client;
    this.#author = author;
    this.#random = random;
    this.#session = session;
  }

  /** Sends a few commands; in a session, after some that were sent before. */
  async send(): Promise<void> {
    const stream = this.#stream++;
    const count = 1 + this.#random() % 6;
    const again = this.#session === 0
      ? 0
      : Math.min(this.sent.length, this.#random() % 4);
    const from = this.sent.length - again;
    for (let i = 0; i < count; i++) this.sent.push(this.#author.next());
    const commands = this.sent.slice(from);
    const records = commands.map((command, i) =>
      this.#session === 0
        ? proposal(bytes(command), from + i + 1)
        : sessionProposal(
          this.#session,
          from + i + 1,
          bytes(command),
          Math.min(from + i, 40),
        )
    );
    this.#client.append(stream, packRecords(...records));
    const { refused } = await this.#client.next("appended", stream);
    for (const at of refused) this.refused.add(commands[at]!);
  }
}

/** Applies the log as a replica does; throws if the machine would. */
async function replayed(w: World): Promise<{ list: string[]; log: string[] }> {
  const log = await w.host.logDB.open(1n, 77n);
  const last = await log.readIndex();
  const reader = await log.read(0);
  const list: string[] = [];
  const found: string[] = [];
  const next = new Map<number, number>();
  const cursor = new RecordCursor();
  for (let index = 0; index < last;) {
    const batch: LogBatch = await reader.next();
    for (let i = 0; i < batch.records.ends.length; i++) {
      const record = recordAt(batch.records, i);
      cursor.read(record, 0, record.length);
      const { kind, session, series, start } = cursor;
      index = batch.first + i;
      if (kind === RecordKind.SessionProposal || kind === RecordKind.Skip) {
        if (series !== (next.get(session) ?? 1)) continue;
        next.set(session, series + 1);
      } else if (kind !== RecordKind.Proposal) continue;
      if (kind === RecordKind.Skip) continue;
      const cmd = record.subarray(start);
      found.push(text(cmd));
      applyWords(list, cmd);
    }
  }
  reader.close();
  await log.close();
  return { list, log: found };
}

for (const kind of WORD_KINDS) {
  Deno.test(
    `H17 whatever clients and host send at the same time, over a slow log, no command that throws gets into it, and no other is refused (${kind})`,
    checked(async () => {
      const refusals = { refused: 0, in: 0 };
      for (let seed = 1; seed <= 10; seed++) {
        const random = random32(seed);
        const isSlow = random() % 2 === 0;
        const logDB = new FaultyLogDB();
        const w = await wordsWorld(kind, {
          seed,
          isSlow,
          host: { logDB },
          delay: () => random() % 20,
          validate: async (_who, cmd, _cluster, { lookup }) => {
            if (random() % 4 > 0) return undefined;
            // An accepting hook that is slow.
            await lookup!("x");
            await sleep(w.env, random() % 10, NEVER);
            return text(cmd).includes("never") ? "Never" : undefined;
          },
        });
        // In order, however long each hook takes.
        let last: Promise<unknown> = Promise.resolve();
        logDB.faults.append = () => {
          const delay = random() % 30;
          const appended = last.then(() => sleep(w.env, delay, NEVER));
          last = appended;
          return appended.then(() => undefined);
        };
        const senders: Sender[] = [];
        const authors: Author[] = [];
        for (const name of ["a", "b", "c", "d"]) {
          const client = await w.client();
          const session = random() % 2 === 0
            ? await openSession(client, BigInt(random()))
            : 0;
          const author = new Author(name, random);
          authors.push(author);
          senders.push(new Sender(client, author, random, session));
        }
        const own = new Author("h", random);
        const ownSession: Session | undefined = random() % 2 === 0
          ? await w.env.until(w.replica.openSession(), 10)
          : undefined;
        const ownRefused = new Set<string>();
        const propose = async (): Promise<void> => {
          const command = own.next();
          const options = ownSession && { session: ownSession };
          try {
            await w.replica.propose(bytes(command), options);
          } catch (error) {
            if (!(error instanceof ErrProposalRefused)) throw error;
            // A command that the machine itself refuses is in the log.
            if (error.result === undefined) ownRefused.add(command);
          }
        };
        const working: Promise<void>[] = [];
        for (let i = 0; i < 25; i++) {
          const sender = senders[random() % senders.length]!;
          working.push(random() % 4 === 0 ? propose() : sender.send());
          if (random() % 2 === 0) await w.env.advance(random() % 15);
        }
        await w.env.until(Promise.all(working), 10);
        await w.env.advance(500);
        assertEquals(w.replica.error, undefined);
        const { list, log } = await replayed(w);
        assertEquals(await listOf(w.replica), list);
        assertEquals(log.filter((command) => command.includes("poison")), []);
        const inLog = new Set(log);
        for (const [i, { sent, refused }] of senders.entries()) {
          const author = authors[i]!;
          for (const command of sent) {
            if (author.isGood(command)) {
              assert(!refused.has(command), `${command} was refused`);
              assert(inLog.has(command), `${command} is not in the log`);
              refusals.in++;
            } else if (command.startsWith("poison")) refusals.refused++;
          }
          // In the order of sending.
          const adds = (commands: readonly string[]): string[] =>
            commands.filter((command) =>
              command.startsWith(`add ${author.name}`)
            );
          assertEquals(adds(log), adds(sent));
        }
        for (const command of ownRefused) {
          assert(!own.isGood(command), `${command} was refused`);
        }
        await w.stop();
        await logDB.close();
      }
      assert(refusals.refused > 20 && refusals.in > 100);
    }),
  );
}
