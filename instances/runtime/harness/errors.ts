// Anything can be thrown: null, an object whose getters throw, a megabyte of text.

import { type ErrorObject, LIMITS } from "./protocol.ts";
import { stringify } from "./primordials.ts";

const encoder = new TextEncoder();
const scratch = new Uint8Array(LIMITS.errorStackBytes);

/** `text`, cut so that it takes at most `bytes` in UTF-8 (at most LIMITS.errorStackBytes). */
export function clip(text: string, bytes: number): string {
  if (text.length * 3 <= bytes) {
    return text;
  }
  const { read } = encoder.encodeInto(text, scratch.subarray(0, bytes));
  return read === text.length ? text : text.slice(0, read);
}

export function utf8Bytes(text: string): number {
  return encoder.encode(text).length;
}

/** A bounded description of whatever was thrown. Never throws. */
export function describeError(thrown: unknown): ErrorObject {
  const name = readText(thrown, "name");
  const message = readText(thrown, "message");
  const stack = readText(thrown, "stack");
  const described: ErrorObject = {
    name: clip(name ?? "Error", LIMITS.errorNameBytes),
    message: clip(message ?? asText(thrown), LIMITS.errorMessageBytes),
  };
  if (stack !== undefined) {
    described.stack = clip(stack, LIMITS.errorStackBytes);
  }
  return described;
}

/** The same as JSON text. */
export function errorJson(thrown: unknown): string {
  return stringify(describeError(thrown))!;
}

/** For a log line: the stack if there is one, it starts with name and message. */
export function errorText(thrown: unknown): string {
  const { name, message, stack } = describeError(thrown);
  return stack !== undefined && stack.includes(message) ? stack : `${name}: ${message}`;
}

/** Is it an error as far as people are concerned? Looks at nothing that may throw. */
export function isError(value: unknown): value is Error {
  return value instanceof Error;
}

function readText(thrown: unknown, key: string): string | undefined {
  if (typeof thrown !== "object" || thrown === null) {
    return undefined;
  }
  try {
    const value = (thrown as Record<string, unknown>)[key];
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined; // a getter that throws
  }
}

function asText(thrown: unknown): string {
  try {
    if (typeof thrown === "object" && thrown !== null) {
      return stringify(thrown) ?? Object.prototype.toString.call(thrown);
    }
    return String(thrown);
  } catch {
    return "(a value that can't be shown)";
  }
}
