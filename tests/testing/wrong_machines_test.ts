import { assert, assertEquals } from "@std/assert";
import { MemoryFileStore } from "../../src/snapshot/memory_file_store.ts";
import {
  type Entry,
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  type ISnapshotFileCollection,
  type MaybePromise,
  type Result,
} from "../../src/statemachine/mod.ts";
import {
  checkConcurrentStateMachine,
  checkOnDiskStateMachine,
  checkStateMachine,
  type CheckStateMachineOptions,
  ContractViolation,
} from "../../src/testing/mod.ts";
import {
  answer,
  applyTo,
  commands,
  ConcurrentNotes,
  diskOf,
  hashOf,
  type Image,
  linesOf,
  type MemoryDisk,
  type Notes,
  notesOf,
  OnDiskNotes,
  queries,
  readLines,
  RegularNotes,
  writeLines,
} from "../machines/notes.ts";
import { bytes, text } from "../support/bytes.ts";

const common = {
  commands,
  queries,
  seed: 11,
  runs: 15,
  maxCommands: 6,
};

/** For machines that never settle. */
const hangs = { settleTimeoutMs: 150 };

/** Runs a check on a wrong machine and returns the violation, which must be of the rule expected. */
async function violationOf(
  rule: string,
  check: () => Promise<void>,
): Promise<ContractViolation> {
  let caught: unknown;
  try {
    await check();
  } catch (error) {
    caught = error;
  }
  assert(caught !== undefined, `No violation of ${rule} was found`);
  if (!(caught instanceof ContractViolation)) throw caught;
  assertEquals(caught.rule, rule, caught.message);
  return caught;
}

/** Declares that a wrong regular machine is caught; `length` is how many commands the smallest history has. */
function regular(
  rule: string,
  what: string,
  machine: new () => RegularNotes,
  options: Partial<CheckStateMachineOptions> & { length?: number } = {},
): void {
  Deno.test(`${rule} checkStateMachine() catches a machine that ${what}`, async () => {
    const { length, ...more } = options;
    const violation = await violationOf(
      rule,
      () =>
        checkStateMachine({
          ...common,
          ...more,
          create: () => new machine(),
        }),
    );
    if (length !== undefined) {
      assertEquals(violation.commands.length, length, violation.message);
    }
  });
}

function concurrent(
  rule: string,
  what: string,
  machine: new () => ConcurrentNotes,
  options: {
    length?: number;
    usesIndex?: boolean;
    settleTimeoutMs?: number;
  } = {},
): void {
  Deno.test(`${rule} checkConcurrentStateMachine() catches a machine that ${what}`, async () => {
    const { length, ...more } = options;
    const violation = await violationOf(
      rule,
      () =>
        checkConcurrentStateMachine({
          ...common,
          ...more,
          create: () => new machine(),
        }),
    );
    if (length !== undefined) {
      assertEquals(violation.commands.length, length, violation.message);
    }
  });
}

function onDisk(
  rule: string,
  what: string,
  machine: new (disk: MemoryDisk) => OnDiskNotes,
  options: {
    length?: number;
    crashes?: boolean;
    settleTimeoutMs?: number;
    commands?: readonly Uint8Array[];
  } = {},
): void {
  Deno.test(`${rule} checkOnDiskStateMachine() catches a machine that ${what}`, async () => {
    const { length, crashes = true, ...more } = options;
    const violation = await violationOf(
      rule,
      () =>
        checkOnDiskStateMachine({
          ...common,
          ...more,
          disk: () => {
            const { create, crash } = diskOf(machine);
            return crashes && crash ? { create, crash } : { create };
          },
        }),
    );
    if (length !== undefined) {
      assertEquals(violation.commands.length, length, violation.message);
    }
  });
}

// What state depends on.

regular(
  "R12",
  "reads the clock",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      return { ...applyTo(this.notes, cmd), value: BigInt(Date.now()) };
    }
  },
  { length: 1 },
);

regular(
  "R12",
  "makes a new Date()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      this.notes.set("a", new Date().toISOString());
      return { value: BigInt(cmd.length) };
    }
  },
  { length: 1 },
);

regular(
  "R12",
  "reads performance.now()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      this.notes.set("a", `${performance.now()}`);
      return { value: BigInt(cmd.length) };
    }
  },
  { length: 1 },
);

regular(
  "R12",
  "uses Math.random()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      return Math.random() < 0.5 ? { value: 0n } : applyTo(this.notes, cmd);
    }
  },
);

regular(
  "R12",
  "uses crypto.getRandomValues()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      const data = crypto.getRandomValues(new Uint8Array(4));
      return { ...applyTo(this.notes, cmd), data };
    }
  },
  { length: 1 },
);

regular(
  "R12",
  "uses crypto.randomUUID()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      return { ...applyTo(this.notes, cmd), data: bytes(crypto.randomUUID()) };
    }
  },
  { length: 1 },
);

Deno.test("R12 checkStateMachine() catches a machine that depends on its node id", async () => {
  class Named extends RegularNotes {
    readonly nodeID: bigint;
    constructor(nodeID: bigint) {
      super();
      this.nodeID = nodeID;
    }
    override update(cmd: Uint8Array): Result {
      return { value: applyTo(this.notes, cmd).value + this.nodeID };
    }
  }
  await violationOf("R12", () =>
    checkStateMachine({
      ...common,
      create: (_clusterID, nodeID) => new Named(nodeID),
    }));
});

regular(
  "R3",
  "shares state between instances",
  (() => {
    const shared = new Map<string, string>();
    return class extends RegularNotes {
      override notes = shared;
    };
  })(),
);

regular(
  "T4",
  "is the same one each time",
  (() => {
    let one: RegularNotes | undefined;
    return class extends RegularNotes {
      constructor() {
        super();
        if (one !== undefined) return one;
        one = this;
      }
    };
  })(),
);

regular(
  "T4",
  "cannot be made",
  class extends RegularNotes {
    constructor() {
      super();
      throw new Error("Constructor failed (injected)");
    }
  },
  { length: 0 },
);

regular(
  "E1",
  "has a hash of the instance",
  class extends RegularNotes {
    readonly id = BigInt(Math.floor(Math.random() * 1000));
    override getHash(): bigint {
      return hashOf(this.notes) ^ this.id;
    }
  },
);

regular(
  "E2",
  "answers naLookup() from the clock",
  class extends RegularNotes {
    override naLookup(): Uint8Array {
      return bytes(`${Date.now()}`);
    }
  },
);

regular(
  "E2",
  "answers naLookup() with text",
  class extends RegularNotes {
    override naLookup(): Uint8Array {
      return "text" as unknown as Uint8Array;
    }
  },
);

// Results.

regular(
  "T2",
  "returns no result",
  class extends RegularNotes {
    override update(): Result {
      return undefined as unknown as Result;
    }
  },
  { length: 1 },
);

regular(
  "T2",
  "returns a number",
  class extends RegularNotes {
    override update(): Result {
      return { value: 1 as unknown as bigint };
    }
  },
  { length: 1 },
);

regular(
  "T2",
  "returns text as data",
  class extends RegularNotes {
    override update(): Result {
      return { value: 1n, data: "1" as unknown as Uint8Array };
    }
  },
  { length: 1 },
);

regular(
  "T2",
  "changes results it has returned",
  class extends RegularNotes {
    readonly buffer = new Uint8Array(1);
    override update(cmd: Uint8Array): Result {
      const { value } = applyTo(this.notes, cmd);
      this.buffer[0] = (this.buffer[0] as number) + 1;
      return { value, data: this.buffer };
    }
  },
  { length: 2 },
);

regular(
  "T3",
  "gives a value below 0",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      return { value: applyTo(this.notes, cmd).value - 1n };
    }
  },
  { length: 1, commands: [bytes("a"), bytes("a=1")] },
);

regular(
  "T3",
  "gives a value over 2^64-1",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      return { value: applyTo(this.notes, cmd).value << 64n };
    }
  },
  { length: 1 },
);

regular(
  "T3",
  "gives a hash over 2^64-1",
  class extends RegularNotes {
    override getHash(): bigint {
      return 1n << 64n;
    }
  },
  { length: 0 },
);

regular(
  "T3",
  "gives a hash that is a number",
  class extends RegularNotes {
    override getHash(): bigint {
      return 1 as unknown as bigint;
    }
  },
  { length: 0 },
);

regular(
  "R5",
  "throws on a command it does not like",
  class extends RegularNotes {
    override update(cmd: Uint8Array): Result {
      if (text(cmd) === "c=3") throw new Error("update() got c=3");
      return applyTo(this.notes, cmd);
    }
  },
  { length: 1 },
);

regular(
  "R5",
  "never settles in update()",
  class extends RegularNotes {
    override update(cmd: Uint8Array): MaybePromise<Result> {
      if (text(cmd) === "c=3") return new Promise(() => {});
      return applyTo(this.notes, cmd);
    }
  },
  hangs,
);

concurrent(
  "C1",
  "returns fewer entries",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      return entries.slice(1);
    }
  },
  { length: 1 },
);

concurrent(
  "C1",
  "returns nothing",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      return undefined as unknown as Entry[];
    }
  },
  { length: 1 },
);

concurrent(
  "C1",
  "changes an index",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      return entries.map((entry) => ({ ...entry, index: entry.index + 1 }));
    }
  },
  { length: 1 },
);

concurrent(
  "C1",
  "reverses its entries",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      return entries.reverse();
    }
  },
  { length: 2 },
);

concurrent(
  "C1",
  "leaves an entry without a result",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      if (entries.length > 1) delete entries[1]?.result;
      return entries;
    }
  },
  { length: 2 },
);

concurrent(
  "T3",
  "gives a value over 2^64-1",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      for (const entry of entries) entry.result = { value: 1n << 64n };
      return entries;
    }
  },
  { length: 1 },
);

concurrent(
  "C7",
  "counts batches",
  class extends ConcurrentNotes {
    batches = 0;
    override update(entries: Entry[]): MaybePromise<Entry[]> {
      this.batches++;
      return super.update(entries);
    }
    override lookup(query: unknown): unknown {
      return query === null ? this.batches : super.lookup(query);
    }
  },
  { length: 2 },
);

concurrent(
  "C7",
  "takes the gaps in indexes for losses",
  class extends ConcurrentNotes {
    last = 0;
    override update(entries: Entry[]): MaybePromise<Entry[]> {
      for (const { index } of entries) {
        if (index !== this.last + 1) {
          throw new Error(`Entry ${this.last + 1} is missing`);
        }
        this.last = index;
      }
      return super.update(entries);
    }
  },
  { length: 1 },
);

concurrent(
  "C7",
  "skips entries after a gap",
  class extends ConcurrentNotes {
    last = 0;
    override update(entries: Entry[]): Entry[] {
      for (const entry of entries) {
        entry.result = { value: 0n };
        if (entry.index !== this.last + 1) continue;
        this.last = entry.index;
        super.update([entry]);
      }
      return entries;
    }
  },
  { length: 1 },
);

concurrent(
  "C7",
  "counts indexes up from the first of a batch",
  class extends ConcurrentNotes {
    override update(entries: Entry[]): Entry[] {
      super.update(entries);
      const first = entries[0]?.index ?? 0;
      entries.forEach((entry, i) => {
        entry.result = { value: BigInt(first + i) };
      });
      return entries;
    }
  },
  { length: 2, usesIndex: true },
);

// Reading leaves no trace.

regular(
  "R4",
  "counts lookups",
  class extends RegularNotes {
    override lookup(query: unknown): unknown {
      this.notes.set("a", `${(this.notes.get("a") ?? "").length}`);
      return super.lookup(query);
    }
    override update(cmd: Uint8Array): Result {
      this.notes.set("n", (this.notes.get("n") ?? "") + this.notes.get("a"));
      return applyTo(this.notes, cmd);
    }
  },
);

regular(
  "R4",
  "is harmed by a lookup it refuses",
  class extends RegularNotes {
    override lookup(query: unknown): unknown {
      if (typeof query === "number") this.notes.clear();
      return super.lookup(query);
    }
  },
);

regular(
  "R13",
  "answers with bytes it goes on using",
  class extends RegularNotes {
    readonly values = new Map<unknown, Uint8Array>();
    override lookup(query: unknown): unknown {
      const value = super.lookup(query);
      if (!(value instanceof Uint8Array)) return value;
      const kept = this.values.get(`${query}`);
      if (kept?.length === value.length) return kept;
      this.values.set(`${query}`, value);
      return value;
    }
  },
  { length: 1, queries: ["a"], commands: [bytes("a=1")] },
);

regular(
  "E1",
  "changes when hashed",
  class extends RegularNotes {
    override getHash(): bigint {
      this.notes.delete("a");
      return super.getHash();
    }
    override update(cmd: Uint8Array): Result {
      return applyTo(this.notes, cmd);
    }
  },
  { length: 2 },
);

regular(
  "E2",
  "changes in naLookup()",
  class extends RegularNotes {
    override naLookup(query: Uint8Array): Uint8Array {
      const found = super.naLookup(query);
      this.notes.delete("a");
      return found;
    }
  },
  { length: 1 },
);

concurrent(
  "C3",
  "loses an update that a lookup overlaps",
  class extends ConcurrentNotes {
    asked = 0;
    override lookup(query: unknown): unknown {
      this.asked++;
      return super.lookup(query);
    }
    override async update(entries: Entry[]): Promise<Entry[]> {
      const { asked, notes } = this;
      await Promise.resolve();
      super.update(entries);
      if (this.asked !== asked) this.notes = notes;
      return entries;
    }
  },
);

regular(
  "R6",
  "changes when saved",
  class extends RegularNotes {
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      await super.saveSnapshot(...args);
      this.notes.delete("a");
    }
  },
  { length: 1 },
);

regular(
  "R6",
  "writes text to its snapshot",
  class extends RegularNotes {
    override async saveSnapshot(
      w: WritableStream<Uint8Array>,
    ): Promise<void> {
      const writer = w.getWriter();
      await writer.write("text" as unknown as Uint8Array);
      await writer.close();
    }
  },
  { length: 0 },
);

regular(
  "R11",
  "keeps its commands",
  class extends RegularNotes {
    readonly log: Uint8Array[] = [];
    override update(cmd: Uint8Array): Result {
      this.log.push(cmd);
      return { value: 0n };
    }
    override lookup(query: unknown): unknown {
      const notes = new Map<string, string>();
      for (const cmd of this.log) applyTo(notes, cmd);
      return answer(notes, query);
    }
    override getHash(): bigint {
      return 0n;
    }
  },
  { length: 1 },
);

regular(
  "R11",
  "keeps its queries",
  class extends RegularNotes {
    query: Uint8Array | undefined;
    override lookup(query: unknown): unknown {
      if (query instanceof Uint8Array) {
        this.query ??= query;
        return super.lookup(this.query);
      }
      return super.lookup(query);
    }
  },
  { length: 1 },
);

concurrent(
  "R11",
  "keeps its entries",
  class extends ConcurrentNotes {
    kept: Entry[] = [];
    override update(entries: Entry[]): MaybePromise<Entry[]> {
      // Applies the batch before, which is no longer its own.
      this.kept.push(...entries);
      return super.update(entries);
    }
    override lookup(query: unknown): unknown {
      return query === null
        ? this.kept.map(({ index }) => index).length &&
          text(this.kept[0]?.cmd ?? bytes(""))
        : super.lookup(query);
    }
  },
  { length: 1 },
);

// Snapshots.

regular(
  "R9",
  "forgets a part of its state",
  class extends RegularNotes {
    override async saveSnapshot(
      w: WritableStream<Uint8Array>,
      _files: ISnapshotFileCollection,
      stopped: AbortSignal,
    ): Promise<void> {
      const lines = linesOf(this.notes).filter((line) => line[0] !== "b");
      await writeLines(lines, w, stopped);
    }
  },
  { length: 1 },
);

regular(
  "R9",
  "merges a snapshot into what it has",
  class extends RegularNotes {
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      _files: unknown,
      stopped: AbortSignal,
    ): Promise<void> {
      const notes = notesOf(await readLines(r, stopped));
      this.notes = new Map([...this.notes, ...notes]);
    }
  },
  { length: 1 },
);

regular(
  "R9",
  "takes chunks for lines",
  class extends RegularNotes {
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
    ): Promise<void> {
      const lines: string[] = [];
      for await (const chunk of r) lines.push(...text(chunk).split("\n"));
      this.notes = notesOf(lines);
    }
  },
  { length: 1 },
);

regular(
  "R9",
  "cannot recover",
  class extends RegularNotes {
    override recoverFromSnapshot(): Promise<void> {
      return Promise.reject(new Error("Cannot"));
    }
  },
  { length: 0 },
);

regular(
  "R9",
  "does not save what it recovered",
  class extends RegularNotes {
    recovered = new Map<string, string>();
    override async recoverFromSnapshot(
      ...args: Parameters<RegularNotes["recoverFromSnapshot"]>
    ): Promise<void> {
      await super.recoverFromSnapshot(...args);
      this.recovered = new Map(this.notes);
    }
    override async saveSnapshot(
      w: WritableStream<Uint8Array>,
      _files: ISnapshotFileCollection,
      stopped: AbortSignal,
    ): Promise<void> {
      const fresh = [...this.notes].filter(([name, value]) =>
        this.recovered.get(name) !== value
      );
      await writeLines(linesOf(new Map(fresh)), w, stopped);
    }
  },
  { length: 1 },
);

regular(
  "R9",
  "takes a broken stream for the end",
  class extends RegularNotes {
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      _files: unknown,
      stopped: AbortSignal,
    ): Promise<void> {
      const lines = await readLines(r, stopped).catch((error) => {
        if (stopped.aborted) throw error;
        return [];
      });
      this.notes = notesOf(lines);
    }
  },
);

concurrent(
  "C4",
  "saves the latest state",
  class extends ConcurrentNotes {
    override saveSnapshot(
      _context: unknown,
      ...rest: [
        WritableStream<Uint8Array>,
        ISnapshotFileCollection,
        AbortSignal,
      ]
    ): Promise<void> {
      return super.saveSnapshot(this.notes, ...rest);
    }
  },
);

concurrent(
  "C4",
  "reads the state while it is saved, piece by piece",
  class extends ConcurrentNotes {
    override prepareSnapshot(): unknown {
      return undefined;
    }
    override update(entries: Entry[]): Entry[] {
      for (const entry of entries) {
        entry.result = applyTo(this.notes, entry.cmd);
      }
      return entries;
    }
    override async saveSnapshot(
      _context: unknown,
      w: WritableStream<Uint8Array>,
    ): Promise<void> {
      const writer = w.getWriter();
      for (const [name, value] of this.notes) {
        await writer.write(bytes(`${name}=${value}\n`));
      }
      writer.releaseLock();
    }
  },
);

concurrent(
  "C4",
  "loses updates made while it is saved",
  class extends ConcurrentNotes {
    override async saveSnapshot(
      ...args: Parameters<ConcurrentNotes["saveSnapshot"]>
    ): Promise<void> {
      const { notes } = this;
      await super.saveSnapshot(...args);
      this.notes = notes;
    }
  },
);

Deno.test("F2 checkStateMachine() catches a machine that adds a file twice", async () => {
  await violationOf("F2", () =>
    checkStateMachine({
      ...common,
      create: () =>
        new SavesFiles((files) => (
          files.addFile(1n, "a", bytes("")), files.addFile(1n, "b", bytes(""))
        )),
    }));
});

Deno.test("F2 checkStateMachine() catches a machine that adds a file that is not there", async () => {
  await using files = new MemoryFileStore();
  await violationOf("F2", () =>
    checkStateMachine({
      ...common,
      files,
      create: () =>
        new SavesFiles((files) => files.addFile(1n, "a", bytes(""))),
    }));
});

Deno.test("F1 checkStateMachine() catches a machine that adds metadata that is not bytes", async () => {
  const metadata = "text" as unknown as Uint8Array;
  await violationOf("F1", () =>
    checkStateMachine({
      ...common,
      create: () => new SavesFiles((files) => files.addFile(1n, "a", metadata)),
    }));
});

Deno.test("F1 checkStateMachine() catches a machine that adds a file by a negative id", async () => {
  await violationOf("F1", () =>
    checkStateMachine({
      ...common,
      create: () =>
        new SavesFiles((files) => files.addFile(-1n, "a", bytes(""))),
    }));
});

/** A machine that adds files in its way. */
class SavesFiles extends RegularNotes {
  readonly add: (files: ISnapshotFileCollection) => void;
  constructor(add: (files: ISnapshotFileCollection) => void) {
    super();
    this.add = add;
  }
  override async saveSnapshot(
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    this.add(files);
    await super.saveSnapshot(w, files, stopped);
  }
}

Deno.test("F3 checkStateMachine() catches a machine that uses a file of a recovery afterwards", async () => {
  await using store = new MemoryFileStore();
  class Leaning extends RegularNotes {
    path = "";
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      const stream = await store.create("kept");
      await new Blob(["kept"]).stream().pipeTo(stream);
      args[1].addFile(1n, "kept", bytes(""));
      await super.saveSnapshot(...args);
    }
    override async recoverFromSnapshot(
      ...args: Parameters<RegularNotes["recoverFromSnapshot"]>
    ): Promise<void> {
      await super.recoverFromSnapshot(...args);
      this.path = (args[1] as { filepath: string }[])[0]?.filepath ?? "";
    }
    override async lookup(query: unknown): Promise<unknown> {
      if (query !== "file" || this.path === "") return super.lookup(query);
      const { content } = await store.open(this.path);
      await content.cancel();
      return super.lookup(query);
    }
  }
  await violationOf("F3", () =>
    checkStateMachine({
      ...common,
      queries: ["file"],
      files: store,
      create: () => new Leaning(),
    }));
});

// Ends.

regular(
  "R8",
  "waits for ever when it is stopped",
  class extends RegularNotes {
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      if (args[2].aborted) await new Promise(() => {});
      await super.saveSnapshot(...args);
    }
  },
  hangs,
);

regular(
  "R8",
  "waits for ever when it is stopped in the middle",
  class extends RegularNotes {
    override async saveSnapshot(
      w: WritableStream<Uint8Array>,
      _files: ISnapshotFileCollection,
      stopped: AbortSignal,
    ): Promise<void> {
      stopped.throwIfAborted();
      const writer = w.getWriter();
      for (const line of linesOf(this.notes)) {
        await writer.write(bytes(line));
        if (stopped.aborted) await new Promise(() => {});
      }
      await writer.close();
    }
  },
  hangs,
);

regular(
  "R8",
  "has an error of its own for a stop",
  class extends RegularNotes {
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      if (args[2].aborted) throw new Error("saveSnapshot() was stopped");
      await super.saveSnapshot(...args);
    }
  },
  { length: 0 },
);

concurrent(
  "C5",
  "is broken by a context that is given back",
  class extends ConcurrentNotes {
    override saveSnapshot(
      ...args: Parameters<ConcurrentNotes["saveSnapshot"]>
    ): Promise<void> {
      if (args[3].aborted) this.notes = new Map();
      return super.saveSnapshot(...args);
    }
  },
);

concurrent(
  "C5",
  "waits for ever with a context that is given back",
  class extends ConcurrentNotes {
    override saveSnapshot(
      ...args: Parameters<ConcurrentNotes["saveSnapshot"]>
    ): Promise<void> {
      if (args[3].aborted) return new Promise(() => {});
      return super.saveSnapshot(...args);
    }
  },
  hangs,
);

regular(
  "R7",
  "aborts every snapshot",
  class extends RegularNotes {
    override saveSnapshot(): Promise<void> {
      return Promise.reject(new ErrSnapshotAborted());
    }
  },
  { length: 0 },
);

regular(
  "R8",
  "says it was stopped when it was not",
  class extends RegularNotes {
    override saveSnapshot(): Promise<void> {
      return Promise.reject(new ErrSnapshotStopped());
    }
  },
  { length: 0 },
);

regular(
  "R8",
  "swallows the errors of its sink",
  class extends RegularNotes {
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      await super.saveSnapshot(...args).catch((error) => {
        if (args[2].aborted) throw error;
      });
    }
  },
  { length: 1 },
);

regular(
  "R8",
  "has an error of its own for a sink that fails",
  class extends RegularNotes {
    override async saveSnapshot(
      ...args: Parameters<RegularNotes["saveSnapshot"]>
    ): Promise<void> {
      await super.saveSnapshot(...args).catch((error) => {
        throw args[2].aborted ? error : new Error("EIO: disk is broken");
      });
    }
  },
  { length: 1 },
);

regular(
  "R8",
  "waits for ever when its recovery is stopped",
  class extends RegularNotes {
    override recoverFromSnapshot(
      ...args: Parameters<RegularNotes["recoverFromSnapshot"]>
    ): Promise<void> {
      if (args[2].aborted) return new Promise(() => {});
      return super.recoverFromSnapshot(...args);
    }
  },
  hangs,
);

regular(
  "R8",
  "takes a stopped recovery for a finished one",
  class extends RegularNotes {
    override async recoverFromSnapshot(
      ...args: Parameters<RegularNotes["recoverFromSnapshot"]>
    ): Promise<void> {
      await super.recoverFromSnapshot(...args).catch((error) => {
        if (!args[2].aborted) throw error;
      });
    }
  },
  { length: 1 },
);

regular(
  "R10",
  "is empty when closed",
  class extends RegularNotes {
    override close(): void {
      this.notes.clear();
    }
  },
  { length: 1 },
);

regular(
  "R10",
  "cannot be closed",
  class extends RegularNotes {
    override close(): void {
      throw new Error("close() failed");
    }
  },
  { length: 0 },
);

regular(
  "R10",
  "never finishes closing",
  class extends RegularNotes {
    override close(): Promise<void> {
      return new Promise(() => {});
    }
  },
  hangs,
);

// On disk.

/** Counts commands in a note, so that no two prefixes are the same state. */
function count(notes: Map<string, string>): void {
  notes.set("#", `${Number(notes.get("#") ?? 0) + 1}`);
}

onDisk(
  "D1",
  "opens a new place with an index",
  class extends OnDiskNotes {
    override async open(stopped: AbortSignal): Promise<number> {
      return await super.open(stopped) + 1;
    }
  },
  { length: 0 },
);

onDisk(
  "D1",
  "opens with no number",
  class extends OnDiskNotes {
    override async open(stopped: AbortSignal): Promise<number> {
      return await super.open(stopped) / 0;
    }
  },
  { length: 0 },
);

onDisk(
  "D1",
  "opens with an index too high",
  class extends OnDiskNotes {
    override async open(stopped: AbortSignal): Promise<number> {
      const index = await super.open(stopped);
      return index === 0 ? 0 : index + 10;
    }
    override sync(): Promise<void> {
      return super.sync();
    }
  },
  { length: 1, crashes: false },
);

onDisk(
  "D1",
  "opens with an index that is not durable",
  class extends OnDiskNotes {
    override open(): Promise<number> {
      this.handle = this.disk.open();
      this.image = this.handle.read();
      return Promise.resolve(this.image.index);
    }
  },
);

onDisk(
  "D2",
  "waits for ever when its open is stopped",
  class extends OnDiskNotes {
    override open(stopped: AbortSignal): Promise<number> {
      if (stopped.aborted) return new Promise(() => {});
      return super.open(stopped);
    }
  },
  hangs,
);

onDisk(
  "D2",
  "has an error of its own for an open that is stopped",
  class extends OnDiskNotes {
    override open(stopped: AbortSignal): Promise<number> {
      if (stopped.aborted) return Promise.reject(new Error("Interrupted"));
      return super.open(stopped);
    }
  },
  { length: 0 },
);

onDisk(
  "D2",
  "loses its state in an open that is stopped",
  class extends OnDiskNotes {
    override async open(stopped: AbortSignal): Promise<number> {
      if (stopped.aborted) {
        const handle = this.disk.open();
        await handle.commit({ index: 0, notes: new Map() });
        await handle.sync();
      }
      return await super.open(stopped);
    }
  },
  { length: 1 },
);

onDisk(
  "D4",
  "keeps its index apart from its state",
  class extends OnDiskNotes {
    override async put(image: Image): Promise<void> {
      const { notes } = image;
      await this.handle?.commit({ index: this.image.index, notes });
      await this.handle?.sync();
      this.image = image;
    }
    override async sync(): Promise<void> {
      await this.handle?.commit(this.image);
      await super.sync();
    }
  },
  { length: 1 },
);

onDisk(
  "D5",
  "loses an entry in the middle",
  class extends OnDiskNotes {
    durable: Notes = new Map();
    last = 0;
    override async open(stopped: AbortSignal): Promise<number> {
      this.last = await super.open(stopped);
      this.durable = this.image.notes;
      return this.last;
    }
    // Keeps back what is said of "a" until it is synced, and nothing else.
    override async update(entries: Entry[]): Promise<Entry[]> {
      const durable = new Map(this.durable);
      const notes = new Map(this.image.notes);
      for (const entry of entries) {
        entry.result = applyTo(notes, entry.cmd);
        count(notes);
        if (text(entry.cmd)[0] === "a") continue;
        applyTo(durable, entry.cmd);
        count(durable);
        this.last = entry.index;
      }
      this.durable = durable;
      await this.handle?.commit({ index: this.last, notes: durable });
      await this.handle?.sync();
      this.image = { index: (entries.at(-1) as Entry).index, notes };
      return entries;
    }
    override async sync(): Promise<void> {
      this.durable = this.image.notes;
      this.last = this.image.index;
      await this.handle?.commit(this.image);
      await super.sync();
    }
  },
  { length: 2, commands: ["a=1", "b=2"].map(bytes) },
);

onDisk(
  "D6",
  "does not sync",
  class extends OnDiskNotes {
    override sync(): Promise<void> {
      return Promise.resolve();
    }
    override async open(stopped: AbortSignal): Promise<number> {
      const index = await super.open(stopped);
      await this.handle?.sync();
      return index;
    }
  },
  { length: 1 },
);

onDisk(
  "D8",
  "saves its notes in the order of a shuffle",
  class extends OnDiskNotes {
    turns = 0;
    override async saveSnapshot(
      context: unknown,
      w: WritableStream<Uint8Array>,
      stopped: AbortSignal,
    ): Promise<void> {
      const { index, notes } = context as Image;
      const lines = linesOf(notes);
      if (this.turns++ % 2) lines.reverse();
      await writeLines([`${index}\n`, ...lines], w, stopped);
    }
  },
  { length: 2 },
);

onDisk(
  "D9",
  "swallows the loss of its receiver",
  class extends OnDiskNotes {
    override async saveSnapshot(
      ...args: Parameters<OnDiskNotes["saveSnapshot"]>
    ): Promise<void> {
      await super.saveSnapshot(...args).catch((error) => {
        if (args[2].aborted) throw error;
      });
    }
  },
  { length: 0 },
);

onDisk(
  "D9",
  "wraps the loss of its receiver",
  class extends OnDiskNotes {
    override async saveSnapshot(
      ...args: Parameters<OnDiskNotes["saveSnapshot"]>
    ): Promise<void> {
      await super.saveSnapshot(...args).catch((cause) => {
        throw args[2].aborted ? cause : new Error("write() failed", { cause });
      });
    }
  },
  { length: 0 },
);

onDisk(
  "D11",
  "recovers line by line",
  class extends OnDiskNotes {
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      stopped: AbortSignal,
    ): Promise<void> {
      let image: Image = { index: this.image.index, notes: new Map() };
      await this.put(image);
      await this.handle?.sync();
      const [index, ...lines] = await readLines(r, stopped);
      for (let i = 1; i <= lines.length; i++) {
        image = { index: Number(index), notes: notesOf(lines.slice(0, i)) };
        await this.put(image);
        await this.handle?.sync();
      }
      await this.put({ index: Number(index), notes: notesOf(lines) });
    }
  },
);

onDisk(
  "D11",
  "empties itself before it recovers",
  class extends OnDiskNotes {
    override async recoverFromSnapshot(
      ...args: Parameters<OnDiskNotes["recoverFromSnapshot"]>
    ): Promise<void> {
      await this.put({ index: 0, notes: new Map() });
      await this.handle?.sync();
      await super.recoverFromSnapshot(...args);
    }
  },
  { crashes: false },
);

onDisk(
  "R10",
  "is empty when closed",
  class extends OnDiskNotes {
    override close(): void {
      this.image = { index: 0, notes: new Map() };
    }
  },
  { length: 1 },
);

onDisk(
  "C4",
  "saves the latest state",
  class extends OnDiskNotes {
    override saveSnapshot(
      _context: unknown,
      w: WritableStream<Uint8Array>,
      stopped: AbortSignal,
    ): Promise<void> {
      return super.saveSnapshot(this.image, w, stopped);
    }
  },
);

// ------------------------------------------------------------------ refusals

regular(
  "R15",
  "calls a result a refusal by what its state is",
  class extends RegularNotes {
    refusal(): string | undefined {
      return this.notes.size > 0 ? "There are notes" : undefined;
    }
  },
  { length: 1 },
);

regular(
  "R15",
  "gives another reason for the same result the next time",
  class extends RegularNotes {
    #asked = 0;
    refusal(): string {
      return `Asked ${++this.#asked} times`;
    }
  },
);

regular(
  "R15",
  "changes its state when it is asked why a result is a refusal",
  class extends RegularNotes {
    refusal(): undefined {
      this.notes.set("asked", "yes");
    }
  },
);

regular(
  "R15",
  "writes into the result it is asked about",
  class extends RegularNotes {
    refusal(result: Result): undefined {
      result.value = 0n;
    }
  },
);

regular(
  "R15",
  "says that a result is a refusal and not why",
  class extends RegularNotes {
    refusal(): string {
      return true as unknown as string;
    }
  },
);

regular(
  "R15",
  "throws when it is asked why a result is a refusal",
  class extends RegularNotes {
    refusal(): string {
      throw new Error("No");
    }
  },
);

/** Declares that a wrong machine which the suite used to pass is caught. */
function caught(
  name: string,
  rule: string,
  machine: new () => RegularNotes,
  options: Partial<CheckStateMachineOptions> = {},
): void {
  Deno.test(name, async () => {
    await violationOf(
      rule,
      () =>
        checkStateMachine({
          ...common,
          ...options,
          create: () => new machine(),
        }),
    );
  });
}

caught(
  "case C3: an answer that is the machine's live map is caught [R13]",
  "R13",
  class extends RegularNotes {
    override lookup(query: unknown): unknown {
      return typeof query === "object" ? super.lookup(query) : this.notes;
    }
  },
);

caught(
  "case C3: an answer that is an array the machine changes later is caught [R13]",
  "R13",
  class extends RegularNotes {
    readonly seen: string[] = [];
    override update(cmd: Uint8Array): MaybePromise<Result> {
      this.seen.push(text(cmd));
      return super.update(cmd);
    }
    override lookup(query: unknown): unknown {
      return { query: super.lookup(query), seen: this.seen };
    }
    override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
      const lines = [JSON.stringify(this.seen), ...linesOf(this.notes)];
      await writeLines(lines, w, new AbortController().signal);
    }
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
    ): Promise<void> {
      const [seen, ...rest] = await readLines(r, new AbortController().signal);
      this.seen.splice(0, Infinity, ...JSON.parse(seen!) as string[]);
      this.notes = notesOf(rest);
    }
  },
);

caught(
  "case C3: an answer whose overwriting changes the machine is caught [R13]",
  "R13",
  class extends RegularNotes {
    // Replaced by each update, and so never changed by one.
    lines: string[] = [];
    override update(cmd: Uint8Array): MaybePromise<Result> {
      const result = super.update(cmd);
      this.lines = linesOf(this.notes);
      return result;
    }
    override lookup(): unknown {
      return this.lines;
    }
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      files: unknown,
      stopped: AbortSignal,
    ): Promise<void> {
      await super.recoverFromSnapshot(r, files, stopped);
      this.lines = linesOf(this.notes);
    }
  },
);

caught(
  "case C4: a machine that writes into its command is caught [R13]",
  "R13",
  class extends RegularNotes {
    override update(cmd: Uint8Array): MaybePromise<Result> {
      const result = super.update(cmd);
      cmd.fill(0);
      return result;
    }
  },
);

caught(
  "case C4: a machine that writes into its query is caught [R13]",
  "R13",
  class extends RegularNotes {
    override lookup(query: unknown): unknown {
      const asked = query as { seen?: boolean };
      const answer = super.lookup(query);
      if (typeof asked === "object" && asked !== null) asked.seen = true;
      return answer;
    }
  },
  { queries: [...queries, { key: "a" }] },
);

caught(
  "case C4: a machine that writes into the bytes of its query is caught [R13]",
  "R13",
  class extends RegularNotes {
    override naLookup(query: Uint8Array): Uint8Array {
      const answer = super.naLookup(query);
      query.fill(0);
      return answer;
    }
  },
);

caught(
  "case C4: a result whose data are the machine's own state is caught [R13]",
  "R13",
  class extends RegularNotes {
    readonly values = new Map<string, Uint8Array>();
    override update(cmd: Uint8Array): MaybePromise<Result> {
      const [key = ""] = text(cmd).split("=");
      super.update(cmd);
      const value = this.values.get(key) ?? cmd.slice();
      this.values.set(key, value);
      return { value: 0n, data: value };
    }
    override lookup(): unknown {
      return [...this.values].map(([key, value]) => [key, text(value)]);
    }
    override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
      const lines = [...this.values].map((row) =>
        JSON.stringify([row[0], [...row[1]]])
      );
      await writeLines(lines, w, new AbortController().signal);
    }
    override getHash(): bigint {
      return BigInt(this.values.size);
    }
    override naLookup(): Uint8Array {
      return new Uint8Array();
    }
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
    ): Promise<void> {
      this.values.clear();
      for (const line of await readLines(r, new AbortController().signal)) {
        const [key, value] = JSON.parse(line) as [string, number[]];
        this.values.set(key, new Uint8Array(value));
      }
    }
  },
);

caught(
  "case C5: a recovery of an empty snapshot that keeps the old state is caught, in one run [R9]",
  "R9",
  class extends RegularNotes {
    override async recoverFromSnapshot(
      r: ReadableStream<Uint8Array>,
      _files: unknown,
      stopped: AbortSignal,
    ): Promise<void> {
      const lines = await readLines(r, stopped);
      if (lines.length > 0) this.notes = notesOf(lines);
    }
  },
  { runs: 3 },
);

caught(
  "case C1: the suite catches a machine that leaves its stream locked [R6]",
  "R6",
  class extends RegularNotes {
    override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
      await w.getWriter().write(bytes(linesOf(this.notes).join("\n")));
    }
  },
);

// -------------------------------------------------------------------- merges

regular(
  "E3",
  "merges commands for different keys into the second",
  class extends RegularNotes {
    merge(_first: Uint8Array, second: Uint8Array): Uint8Array {
      return second;
    }
  },
);

regular(
  "E3",
  "writes into the commands it merges",
  class extends RegularNotes {
    merge(first: Uint8Array): undefined {
      first.fill(0);
    }
  },
);

regular(
  "E3",
  "merges the same commands only every other time",
  class extends RegularNotes {
    #asked = 0;
    merge(first: Uint8Array): Uint8Array | undefined {
      return ++this.#asked % 2 === 0 ? first : undefined;
    }
  },
);

regular(
  "E3",
  "merges commands into text",
  class extends RegularNotes {
    merge(): Uint8Array {
      return "merged" as unknown as Uint8Array;
    }
  },
);

regular(
  "E3",
  "throws when it is asked to merge",
  class extends RegularNotes {
    merge(): undefined {
      throw new Error("No");
    }
  },
);
