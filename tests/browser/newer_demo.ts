/**
 * Newer code of the demo: a copy of its server and of its page with one command more.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);
const WEB = new URL("web/", ROOT);

/** Changes of files, each a text and what is in its place. */
const CHANGES: Readonly<Record<string, readonly [string, string][]>> = {
  "start.ts": [
    ['"./page.ts"', '"../web/page.ts"'],
    ['"./etcd_log.ts"', '"../web/etcd_log.ts"'],
    [
      "demoFiles(undefined, peers)",
      'demoFiles(new URL("app/", import.meta.url), peers)',
    ],
  ],
  "app/device.ts": [["const CODE = 1;", "const CODE = 2;"]],
  "app/board.ts": [[
    "    // Final: there is no inverse.",
    `    star: {
      args: v.object({ id }),
      run: ({ cards }, { id }) => {
        const card = cards.get(id);
        if (card !== undefined) cards.set(id, { ...card, text: "★" + card.text });
      },
    },
    // Final: there is no inverse.`,
  ]],
  "app/board_moves.ts": [[
    '      case "n":',
    `      case "s":
        actions.run(actions.do.star({ id: card.id }), card.id);
        return true;
      case "n":`,
  ]],
};

/** Newer code in a folder of its own. */
export class NewerDemo implements AsyncDisposable {
  readonly #folder: URL;

  private constructor(folder: URL) {
    this.#folder = folder;
  }

  /** Writes the newer code. */
  static async write(): Promise<NewerDemo> {
    const folder = new URL(`.cache/newer-${crypto.randomUUID()}/`, ROOT);
    await Deno.mkdir(new URL("app/", folder), { recursive: true });
    const changed = new Set<string>();
    const copy = async (name: string): Promise<void> => {
      const file = new URL(name, WEB);
      if (!name.endsWith(".ts")) {
        return await Deno.copyFile(file, new URL(name, folder));
      }
      let text = await Deno.readTextFile(file);
      for (const [old, next] of CHANGES[name] ?? []) {
        assert(text.includes(old), `${name} has no ${old}`);
        text = text.replace(old, next);
        changed.add(name);
      }
      // One folder deeper than the files it is a copy of.
      const out = name.startsWith("app/") ? "../../" : "../";
      text = text.replaceAll(`"${out}`, `"../${out}`);
      await Deno.writeTextFile(new URL(name, folder), text);
    };
    for (const name of ["start.ts", "boards.ts", "presence.ts"]) {
      await copy(name);
    }
    for await (const { name } of Deno.readDir(new URL("app/", WEB))) {
      await copy(`app/${name}`);
    }
    assert(changed.size === Object.keys(CHANGES).length);
    return new NewerDemo(folder);
  }

  /** Path of the server's program, relative to `tests`. */
  get program(): string {
    return `../${this.#folder.href.slice(ROOT.href.length)}start.ts`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true });
  }
}
