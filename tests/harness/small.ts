// Small bundles, written in the tests that use them.

import { Process } from "./engine.ts";

/** What every bundle needs; a test says only what it is about. */
const DEFAULTS = `
  exports.allowRead ??= () => true;
  exports.allowWrite ??= () => true;
`;

export const XSTATE5 =
  'const { assign, createMachine, fromCallback, fromPromise, log, sendTo, setup } = require("npm:xstate@5");';
export const XSTATE4 =
  'const { actions, assign, createMachine, send, spawn } = require("npm:xstate");';

export async function start5(source: string): Promise<Process> {
  return await Process.start(`${XSTATE5}\n${source}\n${DEFAULTS}`, ["npm:xstate@5"]);
}

export async function start4(source: string): Promise<Process> {
  return await Process.start(`${XSTATE4}\n${source}\n${DEFAULTS}`, ["npm:xstate"]);
}
