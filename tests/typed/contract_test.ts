import { checkConcurrentStateMachine } from "../../src/testing/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { encodePlain } from "../../src/typed/plain.ts";
import { board } from "./board.ts";

function command(name: string, args: unknown): Uint8Array {
  const seed = new Uint8Array(16).fill(name.length);
  return encodeCommand({
    name,
    version: 1,
    at: 1,
    by: null,
    seed,
    args: args as never,
  });
}

Deno.test("C6 a typed machine keeps the contract [Y4, Y8]", async () => {
  await checkConcurrentStateMachine({
    create: board.create,
    commands: [
      command("add", { id: "1", text: "rice", list: "todo" }),
      command("add", { id: "2", text: "tea", list: "todo" }),
      command("move", { id: "1", list: "done" }),
      command("remove", { id: "2" }),
      command("rename", { title: "shop" }),
      command("draw", {}),
      command("crash", "x"),
      new Uint8Array([7]),
    ],
    queries: [
      { name: "list", args: ["todo"] },
      { name: "ids", args: [] },
      { name: "title", args: [] },
    ],
    naQueries: [encodePlain(["ids"]), encodePlain(["list", "todo"])],
  });
});
