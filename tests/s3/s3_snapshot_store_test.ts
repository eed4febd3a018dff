import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { ErrStoreFull } from "../../mod.ts";
import { ErrS3, parseS3URL, S3SnapshotStore } from "../../src/s3/mod.ts";
import { systemEnv } from "../../src/env.ts";
import type { SnapshotSink, SnapshotStore } from "../../src/ports/mod.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";
import { S3Server, testIfS3 } from "./s3_server.ts";
import { verifySignature } from "./signature.ts";

testIfS3("the snapshot store on S3 conforms to its port", async (t) => {
  await using server = await S3Server.start();
  let made = 0;
  const prefixes = new Map<SnapshotStore, string>();
  const open = (prefix: string): SnapshotStore => {
    const store = server.store({
      prefix,
      // The server does not compare the signatures.
      async fetch(request): Promise<Response> {
        await verifySignature(request, "S3RVER");
        return await fetch(request);
      },
    });
    prefixes.set(store, prefix);
    return store;
  };
  const cases = snapshotStoreConformance({
    create: () => open(`case${made++}/a`),
    reopen: (store) => open(prefixes.get(store)!),
    damage: async (store, info) => {
      const id = info.id.split("_")[1]!;
      const path = (await server.files()).find((one) =>
        one.startsWith(`boards/${prefixes.get(store)}/data/`) &&
        one.includes(id) && one.endsWith("_object")
      );
      await Deno.truncate(`${server.directory}/${path}`, 1000);
    },
  });
  for (const { name, run } of cases) await t.step(name, run);
});

const header = {
  clusterID: 7n,
  nodeID: 1n,
  type: 1,
  kind: "full",
  index: 10,
  compression: "none",
} as const;

/** Chunk whose bytes depend on its number. */
function chunkOf(i: number, size: number): Uint8Array {
  return new Uint8Array(size).map((_, at) => (i * 31 + at * 7) & 0xff);
}

testIfS3(
  "H7 a snapshot of more than one part is uploaded part by part and read back, and what is aborted leaves nothing",
  async () => {
    await using server = await S3Server.start();
    const sent: number[] = [];
    const store = server.store({
      fetch: async (request) => {
        if (request.method === "PUT") {
          const bytes = await request.clone().arrayBuffer();
          sent.push(bytes.byteLength);
        }
        return await fetch(request);
      },
    });
    const write = async (
      writable: WritableStream<Uint8Array>,
    ): Promise<void> => {
      const writer = writable.getWriter();
      for (let i = 0; i < 20; i++) await writer.write(chunkOf(i, 1_000_000));
      await writer.close();
    };
    const sink = store.create(header);
    await write(sink.writable);
    const info = await sink.commit({ files: 0 });
    assertEquals(info.size, 20_000_000);
    const part = 8 * 1024 * 1024;
    assertEquals(sent, [part, part, 20_000_000 - 2 * part, 0]);
    let at = 0;
    const reader = (await store.open(info)).getReader();
    for (let read; !(read = await reader.read()).done;) {
      for (let i = 0; i < read.value.length; i += 997) {
        const n = Math.floor((at + i) / 1_000_000);
        const inside = (at + i) % 1_000_000;
        assertEquals(read.value[i], (n * 31 + inside * 7) & 0xff);
      }
      at += read.value.length;
    }
    assertEquals(at, 20_000_000);
    const before = await server.files();
    // After all parts, and in the middle.
    const complete = store.create({ ...header, index: 11 });
    await write(complete.writable);
    await complete.abort();
    const begun = store.create({ ...header, index: 12 });
    const writer = begun.writable.getWriter();
    for (let i = 0; i < 10; i++) await writer.write(chunkOf(i, 1_000_000));
    await begun.abort(new Error("enough"));
    await assertRejects(() => writer.write(chunkOf(1, 10)), Error, "enough");
    const left = (await server.files()).filter((one) => !before.includes(one));
    // This server cannot end an upload, and keeps the part of the one in the middle.
    assertEquals(
      left.filter((one) =>
        !one.includes("/uploads/") && !one.includes("._S3rver_uploads")
      ),
      [],
    );
    assertEquals((await store.list(7n)).map(({ index }) => index), [10]);
    assertEquals(await store.clusters(), [7n]);
    await store.remove(info);
    assertEquals(await store.clusters(), []);
    await store.close();
  },
);

testIfS3(
  "H8 of two processes that store equal snapshots one replaces the other, in whatever order they list",
  async () => {
    await using server = await S3Server.start();
    await using one = server.store();
    await using two = server.store();
    const store = async (
      at: S3SnapshotStore,
      byte: number,
    ): Promise<void> => {
      const sink = at.create(header);
      const writer = sink.writable.getWriter();
      await writer.write(new Uint8Array(100).fill(byte));
      await writer.close();
      await sink.commit({ files: 0 });
    };
    for (let i = 0; i < 6; i++) {
      await store(i % 2 === 0 ? one : two, i);
      for (const at of [one, two]) {
        const [only, ...others] = await at.list(7n);
        assertEquals(others, []);
        const bytes = await new Response(await at.open(only!) as BodyInit)
          .bytes();
        assertEquals(bytes, new Uint8Array(100).fill(i));
      }
    }
    const files = await server.files();
    assertEquals(
      files.filter((one) => one.includes("/data/") && one.endsWith("_object"))
        .length,
      1,
    );
  },
);

testIfS3(
  "H7 H8 a snapshot on S3 is listed only with its bytes, also if the answer to its commit is lost once or always, or what follows it is refused",
  async () => {
    await using server = await S3Server.start();
    for (
      const [index, fault] of [
        [20, "lost once"],
        [21, "lost always"],
        [22, "sweep refused"],
      ] as const
    ) {
      let commits = 0;
      await using store = server.store({
        async fetch(request): Promise<Response> {
          const { pathname, searchParams } = new URL(request.url);
          const isCommit = request.method === "PUT" &&
            pathname.includes("/info/");
          const isSweep = searchParams.get("prefix")?.includes("/data/");
          if (fault === "sweep refused" && isSweep) {
            return new Response("<Error><Code>AccessDenied</Code></Error>", {
              status: 403,
            });
          }
          if (!isCommit || fault === "sweep refused") {
            return await fetch(request);
          }
          // As S3 refuses to write an object that exists.
          if (commits > 0 && request.headers.has("if-none-match")) {
            return new Response(
              "<Error><Code>PreconditionFailed</Code></Error>",
              { status: 412 },
            );
          }
          const response = await fetch(request);
          if (++commits > 1 && fault === "lost once") return response;
          await response.body?.cancel();
          return new Response("", { status: 503 });
        },
      });
      const sink = store.create({ ...header, index });
      const writer = sink.writable.getWriter();
      await writer.write(new Uint8Array(100).fill(index));
      await writer.close();
      const committed = sink.commit({ files: 0 });
      if (fault === "lost always") {
        await assertRejects(() => Promise.resolve(committed), ErrS3);
        await sink.abort();
      } else assertEquals((await committed).index, index);
      const [newest] = await store.list(7n);
      assertEquals(newest!.index, index);
      const bytes = await new Response(await store.open(newest!) as BodyInit)
        .bytes();
      assertEquals(bytes, new Uint8Array(100).fill(index));
    }
  },
);

testIfS3(
  "H7 the bytes of an upload that took hours are not removed by another process, and those that a crash has left are, once they were seen for an hour",
  async () => {
    await using server = await S3Server.start();
    let passed = 0;
    const env = { ...systemEnv, now: () => systemEnv.now() + passed };
    await using slow = server.store();
    await using other = server.store({
      env,
      // S3 says when an upload has begun, not when it has ended.
      async fetch(request): Promise<Response> {
        const response = await fetch(request);
        if (request.method !== "GET") return response;
        const text = await response.text();
        const begun = new Date(Date.now() - 7_200_000).toISOString();
        return new Response(
          text.replaceAll(
            /(<LastModified>)[^<]*/g,
            (_, tag: string) => tag + begun,
          ),
          response,
        );
      },
    });
    const begin = async (
      at: S3SnapshotStore,
      index: number,
    ): Promise<SnapshotSink> => {
      const sink = at.create({ ...header, index });
      const writer = sink.writable.getWriter();
      await writer.write(new Uint8Array(100).fill(index));
      await writer.close();
      return sink;
    };
    const crashed = await begin(slow, 1);
    const sink = await begin(slow, 2);
    await (await begin(other, 3)).commit({ files: 0 });
    const info = await sink.commit({ files: 0 });
    assertEquals(
      await new Response(await slow.open(info) as BodyInit).bytes(),
      new Uint8Array(100).fill(2),
    );
    const count = async (): Promise<number> =>
      (await server.files()).filter((one) =>
        one.includes("/data/") && one.endsWith("_object")
      ).length;
    assertEquals(await count(), 3);
    passed = 3_500_000;
    await (await begin(other, 4)).commit({ files: 0 });
    assertEquals(await count(), 4);
    passed = 3_700_000;
    await (await begin(other, 5)).commit({ files: 0 });
    // One more, and the one of the crash less.
    assertEquals(await count(), 4);
    await crashed.abort();
  },
);

testIfS3(
  "wrong credentials, a missing bucket and a service that does not answer are named in words that say what to do",
  async () => {
    await using server = await S3Server.start();
    const failure = async (
      options: Parameters<S3Server["store"]>[0],
    ): Promise<ErrS3> => {
      await using store = server.store(options);
      return await assertRejects(() => store.list(1n), ErrS3);
    };
    const wrongKey = await failure({ accessKeyId: "guess" });
    assertEquals([wrongKey.code, wrongKey.status], ["InvalidAccessKeyId", 403]);
    assertMatch(wrongKey.message, /check accessKeyId, secretAccessKey/);
    const noBucket = await failure({ bucket: "none-such" });
    assertEquals([noBucket.code, noBucket.status], ["NoSuchBucket", 404]);
    assertMatch(noBucket.message, /create the bucket/);
    const noServer = await failure({ endpoint: "http://127.0.0.1:1" });
    assertEquals([noServer.code, noServer.status], ["Unreachable", 0]);
    assertMatch(
      noServer.message,
      /127\.0\.0\.1:1 did not answer .*check endpoint/,
    );
  },
);

Deno.test("signatures are compared as in the example of Amazon's documentation", async () => {
  const empty =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const sign = (signature: string): Promise<void> =>
    verifySignature(
      new Request("https://examplebucket.s3.amazonaws.com/test.txt", {
        headers: {
          range: "bytes=0-9",
          "x-amz-content-sha256": empty,
          "x-amz-date": "20130524T000000Z",
          authorization:
            `AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=${signature}`,
        },
      }),
      "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    );
  const right =
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
  await sign(right);
  await assertRejects(() => sign(right.replace("f", "e")));
});

/** Store whose service gives the answers of a function. */
function answering(answer: () => Response): S3SnapshotStore {
  return new S3SnapshotStore({
    bucket: "boards",
    endpoint: "http://127.0.0.1:1",
    accessKeyId: "a",
    secretAccessKey: "b",
    fetch: () => Promise.resolve(answer()),
  });
}

/** Store whose service answers with an error. */
function refusing(status: number, code: string): S3SnapshotStore {
  const text = `<Error><Code>${code}</Code><Message>No.</Message></Error>`;
  return answering(() => new Response(text, { status }));
}

Deno.test("the answers of an S3 service to a wrong clock, region or permission, and to a full bucket, say what to do", async () => {
  for (
    const [status, code, words] of [
      [403, "RequestTimeTooSkewed", /set the clock of this machine/],
      [403, "SignatureDoesNotMatch", /check accessKeyId, secretAccessKey/],
      [301, "PermanentRedirect", /correct endpoint and region/],
      [403, "AccessDenied", /s3:GetObject, s3:PutObject/],
      [400, "AuthorizationHeaderMalformed", /and region/],
      [400, "SomethingElse", /see the documentation/],
    ] as const
  ) {
    await using store = refusing(status, code);
    const error = await assertRejects(() => store.list(1n), ErrS3);
    assertEquals([error.status, error.code], [status, code]);
    assertMatch(error.message, words);
  }
  await using full = refusing(507, "XMinioStorageFull");
  await assertRejects(() => full.list(1n), ErrStoreFull, "make room");
});

Deno.test("an answer with status 200 that is no list is refused in words, and one without an end is not received", async () => {
  for (const answer of ["<html>Welcome</html>", "", '{"keys": []}']) {
    await using store = answering(() => new Response(answer));
    const error = await assertRejects(() => store.list(1n), ErrS3);
    assertEquals(error.code, "NoList");
    assertMatch(error.message, /check that endpoint is an S3 service/);
    assert(error.message.includes(answer));
  }
  let sent = 0;
  await using endless = answering(() =>
    new Response(
      new ReadableStream({
        pull(controller): void {
          sent += 1_000_000;
          if (sent > 100_000_000) controller.close();
          else controller.enqueue(new Uint8Array(1_000_000).fill(0x78));
        },
      }, { highWaterMark: 0 }),
    )
  );
  await assertRejects(() => endless.list(1n), ErrS3);
  assert(sent <= 6_000_000, `${sent} bytes`);
});

Deno.test("R8 a request that an S3 service fails for a moment is repeated", async () => {
  let asked = 0;
  await using store = answering(() =>
    ++asked < 3
      ? new Response("<Error><Code>SlowDown</Code></Error>", { status: 503 })
      : new Response("<ListBucketResult></ListBucketResult>")
  );
  assertEquals(await store.list(1n), []);
  assertEquals(asked, 3);
});

Deno.test("options of snapshots on S3 are checked in words, and their URL is parsed", () => {
  const options = {
    bucket: "boards",
    endpoint: "https://s3.example",
    accessKeyId: "a",
    secretAccessKey: "b",
  };
  for (
    const [wrong, words] of [
      [{ bucket: "Boards" }, 'bucket is "Boards"'],
      [{ endpoint: "s3.example" }, 'endpoint is "s3.example"'],
      [{ prefix: "a b" }, 'prefix is "a b"'],
    ] as const
  ) {
    assertThrows(
      () => new S3SnapshotStore({ ...options, ...wrong }),
      Error,
      words,
    );
  }
  assertEquals(
    parseS3URL("s3://boards/a/b?endpoint=http://127.0.0.1:9000&region=eu-1"),
    {
      bucket: "boards",
      prefix: "a/b",
      endpoint: "http://127.0.0.1:9000",
      region: "eu-1",
    },
  );
  assertEquals(parseS3URL("s3://boards"), {
    bucket: "boards",
    prefix: undefined,
    endpoint: "https://s3.us-east-1.amazonaws.com",
    region: undefined,
  });
  for (
    const url of [
      "boards",
      "http://boards",
      "s3://key:secret@boards",
      "s3://boards?bucket=a",
    ]
  ) {
    const error = assertThrows(() => parseS3URL(url), TypeError, "give s3://");
    assert(!error.message.includes("secret"));
  }
});
