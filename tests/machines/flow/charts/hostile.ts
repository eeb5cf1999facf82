// Names that would like to be markup, DOT, another line, or somewhere else.
import { createMachine } from "npm:xstate@5";

const script = "<script>alert(1)</script>";
const image = '"><img src=x onerror=alert(1)>';
const style = "</svg></title><style>*{display:none}</style>";
const dot = '"};graph[bgcolor=red];{"';
const long = "A".repeat(10_000);
const words = "lorem ipsum ".repeat(900);
const marks = "Z" + "\u0301\u0316\u0334".repeat(300);

export default createMachine({
  id: "]]>" + image,
  description: words,
  initial: script,
  states: {
    [script]: { entry: [image, "${7*7}", "{{7*7}}", long], on: { [image]: dot, "javascript:alert(1)": "constructor" } },
    [dot]: { description: style, on: { GO: { target: "constructor", guard: style, actions: "--><b>" } } },
    "\\N\\G\\L": { tags: [image, long], on: { "\u202Eevil\u0000\u0007": "constructor", [long]: "constructor" } },
    "\u200b\u202e\u{1F4A9}𝕳é界": { on: { "&amp;&lt;": "toString", "line\none\u2028two": "مرحبا بالعالم" } },
    "مرحبا بالعالم": { description: "שלום", on: { "שלום עולם": marks } },
    [marks]: { on: { "👩‍👩‍👧‍👦👍🏽🇩🇪": "a\\.b" }, tags: ["界".repeat(200)] },
    "a.b": { on: { "__proto__": long }, invoke: { src: "\ud800", id: "x".repeat(5000) } },
    [long]: { type: "parallel", states: { [long + "1"]: { initial: "x", states: { x: {} } }, [words]: {} } },
    toString: { type: "final" },
    constructor: { on: { "<!--": "\u200b\u202e\u{1F4A9}𝕳é界" } },
  },
});
