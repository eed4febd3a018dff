import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { toBytes } from "@std/streams";
import { DatabaseSync } from "node:sqlite";
import { kv } from "../../mod.ts";
import {
  DataFolder,
  ErrDataFolder,
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVersion,
} from "../../src/sqlite/mod.ts";
import { type FolderReplica, withReplica } from "../support/replicas.ts";
import { streamOf } from "../support/streams.ts";

const CLUSTER = 1n;

async function inFolder(
  work: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "data-" });
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function withHost<T>(
  path: string,
  work: (data: DataFolder, replica: FolderReplica) => Promise<T>,
): Promise<T> {
  return await withReplica(path, work, { snapshotEntries: 200 });
}

/** A backup of a folder with a log and snapshots. */
async function someBackup(folder: string): Promise<Uint8Array> {
  return await withHost(`${folder}/some`, async (data, replica) => {
    for (let i = 0; i < 20; i++) {
      await replica.propose(kv.put(`key ${i}`, `value ${i}`));
    }
    await replica.requestSnapshot();
    await replica.propose(kv.put("last", "one"));
    return await toBytes(data.backup());
  });
}

Deno.test("H9 a backup taken under load has every command acknowledged before it, and a prefix of the log", async () => {
  await inFolder(async (folder) => {
    const acknowledged: number[] = [];
    let before = 0;
    const backup = await withHost(`${folder}/data`, async (data, replica) => {
      let isOver = false;
      const propose = async (from: number): Promise<void> => {
        for (let i = from; !isOver; i += 8) {
          await replica.propose(kv.put(String(i), "x".repeat(500)));
          acknowledged.push(i);
        }
      };
      const load = Array.from({ length: 8 }, (_, i) => propose(i));
      while (acknowledged.length < 500) {
        await new Promise((resolve) => setTimeout(resolve));
      }
      before = acknowledged.length;
      const bytes = await toBytes(data.backup());
      assert(
        acknowledged.length > before,
        "nothing was acknowledged during the backup",
      );
      isOver = true;
      await Promise.all(load);
      return bytes;
    });
    const restored = await DataFolder.restore(
      `${folder}/restored`,
      streamOf(backup, 70_001),
    );
    assertEquals(restored.size, backup.length);
    await withHost(`${folder}/restored`, async (_, replica) => {
      const found = new Set<number>();
      const rows = await replica.read(kv.range()) as { key: Uint8Array }[];
      for (const { key } of rows) {
        found.add(Number(new TextDecoder().decode(key)));
      }
      for (const i of acknowledged.slice(0, before)) assert(found.has(i));
      // Each proposer waits for its answer: what is there of one has no gap.
      for (const i of found) assert(i < 8 || found.has(i - 8), `${i - 8}`);
      assert(replica.appliedIndex >= before);
    });
  });
});

Deno.test("H9 H8 a backup that is damaged or truncated anywhere restores nothing", async () => {
  await inFolder(async (folder) => {
    const backup = await someBackup(folder);
    const target = `${folder}/target`;
    const refused = async (bytes: Uint8Array): Promise<void> => {
      await assertRejects(
        () => DataFolder.restore(target, streamOf(bytes)),
        Error,
      );
      const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
      assertEquals(names, ["some"]);
    };
    const step = Math.max(1, Math.floor(backup.length / 60));
    for (let at = 0; at < backup.length; at += step) {
      const damaged = backup.slice();
      damaged[at]! ^= 0x10;
      await refused(damaged);
      await refused(backup.slice(0, at));
    }
    await refused(new Uint8Array([...backup, 0]));
    await DataFolder.restore(target, streamOf(backup));
  });
});

Deno.test("H11 a backup of a newer version, or data that is no backup, is refused with a reason", async () => {
  await inFolder(async (folder) => {
    const backup = await someBackup(folder);
    backup[8] = 2;
    const error = await assertRejects(
      () => DataFolder.restore(`${folder}/new`, streamOf(backup)),
      ErrStoreVersion,
    );
    assertEquals(error.supported, 1);
    await assertRejects(
      () => DataFolder.restore(`${folder}/new`, streamOf(new Uint8Array(100))),
      ErrStoreCorrupted,
      "not a backup",
    );
  });
});

Deno.test("H11 a restore never overwrites", async () => {
  await inFolder(async (folder) => {
    const backup = await someBackup(folder);
    await assertRejects(
      () => DataFolder.restore(`${folder}/some`, streamOf(backup)),
      ErrDataFolder,
      "not empty",
    );
    await Deno.writeTextFile(`${folder}/file`, "");
    await assertRejects(
      () => DataFolder.restore(`${folder}/file`, streamOf(backup)),
      ErrDataFolder,
      "is a file",
    );
    await Deno.mkdir(`${folder}/empty`);
    await DataFolder.restore(`${folder}/empty`, streamOf(backup));
  });
});

Deno.test("U33 a device that knew a log recognises the history of its restored backup", async () => {
  await inFolder(async (folder) => {
    const backup = await someBackup(folder);
    await DataFolder.restore(`${folder}/restored`, streamOf(backup));
    const epochs = async (path: string): Promise<string> => {
      await using data = await DataFolder.open(path);
      const [info] = data.snapshots.list(CLUSTER);
      return String(info?.epoch?.id);
    };
    assertEquals(
      await epochs(`${folder}/some`),
      await epochs(`${folder}/restored`),
    );
    // It can be written, and so begins a history of its own.
    await withHost(`${folder}/restored`, async (_, replica) => {
      await replica.propose(kv.put("after", "restore"));
      assertEquals(await replica.read(kv.count()), 22);
    });
  });
});

Deno.test("H11 a data folder that cannot be used is refused with its path", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    for (const path of [`${folder}/file`, `${folder}/file/below`]) {
      const error = await assertRejects(
        () => DataFolder.open(path),
        ErrDataFolder,
      );
      assert(error.message.includes(`${folder}/file`), error.message);
    }
    await assertRejects(
      () => DataFolder.open(`${folder}/missing`, { create: false }),
      ErrDataFolder,
      "not a data folder",
    );
    assertEquals([...Deno.readDirSync(folder)].length, 1);
    {
      await using _data = await DataFolder.open(`${folder}/data`);
      await assertRejects(
        () => DataFolder.open(`${folder}/data`),
        ErrStoreLocked,
      );
    }
    const db = new DatabaseSync(`${folder}/data/log.db`);
    db.exec("PRAGMA user_version = 7");
    db.close();
    const error = await assertRejects(
      () => DataFolder.open(`${folder}/data`),
      ErrStoreVersion,
      "version 7",
    );
    assertMatch(error.message, /data\/log\.db has format/);
  });
});
