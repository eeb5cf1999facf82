/** A context of 5 KB that changes a little with every event: what larger instances cost. */
import { assign, setup } from "xstate";

type Item = { id: number; title: string; isDone: boolean };
type Context = { items: Item[]; public: { count: number } };

const ITEMS = 60;

export default setup({
  types: { context: {} as Context, events: {} as { type: "next" } },
}).createMachine({
  context: {
    items: Array.from({ length: ITEMS }, (_, id) => ({
      id,
      title: `An item with a title of usual length, number ${id}`,
      isDone: false,
    })),
    public: { count: 0 },
  },
  on: {
    next: {
      actions: assign(({ context }) => {
        const count = context.public.count + 1;
        const items = context.items.map((item) =>
          item.id === count % ITEMS ? { ...item, isDone: !item.isDone } : item,
        );
        return { items, public: { count } };
      }),
    },
  },
});

export const allowRead = () => true;
export const allowWrite = ({ authContext }: { authContext: { sub?: string } }) =>
  authContext.sub !== undefined;
