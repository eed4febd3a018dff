/**
 * Runs test cases in a page.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Test case for a page; fails by throwing. */
export interface Case {
  /** Name that is shown. */
  readonly name: string;
  /** Runs the case. */
  run(): Promise<void> | void;
}

/** Result of a case. */
export interface CaseResult {
  /** Error and its stack; undefined if the case passed. */
  readonly error?: string;
  /** Duration, in milliseconds. */
  readonly ms: number;
}

/**
 * Error with its message and stack; WebKit and Firefox leave the message out of
 * the stack.
 */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { stack = "", cause } = error;
  const text = stack.includes(error.message) ? stack : `${error}\n${stack}`;
  return cause === undefined ? text : `${text}\nCaused by ${describe(cause)}`;
}

/**
 * Makes a module's exports available to the test as `page`, and its cases
 * runnable with `page.runCase(i)`.
 */
export function start(
  module: Record<string, unknown> & { readonly cases?: readonly Case[] },
): void {
  // An unhandled rejection fails the case during which it happens, as in Deno.
  let stray: unknown[] = [];
  addEventListener(
    "error",
    ({ error, message }) => stray.push(error ?? message),
  );
  addEventListener("unhandledrejection", ({ reason }) => stray.push(reason));
  const now = performance.now.bind(performance);
  const page = {
    ...module,
    async runCase(i: number): Promise<CaseResult> {
      stray = [];
      const began = now();
      try {
        await module.cases![i]!.run();
        await new Promise((resolve) => setTimeout(resolve));
      } catch (error) {
        return { error: describe(error), ms: now() - began };
      }
      const ms = now() - began;
      return stray.length === 0 ? { ms } : {
        error: `Unhandled rejection: ${stray.map(describe).join("\n")}`,
        ms,
      };
    },
  };
  Object.assign(globalThis, { page });
}
