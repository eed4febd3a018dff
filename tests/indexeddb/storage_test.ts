import "fake-indexeddb/auto";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  ErrStoreUnavailable,
  IndexedDBBlockStore,
  OPFSFileStore,
  requestPersistence,
  storageMode,
  storageStatus,
} from "../../src/indexeddb/mod.ts";
import { Faults, ManualEnv } from "./faults.ts";

const answering = (answer: boolean | Error | "never") => {
  const ask = (): Promise<boolean> =>
    answer === "never"
      ? new Promise(() => {})
      : answer instanceof Error
      ? Promise.reject(answer)
      : Promise.resolve(answer);
  return { persist: ask, persisted: ask };
};

Deno.test("U1 storageMode() says whether the browser may clear what is stored", async () => {
  for (
    const [storage, mode] of [
      [answering(true), "persistent"],
      [answering(false), "best-effort"],
      [
        answering(new TypeError("navigator.storage is not available")),
        "best-effort",
      ],
      [null, "best-effort"],
    ] as const
  ) assertEquals(await storageMode({ storage }), mode);
  assertEquals(await storageMode(), "best-effort");
});

Deno.test("case B5: a page that is not in a secure context gets the reason why nothing can be stored [U9]", async () => {
  Object.defineProperty(globalThis, "isSecureContext", {
    value: false,
    configurable: true,
  });
  try {
    const { mode, reason } = await storageStatus({ locks: null });
    assertEquals(mode, "memory");
    assertMatch(
      reason!,
      /serve the page over https, or open it at http:\/\/localhost/,
    );
    assertEquals(await storageMode({ locks: null }), "memory");
    const { navigator } = globalThis;
    Object.defineProperty(globalThis, "navigator", {
      value: {},
      configurable: true,
    });
    try {
      await using store = new IndexedDBBlockStore("insecure");
      const error = await assertRejects(
        () => store.identity(),
        ErrStoreUnavailable,
      );
      assertEquals(error.message, reason);
      assertEquals((await storageStatus()).reason, reason);
    } finally {
      Object.defineProperty(globalThis, "navigator", {
        value: navigator,
        configurable: true,
      });
    }
  } finally {
    Reflect.deleteProperty(globalThis, "isSecureContext");
  }
  assertEquals(await storageStatus({ storage: null }), { mode: "best-effort" });
});

Deno.test("U9 storageMode() says that nothing can be stored", async () => {
  const faults = new Faults();
  const storage = answering(true);
  assertEquals(await storageMode({ storage, indexedDB: null }), "memory");
  faults.openErrors.push("InvalidStateError");
  const indexedDB = faults.factory;
  assertEquals(await storageMode({ storage, indexedDB }), "memory");
  const throwing = {
    ...indexedDB,
    open(): never {
      throw new DOMException("Refused", "SecurityError");
    },
  };
  assertEquals(await storageMode({ storage, indexedDB: throwing }), "memory");
});

Deno.test("U8 storageMode() does not change when storage is full", async () => {
  const faults = new Faults();
  const indexedDB = faults.factory;
  faults.openErrors.push("QuotaExceededError");
  assertEquals(await storageMode({ storage: null, indexedDB }), "memory");
  const store = new IndexedDBBlockStore("full", { indexedDB });
  await store.identity();
  faults.openErrors.push("QuotaExceededError");
  assertEquals(await storageMode({ storage: null, indexedDB }), "best-effort");
  await store.close();
});

Deno.test("U1 storageMode() tries nothing where something was stored before", async () => {
  const tried: string[] = [];
  const open = (name: string): never => {
    tried.push(name);
    throw new Error(`Database ${name} must not be opened`);
  };
  const factory = (...names: string[]): IDBFactory =>
    ({
      open,
      databases: () => Promise.resolve(names.map((name) => ({ name }))),
    }) as unknown as IDBFactory;
  const options = { storage: null, locks: {} as LockManager };
  const mode = (...names: string[]): Promise<string> =>
    storageMode({ ...options, indexedDB: factory(...names) });
  assertEquals(await mode("board"), "best-effort");
  assertEquals(tried, []);
  // Not by an earlier try alone.
  assertEquals(await mode("sampan-probe"), "memory");
  assertEquals(tried, ["sampan-probe"]);
});

Deno.test("U28 storageMode() leaves nothing behind", async () => {
  await storageMode();
  await new Promise((resolve) => setTimeout(resolve, 20));
  const names = (await indexedDB.databases()).map(({ name }) => name);
  assertEquals(names.filter((name) => name?.startsWith("sampan")), []);
});

Deno.test("U7 storageMode() never hangs", async () => {
  const env = new ManualEnv();
  const faults = new Faults();
  faults.silentOpens = 1;
  const silent = storageMode({ env, indexedDB: faults.factory });
  env.advance(5_000);
  assertEquals(await silent, "memory");
  const unsure = storageMode({ env, storage: answering("never") });
  await new Promise((resolve) => setTimeout(resolve, 20));
  env.advance(5_000);
  assertEquals(await unsure, "best-effort");
});

Deno.test("U3 requestPersistence() returns the browser's answer, and never hangs", async () => {
  for (
    const [storage, answer] of [
      [answering(true), "persistent"],
      [answering(false), "best-effort"],
      [
        answering(new TypeError("navigator.storage is not available")),
        "unsupported",
      ],
      [null, "unsupported"],
    ] as const
  ) assertEquals(await requestPersistence({ storage }), answer);
  assertEquals(await requestPersistence(), "unsupported");
  const env = new ManualEnv();
  const asking = requestPersistence({ env, storage: answering("never") });
  env.advance(5_000);
  assertEquals(await asking, "unanswered");
});

Deno.test("U9 stores fail with the reason if there is no storage", async () => {
  const there = Object.getOwnPropertyDescriptor(globalThis, "indexedDB")!;
  Object.defineProperty(globalThis, "indexedDB", {
    value: undefined,
    configurable: true,
  });
  try {
    await using store = new IndexedDBBlockStore("none");
    await assertRejects(() => store.get(["a"]), ErrStoreUnavailable);
    assertEquals(await storageMode(), "memory");
  } finally {
    Object.defineProperty(globalThis, "indexedDB", there);
  }
  await using files = new OPFSFileStore("none");
  await assertRejects(() => files.list(""), ErrStoreUnavailable);
  await assertRejects(() => files.create("a"), ErrStoreUnavailable);
});
