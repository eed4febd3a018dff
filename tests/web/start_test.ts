import { assert, assertEquals, assertMatch } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { servePage } from "../../web/page.ts";

const START = new URL("../../web/start.ts", import.meta.url).href;

async function start(
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", START, ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

Deno.test("H11 start reports an error in one line, with exit status 2", async () => {
  const folder = await Deno.makeTempDir({ prefix: "start-" });
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    await Deno.writeTextFile(`${folder}/file`, "not a certificate");
    await (await DataFolder.open(`${folder}/newer`)).close();
    const db = new DatabaseSync(`${folder}/newer/log.db`);
    db.exec("PRAGMA user_version = 7");
    db.close();
    await using _held = await DataFolder.open(`${folder}/held`);
    const file = `${folder}/file`;
    const data = ["--data", `${folder}/data`];
    const port = String((taken.addr as Deno.NetAddr).port);
    const cases: [string[], RegExp][] = [
      [["--prt", "1"], /--prt/],
      [["data"], /data/],
      [["--port", "-1"], /'--port' argument is ambiguous/],
      [["--port", "abc"], /--port is "abc"/],
      [["--port", "65536"], /--port is "65536"/],
      [["--cert", file], /HTTPS needs both/],
      [["--cert", `${folder}/no`, "--key", file], /cannot be read/],
      [
        ["--cert", file, "--key", file, ...data, "--port", "0"],
        /is invalid/,
      ],
      [["--data", file], /is a file/],
      [["--data", `${folder}/newer`], /version 7/],
      [["--data", `${folder}/held`], /Another process/],
      [[...data, "--port", port], new RegExp(`Port ${port} .* in use`)],
      [
        [...data, "--port", "0", "--hostname", "192.0.2.1"],
        /not an address of this machine/,
      ],
      [
        [...data, "--port", "0", "--hostname", "no-such-host.invalid"],
        /cannot be resolved/,
      ],
    ];
    for (const [args, words] of cases) {
      const { code, out, err } = await start(...args);
      assertEquals([code, out], [2, ""], `${args}: ${err}`);
      assertMatch(err, words);
      assertEquals(err.trimEnd().split("\n").length, 1, err);
    }
    const help = await start("--help");
    assertEquals(help.code, 0);
    // A server on every address does not accept every host name (case A19).
    assertMatch(
      help.out,
      /NAME, by an IP address or by\s+localhost can connect/,
    );
    for (const option of ["port", "hostname", "data", "cert", "key"]) {
      assertMatch(help.out, new RegExp(`--${option}\\b`));
    }
  } finally {
    taken.close();
    await Deno.remove(folder, { recursive: true });
  }
});

const FILE = {
  content: new TextEncoder().encode("content ".repeat(100)),
  type: "text/javascript; charset=utf-8",
};

Deno.test("U37 the page is sent compressed with an ETag, and answered with 304 if it has not changed", async () => {
  const page = servePage(
    new Map([
      ["/", { ...FILE, immutable: false }],
      ["/app-1.js", { ...FILE, immutable: true }],
    ]),
  );
  const get = (path: string, headers = {}, method = "GET"): Response =>
    page(new Request(`http://localhost${path}`, { headers, method }));
  const etags = new Set<string>();
  for (
    const [accepted, encoding] of [
      ["br, gzip", "br"],
      ["gzip;q=0.5, br;q=0", "gzip"],
      ["deflate", null],
      ["", null],
    ] as const
  ) {
    const response = get("/", { "accept-encoding": accepted });
    assertEquals(response.headers.get("content-encoding"), encoding);
    const body = new Uint8Array(await response.arrayBuffer());
    assertEquals(body.length < 200, encoding !== null);
    assertEquals(Number(response.headers.get("content-length")), body.length);
    const etag = response.headers.get("etag")!;
    etags.add(etag);
    const again = get("/", {
      "accept-encoding": accepted,
      "if-none-match": `"other", W/${etag}`,
    });
    assertEquals([again.status, await again.text()], [304, ""]);
  }
  assertEquals(etags.size, 3);
  assertEquals(get("/").headers.get("cache-control"), "no-cache");
  assertMatch(get("/app-1.js").headers.get("cache-control")!, /immutable/);
  assertEquals(await get("/", {}, "HEAD").text(), "");
  assertEquals(get("/", {}, "POST").status, 405);
  assert(get("/", {}, "POST").headers.get("allow")!.includes("GET"));
  assertEquals(get("/other").status, 404);
});

Deno.test("U1 the page sets a device cookie that outlives the storage of the device", () => {
  const page = servePage(new Map([["/", { ...FILE, immutable: false }]]));
  const get = (url: string, cookie?: string): string | null =>
    page(
      new Request(url, { headers: cookie === undefined ? {} : { cookie } }),
    ).headers.get("set-cookie");
  const given = get("http://localhost/")!;
  assertMatch(
    given,
    /^sampan-device=[0-9a-f-]{36}; Path=\/; Max-Age=\d+; Same/,
  );
  assertEquals(given.includes("Secure"), false);
  assertMatch(get("https://app.example/")!, /; Secure$/);
  assertEquals(get("http://localhost/", `a=b; ${given.split(";")[0]}`), null);
});
