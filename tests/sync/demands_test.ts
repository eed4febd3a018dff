import { assert, assertEquals, assertRejects } from "@std/assert";
import { toText } from "@std/streams";
import {
  type ErrDiverged,
  ErrProposalRefused,
  type HostEvent,
  type IHash,
  type IStateMachine,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  NodeHost,
  type Replica,
  type Result,
} from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import {
  ErrRemote,
  RemoteLogDB,
  serve,
  type ServeOptions,
  type Server,
} from "../../src/sync/mod.ts";
import { test } from "../support/log_tests.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Disposable server with a state machine. */
async function serverOf(
  create: () => IStateMachine,
  options: ServeOptions = {},
): Promise<{ server: Server; replica: Replica } & AsyncDisposable> {
  const host = new NodeHost();
  const replica = await host.startCluster(create, CLUSTER);
  const server = serve(host, { port: 0, ...options });
  return {
    server,
    replica,
    async [Symbol.asyncDispose](): Promise<void> {
      await server.shutdown();
      await host.stop();
    },
  };
}

/** Disposable device with a state machine and an outbox. */
async function deviceOf(
  url: string,
  create: () => IStateMachine,
  store: MemoryBlockStore,
): Promise<{ replica: Replica; logDB: RemoteLogDB } & AsyncDisposable> {
  const logDB = new RemoteLogDB(url);
  const outbox = new BlockOutbox(store);
  const host = new NodeHost({ logDB, outbox });
  const replica = await host.startCluster(create, { ...CLUSTER, nodeID: 2n });
  return {
    replica,
    logDB,
    async [Symbol.asyncDispose](): Promise<void> {
      await host.stop();
      await outbox.close();
      await logDB.close();
    },
  };
}

/** URL at which no server listens. */
const NOWHERE = "ws://127.0.0.1:9/sync";

test("U16 a submission reports when the server has it, and a read waits until the device has caught up", async () => {
  await using there = await serverOf(() => new KVStateMachine());
  await using here = await deviceOf(
    there.server.url,
    () => new KVStateMachine(),
    new MemoryBlockStore(),
  );
  const edit = await here.replica.submit(kv.put("a", "1"));
  assertEquals((await edit.result).value, 1n);
  assertEquals(edit.state, "applied");
  assertEquals(await there.replica.staleRead(kv.count()), 1);
  await there.replica.propose(kv.put("b", "2"));
  assertEquals(await here.replica.read(kv.count()), 2);
});

test("U17 while the server cannot validate a command, it waits with those behind it, the device reports why, and nothing is lost", async () => {
  let isDown = true;
  await using there = await serverOf(() => new KVStateMachine(), {
    validate: (_principal, cmd) => {
      if (isDown && cmd.includes("!".charCodeAt(0))) throw new Error("Down");
      return undefined;
    },
  });
  const { url } = there.server;
  const machine = (): KVStateMachine => new KVStateMachine();
  await using here = await deviceOf(url, machine, new MemoryBlockStore());
  await using other = await deviceOf(url, machine, new MemoryBlockStore());
  const edits = await Promise.all(
    ["a", "b", "!", "c"].map((key) => here.replica.submit(kv.put(key, "1"))),
  );
  await Promise.all(edits.slice(0, 2).map(({ result }) => result));
  const single = here.replica.propose(kv.put("d!", "1"));
  const error = (): unknown => here.logDB.status.clusters[0]!.error;
  await new Promise<void>((resolve) => {
    const tell = (): void => void (error() !== undefined && resolve());
    here.logDB.watch(tell);
    tell();
  });
  assert(error() instanceof ErrRemote);
  await (await other.replica.submit(kv.put("other", "1"))).result;
  // Reading continues, too.
  assertEquals(await here.replica.read(kv.count()), 3);
  assert(edits.slice(2).every(({ state }) => state !== "applied"));
  isDown = false;
  await Promise.all(edits.map(({ result }) => result));
  await single;
  assertEquals(await here.replica.read(kv.count()), 6);
  assertEquals(error(), undefined);
});

test("U22 a command that the machine does not know is answered once and delays nothing", async () => {
  await using there = await serverOf(() => new KVStateMachine());
  await using here = await deviceOf(
    there.server.url,
    () => new KVStateMachine(),
    new MemoryBlockStore(),
  );
  const { replica } = here;
  const unknown = await replica.submit(new Uint8Array([99, 1, 2, 3]));
  const known = await replica.submit(kv.put("a", "1"));
  assertEquals((await unknown.result).value, kv.INVALID);
  assertEquals((await known.result).value, 1n);
  const { appliedIndex } = replica;
  await new Promise((resolve) => setTimeout(resolve, 100));
  assertEquals([replica.appliedIndex, replica.pending()], [appliedIndex, []]);
});

/** Counts commands that begin with a known letter; a later version knows fewer letters. */
class LetterCounter implements IStateMachine {
  readonly #known: string;
  #count = 0n;

  constructor(known: string) {
    this.#known = known;
  }

  update([letter]: Uint8Array): Result {
    const isKnown = this.#known.includes(String.fromCharCode(letter!));
    return { value: isKnown ? ++this.#count : 0n };
  }

  lookup(): bigint {
    return this.#count;
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    await new Blob([`${this.#count}`]).stream().pipeTo(w);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.#count = BigInt(await toText(r));
  }

  close(): void {}
}

test("U23 commands queued before a deployment are sent after it, and applied or refused with a reason", async () => {
  const store = new MemoryBlockStore();
  const encoder = new TextEncoder();
  {
    await using before = await deviceOf(
      NOWHERE,
      () => new LetterCounter("ab"),
      store,
    );
    for (const cmd of ["a", "b", "a"]) {
      await before.replica.submit(encoder.encode(cmd));
    }
    assertEquals(await before.replica.view.lookup(null), 3n);
  }
  await using there = await serverOf(() => new LetterCounter("a"), {
    validate: (_principal, [letter]) =>
      letter === 98 ? "b is not known any more: update the page" : undefined,
  });
  await using after = await deviceOf(
    there.server.url,
    () => new LetterCounter("a"),
    store,
  );
  const [first, second, third] = after.replica.pending();
  assertEquals((await first!.result).value, 1n);
  const refused = await assertRejects(
    () => second!.result,
    ErrProposalRefused,
  );
  assertEquals(refused.reason, "b is not known any more: update the page");
  assertEquals((await third!.result).value, 2n);
  assertEquals(await there.replica.staleRead(null), 2n);
  // It is kept until the application dismisses it.
  assertEquals(after.replica.pending(), [second!]);
  assert(second!.state === "refused");
  await second!.dismiss();
  assertEquals(after.replica.pending(), []);
});

/** Adds up numbers, and at a "t" the clock of the replica, which a state machine must not read. */
class Clock extends LetterCounter implements IHash {
  #sum = 0n;

  override update(cmd: Uint8Array): Result {
    const isTime = cmd[0] === 116;
    this.#sum += isTime ? BigInt(Math.floor(performance.now() * 1000)) : 1n;
    return { value: this.#sum };
  }

  getHash(): bigint {
    return this.#sum;
  }

  override async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    await new Blob([`${this.#sum}`]).stream().pipeTo(w);
  }

  override async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
  ): Promise<void> {
    this.#sum = BigInt(await toText(r));
  }
}

test("H12 U32 a device whose machine reads the clock gets the command at which it diverged, and recovers the server's state", async () => {
  const config = { clusterID: 1n, hashEntries: 4 };
  await using there = new NodeHost();
  const trusted = await there.startCluster(() => new Clock(""), {
    ...config,
    nodeID: 1n,
  });
  const server = serve(there, { port: 0 });
  const events: HostEvent[] = [];
  const logDB = new RemoteLogDB(server.url);
  const here = new NodeHost({ logDB, onEvent: (event) => events.push(event) });
  const replica = await here.startCluster(() => new Clock(""), {
    ...config,
    nodeID: 2n,
  });
  const encoder = new TextEncoder();
  for (const letter of ["a", "a", "t", "a", "a", "a", "a"]) {
    await trusted.propose(encoder.encode(letter));
  }
  const explained = (): ErrDiverged | undefined =>
    events.flatMap((event) =>
      event.type === "diverged" ? [event.error as ErrDiverged] : []
    ).find(({ command }) => command !== undefined);
  const isRight = async (): Promise<boolean> => {
    try {
      const [one, two] = [await trusted.getHash(), await replica.getHash()];
      return one.index === two.index && one.hash === two.hash;
    } catch {
      // The device recovers to the server's state.
      return false;
    }
  };
  for (let i = 0; explained() === undefined || !await isRight(); i++) {
    assert(i < 500, "It was not told, or is wrong still");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(explained()!.command, encoder.encode("t"));
  assert(events.some(({ type }) => type === "recovered"));
  await here.stop();
  await logDB.close();
  await server.shutdown();
});
