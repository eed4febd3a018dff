import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { NodeHost } from "../../mod.ts";
import {
  type Principal,
  serve,
  type ServeOptions,
  SERVER_LIMITS,
} from "../../src/sync/mod.ts";
import { originOf, OriginPolicy } from "../../src/sync/server/origin_policy.ts";
import { socketTransport } from "../../src/sync/transport.ts";
import { run } from "./running_server.ts";
import { RawClient, realTime } from "./server_support.ts";
import { test } from "../support/log_tests.ts";

/** Invalid values of each option, with text that the error has besides the name. */
const WRONG: Record<string, readonly unknown[]> = {
  hostname: [
    "",
    1,
    null,
    "http://localhost",
    "localhost/x",
    "a b",
    "[::1",
    "a:1:",
  ],
  port: ["8000", -1, 65_536, 1.5, NaN, 8000n, null],
  cert: ["", 1, null],
  key: ["", 1, null],
  path: ["", "app", "/app?x", "/app#x", "/a//b", "/../app", "/a b", 1, "//"],
  origins: ["https://app.example", "", 0, false, {}, 1, null, new Set()],
  fetch: [null, "page", {}],
  signal: [new AbortController(), true, null, {}],
  sigterm: [1, "no", null],
  authenticate: [{ id: "ann" }, true, null],
  authorize: [true, "read", null],
  validate: [/a/, null, "no"],
  rehearse: [1, null, "yes"],
  log: [[], "info", null],
  versions: [1, null, {}, { first: 2, last: 1 }, { first: "1", last: 1 }],
  limits: [1, null, "none"],
  health: [1, null, "all"],
  inspector: [1, null, true, {}, { clusters: "all" }],
};

test("case A4: serve() rejects each invalid option with its name, its value and what to write instead [R14, H11]", async () => {
  await using host = new NodeHost();
  for (const [name, values] of Object.entries(WRONG)) {
    for (const value of values) {
      const options = { [name]: value } as ServeOptions;
      const error = assertThrows(
        () => serve(host, options),
        TypeError,
        undefined,
        `${name}: ${String(value)}`,
      );
      assertMatch(error.message, new RegExp(`Option ${name} `));
      assertMatch(error.message, /; (write|TLS takes)| write (it|each) as/);
    }
  }
  for (const name of Object.keys(SERVER_LIMITS)) {
    const isMs = name.endsWith("Ms");
    const wrong = ["10", NaN, -1, 1.5, 10n, null, {}]
      .concat(isMs ? [0, Infinity, 2 ** 31] : []);
    for (const value of wrong) {
      const options = { limits: { [name]: value } } as unknown as ServeOptions;
      assertThrows(
        () => serve(host, options),
        TypeError,
        `Option limits.${name} is `,
      );
    }
  }
  // A misspelled name would leave the server unprotected.
  for (const name of ["authentciate", "origin", "hostName"]) {
    const options = { [name]: () => undefined } as ServeOptions;
    assertThrows(
      () => serve(host, options),
      TypeError,
      `Option ${name} is not`,
    );
  }
  assertThrows(
    () => serve(host, { limits: { connection: 1 } as never }),
    TypeError,
    "Option limits.connection is not known",
  );
  assertThrows(
    () => serve(host, { health: { fail: "some" as never } }),
    TypeError,
    'Option health.fail is "some"; write "any" or "all"',
  );
  // Undefined means not set.
  const unset = Object.fromEntries(
    Object.keys(WRONG).map((name) => [name, undefined]),
  );
  await serve(host, unset as ServeOptions).shutdown();
  await serve(host, { limits: { hookMs: undefined } as never }).shutdown();
});

test("case A4: origins are compared as a whole in any spelling, and text that is not an origin is rejected [U34]", async () => {
  for (
    const [written, sent] of [
      ["https://app.example", "https://app.example"],
      ["https://app.example/", "https://app.example"],
      ["HTTPS://App.Example", "https://app.example"],
      ["https://app.example:443", "https://app.example"],
      ["http://app.example:80/", "http://app.example"],
      ["http://app.example:8080", "http://app.example:8080"],
      ["https://[::1]:8443", "https://[::1]:8443"],
      ["https://b\u00fccher.example", "https://xn--bcher-kva.example"],
      ["capacitor://localhost", "capacitor://localhost"],
      ["chrome-extension://abcdef", "chrome-extension://abcdef"],
    ]
  ) {
    assertEquals(originOf(written!), sent);
    const pages = new OriginPolicy([written!], undefined);
    const allow = (origin: string): boolean =>
      pages.allow(new Request("http://a/sync", { headers: { origin } }));
    assertEquals(allow(sent!), true);
    for (
      const other of [sent!.slice(0, -1), `${sent}.evil.example`, `${sent}0`]
        .concat("null", "https://evil.example", "")
    ) assertEquals(allow(other), false, other);
  }
  for (
    const none of [
      "*",
      "",
      "null",
      "app.example",
      "https://",
      "https:app.example",
    ]
      .concat(
        "https://app.example/path",
        "https://*.app.example",
        "//app.example",
      )
      .concat(
        "https://app.example?",
        "https://app.example#",
        "https://u@app.example",
      )
      .concat(
        "https://app.example:99999",
        "ws://app.example",
        "file:///x",
        "https://a b",
      )
  ) {
    assertThrows(
      () => new OriginPolicy([none], undefined),
      TypeError,
      "not an origin",
    );
  }
  assertThrows(
    () => new OriginPolicy([1 as never], undefined),
    TypeError,
    "origin",
  );
  assertThrows(
    () => new OriginPolicy("https://a.example" as never, undefined),
    TypeError,
    'such as ["https://app.example"]',
  );
  // An empty list accepts no page.
  const request = new Request("http://a/sync", {
    headers: { origin: "http://a" },
  });
  assertEquals(new OriginPolicy([], undefined).allow(request), false);

  const r = await run({ origins: ["HTTPS://App.Example:443/"] });
  await r.connect({ origin: "https://app.example" }).hello();
  assertEquals((await r.connect({ origin: "https://app" }).end()).code, 4403);
  await r.stop();
});

test("case A6: serve() listens on an IPv6 address with or without brackets, and reports its URL [H5]", async () => {
  for (const hostname of ["::1", "[::1]", "0:0:0:0:0:0:0:1"]) {
    const r = await run({ hostname });
    assertMatch(r.server.url, /^ws:\/\/\[::1\]:\d+\/sync$/);
    assertMatch(r.server.httpURL, /^http:\/\/\[::1\]:\d+\/$/);
    await r.connect({ origin: new URL(r.server.httpURL).origin }).hello();
    const health = await fetch(new URL("health", r.server.httpURL));
    assertEquals((await health.json()).status, "ok");
    await r.stop();
  }
  for (const hostname of ["::", "[::]", "0.0.0.0", "0::0"]) {
    const r = await run({ hostname });
    assertMatch(r.server.url, /^ws:\/\/localhost:\d+\/sync$/);
    await r.stop();
  }
});

test("case A6: serve({ path }) serves sync, health and clusters below the base path only [H5]", async () => {
  const r = await run({
    path: "/app/sync/",
    fetch: ({ url }) => new Response(`page ${new URL(url).pathname}`),
  });
  const { origin, port } = new URL(r.server.httpURL);
  assertEquals(r.server.url, `ws://127.0.0.1:${port}/app/sync/sync`);
  assertEquals(r.server.httpURL, `${origin}/app/sync/`);
  // The base path itself is a URL of the server, too.
  for (const path of ["/app/sync/sync", "/app/sync", "/app/sync/"]) {
    const url = `ws://127.0.0.1:${port}${path}`;
    const client = new RawClient(socketTransport(new WebSocket(url)), realTime);
    await client.hello();
    await client.open();
    const response = await fetch(`${origin}${path}`);
    assertEquals(response.status, 426);
    await response.body?.cancel();
  }
  for (const path of ["health", "clusters/1/snapshot"]) {
    const response = await fetch(new URL(path, r.server.httpURL));
    assertEquals(response.status, 200);
    await response.body?.cancel();
  }
  for (
    const path of [
      "/sync",
      "/health",
      "/clusters/1/snapshot",
      "/app",
      "/app/syncs",
    ]
      .concat("/app/health", "/app/sync/other")
  ) {
    const response = await fetch(`${origin}${path}`);
    assertEquals(await response.text(), `page ${path}`);
  }
  await r.stop();
});

test("case A2: changes of the options object after serve() have no effect [R14, H21]", async () => {
  await using host = new NodeHost();
  const options = {
    sigterm: false,
    authenticate: (): Principal | undefined => undefined,
    origins: ["https://app.example"],
    limits: { connections: 10 },
    versions: { first: 2, last: 2 },
    health: { fail: "any" as "any" | "all" },
    fetch: (): Response => new Response("old"),
  };
  await using server = serve(host, options);
  Object.assign(options, {
    authenticate: undefined,
    authorize: () => true,
    fetch: () => new Response("new"),
  });
  options.origins.push("https://evil.example");
  options.limits.connections = 0;
  options.versions.last = 3;
  options.health.fail = "all";
  const page = await fetch(server.httpURL);
  assertEquals(await page.text(), "old");
  const upload = await fetch(new URL("clusters/1/snapshot", server.httpURL));
  assertEquals(upload.status, 401);
  await upload.body?.cancel();
  const probe = await fetch(new URL("sync", server.httpURL), {
    headers: { origin: "https://app.example" },
  });
  assertEquals(probe.headers.get("x-sampan"), "2-2");
  await probe.body?.cancel();
  const evil = await fetch(new URL("sync", server.httpURL), {
    headers: { origin: "https://evil.example" },
  });
  assertEquals(evil.status, 403);
  await evil.body?.cancel();
});

test("case C11: serve() rejects a host of the wrong type by name [R14]", () => {
  for (const host of [undefined, null, {}, new Map()]) {
    assertThrows(() => serve(host as never), TypeError, "host");
  }
});
