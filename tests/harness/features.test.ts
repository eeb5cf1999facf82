// What a machine can do, in every way in which XState may come: 20 checks for each bundle.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bundles } from "./bundles.ts";
import { type Any, Instance, Process } from "./engine.ts";

/** Custom actions and services write EFFECT lines: none may come before a commit. */
function nothingRanBeforeACommit(trace: string[]): boolean {
  const first = trace.findIndex((line) => line.startsWith("EFFECT"));
  return first === -1 || trace.indexOf("COMMIT") < first && trace.includes("COMMIT");
}

for (const bundle of bundles("features5", "features4")) {
  test(bundle.name, async (t) => {
    const process = await Process.start(bundle.cjs, bundle.externals);
    let instance = await new Instance(process).create();

    const send = async (type: string, more: Any = {}) => {
      instance.trace = [];
      instance.steps = [];
      await instance.send({ type, ...more });
    };
    const main = () => instance.value.main;

    await t.test("a promise is invoked, and its result is a step of its own", async () => {
      await send("LOAD", { x: "A" });
      assert.equal(instance.steps.length, 2);
      assert.equal(JSON.parse(instance.steps[0]!.state).state.main, "loading");
      const { key } = JSON.parse(instance.steps[0]!.children)[0];
      assert.deepEqual(JSON.parse(instance.steps[0]!.children), [{
        id: "ld",
        key,
        src: bundle.major === 5 ? "load" : "(inline)",
      }]);
      assert.equal(main(), "idle");
      assert.deepEqual(instance.data.got, { got: "A" });
    });

    await t.test("no effect before its commit", () => {
      assert.ok(instance.trace.includes("EFFECT load start A"));
      assert.ok(nothingRanBeforeACommit(instance.trace), instance.trace.join("\n"));
    });

    await t.test("a promise that is rejected leads to onError", async () => {
      await send("LOAD", { x: "bad" });
      assert.equal(main(), "failed");
      assert.equal(instance.data.got, "boom");
      await send("BACK");
    });

    await t.test("after: durable timers, in one round trip", async () => {
      await send("TIMED");
      assert.deepEqual(instance.timers.map(({ due }) => due).toSorted((a, b) => a - b), [
        1000,
        5001,
      ]);
      assert.equal(instance.last.code, 0);
    });

    await t.test("another region leaves the timers alone", async () => {
      await send("FLIP");
      assert.equal(instance.timers.length, 2);
      assert.equal(instance.value.side, "on");
    });

    await t.test("leaving the state cancels its timers", async () => {
      await send("BACK");
      assert.deepEqual(instance.timers, []);
    });

    await t.test("a timer that fires takes its transition", async () => {
      await send("TIMED");
      instance.trace = [];
      await instance.fireNext();
      assert.equal(main(), "idle");
      assert.ok(instance.trace.includes("EFFECT after fired"));
      assert.deepEqual(instance.timers, []);
    });

    await t.test("deep history survives a reload", async () => {
      for (const type of ["HIST", "NEXT", "NEXT", "OUT"]) {
        await send(type);
      }
      instance.drop();
      await send("RET");
      assert.deepEqual(main(), { deep: { h2: "d2" } });
    });

    instance = await new Instance(process).create();

    await t.test("a delayed send is a timer, a custom action runs after the commit", async () => {
      await send("ENQ");
      assert.deepEqual(instance.timers.map(({ id, due }) => [id, due]), [["later", 7000]]);
      assert.deepEqual(instance.trace, ["COMMIT", "EFFECT enq"]);
    });

    await t.test("cancel by id, in one round trip", async () => {
      await send("CANCEL");
      assert.deepEqual(instance.timers, []);
      assert.equal(instance.last.code, 0);
    });

    await t.test("an event that is raised is part of the step", async () => {
      await send("ENQ");
      await send("ENQ");
      await send("ENQ"); // XState 5's check() sees the context before enqueue.assign()
      assert.equal(instance.value.side, "on");
      assert.equal(instance.steps.length, 1);
    });

    instance = await new Instance(process).create();

    await t.test("a child machine: its own timer, sendParent, and its output", async () => {
      await send("CHILD");
      assert.equal(main(), "idle");
      assert.deepEqual(instance.data.got, { kid: 7 });
      assert.equal(instance.steps.length, 3);
      assert.ok(nothingRanBeforeACommit(instance.trace), instance.trace.join("\n"));
    });

    await t.test("a callback: starts, receives, sends back, stops", async () => {
      await send("CB");
      assert.equal(main(), "idle");
      const effects = instance.trace.filter((line) => line.startsWith("EFFECT"));
      assert.deepEqual(effects, ["EFFECT cb start", "EFFECT cb got PING", "EFFECT cb stop"]);
      assert.ok(nothingRanBeforeACommit(instance.trace), instance.trace.join("\n"));
    });

    await t.test("spawn in assign runs after the commit, the reference is stored", async () => {
      await send("SPAWN");
      assert.deepEqual(JSON.parse(instance.steps[0]!.context).ref, { xstate$$type: 1, id: "sp" });
      assert.ok(instance.trace.some((line) => line.includes("load start spawned")));
      assert.ok(nothingRanBeforeACommit(instance.trace), instance.trace.join("\n"));
    });

    await t.test("an instance with a reference to a dead service can be loaded", async () => {
      instance.drop();
      await send("FLIP");
      assert.equal(instance.last.code, 0);
    });

    await t.test("what it sends to itself is a step of its own", async () => {
      await send("SENDNOW");
      assert.equal(instance.steps.length, 2);
      assert.equal(instance.data.got, "pong");
    });

    await t.test("a guard that throws fails the event, and changes nothing", async () => {
      const before = instance.state + instance.context;
      await send("THROW");
      assert.equal(instance.last.code, 3);
      assert.match(JSON.parse(instance.last.state).message, /exploded/);
      assert.equal(instance.state + instance.context, before);
      await send("FLIP");
      assert.equal(instance.last.code, 0);
    });

    await t.test("a log action writes a log line", async () => {
      await send("LOG");
      assert.ok(instance.trace.includes("logged"));
    });

    await t.test("a lost service: its error event comes before the next event", async () => {
      instance.steps = [];
      await process.ask("S", instance.act, JSON.stringify({ type: "LOAD", x: "A" }), "{}").then(
        (answer) => {
          instance.record(answer);
        },
      );
      instance.drop(); // the process dies after the commit
      await instance.send({ type: "BACK" });
      const states = instance.steps.map((step) => JSON.parse(step.state).state.main);
      assert.deepEqual(states, ["loading", "failed", "idle"]);
      assert.match(instance.data.got, /lost/);
    });

    await t.test("a commit that fails: nothing runs", async () => {
      instance.trace = [];
      const { code } = await process.ask(
        "S",
        instance.act,
        JSON.stringify({ type: "LOAD", x: "N" }),
        "{}",
      );
      assert.equal(code, 5);
      instance.drop();
      await new Promise((resolve) => setTimeout(resolve, 10));
      assert.deepEqual(instance.trace, []);
    });
  });
}
