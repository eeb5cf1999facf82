// Guards made of guards, with parameters, and about other regions.
import { and, not, or, setup, stateIn } from "npm:xstate@5";

export default setup({
  guards: { isAdmin: () => true, isOwner: () => true, hasRole: (_: unknown, _params: { role: string }) => true, isLocked: () => false },
}).createMachine({
  id: "guards",
  type: "parallel",
  states: {
    document: {
      initial: "draft",
      states: {
        draft: {
          on: {
            PUBLISH: { guard: and(["isOwner", or(["isAdmin", not("isLocked")])]), target: "published" },
            REVIEW: { guard: { type: "hasRole", params: { role: "editor" } }, target: "review" },
          },
        },
        review: { on: { ACCEPT: { guard: and([stateIn({ lock: "open" }), "isOwner"]), target: "published" }, REJECT: { guard: not("isLocked"), target: "draft" } } },
        published: { on: { RETRACT: { guard: ({ context, event }) => context.editors.includes(event.by), target: "draft" } } },
      },
    },
    lock: { initial: "open", states: { open: { on: { LOCK: "closed" } }, closed: { on: { UNLOCK: { guard: "isAdmin", target: "open" } } } } },
  },
});
