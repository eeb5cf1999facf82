// About forty states: what a shop does with an order.
import { createMachine } from "npm:xstate@5";

export default createMachine({
  id: "orderProcess",
  initial: "draft",
  on: { ABORT: { target: ".aborted", actions: "tellCustomer" } },
  states: {
    draft: { on: { ADD: { actions: "addItem" }, REMOVE: { actions: "removeItem" }, PLACE: { guard: "isComplete", target: "checking" } } },
    checking: {
      type: "parallel",
      onDone: "payment",
      states: {
        stock: {
          initial: "asking",
          states: { asking: { invoke: { src: "askStock", onDone: "there", onError: "missing" } }, missing: { on: { RESTOCKED: "asking" }, after: { 1209600000: "#orderProcess.aborted" } }, there: { type: "final" } },
        },
        fraud: {
          initial: "scoring",
          states: { scoring: { invoke: { src: "score", onDone: [{ guard: "isHarmless", target: "harmless" }, "suspicious"] } }, suspicious: { tags: "manual", on: { CLEAR: "harmless", CONFIRM: "#orderProcess.aborted" } }, harmless: { type: "final" } },
        },
        address: { initial: "unknown", states: { unknown: { invoke: { src: "geocode", onDone: "known", onError: "unclear" } }, unclear: { on: { CORRECTED: "unknown" } }, known: { type: "final" } } },
      },
    },
    payment: {
      initial: "waiting",
      onDone: "fulfilment",
      states: {
        waiting: { after: { 259200000: "reminded" }, on: { PAY: "charging" } },
        reminded: { entry: "remind", after: { 432000000: "#orderProcess.aborted" }, on: { PAY: "charging" } },
        charging: { invoke: { src: "charge", onDone: "paid", onError: "declined" } },
        declined: { on: { PAY: "charging", OTHER_CARD: "waiting" } },
        paid: { type: "final" },
      },
    },
    fulfilment: {
      initial: "picking",
      onDone: "delivered",
      states: {
        picking: { on: { PICKED: "packing", SHORT: "partial" } },
        partial: { on: { SPLIT: "packing", WAIT: "picking" } },
        packing: { initial: "box", onDone: "shipped", states: { box: { on: { PACKED: "label" } }, label: { invoke: { src: "printLabel", onDone: "ready" } }, ready: { type: "final" } } },
        shipped: { on: { SCAN: "inTransit" } },
        inTransit: { on: { ARRIVED: "handedOver", LOST: "lost" }, after: { 864000000: "lost" } },
        lost: { on: { FOUND: "inTransit", RESEND: "picking" } },
        handedOver: { type: "final" },
      },
    },
    delivered: { on: { RETURN: "returning" }, after: { 2592000000: "closed" } },
    returning: { initial: "announced", onDone: "refunded", states: { announced: { on: { RECEIVED: "inspecting" } }, inspecting: { on: { ACCEPT: "accepted", REJECT: "#orderProcess.delivered" } }, accepted: { type: "final" } } },
    refunded: { entry: "refund", always: "closed" },
    aborted: { entry: "refund", type: "final" },
    closed: { type: "final" },
  },
});
