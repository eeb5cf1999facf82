// Steps that are machines of their own, one after the other, each with final states.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "wizard",
  initial: "address",
  states: {
    address: {
      initial: "editing",
      onDone: "delivery",
      states: {
        editing: { on: { CHANGE: { actions: "setField" }, SUBMIT: "validating" } },
        validating: { invoke: { src: "validateAddress", onDone: "valid", onError: "rejected" } },
        rejected: { tags: ["error"], on: { CHANGE: { target: "editing", actions: "setField" } } },
        valid: { type: "final" },
      },
    },
    delivery: {
      initial: "standard",
      onDone: "payment",
      on: { BACK: "address" },
      states: {
        standard: { on: { EXPRESS: "express", NEXT: "chosen" } },
        express: { on: { STANDARD: "standard", NEXT: "chosen" } },
        chosen: { type: "final" },
      },
    },
    payment: {
      initial: "choosing",
      onDone: "complete",
      on: { BACK: "delivery" },
      states: {
        choosing: { on: { CARD: "card", INVOICE: "invoice" } },
        card: { invoke: { src: "authorise", onDone: "paid", onError: "choosing" } },
        invoice: { always: [{ guard: "hasGoodCredit", target: "paid" }, "choosing"] },
        paid: { type: "final" },
      },
    },
    complete: { type: "final" },
  },
});
