import { assertEquals, assertRejects } from "@std/assert";
import { GroupCommit, SerialQueue } from "../../src/store/group_commit.ts";

/** Group commit of strings whose groups are recorded, and whose results are their positions in all that was written. */
function recorder(
  options: { bytesMax?: number; itemsMax?: number } = {},
): { commit: GroupCommit<string, number>; groups: string[][] } {
  const groups: string[][] = [];
  let written = 0;
  const commit = new GroupCommit<string, number>({
    write: async (group) => {
      groups.push([...group]);
      await Promise.resolve();
      if (group.includes("bad")) throw new Error("write() of bad failed");
      return group.map(() => written++);
    },
    sizeOf: (item) => item.length,
    bytesMax: options.bytesMax ?? 100,
    ...(options.itemsMax === undefined ? {} : { itemsMax: options.itemsMax }),
  });
  return { commit, groups };
}

Deno.test("GroupCommit.add() writes items that arrive during a write together", async () => {
  const { commit, groups } = recorder();
  const first = commit.add("a");
  await Promise.resolve();
  await Promise.resolve();
  const others = ["b", "c"].map((item) => commit.add(item));
  assertEquals(await Promise.all([first, ...others]), [0, 1, 2]);
  assertEquals(groups, [["a"], ["b", "c"]]);
});

Deno.test("GroupCommit.add() bounds a group by bytes and items, and never makes an empty one", async () => {
  const { commit, groups } = recorder({ bytesMax: 4, itemsMax: 2 });
  const items = ["12345", "12", "34", "5", "6", "7"];
  await Promise.all(items.map((item) => commit.add(item)));
  assertEquals(groups, [["12345"], ["12", "34"], ["5", "6"], ["7"]]);
});

Deno.test("GroupCommit.add() rejects every item of a group whose write fails, and goes on with the next", async () => {
  const { commit, groups } = recorder();
  const failed = ["a", "bad"].map((item) => commit.add(item));
  for (const adding of failed) await assertRejects(() => adding, Error, "bad");
  assertEquals(await commit.add("b"), 0);
  assertEquals(groups, [["a", "bad"], ["b"]]);
});

Deno.test("GroupCommit gathers seldom while no item joins", async () => {
  let gathered = 0;
  const commit = new GroupCommit<number, number>({
    write: (group) => Promise.resolve(group),
    sizeOf: () => 1,
    bytesMax: 100,
    gather: () => Promise.resolve(void gathered++),
  });
  for (let i = 0; i < 40; i++) await commit.add(i);
  assertEquals(gathered < 16, true, `${gathered} of 40 writes gathered`);
});

Deno.test("SerialQueue.run() runs work in order, also after work that failed", async () => {
  const queue = new SerialQueue();
  const done: string[] = [];
  const first = queue.run(async () => {
    await Promise.resolve();
    done.push("first");
  });
  const second = queue.run(() =>
    Promise.reject(new Error("write() of second failed"))
  );
  const third = queue.run(() => Promise.resolve(done.push("third")));
  await assertRejects(() => second, Error, "write() of second failed");
  await Promise.all([first, third]);
  assertEquals(done, ["first", "third"]);
});

Deno.test("SerialQueue.settled() waits for work that is added while it waits", async () => {
  const queue = new SerialQueue();
  const done: string[] = [];
  const work = queue.run(async () => {
    await Promise.resolve();
    void queue.run(() => Promise.resolve(done.push("later")));
  });
  await queue.settled();
  await work;
  assertEquals(done, ["later"]);
});
