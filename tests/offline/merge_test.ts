import {
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrProposalRefused,
  ErrStoreFull,
  type IMerge,
  kv,
  type KVAnswer,
  type KVQuery,
  KVStateMachine,
  NodeHost,
  type Replica,
  type Submission,
} from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { checked, ManualEnv, rejection } from "../support/environment.ts";
import { text } from "../support/bytes.ts";
import { random32 } from "../support/random.ts";

const CLUSTER = 1n;

/** Key-value machine that merges overwrites of one key. Its forks throw at the value "poison". */
class Merging extends KVStateMachine implements IMerge {
  static forks = 0;
  readonly merge = kv.merge;

  override fork(): ReturnType<KVStateMachine["fork"]> {
    Merging.forks++;
    const fork = super.fork();
    const { update } = fork;
    fork.update = (cmd) => {
      if (text(cmd).endsWith("poison")) throw new Error("Poison");
      return update.call(fork, cmd);
    };
    return fork;
  }
}

/** One device, which is not connected at first. */
class Device {
  readonly env = new ManualEnv(1);
  readonly logDB = new FaultyLogDB({ env: this.env });
  store = new FaultyBlockStore();
  outbox = new BlockOutbox(this.store, { env: this.env });
  host!: NodeHost;
  replica!: Replica<KVQuery, KVAnswer>;

  constructor() {
    this.logDB.faults.append = () => "fail";
  }

  async start(): Promise<void> {
    const { logDB, env, outbox } = this;
    this.host = new NodeHost({ logDB, env, outbox });
    this.replica = await env.until(
      this.host.startCluster(() => new Merging(), {
        clusterID: CLUSTER,
        nodeID: 1n,
      }),
    );
  }

  /** Ends the process and starts another on what the store has. */
  async restart(): Promise<void> {
    const killed = this.store;
    this.store = killed.crash(Infinity);
    await this.stop();
    this.outbox = new BlockOutbox(this.store, { env: this.env });
    await this.start();
  }

  connect(): void {
    this.logDB.faults.append = () => undefined;
  }

  put(key: string, value: string): Promise<Submission> {
    return this.env.until(this.replica.submit(kv.put(key, value)));
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.env.until(promise, 500);
  }

  /** Values of keys in the view, as text. */
  view(...keys: string[]): string {
    return keys.map((key) => {
      const value = this.replica.view.lookup(kv.get(key));
      return value === undefined ? "" : text(value as Uint8Array);
    }).join();
  }

  /** Commands in the outbox. */
  async stored(): Promise<string[]> {
    return (await this.outbox.unsynced(CLUSTER)).map(({ id, cmd, state }) =>
      `${id} ${text(cmd.subarray(1)).replace(/\p{Cc}/gu, " ").trim()} ${state}`
    );
  }

  async stop(): Promise<void> {
    await this.env.until(this.host.stop());
  }
}

/** Runs a test on a device that is stopped afterwards. */
function onDevice(run: (device: Device) => Promise<void>): () => Promise<void> {
  return checked(async () => {
    const device = new Device();
    await device.start();
    try {
      await run(device);
    } finally {
      await device.stop();
    }
  });
}

Deno.test(
  "U41 an overwrite of the newest submission that was never sent is one submission with it, durably, and sent once",
  onDevice(async (device) => {
    const first = await device.put("a", "1");
    const second = await device.put("a", "2");
    const third = await device.put("a", "3");
    assertStrictEquals(second, first);
    assertStrictEquals(third, first);
    assertEquals(first.cmd, kv.put("a", "3"));
    assertEquals([device.replica.pendingCount, first.id], [1, 1]);
    assertEquals(device.replica.pending(), [first]);
    assertEquals(device.view("a"), "3");
    assertEquals(await device.stored(), ["1 a 3 queued"]);
    device.connect();
    assertEquals(await device.until(second.result), { value: 1n });
    assertEquals([first.state, device.replica.pendingCount], ["applied", 0]);
    assertEquals(device.view("a"), "3");
  }),
);

Deno.test(
  "U41 only neighbours are merged: not across another submission, and not another key",
  onDevice(async (device) => {
    await device.put("a", "1");
    await device.put("b", "1");
    await device.put("a", "2");
    await device.put("b", "2");
    await device.put("b", "3");
    assertEquals(device.view("a", "b"), "2,3");
    assertEquals(await device.stored(), [
      "1 a 1 queued",
      "2 b 1 queued",
      "3 a 2 queued",
      "4 b 3 queued",
    ]);
  }),
);

Deno.test(
  "U41 what was submitted while another one is stored is not merged with it",
  onDevice(async (device) => {
    const [a, b] = await Promise.all([
      device.put("a", "1"),
      device.put("a", "2"),
    ]);
    assertEquals([a.id, b.id], [1, 2]);
    assertEquals(device.view("a"), "2");
    // The second is merged, and the third waits behind it.
    const [c, d, e] = await Promise.all([
      device.put("a", "3"),
      device.put("b", "1"),
      device.put("a", "4"),
    ]);
    assertStrictEquals(c, b);
    assertEquals([d.id, e.id], [3, 4]);
    assertEquals(device.view("a", "b"), "4,1");
    device.connect();
    await device.until(Promise.all([a, b, d, e].map(({ result }) => result)));
    assertEquals(device.view("a", "b"), "4,1");
  }),
);

Deno.test(
  "U41 a command that may have been sent is never merged, also after a restart",
  onDevice(async (device) => {
    device.connect();
    await device.until((await device.put("x", "1")).result);
    device.logDB.faults.append = () => "fail";
    const sent = await device.put("a", "1");
    const next = await device.put("a", "2");
    assertEquals(next.id, sent.id + 1);
    await device.restart();
    const third = await device.put("a", "3");
    assertEquals(third.id, next.id + 1);
    // That one was submitted after the restart: nothing was sent yet.
    assertEquals((await device.put("a", "4")).id, third.id);
    device.connect();
    await device.until(third.result);
    assertEquals(device.view("a"), "4");
    assertEquals(device.replica.pendingCount, 0);
  }),
);

Deno.test(
  "U41 after a restart the newest submission of the earlier process is merged, if it was never sent",
  onDevice(async (device) => {
    await device.put("b", "1");
    await device.put("a", "1");
    await device.restart();
    const merged = await device.put("a", "2");
    assertEquals(merged.id, 2);
    assertEquals(await device.stored(), ["1 b 1 queued", "2 a 2 queued"]);
    device.connect();
    await device.until(merged.result);
    assertEquals(device.view("a", "b"), "2,1");
  }),
);

Deno.test(
  "U41 U8 a merge that finds no room changes nothing, and a crash leaves the command before or after it",
  onDevice(async (device) => {
    const { store } = device;
    const first = await device.put("a", "1");
    const full = new ErrStoreFull("Full");
    store.fault = { at: store.writes + 1, error: full };
    assertStrictEquals(await rejection(device.put("a", "2")), full);
    assertEquals([device.view("a"), first.state], ["1", "queued"]);
    assertEquals(first.cmd, kv.put("a", "1"));
    assertEquals(await device.stored(), ["1 a 1 queued"]);
    store.fault = undefined;
    assertStrictEquals(await device.put("a", "3"), first);
    assertEquals(device.view("a"), "3");
    await device.restart();
    assertEquals([device.view("a"), await device.stored()], ["3", [
      "1 a 3 queued",
    ]]);
  }),
);

Deno.test(
  "U41 U17 merged submissions are refused together, and dismissed as one",
  onDevice(async (device) => {
    await device.put("b", "1");
    const first = await device.put("a", "1");
    const second = await device.put("a", "poison");
    assertStrictEquals(second, first);
    assertInstanceOf(await rejection(first.result), ErrProposalRefused);
    assertEquals(await device.stored(), ["1 b 1 queued", "2 a poison refused"]);
    assertEquals([first.state, device.view("a", "b")], ["refused", ",1"]);
    // It is not merged with a submission that is refused.
    const third = await device.put("a", "2");
    assertEquals([third.id, device.view("a")], [3, "2"]);
    await device.until(first.dismiss());
    assertEquals(device.replica.pendingCount, 2);
    device.connect();
    await device.until(third.result);
    assertEquals(device.view("a", "b"), "2,1");
  }),
);

Deno.test(
  "U41 U28 a merge does not run the other pending commands again",
  onDevice(async (device) => {
    for (let i = 0; i < 200; i++) await device.put(`k${i % 7}`, String(i));
    assertEquals(device.view("k0"), "196");
    Merging.forks = 0;
    for (let i = 0; i < 50; i++) {
      await device.put("last", String(i));
      assertEquals(device.view("last", "k0"), `${i},196`);
    }
    assertEquals(Merging.forks, 0);
  }),
);

Deno.test(
  "U41 U25 whatever is submitted, merged and read in which order, the view is that of all submissions",
  checked(async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const random = random32(seed);
      const device = new Device();
      await device.start();
      const expected = new Map<string, string>();
      const made: Promise<Submission>[] = [];
      for (let i = 0; i < 150; i++) {
        const key = `k${random() % 3}`;
        expected.set(key, String(i));
        made.push(device.replica.submit(kv.put(key, String(i))));
        if (random() % 2 === 0) await device.until(Promise.all(made));
        if (random() % 3 === 0) {
          assertEquals(
            device.view("k0", "k1", "k2"),
            ["k0", "k1", "k2"].map((one) => expected.get(one) ?? "").join(),
            `seed ${seed}, step ${i}`,
          );
        }
        if (random() % 40 === 0) {
          await device.until(Promise.all(made));
          await device.restart();
        }
        if (i === 100) device.connect();
      }
      const all = await device.until(Promise.all(made));
      await device.until(all.at(-1)!.result);
      assertEquals(
        device.view("k0", "k1", "k2"),
        ["k0", "k1", "k2"].map((one) => expected.get(one) ?? "").join(),
        `seed ${seed}, at the end`,
      );
      await device.stop();
    }
  }),
);

Deno.test(
  "U28 U25 a start runs no pending command of an earlier process before the view is read, however many of them turn out to be applied",
  onDevice(async (device) => {
    device.connect();
    for (const key of ["a", "b", "c"]) {
      await device.until((await device.put(key, "1")).result);
    }
    device.logDB.faults.append = () => "fail";
    await device.put("d", "1");
    Merging.forks = 0;
    await device.restart();
    assertEquals([device.replica.pendingCount, Merging.forks], [1, 0]);
    assertEquals([device.view("a", "d"), Merging.forks], ["1,1", 1]);
  }),
);
