/**
 * What the suite throws when a machine breaks a rule of the contract.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** What a {@linkcode ContractViolation} is made of. */
export interface ContractViolationInit {
  /** The id of the rule, such as `R12`. */
  readonly rule: string;
  /** How the rule was seen to be broken. */
  readonly detail: string;
  /** The smallest sequence of commands found that shows it. */
  readonly commands: readonly Uint8Array[];
  /** The same commands as lines to read, with what happened between them. */
  readonly story: string;
  /** The seed of the run. */
  readonly seed: number;
  /** Where in that run the counterexample is. */
  readonly path: string;
}

/**
 * A machine breaks a rule of the contract. The message shows the rule, how it
 * was broken and the smallest sequence of commands that was found to show it;
 * `seed` and `path`, given back as options, repeat exactly that case.
 */
export class ContractViolation extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ContractViolation";
  /** The id of the rule that is broken, such as `R12`. */
  readonly rule: string;
  /** How the rule was seen to be broken. */
  readonly detail: string;
  /** The smallest sequence of commands found that shows it, in log order. */
  readonly commands: readonly Uint8Array[];
  /** The seed of the run; the option of that name repeats it. */
  readonly seed: number;
  /** Where in that run the counterexample is; with the seed it repeats this case alone. */
  readonly path: string;

  /** An error for a broken rule; `cause` is what the machine threw, if it did. */
  constructor(init: ContractViolationInit, options?: ErrorOptions) {
    super(
      `${init.rule}: ${init.detail}\n` +
        `Smallest history that shows it:\n${init.story}\n` +
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

/** A rule found broken in one history, before the history is made smaller. */
export class Breach extends Error {
  /** The id of the rule. */
  readonly rule: string;
  /** Whether a promise that did not settle is what was seen; such cases are slow to repeat. */
  readonly hung: boolean;

  /** A breach of `rule`. */
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
