/**
 * A real browser, driven from a test: the same few things in every engine.
 *
 * This module needs Deno.
 *
 * @module
 */

/** The engines everything is tried in. */
export type Engine = "Chromium" | "Firefox" | "WebKitGTK";

/** The engines, in the order they are tried in. */
export const ENGINES: readonly Engine[] = ["Chromium", "Firefox", "WebKitGTK"];

/** A page that is open. */
export interface Page {
  /** The value of an expression in the page, awaited there; it travels as JSON. */
  evaluate(expression: string, timeoutMs: number): Promise<unknown>;
  /** Loads the page anew. */
  reload(): Promise<void>;
  /** Calls a method of the DevTools protocol; only Chromium has it. */
  devtools?(
    method: string,
    params?: Readonly<Record<string, unknown>>,
  ): Promise<unknown>;
  /** Closes the page, and what is under way in it. */
  close(): Promise<void>;
}

/** A browser that runs. */
export interface Browser {
  /** Which it is. */
  readonly engine: Engine;
  /** Opens a page, and resolves once its modules have run. */
  open(url: string): Promise<Page>;
  /** Ends it as a crash would: with SIGKILL, and every process of it at once. */
  kill(): Promise<void>;
  /** Closes it. */
  close(): Promise<void>;
}

/** How a browser is to be started. */
export interface LaunchOptions {
  /** The folder of what it keeps; a new one, gone when it is closed, by default. */
  readonly profile?: string;
}

/** What a browser may take to start, in milliseconds. A busy machine is slow. */
export const LAUNCH_MS_MAX = 60_000;

/** What a page may take to load, in milliseconds. */
export const LOAD_MS_MAX = 30_000;

/** What a browser may take to close before it is killed, in milliseconds. */
export const CLOSE_MS_MAX = 10_000;

/** What `promise` resolves to, or an error if it does not in time. */
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

/** The processes below this one, from the top down, by id. */
export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      // The name before it may hold anything, also parentheses and spaces.
      const parent = Number(
        stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1],
      );
      children.set(parent, [...children.get(parent) ?? [], Number(name)]);
    } catch {
      // It has ended meanwhile.
    }
  }
  const found = [pid];
  for (const one of found) found.push(...children.get(one) ?? []);
  return found.slice(1);
}

/** Ends these processes with SIGKILL; harmless for those that have ended. */
export function killAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
  }
}

/** Waits until none of these processes is left. */
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
    if (waited > CLOSE_MS_MAX) throw new Error("A process does not end");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Has these processes ended should this one end before they are released,
 * however that comes: an interrupted test run leaves no browser behind.
 */
export function guard(pids: readonly number[]): { release(): Promise<void> } {
  const child = new Deno.Command("/bin/sh", {
    // Its input ends when this process does.
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

/** Removes a folder that a process may still be writing into. */
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
