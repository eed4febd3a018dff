// Types for what this project uses of @std/streams.
export function toBytes(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>>;
export function toText(
  stream: ReadableStream<Uint8Array | string>,
): Promise<string>;
export function concatReadableStreams<T>(
  ...streams: ReadableStream<T>[]
): ReadableStream<T>;
