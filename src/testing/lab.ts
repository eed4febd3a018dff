/**
 * Where the experiments are made: instances and places for them, and their end.
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

/** Makes instances of the machine under examination in one place. */
export interface Site {
  /** Makes an instance. */
  readonly make: (clusterID: bigint, nodeID: bigint) => Subject;
  /** The place it is in, of an on-disk machine. */
  readonly disk: Disk | undefined;
}

/** What a lab is made of. */
export interface LabInit {
  readonly type: Type;
  readonly options: CheckOptions;
  /** Makes a fresh site. */
  readonly site: () => Promise<Site>;
}

/** A place with the instance that is open in it. */
export class Place {
  readonly #lab: Lab;
  readonly #site: Site;

  /** A place at a site. */
  constructor(lab: Lab, site: Site) {
    this.#lab = lab;
    this.#site = site;
  }

  /** Whether a crash can come in the middle of a call, and loses what was not synced. */
  get crashes(): boolean {
    return this.#site.disk?.crash !== undefined;
  }

  /** Makes an instance without opening it. */
  make(nodeID: bigint = this.#lab.nodeID): Probe {
    let subject: Subject;
    try {
      subject = this.#site.make(this.#lab.clusterID, nodeID);
    } catch (cause) {
      throw new Breach("T4", `The factory threw ${show(cause)}`, { cause });
    }
    return this.#lab.track(new Probe(subject, this.#lab.settings));
  }

  /** Makes an instance and opens it; returns the index it gives, checked to be one. */
  async open(nodeID?: bigint): Promise<{ probe: Probe; index: number }> {
    const probe = this.make(nodeID);
    const index = await probe.value(
      "D1",
      "open()",
      () => probe.subject.open(new AbortController().signal),
    );
    return { probe, index: checkedIndex(index) };
  }

  /** Ends an instance as a power cut would, whatever it is doing. */
  async crash(probe: Probe): Promise<void> {
    probe.abandon();
    await this.#site.disk?.crash?.();
  }

  /** Ends the place. */
  async remove(): Promise<void> {
    await this.#site.disk?.remove?.();
  }
}

/** An opened index, checked to be one at all. */
export function checkedIndex(index: unknown): number {
  if (Number.isSafeInteger(index) && (index as number) >= 0) {
    return index as number;
  }
  throw new Breach("D1", `open() gave ${show(index)}, which is no log index`);
}

/** The instances and places of one case. */
export class Lab {
  /** The kind of machine. */
  readonly type: Type;
  /** The cluster id machines are made with. */
  readonly clusterID: bigint;
  /** The node id machines are made with. */
  readonly nodeID: bigint;
  /** What the check was told. */
  readonly options: CheckOptions;
  /** What probes are told. */
  readonly settings: ProbeSettings;
  readonly #site: () => Promise<Site>;
  readonly #probes: Probe[] = [];
  readonly #places: Place[] = [];

  /** A lab with nothing in it. */
  constructor(init: LabInit) {
    const { options } = init;
    this.type = init.type;
    this.options = options;
    this.clusterID = options.clusterID ?? 1n;
    this.nodeID = options.nodeID ?? 1n;
    this.settings = {
      settleTimeoutMs: options.settleTimeoutMs ?? 5000,
      files: options.files,
    };
    this.#site = init.site;
  }

  /** Whether the machine keeps its state on disk. */
  get onDisk(): boolean {
    return this.type === OnDiskStateMachine;
  }

  /** The id of another replica. */
  get otherNodeID(): bigint {
    return this.nodeID === U64_MAX ? this.nodeID - 1n : this.nodeID + 1n;
  }

  /** Sees to it that an instance is closed in the end. */
  track(probe: Probe): Probe {
    this.#probes.push(probe);
    return probe;
  }

  /** A fresh place. */
  async place(): Promise<Place> {
    const place = new Place(this, await this.#site());
    this.#places.push(place);
    return place;
  }

  /** A new instance in a fresh place, opened; it must be empty as far as an index tells. */
  async fresh(nodeID?: bigint): Promise<Probe> {
    const { probe, index } = await (await this.place()).open(nodeID);
    if (index !== 0) {
      throw new Breach("D1", `open() gave ${index} for a new machine, not 0`);
    }
    return probe;
  }

  /**
   * Closes what is open, unless told not to, and removes everything. Of what
   * goes wrong then only a `close()` that never settles is a finding, for it
   * would cost its timeout again and again; it is returned.
   */
  async end(closes: boolean): Promise<Breach | undefined> {
    let hung: Breach | undefined;
    for (const probe of this.#probes.splice(0)) {
      if (probe.over || !closes || hung !== undefined) continue;
      await probe.close().catch((error) => {
        if (error instanceof Breach && error.hung) hung = error;
      });
    }
    for (const place of this.#places.splice(0)) await place.remove();
    return hung;
  }

  /** How two observations differ, in words; undefined if they do not. */
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

/** How two observations differ, and by what it was seen first. */
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

/** How two runs of results differ, in words; undefined if they do not. */
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
