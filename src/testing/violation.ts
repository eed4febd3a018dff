/**
 * Errors of the contract suite.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** Fields of a {@linkcode ContractViolation}. */
export interface ContractViolationInit {
  /** Id of the rule, such as `R12`. */
  readonly rule: string;
  /** Description of the breach. */
  readonly detail: string;
  /** Smallest sequence of commands found that shows the breach. */
  readonly commands: readonly Uint8Array[];
  /** The same history as text, one step a line. */
  readonly history: string;
  /** Seed of the run. */
  readonly seed: number;
  /** Path of the counterexample in that run. */
  readonly path: string;
}

/**
 * Thrown when a machine breaks a rule of the contract. The message has the
 * rule, a description and the smallest sequence of commands found that shows
 * the breach; `seed` and `path`, passed as options, repeat exactly that case.
 */
export class ContractViolation extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ContractViolation";
  /** Id of the broken rule, such as `R12`. */
  readonly rule: string;
  /** Description of the breach. */
  readonly detail: string;
  /** Smallest sequence of commands found that shows the breach, in log order. */
  readonly commands: readonly Uint8Array[];
  /** Seed of the run; pass it as an option to repeat the run. */
  readonly seed: number;
  /** Path of the counterexample in that run; with the seed it repeats that case alone. */
  readonly path: string;

  /** Creates an error for a broken rule; `cause` is the machine's error, if it threw. */
  constructor(init: ContractViolationInit, options?: ErrorOptions) {
    super(
      `${init.rule}: ${init.detail}\n` +
        `Smallest history that shows it:\n${init.history}\n` +
        `Repeat it with { seed: ${init.seed}, path: "${init.path}" }`,
      options,
    );
    this.rule = init.rule;
    this.detail = init.detail;
    this.commands = init.commands;
    this.seed = init.seed;
    this.path = init.path;
  }
}

/** Broken rule in one history, before the history is shrunk. */
export class Breach extends Error {
  /** Id of the rule. */
  readonly rule: string;
  /** True if the evidence is a hanging promise; such cases are slow to repeat. */
  readonly hung: boolean;

  /** Creates a breach of `rule`. */
  constructor(
    rule: string,
    detail: string,
    options: { readonly hung?: boolean; readonly cause?: unknown } = {},
  ) {
    super(
      detail,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = "Breach";
    this.rule = rule;
    this.hung = options.hung ?? false;
  }
}
