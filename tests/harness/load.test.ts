// Loading a bundle: what is refused, and in which words.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bundles } from "./bundles.ts";
import { Process } from "./engine.ts";

const RULES = "exports.allowRead = () => true; exports.allowWrite = () => true;";
const FIVE = 'const { createMachine } = require("npm:xstate@5");';
const FOUR = 'const { createMachine } = require("npm:xstate");';

const REFUSED: Record<string, [string, RegExp]> = {
  "a syntax error": ["export const = 1;", /SyntaxError|Unexpected|export/],
  "code that throws": ['throw new TypeError("while it was loaded");', /while it was loaded/],
  "no default export": [RULES, /no default export/],
  "a default export that is no machine": [
    `${RULES} exports.default = { initial: "a" };`,
    /not an XState 4 or 5 machine/,
  ],
  "a default export of null": [`${RULES} exports.default = null;`, /not an XState 4 or 5 machine/],
  "no allowRead": [
    `${FIVE} exports.default = createMachine({}); exports.allowWrite = () => true;`,
    /does not export allowRead/,
  ],
  "no allowWrite": [
    `${FIVE} exports.default = createMachine({}); exports.allowRead = () => true;`,
    /does not export allowWrite/,
  ],
  "an allowWrite that is no function": [
    `${FIVE} ${RULES} exports.default = createMachine({}); exports.allowWrite = true;`,
    /must export a function as allowWrite/,
  ],
  "a target that does not exist, XState 5": [
    `${FIVE} ${RULES} exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "nowhere" } } } });`,
    /nowhere/,
  ],
  "a target that does not exist, XState 4": [
    `${FOUR} ${RULES} exports.default = createMachine({ initial: "a", states: { a: { on: { GO: "nowhere" } } } });`,
    /nowhere/,
  ],
  "an initial state that does not exist, XState 5": [
    `${FIVE} ${RULES} exports.default = createMachine({ initial: "a", states: { a: { initial: "nowhere", states: { x: {} } } } });`,
    /nowhere/,
  ],
  "an initial state that does not exist, XState 4": [
    `${FOUR} ${RULES} exports.default = createMachine({ initial: "a", states: { a: { initial: "nowhere", states: { x: {} } } } });`,
    /nowhere/,
  ],
  "a package that is not provided": [
    'const x = require("lodash");',
    /imports "lodash", which is not available/,
  ],
};

for (const [what, [cjs, message]] of Object.entries(REFUSED)) {
  test(`refused: ${what}`, async () => {
    const process = await Process.startEmpty();

    const answer = await process.load(cjs, ["npm:xstate", "npm:xstate@5"]);

    assert.equal(answer.ok, false);
    assert.match(`${answer.error.name}: ${answer.error.message}`, message);
  });
}

test("refused: an external module that the platform does not have", async () => {
  const process = await Process.startEmpty();
  assert.match(
    (await process.load("", ["npm:left-pad"])).error.message,
    /"npm:left-pad", which is not available/,
  );
});

test("refused: a copy of XState 5 that can't hold back actions", async () => {
  const process = await Process.startEmpty();
  const old = `
    class StateMachine {
      constructor(config) { this.config = config; this.root = {}; this.idMap = new Map(); }
      getInitialSnapshot(scope) { return { status: "active" }; }
      getPersistedSnapshot() {} restoreSnapshot() {} transition() {}
    }
    ${RULES} exports.default = new StateMachine({});`;
  assert.match((await process.load(old, [])).error.message, /older than 5\.19/);
});

test("what is accepted says which XState it has, and what it exports", async () => {
  for (const { cjs, externals, major } of bundles("features5", "features4")) {
    const process = await Process.startEmpty();
    const answer = await process.load(cjs, externals);
    assert.deepEqual([answer.ok, answer.xstate, answer.warnings], [true, major, []]);
    assert.deepEqual(answer.exports.toSorted(), ["allowRead", "allowWrite", "default"]);
  }
});

test("every name of the platform's modules works", async () => {
  const names = [
    "npm:xstate",
    "npm:xstate@4",
    "npm:xstate/lib/actions",
    "npm:xstate/lib/actions.js",
    "npm:xstate/lib/utils",
    "npm:xstate/lib/utils.js",
    "npm:xstate@4/lib/actions.js",
    "npm:xstate@5",
  ];
  const process = await Process.startEmpty();
  const uses = names.map((name) => `Object.keys(require(${JSON.stringify(name)})).length`).join();
  const answer = await process.load(
    `${FIVE} ${RULES} exports.default = createMachine({}); if (![${uses}].every((n) => n > 5)) throw new Error("empty");`,
    names,
  );
  assert.ok(answer.ok, JSON.stringify(answer.error));
});

test("messages that come while a bundle loads wait for it", async () => {
  const process = await Process.startEmpty();
  process.say(
    "M",
    JSON.stringify({
      cjs: `${FIVE} ${RULES} exports.default = createMachine({});`,
      externals: ["npm:xstate@5"],
    }),
  );
  process.say("C", "a1", "5", "name", "{}", "{}", "");
  assert.equal((await process.answer("5")).code, 0);
});

test("a bundle that extends Object.prototype is warned about, and not tainted by it", async () => {
  const process = await Process.startEmpty();
  try {
    const answer = await process.load(
      `${FIVE} ${RULES} Object.prototype.polyfilled = 1; exports.default = createMachine({});`,
      ["npm:xstate@5"],
    );
    assert.match(answer.warnings.join(), /polyfilled/);
    process.say("C", "a1", "5", "name", "{}", "{}", "");
    assert.equal((await process.answer("5")).code, 0);
    assert.ok(!process.lines.some((line) => line.startsWith("Z\t")));
  } finally {
    delete (Object.prototype as { polyfilled?: number }).polyfilled;
  }
});

test("spawning outside of a transition is refused", async () => {
  const process = await Process.startEmpty();
  const spawn = 'globalThis.__statebacked_rt.spawn({ machineName: "m" })';
  assert.match(
    (await process.load(`${spawn}`, [])).error.message,
    /only be spawned while a transition/,
  );
});
