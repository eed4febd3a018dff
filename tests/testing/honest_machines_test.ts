import { fc } from "../../src/deps/fast_check.ts";
import { kv, KVStateMachine } from "../../src/kv/mod.ts";
import { MemoryFileStore } from "../../src/snapshot/memory_file_store.ts";
import type {
  Entry,
  ISnapshotFileCollection,
  Result,
  SnapshotFile,
} from "../../src/statemachine/mod.ts";
import {
  checkConcurrentStateMachine,
  checkOnDiskStateMachine,
  checkStateMachine,
} from "../../src/testing/mod.ts";
import { bytes } from "../support/bytes.ts";
import {
  commands,
  ConcurrentNotes,
  diskOf,
  linesOf,
  MemoryDisk,
  notesOf,
  OnDiskNotes,
  queries,
  RegularNotes,
} from "../machines/notes.ts";

const common = { commands, queries, seed: 7, runs: 10 };

Deno.test("R12 checkStateMachine() passes an honest machine", async () => {
  await checkStateMachine({ ...common, create: () => new RegularNotes() });
});

Deno.test("C6 checkConcurrentStateMachine() passes an honest machine", async () => {
  await checkConcurrentStateMachine({
    ...common,
    create: () => new ConcurrentNotes(),
  });
});

Deno.test("D12 checkOnDiskStateMachine() passes an honest machine whose disk loses what was not synced", async () => {
  await checkOnDiskStateMachine({
    ...common,
    disk: () => diskOf(OnDiskNotes),
  });
});

Deno.test("D12 checkOnDiskStateMachine() passes an honest machine whose disk loses nothing", async () => {
  await checkOnDiskStateMachine({
    ...common,
    disk: () => {
      const disk = new MemoryDisk();
      return { create: () => new OnDiskNotes(disk) };
    },
  });
});

Deno.test("E1 checkStateMachine() passes a machine without the optional interfaces", async () => {
  await checkStateMachine({
    ...common,
    create: () => {
      const machine = new RegularNotes();
      return Object.assign(Object.create(machine), {
        getHash: undefined,
        naLookup: undefined,
      });
    },
  });
});

Deno.test("R12 checkStateMachine() takes arbitraries", async () => {
  const name = fc.constantFrom("a", "b");
  await checkStateMachine({
    create: () => new RegularNotes(),
    commands: fc.tuple(name, fc.nat({ max: 9 }))
      .map(([name, value]) => bytes(`${name}=${value}`)),
    queries: fc.oneof(name, fc.constant(null)),
    naQueries: name.map(bytes),
    runs: 8,
  });
});

/** Notes that go into an external file of each snapshot, through a store. */
class NotesInFiles extends RegularNotes {
  static count = 0;
  readonly store: MemoryFileStore;
  constructor(store: MemoryFileStore) {
    super();
    this.store = store;
  }
  override async saveSnapshot(
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
  ): Promise<void> {
    const path = `notes/${NotesInFiles.count++}`;
    const content = new Blob(linesOf(this.notes)).stream();
    await content.pipeTo(await this.store.create(path));
    files.addFile(1n, path, bytes("all"));
    await w.close();
  }
  override async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
  ): Promise<void> {
    await new Response(r).text();
    const { content } = await this.store.open(files[0]?.filepath ?? "");
    this.notes = notesOf((await new Response(content).text()).split("\n"));
  }
}

Deno.test("F3 checkStateMachine() gives a machine its files back from a store", async () => {
  await using files = new MemoryFileStore();
  await checkStateMachine({
    ...common,
    files,
    create: () => new NotesInFiles(files),
  });
});

Deno.test("F1 checkStateMachine() returns files at their own paths without a store", async () => {
  await using files = new MemoryFileStore();
  await checkStateMachine({ ...common, create: () => new NotesInFiles(files) });
});

/** A machine whose versions are log indexes. */
class Versions extends ConcurrentNotes {
  override update(entries: Entry[]): Entry[] {
    for (const entry of entries) {
      this.notes = new Map(this.notes).set("a", `${entry.index}`);
      entry.result = { value: BigInt(entry.index) };
    }
    return entries;
  }
}

Deno.test("C7 checkConcurrentStateMachine() lets a machine show indexes when told so", async () => {
  await checkConcurrentStateMachine({
    ...common,
    usesIndex: true,
    create: () => new Versions(),
  });
});

/** A machine that holds updates back while it is being saved. */
class Locked extends ConcurrentNotes {
  saving: Promise<void> = Promise.resolve();
  override async update(entries: Entry[]): Promise<Entry[]> {
    await this.saving;
    return super.update(entries);
  }
  override saveSnapshot(
    ...args: Parameters<ConcurrentNotes["saveSnapshot"]>
  ): Promise<void> {
    const saved = super.saveSnapshot(...args);
    this.saving = saved.catch(() => {});
    return saved;
  }
}

Deno.test("C3 checkConcurrentStateMachine() waits for a machine that holds updates back while it is saved", async () => {
  await checkConcurrentStateMachine({ ...common, create: () => new Locked() });
});

Deno.test("R15 checkStateMachine() passes a machine that says which results are refusals", async () => {
  await checkStateMachine({
    ...common,
    create: () =>
      Object.assign(new RegularNotes(), {
        refusal: ({ value, data }: Result): string | undefined =>
          data === undefined && value === 0n
            ? "There is nothing to remove"
            : undefined,
      }),
  });
});

Deno.test("E3 checkStateMachine() passes a key-value machine that merges overwrites of one key", async () => {
  class Merging extends KVStateMachine {
    readonly merge = kv.merge;
  }
  const keys = ["a", "b"];
  await checkStateMachine({
    create: () => new Merging(),
    commands: keys.flatMap((key) => [
      kv.put(key, "1"),
      kv.put(key, "2"),
      kv.delete(key),
      kv.compareAndSwap(key, "1", "3"),
      kv.batch([kv.put(key, "4")]),
    ]),
    queries: [kv.range()],
  });
});
