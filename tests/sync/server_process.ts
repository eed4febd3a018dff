/**
 * Server in a process of its own, for tests that kill and restart it, and clients
 * of it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";
import { freePort } from "../../web/free_ports.ts";
import { type Kind, Site, type SiteReport } from "../browser/sync_site.ts";
import type { ServerSettings, ServerState } from "./stored_server.ts";

/** Timeout for the start of a server, in milliseconds. */
const START_MS_MAX = 30_000;

/** Timeout for everything else a test waits for, in milliseconds. */
export const WAIT_MS_MAX = 120_000;

/** Resolves after a number of milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Server in its own process. */
export class ServerProcess implements AsyncDisposable {
  readonly #settings: ServerSettings;
  readonly #program: string;
  #child: Deno.ChildProcess | undefined;
  #port: number;

  private constructor(settings: ServerSettings, program: string) {
    this.#settings = settings;
    this.#program = program;
    this.#port = settings.port;
  }

  /** Starts a server. */
  static async start(
    directory: string,
    settings: Partial<ServerSettings> = {},
    program = "stored_server.ts",
  ): Promise<ServerProcess> {
    const server = new ServerProcess({
      port: freePort(),
      origins: [],
      snapshotEntries: 1_000,
      farEntries: 16_384,
      ...settings,
      directory,
    }, program);
    await server.restart();
    return server;
  }

  /** URL of the server, the same after every restart. */
  get port(): number {
    return this.#port;
  }

  /** Restarts the server on its files and its port. */
  async restart(): Promise<void> {
    const settings = { ...this.#settings, port: this.#port };
    const program = new URL(this.#program, import.meta.url).href;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", program, JSON.stringify(settings)],
      // The server exits when this process does.
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#child = child;
    const reader = child.stdout.getReader();
    const timer = setTimeout(() => child.kill("SIGKILL"), START_MS_MAX);
    const { value } = await reader.read();
    clearTimeout(timer);
    await reader.cancel();
    assert(value !== undefined, "Server did not come up");
    this.#port = Number(new URL(new TextDecoder().decode(value)).port);
  }

  /** Kills the server with SIGKILL, and resolves once it has exited. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    child.kill("SIGKILL");
    await child.status;
    await child.stdin.close().catch(() => {});
  }

  /** States of its clusters: the one on disk, and that of the journal. */
  async state(): Promise<[disk: ServerState, memory: ServerState]> {
    return await this.#ask("state");
  }

  /** Makes the server write rows with values of a size in bytes to the cluster on disk. */
  async fill(count: number, bytes: number): Promise<void> {
    await this.#ask(`fill?count=${count}&bytes=${bytes}`);
  }

  async #ask(what: string): Promise<[ServerState, ServerState]> {
    const response = await fetch(`http://127.0.0.1:${this.#port}/${what}`);
    return await response.json();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

/** Client in this process that stores everything in a directory. */
export function openSite(
  kind: Kind,
  directory: string,
  url: string,
  nodeID: number,
): Promise<Site> {
  return Site.open({
    kind,
    url,
    nodeID,
    outbox: new SqliteOutbox(`${directory}/outbox.db`),
    snapshots: new FileSnapshotStore(`${directory}/snapshots`),
    machine: () => new SqliteKVStateMachine(`${directory}/state.db`),
    copy: () => new SqliteBlockStore(`${directory}/copy.db`),
  });
}

/** Asserts that a client has the server's state, with every command of these clients once and in order. */
export function checkSite(
  report: SiteReport,
  server: ServerState,
  expected: Readonly<Record<string, number>>,
  said: string,
): void {
  assertEquals(report.wrong, [], said);
  assertEquals([report.queued, report.other], [0, 0], said);
  assertEquals(report.index, server.index, said);
  assertEquals(report.hash, server.hash, said);
  assertEquals(report.last, expected, said);
  assertEquals(report.shown, expected, said);
}
