// What the host needs of the language itself, taken before any customer's code runs: that code
// shares our realm, and an overwritten JSON.parse must not reach the protocol.

export const parse: (text: string) => any = JSON.parse; // any: JSON, its shape is known to callers
export const stringify: (
  value: unknown,
  replacer?: (this: unknown, key: string, value: unknown) => unknown,
) => string | undefined = JSON.stringify;

export const now: () => number = performance.now.bind(performance);
export const randomUUID: () => string = crypto.randomUUID.bind(crypto);
export const setTimer = globalThis.setTimeout;
export const clearTimer = globalThis.clearTimeout;
export const microtask = globalThis.queueMicrotask;

const splitString = Function.prototype.call.bind(String.prototype.split) as (
  text: string,
  separator: string,
) => string[];

export function split(text: string, separator: string): string[] {
  return splitString(text, separator);
}
