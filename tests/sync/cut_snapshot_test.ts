import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrSystemBusy,
  kv,
  MemoryBlockStore,
  MemorySnapshotStore,
  type NodeHost,
  OnDiskKVStateMachine,
  type Replica,
} from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import type { RemoteLogDB, RemoteStatus } from "../../src/sync/client/mod.ts";
import { bytes } from "../support/bytes.ts";
import { checked, peek, rejection, settle } from "../support/environment.ts";
import { Disk, type MachineFaults } from "../machines/journal.ts";
import {
  KINDS,
  listOf,
  startOn,
  type StartOptions,
} from "../support/clusters.ts";
import { caughtUp, Pair } from "./pair.ts";

/** More than is buffered on the way to a reader, in bytes. */
const FILLING = 6 << 20;
const CLUSTER = { clusterID: 1n, nodeID: 2n };

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

/** Page and its observed states. */
interface Page {
  readonly db: RemoteLogDB;
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly types: string[];
  readonly statuses: RemoteStatus[];
}

/** Device whose pages are opened and closed. */
class Device {
  readonly pair: Pair;
  readonly #kind: NonNullable<StartOptions["kind"]>;
  readonly #faults: MachineFaults;
  readonly #disk = new Disk();
  readonly #copy = new MemoryBlockStore();
  readonly #snapshots = new MemorySnapshotStore();
  readonly #outbox = new MemoryBlockStore();

  constructor(
    pair: Pair,
    kind: NonNullable<StartOptions["kind"]>,
    faults: (disk: Disk) => MachineFaults = () => ({}),
  ) {
    this.pair = pair;
    this.#kind = kind;
    this.#faults = faults(this.#disk);
  }

  async start(): Promise<Page> {
    const { pair } = this;
    const inMemory = this.#kind === "regular" || this.#kind === "concurrent";
    const db = pair.client(inMemory ? { copy: this.#copy } : {});
    const types: string[] = [];
    const statuses: RemoteStatus[] = [];
    db.watch((status) => statuses.push(status));
    const host = pair.host(db, {
      snapshots: this.#snapshots,
      outbox: new BlockOutbox(this.#outbox, { env: pair.env }),
      onEvent: ({ type }) => types.push(type),
    });
    const replica = await pair.env.until(
      startOn(host, {
        kind: this.#kind,
        disk: this.#disk,
        faults: this.#faults,
        config: CLUSTER,
      }),
      10,
    );
    return { db, host, replica, types, statuses };
  }

  async stop({ host, db }: Page): Promise<void> {
    await this.pair.env.until(host.stop(), 10);
    await this.pair.env.until(db.close(), 10);
  }
}

/** Server with a machine whose snapshots take many frames. */
async function pairOf(
  seed: number,
  kind: NonNullable<StartOptions["kind"]>,
): Promise<Pair> {
  const pair = new Pair(
    seed,
    { limits: { farEntries: 20 } },
    { kind, faults: { filling: FILLING } },
  );
  // Every snapshot is full, so that the log is compacted.
  await pair.start(10, { fullSnapshotInterval: 1 });
  return pair;
}

async function grow({ env, replica }: Pair, more: number): Promise<void> {
  for (let i = 0; i < more; i++) {
    await env.until(replica.propose(bytes(`server ${i}`)), 10);
    await settle();
  }
  await env.advance(1_000);
}

/** Waits until a part of a snapshot has arrived, and cuts the connection permanently. */
async function cutSnapshot(
  pair: Pair,
  { db }: Pick<Page, "db">,
): Promise<void> {
  const isComing = (): boolean =>
    (db.status.clusters[0]?.snapshot?.received ?? 0) > 200_000;
  for (let i = 0; i < 20_000 && !isComing(); i++) await pair.env.advance(5);
  assert(isComing(), "No snapshot comes");
  pair.isDown = true;
  pair.cut();
}

/** Asserts what a page must do offline. */
async function checkOffline(
  { env }: Pair,
  { db, replica }: Page,
  before: readonly string[],
): Promise<void> {
  // The client notices the cut later than the server.
  for (let i = 0; i < 10; i++) {
    assertEquals(await listOf(replica), before);
    await env.advance(100);
  }
  const read = replica.read(null);
  const proposed = replica.propose(bytes("proposed"));
  for (const waiting of [read, proposed]) waiting.catch(() => {});
  for (let i = 0; i < 30; i++) {
    await env.advance(2_000);
    assertEquals(await listOf(replica), before);
    assertEquals(await peek(read), "pending");
  }
  assertEquals(await peek(proposed), "pending");
  assertEquals(db.state === "live", false);
}

for (const [i, kind] of KINDS.entries()) {
  test(`D11 R9 U29 U38 a page far behind answers from its old state when its snapshot is interrupted and there is no network, and recovers later, ${kind}`, async () => {
    const pair = await pairOf(20 + i, kind);
    const { env } = pair;
    const device = new Device(pair, kind);
    const page = await device.start();
    const { replica } = page;
    const first = await replica.submit(bytes("first"));
    await env.until(first.result, 50);
    const before = await listOf(replica);
    pair.isDown = true;
    pair.cut();
    await grow(pair, 60);
    pair.isDown = false;
    await cutSnapshot(pair, page);
    const edit = await replica.submit(bytes("edit"));
    if (kind === "regular" || kind === "concurrent") {
      await env.advance(1_000);
      assertEquals(
        await env.until(Promise.resolve(replica.view.lookup(null)), 10),
        [...before, "edit"],
      );
    }
    await checkOffline(pair, page, before);
    assertEquals(edit.state, "queued");
    assertEquals(page.types.includes("recovered"), false);
    pair.isDown = false;
    await env.until(edit.result, 200);
    await caughtUp(pair, [replica]);
    assertEquals(await listOf(replica), await listOf(pair.replica));
    const list = await listOf(replica);
    assertEquals(list.filter((cmd) => cmd === "edit"), ["edit"]);
    assertEquals(list.indexOf("first"), 0);
    assert(page.types.includes("recovered"));
    assertEquals(replica.error, undefined);
    await pair.closeAndCheck();
  });

  test(`D11 D14 U29 U38 a page that starts far behind starts with its old state, also when its snapshot is interrupted, and after another start, ${kind}`, async () => {
    const pair = await pairOf(30 + i, kind);
    const { env } = pair;
    const device = new Device(pair, kind);
    let page = await device.start();
    const first = await page.replica.submit(bytes("first"));
    await env.until(first.result, 50);
    const before = await listOf(page.replica);
    await device.stop(page);
    await grow(pair, 60);
    page = await device.start();
    await cutSnapshot(pair, page);
    await checkOffline(pair, page, before);
    await device.stop(page);
    page = await device.start();
    const edit = await page.replica.submit(bytes("edit"));
    await checkOffline(pair, page, before);
    // Again, with the snapshot cut off a second time.
    pair.isDown = false;
    await cutSnapshot(pair, page);
    await checkOffline(pair, page, before);
    pair.isDown = false;
    await env.until(edit.result, 200);
    await caughtUp(pair, [page.replica]);
    assertEquals(
      await listOf(page.replica),
      await listOf(pair.replica),
    );
    await pair.closeAndCheck();
  });
}

for (const what of ["has lost some", "does not open"]) {
  test(`R10 D14 a machine on disk that ${what} whose snapshot was interrupted is not queried until a snapshot is complete`, async () => {
    for (const [i, kind] of (["disk", "hosted"] as const).entries()) {
      const pair = await pairOf(50 + i, kind);
      const { env } = pair;
      let isBad = false;
      const device = new Device(pair, kind, (disk) => ({
        before: (method) => {
          if (method === "recoverFromSnapshot") {
            isBad = true;
            if (what === "has lost some") disk.erase();
          }
          if (method === "open" && isBad && what === "does not open") {
            throw new Error("open() failed");
          }
        },
      }));
      const page = await device.start();
      const { replica } = page;
      await env.until((await replica.submit(bytes("first"))).result, 50);
      const { appliedIndex } = replica;
      pair.isDown = true;
      pair.cut();
      await grow(pair, 60);
      pair.isDown = false;
      await cutSnapshot(pair, page);
      await env.advance(2_000);
      for (
        const call of [
          replica.read(null),
          replica.requestSnapshot(),
          replica.getHash(),
          (async () => await replica.staleRead(null))(),
          (async () => await replica.view.lookup(null))(),
        ]
      ) assertInstanceOf(await rejection(call), ErrSystemBusy);
      assertEquals([replica.error, replica.appliedIndex], [
        undefined,
        appliedIndex,
      ]);
      const edit = await replica.submit(bytes("edit"));
      isBad = false;
      pair.isDown = false;
      await env.until(edit.result, 200);
      await caughtUp(pair, [replica]);
      assertEquals(await listOf(replica), await listOf(pair.replica));
      await pair.closeAndCheck();
    }
  });
}

test("D11 U15 U38 an on-disk key-value machine shows its previous state, with edits on top, when its snapshot transfer is cut off", async () => {
  const pair = new Pair(60, { limits: { farEntries: 20 } });
  await pair.start(10);
  const { env } = pair;
  const store = new MemoryBlockStore();
  const db = pair.client();
  const host = pair.host(db, {
    outbox: new BlockOutbox(new MemoryBlockStore(), { env }),
  });
  const replica = await env.until(
    host.startOnDiskCluster(() => new OnDiskKVStateMachine(store), CLUSTER),
    10,
  );
  const first = await replica.submit(kv.put("a", "1"));
  await env.until(first.result, 50);
  pair.isDown = true;
  pair.cut();
  const value = bytes("x".repeat(1 << 19));
  for (let i = 0; i < 40; i++) {
    await env.until(pair.replica.propose(kv.put(`${i % 16}`, value)), 10);
  }
  await env.advance(1_000);
  for (let cuts = 0; cuts < 3; cuts++) {
    pair.isDown = false;
    await cutSnapshot(pair, { db });
    await replica.submit(kv.put(`edit ${cuts}`, ""));
    for (let i = 0; i < 20; i++) {
      await env.advance(i < 10 ? 50 : 2_000);
      assertEquals(await replica.staleRead(kv.count()), 1);
      assertEquals(
        await env.until(Promise.resolve(replica.view.lookup(kv.count())), 50),
        2 + cuts,
      );
    }
  }
  pair.isDown = false;
  await caughtUp(pair, [replica]);
  for (const { result } of replica.pending()) await env.until(result, 50);
  assertEquals(await env.until(replica.read(kv.count()), 50), 20);
  assertEquals(await replica.getHash(), await pair.replica.getHash());
  await pair.closeAndCheck();
});

test("U16 U29 a page that has to fetch a snapshot first is not live before it has caught up with the server", async () => {
  const pair = await pairOf(40, "regular");
  const { env } = pair;
  await grow(pair, 60);
  const device = new Device(pair, "regular");
  const { db, replica, statuses, types } = await device.start();
  let behind = 0;
  db.watch(({ state }) => {
    if (state !== "live") return;
    if (replica.appliedIndex < pair.replica.appliedIndex) behind++;
  });
  const hasBeen = new Set<string>();
  for (let i = 0; i < 2_000 && db.state !== "live"; i++) {
    await env.advance(5);
    hasBeen.add(db.state);
  }
  assertEquals(db.state, "live");
  assertEquals(replica.appliedIndex, pair.replica.appliedIndex);
  assertEquals(behind, 0);
  assert(types.includes("recovered"));
  const states = statuses.map(({ state }) => state)
    .filter((state, i, all) => state !== all[i - 1]);
  assertEquals(states, ["connecting", "catching up", "live"]);
  const received = statuses.map(({ clusters }) =>
    clusters[0]?.snapshot?.received ?? 0
  );
  assert(Math.max(...received) > 1 << 19, `${received}`);
  await pair.closeAndCheck();
});
