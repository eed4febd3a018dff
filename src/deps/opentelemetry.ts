/**
 * OpenTelemetry's API, through which the server exports metrics and traces.
 *
 * This module is browser compatible.
 *
 * @module
 */

export * as otel from "npm:@opentelemetry/api@1.9.0";
