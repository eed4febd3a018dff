/**
 * Oracles: what must be true of the history of every simulated world, whatever
 * faults were injected.
 *
 * Each checks one promise and names itself in its violations: `linearizability`,
 * `order`, `once`, `sessions`, `results`, `rejected`, `durability`, `replay`,
 * `hashes`, `answers`, `views`, `monotonic`, `own writes`, `rejections`, `queues`,
 * `compaction`.
 *
 * @module
 */

import {
  checkLinearizability,
  type RecordedCall,
  type SequentialModel,
} from "../../src/testing/linearizability.ts";
import { ErrUnknownOutcome } from "../../src/log/errors.ts";
import type {
  CommittedLog,
  FinalState,
  History,
  Operation,
  Violation,
} from "./history.ts";
import { type ReferenceMachine, type Replay, replay } from "./reference.ts";

/** Machine by which the oracles replay a log. */
export interface OracleMachine {
  /** Text of the command that is added to the list; undefined if it is refused. */
  readonly apply: ReferenceMachine;
  /** Key of a command of the list. */
  readonly keyOf: (command: string) => string | undefined;
  /** Hash of a fresh machine with that list. */
  readonly hash: (list: readonly string[], stateVersion: number) => bigint;
}

/** One log of a cluster, from the start or a restore of the server to the next restore. */
interface Era extends Replay {
  readonly cluster: bigint;
  /** Event at which it begins. */
  readonly start: number;
  /** Event at which the next one begins. */
  readonly end: number;
  /** Number of commands in the list that it has from an older copy. */
  readonly restored: number;
  /** The same for the list of each key. */
  readonly keysRestored: ReadonlyMap<string, number>;
  /** Place of each command in the list, from 0. */
  readonly places: ReadonlyMap<string, number>;
  /** Places of the commands of each key in the list of the key. */
  readonly keyPlaces: ReadonlyMap<string, number>;
  /** List of each key. */
  readonly keys: ReadonlyMap<string, readonly string[]>;
}

/** Judges a history; returns the violations, those that the world found first. */
export function judge(history: History, machine: OracleMachine): Violation[] {
  const judgement = new Judgement(history, machine);
  judgement.run();
  return judgement.violations;
}

const isCommand = ({ kind }: Operation): boolean =>
  kind === "propose" || kind === "submit";

/** Length of a list to which commands are appended; the empty input reads it. */
const LENGTH: SequentialModel<number, string, number> = {
  init: () => 0,
  step: (length, input) =>
    input === "" ? [length, length] : [length + 1, length + 1],
  isReadOnly: (input) => input === "",
};

/** Number of violations of one oracle that are reported. */
const SHOWN = 3;

class Judgement {
  readonly violations: Violation[] = [];
  readonly #history: History;
  readonly #machine: OracleMachine;
  readonly #eras = new Map<bigint, Era[]>();
  readonly #hashes = new Map<Era, Map<number, bigint>>();
  readonly #shown = new Map<string, number>();

  constructor(history: History, machine: OracleMachine) {
    this.#history = history;
    this.#machine = machine;
    for (const { oracle, text } of history.violations) this.#fail(oracle, text);
  }

  run(): void {
    const { logs, operations } = this.#history;
    for (const [cluster, all] of logs) {
      this.#eras.set(
        cluster,
        all.map((log, i) => this.#era(cluster, log, all[i + 1]?.start)),
      );
    }
    const byCluster = new Map<bigint, Operation[]>();
    for (const operation of operations) {
      const others = byCluster.get(operation.cluster);
      if (others === undefined) byCluster.set(operation.cluster, [operation]);
      else others.push(operation);
    }
    for (const [cluster, eras] of this.#eras) {
      const operations = byCluster.get(cluster) ?? [];
      for (const era of eras) {
        this.#once(era.list, `Log of cluster ${cluster}`);
        this.#linearizability(era, operations);
        this.#order(era, operations);
        this.#sessions(era, operations);
      }
      this.#outcomes(eras, operations);
      this.#durability(eras, operations);
      this.#lookups(eras, operations);
    }
    this.#finals();
    this.#answers();
    this.#rejections();
    this.#queues();
    this.#compactions();
  }

  #fail(oracle: string, text: string): void {
    const shown = this.#shown.get(oracle) ?? 0;
    this.#shown.set(oracle, shown + 1);
    if (shown < SHOWN) this.violations.push({ oracle, text });
  }

  #era(cluster: bigint, log: CommittedLog, end = Infinity): Era {
    const replayed = replay(log, this.#machine.apply);
    const { list, indexes, hole } = replayed;
    if (hole !== undefined) {
      this.#fail(
        "replay",
        `No reader has seen record ${hole} of cluster ${cluster}, but later ones`,
      );
    }
    const restored = indexes.filter((index) => index <= log.restoredAt).length;
    const keysRestored = new Map<string, number>();
    for (const command of list.slice(0, restored)) {
      const key = this.#machine.keyOf(command) ?? "";
      keysRestored.set(key, (keysRestored.get(key) ?? 0) + 1);
    }
    return {
      ...replayed,
      cluster,
      start: log.start,
      end,
      restored,
      keysRestored,
      ...this.#placesIn(list),
    };
  }

  /** A list, by command and by key. */
  #placesIn(
    list: readonly string[],
  ): Pick<Era, "list" | "places" | "keyPlaces" | "keys"> {
    const places = new Map<string, number>();
    const keyPlaces = new Map<string, number>();
    const keys = new Map<string, string[]>();
    list.forEach((command, place) => {
      places.set(command, place);
      const key = this.#machine.keyOf(command);
      if (key === undefined) return;
      let own = keys.get(key);
      if (own === undefined) keys.set(key, own = []);
      keyPlaces.set(command, own.length);
      own.push(command);
    });
    return { list, places, keyPlaces, keys };
  }

  // -------------------------------------------------------------- commands

  /** Fails if a list has a command twice. */
  #once(
    list: readonly string[],
    where: string,
    mayRepeat?: ReadonlySet<string>,
  ): void {
    const seen = new Set<string>();
    for (const command of list) {
      if (seen.has(command) && mayRepeat?.has(command) !== true) {
        this.#fail("once", `${where} has ${command} twice`);
      }
      seen.add(command);
    }
  }

  /**
   * Commands and linearizable reads of each key, and of the list of all keys. The
   * log says in which order the commands took effect, so a state is the length of
   * the list, and a command's output its place.
   */
  #linearizability(era: Era, operations: readonly Operation[]): void {
    const calls: RecordedCall<string, number>[] = [];
    for (const operation of operations) {
      const { kind, key, process, input, start, end, outcome } = operation;
      if (start >= era.end) continue;
      if (!isCommand(operation) && kind !== "read") continue;
      const isOk = outcome?.kind === "ok" && end! < era.end &&
        end! >= era.start && !this.#isOfBefore(era, operation);
      const call = { client: process, key: key ?? "", input, start };
      if (!isCommand(operation)) {
        if (!isOk || start < era.start) continue;
        const list = (outcome!.value as readonly string[])
          .filter((one) => !era.skipped.has(one));
        const restored = key === undefined
          ? era.restored
          : era.keysRestored.get(key) ?? 0;
        calls.push({ ...call, end, output: list.length - restored });
        continue;
      }
      const place = era.places.get(input);
      if (place === undefined || place < era.restored) continue;
      // Also the place of a command whose caller learned nothing is known.
      const known = { end: isOk ? end : Number.MAX_VALUE };
      calls.push({
        ...call,
        key: "",
        ...known,
        output: place + 1 - era.restored,
      });
      if (key === undefined) continue;
      const keyPlace = era.keyPlaces.get(input)! -
        (era.keysRestored.get(key) ?? 0);
      calls.push({ ...call, ...known, output: keyPlace + 1 });
    }
    const violation = checkLinearizability(LENGTH, calls);
    if (violation !== undefined) this.#fail("linearizability", violation.text);
  }

  /** Real time order of all commands, whatever their keys. */
  #order(era: Era, operations: readonly Operation[]): void {
    const byInput = new Map(
      operations.filter(isCommand).map((one) => [one.input, one]),
    );
    let latest: Operation | undefined;
    for (const command of era.list) {
      const operation = byInput.get(command);
      if (operation === undefined) continue;
      const { end, outcome, start } = operation;
      // A restore takes back what was answered before it and is not in the copy;
      // the device, which finds that missing, sends it again.
      const isAnswered = outcome?.kind === "ok" &&
        (end! >= era.start && !this.#isOfBefore(era, operation) ||
          era.places.get(command)! < era.restored);
      if (latest !== undefined && isAnswered && end! < latest.start) {
        this.#fail(
          "order",
          `${command} of ${operation.process} had been answered before ${latest.input} of ${latest.process} began, which is before it in the log`,
        );
      }
      if (latest === undefined || start > latest.start) latest = operation;
    }
  }

  /** True if a command was submitted before a restore and answered after it with its place in the log before: the answer was on its way to the caller. */
  #isOfBefore(era: Era, operation: Operation): boolean {
    const { input, outcome, start } = operation;
    return start < era.start && outcome?.kind === "ok" &&
      isCommand(operation) && era.places.has(input) &&
      !isResult(era, operation, outcome.value as number, this.#machine);
  }

  /** Order of the commands of each session. */
  #sessions(era: Era, operations: readonly Operation[]): void {
    if (this.#isExcused(era.cluster, "power cut")) return;
    const last = new Map<string, Operation>();
    for (const operation of operations) {
      const { session, input } = operation;
      if (session === undefined || !isCommand(operation)) continue;
      const place = era.places.get(input);
      if (place === undefined || place < era.restored) continue;
      const before = last.get(session);
      if (before !== undefined && place < era.places.get(before.input)!) {
        this.#fail(
          "sessions",
          `${input} was submitted in session ${session} after ${before.input}, and applied before it`,
        );
      }
      last.set(session, operation);
    }
  }

  /** Results that callers got, and rejections, against the log. */
  #outcomes(eras: readonly Era[], operations: readonly Operation[]): void {
    for (const operation of operations) {
      const { input, outcome, start, end, process } = operation;
      if (!isCommand(operation) || outcome === undefined) continue;
      const met = eras.filter((era) => start < era.end && end! >= era.start);
      const found = met.filter(({ places }) => places.has(input));
      if (outcome.kind === "rejected") {
        // A restore may take back the decision to skip it.
        const isSkipped = eras.some(({ skipped }) => skipped.has(input));
        if (
          !isSkipped && !operation.mayReturn &&
          eras.some(({ places }) => places.has(input))
        ) {
          this.#fail(
            "rejected",
            `${input} of ${process} is in the log, although its caller was told ${outcome.error}`,
          );
        }
      } else if (outcome.kind === "ok") {
        // Code that does not throw at it may have applied what was skipped later.
        if (eras.some(({ skipped }) => skipped.has(input))) continue;
        if (found.length === 0) {
          this.#fail(
            "durability",
            `${input} of ${process} was answered with ${outcome.value}, and is not in the log`,
          );
        } else if (
          !found.some((era) =>
            isResult(era, operation, outcome.value as number, this.#machine)
          )
        ) {
          this.#fail(
            "results",
            `${input} of ${process} was answered with ${outcome.value} instead of ${
              placeOf(found[0]!, operation) + 1
            }`,
          );
        }
      } else if (
        outcome.error instanceof ErrUnknownOutcome && outcome.error.applied
      ) {
        if (!eras.some(({ places }) => places.has(input))) {
          this.#fail(
            "results",
            `${input} of ${process} is not in the log, although its caller was told that it was applied`,
          );
        } else if (!this.#hasExcuse(eras)) {
          this.#fail("results", `Result of ${input} of ${process} is lost`);
        }
      }
    }
  }

  /** Submissions that an outbox acknowledged, after the end of all faults. */
  #durability(eras: readonly Era[], operations: readonly Operation[]): void {
    const { finals } = this.#history;
    if (finals.length === 0) return;
    const last = eras.at(-1)!;
    const pending = new Map<string, string>();
    for (const final of finals) {
      if (final.cluster !== last.cluster) continue;
      for (const [input, state] of final.pending) pending.set(input, state);
    }
    const isRestored = eras.length > 1;
    for (const operation of operations) {
      const { kind, input, process, stored, outcome } = operation;
      if (kind !== "submit" || stored === undefined) continue;
      const state = pending.get(input);
      if (state === "unknown" && !this.#hasExcuse(eras)) {
        this.#fail(
          "durability",
          `Outcome of ${input} of ${process} is unknown, though nothing lost it`,
        );
      }
      if (
        last.places.has(input) || last.skipped.has(input) ||
        state !== undefined ||
        operation.mayBeLost || operation.isDismissed ||
        outcome?.kind === "rejected" || outcome?.kind === "unknown" ||
        // It was decided in a history that is gone.
        isRestored && eras.some(({ places }) => places.has(input))
      ) continue;
      this.#fail(
        "durability",
        `${input} of ${process} was stored, and is lost`,
      );
    }
  }

  // --------------------------------------------------------------- lookups

  #lookups(logs: readonly Era[], operations: readonly Operation[]): void {
    /** Lookups that have ended, by process and key. */
    const longest = new Map<
      string,
      { era: Era; end: number; length: number }[]
    >();
    const written = new Map<string, Operation[]>();
    // What code that does not throw has applied and shown is taken back by a skip, also
    // by one that only the log before or after a restore has.
    const isSkipping = logs.some(({ skipped }) => skipped.size > 0);
    const withoutSkipped = (list: readonly string[]): string[] =>
      list.filter((one) => !logs.some(({ skipped }) => skipped.has(one)));
    const eras = isSkipping
      ? logs.map((era) => ({
        ...era,
        ...this.#placesIn(withoutSkipped(era.list)),
      }))
      : logs;
    for (const operation of operations) {
      const { process, kind, outcome } = operation;
      if (outcome?.kind !== "ok") continue;
      if (isCommand(operation)) {
        const { answeredBy = process } = operation;
        const own = written.get(answeredBy);
        if (own === undefined) written.set(answeredBy, [operation]);
        else own.push(operation);
        continue;
      }
      const shown = outcome.value as readonly string[];
      this.#once(shown, `${kind} of ${process}`, operation.mayRepeat);
      const list = isSkipping ? withoutSkipped(shown) : shown;
      if (kind === "view" || kind === "watch") {
        this.#view(eras, operation, shown, list);
        continue;
      }
      const era = this.#prefix(eras, operation, list);
      if (era === undefined) continue;
      const key = `${process} ${operation.key ?? ""}`;
      const ended = longest.get(key) ?? [];
      longest.set(key, ended);
      // A device that starts over after a restore shows the log after it.
      const longer = ended.find((one) =>
        one.era === era && one.end < operation.start &&
        one.length > list.length
      );
      if (longer !== undefined) {
        this.#fail(
          "monotonic",
          `${kind} of ${process} shows ${list.length} commands, and showed ${longer.length} before`,
        );
      }
      ended.push({ era, end: operation.end!, length: list.length });
      if (ended.length > 16) ended.shift();
      for (const own of written.get(process) ?? []) {
        if (own.end! >= operation.start) continue;
        if (own.key !== operation.key && operation.key !== undefined) continue;
        if (!era.places.has(own.input)) continue;
        if (placeIn(era, own, operation.key) < list.length) continue;
        this.#fail(
          "own writes",
          `${kind} of ${process} does not show ${own.input}, which that process has applied`,
        );
      }
    }
  }

  /** Newest era whose list of the key begins with a list that a lookup returned: after a restore, a short list begins the log before it, too. */
  #prefix(
    eras: readonly Era[],
    operation: Operation,
    list: readonly string[],
  ): Era | undefined {
    const { key, kind, process, start, end } = operation;
    const era = eras.findLast((era) => {
      if (end! < era.start) return false;
      // A linearizable read belongs to the log of its time.
      if (kind === "read" && start >= era.end) return false;
      const all = key === undefined ? era.list : era.keys.get(key) ?? [];
      return list.length <= all.length &&
        // Lists are unique and only grow: the last command suffices, nearly always.
        list.every((command, i) => command === all[i]);
    });
    if (era === undefined) {
      this.#fail(
        "monotonic",
        `${kind} of ${process} shows ${
          brief(list)
        }, which the log never contained`,
      );
    }
    return era;
  }

  /** A view shows what is committed, and after it commands of its own device only; exactly the expected list, where it is known. */
  #view(
    eras: readonly Era[],
    { process, kind, session, expected, input: _, key }: Operation,
    shown: readonly string[],
    list: readonly string[],
  ): void {
    if (expected !== undefined) {
      if (
        expected.length !== shown.length ||
        expected.some((command, i) => command !== shown[i])
      ) {
        this.#fail(
          "views",
          `${kind} of ${process} shows ${brief(shown)} instead of ${
            brief(expected)
          }`,
        );
      }
      return;
    }
    if (session === undefined) return;
    const isShown = eras.some((era) => {
      const all = key === undefined ? era.list : era.keys.get(key) ?? [];
      let same = 0;
      while (same < list.length && list[same] === all[same]) same++;
      return list.slice(same).every((command) =>
        this.#sessionOf(command) === session
      );
    });
    if (!isShown) {
      this.#fail(
        "views",
        `${kind} of ${process} shows ${
          brief(list)
        }, which is no committed state with its own commands`,
      );
    }
  }

  #bySession: Map<string, string | undefined> | undefined;

  #sessionOf(command: string): string | undefined {
    this.#bySession ??= new Map(
      this.#history.operations.filter(isCommand).map((
        { input, session },
      ) => [input, session]),
    );
    return this.#bySession.get(command);
  }

  // ---------------------------------------------------------------- the end

  #finals(): void {
    for (const final of this.#history.finals) {
      const { cluster, process, list } = final;
      const era = this.#eras.get(cluster)?.at(-1);
      if (era === undefined) continue;
      const at = list.findIndex((command, i) => command !== era.list[i]);
      if (at >= 0 || list.length !== era.list.length) {
        const place = at < 0 ? list.length : at;
        this.#fail(
          "replay",
          `${process} (${final.machine}) has ${list.length} commands where a replay of the log has ${era.list.length}; they differ at ${place}: ${
            list[place]
          }, ${era.list[place]}`,
        );
      } else this.#hash(final, era);
    }
  }

  #hash(
    { process, machine, stateVersion, hash, appliedIndex }: FinalState,
    era: Era,
  ): void {
    if (appliedIndex !== era.last) {
      this.#fail(
        "replay",
        `${process} (${machine}) has applied ${appliedIndex} of ${era.last} entries`,
      );
    }
    const expected = this.#hashOf(era, stateVersion);
    if (hash !== expected) {
      this.#fail(
        "hashes",
        `${process} (${machine}) has hash ${hash} instead of ${expected}`,
      );
    }
  }

  /** Hash of the state at the end of a log, computed once for all replicas. */
  #hashOf(era: Era, stateVersion: number): bigint {
    let hashes = this.#hashes.get(era);
    if (hashes === undefined) this.#hashes.set(era, hashes = new Map());
    let hash = hashes.get(stateVersion);
    if (hash === undefined) {
      hash = this.#machine.hash(era.list, stateVersion);
      hashes.set(stateVersion, hash);
    }
    return hash;
  }

  /** Every call of a process that is well at the end has been answered by then. */
  #answers(): void {
    const { finals, operations, settledAt } = this.#history;
    if (settledAt === undefined) return;
    const isWell = new Set<string>();
    for (const { process, cluster, pending } of finals) {
      const isQueued = [...pending.values()].includes("queued");
      if (!isQueued) isWell.add(`${process} ${cluster}`);
    }
    for (const { process, cluster, kind, input, start, end } of operations) {
      if (end !== undefined && end < settledAt || start > settledAt) continue;
      if (kind === "submit" || !isWell.has(`${process} ${cluster}`)) continue;
      this.#fail("answers", `${kind} ${input} of ${process} has no answer`);
    }
  }

  #rejections(): void {
    for (const error of this.#history.rejections) {
      this.#fail(
        "rejections",
        `A promise was rejected without a handler: ${
          error instanceof Error ? error.stack ?? error : error
        }`,
      );
    }
  }

  #queues(): void {
    for (const { queue, size, max } of this.#history.queues.values()) {
      if (size > max) {
        this.#fail("queues", `${queue} had ${size}; the limit is ${max}`);
      }
    }
  }

  /** The log keeps everything after the older of the two newest good snapshots (H7). */
  #compactions(): void {
    for (const { process, upTo, snapshots } of this.#history.compactions) {
      const [, older = 0] = [...new Set(snapshots)].sort((a, b) => b - a);
      if (upTo <= older) continue;
      this.#fail(
        "compaction",
        `${process} removed the log up to ${upTo}, with full snapshots at ${
          snapshots.join(", ") || "none"
        }`,
      );
    }
  }

  #isExcused(cluster: bigint, reason: string): boolean {
    return this.#history.excuses.get(cluster)?.has(reason) ?? false;
  }

  /** True if the outcome of a submission may rightly be unknown in a cluster. */
  #hasExcuse(eras: readonly Era[]): boolean {
    const excuses = this.#history.excuses.get(eras[0]!.cluster);
    return excuses !== undefined || eras.some(({ evicted }) => evicted > 0);
  }
}

/** True if a command has a result that some replica gave rightly: it may count commands before it that were skipped later. */
function isResult(
  era: Era,
  operation: Operation,
  value: number,
  { keyOf }: OracleMachine,
): boolean {
  const place = placeOf(era, operation) + 1;
  if (value === place || era.skipped.size === 0) return value === place;
  const { key, input } = operation;
  const index = era.indexes[era.places.get(input)!]!;
  let skipped = 0;
  for (const [command, at] of era.skipped) {
    const isCounted = key === undefined || keyOf(command) === key;
    if (at < index && isCounted) skipped++;
  }
  return value > place && value <= place + skipped;
}

/** Place of a command in the list that its result counts. */
function placeOf(era: Era, { input, key }: Operation): number {
  return (key === undefined ? era.places : era.keyPlaces).get(input)!;
}

/** Place of a command in the list of a key, or of all keys. */
function placeIn(
  era: Era,
  { input }: Operation,
  key: string | undefined,
): number {
  return (key === undefined ? era.places : era.keyPlaces).get(input)!;
}

/** End of a list. */
function brief(list: readonly string[]): string {
  return list.length <= 6
    ? `[${list.join(", ")}]`
    : `[${list.length - 5} others, ${list.slice(-5).join(", ")}]`;
}
