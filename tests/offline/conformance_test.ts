import "fake-indexeddb/auto";
import { MemoryOutbox } from "../../mod.ts";
import type { BlockOutboxOptions } from "../../src/ports/mod.ts";
import { IndexedDBOutbox } from "../../src/indexeddb/mod.ts";
import { SqliteOutbox } from "../../src/sqlite/mod.ts";
import {
  outboxConformance,
  type OutboxConformanceOptions,
} from "../../src/testing/mod.ts";

for (
  const { name, run } of outboxConformance({
    create: () => new MemoryOutbox(),
  })
) Deno.test(`MemoryOutbox: ${name}`, async () => await run());

/** Options for outboxes that are stored under a name. */
function named(
  make: (name: string) => OutboxOf,
): OutboxConformanceOptions {
  const names = new WeakMap<object, string>();
  const open = (name: string): OutboxOf => {
    const outbox = make(name);
    names.set(outbox, name);
    return outbox;
  };
  return {
    create: () => open(crypto.randomUUID()),
    reopen: (outbox) => open(names.get(outbox)!),
  };
}

type OutboxOf = Awaited<ReturnType<OutboxConformanceOptions["create"]>>;

for (const durability of ["relaxed", "strict"] as const) {
  const options: BlockOutboxOptions = { durability };
  for (
    const { name, run } of outboxConformance(
      named((name) => new IndexedDBOutbox(name, { ...options, locks: null })),
    )
  ) {
    Deno.test(`IndexedDBOutbox, ${durability}: ${name}`, async () =>
      await run());
  }
  const directory = Deno.makeTempDirSync();
  const cases = outboxConformance(
    named((name) =>
      new SqliteOutbox(`${directory}/${name}/outbox.db`, options)
    ),
  );
  for (const { name, run } of cases) {
    Deno.test(`SqliteOutbox, ${durability}: ${name}`, async () => await run());
  }
  globalThis.addEventListener("unload", () => {
    Deno.removeSync(directory, { recursive: true });
  });
}
