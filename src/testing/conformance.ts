/**
 * Shared parts of the conformance suites: cases that run under any test runner.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** Case of a conformance suite, ready to run. */
export interface ConformanceCase {
  /** Rule of the specification that the case checks. */
  readonly rule: string;
  /** Rule and behaviour, for the name of a test. */
  readonly name: string;
  /** Runs the case on a new instance of the port; rejects if the rule is broken. */
  run(): Promise<void>;
}

/** Port that a suite opens and closes. */
interface Closable {
  close(): MaybePromise<void>;
}

/** Functions by which a suite gets instances of a port. */
interface PortOptions<P> {
  create(): MaybePromise<P>;
  reopen?: ((port: P) => MaybePromise<P>) | undefined;
}

/** Argument of a case: the instance of a port that it checks. */
export interface PortContext<P> {
  /** Instance of the port, closed when the case ends. */
  readonly port: P;
  /** Creates another instance, which the case has to close. */
  create(): MaybePromise<P>;
  /**
   * Closes the instance, calls `change`, and opens the data left behind, or
   * returns the same instance for a port in memory. Closed when the case ends.
   */
  reopen(change?: (closed: P) => MaybePromise<void>): Promise<P>;
}

/** Entry in the table of a conformance suite. */
export interface CaseDefinition<Context> {
  /** Rule of the specification that the case checks. */
  readonly rule: string;
  /** Behaviour that the case checks. */
  readonly name: string;
  /** Options without which the case is left out. */
  readonly needs?: readonly ("reopen" | "damage")[];
  /** Throws unless the port behaves as named. */
  run(context: Context): Promise<void>;
}

/** Turns a table of cases into cases on the ports that `options` creates. */
export function conformanceCases<P extends Closable, O extends PortOptions<P>>(
  cases: readonly CaseDefinition<PortContext<P> & { readonly options: O }>[],
  options: O,
): readonly ConformanceCase[] {
  const given = options as Readonly<Record<string, unknown>> & O;
  return cases
    .filter(({ needs = [] }) => needs.every((name) => given[name]))
    .map(({ rule, name, run }) => ({
      rule,
      name: `${rule} ${name}`,
      run: () => runOnPort(options, run),
    }));
}

async function runOnPort<P extends Closable, O extends PortOptions<P>>(
  options: O,
  run: (context: PortContext<P> & { readonly options: O }) => Promise<void>,
): Promise<void> {
  const { reopen } = options;
  let current = await options.create();
  try {
    await run({
      port: current,
      options,
      create: () => options.create(),
      async reopen(change): Promise<P> {
        if (reopen === undefined) return current;
        await current.close();
        await change?.(current);
        return current = await reopen(current);
      },
    });
  } finally {
    await current.close();
  }
}

/** Throws an error with the message unless the condition holds. */
export function check(
  condition: unknown,
  message: string,
): asserts condition {
  if (!condition) throw new Error(message);
}

/** Throws unless `body` throws an error that `isExpected` accepts. */
export async function checkThrows(
  call: string,
  isExpected: (error: unknown) => boolean,
  body: () => unknown,
): Promise<void> {
  try {
    await body();
  } catch (error) {
    check(isExpected(error), `${call} threw an unexpected error: ${error}`);
    return;
  }
  throw new Error(`${call} did not throw`);
}

/** Makes bytes that differ by `seed` and by offset. */
export function makeBytes(
  length: number,
  seed: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = seed + i * 31 + (i >> 8);
  return bytes;
}
