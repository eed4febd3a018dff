/**
 * MessagePack, the encoding of the wire protocol's messages.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { decode, encode } from "npm:@msgpack/msgpack@3.1.3";
