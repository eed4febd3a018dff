/**
 * Invariants of every simulation, whatever the faults: each command
 * once and in order, answers that are true, views that never go back.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  ErrClusterClosed,
  ErrOutboxCopied,
  ErrProposalRefused,
  ErrSystemBusy,
  ErrUnknownOutcome,
  type Replica,
  type Submission,
} from "../../mod.ts";
import { text } from "../support/bytes.ts";
import { BAD, REFUSED, type SimulationContext } from "./context.ts";
import {
  type Command,
  type Device,
  isNeverShown,
  type Process,
} from "./device.ts";
import { DENIED, POISON } from "./machines.ts";
import type { Server } from "./server.ts";

/** A list that a view has shown, to be compared with the committed list at the end. */
interface SeenView {
  readonly device: string;
  /** Number of its commands that were committed. */
  readonly committed: number;
  readonly list: readonly string[];
}

function isBad({ text }: { text: string }): boolean {
  return text.includes(BAD) || isNeverShown(text);
}

/** Checks of all devices of a simulation. */
export class Invariants {
  readonly #context: SimulationContext;
  readonly #server: Server;
  readonly #devices: readonly Device[];
  #seen: SeenView[] = [];
  /** Commands that were committed in some history. */
  readonly #everCommitted = new Set<string>();

  constructor(
    context: SimulationContext,
    server: Server,
    devices: readonly Device[],
  ) {
    this.#context = context;
    this.#server = server;
    this.#devices = devices;
  }

  /** Notes the commands that are committed in the present history. */
  noteCommitted(): void {
    for (const name of this.#server.committed()) this.#everCommitted.add(name);
  }

  /** Forgets the views seen so far: another history begins. */
  forgetViews(): void {
    this.#seen = [];
  }

  /** True if the outbox of a device was copied, or is a copy. */
  #hasCopies({ owner }: Device): boolean {
    return this.#devices.some((one) =>
      one.owner === owner && one.name !== owner
    );
  }

  /** Fails if a device says that all is well long after the server's cluster has failed. */
  checkFailureIsKnown(): void {
    if (this.#server.failedForMs < 20_000) return;
    for (const { name, process, isOffline } of this.#devices) {
      if (!isOffline && process?.db.state === "live") {
        this.#context.fail(
          `${name} is live while the server's cluster has failed`,
        );
      }
    }
  }

  // ------------------------------------------------------- at any time

  /** Looks at a device, as its user does. */
  observe(device: Device): void {
    const { replica, process } = device;
    if (replica === undefined || replica.error !== undefined) return;
    const { appliedIndex } = replica;
    const { history } = this.#context;
    if (process!.history !== history) {
      if (!this.#showsPresentHistory(device)) return;
      process!.history = history;
      process!.applied = 0;
      process!.committed = [];
    }
    if (appliedIndex < process!.applied) {
      this.#context.fail(
        `${device.name} went back from ${process!.applied} to ${appliedIndex}`,
      );
    }
    process!.applied = appliedIndex;
    try {
      this.#look(device, process!, replica);
    } catch (error) {
      this.#lookFailed(device, error);
    }
  }

  /** True if a device is live in the present history; fails if it is live and shows another one. */
  #showsPresentHistory(device: Device): boolean {
    const { name, process, connected } = device;
    const { db, replica } = process!;
    if (
      connected !== this.#context.history || db.state !== "live" ||
      !this.#server.isWell || replica!.status.state !== "running"
    ) return false;
    // Its submissions are not shown before that.
    if (device.isReconciling) {
      device.isReconciling = replica!.pending().some(({ state }) =>
        state === "queued"
      );
    }
    if (device.isReconciling) return false;
    const list = replica!.staleRead(null) as string[] | Promise<unknown>;
    if (list instanceof Promise) {
      list.catch(() => {});
      return false;
    }
    const all = this.#server.replica.staleRead(null) as string[];
    const length = Math.min(all.length, list.length);
    if (`${all.slice(0, length)}` !== `${list.slice(0, length)}`) {
      this.#context.fail(
        `${name} is live with ${list}, where the server has ${all}`,
      );
    }
    return true;
  }

  #look(device: Device, process: Process, replica: Replica): void {
    const context = this.#context;
    const committed = replica.staleRead(null) as string[] | Promise<unknown>;
    if (committed instanceof Promise) {
      // It is recovering from a snapshot.
      committed.catch(() => {});
      return;
    }
    if (context.profile.restores) {
      for (const name of committed) this.#everCommitted.add(name);
    }
    if (committed.length < process.committed.length) {
      context.fail(`${device.name} shows less than before`);
    }
    process.committed = committed;
    // Until it is known which one sends on, each may show what the other sends.
    if (this.#hasCopies(device)) return;
    const shown = [...device.shown];
    const queued = replica.pending()
      .filter(({ state }) => state === "queued" && !process.isCopied)
      .map(({ cmd }) => text(cmd)).filter((cmd) => !isNeverShown(cmd));
    const answer = replica.view.lookup(null) as string[] | Promise<string[]>;
    if (!(answer instanceof Promise)) {
      context.count("views");
      const expected = [...committed, ...queued];
      if (`${answer}` !== `${expected}`) {
        context.fail(`${device.name} sees ${answer}, not ${expected}`);
      }
      return this.#checkView(device, shown, committed.length, answer);
    }
    context.background(
      answer.then((list) => {
        context.count("later views");
        if (process.isOver) return;
        this.#checkView(device, shown, committed.length, list);
      }, (error) => {
        if (!(error instanceof ErrClusterClosed)) {
          this.#lookFailed(device, error);
        }
      }),
    );
  }

  #lookFailed({ name }: Device, error: unknown): void {
    // A recovery was cut off and begins again, or the machine threw and the replica
    // looks in the log for a decision to skip that entry.
    if (error instanceof ErrSystemBusy) return this.#context.count("busy");
    this.#context.fail(`${name} cannot be looked at: ${error}`);
  }

  #checkView(
    device: Device,
    shown: readonly string[],
    committed: number,
    list: readonly string[],
  ): void {
    const context = this.#context;
    const seen = new Set(list);
    if (seen.size < list.length) {
      context.fail(`${device.name} sees a command twice: ${list}`);
    }
    for (const name of shown) {
      // A command that was refused just now has vanished rightly.
      const isMissing = !seen.has(name) && device.mustShow(name) &&
        !isNeverShown(name);
      if (isMissing) {
        context.fail(`${device.name} does not see ${name}: ${list}`);
      }
    }
    if (device.process?.history === context.history) {
      this.#seen.push({ device: device.name, committed, list });
    }
  }

  // -------------------------------------------------------- at the end

  /** Checks the state in which everything is committed and every device has all of it. */
  async checkEnd(): Promise<void> {
    const { replica } = this.#server;
    const list = await replica.staleRead(null) as string[];
    const hash = await replica.getHash();
    const places = new Map(list.map((name, i) => [name, i]));
    assertEquals(places.size, list.length, "A command was applied twice");
    for (const device of this.#devices) {
      const replica = device.replica!;
      assertEquals(await replica.getHash(), hash, device.name);
      assertEquals(await replica.staleRead(null), list, device.name);
      this.#checkCommands(device, replica, places);
    }
    if (!this.#context.profile.powerCuts) this.#checkOrder(list);
    for (const view of this.#seen) this.#checkSeen(view, list);
  }

  /** Asserts that a view shows a prefix of the committed list, followed by commands of its own device only. */
  #checkSeen({ device, committed, list }: SeenView, all: string[]): void {
    let same = 0;
    while (same < list.length && list[same] === all[same]) same++;
    const own = device.split("'")[0]!;
    if (same >= committed && list.slice(same).every((n) => n.startsWith(own))) {
      return;
    }
    this.#context.fail(`${device} saw ${list}, which never was: ${all}`);
  }

  #checkCommands(
    device: Device,
    replica: Replica,
    places: ReadonlyMap<string, number>,
  ): void {
    const pending = new Map(
      replica.pending().map((one) => [text(one.cmd), one]),
    );
    for (const command of device.commands.values()) {
      const place = places.get(command.text);
      const submission = pending.get(command.text);
      const violation = this.#violationOf(device, command, place, submission);
      if (violation !== undefined) {
        this.#context.fail(
          `${device.name} (${device.kind}) ${command.text}: ${violation}; at ${place}, ${command.state}, ${submission?.state} (${submission?.reason}), ${command.error}`,
        );
      }
    }
  }

  #violationOf(
    device: Device,
    command: Command,
    place: number | undefined,
    submission: Submission | undefined,
  ): string | undefined {
    const { state, error, isDismissed } = command;
    const isApplied = place !== undefined;
    // It was decided in a history that is gone.
    const isRewound = command.history < this.#context.history &&
      (command.result !== undefined || this.#everCommitted.has(command.text));
    const result = isRewound ? undefined : command.result;
    if (isBad(command) && isApplied) return "applied though refused";
    if (state === "turned down" && isApplied) {
      return "applied though not submitted";
    }
    if (result !== undefined) {
      if (!isApplied) return "answered though not applied";
      if (result.value !== BigInt(place) + 1n) return `result ${result.value}`;
      if (text(result.data) !== command.text) return "another one's result";
    }
    if (
      error instanceof ErrUnknownOutcome && error.applied && !isApplied &&
      !isRewound
    ) return "reported as applied";
    if (
      error !== undefined &&
      !(error instanceof ErrUnknownOutcome ||
        error instanceof ErrProposalRefused && isBad(command) ||
        error instanceof ErrOutboxCopied && device.isCopied ||
        error instanceof ErrClusterClosed)
    ) return "rejected";
    if (state !== "stored" || isDismissed) return undefined;
    switch (submission?.state) {
      case "refused":
        this.#context.count("refused");
        return refusalViolation(command, submission);
      case "unknown":
        this.#context.count("unknown");
        return this.#mayBeUnknown(device, command) ? undefined : "unknown";
      case "queued":
        return device.isCopied ? undefined : "queued";
      default:
        if (command.mayBeLost || isRewound) return undefined;
        if (isBad(command)) return "gone though refused";
        this.#context.count("applied");
        return isApplied ? undefined : "lost";
    }
  }

  /** True if the cluster may rightly not know the outcome; after a power cut an outbox gives up a session that is ahead of it. */
  #mayBeUnknown(device: Device, { history }: Command): boolean {
    const context = this.#context;
    return context.evictions > 0 && device.hasSkipped ||
      history < context.history || context.profile.powerCuts ||
      this.#hasCopies(device);
  }

  #checkOrder(list: readonly string[]): void {
    const last = new Map<string, number>();
    for (const command of list) {
      const [name, number] = command.split(":");
      if (number === undefined) continue;
      if (Number(number) <= (last.get(name!) ?? -1)) {
        this.#context.fail(`${command} after ${last.get(name!)}`);
      }
      last.set(name!, Number(number));
    }
  }
}

function refusalViolation(
  command: Command,
  { reason }: Submission,
): string | undefined {
  const { error } = command;
  if (!isBad(command)) return "refused";
  if (
    command.text.includes(DENIED) && error instanceof ErrProposalRefused &&
    error.result?.value !== 0n
  ) return "refused without its result";
  // A process that dies before it has stored the reason has refused the command
  // all the same, by leaving out its series.
  return reason!.includes(REFUSED) ||
      command.text.includes(POISON) && reason!.includes("was skipped")
    ? undefined
    : "reason";
}
