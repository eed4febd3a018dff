/**
 * What runs in a page under test.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** One thing to try in a page; fails by throwing. */
export interface Case {
  /** What is shown. */
  readonly name: string;
  /** Tries it. */
  run(): Promise<void> | void;
}

/** How a case ended: what it failed with, if it did. */
export interface CaseResult {
  /** The error and where it comes from; undefined if the case passed. */
  readonly error?: string;
  /** How long it took, in milliseconds. */
  readonly ms: number;
}

/** An error with its message and its stack; WebKit and Firefox leave the message out of the stack. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { stack = "", cause } = error;
  const text = stack.includes(error.message) ? stack : `${error}\n${stack}`;
  return cause === undefined ? text : `${text}\nCaused by ${describe(cause)}`;
}

/** Makes a module's exports reachable for the test as `page`, and its cases runnable by `page.runCase(i)`. */
export function start(
  module: Record<string, unknown> & { readonly cases?: readonly Case[] },
): void {
  // What nobody awaits fails the case it happens in, as it does in Deno.
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
        error: `Nobody awaits what failed: ${stray.map(describe).join("\n")}`,
        ms,
      };
    },
  };
  Object.assign(globalThis, { page });
}
