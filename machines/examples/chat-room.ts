/**
 * A chat room: members join, talk and leave, see who is typing, and read the latest messages.
 * It closes itself after a week of silence.
 *
 *   create   {"slug": "lobby"}
 *   send     {"event": {"type": "join", "from": "ada"}}                    as ada
 *   send     {"event": {"type": "say", "from": "ada", "text": "Hello!"}}
 *
 * Subscribe to the instance, and every message arrives as it is said.
 */
import { assign, setup } from "xstate";
import type { AllowRead, AllowWrite } from "@statebacked/machine";

type Message = { from: string; text: string };

type Context = {
  public: {
    members: string[];
    messages: Message[]; // the latest ones, oldest first
    typing?: string;
  };
};

type Event =
  | { type: "join"; from: string }
  | { type: "leave"; from: string }
  | { type: "keystroke"; from: string }
  | { type: "say"; from: string; text: string };

// A context is kept small: the history of the instance has every message that was ever said.
const MESSAGES_SHOWN = 50;
const TEXT_LENGTH_MAX = 2000;
const WEEK = 7 * 24 * 60 * 60 * 1000;

export default setup({
  types: {
    context: {} as Context,
    events: {} as Event,
  },
  guards: {
    isText: (_, { text }: { text: string }) =>
      typeof text === "string" && text.length > 0 && text.length <= TEXT_LENGTH_MAX,
  },
  actions: {
    addMember: assign({
      public: ({ context }, { from }: { from: string }) => ({
        ...context.public,
        members: [...context.public.members.filter((member) => member !== from), from],
      }),
    }),
    removeMember: assign({
      public: ({ context }, { from }: { from: string }) => ({
        ...context.public,
        members: context.public.members.filter((member) => member !== from),
      }),
    }),
    addMessage: assign({
      public: ({ context }, message: Message) => ({
        ...context.public,
        messages: [...context.public.messages, message].slice(-MESSAGES_SHOWN),
      }),
    }),
    showTyping: assign({
      public: ({ context }, { from }: { from?: string }) => ({ ...context.public, typing: from }),
    }),
  },
}).createMachine({
  id: "chatRoom",
  context: { public: { members: [], messages: [] } },
  initial: "open",
  states: {
    open: {
      type: "parallel",
      on: {
        join: { actions: { type: "addMember", params: ({ event }) => ({ from: event.from }) } },
        leave: { actions: { type: "removeMember", params: ({ event }) => ({ from: event.from }) } },
      },
      states: {
        conversation: {
          initial: "going",
          states: {
            going: {
              // Each message enters the state again, and so starts the week anew.
              after: { [WEEK]: "#chatRoom.closed" },
              on: {
                say: {
                  guard: { type: "isText", params: ({ event }) => ({ text: event.text }) },
                  target: "going",
                  reenter: true,
                  actions: {
                    type: "addMessage",
                    params: ({ event }) => ({ from: event.from, text: event.text }),
                  },
                },
              },
            },
          },
        },
        keyboard: {
          initial: "quiet",
          states: {
            quiet: {
              entry: { type: "showTyping", params: {} },
            },
            typing: {
              entry: {
                type: "showTyping",
                params: ({ event }) => ({ from: "from" in event ? event.from : undefined }),
              },
              after: { 5000: "quiet" },
              on: { say: "quiet" },
            },
          },
          on: { keystroke: ".typing" },
        },
      },
    },
    closed: { type: "final" },
  },
});

const isMember = (context: Context, person?: string) =>
  person !== undefined && context.public.members.includes(person);

export const allowRead: AllowRead<Context> = ({ context, authContext }) =>
  isMember(context, authContext.sub);

export const allowWrite: AllowWrite<Context> = (request) => {
  const person = request.authContext.sub;
  if (person === undefined) {
    return false;
  }
  if (request.type === "initialization") {
    return true;
  }
  // Everybody speaks for themselves, and only members speak at all.
  const { event, context } = request;
  return event.from === person && (event.type === "join" || isMember(context, person));
};
