/**
 * The contract suite: everything the state machine contract asks of a machine
 * that can be seen from outside, tried on a machine of anybody's.
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
import { serialised } from "./clock.ts";
import { determinismTrials } from "./determinism.ts";
import { durabilityTrials } from "./durability.ts";
import type { Trial } from "./experiment.ts";
import { type History, historyOf, storyOf, without } from "./history.ts";
import { Lab, type LabInit, type Site } from "./lab.ts";
import type {
  CheckConcurrentStateMachineOptions,
  CheckOnDiskStateMachineOptions,
  CheckOptions,
  CheckStateMachineOptions,
} from "./options.ts";
import { readingTrials } from "./reading.ts";
import { snapshotTrials } from "./snapshots.ts";
import { stoppingTrials } from "./stopping.ts";
import { concurrent, onDisk, regular } from "./subject.ts";
import { Breach, ContractViolation } from "./violation.ts";

/** Tried in this order: each experiment trusts what those before it have shown. */
const TRIALS: readonly Trial[] = [
  ...determinismTrials,
  ...readingTrials,
  ...snapshotTrials,
  ...stoppingTrials,
];

/** A list, or an arbitrary. */
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
};

/** How many promises that never settle are waited for while a history is made smaller. */
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
  return check(options, TRIALS, {
    type: RegularStateMachine,
    options,
    site: () =>
      Promise.resolve({
        make: (clusterID, nodeID) => regular(options.create(clusterID, nodeID)),
        disk: undefined,
      }),
  });
}

/**
 * Checks a concurrent machine against the contract, as
 * {@linkcode checkStateMachine} does a regular one, and with saves and lookups
 * that overlap updates.
 *
 * @throws ContractViolation naming the rule and the smallest commands that show it
 */
export function checkConcurrentStateMachine(
  options: CheckConcurrentStateMachineOptions,
): Promise<void> {
  return check(options, TRIALS, {
    type: ConcurrentStateMachine,
    options,
    site: () =>
      Promise.resolve({
        make: (clusterID, nodeID) =>
          concurrent(options.create(clusterID, nodeID)),
        disk: undefined,
      }),
  });
}

/**
 * Checks an on-disk machine against the contract, as
 * {@linkcode checkConcurrentStateMachine} does a concurrent one, and opens it
 * again after crashes at any point. How much a crash destroys is up to the
 * {@linkcode Disk} that is given.
 *
 * @throws ContractViolation naming the rule and the smallest commands that show it
 */
export function checkOnDiskStateMachine(
  options: CheckOnDiskStateMachineOptions,
): Promise<void> {
  return check(options, [...TRIALS, ...durabilityTrials], {
    type: OnDiskStateMachine,
    options,
    async site(): Promise<Site> {
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
  trials: readonly Trial[],
  init: LabInit,
): Promise<void> {
  checkOptions("Options of the check", options, CHECKS);
  const { commands, queries, naQueries, maxCommands = 12 } = options;
  if (Array.isArray(commands) && commands.length === 0) {
    throw new TypeError("Commands to draw from are missing");
  }
  const histories = historyOf({ commands, queries, naQueries, maxCommands });
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  await serialised(async () => {
    for (const trial of trials) await tryOut(trial, histories, seed, init);
  });
}

/** Makes one experiment with many histories; of one that shows a breach, the smallest is reported. */
async function tryOut(
  trial: Trial,
  histories: fc.Arbitrary<History>,
  seed: number,
  init: LabInit,
): Promise<void> {
  const { options } = init;
  const search = new Search(trial, init);
  const details = await fc.check(
    fc.asyncProperty(histories, (history) => search.run(history)),
    {
      seed,
      numRuns: options.runs ?? 25,
      ...(options.path !== undefined && { path: options.path }),
    },
  );
  if (!details.failed) return;
  // Not the machine's: the suite's options, or the suite itself.
  if (search.found === undefined) throw details.errorInstance;
  await search.simplify();
  const { breach, history } = search.found;
  throw new ContractViolation({
    rule: breach.rule,
    detail: breach.message,
    commands: history.steps.map(({ cmd }) => cmd),
    story: storyOf(history, init.type === OnDiskStateMachine),
    seed: details.seed,
    path: details.counterexamplePath ?? "",
  }, breach.cause === undefined ? undefined : { cause: breach.cause });
}

/** One experiment, on its way to the smallest history that shows the breach it has found. */
class Search {
  readonly #trial: Trial;
  readonly #init: LabInit;
  #hangs = 0;
  #closes = true;
  /** The smallest so far: fast-check goes on only from what is smaller. */
  found: { readonly breach: Breach; readonly history: History } | undefined;

  constructor(trial: Trial, init: LabInit) {
    this.#trial = trial;
    this.#init = init;
  }

  async run(history: History): Promise<void> {
    // Each costs the whole timeout: better a longer history than a long wait.
    if (this.#hangs >= HANGS_MAX) return;
    const breach = await this.#try(history);
    if (breach === undefined) return;
    // Another rule, broken on the way to a smaller history, is another story.
    if (this.found !== undefined && this.found.breach.rule !== breach.rule) {
      return;
    }
    this.found = { breach, history };
    throw breach;
  }

  /** Takes out what fast-check had to leave: the step a snapshot follows, which it cannot move. */
  async simplify(): Promise<void> {
    let at = 0;
    while (this.found !== undefined && at < this.found.history.steps.length) {
      const { history } = this.found;
      await this.run(without(history, at)).catch(() => {});
      // Without one step another one may have become superfluous.
      at = this.found.history === history ? at + 1 : 0;
    }
  }

  /** Makes the experiment once; what is thrown and no breach is not the machine's. */
  async #try(history: History): Promise<Breach | undefined> {
    const lab = new Lab(this.#init);
    let breach: Breach | undefined;
    let hung: Breach | undefined;
    try {
      await this.#trial.run(lab, history);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      breach = error;
    } finally {
      hung = await lab.end(this.#closes);
    }
    if (hung !== undefined) this.#closes = false;
    if (hung !== undefined || breach?.hung) this.#hangs++;
    return breach ?? hung;
  }
}
