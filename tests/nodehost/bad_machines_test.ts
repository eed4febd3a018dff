/**
 * Machines, hooks and configurations that are wrong: each is told with words, and
 * none costs a state or a process.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrCompacted,
  ErrSnapshotFile,
  ErrSnapshotUnfinished,
  ErrStateMismatch,
  HOST_DIRECTORY,
  type HostEvent,
  type ISnapshotFileCollection,
  MemoryFileStore,
  MemoryLogDB,
  MemorySnapshotStore,
} from "../../mod.ts";
import { differ } from "../../src/nodehost/checkpoints.ts";
import {
  bytes,
  checked,
  Disk,
  HostedDiskJournal,
  hostOf,
  listOf,
  proposeAll,
  RegularJournal,
  rejection,
  settle,
  start,
  type Started,
} from "./support.ts";

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

/** Recovers without the last command: what code that is older than a snapshot does with a part it does not know. */
class Forgetful extends RegularJournal {
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return (await super.readAll(r)).slice(0, -1);
  }
}

class ForgetfulDisk extends HostedDiskJournal {
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    return (await super.readAll(r)).slice(0, -1);
  }
}

/** Version 1 of a state: commands in upper case. */
class Shouting extends RegularJournal {
  readonly stateVersion: number = 1;
  recovered: bigint | undefined;
  override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
    const list = await super.readAll(r);
    this.list = list;
    this.recovered = this.hash();
    return list.map((command) => command.toUpperCase());
  }
}

class Migrating extends Shouting {
  getRecoveredHash(): bigint | undefined {
    return this.recovered;
  }
}

const CONFIG = { clusterID: 1n, nodeID: 1n };

/** A log that starts after a snapshot of "a" to "d", in a store of its own. */
async function cutLog(
  logDB: MemoryLogDB,
  snapshots: MemorySnapshotStore,
): Promise<void> {
  const { host, replica } = await start({ logDB, snapshots });
  for (const pair of [["a", "b"], ["c", "d"]]) {
    await proposeAll(replica, ...pair);
    await replica.requestSnapshot();
  }
  await host.stop();
}

Deno.test(
  "case C2: a machine that leaves out a part of a snapshot starts nothing, and the snapshot stays [H16]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await cutLog(logDB, snapshots);
    const before = snapshots.list(1n).map(({ id }) => id);
    const wrong = hostOf({ logDB, snapshots });
    const error = await rejection(
      wrong.startCluster(() => new Forgetful({}, 1n, 1n), CONFIG),
    );
    assertInstanceOf(error, ErrStateMismatch);
    assert(error.saved !== error.recovered);
    assertEquals(snapshots.list(1n).map(({ id }) => id), before);
    await wrong.stop();

    const right = await start({ logDB, snapshots });
    assertEquals(await listOf(right.replica), ["a", "b", "c", "d"]);
    await right.host.stop();
  }),
);

Deno.test(
  "case C2: a machine on disk that kept what a wrong recovery left is recovered once more, and refused again [H16, D11]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await cutLog(logDB, snapshots);
    const disk = new Disk();
    for (let i = 0; i < 2; i++) {
      const wrong = hostOf({ logDB, snapshots });
      const error = await rejection(
        wrong.startOnDiskCluster(
          () => new ForgetfulDisk(disk, {}, 1n, 1n),
          CONFIG,
        ),
      );
      assertInstanceOf(error, ErrStateMismatch);
      await wrong.stop();
    }
    assertEquals(snapshots.list(1n).length, 2);
    // The right code gets all of it, although the machine has that index already.
    const right = await start({ logDB, snapshots, kind: "hosted", disk });
    assertEquals(await listOf(right.replica), ["a", "b", "c", "d"]);
    await right.host.stop();
  }),
);

Deno.test(
  "H16 a machine whose recovery migrates is compared by the hash of what it recovered, and states of different versions are not",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await cutLog(logDB, snapshots);
    for (const Machine of [Shouting, Migrating]) {
      const host = hostOf({ logDB, snapshots });
      const replica = await host.startCluster(
        () => new Machine({}, 1n, 1n),
        CONFIG,
      );
      assertEquals(await listOf(replica), ["A", "B", "C", "D"]);
      await host.stop();
    }
    const host = hostOf({ logDB, snapshots });
    class Losing extends Migrating {
      override async readAll(r: ReadableStream<Uint8Array>): Promise<string[]> {
        const list = (await super.readAll(r)).slice(1);
        this.recovered = this.recovered! ^ 1n;
        return list;
      }
    }
    const error = await rejection(
      host.startCluster(() => new Losing({}, 1n, 1n), CONFIG),
    );
    assertInstanceOf(error, ErrStateMismatch);
    await host.stop();
  }),
);

Deno.test(
  "H16 checkpoints carry the state's version, and those of different versions are not compared",
  checked(async () => {
    const one = { index: 3, state: 1n, sessions: 0n };
    assert(differ(one, { ...one, state: 2n }));
    assert(differ(one, { ...one, state: 2n, stateVersion: 0 }));
    assert(!differ(one, { ...one, state: 2n, stateVersion: 1 }));
    await using logDB = new MemoryLogDB();
    const host = hostOf({ logDB });
    const replica = await host.startCluster(() => new Shouting({}, 1n, 1n), {
      ...CONFIG,
      hashEntries: 2,
    });
    const seen: (number | undefined)[] = [];
    const log = logDB.open(1n, 7n);
    log.checkpoints!.watch(
      7n,
      ({ stateVersion }) => void seen.push(stateVersion),
    );
    await proposeAll(replica, "a", "b", "c");
    assertEquals(seen, [1, 1]);
    await log.close();
    await host.stop();
  }),
);

Deno.test(
  "case C14: a machine's own files survive a recovery, and names of the host are refused [F4]",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using files = new MemoryFileStore();
    const put = async (path: string): Promise<void> => {
      const writer = files.create(path).getWriter();
      await writer.write(bytes(path));
      await writer.close();
    };
    const own = ["snapshots/1-1/2/7", "replays/1-1/2/7"];
    for (const path of own) await put(path);
    await put(`${HOST_DIRECTORY}/mine`);
    let added = [[7n, own[0]!], [8n, own[1]!]] as [bigint, string][];
    const options = {
      logDB,
      files,
      manners: {
        addFiles: (collection: ISnapshotFileCollection): void => {
          for (const [id, path] of added) {
            collection.addFile(id, path, new Uint8Array());
          }
        },
      },
    };
    const { host, replica } = await start(options);
    await proposeAll(replica, "a");
    await replica.requestSnapshot();
    for (
      const path of [HOST_DIRECTORY, `/${HOST_DIRECTORY}/mine`, "Sampan-Host/x"]
    ) {
      added = [[7n, path]];
      const error = await rejection(replica.requestSnapshot());
      assertInstanceOf(error, ErrSnapshotFile);
      assertEquals([error.fileID, error.path], [7n, path]);
    }
    await host.stop();
    const again = await start(options);
    assertEquals(again.machines.at(-1)!.files.map(({ fileID }) => fileID), [
      7n,
      8n,
    ]);
    for (const path of own) {
      const { content } = files.open(path);
      assertEquals(await new Response(content as BodyInit).text(), path);
    }
    await again.host.stop();
  }),
);
