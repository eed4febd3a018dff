/**
 * Server on etcd in a process of its own, which a test kills or freezes by its
 * process id.
 *
 * @module
 */

import { assert } from "@std/assert";
import { freePort } from "../../web/free_ports.ts";
import type { ServerSettings } from "./server_program.ts";

/** State of a server's replica. */
export interface ServerState {
  readonly count: number;
  readonly hash: string;
}

/** Server in its own process. */
export class ServerProcess implements AsyncDisposable {
  readonly #settings: ServerSettings;
  readonly #program: string;
  #child: Deno.ChildProcess | undefined;
  #url = "";

  private constructor(settings: ServerSettings, program: string) {
    this.#settings = settings;
    this.#program = program;
  }

  /** Starts a server. */
  static async start(
    settings: Omit<ServerSettings, "port">,
    program = "server_program.ts",
  ): Promise<ServerProcess> {
    const server = new ServerProcess({ ...settings, port: 0 }, program);
    await server.restart();
    return server;
  }

  /** URL of its WebSocket, the same after a restart. */
  get url(): string {
    return this.#url;
  }

  /** URL of a path of its HTTP. */
  http(path: string): string {
    return new URL(path, this.#url.replace("ws", "http")).href;
  }

  /** Starts the server again on its port. */
  async restart(): Promise<void> {
    const port = this.#url === ""
      ? freePort()
      : Number(new URL(this.#url).port);
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--allow-all",
        "--lock=web/etcd.lock",
        new URL(this.#program, import.meta.url).href,
        JSON.stringify({ ...this.#settings, port }),
      ],
      cwd: new URL("../..", import.meta.url),
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#child = child;
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    assert(value !== undefined, "the server did not start");
    this.#url = new TextDecoder().decode(value).trim();
  }

  /** Sends a signal to the process. */
  signal(signal: Deno.Signal): void {
    this.#child!.kill(signal);
  }

  /** State of its replica after everything committed. */
  async state(): Promise<ServerState> {
    return await (await fetch(this.http("/state"))).json();
  }

  /** True if it has the duty of storing snapshots. */
  async isOnDuty(): Promise<boolean> {
    return await (await fetch(this.http("/duty"))).json();
  }

  /** Indexes of the snapshots in its folder, newest first. */
  async snapshots(): Promise<readonly number[]> {
    return await (await fetch(this.http("/snapshots"))).json();
  }

  /** Kills the server and waits for its end. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    child.kill("SIGKILL");
    await child.status;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}
