import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  type Entry,
  ErrOtherHistory,
  ErrOtherPrincipal,
  ErrOutboxCopied,
  ErrUnknownOutcome,
  type HostEvent,
  type HostState,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryOutbox,
  MemorySnapshotStore,
  NodeHost,
  OnDiskKVStateMachine,
  type Replica,
  type Result,
  type Submission,
} from "../../mod.ts";
import type { BlockOutbox } from "../../src/ports/mod.ts";
import { BlockLogDB } from "../../src/indexeddb/mod.ts";
import { BlockOutbox as Outbox } from "../../src/offline/mod.ts";
import type { RemoteLogDB, RemoteState } from "../../src/sync/client/mod.ts";
import { checked, Gate, rejection } from "../support/environment.ts";
import { text } from "../support/bytes.ts";
import {
  BlockNames,
  decodeHead,
  encodeHead,
} from "../../src/offline/outbox_block.ts";
import type { CoreOptions } from "../../src/sync/server/options.ts";
import { caughtUp, Pair } from "./pair.ts";

const config = { clusterID: 1n, nodeID: 2n };

type Kind = "disk" | "memory" | "bare";

/** Copies the blocks of a store into another one. */
async function copied(store: MemoryBlockStore): Promise<MemoryBlockStore> {
  const copy = new MemoryBlockStore();
  copy.write({ put: await store.list("", "~") }, "strict");
  return copy;
}

/** Machine on disk whose updates wait for a gate. */
class SlowMachine extends OnDiskKVStateMachine {
  readonly #opened: Promise<void>;

  constructor(store: MemoryBlockStore, opened: Promise<void>) {
    super(store);
    this.#opened = opened;
  }

  override async updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): Promise<Entry[]> {
    await this.#opened;
    return await super.updateWithHost(entries, host);
  }
}

/** Device whose storage outlives its visits. */
class Device {
  readonly pair: Pair;
  readonly kind: Kind;
  readonly stores = {
    state: new MemoryBlockStore(),
    outbox: new MemoryBlockStore(),
    copy: new MemoryBlockStore(),
  };
  readonly snapshots = new MemorySnapshotStore();
  readonly events: HostEvent[] = [];
  /** Holds up its machine on disk in later visits until it is open. */
  gate = new Gate();
  /** States reported since the start of the visit. */
  states: RemoteState[] = [];
  db!: RemoteLogDB;
  host!: NodeHost;
  outbox!: BlockOutbox;
  replica!: Replica;

  constructor(pair: Pair, kind: Kind) {
    this.pair = pair;
    this.kind = kind;
    this.gate.open();
  }

  /** Starts a visit, with the name of the principal if one is signed in, and that of the device if it has one. */
  async open(principal?: string, device?: string): Promise<void> {
    const { pair, stores, kind } = this;
    this.db = pair.client(kind === "memory" ? { copy: stores.copy } : {});
    this.states = [];
    this.db.watch(({ state }) => this.states.push(state));
    this.outbox = new Outbox(stores.outbox, { env: pair.env });
    this.host = pair.host(this.db, {
      outbox: this.outbox,
      ...(kind === "bare" ? {} : { snapshots: this.snapshots }),
      ...(principal === undefined ? {} : { principal }),
      ...(device === undefined ? {} : { device }),
      onEvent: (event) => this.events.push(event),
    });
    const started = kind === "disk"
      ? this.host.startOnDiskCluster(
        () => new SlowMachine(stores.state, this.gate.opened),
        config,
      )
      : this.host.startCluster(() => new KVStateMachine(), config);
    this.replica = await pair.env.until(started, 50);
  }

  async close(): Promise<void> {
    const { env } = this.pair;
    await env.until(this.host.stop(), 10);
    await env.until(this.db.close(), 10);
    await env.until(this.outbox.close(), 10);
  }

  /** Submits a command. */
  async put(key: string, value: string): Promise<Submission> {
    return await this.pair.env.until(
      this.replica.submit(kv.put(key, value)),
      10,
    );
  }

  /** Submits a command, and waits for its result. */
  async putDecided(key: string, value: string): Promise<void> {
    await this.pair.env.until((await this.put(key, value)).result, 20);
  }

  /** Gives up the history of the device, and waits until its queue is sent. */
  async startOver(): Promise<void> {
    const { env } = this.pair;
    this.replica = await env.until(this.host.startOver(1n), 50);
    await this.until(() =>
      this.db.state === "live" &&
      !this.replica.pending().some(({ state }) => state === "queued")
    );
  }

  /** Connects to the server that is up again. */
  reconnect(): void {
    this.pair.isDown = false;
    this.db.reconnect();
  }

  get pending(): [string, string][] {
    return this.replica.pending().map(({ cmd, state }) => [
      text(cmd).replace(/[^a-z]/g, "").slice(0, 1),
      state,
    ]);
  }

  async value(key: string): Promise<string> {
    return text(await this.replica.staleRead(kv.get(key)) as Uint8Array);
  }

  /** Lets time pass until a condition holds. */
  async until(done: () => boolean): Promise<void> {
    for (let i = 0; i < 400 && !done(); i++) await this.pair.env.advance(50);
    assert(done(), `${this.db.state} ${this.states} ${this.pending}`);
  }
}

/** Server whose log can be restored from a backup. */
class Server {
  readonly pair: Pair;
  #store = new MemoryBlockStore();

  constructor(seed: number, options: CoreOptions = {}) {
    this.pair = new Pair(seed, options);
    this.#use();
  }

  #use(): void {
    this.pair.serverLog = new BlockLogDB(this.#store, { env: this.pair.env });
  }

  /** Copies the data of the server. */
  async backup(): Promise<MemoryBlockStore> {
    return await copied(this.#store);
  }

  /** Restarts the server on a backup, or on an empty log. */
  async restore(backup = new MemoryBlockStore()): Promise<void> {
    await this.pair.stop();
    await this.pair.serverLog.close();
    this.#store = backup;
    this.#use();
    await this.pair.start();
  }

  /** Disconnects all clients, and accepts no connection until a device reconnects. */
  disconnect(): void {
    this.pair.isDown = true;
    this.pair.cut();
  }
}

/** State machine that throws at commands over 100 bytes. */
class Fragile extends KVStateMachine {
  override update(cmd: Uint8Array): Result {
    if (cmd.length > 100) {
      throw new TypeError(`Command of ${cmd.length} bytes is too long`);
    }
    return super.update(cmd);
  }
}

/** Starts a server, and a visit of a device. */
async function setUp(
  seed: number,
  kind: Kind,
): Promise<{ server: Server; pair: Pair; env: Pair["env"]; device: Device }> {
  const server = new Server(seed);
  const { pair } = server;
  await pair.start();
  const device = new Device(pair, kind);
  await device.open();
  return { server, pair, env: pair.env, device };
}

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

/** Fails if the device is live, or was in this visit. */
function assertNotLive(device: Device): void {
  assert(!device.states.includes("live"), `${device.states}`);
  assertEquals(device.db.state, "blocked");
  const { reason, error, clusters } = device.db.status;
  assertEquals(reason?.code, "other-history");
  assertInstanceOf(error, ErrOtherHistory);
  assert(error.message.includes("startOver()"), error.message);
  assertEquals(clusters.map(({ state }) => state), ["blocked"]);
  const { status } = device.replica;
  assert(status.state === "failed" || status.state === "blocked");
  assertInstanceOf(status.error, ErrOtherHistory);
}

for (const kind of ["disk", "memory", "bare"] as const) {
  for (const what of ["empty", "older", "older and grown again"] as const) {
    test(`case B2: a device whose server was restored to an ${what} log reports that, is never live, and starts over with its pending submissions, ${kind} [H19, H18, H13, U33]`, async () => {
      const server = new Server(kind.length * 10 + what.length);
      const { pair } = server;
      const { env } = pair;
      await pair.start();
      await pair.replica.propose(kv.put("a", "before"));
      const backup = what === "empty" ? undefined : await server.backup();
      const device = new Device(pair, kind);
      await device.open();
      await device.putDecided("b", "sent");
      await device.until(() => device.db.state === "live");
      assertEquals(device.replica.status, { state: "running" });

      server.disconnect();
      await device.close();
      // Not sent: no connection was made in this visit.
      await device.open();
      await device.put("c", "waiting");
      await device.close();
      await server.restore(backup);
      if (what === "older and grown again") {
        for (let i = 0; i < 20; i++) {
          await pair.replica.propose(kv.put("d", `${i}`));
        }
      }

      for (const visit of [1, 2]) {
        pair.isDown = false;
        await device.open();
        assertEquals(device.pending.length, 1, `Visit ${visit}`);
        await device.until(() => device.db.state === "blocked");
        await env.advance(60_000);
        assertNotLive(device);
        const [{ cmd, state }] = device.replica.pending() as [Submission];
        assertEquals(cmd, kv.put("c", "waiting"));
        assertEquals(state, "queued");
        if (visit === 1) await device.close();
      }

      // The data of the device can be exported, also without the server.
      const data = await env.until(device.host.exportData(1n), 10);
      const other = new NodeHost({ env });
      const imported = other.importSnapshot(1n, data.snapshot);
      await env.until(imported, 10);
      const copy = await other.startCluster(() => new KVStateMachine(), config);
      if (kind !== "bare") {
        assertEquals(
          text(await copy.staleRead(kv.get("b")) as Uint8Array),
          "sent",
        );
      }
      assertEquals(data.pending.map(({ cmd }) => cmd), [
        kv.put("c", "waiting"),
      ]);
      await env.until(other.stop(), 10);

      await device.startOver();
      assertEquals(device.pending, []);
      assertEquals(device.replica.status, { state: "running" });
      assertEquals(device.db.status.error, undefined);
      assertEquals(await device.value("c"), "waiting");
      // It is not in the server's history.
      assertEquals(await device.value("b"), "");
      assertEquals(await device.value("a"), what === "empty" ? "" : "before");
      const { hash } = await pair.replica.getHash();
      assertEquals((await device.replica.getHash()).hash, hash);

      await device.close();
      await device.open();
      await device.putDecided("e", "later");
      assertEquals(device.replica.status, { state: "running" });
      await pair.closeAndCheck();
    });
  }
}

test("case B2: of submissions that may have been sent, a server that knows the session reports those it has; the others are sent once [H19, H3]", async () => {
  const { server, pair, env, device } = await setUp(77, "disk");
  await device.putDecided("a", "1");
  // The server has applied it without an answer: it is in the backup and in the outbox.
  const one = device.put("b", "1");
  await one;
  for (let i = 0; i < 200; i++) {
    if (await pair.replica.staleRead(kv.get("b")) !== undefined) break;
    await env.advance(1);
  }
  server.disconnect();
  const backup = await server.backup();
  assertEquals(
    text(await pair.replica.staleRead(kv.get("b")) as Uint8Array),
    "1",
  );
  device.reconnect();
  await env.advance(2_000);
  await device.putDecided("c", "1");
  server.disconnect();
  await device.put("d", "1");
  await server.restore(backup);
  device.reconnect();
  await device.until(() => device.db.state === "blocked");
  assertInstanceOf(await rejection(device.put("e", "1")), Error);
  await device.startOver();
  assertEquals(device.pending, []);
  // Decided in the other history and lost with it: the outbox no longer has it.
  assertEquals(await device.value("c"), "");
  assertEquals(
    [await device.value("a"), await device.value("b"), await device.value("d")],
    ["1", "1", "1"],
  );
  await pair.closeAndCheck();
});

test("case B2: submissions that were sent through a session the server does not have are unknown, and the rest are sent [H19, H5]", async () => {
  const server = new Server(78);
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  await pair.replica.propose(kv.put("z", "0"));
  const device = new Device(pair, "disk");
  await device.open();
  await device.putDecided("a", "1");
  await device.put("b", "1");
  // Sent, and lost with the connection.
  server.disconnect();
  await device.close();
  await server.restore();
  await device.open();
  await device.put("c", "1");
  device.reconnect();
  await device.until(() => device.db.state === "blocked");
  await device.startOver();
  assertEquals(device.pending, [["b", "unknown"]]);
  const [unknown] = device.replica.pending() as [Submission];
  assertInstanceOf(await rejection(unknown.result), ErrUnknownOutcome);
  assertEquals(await device.value("b"), "");
  assertEquals(await device.value("c"), "1");
  await env.until(unknown.dismiss(), 10);
  await pair.closeAndCheck();
});

/** Restores a server, of which a device and a copy of its outbox have a command that was never sent. */
async function copies(
  seed: number,
  knows: "nothing" | "session" | "history",
): Promise<{ device: Device; copy: Device; pair: Pair }> {
  const server = new Server(seed);
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  const device = new Device(pair, "disk");
  await device.open();
  if (knows !== "nothing") await device.putDecided("a", "1");
  const backup = await server.backup();
  await device.putDecided("b", "1");
  // The outbox has stored what it knows, as it also does when its host is stopped; after a crash it has not.
  if (knows !== "session") await env.advance(10_000);
  server.disconnect();
  const { outbox } = device.stores;
  const crashed = knows === "session" ? await copied(outbox) : outbox;
  await device.close();
  device.stores.outbox = crashed;
  await device.open();
  await device.put("c", "1");
  const copy = new Device(pair, "disk");
  copy.stores.outbox = await copied(device.stores.outbox);
  await server.restore(backup);
  await copy.open();
  device.reconnect();
  copy.reconnect();
  await device.until(() => device.db.state === "blocked");
  return { device, copy, pair };
}

test("H14 H19 of two copies of an outbox that start over on a restored server, one sends what is pending, and the other is refused [H3]", async () => {
  for (const knows of ["nothing", "history"] as const) {
    const { device, copy, pair } = await copies(82, knows);
    const { env } = pair;
    await copy.until(() => copy.db.state === "blocked");
    device.replica = await env.until(device.host.startOver(1n), 50);
    copy.replica = await env.until(copy.host.startOver(1n), 50);
    await env.advance(5_000);
    const all = [device, copy];
    const refused = all.filter(({ pending }) => pending.length > 0);
    assertEquals(refused.map(({ pending }) => pending), [[["c", "queued"]]]);
    const [{ db, replica }] = refused as [Device];
    assertEquals(db.state, "blocked");
    assertInstanceOf(replica.status.error, ErrOutboxCopied);
    replica.adoptOutbox();
    assertEquals(refused[0]!.pending, [["c", "unknown"]]);
    await refused[0]!.putDecided("d", "1");
    await pair.closeAndCheck();
  }
});

test("H14 H19 a device that starts over does not send what a copy of its outbox has sent through their session, which the restored server has [H3]", async () => {
  const { device, copy, pair } = await copies(84, "session");
  // It knows nothing of the history that is gone.
  await copy.until(() => copy.pending.length === 0);
  await device.startOver();
  assertEquals(device.pending, [["c", "unknown"]]);
  await device.putDecided("d", "1");
  // Only one of them sends from then on.
  const [later] = [await copy.put("e", "1")];
  assertInstanceOf(
    await pair.env.until(rejection(later.result), 20),
    ErrOutboxCopied,
  );
  await pair.closeAndCheck();
});

test("H14 H19 a device with a name whose session the restored server has starts over, and is not taken for a copy [U1]", async () => {
  const server = new Server(83);
  const { pair } = server;
  await pair.start();
  const device = new Device(pair, "disk");
  await device.open(undefined, "phone");
  await device.putDecided("a", "1");
  const backup = await server.backup();
  for (const key of ["b", "c"]) {
    await device.putDecided(key, "1");
    server.disconnect();
    await server.restore(await copied(backup));
    device.reconnect();
    await device.until(() => device.db.state === "blocked");
    await device.startOver();
    await device.putDecided("d", "1");
    assertEquals(device.replica.status, { state: "running" });
  }
  // Its data is purged after that.
  await device.close();
  const purged = new Device(pair, "disk");
  await purged.open(undefined, "phone");
  await purged.until(() => purged.replica.purged !== undefined);
  assertEquals(purged.replica.purged!.decided, 1);
  await pair.closeAndCheck();
});

test("H14 U16 an outbox is not taken for a copy while the record that a command of it was refused is being applied [H3]", async () => {
  const isBad = (cmd: Uint8Array): boolean => text(cmd).includes("bad");
  const server = new Server(81, {
    validate: (_, cmd) => isBad(cmd) ? "No such boat" : undefined,
  });
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  const device = new Device(pair, "disk");
  await device.open();
  await device.putDecided("a", "1");
  // The device ends before it knows what became of its commands.
  pair.isWithheld = true;
  await Promise.all([device.put("b", "1"), device.put("c", "bad")]);
  await env.advance(1_000);
  await device.close();
  pair.isWithheld = false;
  device.gate = new Gate();
  await device.open();
  // They are being applied while the session is claimed.
  const d = await device.put("d", "1");
  await env.advance(1_000);
  device.gate.open();
  await env.until(d.result, 20);
  assertEquals(
    device.events.filter(({ type }) => type === "outbox failed"),
    [],
  );
  assertEquals(device.pending, [["c", "refused"]]);
  assertEquals([await device.value("b"), await device.value("d")], ["1", "1"]);
  await pair.closeAndCheck();
});

test("H19 a submission that a server acknowledged and lost before it was applied here is sent again by a device that saw nothing else of that history [H3, H14, U20]", async () => {
  for (const what of ["claim", "command"] as const) {
    const { server, pair, env, device } = await setUp(80, "disk");
    await device.putDecided("a", "1");
    await caughtUp(pair, [device.replica]);
    if (what === "claim") {
      await device.close();
      await device.open();
      await device.until(() => device.db.state === "live");
    }
    const backup = await server.backup();
    const { appliedIndex } = device.replica;
    // The answer arrives, the committed entries do not.
    pair.isWithheld = true;
    const submission = await device.put("b", "1");
    const single = device.replica.propose(kv.put("c", "1"));
    single.catch(() => {});
    await env.advance(1_000);
    assert(pair.replica.appliedIndex > appliedIndex);
    assertEquals(device.replica.appliedIndex, appliedIndex);
    await server.restore(backup);
    pair.isWithheld = false;
    await env.until(submission.result, 100);
    assertInstanceOf(await rejection(single), ErrUnknownOutcome);
    assertEquals(await device.value("b"), "1");
    assertEquals(await device.value("c"), "");
    await pair.closeAndCheck();
  }
});

test("case A18: an outbox with commands of another principal rejects the start with a reason, and accepts the next principal once they are gone [H18, U35]", async () => {
  const server = new Server(79);
  const { pair } = server;
  await pair.start();
  const device = new Device(pair, "disk");
  await device.open("alice");
  await device.putDecided("a", "alice");
  server.disconnect();
  await device.put("b", "alice");
  await device.close();
  const refused = await rejection(device.open("bob"));
  assertInstanceOf(refused, ErrOtherPrincipal);
  assertEquals([refused.commands, refused.principal], [1, "alice"]);
  assertEquals(device.db.state, "blocked");
  assertEquals(device.db.status.reason?.code, "other-principal");
  await device.close();

  pair.isDown = false;
  await device.open("alice");
  await device.until(() => device.replica.pending().length === 0);
  await device.close();
  await device.open("bob");
  await device.putDecided("c", "bob");
  await device.until(() => device.db.state === "live");
  await device.close();
  // The outbox stays bob's if the host is not told who is signed in.
  pair.isDown = true;
  await device.open();
  await device.put("d", "bob");
  await device.close();
  const again = await rejection(device.open("alice"));
  assertInstanceOf(again, ErrOtherPrincipal);
  assertEquals(again.principal, "bob");
  await device.close();
  pair.isDown = false;
  await caughtUp(pair, []);
  await pair.closeAndCheck();
});

test("case A18: what another principal's submissions were refused with is kept for that principal, also if the outbox has not stored it [U18, U35]", async () => {
  const server = new Server(82, {
    validate: (_, cmd) =>
      text(cmd).includes("bad") ? "No such boat" : undefined,
  });
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  const device = new Device(pair, "disk");
  await device.open("alice");
  await device.putDecided("a", "1");
  const { outbox } = device.stores;
  server.disconnect();
  await Promise.all([device.put("b", "bad"), device.put("c", "1")]);
  const killed = outbox.list("", "~");
  device.reconnect();
  await device.until(() => device.pending.length === 1);
  assertEquals(device.pending, [["b", "refused"]]);
  // By then its machine is durable, and the process is killed before its outbox is.
  await env.advance(60_000);
  await device.close();
  outbox.write({ deleteRanges: [["", "~"]], put: killed }, "strict");

  const refused = await rejection(device.open("bob"));
  assertInstanceOf(refused, ErrOtherPrincipal);
  assertEquals([refused.commands, refused.principal], [1, "alice"]);
  await device.close();
  await device.open("alice");
  await device.until(() => device.db.state === "live");
  assertEquals(device.pending, [["b", "refused"]]);
  assertEquals(device.replica.pending()[0]?.reason, "No such boat");
  await pair.closeAndCheck();
});

test("H19 startOver() and exportData() of a cluster that was never started here are rejected", async () => {
  const host = new NodeHost({ outbox: new MemoryOutbox() });
  assertEquals(`${await rejection(host.exportData(1n))}`.includes("1"), true);
  assertEquals(`${await rejection(host.startOver(1n))}`.includes("1"), true);
  const replica = await host.startCluster(() => new KVStateMachine(), config);
  assertEquals(
    (await rejection(host.startOver(1n)) as Error).name,
    "ErrNotImplemented",
  );
  assertEquals(replica.status, { state: "running" });
  await host.stop();
});

test("U1 a device whose storage was purged between two visits learns what the cluster has of it; one that lost nothing does not [H18]", async () => {
  const server = new Server(80);
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  const visit = async (
    store: MemoryBlockStore,
    device: string | undefined,
    work: (replica: Replica, events: readonly HostEvent[]) => Promise<void>,
  ): Promise<void> => {
    const db = pair.client();
    const outbox = new Outbox(store, { env });
    const events: HostEvent[] = [];
    const host = pair.host(db, {
      outbox,
      ...(device === undefined ? {} : { device }),
      onEvent: (event) => events.push(event),
    });
    const started = host.startCluster(() => new KVStateMachine(), config);
    const replica = await env.until(started, 50);
    await env.advance(1_000);
    await work(replica, events.filter(({ type }) => type === "purged"));
    await env.until(host.stop(), 10);
    await env.until(db.close(), 10);
    await env.until(outbox.close(), 10);
  };
  const put = async (replica: Replica, key: string): Promise<void> => {
    const { result } = await env.until(replica.submit(kv.put(key, "1")), 10);
    await env.until(result, 20);
  };
  let session = 0;
  const store = new MemoryBlockStore();
  await visit(store, "phone", async (replica, told) => {
    assertEquals([told, replica.purged], [[], undefined]);
    for (const key of ["a", "b", "c"]) await put(replica, key);
    session = replica.appliedIndex - 3;
  });
  await visit(store, "phone", async (replica, told) => {
    assertEquals([told, replica.purged], [[], undefined]);
    await put(replica, "d");
  });
  // Another device, and a page without a device name, have lost nothing.
  for (const device of ["laptop", undefined]) {
    await visit(new MemoryBlockStore(), device, async (replica, told) => {
      assertEquals([told, replica.purged], [[], undefined]);
      await put(replica, `${device}`);
    });
  }
  const purged = new MemoryBlockStore();
  for (const isNew of [true, false]) {
    await visit(purged, "phone", async (replica, told) => {
      assertEquals(told.length, isNew ? 1 : 0);
      const { decided } = replica.purged ?? {};
      assertEquals(decided, isNew ? 4 : undefined);
      if (isNew) assert(replica.purged!.session <= session);
      // It continues under a new session.
      await put(replica, `after ${isNew}`);
      assertEquals(replica.status, { state: "running" });
    });
  }
  await pair.closeAndCheck();
});

test("case A10: a device whose machine throws at an entry goes on once the server is restored to a log with another entry there [H17, U33]", async () => {
  const server = new Server(41);
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  const db = pair.client();
  const host = pair.host(db, {
    onEvent: (event) => {
      // Before it has received anything else.
      if (event.type === "failed") server.disconnect();
    },
  });
  const started = host.startCluster(() => new Fragile(), config);
  const replica = await env.until(started, 50);
  await pair.replica.propose(kv.put("a", "1"));
  await caughtUp(pair, [replica]);
  const backup = await server.backup();
  await pair.replica.propose(kv.put("a", "2".repeat(200)));
  await env.advance(2_000);
  assert(pair.isDown);
  assertEquals(replica.status.state, "failed");
  await server.restore(backup);
  for (let i = 0; i < 3; i++) await pair.replica.propose(kv.put("e", "1"));
  pair.isDown = false;
  db.reconnect();
  await env.advance(2_000);
  await caughtUp(pair, [replica]);
  assertEquals(replica.status, { state: "running" });
  await pair.closeAndCheck();
});

test("case A10: exportData() of a replica that waits before an entry at which its machine throws returns its state, and does not stop it [H17, H19]", async () => {
  const pair = new Pair(31);
  const { env } = pair;
  await pair.start();
  const host = pair.host(pair.client(), { outbox: new MemoryOutbox() });
  const started = host.startCluster(() => new Fragile(), config);
  const replica = await env.until(started, 50);
  await pair.replica.propose(kv.put("a", "1"));
  await caughtUp(pair, [replica]);
  const { appliedIndex } = replica;
  await pair.replica.propose(kv.put("a", "2".repeat(200)));
  await env.advance(2_000);
  assertEquals(replica.status.state, "failed");
  await env.until(replica.submit(kv.put("b", "1")), 10);

  const data = await env.until(host.exportData(1n), 10);
  assertEquals(data.appliedIndex, appliedIndex);
  assertEquals(data.pending.map(({ cmd }) => cmd), [kv.put("b", "1")]);
  await using other = new NodeHost();
  await env.until(other.importSnapshot(1n, data.snapshot), 10);
  const copy = await other.startCluster(() => new KVStateMachine(), config);
  assertEquals(text(await copy.staleRead(kv.get("a")) as Uint8Array), "1");

  await pair.server.skipEntry(1n, appliedIndex + 1, "Too long");
  await env.advance(2_000);
  await caughtUp(pair, [replica]);
  assertEquals(replica.status, { state: "running" });
  assertEquals(replica.pending(), []);
  await pair.closeAndCheck();
});

for (const isSkipped of [true, false]) {
  test(`case A10: a device whose machine throws at entries before and after a snapshot of the server ${isSkipped ? "reads on once both are skipped" : "does not download it all the time while none is skipped"} [H17, U29]`, async () => {
    const pair = new Pair(37, { limits: { farEntries: 10 } });
    const { env } = pair;
    await pair.start();
    const put = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await pair.replica.propose(kv.put("a", "1"));
      }
    };
    const putTooLong = async (): Promise<void> => {
      await pair.replica.propose(kv.put("a", "2".repeat(200)));
      const { appliedIndex } = pair.replica;
      await put(2);
      if (!isSkipped) return;
      await pair.server.skipEntry(1n, appliedIndex, "Too long");
      await env.advance(500);
    };
    const recovered: number[] = [];
    const host = pair.host(pair.client(), {
      snapshots: new MemorySnapshotStore(),
      onEvent: (event) => {
        if (event.type === "recovered") recovered.push(event.snapshot.index);
      },
    });
    const started = host.startCluster(() => new Fragile(), {
      ...config,
      nodeID: 2n,
      snapshotEntries: 3,
      // Applied in parts, so that the decision to skip an entry is in a later one.
      hashEntries: 2,
    });
    const replica = await env.until(started, 50);
    await put(4);
    await caughtUp(pair, [replica]);
    await env.advance(500);
    const own = replica.appliedIndex;
    pair.isDown = true;
    pair.cut();
    await putTooLong();
    await put(20);
    await env.until(pair.replica.requestSnapshot(), 50);
    const served = pair.replica.appliedIndex;
    await put(2);
    await putTooLong();
    pair.isDown = false;

    if (isSkipped) {
      await caughtUp(pair, [replica]);
      // The second time from what it has saved of that one by then, or from its own.
      const [first, second, ...more] = recovered;
      assertEquals([first, more], [served, []]);
      assert(second === own || second === served, `${second}`);
      assertEquals(replica.status, { state: "running" });
    } else {
      await env.advance(600_000);
      const downloads = recovered.filter((index) => index === served).length;
      assert(downloads < 20, `${downloads} downloads`);
      assertEquals(replica.status.state, "failed");
    }
    await pair.closeAndCheck();
  });
}

for (const isOld of [false, true]) {
  test(`case B2: an outbox that knows more of its log than the restored log has is of another history, not a copy${isOld ? ", also if an earlier version has written it" : ""} [H13, H18, H14]`, async () => {
    const { server, pair, device } = await setUp(41, "bare");
    await device.putDecided("a", "1");
    const backup = await server.backup();
    for (const key of ["b", "c"]) {
      await device.putDecided(key, "1");
    }
    await device.close();
    if (isOld) {
      // An earlier version did not store the history.
      const key = new BlockNames(1n).head;
      const [bytes] = device.stores.outbox.get([key]);
      const head = decodeHead({ key, bytes: bytes! }, 1n);
      const session = { ...head.session!, known: undefined };
      const put = [{ key, bytes: encodeHead(1n, { ...head, session }) }];
      device.stores.outbox.write({ put }, "strict");
    }
    await server.restore(backup);
    for (let i = 0; i < 20; i++) await pair.replica.propose(kv.put("z", "1"));

    await device.open();
    await device.put("d", "1");
    await device.until(() => device.db.state === "blocked");
    assertInstanceOf(device.replica.status.error, ErrOtherHistory);
    if (!isOld) assertNotLive(device);
    await device.startOver();
    assertEquals(device.pending, []);
    assertEquals(
      await Promise.all(["a", "b", "d"].map((key) => device.value(key))),
      ["1", "", "1"],
    );
    await pair.closeAndCheck();
  });
}

test("case B2: a submission that this history has refused is refused after its device has started over, not of unknown outcome [H19, U16]", async () => {
  const server = new Server(43, {
    validate: (_, cmd) =>
      text(cmd).includes("bad") ? "No such boat" : undefined,
  });
  const { pair } = server;
  await pair.start();
  const device = new Device(pair, "bare");
  await device.open();
  await device.putDecided("a", "1");
  // The device ends before it knows what became of its commands …
  pair.isWithheld = true;
  await Promise.all([device.put("b", "bad"), device.put("c", "1")]);
  await pair.env.advance(1_000);
  await device.close();
  // … and its outbox knows more of its log than the log has.
  const key = new BlockNames(1n).head;
  const [bytes] = device.stores.outbox.get([key]);
  const head = decodeHead({ key, bytes: bytes! }, 1n);
  const { index, epoch } = head.session!.known!;
  const known = { index: index + 100, epoch };
  const session = { ...head.session!, known };
  const put = [{ key, bytes: encodeHead(1n, { ...head, session }) }];
  device.stores.outbox.write({ put }, "strict");

  await device.open();
  await device.until(() => device.db.state === "blocked");
  assertEquals(device.pending, [["b", "queued"], ["c", "queued"]]);
  pair.isWithheld = false;
  await device.startOver();
  assertEquals(device.pending, [["b", "refused"]]);
  assertEquals(device.replica.pending()[0]?.reason, "No such boat");
  assertEquals(await device.value("c"), "1");
  await pair.closeAndCheck();
});

test("case B2: a replica that recovers while its server is restored does not adopt the other history by itself [H13, H19, R5]", async () => {
  const server = new Server(42, { limits: { farEntries: 10 } });
  const { pair } = server;
  const { env } = pair;
  await pair.start();
  await pair.replica.propose(kv.put("a", "1"));
  const backup = await server.backup();
  const db = pair.client();
  const events: HostEvent[] = [];
  const host = pair.host(db, {
    outbox: new MemoryOutbox(),
    onEvent: (event) => {
      events.push(event);
      if (event.type !== "failed" || events.length > 1) return;
      server.disconnect();
    },
  });
  const started = host.startCluster(() => new Fragile(), config);
  const replica = await env.until(started, 50);
  const { result } = await env.until(replica.submit(kv.put("b", "1")), 10);
  await env.until(result, 20);
  for (let i = 0; i < 20; i++) await pair.replica.propose(kv.put("c", "1"));
  await caughtUp(pair, [replica]);
  await pair.replica.propose(kv.put("d", "1".repeat(200)));
  await env.advance(1_000);
  assert(pair.isDown);
  await server.restore(backup);
  for (let i = 0; i < 60; i++) await pair.replica.propose(kv.put("e", "1"));
  pair.isDown = false;
  db.reconnect();
  for (let i = 0; i < 400 && db.state !== "blocked"; i++) {
    await env.advance(50);
    assert(db.state !== "live", db.state);
  }
  assertInstanceOf(replica.status.error, ErrOtherHistory);
  assertInstanceOf(host.clusterStatus(1n)!.error, ErrOtherHistory);
  const again = await env.until(host.startOver(1n), 50);
  await caughtUp(pair, [again]);
  assertEquals(await again.staleRead(kv.get("b")), undefined);
  await pair.closeAndCheck();
});
