/**
 * The npm package `@grpc/grpc-js`: gRPC over HTTP/2, with which etcd is called.
 *
 * This module needs Deno.
 *
 * @module
 */

export {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "npm:@grpc/grpc-js@1.14.7";
