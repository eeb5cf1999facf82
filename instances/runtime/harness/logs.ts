// console.* of customers' code becomes log lines. Deno's own console writes to stdout, which is the
// protocol: it is replaced before any copy of XState is loaded (they keep console.log as a default).

import { clip, describeError, errorText, isError, utf8Bytes } from "./errors.ts";
import { LIMITS, type LogLevel } from "./protocol.ts";
import { stringify } from "./primordials.ts";

export type Log = (level: LogLevel, args: unknown[]) => void;

const LEVELS: Record<string, LogLevel> = {
  log: "log",
  info: "info",
  warn: "warn",
  error: "error",
  debug: "debug",
  trace: "debug",
  dir: "log",
  dirxml: "log",
  table: "log",
  count: "log",
  group: "log",
  groupCollapsed: "log",
  timeLog: "log",
  timeEnd: "log",
};
const SILENT = ["groupEnd", "time", "timeStamp", "countReset", "clear", "profile", "profileEnd"];

/** A console whose every method is a log line, or does nothing. */
export function makeConsole(log: Log): Record<string, (...args: unknown[]) => void> {
  const console: Record<string, (...args: unknown[]) => void> = {};
  for (const [method, level] of Object.entries(LEVELS)) {
    console[method] = (...args) => log(level, args);
  }
  for (const method of SILENT) {
    console[method] = () => {};
  }
  console.assert = (condition, ...args) => {
    if (!condition) {
      log("error", ["Assertion failed", ...args]);
    }
  };
  return console;
}

/** A JSON array of strings, as `G` wants it; all of them together within the limit. Never throws. */
export function logArguments(args: unknown[]): string {
  const texts: string[] = [];
  let left: number = LIMITS.logLineBytes;
  for (const arg of args) {
    if (left <= 0) {
      break;
    }
    const text = clip(readable(arg), left);
    texts.push(text);
    left -= utf8Bytes(text);
  }
  return stringify(texts)!;
}

function readable(value: unknown): string {
  if (typeof value === "string") {
    return value;
  }
  try {
    if (isError(value)) {
      return errorText(value);
    }
    if (typeof value === "object" && value !== null) {
      return stringify(value, showable()) ?? String(value);
    }
    return String(value);
  } catch (error) {
    return `(can't be shown: ${describeError(error).message})`;
  }
}

/** A JSON replacer that shows what JSON alone drops or refuses, circles included. */
function showable(): (this: unknown, key: string, value: unknown) => unknown {
  const ancestors: unknown[] = [];
  return function (_key, value) {
    if (typeof value === "bigint") {
      return `${value}n`;
    }
    if (typeof value === "function") {
      return `[function ${value.name}]`;
    }
    if (typeof value !== "object" || value === null) {
      return value;
    }
    if (isError(value)) {
      const { name, message } = describeError(value);
      return { name, message };
    }
    while (ancestors.length > 0 && ancestors[ancestors.length - 1] !== this) {
      ancestors.pop();
    }
    if (ancestors.includes(value)) {
      return "[circular]";
    }
    ancestors.push(value);
    if (value instanceof Map || value instanceof Set) {
      return [...value];
    }
    return value;
  };
}
