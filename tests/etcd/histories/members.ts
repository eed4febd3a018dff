/**
 * Members of a history as its coordinator sees them: processes and pages that write
 * lines and answer requests; and the file of the history.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { ProcessSettings } from "./process.ts";
import type { HistoryLine, Line, Request } from "./record.ts";

/** Timeout of a start, and of everything that must come to an end once the faults are mended, in milliseconds. */
const WAIT_MS_MAX = 90_000;

/** Most characters kept of what a process writes to its standard error. */
const ERROR_CHARACTERS = 2_000;

/** File that gets a line for each operation. */
export class Recorder implements Disposable {
  readonly path: string;
  readonly #file: Deno.FsFile;
  readonly violations: string[] = [];
  operations = 0;
  acknowledged = 0;
  unknown = 0;
  /** Number of events of the hosts, by type. */
  readonly events: Record<string, number> = {};
  /** Names of the clients with an acknowledged operation. */
  readonly clients = new Set<string>();

  constructor(path: string) {
    this.path = path;
    this.#file = Deno.openSync(path, { create: true, write: true });
  }

  /** Writes an operation. */
  add(
    { client, key, input, at }: Line & { type: "call" },
    end: Omit<Line & { type: "return" }, "type" | "number"> | undefined,
  ): void {
    const ok = end?.ok ?? null;
    const line: HistoryLine = {
      client,
      op: input.op,
      key,
      input,
      output: end?.output ?? null,
      ok,
      call: at,
      return: ok === null ? null : end!.at,
    };
    this.operations++;
    if (ok === true) {
      this.acknowledged++;
      this.clients.add(client);
    }
    if (ok === null) this.unknown++;
    this.#file.writeSync(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Lines of a member, and answers that are waited for. */
export class Lines {
  readonly #recorder: Recorder;
  readonly #calls = new Map<number, Line & { type: "call" }>();
  readonly #answers: PromiseWithResolvers<unknown>[] = [];
  /** Resolves once the clients are at work. */
  readonly started: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
    this.started.promise.catch(() => {});
  }

  /** Takes a line. */
  take(line: Line): void {
    switch (line.type) {
      case "started":
        return this.started.resolve();
      case "call":
        this.#calls.set(line.number, line);
        return;
      case "return": {
        const call = this.#calls.get(line.number)!;
        this.#calls.delete(line.number);
        return this.#recorder.add(call, line);
      }
      case "event": {
        const { events } = this.#recorder;
        events[line.name] = (events[line.name] ?? 0) + 1;
        return;
      }
      case "violation":
        this.#recorder.violations.push(line.text);
        return;
      case "answer":
        this.#answers.shift()?.resolve(line.value);
    }
  }

  /** Waits for the next answer. */
  answer<T>({ what }: Request): Promise<T> {
    const answer = Promise.withResolvers<unknown>();
    this.#answers.push(answer);
    return within(answer.promise, what) as Promise<T>;
  }

  /** Notes the end of the member: its operations under way have unknown outcomes. */
  end(how: string, isExpected: boolean): void {
    for (const call of this.#calls.values()) {
      this.#recorder.add(call, undefined);
    }
    this.#calls.clear();
    const error = new Error(how);
    this.started.reject(error);
    for (const answer of this.#answers.splice(0)) answer.reject(error);
    if (!isExpected) this.#recorder.violations.push(how);
  }
}

/** Process or page that takes part in a history. */
export interface Member {
  /** Resolves once its clients are at work. */
  readonly started: Promise<void>;
  /** Sends a request, one at a time; resolves to the answer. */
  request<T>(request: Request): Promise<T>;
  /** Sends a signal to the process. */
  signal(signal: Deno.Signal): void;
  /** Ends it at once; resolves once all its lines are here. */
  kill(): Promise<void>;
}

/** Process in Deno. */
export class ProcessMember implements Member {
  readonly #lines: Lines;
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #ended: Promise<void>;
  #isExpected = false;

  constructor(recorder: Recorder, settings: ProcessSettings) {
    this.#lines = new Lines(recorder);
    const program = new URL("process.ts", import.meta.url).href;
    this.#child = new Deno.Command(Deno.execPath(), {
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
    this.#writer = this.#child.stdin.getWriter();
    const errors = new Response(this.#child.stderr).text();
    this.#ended = this.#untilEnd(settings.name, errors);
  }

  get started(): Promise<void> {
    return this.#lines.started.promise;
  }

  async #untilEnd(name: string, errors: Promise<string>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true }))
        .split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#lines.take(JSON.parse(line) as Line);
    }
    const { code, signal } = await this.#child.status;
    await this.#writer.close().catch(() => {});
    const text = (await errors).slice(-ERROR_CHARACTERS);
    this.#lines.end(
      `${name} has ended: ${signal ?? code} ${text}`,
      this.#isExpected,
    );
  }

  async request<T>(request: Request): Promise<T> {
    const answer = this.#lines.answer<T>(request);
    await this.#writer.write(
      new TextEncoder().encode(`${JSON.stringify(request)}\n`),
    );
    return await answer;
  }

  signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
  }

  async kill(): Promise<void> {
    this.#isExpected = true;
    this.signal("SIGKILL");
    await this.#ended;
  }
}

/** Waits for a promise, with a limit. */
export async function within<T>(
  promise: Promise<T>,
  what: string,
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(new Error(`"${what}" has not ended in ${WAIT_MS_MAX} ms`)),
    WAIT_MS_MAX,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
