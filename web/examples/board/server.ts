import { jwtVerify, SignJWT } from "jose";
import { NodeHost } from "@sampan/sampan";
import { DataFolder } from "@sampan/sampan/sqlite";
import { serve } from "@sampan/sampan/sync/server";
import { pageFiles, servePage } from "../../page.ts";
import { board } from "./machine.ts";

const key = new TextEncoder().encode(Deno.env.get("BOARD_KEY") ?? "a secret");
const html = await Deno.readTextFile(new URL("index.html", import.meta.url));
const page = servePage(
  await pageFiles(html, { text: 'import "./web/examples/board/page.ts"' }),
);

async function logIn(request: Request): Promise<Response> {
  const sub = `${(await request.formData()).get("name")}`; // your own looks at a password
  const login = await new SignJWT({ sub })
    .setProtectedHeader({ alg: "HS256" }).sign(key);
  const cookie = `login=${login}; HttpOnly; SameSite=Strict; Max-Age=999999`;
  const headers = { location: "./", "set-cookie": cookie };
  return new Response(null, { status: 303, headers });
}

const [folder = "data/board", port = "8008"] = Deno.args;
const { logDB, snapshots } = await DataFolder.open(folder);
const host = new NodeHost({ logDB, snapshots });
await host.startConcurrentCluster(board.create, { clusterID: 1n, nodeID: 1n });
serve(host, {
  port: Number(port),
  validate: board.validate,
  authenticate: async ({ headers }) => {
    const login = headers.get("cookie")?.split("login=")[1] ?? "";
    const token = await jwtVerify(login, key).catch(() => undefined);
    return token && { id: token.payload.sub! };
  },
  fetch: (request) =>
    request.method === "POST" ? logIn(request) : page(request),
});
