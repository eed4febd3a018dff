/**
 * Real browser driven from a test, with the same interface for every engine.
 *
 * This module needs Deno.
 *
 * @module
 */

/** Browser engines under test. */
export type Engine = "Chromium" | "Firefox" | "WebKitGTK";

/** Engines in the order in which they are tested. */
export const ENGINES: readonly Engine[] = ["Chromium", "Firefox", "WebKitGTK"];

/** Page that is open in a browser. */
export interface Page {
  /**
   * Evaluates an expression in the page and awaits its value, which travels as
   * JSON.
   */
  evaluate(expression: string, timeoutMs: number): Promise<unknown>;
  /** Reloads the page. */
  reload(): Promise<void>;
  /** Calls a method of the DevTools protocol (Chromium only). */
  devtools?(
    method: string,
    params?: Readonly<Record<string, unknown>>,
  ): Promise<unknown>;
  /**
   * Evaluates like `evaluate()`, and measures the processor time of the longest task
   * of the page's main thread in that time, in milliseconds (Chromium only).
   */
  traceTasks?(
    expression: string,
    timeoutMs: number,
  ): Promise<{ readonly value: unknown; readonly longestCpuMs: number }>;
  /** Closes the page and aborts its operations in progress. */
  close(): Promise<void>;
}

/** Running browser. */
export interface Browser {
  /** Engine of the browser. */
  readonly engine: Engine;
  /** Id of the process from which all others of the browser descend. */
  readonly pid: number;
  /** Opens a page; resolves once its modules have run. */
  open(url: string): Promise<Page>;
  /** Kills every process of the browser with SIGKILL, like a crash. */
  kill(): Promise<void>;
  /** Closes the browser. */
  close(): Promise<void>;
}

/** Options of `launch()`. */
export interface LaunchOptions {
  /**
   * Profile folder. By default a new one, removed when the browser is closed.
   */
  readonly profile?: string;
}

/** Timeout of a browser's start, in milliseconds. A busy machine is slow. */
export const LAUNCH_MS_MAX = 60_000;

/** Timeout of a page load, in milliseconds. */
export const LOAD_MS_MAX = 30_000;

/**
 * Time after which a browser that does not close is killed, in milliseconds.
 */
export const CLOSE_MS_MAX = 10_000;

/**
 * Resolves like `promise`; rejects if it does not settle within the timeout.
 */
export async function within<T>(
  ms: number,
  what: string,
  promise: Promise<T>,
): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Error(`${what} took longer than ${ms} ms`)),
    ms,
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Ids of the descendants of a process, parents first. */
export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      // The process name before it may contain anything, also parentheses and
      // spaces.
      const parent = Number(
        stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1],
      );
      children.set(parent, [...children.get(parent) ?? [], Number(name)]);
    } catch {
      // It has ended by now.
    }
  }
  const found = [pid];
  for (const one of found) found.push(...children.get(one) ?? []);
  return found.slice(1);
}

/** Sends SIGKILL to processes; ignores those that have ended. */
export function killAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
  }
}

/** Waits until all of these processes have ended. */
export async function gone(pids: readonly number[]): Promise<void> {
  const isThere = (pid: number): boolean => {
    try {
      const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
      return stat.slice(stat.lastIndexOf(")") + 2)[0] !== "Z";
    } catch {
      return false;
    }
  };
  for (let waited = 0; pids.some(isThere); waited += 10) {
    if (waited > CLOSE_MS_MAX) {
      throw new Error(
        `Processes ${pids.join(", ")} have not ended after SIGKILL`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Kills these processes when this process ends before they are released,
 * however it ends: an interrupted test run leaves no browser behind.
 */
export function guard(pids: readonly number[]): { release(): Promise<void> } {
  const child = new Deno.Command("/bin/sh", {
    // The input of the shell ends when this process does.
    args: ["-c", `trap '' HUP INT TERM; read _ || kill -9 ${pids.join(" ")}`],
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  return {
    async release(): Promise<void> {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("\n"));
      await writer.close();
      await child.status;
    },
  };
}

/** Removes a folder into which a process may still be writing. */
export async function removeFolder(path: string): Promise<void> {
  for (let tries = 0;; tries++) {
    try {
      return await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      if (tries === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Starts a browser. */
export async function launch(
  engine: Engine,
  options: LaunchOptions = {},
): Promise<Browser> {
  if (engine === "WebKitGTK") {
    const { launchWebKit } = await import("./webkit.ts");
    return await launchWebKit(options);
  }
  const { launchWithPuppeteer } = await import("./puppeteer.ts");
  return await launchWithPuppeteer(engine, options);
}
