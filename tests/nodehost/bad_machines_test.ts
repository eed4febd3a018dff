/**
 * Machines, hooks and configurations that are wrong: each is told with words, and
 * none costs a state or a process.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { ErrCompacted, ErrSnapshotUnfinished, MemoryLogDB } from "../../mod.ts";
import {
  bytes,
  checked,
  hostOf,
  listOf,
  proposeAll,
  RegularJournal,
  rejection,
  settle,
  type Started,
} from "./support.ts";
import type { HostEvent } from "../../mod.ts";

/** Saves in a way of its own. */
class Saver extends RegularJournal {
  readonly #save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown;
  constructor(
    save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown,
  ) {
    super({}, 1n, 1n);
    this.#save = save;
  }
  override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    await this.#save(w, bytes(JSON.stringify(this.list)));
  }
}

async function startSaver(
  logDB: MemoryLogDB,
  save: (w: WritableStream<Uint8Array>, state: Uint8Array) => unknown,
): Promise<Omit<Started, "machines">> {
  const events: HostEvent[] = [];
  const host = hostOf({ logDB }, events);
  const replica = await host.startCluster(() => new Saver(save), {
    clusterID: 1n,
    nodeID: 1n,
  });
  return { host, replica, events };
}

/** Bytes that come when `start` is called. */
function slow(
  state: Uint8Array,
): [source: ReadableStream<Uint8Array>, start: () => void] {
  const { promise, resolve } = Promise.withResolvers<void>();
  const source = new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      await promise;
      controller.enqueue(state);
      controller.close();
    },
  }, { highWaterMark: 0 });
  return [source, resolve];
}

Deno.test(
  "case C1: a pipeTo() that saveSnapshot() does not await loses no state [H16, R6]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const starts: (() => void)[] = [];
    const { host, replica, events } = await startSaver(logDB, (w, state) => {
      const [source, start] = slow(state);
      starts.push(start);
      void source.pipeTo(w);
    });
    for (const command of ["a", "b", "c"]) {
      await proposeAll(replica, command);
      const error = await rejection(replica.requestSnapshot());
      assertInstanceOf(error, ErrSnapshotUnfinished);
      assert(error.message.includes("await the pipeTo()"), error.message);
    }
    for (const start of starts) start();
    await settle(10);
    assertEquals(logDB.snapshots.list(1n), []);
    assertEquals(events.map(({ type }) => type), [
      "snapshot failed",
      "snapshot failed",
      "snapshot failed",
    ]);
    await host.stop();

    const again = await startSaver(logDB, () => {});
    assertEquals(await listOf(again.replica), ["a", "b", "c"]);
    await again.host.stop();
  }),
);

Deno.test(
  "case C1: a snapshot that its machine writes to after it was taken is removed, and nothing is compacted behind it [H16]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const late: (() => void)[] = [];
    const { host, replica, events } = await startSaver(
      logDB,
      (w, state) => {
        late.push(() => void slow(state)[0].pipeTo(w));
        late.push(() => void w.getWriter().write(state));
      },
    );
    await proposeAll(replica, "a");
    await replica.requestSnapshot();
    assertEquals(logDB.snapshots.list(1n).length, 1);
    late[1]!();
    await settle(10);
    assertEquals(logDB.snapshots.list(1n), []);
    await proposeAll(replica, "b");
    await replica.requestSnapshot();
    await settle(10);
    // That of before does not count: there is one good one, so nothing is cut.
    assertEquals(events.map(({ type }) => type), [
      "snapshot",
      "snapshot failed",
      "snapshot",
    ]);
    const log = logDB.open(1n, 7n);
    const reader = await log.read(0);
    assert(!(reader instanceof ErrCompacted));
    reader.close();
    await log.close();
    await host.stop();
  }),
);
