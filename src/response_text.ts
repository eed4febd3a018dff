/**
 * Bounded reading of the text of an HTTP response.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable } from "./async.ts";

/** Text of a response, as far as it was read. */
export interface ResponseText {
  /** Beginning of the text. */
  readonly text: string;
  /** True if that is all of it. */
  readonly isWhole: boolean;
}

/**
 * Reads the text of a response up to about `maxBytes` bytes; the rest is not received.
 *
 * @throws the reason of `signal` once it aborts
 */
export async function readResponseText(
  { body }: Response,
  maxBytes: number,
  signal: AbortSignal,
): Promise<ResponseText> {
  if (body === null) return { text: "", isWhole: true };
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await abortable(reader.read(), signal);
      if (done) return { text: text + decoder.decode(), isWhole: true };
      const part = value.subarray(0, maxBytes - size);
      size += part.length;
      text += decoder.decode(part, { stream: true });
      if (part.length < value.length) return { text, isWhole: false };
    }
  } finally {
    // Without an effect after the end.
    reader.cancel().catch(() => {});
  }
}
