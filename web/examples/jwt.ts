/**
 * A server whose pages log in with a JSON Web Token: a guest book in which all
 * may read, and each writes under their own name only.
 *
 * ```sh
 * deno run -A web/examples/jwt.ts
 * ```
 *
 * Open http://localhost:8006 and http://127.0.0.1:8006: to a browser these are
 * two devices. `--port N` and `--data FOLDER` change where it listens and keeps
 * its data.
 *
 * @module
 */

import { errors, jwtVerify, SignJWT } from "jose";
import { parseArgs } from "node:util";
import { kv, type KVRow, KVStateMachine, NodeHost } from "@sampan/sampan";
import { DataFolder } from "@sampan/sampan/sqlite";
import { type Principal, serve } from "@sampan/sampan/sync/server";
import { bundle, stopBundler } from "../bundle.ts";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "8006" },
    data: { type: "string", default: "data/jwt" },
  },
});
await using data = await DataFolder.open(values.data);

/** Key that signs the tokens, in a file so that they are valid after a restart. */
async function signingKey(): Promise<Uint8Array> {
  const path = `${values.data}/jwt.key`;
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    const key = crypto.getRandomValues(new Uint8Array(32));
    await Deno.writeFile(path, key, { mode: 0o600 });
    return key;
  }
}

const key = await signingKey();
const ISSUER = "guest book";

/**
 * Answers a log-in with a token. Anyone gets one for any name here: your own
 * server looks at a password first, or leaves this to an identity provider.
 */
async function logIn(request: Request): Promise<Response> {
  const name = String((await request.formData()).get("name")).trim();
  if (!/^[\p{L}\p{N} ]{1,40}$/u.test(name)) {
    return new Response("A name has 1 to 40 letters", { status: 400 });
  }
  const token = await new SignJWT()
    .setProtectedHeader({ alg: "HS256" })
    .setIssuer(ISSUER)
    .setSubject(name)
    .setExpirationTime("1 hour")
    .sign(key);
  return new Response(token);
}

/** Finds out who connects; undefined has the page ask for another token. */
async function authenticate(request: Request): Promise<Principal | undefined> {
  const header = request.headers.get("authorization") ?? "";
  try {
    // With an identity provider, `createRemoteJWKSet()` takes the place of the key.
    const { payload } = await jwtVerify(header.replace(/^Bearer /, ""), key, {
      algorithms: ["HS256"],
      issuer: ISSUER,
      requiredClaims: ["sub", "exp"],
    });
    // The connection ends with the token, unless the page brings a new one.
    const validMs = payload.exp! * 1000 - Date.now();
    return { id: payload.sub!, validMs };
  } catch (error) {
    if (error instanceof errors.JOSEError) return undefined;
    // Not the page's fault: it tries again later, with the same token.
    throw error;
  }
}

/** Looks at each command before it is in the log; returns the reason to refuse it. */
function validate({ id }: Principal, cmd: Uint8Array): string | undefined {
  // On an empty machine, the rows that are there afterwards are those it writes.
  const machine = new KVStateMachine();
  machine.update(cmd);
  const [row] = machine.lookup(kv.range()) as KVRow[];
  // Written again, one row must be the same command: no deletion comes with it.
  const isOneRow = row !== undefined &&
    `${kv.put(row.key, row.value)}` === `${cmd}`;
  const isOwn = isOneRow &&
    new TextDecoder().decode(row.key).startsWith(`${id}/`);
  return isOwn ? undefined : `You are ${id}, and write under that name only`;
}

// The page needs no bundler of its own: it imports the bundle of a release.
const PAGE = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Guest book</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="style.css">
  </head>
  <body>
    <main>
      <header><h1>Guest book</h1><span id="state" role="status"></span></header>
      <form id="login" hidden>
        <input name="name" aria-label="Your name" placeholder="Your name" autocomplete="name" required>
        <button type="submit">Log in</button>
      </form>
      <form id="write" hidden>
        <input name="text" aria-label="Your words" autocomplete="off" required>
        <button type="submit">Write</button>
        <button type="button" id="logout">Log out</button>
      </form>
      <ul id="notes"></ul>
      <p id="waiting" role="status"></p>
      <p id="problem" role="alert"></p>
    </main>
    <script type="module">
    import {
      deviceID, IndexedDBKVStateMachine, IndexedDBOutbox, IndexedDBSnapshotStore,
      kv, NodeHost, RemoteLogDB,
    } from "./sampan-sync.js";

    const element = (id) => document.getElementById(id);
    const text = (bytes) => new TextDecoder().decode(bytes);
    const report = (error) => element("problem").textContent = error.message;

    element("login").onsubmit = async (event) => {
      event.preventDefault();
      const form = new FormData(element("login"));
      const response = await fetch("login", { method: "POST", body: form });
      if (!response.ok) return report(new Error(await response.text()));
      localStorage.setItem("name", form.get("name").trim());
      localStorage.setItem("token", await response.text());
      location.reload();
    };

    async function showGuestBook(name) {
      const logDB = new RemoteLogDB(location.origin.replace("http", "ws"), {
        // Asked with each attempt to connect, and before a token expires.
        token: () => localStorage.getItem("token"),
      });
      const host = new NodeHost({
        logDB,
        principal: name, // whose edits these are: no one else's page sends them
        outbox: new IndexedDBOutbox("jwt-outbox"),
        snapshots: new IndexedDBSnapshotStore("jwt-snapshots"),
      });
      const replica = await host.startOnDiskCluster(
        () => new IndexedDBKVStateMachine("jwt-state"),
        { clusterID: 1n, nodeID: await deviceID() },
      );

      const notes = replica.watch(kv.range());
      const show = () => {
        element("notes").replaceChildren(...(notes.getSnapshot() ?? []).map(({ key, value }) => {
          const line = document.createElement("li");
          line.textContent = text(key).split("/")[0] + ": " + text(value);
          return line;
        }));
        const { state } = logDB;
        element("state").textContent = element("state").dataset.state = state;
        element("login").hidden = state !== "needs-auth";
        element("write").hidden = state === "needs-auth";
        const waiting = replica.pending().length;
        element("waiting").textContent = waiting === 0
          ? "Everything is sent"
          : "Waiting to be sent: " + waiting;
      };
      notes.subscribe(show);
      replica.onPending(show);
      logDB.watch(show);
      show();

      element("write").onsubmit = (event) => {
        event.preventDefault();
        const key = name + "/" + Date.now() + "-" + crypto.randomUUID();
        const words = new FormData(element("write")).get("text");
        element("write").reset();
        replica.submit(kv.put(key, words)).catch(report);
      };
      element("logout").onclick = async () => {
        // Removes what is kept here; refused while something is not sent.
        await host.leave();
        localStorage.clear();
        location.reload();
      };
    }

    addEventListener("unhandledrejection", ({ reason }) => report(reason));
    const name = localStorage.getItem("name");
    if (name === null) element("login").hidden = false;
    else await showGuestBook(name);
    </script>
  </body>
</html>
`;

const style = await Deno.readTextFile(new URL("style.css", import.meta.url));
// The bundle of a release is this very module: `deno task build` writes it.
const { code } = await bundle({
  name: "sampan-sync",
  text: `export * from "@sampan/sampan";
    export * from "@sampan/sampan/indexeddb";
    export * from "@sampan/sampan/sync/client";`,
});
await stopBundler();
const sampan = new TextDecoder().decode(code);

/** Answers requests for anything but the cluster itself. */
function answer(request: Request): Response | Promise<Response> {
  const file = (content: BodyInit, type: string): Response =>
    new Response(content, { headers: { "content-type": type } });
  switch (new URL(request.url).pathname) {
    case "/":
      return file(PAGE, "text/html; charset=utf-8");
    case "/style.css":
      return file(style, "text/css; charset=utf-8");
    case "/sampan-sync.js":
      return file(sampan, "text/javascript; charset=utf-8");
    case "/login":
      return logIn(request);
    default:
      return new Response("Not found", { status: 404 });
  }
}

await using host = new NodeHost({
  logDB: data.logDB,
  snapshots: data.snapshots,
});
await host.startCluster(() => new KVStateMachine(), {
  clusterID: 1n,
  nodeID: 1n,
  snapshotEntries: 1000,
});
const server = serve(host, {
  port: Number(values.port),
  authenticate,
  validate,
  fetch: answer,
});
Deno.stdout.writeSync(
  new TextEncoder().encode(`Serving a guest book at ${server.httpURL}\n`),
);
await server.finished;
