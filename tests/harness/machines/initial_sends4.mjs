// What an initial state's entry sends must not get lost, whoever's initEvent the copy of XState has.
import { assign, createMachine, send, sendParent } from "npm:xstate";

const kid = createMachine({
  predictableActionArguments: PREDICTABLE,
  id: "kid",
  initial: "a",
  states: {
    a: { entry: sendParent({ type: "FROM_KID" }), on: { STOP: "b" } },
    b: { type: "final" },
  },
});

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  predictableActionArguments: PREDICTABLE,
  id: "sender",
  initial: "start",
  context: { heard: [] },
  states: {
    start: {
      entry: [send({ type: "SELF" }), sendParent({ type: "TO_PARENT" })],
      invoke: { id: "kid", src: kid, onDone: "end" },
      on: {
        SELF: { actions: assign({ heard: ({ heard }) => [...heard, "self"] }) },
        FROM_KID: {
          actions: [
            assign({ heard: ({ heard }) => [...heard, "kid"] }),
            send({ type: "STOP" }, { to: "kid" }),
          ],
        },
      },
    },
    end: {},
  },
});
