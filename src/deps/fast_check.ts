/**
 * Property-based testing: random histories, and their smallest counterexample.
 *
 * This module is browser compatible.
 *
 * @module
 */

export * as fc from "npm:fast-check@4.10.2";
