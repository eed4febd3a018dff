/**
 * Lives of the processes of a soak, from their start to SIGKILL.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  type Browser,
  type Engine,
  launch,
  within,
} from "../browser/browser.ts";
import type { PageServer } from "../browser/server.ts";
import type { History } from "./history.ts";
import type { PageMessage } from "./page.ts";
import type { ProcessSettings } from "./process.ts";
import type { Line, Request, Requests } from "./record.ts";
import type { ClientSettings } from "./station.ts";

/** Timeout of a browser's page that starts its load, in milliseconds. */
const PAGE_MS_MAX = 90_000;

/** Number of attempts to start a browser, which a busy machine may not start in time. */
const LAUNCHES = 3;

/** Most characters kept of what a process writes to its standard error. */
const ERROR_CHARACTERS = 4_000;

/** Connection to a process. */
interface Connection {
  /** Sends a request. */
  send(request: Request): Promise<void>;
  /** Kills the process with SIGKILL; resolves once it has ended and all its lines are here. */
  kill(): Promise<void>;
}

/** One life of a process. */
export class Life {
  readonly #name: string;
  readonly #history: History;
  readonly #number: number;
  #connection: Connection | undefined;
  #isKilled = false;
  #requests = 0;
  readonly #answers = new Map<number, PromiseWithResolvers<unknown>>();
  #started = 0;
  #lines = 0;
  readonly #changed: (() => void)[] = [];
  readonly #ended: PromiseWithResolvers<never> = Promise.withResolvers();

  constructor(history: History, name: string, number: number) {
    this.#history = history;
    this.#name = name;
    this.#number = number;
    this.#ended.promise.catch(() => {});
  }

  /** Sets the connection to the process. */
  connect(connection: Connection): void {
    this.#connection = connection;
  }

  /** Takes a line of the process. */
  take(line: Line): void {
    if (line.type === "answer") {
      const answer = this.#answers.get(line.request);
      this.#answers.delete(line.request);
      if (line.error === undefined) answer?.resolve(line.value);
      else answer?.reject(new Error(`${this.#name}: ${line.error}`));
      return;
    }
    this.#history.add(this.#name, this.#number, line);
    if (line.type === "started") this.#started++;
    this.#lines++;
    for (const changed of this.#changed.splice(0)) changed();
  }

  /** Notes that the process has ended; wrong unless it was killed. */
  end(how: string): void {
    const error = new Error(
      `${this.#name}, life ${this.#number}, has ended: ${how}`,
    );
    this.#ended.reject(error);
    for (const { promise, reject } of this.#answers.values()) {
      promise.catch(() => {});
      reject(error);
    }
    if (!this.#isKilled) this.#history.violate(error.message);
  }

  /** Resolves once the load runs on that many clusters. */
  async started(clusters: number, timeoutMs: number): Promise<void> {
    const what = `Start of ${this.#name}, life ${this.#number},`;
    const wait = this.#until(() => this.#started >= clusters);
    await this.unlessEnded(within(timeoutMs, what, wait));
  }

  /** Resolves once the process has written that many more lines, or the time is over. */
  async worked(lines: number, timeoutMs: number): Promise<void> {
    const last = this.#lines + lines;
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, timeoutMs);
    const wait = this.#until(() => this.#lines >= last);
    await this.unlessEnded(Promise.race([wait, late.promise]));
    clearTimeout(timer);
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => this.#changed.push(resolve));
    }
  }

  /** Resolves like `promise`; rejects if the process ends before. */
  unlessEnded<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#ended.promise]);
  }

  /** Sends a request; resolves to the answer. */
  async request<K extends keyof Requests>(
    what: K,
    argument: unknown,
    timeoutMs: number,
  ): Promise<Awaited<ReturnType<Requests[K]>>> {
    const request = ++this.#requests;
    const answer = Promise.withResolvers<unknown>();
    this.#answers.set(request, answer);
    answer.promise.catch(() => {});
    await this.#connection!.send({ request, what, argument });
    return await within(
      timeoutMs,
      `Request to ${what} of ${this.#name}, life ${this.#number},`,
      answer.promise,
    ) as Awaited<ReturnType<Requests[K]>>;
  }

  /** Kills the process. */
  async kill(): Promise<void> {
    this.#isKilled = true;
    await this.#connection!.kill();
    this.end("killed");
  }
}

/** Starts a process in Deno. */
export function launchProcess(
  history: History,
  name: string,
  number: number,
  settings: ProcessSettings,
): Promise<Life> {
  const life = new Life(history, name, number);
  const program = new URL("process.ts", import.meta.url).href;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-all",
      program,
      JSON.stringify(settings),
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  const lines = takeLines(child.stdout, life);
  const errors = textOf(child.stderr);
  const ended = Promise.all([child.status, lines, errors]).then(
    async ([{ code, signal }, , text]) => {
      await writer.close().catch(() => {});
      life.end(`${signal ?? code} ${text.slice(-ERROR_CHARACTERS)}`);
    },
  );
  life.connect({
    async send(request): Promise<void> {
      await writer.write(
        new TextEncoder().encode(`${JSON.stringify(request)}\n`),
      );
    },
    async kill(): Promise<void> {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended already.
      }
      await ended;
    },
  });
  return Promise.resolve(life);
}

/** Gives the lines of a process to its life, until the process has ended; an incomplete last line is left out. */
async function takeLines(
  output: ReadableStream<Uint8Array>,
  life: Life,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of output) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) life.take(JSON.parse(line) as Line);
  }
}

async function textOf(output: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(output).text();
}

/** Starts a browser, at the latest in the last of some attempts. */
async function launched(engine: Engine, profile: string): Promise<Browser> {
  for (let attempt = 1;; attempt++) {
    try {
      return await launch(engine, { profile });
    } catch (error) {
      if (attempt === LAUNCHES) throw error;
    }
  }
}

/** Starts a browser with a page. */
export async function launchPage(
  history: History,
  engine: Engine,
  pages: PageServer,
  profile: string,
  settings: ClientSettings,
): Promise<Life> {
  const life = new Life(history, engine, settings.life);
  const connected = Promise.withResolvers<WebSocket>();
  // Only the page knows the address.
  const aborting = new AbortController();
  const { signal } = aborting;
  const coordinator = Deno.serve(
    { hostname: "127.0.0.1", port: 0, signal, onListen(): void {} },
    (request) => {
      const { socket, response } = Deno.upgradeWebSocket(request);
      const send = (message: PageMessage): void => {
        if (socket.readyState === WebSocket.OPEN) {
          socket.send(JSON.stringify(message));
        }
      };
      socket.onopen = (): void => connected.resolve(socket);
      socket.onmessage = ({ data }): void => {
        const line = JSON.parse(data as string) as Line;
        // Its clock is not that of the other processes.
        const timed = "ms" in line ? { ...line, ms: Date.now() } : line;
        life.take(timed);
        if (line.type === "call") send("written");
      };
      return response;
    },
  );
  const browser = await launched(engine, profile);
  let isKilled = false;
  life.connect({
    async send(request): Promise<void> {
      const socket = await connected.promise;
      if (socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify(request));
      }
    },
    async kill(): Promise<void> {
      isKilled = true;
      await browser.kill();
      aborting.abort();
      await coordinator.finished;
    },
  });
  const work = async (): Promise<void> => {
    const page = await browser.open(await pages.page("tests/soak/page.ts"));
    const address = `ws://127.0.0.1:${coordinator.addr.port}`;
    const json = JSON.stringify(settings);
    await page.evaluate(`page.start("${address}", ${json})`, PAGE_MS_MAX);
  };
  work().catch((error) => {
    if (!isKilled) life.end(Deno.inspect(error));
  });
  return life;
}
