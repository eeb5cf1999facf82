// Whatever user code throws or does, the next message gets its answer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Instance } from "./engine.ts";
import { start4, start5 } from "./small.ts";

const GO = JSON.stringify({ type: "GO" });

const THROWN: Record<string, [string, RegExp]> = {
  "an error": ['new RangeError("out of it")', /out of it/],
  "a string": ['"just text"', /just text/],
  "null": ["null", /null/],
  "undefined": ["undefined", /./],
  "a symbol": ['Symbol("s")', /./],
  "an object": ["{ code: 7 }", /7/],
  "an object without prototype": ["Object.create(null)", /./],
  "an object whose getters throw": [
    "{ get name() { throw 1; }, get message() { throw 2; }, get stack() { throw 3; }, toJSON() { throw 4; } }",
    /./,
  ],
  "a proxy that throws": [
    "new Proxy({}, { get() { throw new Error('trap'); }, has() { throw 1; }, ownKeys() { throw 2; } })",
    /./,
  ],
  "an error with a message of megabytes": ['new Error("x".repeat(3e6))', /xxx/],
  "an error whose message is no text": [
    'Object.assign(new Error("m"), { message: { a: 1 }, name: 5, stack: [] })',
    /./,
  ],
};

for (const [what, [thrown, message]] of Object.entries(THROWN)) {
  test(`an assign that throws ${what}`, async () => {
    for (const start of [start5, start4]) {
      const process = await start(
        `exports.default = createMachine({ predictableActionArguments: true, context: {}, initial: "a",
        states: { a: { on: { GO: { actions: assign(() => { throw ${thrown}; }) }, NEXT: "b" } }, b: {} } });`,
      );
      const instance = await new Instance(process).create();

      const answer = await process.ask("S", instance.act, GO, "{}");
      const error = JSON.parse(answer.state);
      await instance.send({ type: "NEXT" });

      assert.equal(answer.code, 3);
      assert.equal(typeof error.name, "string");
      assert.match(error.message, message);
      assert.ok(answer.state.length < 32 * 1024, `${answer.state.length} characters`);
      assert.equal(instance.value, "b");
    }
  });
}

test("a creation that throws leaves nothing behind", async () => {
  for (
    const process of [
      await start5(
        `exports.default = createMachine({ context: () => { throw new Error("no context"); } });`,
      ),
      await start4(
        `exports.default = createMachine({ context: { n: 0 }, entry: assign(() => { throw new Error("no context"); }) });`,
      ),
    ]
  ) {
    const instance = await new Instance(process).create();

    assert.equal(instance.last.code, 3);
    assert.match(JSON.parse(instance.last.state).message, /no context/);
    assert.equal((await process.ask("S", instance.act, GO, "{}")).code, 4);
  }
});

test("an action that throws after the commit is logged, the others run", async () => {
  for (const start of [start5, start4]) {
    const process = await start(
      `exports.default = createMachine({ predictableActionArguments: true, on: { GO: { actions: [
      () => { throw new Error("failed"); }, () => console.log("second")] } } });`,
    );
    const instance = await new Instance(process).create();
    await instance.send({ type: "GO" });

    assert.equal(instance.last.code, 5);
    assert.match(instance.trace.join("\n"), /action .* failed:.*failed[\s\S]*second/);
  }
});

test("a snapshot that does not fit the machine fails its steps, and says why", async () => {
  for (
    const process of [
      await start5(`exports.default = createMachine({ initial: "a", states: { a: {} } });`),
      await start4(`exports.default = createMachine({ initial: "a", states: { a: {} } });`),
    ]
  ) {
    process.say("L", "x1", "name", '{"state":"gone","tags":[],"done":false}', "", "{}", "[]");

    for (let i = 0; i < 2; i++) {
      const answer = await process.ask("S", "x1", GO, "{}");
      assert.equal(answer.code, 3);
      assert.match(JSON.parse(answer.state).message, /gone/);
    }
  }
});

test("messages that make no sense get an answer, and the process goes on", async () => {
  const process = await start5(`exports.default = createMachine({});`);
  const instance = await new Instance(process).create();

  assert.equal((await process.ask("S", "nobody", GO, "{}")).code, 4);
  assert.equal((await process.ask("S", instance.act, "{not json", "{}")).code, 3);
  assert.equal((await process.ask("S", instance.act, "null", "{}")).code, 3);
  assert.equal((await process.ask("S", instance.act, "7", "{}")).code, 3);
  assert.equal((await process.ask("O", instance.act, "{")).code, 3);
  assert.equal((await process.ask("C", "c1", "n", "[1", "{}", "")).code, 3);
  for (
    const line of [
      "",
      "\t",
      "X\t1",
      "F\t9\t{",
      "F\t9",
      "K\tnobody",
      "D\tnobody",
      "L",
      "L\ta\tb",
      "R\t5",
    ]
  ) {
    process.runner.feed([line]);
  }
  process.say("P", "1");
  assert.equal(process.lines.at(-1), "P\t1");
});

test("Object.prototype: what an event adds is told, once", async () => {
  const process = await start5(`exports.default = createMachine({ on: {
    GO: { actions: assign(() => { Object.prototype.leak = 1; return {}; }) }, NEXT: {} } });`);
  const instance = await new Instance(process).create();
  try {
    await instance.send({ type: "GO" });
    await instance.send({ type: "NEXT" });
  } finally {
    delete (Object.prototype as { leak?: number }).leak;
  }

  const told = process.lines.filter((line) => line.startsWith("Z\t"));
  assert.deepEqual(told.length, 1);
  assert.match(told[0]!, /leak/);
});

test("console: arguments are readable, whatever they are", async () => {
  const process = await start5(`exports.default = createMachine({ on: { GO: { actions: () => {
    const circle = { name: "c" }; circle.self = circle;
    console.log("text", 1, null, undefined, true, 10n, Symbol("s"), () => {}, [1, "a"], { a: { b: 1 } });
    console.info(circle, new Map([["k", 1]]), new Set([1]), { big: 1n, e: new Error("inner") });
    console.warn(new TypeError("with a stack"));
    console.error({ get bad() { throw new Error("getter"); } });
    console.debug("d"); console.trace("t"); console.table([1]); console.dir({}); console.group("g"); console.groupEnd();
    console.assert(1 === 2, "sums"); console.assert(true, "not said"); console.time("x"); console.timeEnd("x"); console.count("n");
  } } } });`);
  const instance = await new Instance(process).create();
  await instance.send({ type: "GO" });

  const lines = process.lines.filter((line) => line.startsWith("G\t")).map((line) =>
    line.split("\t")
  );
  assert.deepEqual(lines.slice(0, 4).map(([, , level]) => level), ["log", "info", "warn", "error"]);
  assert.deepEqual(JSON.parse(lines[0]![3]!), [
    "text",
    "1",
    "null",
    "undefined",
    "true",
    "10",
    "Symbol(s)",
    "() => {}",
    '[1,"a"]',
    '{"a":{"b":1}}',
  ]);
  assert.deepEqual(JSON.parse(lines[1]![3]!), [
    '{"name":"c","self":"[circular]"}',
    '[["k",1]]',
    "[1]",
    '{"big":"1n","e":{"name":"Error","message":"inner"}}',
  ]);
  assert.match(lines[2]![3]!, /TypeError: with a stack.*machine\.js/);
  assert.ok(instance.trace.includes("Assertion failed sums"));
  assert.ok(!instance.trace.some((text) => text.includes("not said")));
});
