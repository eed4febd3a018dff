import { assert, assertEquals } from "@std/assert";
import { freePort } from "../../web/free_ports.ts";
import { sleep, WAIT_MS_MAX } from "../sync/server_process.ts";
import { type Browser, launch, type Page, removeFolder } from "./browser.ts";

const SERVER = new URL("../app/server.ts", import.meta.url).href;
const CALL_MS_MAX = 30_000;

/** Process that runs the server of the app. */
class AppServer {
  readonly #data: string;
  #child: Deno.ChildProcess | undefined;
  url = "";

  constructor(data: string) {
    this.#data = data;
  }

  async start(): Promise<void> {
    const port = this.url === "" ? `${freePort()}` : new URL(this.url).port;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", "--quiet", SERVER, port, this.#data],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#child = child;
    const reader = child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
    const { value } = await reader.read();
    this.url = /At (http\S+)/.exec(value ?? "")![1]!;
    await reader.cancel();
  }

  async stop(): Promise<void> {
    this.#child?.kill("SIGTERM");
    await this.#child?.status;
    this.#child = undefined;
  }
}

/** Visible state of the board. */
interface Seen {
  readonly state: string;
  readonly cards: readonly string[];
  readonly refused: readonly string[];
  readonly pending: string;
}

/** A person in front of the app. */
class Person {
  readonly #page: Page;

  constructor(page: Page) {
    this.#page = page;
  }

  async #do(script: string, ...args: unknown[]): Promise<unknown> {
    return await this.#page.evaluate(
      `((${script})(...${JSON.stringify(args)}))`,
      CALL_MS_MAX,
    );
  }

  async look(): Promise<Seen> {
    return await this.#do(`() => ({
      state: document.getElementById("state").textContent,
      cards: [...document.querySelectorAll("#cards li")].map((li) =>
        li.querySelector("input").value + ": " + li.querySelector("select").value),
      refused: [...document.querySelectorAll("#refused li")].map((li) =>
        li.firstChild.textContent),
      pending: document.body.dataset.pending ?? "",
    })`) as Seen;
  }

  async until(what: string, is: (seen: Seen) => boolean): Promise<Seen> {
    for (let waited = 0;; waited += 20) {
      // Evaluation fails while the page loads.
      const seen = await this.look().catch(() => undefined);
      if (seen !== undefined && is(seen)) return seen;
      assert(waited < WAIT_MS_MAX / 4, `${what}: ${JSON.stringify(seen)}`);
      await sleep(20);
    }
  }

  async logIn(name: string): Promise<void> {
    await this.until("a login", ({ state }) => state === "needs-auth");
    await this.#do(
      `(name) => {
        const form = document.getElementById("login");
        form.elements.name.value = name;
        setTimeout(() => form.requestSubmit());
      }`,
      name,
    );
    await this.until("logged in", ({ state }) => state === "live");
  }

  async add(title: string): Promise<void> {
    await this.#do(
      `(title) => {
        document.getElementById("title").value = title;
        document.getElementById("add").requestSubmit();
      }`,
      title,
    );
    await this.until(
      `added ${title}`,
      ({ cards }) => cards.some((card) => card.startsWith(`${title}:`)),
    );
  }

  /** Renames or moves the card of that title. */
  async change(
    title: string,
    field: "input" | "select",
    value: string,
  ): Promise<void> {
    await this.#do(
      `(title, field, value) => {
        const line = [...document.querySelectorAll("#cards li")]
          .find((li) => li.querySelector("input").value === title);
        line.querySelector(field).value = value;
        line.querySelector(field).dispatchEvent(new Event("change"));
      }`,
      title,
      field,
      value,
    );
    const shown = field === "input" ? `${value}:` : `${title}: ${value}`;
    await this.until(
      shown,
      ({ cards }) => cards.some((card) => card.startsWith(shown)),
    );
  }

  async reload(): Promise<void> {
    await this.#page.reload();
  }
}

Deno.test({
  name:
    "H20 R15 U18 an app with a machine of its own, a cookie login and a rule about state works offline in two browsers",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const folder = await Deno.makeTempDir({ prefix: "app-" });
    const server = new AppServer(`${folder}/data`);
    const browsers: Browser[] = [];
    try {
      await server.start();
      const people: Person[] = [];
      for (const engine of ["Chromium", "Firefox"] as const) {
        const browser = await launch(engine);
        browsers.push(browser);
        people.push(new Person(await browser.open(server.url)));
      }
      const [ann, bob] = people as [Person, Person];
      await ann.logIn("Ann");
      await bob.logIn("Bob");
      await ann.add("rice");
      await bob.until("rice", ({ cards }) => cards[0] === "rice: todo");
      await bob.change("rice", "select", "doing");
      await ann.until("doing", ({ cards }) => cards[0] === "rice: doing");

      await server.stop();
      await ann.until("offline", ({ state }) => state !== "live");
      await bob.until("offline", ({ state }) => state !== "live");
      // One card, added, renamed and moved before the server has seen it.
      await ann.add("fsh");
      await ann.change("fsh", "input", "fish");
      await ann.change("fish", "select", "doing");
      await bob.add("tea");
      await bob.change("tea", "select", "doing");
      await server.start();

      // The server allows one of the two edits.
      const done = ({ cards, pending, state }: Seen): boolean =>
        state === "live" && pending === "0" && cards.length === 3;
      const seen = [await ann.until("all", done), await bob.until("all", done)];
      assertEquals([...seen[0]!.cards].sort(), [...seen[1]!.cards].sort());
      const doing = seen[0]!.cards.filter((card) => card.endsWith(": doing"));
      assertEquals(doing.length, 2, seen[0]!.cards.join(", "));
      assert(seen[0]!.cards.some((card) => card.startsWith("fish:")));
      const refused = seen.flatMap(({ refused }) => refused);
      assertEquals(refused, ["Two cards are being done already"]);

      // The device whose edit was rejected still shows the rejection after a
      // reload.
      const loser = seen[0]!.refused.length > 0 ? ann : bob;
      await loser.reload();
      const again = await loser.until("again", done);
      assertEquals(again.refused, refused);
    } finally {
      for (const browser of browsers) await browser.close();
      await server.stop();
      await removeFolder(folder);
    }
  },
});
