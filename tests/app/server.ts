/**
 * The server of the app: people log in with a name, get a cookie, and may have
 * no more than two cards in "doing".
 *
 * ```sh
 * deno run --allow-all tests/app/server.ts <port> <data folder>
 * ```
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { bundle, stopBundler } from "../../web/bundle.ts";
import { Board, type Card, decode } from "./board.ts";

const DOING_MAX = 2;
const [port = "8000", folder = "data"] = Deno.args;

// A real app would keep the sessions in a database.
const sessions = new Map<string, string>();

/** User of a request, identified by its cookie. */
function personOf({ headers }: Request): string | undefined {
  const cookie = /(?:^|; )app=([^;]+)/.exec(headers.get("cookie") ?? "");
  return cookie === null ? undefined : sessions.get(cookie[1]!);
}

/** Logs a user in by name; the token stays valid over a restart. */
async function logIn(request: Request): Promise<Response> {
  const name = String((await request.formData()).get("name")).trim();
  if (name === "") return new Response("A name, please", { status: 400 });
  const token = `${encodeURIComponent(name)}.${crypto.randomUUID()}`;
  sessions.set(token, name);
  await Deno.writeTextFile(`${folder}.sessions`, JSON.stringify([...sessions]));
  return new Response(null, {
    status: 303,
    headers: {
      location: "/",
      "set-cookie": `app=${token}; HttpOnly; SameSite=Strict; Path=/`,
    },
  });
}

const page = await Deno.readTextFile(new URL("index.html", import.meta.url));
const script = await bundle({
  name: "page",
  text: `import "./tests/app/page.ts";`,
});
await stopBundler();

/** Serves the page and its files. */
function answer(request: Request): Response | Promise<Response> {
  const file = (body: BodyInit, type: string): Response =>
    new Response(body, { headers: { "content-type": type } });
  switch (new URL(request.url).pathname) {
    case "/login":
      return logIn(request);
    case "/":
      return file(page, "text/html; charset=utf-8");
    case "/page.js":
      return file(script.code as Uint8Array<ArrayBuffer>, "text/javascript");
    default:
      return new Response("Not found", { status: 404 });
  }
}

for (
  const [token, name] of JSON.parse(
    await Deno.readTextFile(`${folder}.sessions`).catch(() => "[]"),
  )
) sessions.set(token, name);
const data = await DataFolder.open(folder);
const host = new NodeHost({ logDB: data.logDB, snapshots: data.snapshots });
await host.startCluster(() => new Board(), {
  clusterID: 1n,
  nodeID: 1n,
  hashEntries: 16,
});
const server = serve(host, {
  port: Number(port),
  authenticate(request): { id: string } | undefined {
    const id = personOf(request);
    return id === undefined ? undefined : { id };
  },
  async validate(
    _person,
    cmd,
    _cluster,
    { lookup },
  ): Promise<string | undefined> {
    const edit = decode(cmd);
    if (edit.type !== "move") return undefined;
    const cards = await lookup!(null) as Card[];
    const card = cards.find(({ id }) => id === edit.id);
    if (card === undefined) return "There is no such card";
    if (edit.column !== "doing") return undefined;
    const doing = cards.filter(({ column }) => column === "doing").length;
    return doing < DOING_MAX ? undefined : "Two cards are being done already";
  },
  fetch: answer,
});
Deno.stdout.writeSync(new TextEncoder().encode(`At ${server.httpURL}\n`));
await server.finished;
await host.stop();
await data.close();
Deno.exit(0);
