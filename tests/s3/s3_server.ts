/**
 * S3 server on loopback for tests: the npm package `s3rver` in a process of its own.
 *
 * @module
 */

import { freePort } from "../../web/free_ports.ts";
import { S3SnapshotStore } from "../../src/s3/mod.ts";

/** Longest start of the server, in milliseconds: the first one loads the package. */
const START_MS_MAX = 60_000;

const PACKAGE = "npm:s3rver@3.7.1";

/** Reason why the server cannot run here; undefined if it can. */
export async function withoutS3(): Promise<string | undefined> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", "--no-lock", "--no-config", PACKAGE],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return undefined;
  const [reason] = new TextDecoder().decode(stderr).split("\n");
  return `${PACKAGE} cannot be loaded: ${reason}`;
}

const reason = await withoutS3();

/** Defines a test with an S3 server, skipped where it cannot run. */
export function testIfS3(
  name: string,
  fn: (t: Deno.TestContext) => Promise<void>,
  leavesTimers = false,
): void {
  Deno.test({
    name: reason === undefined ? name : `${name}: skipped, ${reason}`,
    ignore: reason !== undefined,
    sanitizeOps: !leavesTimers,
    sanitizeResources: !leavesTimers,
    fn,
  });
}

/** S3 server with a bucket. */
export class S3Server implements AsyncDisposable {
  /** Name of the bucket. */
  readonly bucket = "boards";
  /** Folder with the data. */
  readonly directory = Deno.makeTempDirSync({ prefix: "s3-" });
  readonly endpoint: string;
  readonly #child: Deno.ChildProcess;

  private constructor() {
    const port = freePort();
    this.endpoint = `http://127.0.0.1:${port}`;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-lock",
        "--no-config",
        "--allow-all",
        PACKAGE,
        `--directory=${this.directory}`,
        "--address=127.0.0.1",
        `--port=${port}`,
        "--silent",
        "--no-vhost-buckets",
        "--configure-bucket",
        this.bucket,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** Starts a server and waits until it answers. */
  static async start(): Promise<S3Server> {
    const server = new S3Server();
    for (let waited = 0;; waited += 100) {
      try {
        const response = await fetch(`${server.endpoint}/${server.bucket}`);
        await response.body?.cancel();
        return server;
      } catch (error) {
        if (waited > START_MS_MAX) {
          await server[Symbol.asyncDispose]();
          throw error;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** A store in the bucket. */
  store(
    options: Partial<ConstructorParameters<typeof S3SnapshotStore>[0]> = {},
  ): S3SnapshotStore {
    return new S3SnapshotStore({
      bucket: this.bucket,
      endpoint: this.endpoint,
      accessKeyId: "S3RVER",
      secretAccessKey: "S3RVER",
      ...options,
    });
  }

  /** Names of the objects of the store in the bucket, and of the parts of uploads. */
  async files(): Promise<string[]> {
    const found: string[] = [];
    const visit = async (folder: string): Promise<void> => {
      for await (const { name, isDirectory } of Deno.readDir(folder)) {
        if (isDirectory) await visit(`${folder}/${name}`);
        else found.push(`${folder}/${name}`);
      }
    };
    await visit(`${this.directory}/${this.bucket}`);
    return found.map((one) => one.slice(this.directory.length + 1)).sort();
  }

  /** Stops the server and removes its data. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
    await Deno.remove(this.directory, { recursive: true });
  }
}
