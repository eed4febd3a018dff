/**
 * Fixture of one test case: creates machines and their storage, and disposes of them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { U64_MAX } from "../bytes.ts";
import {
  OnDiskStateMachine,
  type Result,
  type Type,
} from "../statemachine/types.ts";
import type { History } from "./history.ts";
import type { CheckOptions, Disk } from "./options.ts";
import { type Observation, Probe, type ProbeSettings } from "./probe.ts";
import { equalResults } from "./result.ts";
import type { Subject } from "./subject.ts";
import { show, structuralEquals } from "./value.ts";
import { Breach } from "./violation.ts";

/** Factory of the machines that use one storage. */
export interface SubjectFactory {
  /** Creates an instance. */
  readonly make: (clusterID: bigint, nodeID: bigint) => Subject;
  /** Storage of an on-disk machine; undefined for a machine in memory. */
  readonly disk: Disk | undefined;
}

/** Parameters of a fixture. */
export interface FixtureInit {
  readonly type: Type;
  readonly options: CheckOptions;
  /** Creates a factory with an empty storage. */
  readonly factory: () => Promise<SubjectFactory>;
}

/** Storage of one machine at a time. */
export class Storage {
  readonly #fixture: Fixture;
  readonly #factory: SubjectFactory;

  /** Creates a storage for the machines of `factory`. */
  constructor(fixture: Fixture, factory: SubjectFactory) {
    this.#fixture = fixture;
    this.#factory = factory;
  }

  /** True if a crash can interrupt a call and loses unsynced data. */
  get crashes(): boolean {
    return this.#factory.disk?.crash !== undefined;
  }

  /** Creates an instance without opening it. */
  make(nodeID: bigint = this.#fixture.nodeID): Probe {
    let subject: Subject;
    try {
      subject = this.#factory.make(this.#fixture.clusterID, nodeID);
    } catch (cause) {
      throw new Breach("T4", `The factory threw ${show(cause)}`, { cause });
    }
    return this.#fixture.track(new Probe(subject, this.#fixture.settings));
  }

  /** Creates an instance and opens it; returns its index after a check. */
  async open(nodeID?: bigint): Promise<{ probe: Probe; index: number }> {
    const probe = this.make(nodeID);
    const index = await probe.value(
      "D1",
      "open()",
      () => probe.subject.open(new AbortController().signal),
    );
    return { probe, index: checkedIndex(index) };
  }

  /** Ends an instance like a power failure, during any call. */
  async crash(probe: Probe): Promise<void> {
    probe.abandon();
    await this.#factory.disk?.crash?.();
  }

  /** Disposes of the storage. */
  async remove(): Promise<void> {
    await this.#factory.disk?.remove?.();
  }
}

/** Checks that the return value of `open()` is an index. */
export function checkedIndex(index: unknown): number {
  if (Number.isSafeInteger(index) && (index as number) >= 0) {
    return index as number;
  }
  throw new Breach(
    "D1",
    `open() returned ${show(index)}, which is not a log index`,
  );
}

/** Machines and storages of one test case. */
export class Fixture {
  /** Kind of the machine. */
  readonly type: Type;
  /** Cluster id for factories. */
  readonly clusterID: bigint;
  /** Node id for factories. */
  readonly nodeID: bigint;
  /** Options of the check. */
  readonly options: CheckOptions;
  /** Settings of probes. */
  readonly settings: ProbeSettings;
  readonly #newFactory: () => Promise<SubjectFactory>;
  readonly #probes: Probe[] = [];
  readonly #storages: Storage[] = [];

  /** Creates a fixture without machines. */
  constructor(init: FixtureInit) {
    const { options } = init;
    this.type = init.type;
    this.options = options;
    this.clusterID = options.clusterID ?? 1n;
    this.nodeID = options.nodeID ?? 1n;
    this.settings = {
      settleTimeoutMs: options.settleTimeoutMs ?? 5000,
      files: options.files,
    };
    this.#newFactory = init.factory;
  }

  /** True for an on-disk machine. */
  get onDisk(): boolean {
    return this.type === OnDiskStateMachine;
  }

  /** Node id of another replica. */
  get otherNodeID(): bigint {
    return this.nodeID === U64_MAX ? this.nodeID - 1n : this.nodeID + 1n;
  }

  /** Registers an instance to be closed at the end. */
  track(probe: Probe): Probe {
    this.#probes.push(probe);
    return probe;
  }

  /** Creates an empty storage. */
  async storage(): Promise<Storage> {
    const storage = new Storage(this, await this.#newFactory());
    this.#storages.push(storage);
    return storage;
  }

  /** Creates and opens an instance in an empty storage; its index must be 0. */
  async fresh(nodeID?: bigint): Promise<Probe> {
    const { probe, index } = await (await this.storage()).open(nodeID);
    if (index !== 0) {
      throw new Breach(
        "D1",
        `open() returned ${index} for a new machine, not 0`,
      );
    }
    return probe;
  }

  /**
   * Closes open instances if `closes` is set, and removes all storages. Errors are
   * ignored, except that a `close()` that hangs is returned: it would cost its timeout
   * in every later case.
   */
  async end(closes: boolean): Promise<Breach | undefined> {
    let hung: Breach | undefined;
    for (const probe of this.#probes.splice(0)) {
      if (probe.isOver || !closes || hung !== undefined) continue;
      await probe.close().catch((error) => {
        if (error instanceof Breach && error.hung) hung = error;
      });
    }
    for (const storage of this.#storages.splice(0)) await storage.remove();
    return hung;
  }

  /** Describes the difference of two observations; undefined if they are equal. */
  difference(
    history: History,
    a: Observation,
    b: Observation,
  ): Difference | undefined {
    const equals = this.options.equals ?? structuralEquals;
    const same = (left: unknown, right: unknown): boolean =>
      typeof left === "object" && left !== null && "value" in left &&
        typeof right === "object" && right !== null && "value" in right
        ? equals(left.value, right.value)
        : structuralEquals(left, right);
    const answer = differenceOf(
      a.answers,
      b.answers,
      same,
      (i) => `lookup(${show(history.queries[i])})`,
    );
    if (answer !== undefined) return { seen: "answers", text: answer };
    const naAnswer = differenceOf(a.naAnswers, b.naAnswers, structuralEquals, (
      i,
    ) => `naLookup(${show(history.naQueries[i])})`);
    if (naAnswer !== undefined) return { seen: "naAnswers", text: naAnswer };
    if (a.hash === b.hash) return undefined;
    return { seen: "hash", text: `getHash() gives ${a.hash} and ${b.hash}` };
  }
}

/** First difference of two observations, and the kind of observation that shows it. */
export interface Difference {
  readonly seen: "answers" | "naAnswers" | "hash";
  readonly text: string;
}

function differenceOf<T>(
  a: readonly T[],
  b: readonly T[],
  equals: (a: T, b: T) => boolean,
  what: (i: number) => string,
): string | undefined {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const [left, right] = [a[i], b[i]];
    if (left === undefined || right === undefined || !equals(left, right)) {
      return `${what(i)} gives ${showAnswer(left)} and ${showAnswer(right)}`;
    }
  }
  return undefined;
}

function showAnswer(answer: unknown): string {
  if (typeof answer !== "object" || answer === null) return show(answer);
  if ("thrown" in answer) return `throws ${answer.thrown}`;
  return "value" in answer && !("data" in answer)
    ? show(answer.value)
    : show(answer);
}

/** Describes the difference of two lists of results; undefined if they are equal. */
export function resultsDifference(
  a: readonly Result[],
  b: readonly Result[],
  from = 0,
): string | undefined {
  return differenceOf(
    a,
    b,
    equalResults,
    (i) => `command ${from + i + 1}: update()`,
  );
}
