/**
 * Conformance suite of {@linkcode OutboxStore}: cases that run on any runtime.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeText } from "../bytes.ts";
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../log/errors.ts";
import { ErrUnsynced } from "../nodehost/outbox_errors.ts";
import type {
  OutboxQueue,
  OutboxSession,
  OutboxStore,
} from "../offline/outbox_store.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  type CaseDefinition,
  check,
  checkThrows,
  type ConformanceCase,
  conformanceCases,
  type PortContext,
} from "./conformance.ts";

/** Options of {@linkcode outboxConformance}. */
export interface OutboxConformanceOptions {
  /** Creates an empty store. */
  create(): MaybePromise<OutboxStore>;
  /** Opens the storage of `outbox`, which is closed, again; only for durable stores. */
  reopen?: ((outbox: OutboxStore) => MaybePromise<OutboxStore>) | undefined;
}

const SESSION: OutboxSession = {
  index: 7,
  clientID: (1n << 64n) - 1n,
  holders: [5n, 0n],
  base: 2,
};

function command(name: string): Uint8Array {
  return encodeText(name, "Command");
}

async function addAll(
  queue: OutboxQueue,
  ...names: readonly string[]
): Promise<string> {
  const added = await Promise.all(
    names.map((name) => queue.add(command(name))),
  );
  return added.join();
}

/** Contents of a queue when it was opened, as text. */
function textOf({ contents }: OutboxQueue): string {
  const text = (cmd: Uint8Array): string => new TextDecoder().decode(cmd);
  const settled = contents.settled.map(
    ({ number, state, reason, cmd, result }) => {
      const { value, data } = result ?? {};
      const shown = result && ` ${value} ${data && text(data)}`;
      return `${number} ${state} ${reason} ${text(cmd)}${shown ?? ""}`;
    },
  );
  const { decided, commands, sendLimit } = contents;
  return [decided, commands.map(text), sendLimit, ...settled].join("; ");
}

function checkContents(queue: OutboxQueue, expected: string): void {
  const found = textOf(queue);
  check(found === expected, `Contents are "${found}", not "${expected}"`);
}

function checkLimit({ sendLimit }: OutboxQueue, expected: number): void {
  check(
    sendLimit === expected,
    `Send limit is ${sendLimit}, not ${expected}`,
  );
}

/** Ignores decided commands. */
const IGNORE = (): void => {};

/** Case of the suite. */
type OutboxCase = CaseDefinition<PortContext<OutboxStore>>;

const CASES: readonly OutboxCase[] = [
  {
    rule: "U21",
    name: "add() numbers commands in order, and a reopened queue contains them",
    async run({ port: outbox, reopen: again }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      checkContents(queue, "0; ; 0");
      check(
        await addAll(queue, "a", "", "c") === "1,2,3",
        "add() did not return 1, 2, 3",
      );
      check(await addAll(queue, "d") === "4", "add() did not return 4");
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, IGNORE);
      checkContents(second, "0; a,,c,d; 0");
      check(await addAll(second, "e") === "5", "add() did not return 5");
      await second.close();
    },
  },
  {
    rule: "U26",
    name: "decided commands are removed, and their numbers are not reused",
    async run({ port: outbox, reopen: again }): Promise<void> {
      const calls: number[] = [];
      const queue = await outbox.open(1n, (decided) => calls.push(decided));
      await addAll(queue, "a", "b", "c");
      queue.note({ decided: 2 });
      await queue.flush();
      check(calls.join() === "2", `onDecided was called with ${calls}, not 2`);
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, IGNORE);
      checkContents(second, "2; c; 2");
      second.note({ decided: 3 });
      // Written by close() at the latest.
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, IGNORE);
      checkContents(third, "3; ; 3");
      check(await addAll(third, "d") === "4", "A number was used again");
      await third.close();
    },
  },
  {
    rule: "U18",
    name: "a settled command stays until it is forgotten",
    async run({ port: outbox, reopen: again }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      await addAll(queue, "a", "b", "c");
      const settled = [
        {
          number: 1,
          state: "refused",
          reason: "No ⛵",
          cmd: command("a"),
          result: { value: 7n, data: command("r") },
        },
        { number: 2, state: "unknown", reason: "", cmd: command("b") },
        { number: 3, state: "dismissed", reason: "", cmd: command("") },
      ] as const;
      for (const settle of settled) queue.note({ settle });
      queue.note({ decided: 2 });
      await queue.close();
      outbox = await again();
      const unsynced = await outbox.unsynced(1n);
      check(
        unsynced.map(({ id, state }) => `${id} ${state}`).join() ===
          "1 refused,2 unknown",
        "unsynced() lists other commands",
      );
      const second = await outbox.open(1n, IGNORE);
      checkContents(
        second,
        "2; c; 2; 1 refused No ⛵ a 7 r; 2 unknown  b; 3 dismissed  ",
      );
      second.note({ forget: 1, decided: 3 });
      second.note({ forget: 3 });
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, IGNORE);
      checkContents(third, "3; ; 3; 2 unknown  b");
      await third.close();
    },
  },
  {
    rule: "U41",
    name:
      "merge(), if there is one, replaces the last command while it was never sent and is not settled, and otherwise adds a command",
    async run({ port: outbox, reopen: again }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      if (queue.merge === undefined) return await queue.close();
      const merge = async (last: number, name: string): Promise<string> =>
        `${await queue.merge!(last, command(`${name}!`), command(name))}`;
      await addAll(queue, "a", "b");
      const found = [
        await merge(2, "c"),
        await merge(1, "d"),
        await merge(2, "e"),
      ];
      await queue.assign(SESSION, 4);
      found.push(await merge(4, "f"), await merge(5, "g"));
      const settle = {
        number: 5,
        state: "refused",
        reason: "",
        cmd: command("g"),
      } as const;
      queue.note({ settle });
      found.push(await merge(5, "h"));
      check(
        found.join() === "2,3,4,5,5,6",
        `merge() returned ${found.join()}, not 2,3,4,5,5,6`,
      );
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, IGNORE);
      checkContents(second, "0; a,c!,d,e,g!,h; 4; 5 refused  g");
      await second.close();
    },
  },
  {
    rule: "H14",
    name:
      "session, holders and send limit are stored, and commands that are sent at once raise the limit",
    async run({ port: outbox, reopen: again }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      await addAll(queue, "a", "b", "c");
      // The limit stays without a session, and behind commands that may not be sent.
      queue.sendsAdded = true;
      await addAll(queue, "d");
      await queue.assign(SESSION, 3);
      await addAll(queue, "e");
      checkLimit(queue, 3);
      const owner = command("ann");
      await queue.assign(SESSION, 5, {
        clientID: 3n,
        lostSession: 4,
        owner,
      });
      await addAll(queue, "f", "g");
      checkLimit(queue, 7);
      queue.sendsAdded = false;
      await addAll(queue, "h");
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, IGNORE);
      checkContents(second, "0; a,b,c,d,e,f,g,h; 7");
      const { session } = second.contents;
      check(
        session?.index === SESSION.index && session.base === SESSION.base &&
          session.clientID === SESSION.clientID &&
          session.holders.join() === SESSION.holders.join(),
        "Stored session is another one",
      );
      const { clientID, lostSession, owner: found } = second.contents;
      check(
        clientID === 3n && lostSession === 4 &&
          found?.join() === owner.join(),
        "Stored client is another one",
      );
      // Through another session, none of them was sent.
      await second.assign(undefined, 0);
      await second.assign({ ...SESSION, index: 9 }, 1);
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, IGNORE);
      checkContents(third, "0; a,b,c,d,e,f,g,h; 1");
      await third.close();
    },
  },
  {
    rule: "H11",
    name: "a queue is opened once at a time, and clusters are independent",
    async run({ port: outbox }): Promise<void> {
      const one = await outbox.open(1n, IGNORE);
      const two = await outbox.open((1n << 64n) - 1n, IGNORE);
      await checkThrows(
        "open() of an open queue",
        (error) => error instanceof ErrClusterAlreadyExist,
        () => outbox.open(1n, IGNORE),
      );
      await checkThrows(
        "clear() of an open queue",
        (error) => error instanceof ErrClusterAlreadyExist,
        () => outbox.clear(1n, { discard: true }),
      );
      await addAll(one, "a");
      await addAll(two, "x", "y");
      await one.close();
      await one.close();
      await checkThrows(
        "add() after close()",
        (error) => error instanceof ErrClusterClosed,
        () => one.add(command("b")),
      );
      checkContents(await outbox.open(1n, IGNORE), "0; a; 0");
      await two.close();
    },
  },
  {
    rule: "U35",
    name:
      "clear() refuses to remove commands that are not synced, unless discard is set",
    async run({ port: outbox }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      const other = await outbox.open(2n, IGNORE);
      await addAll(queue, "a", "b");
      await addAll(other, "x");
      queue.note({ decided: 1 });
      await queue.close();
      await other.close();
      await checkThrows(
        "clear() of unsynced commands",
        (error) =>
          error instanceof ErrUnsynced && error.unsynced.length === 1 &&
          error.unsynced[0]!.id === 2,
        () => outbox.clear(1n),
      );
      await outbox.clear(1n, { discard: true });
      await outbox.clear(1n);
      const left = await Promise.all([
        outbox.unsynced(1n),
        outbox.unsynced(2n),
      ]);
      check(
        left.map(({ length }) => length).join() === "0,1",
        "clear() removed something else",
      );
    },
  },
  {
    rule: "H10",
    name: "close() closes the queues, and is idempotent",
    async run({ port: outbox }): Promise<void> {
      const queue = await outbox.open(1n, IGNORE);
      const added = queue.add(command("a"));
      await outbox.close();
      await outbox.close();
      check(await added === 1, "close() did not finish a write under way");
      await checkThrows(
        "add() after close()",
        (error) => error instanceof ErrClusterClosed,
        () => queue.add(command("b")),
      );
      await checkThrows(
        "open() after close()",
        (error) => error instanceof ErrClusterClosed,
        () => outbox.open(1n, IGNORE),
      );
    },
  },
];

/** Cases that every {@linkcode OutboxStore} must pass, for any test runner. */
export function outboxConformance(
  options: OutboxConformanceOptions,
): readonly ConformanceCase[] {
  return conformanceCases(CASES, options);
}
