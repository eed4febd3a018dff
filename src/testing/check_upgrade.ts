/**
 * Comparison of two versions of a typed definition.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isSameBytes } from "../bytes.ts";
import { fc } from "../deps/fast_check.ts";
import {
  checkOptions,
  isCount,
  optional,
  type OptionChecks,
} from "../options.ts";
import { ErrNewerCode, SampanError } from "../statemachine/errors.ts";
import type { Entry, Result } from "../statemachine/types.ts";
import { isSameAnswer } from "../watch/same_answer.ts";
import { decodeCommand } from "../typed/command.ts";
import { coreOf, type TypedMachine, type TypedQuery } from "../typed/core.ts";
import type { MachineDefinition } from "../typed/mod.ts";
import { decodePlain } from "../typed/plain.ts";
import { codeOf, valueOf } from "../typed/result.ts";
import { type ArgumentSamples, commandsOf, showCommand } from "./arguments.ts";
import {
  type CheckMachineOptions,
  MACHINE_CHECKS,
  queriesOf,
  wholeState,
} from "./check_machine.ts";
import { show } from "./value.ts";

/** Options of {@linkcode checkUpgrade}. */
export interface CheckUpgradeOptions<I = unknown, Q = unknown>
  extends Omit<CheckMachineOptions<I, Q>, "queries"> {
  /**
   * Lists of arguments of queries that both versions must answer alike, by the name
   * of the query.
   *
   * @default {those of both versions without arguments, if the version of the state is the same}
   */
  readonly queries?: CheckMachineOptions<I, Q>["queries"];
}

const CHECKS: OptionChecks<CheckUpgradeOptions> = {
  ...MACHINE_CHECKS,
  maxCommands: optional(isCount(1)),
};

/** Fields of an {@linkcode UpgradeViolation}. */
export interface UpgradeViolationInit {
  /** Description of the difference. */
  readonly detail: string;
  /** Smallest sequence of commands found that shows the difference. */
  readonly commands: readonly Uint8Array[];
  /** Seed of the run. */
  readonly seed: number;
  /** Path of the counterexample in that run. */
  readonly path: string;
}

/**
 * Thrown when a new version of a definition does not do what the old one did. The
 * message has the difference and the smallest sequence of commands found that
 * shows it; `seed` and `path`, passed as options, repeat exactly that case.
 */
export class UpgradeViolation extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "UpgradeViolation";
  /** Description of the difference. */
  readonly detail: string;
  /** Smallest sequence of commands found that shows the difference, in log order. */
  readonly commands: readonly Uint8Array[];
  /** Seed of the run; pass it as an option to repeat the run. */
  readonly seed: number;
  /** Path of the counterexample in that run; with the seed it repeats that case alone. */
  readonly path: string;

  /** Creates an error for a difference. */
  constructor({ detail, commands, seed, path }: UpgradeViolationInit) {
    const history = commands.map((cmd, i) => `  ${i + 1}. ${showCommand(cmd)}`);
    super(
      `${detail}\nSmallest history that shows it:\n${
        history.join("\n")
      }\nName the change and ask ctx.since(), or keep what the code did. Repeat it with { seed: ${seed}, path: "${path}" }`,
    );
    this.detail = detail;
    this.commands = commands;
    this.seed = seed;
    this.path = path;
  }
}

/** Difference of two versions in one history, before the history is shrunk. */
class Difference extends Error {}

/** Definition with its types erased. */
type AnyDefinition = Pick<
  MachineDefinition,
  "name" | "version" | "create" | "validate"
>;

/**
 * Checks that a new version of a typed definition does for every command of the
 * old one what the old one did, as long as no change that only the new one names
 * is active: the same result, the same answers, and the state that `migrate` makes
 * of the old one. Also that the new server accepts what old devices have queued.
 *
 * Both versions apply random histories of commands of the old version, which the
 * new one brings up to date by `upcast`.
 *
 * ```ts ignore
 * await checkUpgrade(boardV1, board, { commands: { add: [{ id: "a", title: "rice" }] } });
 * ```
 *
 * @throws UpgradeViolation with the smallest history in which the two differ
 * @throws TypeError for two different machines, and for a command whose arguments were not given and cannot be drawn
 */
export async function checkUpgrade<OS, I, OR, OQ, S, NI, R, Q>(
  old: MachineDefinition<OS, I, OR, OQ>,
  next: MachineDefinition<S, NI, R, Q>,
  options: CheckUpgradeOptions<I, OQ> = {},
): Promise<void> {
  checkOptions("Options of checkUpgrade()", options, CHECKS);
  if (old.name !== next.name || old.version > next.version) {
    throw new TypeError(
      `Machine ${next.name} with state version ${next.version} is no newer version of ${old.name} with ${old.version}`,
    );
  }
  const { maxCommands: maxLength = 12, runs = 100, toJSONSchema } = options;
  const core = coreOf(old);
  const queries = answeredAlike(old, next, options.queries);
  let found: { detail: string; commands: readonly Uint8Array[] } | undefined;
  const histories = fc.array(
    commandsOf(core, {
      commands: options.commands as ArgumentSamples | undefined,
      toJSONSchema,
    }),
    { minLength: 1, maxLength, size: "max" },
  );
  const details = await fc.check(
    fc.asyncProperty(histories, async (commands) => {
      const detail = await difference(old, next, commands, queries);
      if (detail === undefined) return;
      found = { detail, commands };
      throw new Difference(detail);
    }),
    {
      numRuns: runs,
      ...(options.seed !== undefined && { seed: options.seed }),
      ...(options.path !== undefined && { path: options.path }),
    },
  );
  if (!details.failed) return;
  // An error of the options, or of the code that is checked.
  if (!(details.errorInstance instanceof Difference) || found === undefined) {
    throw details.errorInstance;
  }
  const path = details.counterexamplePath ?? "";
  throw new UpgradeViolation({ ...found, seed: details.seed, path });
}

function answeredAlike(
  old: AnyDefinition,
  next: AnyDefinition,
  given: Parameters<typeof queriesOf>[1] = {},
): TypedQuery[] {
  const { queries: known } = coreOf(next);
  return queriesOf(coreOf(old), given).filter(({ name }) =>
    known.has(name) &&
    (Object.hasOwn(given, name) || old.version === next.version)
  );
}

/** Describes the first difference of two versions in a history; undefined if they do the same. */
async function difference(
  old: AnyDefinition,
  next: AnyDefinition,
  commands: readonly Uint8Array[],
  queries: readonly TypedQuery[],
): Promise<string | undefined> {
  const before = old.create();
  const after = next.create();
  for (const [i, cmd] of commands.entries()) {
    const number = `Command ${i + 1}`;
    const refused = await newRefusal(old, next, cmd);
    if (refused !== undefined) {
      return `${number} is refused by the new server: ${refused}`;
    }
    const expected = apply(before, i + 1, cmd);
    let actual: Result;
    try {
      actual = apply(after, i + 1, cmd);
    } catch (error) {
      if (!(error instanceof ErrNewerCode)) throw error;
      return `${number} is not known to the new code: ${error.message}`;
    }
    if (showResult(expected) !== showResult(actual)) {
      return `${number} has the result ${
        showResult(expected)
      } in the old code, and ${showResult(actual)} in the new code`;
    }
    const found = await differentState(next, before, after) ??
      differentAnswer(before, after, queries);
    if (found !== undefined) return `After command ${i + 1}, ${found}`;
  }
  return undefined;
}

/** Reason for which only the new server refuses a queued command. */
async function newRefusal(
  old: AnyDefinition,
  next: AnyDefinition,
  cmd: Uint8Array,
): Promise<string | undefined> {
  const { name, by } = decodeCommand(cmd)!;
  if (name === "") return undefined;
  const principal = { id: by ?? "" };
  if (await old.validate(principal, cmd) !== undefined) return undefined;
  try {
    return await next.validate(principal, cmd);
  } catch (error) {
    if (error instanceof ErrNewerCode) return error.message;
    throw error;
  }
}

function apply(machine: TypedMachine, index: number, cmd: Uint8Array): Result {
  const entry: Entry = { index, cmd };
  // Never rejects: a typed machine updates at once.
  void machine.update([entry]);
  return entry.result!;
}

function showResult(result: Result): string {
  const code = codeOf(result);
  return code === undefined ? show(valueOf(result)) : `rejection "${code}"`;
}

async function differentState(
  next: AnyDefinition,
  before: TypedMachine,
  after: TypedMachine,
): Promise<string | undefined> {
  const migrated = await recovered(next, before);
  const expected = migrated.lookup(wholeState) as Uint8Array;
  const actual = after.lookup(wholeState) as Uint8Array;
  if (
    isSameBytes(expected, actual) && migrated.getHash() === after.getHash()
  ) return undefined;
  return `the state of the old code, migrated, is ${
    show(decodePlain(expected))
  }, and that of the new code ${show(decodePlain(actual))}`;
}

/** Machine of the new version that has recovered from a snapshot of the old one. */
async function recovered(
  next: AnyDefinition,
  before: TypedMachine,
): Promise<TypedMachine> {
  const chunks: Uint8Array[] = [];
  const { signal } = new AbortController();
  await before.saveSnapshot(
    before.prepareSnapshot(),
    new WritableStream({ write: (chunk) => void chunks.push(chunk) }),
    { addFile(): void {} },
    signal,
  );
  const machine = next.create();
  await machine.recoverFromSnapshot(
    new ReadableStream({
      pull(controller): void {
        const chunk = chunks.shift();
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
    }),
    [],
    signal,
  );
  return machine;
}

function differentAnswer(
  before: TypedMachine,
  after: TypedMachine,
  queries: readonly TypedQuery[],
): string | undefined {
  for (const query of queries) {
    const expected = before.lookup(query);
    const actual = after.lookup(query);
    if (!isSameAnswer(expected, actual)) {
      return `query ${query.name}(${
        query.args.map(show).join(", ")
      }) is answered with ${show(expected)} by the old code, and with ${
        show(actual)
      } by the new code`;
    }
  }
  return undefined;
}
