// Other instances: invoked, spawned, sent to, stopped; and the parent that this one may have.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bundles } from "./bundles.ts";
import { type Any, Instance, Process } from "./engine.ts";

const PARENT = {
  type: "statebacked.instance",
  id: "par",
  machineName: "parents",
  machineInstanceName: "p1",
};

for (const bundle of bundles("persistent5", "persistent4")) {
  test(bundle.name, async (t) => {
    const process = await Process.start(bundle.cjs, bundle.externals);
    const instance = await new Instance(process).create({}, PARENT);

    const send = async (type: string) => {
      instance.effects = [];
      instance.timers = [];
      await instance.send({ type });
      return instance.effects;
    };

    await t.test("a send to the parent is data", async () => {
      assert.deepEqual(await send("up"), [{ t: "send", to: PARENT, event: { type: "UP" } }]);
      assert.equal(instance.last.code, 0);
    });

    await t.test("the parent is known after a reload", async () => {
      instance.drop();
      assert.deepEqual(await send("up"), [{ t: "send", to: PARENT, event: { type: "UP" } }]);
    });

    await t.test("a reference built by hand can be sent to, now or later", async () => {
      const audit = {
        type: "statebacked.instance",
        id: "log",
        machineName: "audit",
        machineInstanceName: "log",
      };
      assert.deepEqual(await send("audit"), [{ t: "send", to: audit, event: { type: "NOTE" } }]);
      await send("auditLater");
      const [note] = instance.timers;
      assert.deepEqual([note!.to, note!.event], [audit, { type: "NOTE" }]);
      if (bundle.major === 5) {
        assert.equal(note!.id, "note");
      }
    });

    let child: Any;
    await t.test("instances are created before what is sent to them", async () => {
      const effects = await send("run");
      const spawned = effects.filter((effect) => effect.t === "spawn");
      const kinds = effects.map((effect) => `${effect.t} ${effect.id ?? effect.to.id}`);
      const [actor, invoked] = [
        spawned.find(({ id }) => id !== "child"),
        spawned.find(({ id }) => id === "child"),
      ];
      assert.deepEqual(actor.input, { uid: 1 });
      assert.deepEqual(invoked.input, { uid: 7 });
      assert.notEqual(actor.src.machineInstanceName, invoked.src.machineInstanceName);
      assert.ok(kinds.indexOf("spawn child") < kinds.indexOf("send child"), kinds.join());
      assert.deepEqual(effects.find(({ t }) => t === "send").event, { type: "hiFromParent" });
      const { id, machineName, machineInstanceName } = instance.data.actor1;
      assert.deepEqual([id, machineName], [actor.id, "child-machine"]);
      assert.equal(machineInstanceName, actor.src.machineInstanceName);
      assert.deepEqual(instance.timers.map(({ due, to }) => [due, to.id]), [[200, actor.id]]);
      assert.equal(instance.last.code, 0, "all of it is data");
      assert.deepEqual(instance.children, [], "other instances don't keep this one from settling");
      child = invoked;
    });

    await t.test("another instance of this version gets a child of its own", async () => {
      const other = await new Instance(process, "other").create();
      await other.send({ type: "run" });
      const { src } = other.effects.find(({ t, id }) => t === "spawn" && id === "child");
      assert.notEqual(src.machineInstanceName, child.src.machineInstanceName);
    });

    await t.test("a child is known after a reload", async () => {
      instance.drop();
      const [again] = await send("childSaysHi");
      assert.deepEqual(again.event, { type: "again" });
      assert.equal(again.to.machineInstanceName, child.src.machineInstanceName);
    });

    await t.test("re-entering the state stops the old child and creates a new one", async () => {
      const effects = await send("again");
      const story = effects.map(({ t, id, to, event }) =>
        `${t} ${id ?? to.id}${event ? ` ${event.type}` : ""}`
      )
        .filter((line) => line.includes("child"));
      assert.deepEqual(story, [
        "send child bye",
        "stop child",
        "spawn child",
        "send child hiFromParent",
      ]);
      const [bye, , spawn, hi] = effects.filter(({ id, to }) =>
        id === "child" || to?.id === "child"
      );
      assert.equal(bye.to.machineInstanceName, child.src.machineInstanceName);
      assert.equal(hi.to.machineInstanceName, spawn.src.machineInstanceName);
      assert.notEqual(spawn.src.machineInstanceName, child.src.machineInstanceName);
    });

    await t.test("what was spawned with a name is sent to by it, also in the same step", async () => {
      const effects = await send("adopt");
      assert.deepEqual(effects.map(({ t, id, to }) => `${t} ${id ?? to.id}`), [
        "spawn ward",
        "send ward",
      ]);
      instance.drop();
      const [later] = await send("call");
      assert.equal(later.to.machineInstanceName, "ward-1");
    });

    const told = (name: string, sender: string) => {
      const type = bundle.major === 5 ? `xstate.done.actor.${name}` : `done.invoke.${name}`;
      const event = { type, actorId: name, output: 5, data: 5 };
      const auth = { machineName: "child-machine", machineInstanceName: sender };
      return instance.childEnded(event, name, { stateBackedSender: auth });
    };

    await t.test("the end of a child is heard once, and of nobody else", async () => {
      assert.equal((await told("ward", "somebody")).code, 1);
      assert.equal((await told("ward", "ward-1")).code, 0);
      assert.equal(instance.data.ended, 5);
      assert.equal((await told("ward", "ward-1")).code, 1);
    });

    await t.test("what was spawned can be stopped by its reference", async () => {
      const { id } = instance.data.actor1;
      assert.deepEqual(await send("dismiss"), [{ t: "stop", id }]);
    });

    await t.test("leaving the state stops what it invoked", async () => {
      const effects = await send("leave");
      assert.deepEqual(effects.map(({ t, id }) => [t, id]).at(-1), ["stop", "child"]);
      assert.equal(instance.extra, JSON.stringify({ parent: PARENT }));
    });

    await t.test("a state that is left at once creates nothing", async () => {
      assert.deepEqual(await send("flash"), []);
    });
  });
}

for (const bundle of bundles("initial_sends4")) {
  test(`${bundle.name}: what an initial state sends arrives`, async () => {
    const process = await Process.start(bundle.cjs, bundle.externals);

    const instance = await new Instance(process).create({}, PARENT);

    assert.deepEqual(instance.data.heard.toSorted(), ["kid", "self"]);
    assert.equal(instance.value, "end");
    assert.deepEqual(instance.effects, [{ t: "send", to: PARENT, event: { type: "TO_PARENT" } }]);
  });
}

for (const bundle of bundles("endings5", "endings4")) {
  test(`${bundle.name}: the end of a child is data`, async () => {
    const process = await Process.start(bundle.cjs, bundle.externals);
    const instance = await new Instance(process).create({}, PARENT);

    await instance.send({ type: "end" });

    assert.deepEqual(instance.effects, [{ t: "done", output: { sum: 3 } }]);
    const orphan = await new Instance(process, "orphan").create({});
    await orphan.send({ type: "end" });
    assert.deepEqual(orphan.effects, []);
  });
}
