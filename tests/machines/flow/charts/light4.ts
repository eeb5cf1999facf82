// XState 4: `cond`, `in`, activities, internal transitions, delays with functions.
import { assign, createMachine, send } from "npm:xstate@4";

export default createMachine({
  id: "light",
  predictableActionArguments: true,
  context: { cars: 0 },
  type: "parallel",
  states: {
    light: {
      initial: "red",
      states: {
        red: { activities: ["burnRed"], after: [{ delay: (context) => 1000 * context.cars, target: "green" }] },
        green: { onEntry: "startCounting", onExit: ["stopCounting"], after: { GREEN_TIME: [{ target: "yellow", cond: "isBusy" }, { target: "red" }] } },
        yellow: { after: { 3000: { target: "red", in: "#light.power.on" } } },
      },
      on: { CAR: { actions: assign({ cars: (context) => context.cars + 1 }), cond: (context) => context.cars < 99 }, NIGHT: ".yellow" },
    },
    power: {
      initial: "on",
      states: { on: { on: { FAIL: { target: "off", actions: send("ALARM", { to: "control" }) } } }, off: { on: { REPAIR: "on" } } },
    },
  },
});
