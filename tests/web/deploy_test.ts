import { assert, assertEquals } from "@std/assert";
import { capacity } from "../bench/capacity.ts";
import { withoutEtcd } from "../etcd/nodes.ts";
import { program } from "../browser/install.ts";
import { newSeed, random } from "../support/random.ts";

const ROOT = new URL("../../", import.meta.url);
const GUIDE = new URL("web/guide/", ROOT);
const DEPLOY = new URL("deploy/", GUIDE);

const UNITS = ["sampan-etcd.service", "sampan-server.service"];

function read(path: string, base: URL = DEPLOY): string {
  return Deno.readTextFileSync(new URL(path, base));
}

/** Cells of the tables in a text of Markdown. */
function cells(text: string): string[][] {
  return text.split("\n").filter((line) =>
    line.startsWith("|") && !/^[|\s:-]+$/.test(line)
  ).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

Deno.test("the guide has the tables that the capacity model prints", () => {
  const page = cells(read("etcd.md", GUIDE)).map((row) => row.join("|"));
  const printed = cells(capacity()).map((row) => row.join("|"));
  const from = page.indexOf(printed[0]!);
  assertEquals(
    page.slice(from, from + printed.length),
    printed,
    "Copy what `deno run tests/bench/capacity.ts` prints into web/guide/etcd.md",
  );
});

Deno.test("the guide shows the compose file and the units as they are", () => {
  const page = read("etcd.md", GUIDE);
  for (const name of ["compose.yaml", "node.env", ...UNITS]) {
    assert(page.includes(`\n${read(name)}\`\`\``), `Copy ${name} into it`);
  }
});

/** Service of the compose file. */
interface Service {
  readonly name: string;
  readonly command: readonly string[];
  readonly dependsOn: readonly string[];
  readonly volumes: readonly string[];
  readonly ports: readonly string[];
}

/** Lists of the services in a compose file that is indented by two spaces. */
function servicesOf(text: string): { services: Service[]; volumes: string[] } {
  const part = (name: string): string =>
    new RegExp(`^${name}:\n((?:(?:  .*)?\n)*)`, "m").exec(text)![1]!;
  const list = (body: string, key: string): string[] => {
    const found = new RegExp(`^ +${key}:\n((?: +- .*\n)*)`, "m").exec(body);
    return [...(found?.[1] ?? "").matchAll(/- "?(.*?)"?\n/g)]
      .map(([, one]) => one!);
  };
  const shared = new Map(
    [...text.matchAll(/^x-\w+: &(\w+)\n((?:(?: {2}.*)?\n)*)/gm)]
      .map(([, name, body]) => [name!, body!]),
  );
  const services = [
    ...part("services").matchAll(/^ {2}(\w+):\n((?:(?: {4}.*)?\n)*)/gm),
  ].map(([, name, body]) => {
    const base = shared.get(/<<: \*(\w+)/.exec(body!)?.[1] ?? "") ?? "";
    return {
      name: name!,
      command: list(body!, "command"),
      dependsOn: list(base, "depends_on"),
      volumes: list(body!, "volumes"),
      ports: list(body!, "ports"),
    };
  });
  const volumes = [...part("volumes").matchAll(/^ {2}(\w+):/gm)]
    .map(([, name]) => name!);
  return { services, volumes };
}

Deno.test("the compose file names only what it has, and no port twice", () => {
  const { services, volumes } = servicesOf(read("compose.yaml"));
  const names = services.map(({ name }) => name);
  assertEquals(
    names,
    ["etcd1", "etcd2", "etcd3", "server1", "server2", "server3"],
  );
  for (const { name, command, dependsOn, volumes: mounts } of services) {
    for (const one of dependsOn) assert(names.includes(one), `${name}: ${one}`);
    for (const mount of mounts) {
      const [source] = mount.split(":");
      if (source!.startsWith(".")) {
        assertEquals(new URL(`${source}/`, DEPLOY).href, ROOT.href);
      } else assert(volumes.includes(source!), `${name}: ${mount}`);
    }
    for (const [, host] of command.join(" ").matchAll(/\/\/(etcd\d)/g)) {
      assert(names.includes(host!), `${name}: ${host}`);
    }
  }
  const ports = services.flatMap(({ ports }) => ports);
  assertEquals(new Set(ports).size, 3);
});

/** Addresses of loopback that no other test uses, for three machines. */
function machines(): string[] {
  const next = random(newSeed());
  const part = (): number => 1 + Math.floor(next() * 250);
  const net = `127.${part()}.${part()}`;
  return [`${net}.1`, `${net}.2`, `${net}.3`];
}

/** Command line that is run as a process. */
interface Command {
  readonly program: string;
  readonly args: readonly string[];
}

/** Runs commands until every server among them is well; ends them. */
async function runUntilWell(
  commands: readonly Command[],
  urls: readonly string[],
): Promise<void> {
  const children = commands.map(({ program, args }) =>
    new Deno.Command(program, {
      args: [...args],
      cwd: ROOT,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn()
  );
  try {
    for (const url of urls) {
      for (let waited = 0;; waited += 250) {
        const answer = await fetch(url).then(
          (response) => response.json(),
          () => undefined,
        ) as { status?: string } | undefined;
        if (answer?.status === "ok") break;
        assert(waited < 120_000, `${url}: ${JSON.stringify(answer)}`);
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
  } finally {
    for (const child of children.reverse()) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await child.status;
    }
  }
}

/** Defines a test that runs etcd on several addresses of loopback. */
function testDeploy(name: string, fn: (folder: string) => Promise<void>): void {
  const reason = withoutEtcd() ??
    (Deno.build.os === "linux"
      ? undefined
      : "loopback has one address outside Linux");
  Deno.test({
    name: reason === undefined ? name : `${name}: skipped, ${reason}`,
    ignore: reason !== undefined,
    async fn(): Promise<void> {
      const folder = await Deno.makeTempDir({ prefix: "deploy-" });
      try {
        await fn(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

testDeploy(
  "the commands of the compose file start three nodes and three servers that are well",
  async (folder) => {
    const { services } = servicesOf(read("compose.yaml"));
    const at = machines();
    const commands = services.map(({ name, command }) => {
      const own = at[Number(name.at(-1)) - 1]!;
      const args = command.map((arg) =>
        arg.replaceAll("0.0.0.0", own)
          .replaceAll(
            /(\/\/|,)etcd(\d):/g,
            (_, before, i) => `${before}${at[i - 1]}:`,
          )
          .replace("=/data", `=${folder}/${name}`)
      );
      const isServer = name.startsWith("server");
      return { program: isServer ? Deno.execPath() : program("etcd"), args };
    });
    await runUntilWell(commands, at.map((one) => `http://${one}:8000/health`));
  },
);

/** Command of a unit, with the variables of its environment file. */
function commandOf(
  unit: string,
  env: ReadonlyMap<string, string>,
): string[] {
  const line = /^ExecStart=(.*)$/m.exec(read(unit))![1]!;
  return line.replaceAll(/\$\{(\w+)\}/g, (_, name) => {
    assert(env.has(name), `${unit} uses ${name}, which node.env does not set`);
    return env.get(name)!;
  }).split(" ");
}

testDeploy(
  "the commands of the units start three nodes and three servers that are well",
  async (folder) => {
    const at = machines();
    const lines = read("node.env").split("\n").filter((line) =>
      /^\w+=/.test(line)
    );
    const commands = at.flatMap((own, i) => {
      const env = new Map(lines.map((line) => {
        const [, name, value] = /^(\w+)=(.*)$/.exec(line)!;
        return [
          name!,
          value!.replaceAll(/10\.0\.0\.(\d)/g, (_, n) => at[n - 1]!),
        ];
      }));
      env.set("NODE", String(i + 1));
      env.set("ETCD_ADDRESS", own);
      env.set("SERVER_ADDRESS", own);
      return UNITS.map((unit) => {
        const [path, ...args] = commandOf(unit, env);
        const isServer = path!.endsWith("/deno");
        return {
          program: isServer ? Deno.execPath() : program("etcd"),
          args: args.map((arg) => arg.replace("/var/lib", `${folder}/${i}`)),
        };
      });
    });
    for (const i of at.keys()) await Deno.mkdir(`${folder}/${i}`);
    await runUntilWell(commands, at.map((one) => `http://${one}:8000/health`));
  },
);

/** True if systemd is installed here. */
async function hasSystemd(): Promise<boolean> {
  try {
    const { success } = await new Deno.Command("systemd-analyze", {
      args: ["--version"],
      stdout: "null",
      stderr: "null",
    }).output();
    return success;
  } catch {
    return false;
  }
}

Deno.test("systemd finds nothing wrong with the units", async () => {
  if (!await hasSystemd() || withoutEtcd() !== undefined) return;
  const folder = await Deno.makeTempDir({ prefix: "units-" });
  try {
    const paths = UNITS.map((unit) => {
      const path = `${folder}/${unit}`;
      Deno.writeTextFileSync(
        path,
        read(unit).replace("/usr/local/bin/deno", Deno.execPath())
          .replace("/usr/bin/etcd", program("etcd")),
      );
      return path;
    });
    const { stderr, success } = await new Deno.Command("systemd-analyze", {
      args: ["verify", ...paths],
    }).output();
    const said = new TextDecoder().decode(stderr);
    assertEquals(
      said.split("\n").filter((line) => line.includes(folder)),
      [],
    );
    assert(success, said);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
