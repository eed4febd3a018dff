/**
 * Contract suite: checks every rule of the state machine contract that can be
 * observed from outside, on any machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { TIMER_MS_MAX } from "../limits.ts";
import {
  type Check,
  checkOptions,
  isA,
  isBoolean,
  isCount,
  isFunction,
  isID,
  isNumber,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { fc } from "../deps/fast_check.ts";
import {
  ConcurrentStateMachine,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { runExclusively } from "./seeded_globals.ts";
import { determinismProperties } from "./determinism.ts";
import { durabilityProperties } from "./durability.ts";
import type { Property } from "./property.ts";
import {
  describeHistory,
  type History,
  historyOf,
  without,
} from "./history.ts";
import { Fixture, type FixtureInit, type SubjectFactory } from "./fixture.ts";
import type {
  CheckConcurrentStateMachineOptions,
  CheckOnDiskStateMachineOptions,
  CheckOptions,
  CheckStateMachineOptions,
} from "./options.ts";
import { purityProperties } from "./purity.ts";
import { snapshotProperties } from "./snapshots.ts";
import { stoppingProperties } from "./stopping.ts";
import { concurrent, onDisk, regular } from "./subject.ts";
import { Breach, ContractViolation } from "./violation.ts";

/** Properties of all machines. The order matters: each relies on rules that earlier ones have checked. */
const PROPERTIES: readonly Property[] = [
  ...determinismProperties,
  ...purityProperties,
  ...snapshotProperties,
  ...stoppingProperties,
];

/** Checks that samples are a list or an arbitrary. */
const isSamples: Check = (name, value) => {
  if (!Array.isArray(value)) {
    isA("a list, or a fast-check arbitrary", "generate")(name, value);
  }
};

const CHECKS: OptionChecks<CheckOptions> = {
  commands: isSamples,
  queries: isSamples,
  naQueries: optional(isSamples),
  clusterID: optional(isID(0n)),
  nodeID: optional(isID(1n)),
  seed: optional(isNumber(-Infinity, Infinity)),
  path: optional(isText),
  runs: optional(isCount(1)),
  maxCommands: optional(isCount(0)),
  equals: optional(isFunction),
  files: optional(isA("a FileStore", "open", "create", "remove", "list")),
  settleTimeoutMs: optional(isNumber(0, TIMER_MS_MAX)),
  usesIndex: optional(isBoolean),
  showCommand: optional(isFunction),
};

/** Maximum number of promises that may hang while a history is shrunk. */
const HANGS_MAX = 3;

/**
 * Checks a regular machine against the contract. Suites run one after another:
 * the program's clock and random numbers are replaced while one runs.
 *
 * @throws ContractViolation naming the rule and the smallest commands that show it
 */
export function checkStateMachine(
  options: CheckStateMachineOptions,
): Promise<void> {
  return check(options, PROPERTIES, {
    type: RegularStateMachine,
    options,
    factory: () =>
      Promise.resolve({
        make: (clusterID, nodeID) => regular(options.create(clusterID, nodeID)),
        disk: undefined,
      }),
  });
}

/**
 * Checks a concurrent machine like {@linkcode checkStateMachine} checks a
 * regular one, also with saves and lookups that overlap updates.
 *
 * @throws ContractViolation naming the rule and the smallest commands that show
 * it
 */
export function checkConcurrentStateMachine(
  options: CheckConcurrentStateMachineOptions,
): Promise<void> {
  return check(options, PROPERTIES, {
    type: ConcurrentStateMachine,
    options,
    factory: () =>
      Promise.resolve({
        make: (clusterID, nodeID) =>
          concurrent(options.create(clusterID, nodeID)),
        disk: undefined,
      }),
  });
}

/**
 * Checks an on-disk machine like {@linkcode checkConcurrentStateMachine} checks
 * a concurrent one, and reopens it after crashes at any point. The {@linkcode
 * Disk} passed decides what a crash destroys.
 *
 * @throws ContractViolation naming the rule and the smallest commands that show
 * it
 */
export function checkOnDiskStateMachine(
  options: CheckOnDiskStateMachineOptions,
): Promise<void> {
  return check(options, [...PROPERTIES, ...durabilityProperties], {
    type: OnDiskStateMachine,
    options,
    async factory(): Promise<SubjectFactory> {
      const disk = await options.disk();
      return {
        make: (clusterID, nodeID) => onDisk(disk.create(clusterID, nodeID)),
        disk,
      };
    },
  });
}

async function check(
  options: CheckOptions,
  properties: readonly Property[],
  init: FixtureInit,
): Promise<void> {
  checkOptions("Options of the check", options, CHECKS);
  const { commands, queries, naQueries, maxCommands = 12 } = options;
  if (Array.isArray(commands) && commands.length === 0) {
    throw new TypeError(
      `commands is an empty array; pass sample commands, or an arbitrary of them`,
    );
  }
  const histories = historyOf({ commands, queries, naQueries, maxCommands });
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  await runExclusively(async () => {
    for (const property of properties) {
      await checkProperty(property, histories, seed, init);
    }
  });
}

/** Checks one property with many histories; reports the smallest that shows a breach. */
async function checkProperty(
  property: Property,
  histories: fc.Arbitrary<History>,
  seed: number,
  init: FixtureInit,
): Promise<void> {
  const { options } = init;
  const search = new Search(property, init);
  const details = await fc.check(
    fc.asyncProperty(histories, (history) => search.run(history)),
    {
      seed,
      numRuns: options.runs ?? 25,
      ...(options.path !== undefined && { path: options.path }),
    },
  );
  if (!details.failed) return;
  // An error of the suite or of its options, not of the machine.
  if (search.found === undefined) throw details.errorInstance;
  await search.simplify();
  const { breach, history } = search.found;
  throw new ContractViolation({
    rule: breach.rule,
    detail: breach.message,
    commands: history.steps.map(({ cmd }) => cmd),
    history: describeHistory(
      history,
      init.type === OnDiskStateMachine,
      options.showCommand,
    ),
    seed: details.seed,
    path: details.counterexamplePath ?? "",
  }, breach.cause === undefined ? undefined : { cause: breach.cause });
}

/** Search for the smallest history in which one property does not hold. */
class Search {
  readonly #property: Property;
  readonly #init: FixtureInit;
  #hangs = 0;
  #closes = true;
  /** Smallest breach so far; fast-check continues only from smaller histories. */
  found: { readonly breach: Breach; readonly history: History } | undefined;

  constructor(property: Property, init: FixtureInit) {
    this.#property = property;
    this.#init = init;
  }

  async run(history: History): Promise<void> {
    // Each costs a whole timeout: a longer history is better than a long wait.
    if (this.#hangs >= HANGS_MAX) return;
    const breach = await this.#try(history);
    if (breach === undefined) return;
    // A breach of another rule is not a smaller form of this one.
    if (this.found !== undefined && this.found.breach.rule !== breach.rule) {
      return;
    }
    this.found = { breach, history };
    throw breach;
  }

  /** Removes the step that a snapshot follows, which fast-check cannot move. */
  async simplify(): Promise<void> {
    let at = 0;
    while (this.found !== undefined && at < this.found.history.steps.length) {
      const { history } = this.found;
      await this.run(without(history, at)).catch(() => {});
      // Removing one step may have made another superfluous.
      at = this.found.history === history ? at + 1 : 0;
    }
  }

  /** Checks the property with one history; an error that is not a breach is the suite's own. */
  async #try(history: History): Promise<Breach | undefined> {
    const fixture = new Fixture(this.#init);
    let breach: Breach | undefined;
    let hung: Breach | undefined;
    try {
      await this.#property.run(fixture, history);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      breach = error;
    } finally {
      hung = await fixture.end(this.#closes);
    }
    if (hung !== undefined) this.#closes = false;
    if (hung !== undefined || breach?.hung) this.#hangs++;
    return breach ?? hung;
  }
}
