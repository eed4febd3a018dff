import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrClusterClosed,
  ErrProposalRefused,
  ErrSkippedApplied,
  ErrSkipRefused,
  ErrUpdateFailed,
  type HostEvent,
  MemoryLogDB,
  type NodeHost,
  type Replica,
  type Session,
} from "../../mod.ts";
import { bytes } from "../support/bytes.ts";
import { checked, ManualEnv, settle } from "../support/environment.ts";
import {
  Disk,
  type MachineFaults,
  RegularJournal,
} from "../machines/journal.ts";
import { hostOf, startOn } from "../support/clusters.ts";
import { random32 } from "../support/random.ts";

/** Kinds of the three replicas, by seed. */
const MIXES = [
  ["regular", "regular", "regular"],
  ["regular", "concurrent", "hosted"],
  ["hosted", "hosted", "concurrent"],
] as const;

/** Outcome of a command, as reported to its proposer. */
type ReportedOutcome = "applied" | "refused";

/**
 * Three replicas, some of whose code throws at some commands, and an operator
 * who has such an entry skipped, or starts a replica with other code.
 */
class Simulation {
  readonly #random: () => number;
  readonly #env: ManualEnv;
  readonly #logDB: MemoryLogDB;
  readonly #kinds: (typeof MIXES)[number];
  readonly #disks = [new Disk(), new Disk(), new Disk()];
  readonly #hosts: (NodeHost | undefined)[] = [];
  readonly #events: HostEvent[] = [];
  readonly #reported = new Map<string, ReportedOutcome>();
  readonly #work = new Set<Promise<unknown>>();
  readonly #sessions: Session[] = [];
  skipped = 0;

  constructor(seed: number) {
    this.#random = random32(seed);
    this.#env = new ManualEnv(seed);
    this.#logDB = new MemoryLogDB({ env: this.#env });
    this.#kinds = MIXES[seed % MIXES.length]!;
  }

  #chance(of: number): boolean {
    return this.#random() % of === 0;
  }

  #replica(i: number): Replica | undefined {
    const replica = this.#hosts[i]?.replica(1n);
    return replica?.failure === undefined ? replica : undefined;
  }

  #someone(): Replica | undefined {
    const up = [0, 1, 2].flatMap((i) => this.#replica(i) ?? []);
    return up[this.#random() % Math.max(1, up.length)];
  }

  /** Starts a replica, of code that throws at half of the poisoned commands, at none, or at all of them. */
  async #start(i: number): Promise<void> {
    const host = this.#hosts[i] = hostOf(
      { logDB: this.#logDB, env: this.#env },
      this.#events,
    );
    const code = this.#random() % 3;
    const faults: MachineFaults = {
      apply(command): void {
        if (!command.startsWith("poison")) return;
        if (code === 0 || code === 1 && command.endsWith("0")) {
          throw new TypeError(`No ${command}`);
        }
      },
    };
    const started = startOn(host, {
      kind: this.#kinds[i]!,
      disk: this.#disks[i]!,
      faults,
      config: {
        nodeID: BigInt(i + 1),
        snapshotEntries: 4 + this.#random() % 12,
        compactionOverhead: this.#random() % 8,
        fullSnapshotInterval: 1,
        hashEntries: 4,
        // Names the entry of a batch.
        replayMachine: (c, n) => new RegularJournal(faults, c, n),
      },
    });
    // One that fails is looked after by the operator.
    await this.#env.until(started.catch(() => {}));
  }

  async #stop(i: number): Promise<void> {
    const host = this.#hosts[i];
    this.#hosts[i] = undefined;
    await this.#env.until(host?.stop() ?? Promise.resolve());
    this.#disks[i]!.crash(this.#random);
  }

  #propose(n: number): void {
    const replica = this.#someone();
    if (replica === undefined) return;
    const command = `${this.#chance(6) ? "poison" : "fine"} ${n}`;
    const session = this.#chance(2)
      ? this.#sessions[this.#random() % this.#sessions.length]
      : undefined;
    const reported = replica.propose(
      bytes(command),
      session === undefined ? {} : { session },
    ).then(
      () => void this.#reported.set(command, "applied"),
      (error) => {
        if (!(error instanceof ErrProposalRefused)) return;
        assertEquals(error.reason, "by the operator");
        this.#reported.set(command, "refused");
      },
    );
    const done: Promise<unknown> = reported.finally(() =>
      this.#work.delete(done)
    );
    this.#work.add(done);
  }

  /** Restarts a failed replica, or skips its entry. */
  async #operate(i: number): Promise<void> {
    const host = this.#hosts[i];
    const status = host?.clusterStatus(1n);
    if (host === undefined || status?.state !== "failed") return;
    const { error } = status;
    if (error instanceof ErrUpdateFailed && error.index < error.upTo) {
      // The entries before the batch are gone, and with them the way to name the
      // entry: the snapshots of the others have it applied.
      this.#disks[i]!.erase();
    } else if (error instanceof ErrUpdateFailed) {
      // Through any host: the decision is in the log.
      const any = this.#hosts[this.#random() % 3] ?? host;
      const skipped = any.skipEntry(1n, error.index, "by the operator");
      try {
        await this.#env.until(skipped);
        this.skipped++;
      } catch (refused) {
        // The snapshots of the others have it applied.
        assertInstanceOf(refused, ErrSkipRefused);
        assert(refused.why === "compacted" || refused.why === "no base");
      }
    } else {
      assertInstanceOf(error, ErrSkippedApplied, `${error}`);
      this.#disks[i]!.erase();
    }
    await this.#stop(i);
    await this.#start(i);
  }

  async #step(n: number): Promise<void> {
    for (let k = 0; k < 3; k++) this.#propose(3 * n + k);
    const i = this.#random() % 3;
    switch (this.#random() % 8) {
      case 0:
        await this.#replica(i)?.requestSnapshot().catch(() => {});
        break;
      case 1:
        await this.#stop(i);
        break;
      case 2:
      case 3:
      case 4:
        if (this.#hosts[i] === undefined) await this.#start(i);
        else await this.#operate(i);
        break;
      default:
        await settle(this.#random() % 3);
    }
    await this.#env.advance(this.#random() % 30);
  }

  async run(): Promise<void> {
    for (let i = 0; i < 3; i++) await this.#start(i);
    for (let k = 0; k < 2; k++) {
      const session = this.#replica(0)!.openSession();
      this.#sessions.push(await this.#env.until(session));
    }
    for (let n = 0; n < 30; n++) await this.#step(n);
    await this.#mend();
    for (const work of [...this.#work]) await this.#env.until(work);
    await this.#check();
    for (let i = 0; i < 3; i++) await this.#stop(i);
    assertEquals(this.#env.timers, 0, "A timer is left");
    await this.#logDB.close();
  }

  /** Waits until every replica runs and has applied everything. */
  async #mend(): Promise<void> {
    for (let round = 0; round < 200; round++) {
      await this.#env.advance(50);
      let isUp = true;
      for (let i = 0; i < 3; i++) {
        if (this.#hosts[i] === undefined) await this.#start(i);
        if (this.#replica(i) !== undefined) continue;
        isUp = false;
        await this.#operate(i);
      }
      if (!isUp) continue;
      try {
        for (const i of [0, 1, 2]) {
          await this.#env.until(this.#replica(i)!.read(null));
        }
        return;
      } catch (error) {
        // It has just failed.
        if (!(error instanceof ErrClusterClosed)) {
          assertInstanceOf(error, TypeError);
        }
      }
    }
    throw new Error("Machine never starts (test)");
  }

  async #check(): Promise<void> {
    // Past a checkpoint of all replicas.
    for (let n = 0; n < 5; n++) {
      const replica = this.#replica(n % 3)!;
      await this.#env.until(replica.propose(bytes(`end ${n}`)));
    }
    const lists: string[][] = [];
    const hashes: unknown[] = [];
    for (const i of [0, 1, 2]) {
      const replica = this.#replica(i)!;
      lists.push(await this.#env.until(replica.read(null)) as string[]);
      hashes.push(await replica.getHash());
    }
    assertEquals([lists[1], lists[2]], [lists[0], lists[0]]);
    assertEquals([hashes[1], hashes[2]], [hashes[0], hashes[0]]);
    const list = new Set(lists[0]);
    assertEquals(list.size, lists[0]!.length, "something was applied twice");
    for (const [command, reported] of this.#reported) {
      // What others had applied before it was skipped was reported to be applied.
      if (reported === "refused" || command.startsWith("fine")) {
        assertEquals(list.has(command), reported === "applied", command);
      }
    }
    const bad = this.#events.filter(({ type }) =>
      type === "diverged" || type === "close failed"
    );
    assertEquals(bad, []);
  }
}

async function simulate(seed: number): Promise<number> {
  const simulation = new Simulation(seed);
  try {
    await simulation.run();
  } catch (cause) {
    throw new Error(`Failed with seed ${seed}: ${cause}`, { cause });
  }
  return simulation.skipped;
}

Deno.test(
  "case A10: replicas of different code, poisoned commands, restarts and an operator: all agree in the end [R5, H17, H12]",
  checked(async () => {
    let skipped = 0;
    for (let seed = 1; seed <= 60; seed++) skipped += await simulate(seed);
    assert(skipped > 60, `${skipped}`);
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    await simulate(seed);
  }),
);
