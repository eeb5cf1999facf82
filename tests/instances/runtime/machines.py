"""Bundles for the tests: ES modules, as somebody would upload them."""

AUTHORIZERS = "export const allowRead = () => true;\nexport const allowWrite = () => true;\n"

COUNTER = (
    AUTHORIZERS
    + """
import { createMachine, assign } from "npm:xstate@5";
export default createMachine({
  initial: "on", context: { n: 0 },
  states: { on: { on: { add: { actions: assign({ n: ({ context }) => context.n + 1 }) } } } },
});
"""
)


def running(body: str) -> str:
    """A machine whose event `go` runs `body` while its transition is computed.

    `body` is the body of a function; what it returns becomes `context.result`.
    """
    return (
        AUTHORIZERS
        + """
import { createMachine, assign } from "npm:xstate@5";
const run = () => { BODY };
export default createMachine({
  initial: "on", context: {},
  states: { on: { on: { go: { actions: assign({ result: () => run() }) }, nop: {} } } },
});
""".replace("BODY", body)
    )


def serving(body: str) -> str:
    """A machine whose event `go` starts a service: an async function with `body`.

    Its result comes as an `E` line, in the `output` or the `error` of the event.
    """
    return (
        AUTHORIZERS
        + """
import { setup, fromPromise } from "npm:xstate@5";
const service = fromPromise(async ({ input, signal }) => { BODY });
export default setup({ actors: { service } }).createMachine({
  initial: "on", context: {},
  states: {
    on: { on: { go: "busy" } },
    busy: {
      invoke: { id: "service", src: "service", input: ({ event }) => event.input },
      on: { stop: "on" },
    },
  },
});
""".replace("BODY", body)
    )
