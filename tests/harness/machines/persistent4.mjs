// Uses other instances: invokes one, spawns one, sends to both, and to its own parent.
import { actions, assign, createMachine, send, sendParent } from "npm:xstate";
import { persistentInvocableSource, sendTo, spawnPersistentInstance } from "@statebacked/machine";

const handmade = { type: "statebacked.instance", machineName: "audit", machineInstanceName: "log" };

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  predictableActionArguments: PREDICTABLE,
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
        send({ type: "welcome" }, { to: "ward" }),
      ],
    },
    call: { actions: send({ type: "call" }, { to: "ward" }) },
    "done.invoke.ward": { actions: assign({ ended: (_, { data }) => data }) },
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
        send({ type: "hiFromParent" }, { to: "child" }),
        sendTo(({ actor1 }) => actor1, { type: "hiFromParent" }, { delay: 200 }),
      ],
      exit: send({ type: "bye" }, { to: "child" }),
      invoke: {
        id: "child",
        src: persistentInvocableSource({ machineName: "child-machine" }),
        data: { uid: () => 7 },
      },
      initial: "start",
      states: {
        start: {
          on: {
            childSaysHi: { target: "second", actions: send({ type: "again" }, { to: "child" }) },
          },
        },
        second: {},
      },
      on: {
        leave: "idle",
        again: { target: "running", internal: false },
        dismiss: { actions: actions.stop(({ actor1 }) => actor1) },
      },
    },
  },
});
