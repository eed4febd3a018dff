/**
 * WebKitGTK over the WebDriver protocol, which is JSON over HTTP.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  type Browser,
  CLOSE_MS_MAX,
  descendants,
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
import { freePort } from "../../web/free_ports.ts";
import { sleep } from "../sync/server_process.ts";
import { program } from "./install.ts";

/** Milliseconds until the driver has a command that was sent to it. */
const SENT_MS = 50;

/** Virtual display: WebKitGTK does not start without one. */
interface Display {
  readonly name: string;
  readonly pid: number;
  close(): Promise<void>;
}

async function openDisplay(): Promise<Display> {
  const child = new Deno.Command(program("xvfb"), {
    args: [
      "-displayfd",
      "1",
      "-screen",
      "0",
      "1280x800x24",
      "-nolisten",
      "tcp",
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = child.stdout.getReader();
  const number = async (): Promise<string> => {
    let text = "";
    while (!text.includes("\n")) {
      const { done, value } = await reader.read();
      if (done) {
        throw new Error(
          `Xvfb ended without a display number: "${text}"`,
        );
      }
      text += new TextDecoder().decode(value);
    }
    return text.trim();
  };
  const close = async (): Promise<void> => {
    killAll([child.pid]);
    await child.status;
    await reader.cancel().catch(() => {});
  };
  try {
    const name = `:${await within(LAUNCH_MS_MAX, "Xvfb", number())}`;
    return { name, pid: child.pid, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Calls the driver; resolves to the value of its response, or rejects with its
 * error.
 */
async function call(
  method: "GET" | "POST" | "DELETE",
  url: string,
  body: unknown,
  timeoutMs: number,
): Promise<unknown> {
  const response = await fetch(url, {
    method,
    signal: AbortSignal.timeout(timeoutMs),
    ...(method === "POST" ? { body: JSON.stringify(body) } : {}),
  });
  const { value } = await response.json() as {
    value: { error?: string; message?: string } | null;
  };
  if (response.ok) return value;
  throw new Error(`WebKit: ${value?.error} ${value?.message}`);
}

/** Resolves once the driver responds. */
async function ready(base: string): Promise<void> {
  for (let waited = 0;; waited += 20) {
    try {
      await call("GET", `${base}/status`, undefined, 1_000);
      return;
    } catch (error) {
      if (waited > LAUNCH_MS_MAX) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Path of a program that starts a browser with its storage in a folder. */
async function launcher(home: string, profile: string): Promise<string> {
  const path = `${home}/browser`;
  const script = new URL("webkit_window.ts", import.meta.url).href;
  await Deno.writeTextFile(
    path,
    `#!/bin/sh\nexec ${Deno.execPath()} run --quiet --no-config --allow-ffi ${script} ${profile}\n`,
    { mode: 0o755 },
  );
  return path;
}

/**
 * Starts WebKitGTK: without a profile the bundled browser, which keeps no
 * storage when it ends; with one `webkit_window.ts`.
 */
export async function launchWebKit(
  { profile }: LaunchOptions,
): Promise<Browser> {
  const home = await Deno.makeTempDir({ prefix: "profile-" });
  const display = await openDisplay();
  const port = freePort();
  const driver = new Deno.Command(program("webkit"), {
    args: ["--host=127.0.0.1", `--port=${port}`],
    env: {
      DISPLAY: display.name,
      GDK_BACKEND: "x11",
      HOME: home,
      XDG_CACHE_HOME: home,
      XDG_DATA_HOME: home,
      // The locale of a container, "C", is no language that Intl knows.
      LANG: "en_US.UTF-8",
      NO_AT_BRIDGE: "1",
      WEBKIT_DISABLE_COMPOSITING_MODE: "1",
    },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let guarded = guard([driver.pid, display.pid]);
  let ended = false;
  const kill = async (): Promise<void> => {
    if (ended) return;
    ended = true;
    await guarded.release();
    // The browser outlives its driver, so its processes are looked up first.
    const pids = [driver.pid, ...descendants(driver.pid)];
    killAll(pids);
    await driver.status;
    await display.close();
    await gone(pids);
    await removeFolder(home);
  };
  try {
    const base = `http://127.0.0.1:${port}`;
    await ready(base);
    const { sessionId } = await call("POST", `${base}/session`, {
      capabilities: {
        alwaysMatch: {
          timeouts: { script: 86_400_000, pageLoad: LOAD_MS_MAX },
          ...(profile === undefined ? {} : {
            "webkitgtk:browserOptions": {
              binary: await launcher(home, profile),
              args: [],
            },
          }),
        },
      },
    }, LAUNCH_MS_MAX) as { sessionId: string };
    await guarded.release();
    guarded = guard([display.pid, driver.pid, ...descendants(driver.pid)]);
    return browserOf(`${base}/session/${sessionId}`, driver.pid, kill);
  } catch (error) {
    await kill();
    throw error;
  }
}

function browserOf(
  session: string,
  pid: number,
  kill: () => Promise<void>,
): Browser {
  const post = (
    path: string,
    body: unknown,
    timeoutMs = LOAD_MS_MAX,
  ): Promise<unknown> => call("POST", `${session}/${path}`, body, timeoutMs);
  const newTab = async (): Promise<string> =>
    (await post("window/new", { type: "tab" }) as { handle: string }).handle;
  /** Resolves once the last command has reached the window it was meant for. */
  let turn: Promise<unknown> = Promise.resolve();
  /** Sends a command to a window once those before it have arrived; they need not have been answered. */
  const inTurn = (
    select: () => Promise<unknown>,
    send: () => Promise<unknown>,
  ): Promise<unknown> => {
    const sent = turn.then(select).then(() => ({ answer: send() }));
    turn = sent.then(({ answer }) => Promise.race([answer, sleep(SENT_MS)]))
      .catch(() => {});
    return sent.then(({ answer }) => answer);
  };
  /**
   * Blank windows: the initial one of the session, and those left by closed
   * pages.
   */
  let spare: string[] | undefined;
  const open = async (url: string): Promise<Page> => {
    spare ??= [
      await call(
        "GET",
        `${session}/window`,
        undefined,
        LOAD_MS_MAX,
      ) as string,
    ];
    const handle = spare.pop() ?? await newTab();
    const select = (): Promise<unknown> => post("window", { handle });
    await select();
    await post("url", { url });
    return {
      async evaluate(expression, timeoutMs): Promise<unknown> {
        const execute = (): Promise<unknown> =>
          post("execute/async", {
            script: `const done = arguments[arguments.length - 1];
            (async () => JSON.stringify(await (${expression})) ?? "null")().then(
              (value) => done({ value }),
              (error) => done({ error: String(error?.stack ?? error) }));`,
            args: [],
          }, timeoutMs);
        const answer = await inTurn(select, execute) as {
          value: string;
          error?: string;
        };
        if (answer.error !== undefined) throw new Error(answer.error);
        return JSON.parse(answer.value);
      },
      async reload(): Promise<void> {
        await select();
        await post("refresh", {});
      },
      async close(): Promise<void> {
        await select();
        // Closing the last window ends the session, and a window must be
        // selected.
        const other = await newTab();
        await call("DELETE", `${session}/window`, undefined, CLOSE_MS_MAX);
        await post("window", { handle: other });
        spare!.push(other);
      },
    };
  };
  return {
    engine: "WebKitGTK",
    pid,
    open,
    kill,
    async close(): Promise<void> {
      await call("DELETE", session, undefined, CLOSE_MS_MAX).catch(() => {});
      await kill();
    },
  };
}
