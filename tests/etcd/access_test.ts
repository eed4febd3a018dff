import { assert, assertRejects, assertStringIncludes } from "@std/assert";
import { ErrClusterClosed } from "../../mod.ts";
import { type Env, systemEnv } from "../../src/env.ts";
import {
  ErrEtcdAccess,
  ErrEtcdUnavailable,
  ErrOtherEtcd,
  EtcdLogDB,
} from "../../src/etcd/mod.ts";
import { ETCD_RETRY_LAST_MS } from "../../src/limits.ts";
import { packRecords } from "../../src/ports/mod.ts";
import { makeDirectory } from "../support/directory.ts";
import { type Certificate, makeCertificate } from "../sync/certificate.ts";
import { EtcdNodes, testIfEtcd } from "./nodes.ts";

const one = packRecords(new Uint8Array([1, 2, 3]));

/** Defines a test that starts its nodes itself; some connections never open. */
function test(name: string, fn: () => Promise<void>): void {
  testIfEtcd(name, fn, true);
}

test("a wrong password, and no user where users are required, are refused in words", async () => {
  await using nodes = await EtcdNodes.start();
  const { endpoints } = nodes;
  for (
    const args of [
      ["user", "add", "root", "--new-user-password=secret"],
      ["user", "grant-role", "root", "root"],
      ["auth", "enable"],
    ]
  ) assert((await nodes.ctl(...args)).success);
  const user = { name: "root", password: "secret" };
  {
    await using logDB = new EtcdLogDB({ endpoints, user });
    const log = await logDB.open(1n, 1n);
    await log.append(one);
    const reader = await log.read(0);
    await reader.next();
    reader.close();
  }
  {
    await using logDB = new EtcdLogDB({
      endpoints,
      user: { ...user, password: "guess" },
    });
    const error = await assertRejects(
      async () => await logDB.open(1n, 1n),
      ErrEtcdAccess,
    );
    assertStringIncludes(error.message, "check user and password");
  }
  await using anonymous = new EtcdLogDB({ endpoints });
  await assertRejects(async () => await anonymous.open(1n, 1n), ErrEtcdAccess);
});

/** Starts a node that asks for the certificate of a client. */
async function startWithTLS(
  directory: string,
  server: Certificate,
  client: Certificate,
): Promise<EtcdNodes> {
  const write = (name: string, text: string): string => {
    const path = `${directory}/${name}`;
    Deno.writeTextFileSync(path, text);
    return path;
  };
  Deno.mkdirSync(directory, { recursive: true });
  return await EtcdNodes.start({
    certificates: {
      cert: write("server.pem", server.cert),
      key: write("server.key", server.key),
      clientCert: write("client.pem", client.cert),
      clientKey: write("client.key", client.key),
    },
  });
}

test("TLS with client certificates: the right ones work, others are refused in words", async () => {
  const [server, client, other] = [
    await makeCertificate(),
    await makeCertificate(),
    await makeCertificate(),
  ];
  using directory = makeDirectory();
  await using nodes = await startWithTLS(
    directory.path("tls"),
    server,
    client,
  );
  const { endpoints } = nodes;
  const { cert, key } = client;
  {
    const tls = { ca: server.cert, cert, key };
    await using logDB = new EtcdLogDB({ endpoints, tls });
    const log = await logDB.open(1n, 1n);
    await log.append(one);
  }
  for (
    const tls of [
      { ca: other.cert, cert, key },
      { ca: server.cert, cert: other.cert, key: other.key },
      { ca: server.cert },
    ]
  ) {
    await using logDB = new EtcdLogDB({ endpoints, tls });
    const error = await assertRejects(
      async () => await logDB.open(1n, 1n),
      ErrEtcdAccess,
    );
    assertStringIncludes(error.message, "check ca, cert and key");
  }
});

test("a refused client certificate is told from a lost connection at the first attempt, with and without a user", async () => {
  const [server, client] = [await makeCertificate(), await makeCertificate()];
  using directory = makeDirectory();
  await using nodes = await startWithTLS(
    directory.path("tls"),
    server,
    client,
  );
  let pauses = 0;
  const env: Env = {
    ...systemEnv,
    setTimer(callback, delay): () => void {
      if (delay <= ETCD_RETRY_LAST_MS) pauses++;
      return systemEnv.setTimer(callback, delay);
    },
  };
  for (let i = 0; i < 20; i++) {
    await using logDB = new EtcdLogDB({
      endpoints: nodes.endpoints,
      tls: { ca: server.cert },
      env,
      ...(i % 2 === 0 ? {} : { user: { name: "root", password: "secret" } }),
    });
    await assertRejects(async () => await logDB.open(1n, 1n), ErrEtcdAccess);
  }
  // None, unless the machine is so busy that a call has no answer in its time.
  assert(pauses <= 4, `${pauses} pauses`);
});

test("a node that closes its connections, or is down, is unavailable and not one that refuses certificates", async () => {
  const { cert, key } = await makeCertificate();
  const listen = { hostname: "127.0.0.1", port: 0 };
  const atOnce = Deno.listen(listen);
  const afterHandshake = Deno.listenTls({
    ...listen,
    cert,
    key,
    alpnProtocols: ["h2"],
  });
  const accept = async (
    listener: Deno.Listener<Deno.TcpConn | Deno.TlsConn>,
  ): Promise<void> => {
    for (;;) {
      let conn;
      try {
        conn = await listener.accept();
      } catch {
        return;
      }
      try {
        if ("handshake" in conn) await conn.handshake();
      } catch {
        // The client has gone.
      }
      conn.close();
    }
  };
  const accepting = [accept(atOnce), accept(afterHandshake)];
  const down = Deno.listen(listen);
  down.close();
  try {
    await Promise.all(
      [atOnce, afterHandshake, down].map(async ({ addr }) => {
        const endpoint = `https://localhost:${addr.port}`;
        const tls = { ca: cert };
        await using logDB = new EtcdLogDB({ endpoints: [endpoint], tls });
        const error = await assertRejects(
          async () => await logDB.open(1n, 1n),
          ErrEtcdUnavailable,
        );
        assertStringIncludes(error.message, endpoint);
      }),
    );
  } finally {
    atOnce.close();
    afterHandshake.close();
    await Promise.all(accepting);
  }
});

test("H13 an etcd with another cluster id or history, or restored from a backup, is refused, and nothing is written to it", async () => {
  using directory = makeDirectory();
  await using nodes = await EtcdNodes.start();
  const { endpoints } = nodes;
  const backup = directory.path("backup.db");
  await using logDB = new EtcdLogDB({ endpoints });
  const log = await logDB.open(1n, 1n);
  await log.append(one);
  await Deno.mkdir(backup.slice(0, backup.lastIndexOf("/")), {
    recursive: true,
  });
  assert((await nodes.ctl("snapshot", "save", backup)).success);
  for (let i = 0; i < 5; i++) await log.append(one);
  const known = logDB.identity!;
  await logDB.close();
  {
    await using same = new EtcdLogDB({ endpoints, known });
    await (await same.open(1n, 1n)).append(one);
  }
  {
    // Another etcd.
    await using others = await EtcdNodes.start();
    await using other = new EtcdLogDB({ endpoints: others.endpoints, known });
    const error = await assertRejects(
      async () => await other.open(1n, 1n),
      ErrOtherEtcd,
    );
    assertStringIncludes(error.message, "cluster id");
    const { output } = await others.ctl("get", "", "--prefix", "--keys-only");
    assert(output.trim() === "", output);
    // One wrong endpoint among right ones is passed over.
    await using both = new EtcdLogDB({
      endpoints: [...others.endpoints, ...endpoints],
      known,
    });
    await (await both.open(1n, 1n)).append(one);
  }
  {
    // Another history in the same etcd.
    const prefix = "elsewhere";
    await using other = new EtcdLogDB({ endpoints, prefix, known });
    await assertRejects(async () => await other.open(1n, 1n), ErrOtherEtcd);
  }
  await nodes.restore(backup);
  await using restored = new EtcdLogDB({ endpoints, known });
  const error = await assertRejects(
    async () => await restored.open(1n, 1n),
    ErrOtherEtcd,
  );
  assertStringIncludes(error.message, "restored from a backup");
});

test("H13 a process that is running refuses an etcd that was restored from a backup under it", async () => {
  using directory = makeDirectory();
  await using nodes = await EtcdNodes.start();
  const { endpoints } = nodes;
  const backup = directory.path("backup.db");
  await Deno.mkdir(backup.slice(0, backup.lastIndexOf("/")), {
    recursive: true,
  });
  await using logDB = new EtcdLogDB({ endpoints });
  const log = await logDB.open(1n, 1n);
  await log.append(one);
  assert((await nodes.ctl("snapshot", "save", backup)).success);
  for (let i = 0; i < 5; i++) await log.append(one);
  const reader = await log.read(await log.readIndex());
  const next = (async () => await reader.next())();
  next.catch(() => {});
  await nodes.restore(backup);
  await assertRejects(() => next, ErrOtherEtcd);
  await assertRejects(async () => await log.append(one), ErrOtherEtcd);
  await assertRejects(async () => await log.readIndex(), ErrOtherEtcd);
});

test("H10 without any etcd, calls fail in words within their time, and close() ends them", async () => {
  await using logDB = new EtcdLogDB({ endpoints: ["http://127.0.0.1:9"] });
  const error = await assertRejects(
    async () => await logDB.open(1n, 1n),
    ErrEtcdUnavailable,
  );
  assertStringIncludes(error.message, "127.0.0.1:9");
  const opening = (async () => await logDB.open(1n, 1n))();
  opening.catch(() => {});
  await logDB.close();
  await assertRejects(() => opening, ErrClusterClosed);
});

test("R14 options are checked, and name what is wrong", () => {
  for (
    const options of [
      { endpoints: [] },
      { endpoints: ["127.0.0.1:2379"] },
      { endpoints: ["ftp://127.0.0.1"] },
      { endpoints: ["https://127.0.0.1:2379"] },
      { endpoints: ["https://[::1]:2379"] },
      { endpoints: ["http://127.0.0.1"], prefix: "with space" },
      { endpoints: ["http://127.0.0.1"], appendMs: 0 },
      { endpoints: ["http://127.0.0.1"], user: { name: "root" } },
    ]
  ) {
    try {
      new EtcdLogDB(options as never);
    } catch (error) {
      assert(error instanceof TypeError || error instanceof RangeError);
      continue;
    }
    throw new Error(`${JSON.stringify(options)} was accepted`);
  }
  return Promise.resolve();
});
