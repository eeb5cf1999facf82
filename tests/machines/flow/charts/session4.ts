// XState 4: history, invoked services and machines, choose, forbidden and wildcard events.
import { actions, createMachine } from "npm:xstate@4";

const { choose, log, pure, raise, sendParent } = actions;

export default createMachine({
  id: "session",
  predictableActionArguments: true,
  initial: "login",
  states: {
    login: {
      invoke: { id: "form", src: "loginForm", onDone: { target: "work", cond: "isMember" }, onError: { actions: log("no") } },
      on: { GUEST: undefined, "*": { actions: "beep" } },
    },
    work: {
      initial: "mail.inbox",
      onDone: "bye",
      on: { LOCK: "locked", LOGOUT: "bye" },
      states: {
        mail: { initial: "inbox", states: { inbox: { on: { OPEN: "message" } }, message: { on: { CLOSE: { target: "inbox", internal: false } } } }, on: { CALENDAR: "calendar" } },
        calendar: { on: { MAIL: "mail", DONE: { target: "over", actions: [choose([{ cond: "isLate", actions: "warn" }]), pure(() => undefined), raise("X"), sendParent("OVER")] } } },
        over: { type: "final" },
        last: { type: "history", history: "deep", target: "calendar" },
      },
    },
    locked: { on: { UNLOCK: "work.last" }, after: { 600000: "bye" } },
    bye: { type: "final" },
  },
});
