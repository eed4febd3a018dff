/**
 * Offline replication end to end: a server process, pages in browsers that are
 * killed, and a network that fails.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  checkSite,
  openSite,
  ServerProcess,
  sleep,
  WAIT_MS_MAX,
} from "../sync/server_process.ts";
import type { ServerState } from "../sync/stored_server.ts";
import { type FaultRates, Proxy, STORM } from "../sync/proxy.ts";
import {
  type Browser,
  type Engine,
  launch,
  type Page,
  removeFolder,
} from "./browser.ts";
import { PROTOCOL_VERSIONS } from "../../src/sync/messages.ts";
import { random, seedFrom } from "../support/random.ts";
import { type PageServer, servePages } from "./server.ts";
import type { PageSite } from "./sync_page.ts";
import type {
  Exported,
  Kind,
  Site,
  SiteReport,
  Standing,
} from "./sync_site.ts";

const PAGE = "tests/browser/sync_page.ts";

/**
 * Engines that edit at the same time as a client in Deno; each engine occurs at
 * least once.
 */
export const PAIRS: readonly (readonly [Engine, Engine])[] = [
  ["Chromium", "Firefox"],
  ["WebKitGTK", "Chromium"],
];

const KINDS: readonly Kind[] = ["disk", "memory"];

/** Number of commands of each client before it goes offline. */
const ONLINE = 20;

/** Faults of the network afterwards, and their duration in milliseconds. */
const FAULT_RATES: FaultRates = { ...STORM, bytesMax: 100_000 };
const STORM_MS = 1_500;

/**
 * Number of entries between two snapshots of the server, and the lag from which
 * a client recovers from a snapshot.
 */
const SNAPSHOT_ENTRIES = 1_000;
const FAR_ENTRIES = 1_000;

/** Page with clients. */
class Tab {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  /** Calls a function of `sync_page.ts`. */
  async call<T = void>(what: string, ...args: unknown[]): Promise<T> {
    const json = args.map((arg) => JSON.stringify(arg)).join();
    return await this.#page.evaluate(
      `page.${what}(${json})`,
      WAIT_MS_MAX,
    ) as T;
  }

  reload(): Promise<void> {
    return this.#page.reload();
  }

  /** Closes the clients and the page. */
  async close(): Promise<void> {
    await this.call("close");
    await this.#page.close();
  }
}

/** Servers, and browsers that keep their profile when they are killed. */
export class Scene implements AsyncDisposable {
  readonly pages: PageServer;
  readonly server: ServerProcess;
  /** Server of pages of another origin. */
  readonly #other: PageServer;
  readonly #directory: string;
  readonly #browsers = new Map<Engine, Browser>();
  #names = 0;

  private constructor(
    directory: string,
    pages: PageServer,
    other: PageServer,
    server: ServerProcess,
  ) {
    this.#directory = directory;
    this.pages = pages;
    this.#other = other;
    this.server = server;
  }

  /** Starts the servers; browsers start when they are first needed. */
  static async start(): Promise<Scene> {
    const directory = await Deno.makeTempDir({ prefix: "sync-" });
    const pages = servePages();
    const server = await ServerProcess.start(`${directory}/server`, {
      origins: [pages.origin],
      snapshotEntries: SNAPSHOT_ENTRIES,
      farEntries: FAR_ENTRIES,
    });
    return new Scene(directory, pages, servePages(), server);
  }

  /** Unique name for a store or a client. */
  name(): string {
    return `c${++this.#names}`;
  }

  /** Path of a new folder. */
  folder(): string {
    return `${this.#directory}/${this.name()}`;
  }

  /** Browser of that engine, always with the same profile. */
  async browser(engine: Engine): Promise<Browser> {
    const running = this.#browsers.get(engine);
    if (running !== undefined) return running;
    const profile = `${this.#directory}/${engine}`;
    await Deno.mkdir(profile, { recursive: true });
    const browser = await launch(engine, { profile });
    this.#browsers.set(engine, browser);
    return browser;
  }

  /** Opens a page of an allowed origin, or of a foreign one. */
  async tab(engine: Engine, isForeign = false): Promise<Tab> {
    const browser = await this.browser(engine);
    const from = isForeign ? this.#other : this.pages;
    return new Tab(await browser.open(await from.page(PAGE)));
  }

  /** Kills the browser of that engine; the next page starts a new one. */
  async kill(engine: Engine): Promise<void> {
    await this.#browsers.get(engine)?.kill();
    this.#browsers.delete(engine);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const browser of this.#browsers.values()) await browser.close();
    await this.server.kill();
    await this.#other[Symbol.asyncDispose]();
    await this.pages[Symbol.asyncDispose]();
    await removeFolder(this.#directory);
  }
}

function urlOf(port: number): string {
  return `ws://127.0.0.1:${port}/sync`;
}

/** Client in a page or in Deno. */
interface Peer {
  readonly name: string;
  submit(kind: Kind, from: number, count: number): Promise<void>;
  online(): Promise<void>;
  /** Resolves once no submission is pending. */
  sent(): Promise<unknown>;
  reach(kind: Kind, index: number): Promise<SiteReport>;
  report(kind: Kind): Promise<SiteReport>;
  close(): Promise<void>;
}

async function pagePeer(
  scene: Scene,
  engine: Engine,
  url: string,
  nodeID: number,
): Promise<Peer> {
  const tab = await scene.tab(engine);
  const name = scene.name();
  for (const kind of KINDS) {
    const site: PageSite = { kind, name: `${name}-${kind}`, url, nodeID };
    await tab.call("open", site);
  }
  return {
    name,
    submit: (kind, from, count) => tab.call("submit", kind, name, from, count),
    online: () => tab.call("online"),
    sent: () => tab.call("sent"),
    reach: (kind, index) => tab.call("reach", kind, index),
    report: (kind) => tab.call("report", kind),
    close: () => tab.close(),
  };
}

async function denoPeer(
  scene: Scene,
  url: string,
  nodeID: number,
): Promise<Peer> {
  const name = scene.name();
  const folder = scene.folder();
  const disk = await openSite("disk", `${folder}/disk`, url, nodeID);
  const memory = await openSite("memory", `${folder}/memory`, url, nodeID);
  const sites: Record<Kind, Site> = { disk, memory };
  return {
    name,
    submit: (kind, from, count) => sites[kind].submit(name, from, count),
    async online(): Promise<void> {
      for (const kind of KINDS) await sites[kind].logDB.reconnect();
    },
    sent: () => Promise.all(KINDS.map((kind) => sites[kind].sent())),
    async reach(kind, index): Promise<SiteReport> {
      await sites[kind].reach(index);
      return await sites[kind].report();
    },
    report: (kind) => sites[kind].report(),
    async close(): Promise<void> {
      for (const kind of KINDS) await sites[kind].close();
    },
  };
}

/** Selects the numbers of some clients from a server's report. */
function pick(
  last: Readonly<Record<string, number>>,
  names: readonly string[],
): Record<string, number> {
  return Object.fromEntries(names.map((name) => [name, last[name] ?? 0]));
}

async function stateOf(
  server: ServerProcess,
): Promise<Record<Kind, ServerState>> {
  const [disk, memory] = await server.state();
  return { disk, memory };
}

/** Result of `editOffline()`. */
export interface Offline {
  /** Number of commands of all clients. */
  readonly commands: number;
  /**
   * Time from the reconnect until each client's submissions are committed and
   * applied, in milliseconds.
   */
  readonly ms: readonly number[];
  /** Number of connections that the network cut. */
  readonly cuts: number;
}

/**
 * Has pages of these engines and a client in Deno submit `count` commands each
 * while offline, to both kinds of machines, then reconnects them over a failing
 * network. All must end with the server's state, which has each command once
 * and in order (H1, H3).
 */
export async function editOffline(
  scene: Scene,
  engines: readonly Engine[],
  count: number,
  seed: number,
): Promise<Offline> {
  const next = random(seed);
  const { server } = scene;
  const peers: Peer[] = [];
  await using proxy = new Proxy(server.port, seedFrom(next), undefined);
  try {
    const url = urlOf(proxy.port);
    for (const [i, engine] of engines.entries()) {
      peers.push(await pagePeer(scene, engine, url, 10 + i));
    }
    peers.push(await denoPeer(scene, url, 10 + engines.length));
    for (const peer of peers) {
      for (const kind of KINDS) await peer.submit(kind, 1, ONLINE);
      await peer.sent();
    }
    proxy.isDown = true;
    const last = ONLINE + count;
    for (const peer of peers) {
      for (const kind of KINDS) {
        await peer.submit(kind, ONLINE + 1, count);
        const { queued, shown } = await peer.report(kind);
        assertEquals(queued, count, "A submission was sent while offline");
        assertEquals(
          shown[peer.name],
          last,
          "A submission is missing in the optimistic view",
        );
      }
    }
    const cuts = proxy.cuts;
    proxy.faultRates = FAULT_RATES;
    proxy.isDown = false;
    const began = performance.now();
    const working = Promise.all(peers.map(async (peer) => {
      await peer.online();
      await peer.sent();
      return performance.now() - began;
    }));
    working.catch(() => {});
    await Promise.race([sleep(STORM_MS), working]);
    proxy.faultRates = undefined;
    proxy.cut();
    // A page that awaits a call gets no notification; its own attempts to
    // reconnect go on.
    const ms = await working;
    const right = await stateOf(server);
    const names = peers.map(({ name }) => name);
    for (const kind of KINDS) {
      const { index, last: there } = right[kind];
      const expected = Object.fromEntries(names.map((name) => [name, last]));
      assertEquals(pick(there, names), expected);
      for (const peer of peers) {
        checkSite(
          await peer.reach(kind, index),
          right[kind],
          there,
          `${peer.name}, ${kind}`,
        );
      }
    }
    return {
      commands: peers.length * KINDS.length * count,
      ms,
      cuts: proxy.cuts - cuts,
    };
  } catch (error) {
    throw new Error(`${engines}, seed ${seed}`, { cause: error });
  } finally {
    for (const peer of peers) await peer.close();
  }
}

/**
 * Kills a browser whose page has durable submissions and no network, restarts
 * it offline, and reloads the page offline: each time the submissions are
 * pending and shown, and further ones are accepted. Once the network is back,
 * each arrives exactly once (U21, U38, H3).
 */
export async function killUnsent(
  scene: Scene,
  engine: Engine,
  count: number,
  seed: number,
): Promise<void> {
  const next = random(seed);
  const { server } = scene;
  const name = scene.name();
  await using proxy = new Proxy(server.port, seedFrom(next), undefined);
  const url = urlOf(proxy.port);
  let tab: Tab;
  const open = async (): Promise<void> => {
    for (const [i, kind] of KINDS.entries()) {
      const site = { kind, name: `${name}-${kind}`, url, nodeID: 20 + i };
      await tab.call("open", site);
    }
  };
  let known: Record<Kind, ServerState>;
  let last = 0;
  const submit = async (): Promise<void> => {
    for (const kind of KINDS) {
      await tab.call("submit", kind, name, last + 1, count);
    }
    last += count;
  };
  const check = async (queued: number): Promise<void> => {
    for (const kind of KINDS) {
      const report = await tab.call<SiteReport>("report", kind);
      assertEquals(report.wrong, []);
      assertEquals(report.queued, queued);
      assertEquals(
        report.shown[name],
        last,
        "A submission is missing in the optimistic view",
      );
      assertEquals(report.last[name], last - queued);
      assertEquals(report.index, known[kind].index);
      assertEquals(report.hash, known[kind].hash, "A submission was lost");
    }
  };
  try {
    tab = await scene.tab(engine);
    await open();
    await submit();
    await tab.call("sent");
    known = await stateOf(server);
    for (const kind of KINDS) await tab.call("reach", kind, known[kind].index);
    // An on-disk machine makes its state durable about once a second and when
    // it is closed; entries lost in a crash are replayed from the log.
    await tab.close();
    tab = await scene.tab(engine);
    await open();
    proxy.isDown = true;
    await submit();
    // Immediately after the submissions are acknowledged as durable.
    await scene.kill(engine);
    tab = await scene.tab(engine);
    await open();
    await check(count);
    await submit();
    await tab.reload();
    await open();
    await check(2 * count);
    proxy.isDown = false;
    await tab.call("online");
    await tab.call("sent");
    known = await stateOf(server);
    for (const kind of KINDS) {
      const report = await tab.call<SiteReport>(
        "reach",
        kind,
        known[kind].index,
      );
      checkSite(report, known[kind], known[kind].last, kind);
      assertEquals(report.last[name], last);
      assertEquals(report.results, 2 * count);
    }
    await tab.close();
  } catch (error) {
    throw new Error(`${engine}, seed ${seed}`, { cause: error });
  }
}

/**
 * Opens a new page when the server has at least `entries` rows, with values of
 * `bytes` bytes if they have to be written. The page recovers from a
 * snapshot, reports progress, and becomes live with the server's state (U29).
 * Resolves to the time that takes, in milliseconds.
 */
export async function firstVisit(
  scene: Scene,
  engine: Engine,
  entries: number,
  bytes: number,
): Promise<number> {
  const { server } = scene;
  const [{ rows }] = await server.state();
  await server.fill(Math.max(0, entries - rows), bytes);
  const [right] = await server.state();
  const tab = await scene.tab(engine);
  const name = scene.name();
  const url = urlOf(server.port);
  const began = performance.now();
  await tab.call("open", { kind: "disk", name, url, nodeID: 30 });
  const report = await tab.call<SiteReport>("live", "disk", right.index);
  const ms = performance.now() - began;
  checkSite(report, right, right.last, engine);
  assert(report.events.includes("recovered"), `${report.events}`);
  const [received] = report.snapshot;
  // The server creates the snapshot while it sends it, so the size is unknown.
  assert(received > 0, "Snapshot progress was not reported");
  await tab.close();
  return ms;
}

/**
 * Restarts the server of a page with an empty log. The page reports that, also
 * after a reload, is never live, exports its state, starts over with its unsent
 * submissions, and in the end leaves no data on the device (U33, U35, U36).
 */
export async function startOver(scene: Scene, engine: Engine): Promise<void> {
  const directory = scene.folder();
  await using server = await ServerProcess.start(directory, {
    origins: [scene.pages.origin],
  });
  const url = urlOf(server.port);
  const [before, after] = [scene.name(), scene.name()];
  const nameOf = (kind: Kind): string => `${before}-${kind}`;
  const tab = await scene.tab(engine);
  const open = async (): Promise<void> => {
    for (const kind of KINDS) {
      await tab.call("open", { kind, name: nameOf(kind), url, nodeID: 50 });
    }
  };
  const each = async (work: (kind: Kind) => Promise<void>): Promise<void> => {
    for (const kind of KINDS) await work(kind);
  };
  await open();
  await each((kind) => tab.call("submit", kind, before, 1, 10));
  await tab.call("sent");
  const known = await stateOf(server);
  await each((kind) => tab.call("live", kind, known[kind].index));
  await tab.call("close");
  await server.kill();
  // Not sent: there is no server while the page is open.
  await tab.reload();
  await open();
  await each((kind) => tab.call("submit", kind, after, 1, 5));
  await tab.call("close");
  await removeFolder(directory);
  await Deno.mkdir(directory, { recursive: true });
  await server.restart();
  await server.fill(3, 10);
  for (let visit = 0; visit < 2; visit++) {
    await tab.reload();
    await open();
    await each(async (kind) => {
      const standing = await tab.call<Standing>("blocked", kind);
      assertEquals(standing, {
        state: "blocked",
        reason: "other-history",
        replica: "failed",
        error: "ErrOtherHistory",
        pending: Array.from({ length: 5 }, () => "queued"),
      }, kind);
    });
    if (visit === 0) await tab.call("close");
  }
  await each(async (kind) => {
    assertEquals(await tab.call<string>("leave", kind), "ErrUnsynced");
    const { last, pending } = await tab.call<Exported>("exported", kind);
    assertEquals([last, pending], [{ [before]: 10 }, 5], kind);
    await tab.call("startOver", kind);
  });
  await tab.call("sent");
  const right = await stateOf(server);
  await each(async (kind) => {
    const { index, last } = right[kind];
    const report = await tab.call<SiteReport>("live", kind, index);
    checkSite(report, right[kind], { [after]: 5 }, kind);
    assertEquals(pick(last, [before, after]), { [before]: 0, [after]: 5 });
    assertEquals(report.results, 5);
    assertEquals(await tab.call<string>("leave", kind), "");
  });
  await tab.call("close");
  await each(async (kind) => {
    assertEquals(await tab.call<string[]>("blocksOf", nameOf(kind)), []);
  });
  await tab.close();
}

/**
 * Verifies the reports of a page of a foreign origin, and of one with an
 * unknown protocol version.
 */
export async function whatIsRefused(
  scene: Scene,
  engine: Engine,
): Promise<readonly [origin: string, version: string]> {
  const url = urlOf(scene.server.port);
  const words: string[] = [];
  for (const isForeign of [true, false]) {
    const tab = await scene.tab(engine, isForeign);
    const name = scene.name();
    const site: PageSite = { kind: "memory", name, url, nodeID: 40 };
    await tab.call(
      "open",
      isForeign ? site : {
        ...site,
        version: PROTOCOL_VERSIONS.last + 1,
      },
    );
    // The client works as if offline.
    await tab.call("submit", "memory", name, 1, 1);
    const report = await tab.call<SiteReport>("refused", "memory");
    assertEquals(report.state, isForeign ? "forbidden" : "offline");
    assertEquals(report.shown, { [name]: 1 });
    words.push(report.error);
    await tab.close();
  }
  return words as [string, string];
}
