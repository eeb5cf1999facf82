// Uses other instances: invokes one, spawns one, sends to both, and to its own parent.
import { assign, createMachine, sendParent, sendTo, stopChild } from "npm:xstate@5";
import { persistentInvocableSource, spawnPersistentInstance } from "@statebacked/machine";

const handmade = { type: "statebacked.instance", machineName: "audit", machineInstanceName: "log" };

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  id: "persistent",
  context: { actor1: null },
  initial: "idle",
  on: {
    adopt: {
      actions: [
        assign({
          ward: () =>
            spawnPersistentInstance(
              { machineName: "child-machine", machineInstanceName: "ward-1" },
              { name: "ward" },
            ),
        }),
        sendTo("ward", { type: "welcome" }),
      ],
    },
    call: { actions: sendTo("ward", { type: "call" }) },
    "xstate.done.actor.ward": { actions: assign({ ended: ({ event }) => event.output }) },
  },
  states: {
    idle: {
      on: {
        run: "running",
        up: { actions: sendParent({ type: "UP" }) },
        audit: { actions: sendTo(() => handmade, { type: "NOTE" }) },
        auditLater: {
          actions: sendTo(() => handmade, { type: "NOTE" }, { delay: 50, id: "note" }),
        },
        flash: "flashing",
      },
    },
    flashing: {
      invoke: { id: "brief", src: persistentInvocableSource({ machineName: "child-machine" }) },
      always: "idle",
    },
    running: {
      entry: [
        assign({
          actor1: () =>
            spawnPersistentInstance({ machineName: "child-machine" }, { context: { uid: 1 } }),
        }),
        sendTo("child", { type: "hiFromParent" }),
        sendTo(({ context }) => context.actor1, { type: "hiFromParent" }, { delay: 200 }),
      ],
      exit: sendTo("child", { type: "bye" }),
      invoke: {
        id: "child",
        src: persistentInvocableSource({ machineName: "child-machine" }),
        input: { uid: 7 },
      },
      initial: "start",
      states: {
        start: {
          on: { childSaysHi: { target: "second", actions: sendTo("child", { type: "again" }) } },
        },
        second: {},
      },
      on: {
        leave: "idle",
        again: { target: "running", reenter: true },
        dismiss: { actions: stopChild(({ context }) => context.actor1) },
      },
    },
  },
});
