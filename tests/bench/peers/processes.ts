/**
 * Processes of the comparison: programs that take requests, and a proxy that
 * counts what passes.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { Answer, Request } from "./program.ts";

/** Timeout of a request, in milliseconds. */
const REQUEST_MS_MAX = 180_000;

/** A running program. */
export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #waiting = new Map<
    number,
    { resolve: (value: never) => void; reject: (error: Error) => void }
  >();
  readonly #ended: Promise<void>;
  #id = 0;
  #offsetMs = 0;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#writer = child.stdin.getWriter();
    this.#ended = this.#listen();
  }

  /** Starts a program, and compares its clock with that of this process. */
  static async start(command: readonly string[]): Promise<Program> {
    const [file, ...args] = command;
    const program = new Program(
      new Deno.Command(file!, {
        args,
        env: { NODE_NO_WARNINGS: "1" },
        stdin: "piped",
        stdout: "piped",
        stderr: "inherit",
      }).spawn(),
    );
    await program.#compareClocks();
    return program;
  }

  async #listen(): Promise<void> {
    let rest = "";
    for await (
      const text of this.#child.stdout.pipeThrough(new TextDecoderStream())
    ) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        // A product may print, too.
        if (line.startsWith('{"id":')) this.#answer(JSON.parse(line) as Answer);
      }
    }
    for (const { reject } of this.#waiting.values()) {
      reject(new Error(`Program ended before it answered request ${this.#id}`));
    }
  }

  #answer({ id, value, error }: Answer): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value as never);
    else waiting?.reject(new Error(error));
  }

  /** Sends a request and resolves to its answer. */
  async call<T = void>(name: string, ...args: unknown[]): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const request: Request = { id: ++this.#id, name, args };
    this.#waiting.set(request.id, { resolve, reject });
    const timer = setTimeout(
      () => reject(new Error(`${name}() took over ${REQUEST_MS_MAX} ms`)),
      REQUEST_MS_MAX,
    );
    try {
      await this.#writer.write(
        new TextEncoder().encode(`${JSON.stringify(request)}\n`),
      );
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Takes the fastest of many round trips, whose middle is the same moment in both processes. */
  async #compareClocks(): Promise<void> {
    let least = Infinity;
    for (let i = 0; i < 100; i++) {
      const from = performance.now();
      const theirs = await this.call<number>("clock");
      const took = performance.now() - from;
      if (took >= least) continue;
      least = took;
      this.#offsetMs = from + took / 2 - theirs;
    }
  }

  /** Converts a time of the program to the clock of this process. */
  here(time: number): number {
    return time + this.#offsetMs;
  }

  /** Ends the program as a user who closes it does, and waits until it is gone. */
  async close(): Promise<void> {
    await this.call("close");
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#ended;
    await this.#child.status;
    await this.#writer.abort().catch(() => {});
  }
}

/** Passes connections on to a server and counts the bytes of both directions. */
export class CountingProxy implements AsyncDisposable {
  readonly #listener: Deno.TcpListener;
  readonly #port: number;
  /** Bytes passed on so far. */
  bytes = 0;

  /** A proxy in front of a server on this machine. */
  constructor(port: number) {
    this.#port = port;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    void this.#serve();
  }

  /** Port on which it listens. */
  get port(): number {
    return this.#listener.addr.port;
  }

  async #serve(): Promise<void> {
    for await (const client of this.#listener) {
      try {
        const server = await Deno.connect({
          hostname: "127.0.0.1",
          port: this.#port,
        });
        void this.#pass(client, server);
        void this.#pass(server, client);
      } catch {
        client.close();
      }
    }
  }

  async #pass(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
    const counter = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller): void => {
        this.bytes += chunk.length;
        controller.enqueue(chunk);
      },
    });
    await from.readable.pipeThrough(counter).pipeTo(to.writable)
      .catch(() => {});
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    return Promise.resolve();
  }
}
