import { assertEquals } from "@std/assert";
import { ByteReader, ByteWriter } from "../../src/bytes.ts";
import {
  Directory,
  indexOf,
  type Install,
  readInstalls,
  type Ref,
  writeInstalls,
} from "../../src/kv/packed/directory.ts";
import { viewOf } from "../../src/kv/view.ts";
import { random } from "./util.ts";

function keyOf(i: number): DataView {
  return viewOf(i === 0 ? new Uint8Array() : Uint8Array.of(i));
}

/** Returns the page of each of 256 keys. */
function pages(directory: Directory, space: number): number[] {
  return Array.from({ length: 256 }, (_, i) => {
    const key = keyOf(i);
    const entries = directory.spaces[space]!;
    return entries[indexOf(entries, key, 0, key.byteLength)]!.ref.id;
  });
}

Deno.test("D5 Directory.install() replaces a range by a page and reports the pages that are no longer referenced", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = random(seed);
  const freed = new Set<number>();
  const directory = new Directory(({ id }) => freed.add(id));
  const model = [new Array(256).fill(0), new Array(256).fill(0)];
  const installs: Install[] = [];
  for (let id = 1; id < 400; id++) {
    const space = next(2);
    const from = next(256);
    const to = next(4) === 0 ? 256 : from + 1 + next(256 - from);
    const ref: Ref = { id, crc: id, size: 1, seq: id, uses: 0, written: true };
    const install = {
      space,
      from: keyOf(from),
      to: to === 256 ? undefined : keyOf(to),
      ref,
    };
    installs.push(install);
    directory.install(install);
    model[space]!.fill(id, from, to);
    for (const  of of[0, 1]) {
      assertEquals(pages(directory, of), model[of], `Seed ${seed}`);
    }
    const named = new Set(model.flat());
    for (let old = 1; old <= id; old++) {
      assertEquals(
        freed.has(old),
        !named.has(old),
        `Seed ${seed}, page ${old}`,
      );
    }
    assertEquals(directory.bytes, [...named].filter((id) => id > 0).length);
  }
  const whole = new ByteWriter();
  directory.write(whole);
  const copy = new Directory(() => {});
  copy.read(new ByteReader(whole.finish()));
  assertEquals(pages(copy, 0), model[0]);
  const changes = new ByteWriter();
  writeInstalls(changes, installs);
  const replayed = new Directory(() => {});
  for (const install of readInstalls(new ByteReader(changes.finish()))) {
    replayed.install(install);
  }
  assertEquals(pages(replayed, 1), model[1]);
  assertEquals(replayed.bytes, directory.bytes);
});
