import { assert, assertEquals } from "@std/assert";
import { WAIT_MS_MAX } from "../sync/kill.ts";
import { type Browser, launch, type Page, removeFolder } from "./browser.ts";

const ROOT = new URL("../../", import.meta.url);

/** Files of the section "Five minutes" of the README, by name. */
async function quickStart(): Promise<Map<string, string>> {
  const readme = await Deno.readTextFile(new URL("README.md", ROOT));
  const from = readme.indexOf("## Five minutes");
  const section = readme.slice(from, readme.indexOf("\n## ", from + 1));
  return new Map(
    [...section.matchAll(
      /`my-app\/([\w.]+)`[^\n]*\n\n```\w+(?: ignore)?\n([\s\S]*?)```/g,
    )].map(([, name, text]) => [name!, text!]),
  );
}

async function bundle(app: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "bundle",
      "--check",
      "--platform",
      "browser",
      "--output",
      `${app}/page.js`,
      `${app}/page.ts`,
    ],
    cwd: ROOT,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** Starts the server of the quick start; resolves to its process and its address. */
async function serve(
  app: string,
  port: string,
): Promise<{ child: Deno.ChildProcess; url: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--check", "--allow-all", `${app}/server.ts`, port],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return { child, url: /Open (\S+)/.exec(value ?? "")![1]! };
}

/** A person in front of the page. */
class Person {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  async add(text: string): Promise<void> {
    await this.#page.evaluate(
      `(() => {
        document.querySelector("input").value = ${JSON.stringify(text)};
        document.forms[0].requestSubmit();
      })()`,
      WAIT_MS_MAX,
    );
  }

  /** Waits until the page shows these items and its status begins with that. */
  async until(items: readonly string[], status: string): Promise<void> {
    let seen: unknown;
    for (let waited = 0; waited < WAIT_MS_MAX / 4; waited += 50) {
      seen = await this.#page.evaluate(
        `[document.querySelector("output").value,
          [...document.querySelectorAll("li")].map((li) => li.textContent).sort()]`,
        WAIT_MS_MAX,
      );
      const [said, shown] = seen as [string, string[]];
      if (said.startsWith(status) && shown.join() === items.join()) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assertEquals(seen, [status, items]);
  }
}

Deno.test("the quick start of the README is two pages that edit offline and agree once the server is back", async () => {
  await Deno.mkdir(new URL(".cache/", ROOT), { recursive: true });
  const app = await Deno.makeTempDir({
    dir: new URL(".cache/", ROOT).pathname,
    prefix: "my-app-",
  });
  let browser: Browser | undefined;
  let server: Deno.ChildProcess | undefined;
  try {
    for (const [name, text] of await quickStart()) {
      await Deno.writeTextFile(`${app}/${name}`, text);
    }
    await bundle(app);
    const started = await serve(app, "0");
    server = started.child;
    browser = await launch("Chromium");
    const people: Person[] = [];
    // To a browser, these are two devices.
    for (const name of ["localhost", "127.0.0.1"]) {
      const url = started.url.replace("127.0.0.1", name);
      people.push(new Person(await browser.open(url)));
    }
    const [ada, bob] = people as [Person, Person];
    await ada.until([], "live");
    await ada.add("apples");
    await bob.until(["apples"], "live, 0 edits");

    server.kill("SIGTERM");
    await server.status;
    await ada.add("bread");
    await bob.add("cheese");
    await ada.until(["apples", "bread"], "offline, 1 edits");
    await bob.until(["apples", "cheese"], "offline, 1 edits");

    ({ child: server } = await serve(app, new URL(started.url).port));
    for (const person of people) {
      await person.until(["apples", "bread", "cheese"], "live, 0 edits");
    }
  } finally {
    await browser?.close();
    server?.kill("SIGTERM");
    await server?.status;
    await removeFolder(app);
  }
});
