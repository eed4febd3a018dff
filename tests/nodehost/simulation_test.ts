import { assert, assertEquals } from "@std/assert";
import {
  ErrClusterClosed,
  ErrInvalidSession,
  ErrProposalSkipped,
  ErrUnknownOutcome,
  type HostEvent,
  type NodeHost,
  type Replica,
  type Session,
} from "../../mod.ts";
import {
  type AppendFault,
  FaultyLogDB,
  FaultySnapshotStore,
} from "../support/faults.ts";
import { bytes, text } from "../support/bytes.ts";
import { checked, ManualEnv, settle } from "../support/environment.ts";
import { Disk, type Journal } from "../machines/journal.ts";
import { hostOf, startOn } from "../support/clusters.ts";
import { random32 } from "../support/random.ts";

/** Kinds of the three replicas, by seed. */
const MIXES = [
  ["regular", "regular", "regular"],
  ["regular", "concurrent", "hosted"],
  ["hosted", "hosted", "concurrent"],
  ["disk", "disk", "disk"],
] as const;

interface Client {
  readonly name: string;
  readonly session: Session;
  sent: number;
  /** Commands by outcome. */
  readonly answered: Map<string, string>;
  readonly skipped: Set<string>;
  readonly open: Set<Promise<void>>;
}

class Simulation {
  readonly #seed: number;
  readonly #random: () => number;
  readonly #env: ManualEnv;
  readonly #snapshots = new FaultySnapshotStore();
  readonly #logDB: FaultyLogDB;
  readonly #disks = [new Disk(), new Disk(), new Disk()];
  readonly #hosts: (NodeHost | undefined)[] = [];
  readonly #replicas: (Replica | undefined)[] = [];
  readonly #events: HostEvent[] = [];
  readonly #machines: Journal[] = [];
  readonly #clients: Client[] = [];
  readonly #single = new Map<string, "answered" | "failed">();
  readonly #work = new Set<Promise<unknown>>();
  readonly #everRun: string[][] = [];

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = random32(seed);
    this.#env = new ManualEnv(seed);
    this.#logDB = new FaultyLogDB({
      env: this.#env,
      snapshots: this.#snapshots,
    });
  }

  #chance(of: number): boolean {
    return this.#random() % of === 0;
  }

  #track(work: Promise<unknown>): void {
    const done = work.catch(() => {}).finally(() => this.#work.delete(done));
    this.#work.add(done);
  }

  async #start(i: number): Promise<void> {
    const host = hostOf({ logDB: this.#logDB, env: this.#env }, this.#events);
    const machines: Journal[] = [];
    const snapshotEntries = 5 + this.#random() % 20;
    this.#hosts[i] = host;
    try {
      this.#replicas[i] = await this.#env.until(startOn(host, {
        kind: MIXES[this.#seed % MIXES.length]![i]!,
        disk: this.#disks[i]!,
        config: {
          nodeID: BigInt(i + 1),
          snapshotEntries,
          compactionOverhead: this.#random() % 8,
          fullSnapshotInterval: 1 + this.#random() % 3,
          hashEntries: 16,
        },
      }, machines));
    } catch (error) {
      await this.#env.until(host.stop());
      this.#hosts[i] = undefined;
      throw error;
    }
    this.#machines.push(...machines);
  }

  async #stop(i: number): Promise<void> {
    const stopped = this.#hosts[i]?.stop();
    this.#hosts[i] = this.#replicas[i] = undefined;
    await this.#env.until(stopped ?? Promise.resolve());
    this.#logDB.faults.mend(BigInt(i + 1));
    this.#disks[i]!.crash(this.#random);
  }

  #someone(): Replica | undefined {
    return this.#replicas[this.#random() % 3];
  }

  #propose(client: Client): void {
    const replica = this.#someone();
    if (replica === undefined) return;
    const command = `${client.name}:${client.sent++}`;
    const controller = new AbortController();
    if (this.#chance(12)) {
      this.#env.setTimer(() => controller.abort(), this.#random() % 300);
    }
    const { session } = client;
    const { signal } = controller;
    const done = replica.propose(bytes(command), { session, signal }).then(
      ({ value, data }) => {
        assertEquals(text(data), command);
        client.answered.set(command, `${value}`);
      },
      (error) => {
        // It was applied, and a crash lost its result.
        if (error instanceof ErrUnknownOutcome && error.applied) {
          client.answered.set(command, "lost");
        } else if (error instanceof ErrProposalSkipped) {
          client.skipped.add(command);
        } else if (error instanceof ErrInvalidSession) throw error;
      },
    );
    client.open.add(done);
    this.#track(done);
  }

  #proposeSingle(n: number): void {
    const command = `single:${n}`;
    const answer = this.#someone()?.propose(bytes(command));
    if (answer === undefined) return;
    this.#track(answer.then(
      () => this.#single.set(command, "answered"),
      (error) => {
        // A stop leaves its outcome open.
        if (
          !(error instanceof ErrUnknownOutcome ||
            error instanceof ErrClusterClosed)
        ) this.#single.set(command, "failed");
      },
    ));
  }

  #misbehave(): void {
    const random = this.#random;
    const faults: AppendFault[] = ["fail", "committed", "lost"];
    this.#logDB.faults.slow = this.#chance(2);
    this.#logDB.faults.append = (records) => {
      const fault = random() % 5 === 0
        ? faults[random() % faults.length]
        : undefined;
      // Only proposals of sessions are deduplicated.
      return fault ?? (random() % 9 === 0 && records.bytes[0] === 0x15 &&
          records.ends.length === 1
        ? "twice"
        : undefined);
    };
    this.#snapshots.before = (step) => {
      if (random() % 20 === 0) throw new Error(`Store fails to ${step}`);
    };
    this.#snapshots.damaged = () => random() % 10 === 0;
  }

  #behave(): void {
    this.#logDB.faults.append = () => undefined;
    this.#snapshots.before = () => {};
    this.#snapshots.damaged = () => false;
    for (const nodeID of [1n, 2n, 3n]) this.#logDB.faults.mend(nodeID);
  }

  async #step(n: number): Promise<void> {
    for (const client of this.#clients) {
      for (let i = this.#random() % 4; i > 0; i--) this.#propose(client);
    }
    if (this.#chance(2)) this.#proposeSingle(n);
    const i = this.#random() % 3;
    const nodeID = BigInt(i + 1);
    switch (this.#random() % 12) {
      case 0: {
        const asked = this.#replicas[i]?.requestSnapshot();
        if (asked !== undefined) this.#track(asked);
        break;
      }
      case 1:
        this.#logDB.faults.break(nodeID);
        break;
      case 2:
        this.#logDB.faults.mend(nodeID);
        break;
      case 3:
      case 4:
        if (this.#replicas[i] !== undefined) await this.#stop(i);
        else {
          // A store that fails may refuse a start; another start follows.
          await this.#start(i).catch(() => {});
        }
        break;
      case 5:
        await this.#env.advance(this.#random() % 2_000);
        break;
      case 6: {
        const reader = this.#replicas[i]?.exportSnapshot().getReader();
        if (reader === undefined) break;
        this.#track(reader.read().then(() => reader.cancel()));
        break;
      }
      case 7:
        for (const machine of this.#machines) {
          this.#everRun.push([...machine.list]);
        }
        break;
      default:
        await settle(this.#random() % 3);
    }
    await this.#env.advance(this.#random() % 30);
  }

  async run(): Promise<void> {
    for (let i = 0; i < 3; i++) await this.#start(i);
    for (const name of ["a", "b", "c"]) {
      const session = await this.#replicas[0]!.openSession();
      this.#clients.push({
        name,
        session,
        sent: 0,
        answered: new Map(),
        skipped: new Set(),
        open: new Set(),
      });
    }
    this.#misbehave();
    const steps = 15 + this.#random() % 25;
    for (let n = 0; n < steps; n++) await this.#step(n);
    this.#behave();
    for (let i = 0; i < 3; i++) {
      if (this.#replicas[i] === undefined) await this.#start(i);
      assertEquals(this.#replicas[i]!.error, undefined);
    }
    // One more proposal of each client settles the rest.
    for (const client of this.#clients) {
      const { session } = client;
      const end = this.#replicas[0]!.propose(bytes(`${client.name}:end`), {
        session,
      });
      await this.#env.until(end);
      client.answered.set(`${client.name}:end`, "");
    }
    for (const work of [...this.#work]) await this.#env.until(work);
    for (const client of this.#clients) await Promise.all(client.open);
    await this.#check();
    for (let i = 0; i < 3; i++) await this.#env.until(this.#hosts[i]!.stop());
    // Those that would have given a proposal up.
    await this.#env.advance(300);
    assertEquals(this.#env.timers, 0, "A timer is left");
  }

  async #check(): Promise<void> {
    // One more entry each, so that all reach a checkpoint.
    for (let i = 0; i < 17; i++) {
      const { session } = this.#clients[0]!;
      await this.#env.until(
        this.#replicas[i % 3]!.propose(bytes(`end:${i}`), { session }),
      );
    }
    const lists: string[][] = [];
    const hashes: unknown[] = [];
    for (const replica of this.#replicas) {
      lists.push(await this.#env.until(replica!.read(null)) as string[]);
      hashes.push(await replica!.getHash());
    }
    const list = lists[0]!;
    for (const other of lists) assertEquals(other, list);
    for (const other of hashes) assertEquals(other, hashes[0]);
    // Every state read was a prefix of the final one.
    for (const seen of this.#everRun) {
      assertEquals(seen, list.slice(0, seen.length));
    }
    assertEquals(
      this.#events.filter(({ type }) =>
        ["failed", "diverged", "close failed"].includes(type)
      ),
      [],
    );
    const place = new Map(list.map((command, i) => [command, i]));
    assertEquals(place.size, list.length, "something was applied twice");
    for (const { name, answered, skipped } of this.#clients) {
      const own = list.filter((command) => command.startsWith(`${name}:`));
      const numbers = own.slice(0, -1).map((c) => Number(c.split(":")[1]));
      assertEquals(own.at(-1), `${name}:end`);
      assertEquals(numbers, [...numbers].sort((a, b) => a - b), "out of order");
      for (const [command, value] of answered) {
        assert(place.has(command), `${command} was answered and is lost`);
        if (value === "" || value === "lost") continue;
        assertEquals(value, `${place.get(command)! + 1}`, command);
      }
      for (const command of skipped) assert(!place.has(command), command);
    }
    for (const [command, outcome] of this.#single) {
      assertEquals(place.has(command), outcome === "answered", command);
    }
  }
}

async function simulate(seed: number): Promise<void> {
  try {
    await new Simulation(seed).run();
  } catch (cause) {
    throw new Error(`Failed with seed ${seed}: ${cause}`, { cause });
  }
}

Deno.test(
  "H3 H4 R1 C7 three replicas, sessions, faults and restarts: every proposal with a result is applied once, in order, on all replicas",
  checked(async () => {
    for (let seed = 1; seed <= 150; seed++) await simulate(seed);
  }),
);

Deno.test(
  "H3 H4 R1 C7 the same with a random seed",
  checked(async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    await simulate(seed);
  }),
);
