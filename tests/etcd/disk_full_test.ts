import { assert, assertEquals } from "@std/assert";
import { ErrStoreFull, ErrUnknownOutcome } from "../../mod.ts";
import { ErrEtcdUnavailable, EtcdLogDB } from "../../src/etcd/mod.ts";
import { packRecords, recordAt } from "../../src/ports/mod.ts";
import { epochOf } from "../../src/log/records.ts";
import { EtcdNodes, testIfEtcd, withoutEtcd } from "./nodes.ts";

/** Size of the disk, with room for the write-ahead log that etcd allocates at once. */
const DISK = "size=220m";

/** Size of a record. */
const RECORD_BYTES = 400_000;

async function run(program: string, ...args: string[]): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(program, {
      args,
      stdout: "null",
      stderr: "null",
    }).output();
    return success;
  } catch {
    return false;
  }
}

/** A small disk in memory; undefined where this user may not mount one. */
async function smallDisk(): Promise<
  { path: string } & AsyncDisposable | undefined
> {
  const path = await Deno.makeTempDir({ prefix: "disk-" });
  if (!await run("mount", "-t", "tmpfs", "-o", DISK, "tmpfs", path)) {
    await Deno.remove(path);
    return undefined;
  }
  return {
    path,
    async [Symbol.asyncDispose](): Promise<void> {
      await run("umount", path);
      await Deno.remove(path);
    },
  };
}

const canMount = withoutEtcd() === undefined && await (async () => {
  const disk = await smallDisk();
  await disk?.[Symbol.asyncDispose]();
  return disk !== undefined;
})();

/** Fills a disk to its last byte. */
async function fill(path: string): Promise<void> {
  using file = await Deno.open(path, { create: true, write: true });
  const zeros = new Uint8Array(1 << 20);
  for (let size = zeros.length; size >= 4096;) {
    try {
      await file.write(zeros.subarray(0, size));
    } catch {
      size >>= 1;
    }
  }
}

const name =
  "U8 etcd whose disk is full appends nothing that it has not acknowledged, and goes on once there is room: nothing acknowledged is lost, nothing is doubled";
testIfEtcd(
  canMount ? name : `${name}: skipped, this user may not mount a small disk`,
  async () => {
    if (!canMount) return;
    await using disk = (await smallDisk())!;
    await using nodes = await EtcdNodes.start({
      prepare: (folder) => Deno.symlink(disk.path, `${folder}/n0`),
    });
    await using logDB = new EtcdLogDB({
      endpoints: nodes.endpoints,
      appendMs: 2_000,
    });
    const log = await logDB.open(1n, 1n);
    const known = new Map<number, "appended" | "unknown">();
    let next = 0;
    /** Appends a record with a number; false if that fails. */
    const append = async (): Promise<boolean> => {
      const bytes = new Uint8Array(RECORD_BYTES);
      new DataView(bytes.buffer).setUint32(0, ++next);
      try {
        await log.append(packRecords(bytes));
        known.set(next, "appended");
        return true;
      } catch (error) {
        if (error instanceof ErrUnknownOutcome) known.set(next, "unknown");
        else {
          assert(
            error instanceof ErrEtcdUnavailable ||
              error instanceof ErrStoreFull,
            `${error}`,
          );
        }
        return false;
      }
    };
    for (let i = 0; i < 5; i++) assert(await append());
    const ballast = `${disk.path}/ballast`;
    await fill(ballast);
    let isFull = false;
    for (let i = 0; i < 200 && !isFull; i++) isFull = !await append();
    assert(isFull, "the disk never was full");
    assert(log.storage!.trouble !== undefined);
    // An operator makes room, and starts the node again, which has ended.
    await Deno.remove(ballast);
    await nodes.kill(0);
    nodes.run(0);
    await nodes.ready();
    for (let tries = 0; !await append(); tries++) assert(tries < 10);
    const reader = await log.read(0);
    const found: number[] = [];
    for (let at = 0; at < reader.lastAtStart;) {
      const { first, records } = await reader.next();
      for (let i = 0; i < records.ends.length; i++) {
        const bytes = recordAt(records, i);
        if (epochOf(bytes) !== undefined) continue;
        found.push(new DataView(bytes.slice().buffer).getUint32(0));
      }
      at = first + records.ends.length - 1;
    }
    reader.close();
    assertEquals(new Set(found).size, found.length, "a record is there twice");
    for (const [number, outcome] of known) {
      if (outcome === "appended") assert(found.includes(number), `${number}`);
    }
    for (const number of found) assert(known.has(number), `${number}`);
  },
  true,
);
