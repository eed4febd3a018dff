/**
 * Chromium over the DevTools protocol, Firefox over WebDriver BiDi.
 *
 * This module needs Deno.
 *
 * @module
 */

import puppeteer, {
  type Browser as PuppeteerBrowser,
  type CDPSession,
  type Page as PuppeteerPage,
} from "puppeteer-core";
import {
  type Browser,
  CLOSE_MS_MAX,
  descendants,
  type Engine,
  gone,
  guard,
  killAll,
  LAUNCH_MS_MAX,
  type LaunchOptions,
  LOAD_MS_MAX,
  type Page,
  removeFolder,
  within,
} from "./browser.ts";
import { program } from "./install.ts";

const FLAGS = {
  Chromium: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--password-store=basic",
    // A container may limit shared memory to 64 MB.
    "--disable-dev-shm-usage",
  ],
  Firefox: ["--headless", "--no-remote"],
} as const;

/**
 * Settings that keep Firefox from prompting, restoring sessions, updating and
 * contacting its vendor; its remote agent sets the rest.
 */
const FIREFOX_SETTINGS = {
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.sessionstore.resume_from_crash": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "remote.active-protocols": 1,
  "toolkit.startup.max_resumed_crashes": -1,
  "toolkit.telemetry.enabled": false,
};

/**
 * Starts a browser and waits until it prints the address it listens on. The
 * driver's own launcher leaves a profile locked after a kill.
 */
async function start(
  engine: keyof typeof FLAGS,
  profile: string,
): Promise<{ child: Deno.ChildProcess; endpoint: string }> {
  if (engine === "Firefox") {
    const lines = Object.entries(FIREFOX_SETTINGS).map(([name, value]) =>
      `user_pref(${JSON.stringify(name)}, ${value});\n`
    );
    await Deno.writeTextFile(`${profile}/user.js`, lines.join(""));
  }
  const child = new Deno.Command(program(engine.toLowerCase()), {
    args: [
      ...FLAGS[engine],
      "--remote-debugging-port=0",
      ...(engine === "Firefox"
        ? ["--profile", profile]
        : [`--user-data-dir=${profile}`, "about:blank"]),
    ],
    // Firefox writes outside its profile, and a killed Chromium leaves its
    // temporary folders.
    env: { HOME: profile, TMPDIR: profile },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const said = child.stderr.pipeThrough(new TextDecoderStream());
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  // Drained to the end: a full pipe would block the browser.
  (async () => {
    let text = "";
    for await (const chunk of said) {
      text = (text + chunk).slice(-10_000);
      const found = /listening on (ws:\S+)\s/.exec(text)?.[1];
      if (found !== undefined) resolve(found);
    }
    reject(new Error(`${engine} has ended: ${text}`));
  })().catch(reject);
  try {
    const endpoint = await within(LAUNCH_MS_MAX, `Starting ${engine}`, promise);
    return { child, endpoint };
  } catch (error) {
    killAll([child.pid, ...descendants(child.pid)]);
    await child.status;
    throw error;
  }
}

/** Marks in a trace where an expression begins and where its value is known. */
const BEGIN = "expression begins";
const END = "expression ends";

/** Event of a trace, as far as it is read here. Times are in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  /** Processor time of a task. */
  readonly tdur?: number;
}

/** Processor time of the longest task between the marks, in milliseconds. */
function longestCpuMs(trace: Uint8Array): number {
  const { traceEvents } = JSON.parse(new TextDecoder().decode(trace)) as {
    traceEvents: TraceEvent[];
  };
  const begin = traceEvents.find(({ name }) => name === BEGIN)!;
  const end = traceEvents.find(({ name }) => name === END)!;
  const tasks = traceEvents.filter(({ name, pid, tid, ts }) =>
    name.endsWith("RunTask") && pid === begin.pid && tid === begin.tid &&
    ts > begin.ts && ts < end.ts
  );
  return Math.max(...tasks.map(({ tdur = 0 }) => tdur)) / 1000;
}

function pageOf(page: PuppeteerPage, engine: Engine): Page {
  let session: Promise<CDPSession> | undefined;
  const devtools: Page["devtools"] = async (method, params) => {
    // One session for all calls: its settings last as long as it does.
    session ??= page.createCDPSession();
    return await (await session).send(
      method as "Storage.clearDataForOrigin",
      params as never,
    );
  };
  const evaluate: Page["evaluate"] = async (expression, timeoutMs) => {
    const json = await within(
      timeoutMs,
      "Expression",
      page.evaluate(
        `(async () => JSON.stringify(await (${expression})) ?? "null")()`,
      ),
    );
    return JSON.parse(json as string);
  };
  const traceTasks: Page["traceTasks"] = async (expression, timeoutMs) => {
    await page.tracing.start({ categories: ["toplevel", "blink.user_timing"] });
    const value = await evaluate(
      `(async () => {
        performance.mark("${BEGIN}");
        // The expression begins in a task of its own.
        await new Promise((resolve) => setTimeout(resolve));
        const value = await (${expression});
        performance.mark("${END}");
        return value;
      })()`,
      timeoutMs,
    );
    const trace = await page.tracing.stop();
    return { value, longestCpuMs: longestCpuMs(trace!) };
  };
  return {
    ...(engine === "Chromium" ? { devtools, traceTasks } : {}),
    evaluate,
    async reload(): Promise<void> {
      await within(LOAD_MS_MAX, "Reload", page.reload());
    },
    async close(): Promise<void> {
      await within(CLOSE_MS_MAX, "Closing a page", page.close());
    },
  };
}

/**
 * Upper bound of the driver's timeout, in milliseconds; each call has its own.
 */
const PROTOCOL_MS_MAX = 3_600_000;

/**
 * Waits for the driver to finish, with or without an error, for a limited time.
 */
async function settled(done: Promise<void>): Promise<void> {
  try {
    await within(CLOSE_MS_MAX, "Closing", done);
  } catch {
    // The processes are ended by their ids.
  }
}

/** Starts Chromium or Firefox. */
export async function launchWithPuppeteer(
  engine: Exclude<Engine, "WebKitGTK">,
  { profile }: LaunchOptions,
): Promise<Browser> {
  const folder = profile ?? await Deno.makeTempDir({ prefix: "profile-" });
  const { child, endpoint } = await start(engine, folder);
  const { pid } = child;
  const guarded = guard([pid]);
  let ended = false;
  /**
   * Ends the browser, once: later its process id may belong to another process.
   */
  const end = async (first?: () => Promise<void>): Promise<void> => {
    if (ended) return;
    ended = true;
    const pids = [pid, ...descendants(pid)];
    await first?.();
    killAll(pids);
    await guarded.release();
    await child.status;
    await gone(pids);
    if (profile === undefined) await removeFolder(folder);
  };
  let browser: PuppeteerBrowser;
  try {
    browser = await within(
      LAUNCH_MS_MAX,
      `Connecting to ${engine}`,
      engine === "Chromium"
        ? puppeteer.connect({
          browserWSEndpoint: endpoint,
          protocolTimeout: PROTOCOL_MS_MAX,
        })
        : puppeteer.connect({
          browserWSEndpoint: `${endpoint}/session`,
          protocol: "webDriverBiDi",
          protocolTimeout: PROTOCOL_MS_MAX,
        }),
    );
  } catch (error) {
    await end();
    throw error;
  }
  return {
    engine,
    pid,
    async open(url): Promise<Page> {
      const page = await within(LOAD_MS_MAX, "A page", browser.newPage());
      await page.goto(url, { timeout: LOAD_MS_MAX, waitUntil: "load" });
      return pageOf(page, engine);
    },
    kill: () => end(),
    close: () => end(() => settled(browser.close())),
  };
}
