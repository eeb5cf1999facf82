/**
 * Names, data and log lines that would like to be markup, another line, or wider than the page.
 *
 *   create   {"slug": "<128 letters>"}
 *   send     any of `eventTypes`                        each is logged, and stays in the context
 */
import { assign, createMachine } from "xstate";

const script = '"><script>alert(1)</script><img src=x onerror=alert(1)>';
const svg = "<svg onload=alert(1)><style>*{display:none}</style></svg>";
const template = "{{ 7|add:7 }}${7*7}{% now 'Y' %}";
const terminal = "\u001b[31mred\u001b[0m\u001b]0;title\u0007\u001b[2J";
const rightToLeft = "\u202Eevil\u2066 مرحبا בעולם";
const marks = "Z" + "\u0301\u0316\u0334".repeat(100);
const emoji = "👩‍👩‍👧‍👦👍🏽🇩🇪";
const long = "A".repeat(10_000);
const eventTypes = [script, svg, template, terminal, rightToLeft, marks, emoji, long];

const say = ({ event }) => {
  for (const level of ["log", "info", "warn", "error", "debug"]) console[level](event.type, long);
  console.log({ [script]: [svg, terminal], lines: "one\ntwo\u2028three" });
};
const keep = assign({
  last: ({ event }) => event.type,
  public: ({ context, event }) => ({ ...context.public, [event.type.slice(0, 200)]: event }),
});

export const allowRead = () => true;
export const allowWrite = () => true;

export default createMachine({
  id: script,
  initial: script,
  context: {
    [script]: svg,
    [long]: long,
    nested: { a: { b: { c: { d: [terminal, rightToLeft, { [emoji]: marks }] } } } },
    public: { [rightToLeft]: template },
  },
  on: Object.fromEntries(eventTypes.map((type) => [type, { actions: [keep, say] }])),
  states: {
    [script]: {
      description: svg,
      tags: [script, emoji],
      after: { 3_600_000: rightToLeft },
      on: { go: rightToLeft },
    },
    [rightToLeft]: { on: { go: long }, after: { 86_400_000: script } },
    [long]: { on: { go: script } },
  },
});
