// States that are left at once, by guards.
import { assign, createMachine } from "npm:xstate@5";

export default createMachine({
  id: "vending",
  context: { money: 0, price: 150 },
  initial: "selling",
  states: {
    selling: {
      on: {
        COIN: { target: "counting", actions: assign({ money: ({ context, event }) => context.money + event.value }) },
        REFUND: "refunding",
      },
    },
    counting: {
      always: [
        { guard: ({ context }) => context.money > context.price, target: "changing" },
        { guard: ({ context }) => context.money === context.price, target: "vending" },
        { target: "selling" },
      ],
    },
    changing: { invoke: { src: "returnChange", onDone: "vending" } },
    vending: { entry: "drop", after: { 1500: { target: "selling", actions: assign({ money: 0 }) } } },
    refunding: { entry: ["openTray", assign({ money: 0 })], always: "selling" },
  },
});
