/**
 * Kills a process under load, again and again, and looks what is left of what
 * it acknowledged.
 *
 * The process hosts a replica on SQLite whose clients count: each command says
 * from which number to which, so one that was applied twice, or after one that
 * was lost, would be answered with something else. Some appends are reported as
 * lost though they are not, so that copies come into the log.
 *
 * ```sh
 * deno run -A tests/sqlite/kill.ts 200      # with a seed drawn at random, which is printed
 * deno run -A tests/sqlite/kill.ts 200 123  # with this one
 * ```
 *
 * @module
 */

import {
  ErrUnknownOutcome,
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { type Log, type LogDB, verifySnapshot } from "../../src/ports/mod.ts";
import {
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { newSeed, random, seedFrom } from "../support/random.ts";

const CLIENTS = 4;
/** Commands of a client that wait at any time. */
const IN_FLIGHT = 24;
/** Longest time under load before a process is killed, in milliseconds. */
const LOAD_MS = 300;
/** Of how many appends one is reported as lost. */
const LOST = 16;

const config = {
  clusterID: 1n,
  nodeID: 1n,
  snapshotEntries: 700,
  // The log is never compacted: it is replayed from its beginning.
  fullSnapshotInterval: 0,
};

/** Reports of a process, one line of JSON each. */
type Line =
  /** Last number of each client when the process had started. */
  | { readonly start: number[] }
  /** Client with the number of an acknowledged command. */
  | { readonly ack: readonly [client: number, count: number] }
  | { readonly wrong: string };

function say(line: Line): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let at = 0; at < bytes.length;) {
    at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

/** Log that reports some committed appends as of unknown outcome. */
function forgetful(logDB: LogDB, next: () => number): LogDB {
  const open = async (clusterID: bigint, nodeID: bigint): Promise<Log> => {
    const log = await logDB.open(clusterID, nodeID);
    return new Proxy(log, {
      get(target, name): unknown {
        if (name === "append") {
          return async (...args: Parameters<Log["append"]>) => {
            const index = await log.append(...args);
            if (next() < 1 / LOST) throw new ErrUnknownOutcome("Lost");
            return index;
          };
        }
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  };
  return {
    open,
    close: () => logDB.close(),
    [Symbol.asyncDispose]: () => logDB.close(),
  };
}

async function countOf(replica: Replica, client: number): Promise<number> {
  const value = await replica.read(kv.get(`client-${client}`));
  return Number(new TextDecoder().decode(value as Uint8Array | undefined));
}

/** Runs a client that proposes numbered commands until the process ends. */
async function count(replica: Replica, client: number): Promise<void> {
  const session = await replica.openSession();
  const key = `client-${client}`;
  let next = await countOf(replica, client);
  const one = async (): Promise<void> => {
    const to = ++next;
    const cmd = kv.compareAndSwap(
      key,
      to === 1 ? undefined : `${to - 1}`,
      `${to}`,
    );
    const { value } = await replica.propose(cmd, { session });
    if (value === 1n) say({ ack: [client, to] });
    else say({ wrong: `Client ${client} is at another number than ${to}` });
  };
  const forever = async (): Promise<void> => {
    for (;;) await one();
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, forever));
}

/** The process that will be killed. */
async function serve(directory: string, seed: number): Promise<void> {
  const logDB = new SqliteLogDB(`${directory}/log.db`);
  const host = new NodeHost({
    logDB: forgetful(logDB, random(seed)),
    snapshots: new FileSnapshotStore(`${directory}/snapshots`),
    onEvent: (event) => {
      if (event.type === "failed") say({ wrong: `${event.error}` });
    },
  });
  const replica = await host.startOnDiskCluster(
    () => new SqliteKVStateMachine(`${directory}/state.db`),
    config,
  );
  const clients = Array.from({ length: CLIENTS }, (_, client) => client);
  const start = await Promise.all(
    clients.map((client) => countOf(replica, client)),
  );
  say({ start });
  await Promise.all(clients.map((client) => count(replica, client)));
}

/** Lines of a process until it ends. */
async function* linesOf(
  output: ReadableStream<Uint8Array>,
): AsyncGenerator<Line> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of output) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    // The last line may be incomplete and is ignored.
    rest = lines.pop() as string;
    for (const line of lines) yield JSON.parse(line) as Line;
  }
}

/** Runs a process for a moment, kills it, and checks its report against the commands acknowledged earlier. */
async function live(
  directory: string,
  acknowledged: number[],
  next: () => number,
): Promise<void> {
  const ms = next() * LOAD_MS;
  const seed = seedFrom(next);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", import.meta.filename!, "serve", directory, `${seed}`],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isUp = false;
  for await (const line of linesOf(child.stdout)) {
    if ("wrong" in line) throw new Error(line.wrong);
    if ("ack" in line) {
      const [client, count] = line.ack;
      acknowledged[client] = Math.max(acknowledged[client]!, count);
      continue;
    }
    isUp = true;
    timer = setTimeout(() => child.kill("SIGKILL"), ms);
    for (const [client, count] of line.start.entries()) {
      const least = acknowledged[client]!;
      if (count < least || count > least + IN_FLIGHT) {
        throw new Error(
          `Client ${client} is at ${count}, was answered up to ${least}`,
        );
      }
      // What was applied and not answered any more counts from now on.
      acknowledged[client] = count;
    }
  }
  clearTimeout(timer);
  const { signal } = await child.status;
  if (!isUp || signal !== "SIGKILL") {
    throw new Error("Process did not start, or ended without SIGKILL");
  }
}

/** Checks that the state is that of a replay of the log, and that every snapshot is complete. */
async function check(directory: string, least: number[]): Promise<void> {
  await using logDB = new SqliteLogDB(`${directory}/log.db`);
  await using snapshots = new FileSnapshotStore(`${directory}/snapshots`);
  await using none = new MemorySnapshotStore();
  await using disk = new NodeHost({ logDB, snapshots });
  await using memory = new NodeHost({ logDB, snapshots: none });
  const [there, here] = [
    await disk.startOnDiskCluster(
      () => new SqliteKVStateMachine(`${directory}/state.db`),
      config,
    ),
    await memory.startCluster(() => new KVStateMachine(), {
      ...config,
      nodeID: 2n,
      snapshotEntries: 0,
    }),
  ];
  for (const [client, count] of least.entries()) {
    const found = await countOf(here, client);
    if (found < count) throw new Error(`Replay is at ${found}, not ${count}`);
  }
  await countOf(there, 0);
  const [a, b] = [await there.getHash(), await here.getHash()];
  if (a.hash !== b.hash || a.index !== b.index) {
    throw new Error(
      `State at ${a.index} is not that of a replay to ${b.index}`,
    );
  }
  // A running replica would go on taking snapshots, and making room for them.
  await disk.stop();
  await memory.stop();
  for (const info of await snapshots.list(config.clusterID)) {
    const { transform, totals } = verifySnapshot();
    await snapshots.open(info).pipeThrough(transform).pipeTo(
      new WritableStream(),
    );
    await totals;
  }
}

/**
 * Kills a process `kills` times, at moments drawn from the seed, as is which
 * appends are reported as lost.
 *
 * @throws Error if something that was acknowledged is lost, or applied twice, or the state is not that of a replay
 */
export async function killRun(
  kills: number,
  seed: number,
  onCheck: (kills: number, acknowledged: number) => void = (): void => {},
): Promise<void> {
  const directory = await Deno.makeTempDir();
  const acknowledged = new Array<number>(CLIENTS).fill(0);
  const next = random(seed);
  try {
    for (let i = 1; i <= kills; i++) {
      await live(directory, acknowledged, next);
      if (i % 20 !== 0 && i !== kills) continue;
      await check(directory, acknowledged);
      onCheck(i, acknowledged.reduce((sum, count) => sum + count, 0));
    }
  } catch (error) {
    throw new Error(`Seed ${seed}`, { cause: error });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) {
  const [what = "200", ...rest] = Deno.args;
  if (what === "serve") await serve(rest[0]!, Number(rest[1]));
  else {
    const seed = Number(rest[0] ?? newSeed());
    // deno-lint-ignore no-console
    console.log(`SQLite: seed ${seed}`);
    await killRun(Number(what), seed, (kills, acknowledged) => {
      // deno-lint-ignore no-console
      console.log(
        `SQLite: ${kills} kills, ${acknowledged} proposals acknowledged, none lost, none applied twice`,
      );
    });
  }
}
