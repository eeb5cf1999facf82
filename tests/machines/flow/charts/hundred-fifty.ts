// Generated: 150 states, as many transitions, three levels.
import { createMachine } from "npm:xstate@5";

const phases = ["intake", "screening", "underwriting", "pricing", "offer", "contract", "funding", "servicing", "collections", "closing"];
const checks = (names: string[]) =>
  Object.fromEntries(names.map((name) => [name, {
    initial: "missing",
    states: {
      missing: { on: { RECEIVED: "checking" } },
      checking: { invoke: { src: `${name}Check`, onDone: "ok", onError: "missing" } },
      ok: { type: "final" },
    },
  }]));

const phase = (name: string, next: string) => ({
  initial: "start",
  onDone: next,
  on: { ABORT: "aborted" },
  states: {
    start: { entry: `open ${name}`, on: { BEGIN: "gather" } },
    gather: { type: "parallel", onDone: "review", states: checks(["papers", "identity"]) },
    review: { on: { APPROVE: "approved", REJECT: "rework" } },
    rework: { after: { 86400000: "review" }, on: { RESUBMIT: "gather" } },
    approved: { type: "final" },
  },
});

export default createMachine({
  id: "loan",
  initial: "intake",
  states: {
    ...Object.fromEntries(phases.map((name, i) => [name, phase(name, phases[i + 1] ?? "appraisal")])),
    appraisal: { initial: "open", onDone: "done", states: { open: { on: { RATE: "rated" } }, disputed: { on: { SETTLE: "rated" } }, rated: { on: { DISPUTE: "disputed" }, after: { 1000: "kept" } }, kept: { type: "final" }, shelved: { on: { REOPEN: "open" } }, appealed: { always: "disputed" } } },
    done: { type: "final" },
    aborted: { type: "final" },
  },
} as never);
