/**
 * What every {@linkcode Outbox} must do, as cases that run anywhere.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeText } from "../bytes.ts";
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../log/errors.ts";
import { ErrUnsynced } from "../offline/errors.ts";
import type { Outbox, OutboxQueue, OutboxSession } from "../offline/outbox.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  caseOf,
  check,
  checkThrows,
  type ConformanceCase,
} from "./conformance.ts";

/** What {@linkcode outboxConformance} is given. */
export interface OutboxConformanceOptions {
  /** Makes an empty outbox. */
  create(): MaybePromise<Outbox>;
  /** Opens what `outbox`, closed by now, has left behind; for those that keep something. */
  reopen?: ((outbox: Outbox) => MaybePromise<Outbox>) | undefined;
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

/** What a queue held, as text. */
function heldText({ held }: OutboxQueue): string {
  const text = (cmd: Uint8Array): string => new TextDecoder().decode(cmd);
  const kept = held.kept.map(({ number, state, reason, cmd, result }) => {
    const { value, data } = result ?? {};
    const shown = result && ` ${value} ${data && text(data)}`;
    return `${number} ${state} ${reason} ${text(cmd)}${shown ?? ""}`;
  });
  return [held.done, held.commands.map(text), held.mark, ...kept].join("; ");
}

function checkHeld(queue: OutboxQueue, expected: string): void {
  const found = heldText(queue);
  check(found === expected, `Holds "${found}", not "${expected}"`);
}

function checkMark({ mark }: OutboxQueue, expected: number): void {
  check(mark === expected, `Mark is ${mark}, not ${expected}`);
}

/** Nothing listens. */
const DEAF = (): void => {};

/** The cases every outbox must pass; each makes its own outbox and closes it. */
export function outboxConformance(
  options: OutboxConformanceOptions,
): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (outbox: Outbox, again: () => Promise<Outbox>) => Promise<void>,
  ): void => void cases.push(caseOf(name, options, body));

  add(
    "U21 add() numbers commands in order, and they are there when it is opened again",
    async (outbox, again) => {
      const queue = await outbox.open(1n, DEAF);
      checkHeld(queue, "0; ; 0");
      check(await addAll(queue, "a", "", "c") === "1,2,3", "Not 1, 2, 3");
      check(await addAll(queue, "d") === "4", "Not 4");
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, DEAF);
      checkHeld(second, "0; a,,c,d; 0");
      check(await addAll(second, "e") === "5", "Not 5");
      await second.close();
    },
  );

  add(
    "U26 what was decided goes, and its numbers do not come again",
    async (outbox, again) => {
      const done: number[] = [];
      const queue = await outbox.open(1n, (upTo) => done.push(upTo));
      await addAll(queue, "a", "b", "c");
      queue.note({ done: 2 });
      await queue.flush();
      check(done.join() === "2", `Was told of ${done}`);
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, DEAF);
      checkHeld(second, "2; c; 2");
      second.note({ done: 3 });
      // With the close at the latest.
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, DEAF);
      checkHeld(third, "3; ; 3");
      check(await addAll(third, "d") === "4", "A number came again");
      await third.close();
    },
  );

  add(
    "U18 what is kept is there until it is forgotten",
    async (outbox, again) => {
      const queue = await outbox.open(1n, DEAF);
      await addAll(queue, "a", "b", "c");
      const kept = [
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
      for (const keep of kept) queue.note({ keep });
      queue.note({ done: 2 });
      await queue.close();
      outbox = await again();
      const unsynced = await outbox.unsynced(1n);
      check(
        unsynced.map(({ id, state }) => `${id} ${state}`).join() ===
          "1 refused,2 unknown",
        "Unsynced is something else",
      );
      const second = await outbox.open(1n, DEAF);
      checkHeld(
        second,
        "2; c; 2; 1 refused No ⛵ a 7 r; 2 unknown  b; 3 dismissed  ",
      );
      second.note({ forget: 1, done: 3 });
      second.note({ forget: 3 });
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, DEAF);
      checkHeld(third, "3; ; 3; 2 unknown  b");
      await third.close();
    },
  );

  add(
    "H14 session, holders and mark are there again, and what was added to be sent at once is marked",
    async (outbox, again) => {
      const queue = await outbox.open(1n, DEAF);
      await addAll(queue, "a", "b", "c");
      // Nothing is marked without a session, nor behind what is not marked.
      queue.sending = true;
      await addAll(queue, "d");
      await queue.assign(SESSION, 3);
      await addAll(queue, "e");
      checkMark(queue, 3);
      const owner = command("ann");
      await queue.assign(SESSION, 5, { clientID: 3n, lost: 4, owner });
      await addAll(queue, "f", "g");
      checkMark(queue, 7);
      queue.sending = false;
      await addAll(queue, "h");
      await queue.close();
      outbox = await again();
      const second = await outbox.open(1n, DEAF);
      checkHeld(second, "0; a,b,c,d,e,f,g,h; 7");
      const { session } = second.held;
      check(
        session?.index === SESSION.index && session.base === SESSION.base &&
          session.clientID === SESSION.clientID &&
          session.holders.join() === SESSION.holders.join(),
        "Session is another one",
      );
      const { clientID, lost, owner: held } = second.held;
      check(
        clientID === 3n && lost === 4 && held?.join() === owner.join(),
        "Client is another one",
      );
      // Through another session, none of them was sent.
      await second.assign(undefined, 0);
      await second.assign({ ...SESSION, index: 9 }, 1);
      await second.close();
      outbox = await again();
      const third = await outbox.open(1n, DEAF);
      checkHeld(third, "0; a,b,c,d,e,f,g,h; 1");
      await third.close();
    },
  );

  add(
    "H11 a queue is open once, and clusters know nothing of each other",
    async (outbox) => {
      const one = await outbox.open(1n, DEAF);
      const two = await outbox.open((1n << 64n) - 1n, DEAF);
      await checkThrows(
        "open() of what is open",
        (error) => error instanceof ErrClusterAlreadyExist,
        () => outbox.open(1n, DEAF),
      );
      await checkThrows(
        "clear() of what is open",
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
      checkHeld(await outbox.open(1n, DEAF), "0; a; 0");
      await two.close();
    },
  );

  add(
    "U35 clear() says what is not synced, and forgets it only if told so",
    async (outbox) => {
      const queue = await outbox.open(1n, DEAF);
      const other = await outbox.open(2n, DEAF);
      await addAll(queue, "a", "b");
      await addAll(other, "x");
      queue.note({ done: 1 });
      await queue.close();
      await other.close();
      await checkThrows(
        "clear() of what is not synced",
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
        "Not that alone",
      );
    },
  );

  add(
    "H10 close() ends the queues, and can be called twice",
    async (outbox) => {
      const queue = await outbox.open(1n, DEAF);
      const added = queue.add(command("a"));
      await outbox.close();
      await outbox.close();
      check(await added === 1, "What was under way was not finished");
      await checkThrows(
        "add() after close()",
        (error) => error instanceof ErrClusterClosed,
        () => queue.add(command("b")),
      );
      await checkThrows(
        "open() after close()",
        (error) => error instanceof ErrClusterClosed,
        () => outbox.open(1n, DEAF),
      );
    },
  );

  return cases;
}
