import { assert, assertEquals } from "@std/assert";
import { COMMAND_BYTES_MAX } from "../../src/limits.ts";
import { kv, type KVRow, KVStateMachine } from "../../mod.ts";
import {
  ALL,
  type Item,
  itemsOf,
  newKey,
  refusalOf,
  remove,
  TEXT_LENGTH_MAX,
  write,
} from "../../web/app/list.ts";

function itemOf(text: string): Item {
  return { key: newKey(), text, done: false };
}

Deno.test("U18 the list limits an item by its characters, not by its bytes", () => {
  for (const letter of ["a", "ä", "字", "😀", '"']) {
    const most = itemOf(letter.repeat(TEXT_LENGTH_MAX));
    assertEquals(refusalOf(write(most)), undefined, letter);
    const more = itemOf(letter.repeat(TEXT_LENGTH_MAX + 1));
    assert(refusalOf(write(more))?.includes(`${TEXT_LENGTH_MAX}`), letter);
  }
  assertEquals(refusalOf(remove(itemOf(""))), undefined);
});

Deno.test("U17 the list refuses what no page could show", () => {
  const put = (key: string, value: string): Uint8Array => kv.put(key, value);
  const json = JSON.stringify({ text: "a", done: false });
  for (
    const cmd of [
      new Uint8Array(),
      new Uint8Array([0x11]),
      new Uint8Array(COMMAND_BYTES_MAX),
      put("elsewhere", json),
      put("item/a", "{no json"),
      put("item/a", "null"),
      put("item/a", "[]"),
      put("item/a", '{"text":1,"done":false}'),
      put("item/a", '{"text":"a"}'),
      put(`item/${"a".repeat(200)}`, json),
      put("item/a", `${json}${" ".repeat(10_000)}`),
      kv.compareAndSwap("item/a", json, "{no json"),
      kv.batch([put("item/a", "{no json")]),
      kv.delete("elsewhere"),
    ]
  ) assert(refusalOf(cmd) !== undefined, new TextDecoder().decode(cmd));
});

Deno.test("U17 a row that is not an item does not hide the others", () => {
  const machine = new KVStateMachine();
  const items = [itemOf("a"), itemOf("b")];
  for (const item of items) machine.update(write(item));
  // Stored before such items were refused, or by another program.
  for (const value of ["", "{no json", "null", '{"text":1,"done":false}']) {
    machine.update(kv.put(`item/${value}`, value));
  }
  const rows = machine.lookup(ALL) as KVRow[];
  assertEquals(rows.length, 6);
  assertEquals(
    itemsOf(rows),
    items.toSorted((a, b) => a.key < b.key ? -1 : 1),
  );
});
