import { assertEquals, assertRejects } from "@std/assert";
import { install, missing } from "./install.ts";

const PROGRAMS = ["chromium", "firefox-esr", "WebKitWebDriver", "Xvfb"];

/** Runs `body` in a folder in which `apt-get` is a script with that text. */
async function withApt(
  apt: string | undefined,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    if (apt !== undefined) {
      await Deno.writeTextFile(
        `${folder}/apt-get`,
        `#!/bin/sh\ncd ${folder}\necho "$@" >> calls\n${apt}\n`,
        { mode: 0o755 },
      );
    }
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const isRoot = Deno.uid() === 0;

Deno.test({
  name: "install() has apt-get install what is missing, and says one line",
  ignore: !isRoot,
  fn: () =>
    withApt(`: > ${PROGRAMS.slice(1).join("; : > ")}`, async (folder) => {
      await Deno.writeTextFile(`${folder}/chromium`, "");
      const said: string[] = [];
      await install((line) => said.push(line), folder);
      assertEquals(said, [
        "Installing what the browser tests need: firefox-esr webkit2gtk-driver xvfb",
      ]);
      assertEquals(missing(folder), []);
      assertEquals(
        await Deno.readTextFile(`${folder}/calls`),
        [
          "-qq update",
          "-qq install --yes --no-install-recommends firefox-esr webkit2gtk-driver xvfb",
          "",
        ].join("\n"),
      );
      // With every program installed it does nothing and prints nothing.
      await install((line) => said.push(line), folder);
      assertEquals(said.length, 1);
    }),
});

Deno.test({
  name: "install() says what apt-get says when that fails",
  ignore: !isRoot,
  fn: () =>
    withApt("echo no network >&2; exit 100", async (folder) => {
      const error = await assertRejects(
        () => install(() => {}, folder),
        Error,
        "(apt-get says: no network)",
      );
      assertEquals(error.message.split("\n").length, 1);
    }),
});

Deno.test("install() says in one line what is missing where there is no apt-get", () =>
  withApt(undefined, async (folder) => {
    const said: string[] = [];
    const { message } = await assertRejects(
      () => install((line) => said.push(line), folder),
      Error,
    );
    assertEquals([said.length, message.split("\n").length], [0, 1]);
    assertEquals(
      message,
      "The browser tests need what Debian has as chromium firefox-esr " +
        "webkit2gtk-driver xvfb; install that, or do without it: deno task test:unit",
    );
  }));
