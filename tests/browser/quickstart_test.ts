import { assert, assertEquals } from "@std/assert";
import { freePort } from "../../web/free_ports.ts";
import { WAIT_MS_MAX } from "../sync/server_process.ts";
import { type Browser, launch, type Page, removeFolder } from "./browser.ts";

const ROOT = new URL("../../", import.meta.url);

/** Files of the folder `my-app` that a page of the documentation contains, by name. */
async function appFiles(page: string): Promise<Map<string, string>> {
  const text = await Deno.readTextFile(new URL(page, ROOT));
  return new Map(
    [...text.matchAll(
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

  /** Items that the page shows, in alphabetical order. */
  async shown(): Promise<string[]> {
    return await this.#page.evaluate(
      `[...document.querySelectorAll("li")].map((li) => li.textContent).sort()`,
      WAIT_MS_MAX,
    ) as string[];
  }

  /** Waits until the page's status begins with this and it shows these items, or any if there are none given. */
  async until(
    items: readonly string[] | undefined,
    status: string,
  ): Promise<void> {
    let seen: unknown;
    for (let waited = 0; waited < WAIT_MS_MAX / 4; waited += 50) {
      const said = await this.#page.evaluate(
        `document.querySelector("output").value`,
        WAIT_MS_MAX,
      ) as string;
      const shown = await this.shown();
      const isShown = items === undefined || shown.join() === items.join();
      if (said.startsWith(status) && isShown) return;
      seen = [said, shown];
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assertEquals(seen, [status, items]);
  }

  /** Waits until the service worker can open the page without a network. */
  async canReload(): Promise<void> {
    await this.#page.evaluate(
      "navigator.serviceWorker.ready.then(() => true)",
      WAIT_MS_MAX,
    );
  }

  async reload(): Promise<void> {
    await this.#page.reload();
  }
}

/** Writes these files, and calls `use` with their folder and a browser. */
async function withApp(
  files: ReadonlyMap<string, string>,
  use: (app: App) => Promise<void>,
): Promise<void> {
  await Deno.mkdir(new URL(".cache/", ROOT), { recursive: true });
  const folder = await Deno.makeTempDir({
    dir: new URL(".cache/", ROOT).pathname,
    prefix: "my-app-",
  });
  const app = new App(folder);
  try {
    for (const [name, text] of files) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    await bundle(folder);
    await app.start();
    await use(app);
  } finally {
    await app.close();
    await removeFolder(folder);
  }
}

/** Server of an application, and two devices that have its page open. */
class App {
  readonly #folder: string;
  #browser: Browser | undefined;
  #server: Deno.ChildProcess | undefined;
  #url: string | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Starts the server, on the same port as before. */
  async start(): Promise<void> {
    const port = this.#url === undefined
      ? `${freePort()}`
      : new URL(this.#url).port;
    ({ child: this.#server, url: this.#url } = await serve(this.#folder, port));
  }

  async stop(): Promise<void> {
    this.#server?.kill("SIGTERM");
    await this.#server?.status;
    this.#server = undefined;
  }

  /**
   * Opens the page under two host names: the browser treats them as two
   * devices.
   */
  async open(): Promise<[Person, Person]> {
    this.#browser ??= await launch("Chromium");
    const people: Person[] = [];
    for (const name of ["localhost", "127.0.0.1"]) {
      const url = this.#url!.replace("127.0.0.1", name);
      people.push(new Person(await this.#browser.open(url)));
    }
    return people as [Person, Person];
  }

  async close(): Promise<void> {
    await this.#browser?.close();
    await this.stop();
  }
}

Deno.test("the quick start of the README is two pages that edit and reload offline, and agree once the server is back", async () => {
  await withApp(await appFiles("README.md"), async (app) => {
    const [ada, bob] = await app.open();
    await ada.until([], "live");
    await ada.add("apples");
    await bob.until(["apples"], "live, 0 edits");
    await ada.canReload();

    await app.stop();
    await ada.add("bread");
    await bob.add("cheese");
    await ada.until(["apples", "bread"], "offline, 1 edits");
    await bob.until(["apples", "cheese"], "offline, 1 edits");
    await ada.reload();
    // Edits committed in the last second before a reload may be pending again.
    await ada.until(["apples", "bread"], "offline, ");

    await app.start();
    for (const person of [ada, bob]) {
      await person.until(["apples", "bread", "cheese"], "live, 0 edits");
    }
  });
});

Deno.test("the machine of the guide in the quick start's page gives a seat that two people book offline to one of them", async () => {
  const files = await appFiles("README.md");
  for (const file of await appFiles("web/guide/your-own-machine.md")) {
    files.set(...file);
  }
  const server = files.get("server.ts")!;
  files.set(
    "server.ts",
    'import { Seats } from "./seats.ts";\n' +
      server.replace("KVStateMachine, ", "")
        .replace("new KVStateMachine()", "new Seats()"),
  );
  await withApp(files, async (app) => {
    const [ada, bob] = await app.open();
    await ada.until([], "live");
    await bob.until([], "live");
    await bob.canReload();
    await app.stop();
    await ada.add("A1");
    await bob.add("A1");
    await ada.until(["A1: localhost"], "offline, 1 edits");
    await bob.until(["A1: 127.0.0.1"], "offline, 1 edits");
    await bob.reload();
    await bob.until(["A1: 127.0.0.1"], "offline, 1 edits");

    await app.start();
    await ada.until(undefined, "live, 0 edits");
    await bob.until(undefined, "live, 0 edits");
    const refusal = [...await ada.shown(), ...await bob.shown()]
      .find((item) => item.includes("has that seat"))!;
    const winner = refusal.split(" ")[0];
    const [first, second] = winner === "localhost" ? [ada, bob] : [bob, ada];
    await first.until([`A1: ${winner}`], "live, 0 edits");
    await second.until([`A1: ${winner}`, refusal].sort(), "live, 0 edits");
  });
});
