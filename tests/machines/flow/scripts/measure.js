import { $$, done, result } from "/scripts/helpers.js";

await document.fonts.ready;
await Promise.all([...document.fonts].map((font) => font.load()));

const meet = (a, b) => a.x < b.right - 1 && b.x < a.right - 1 && a.y < b.bottom - 1 && b.y < a.bottom - 1;

/** A text's letters; its box would reach as high as the font's highest sign. */
function inkOf(text) {
  const { x, width } = text.getBBox(), size = parseFloat(getComputedStyle(text).fontSize);
  const baseline = Number(text.getAttribute("y"));
  return { x, right: x + width, y: baseline - 0.76 * size, bottom: baseline + 0.24 * size };
}

let texts = 0;
const problems = [];
for (const svg of $$("svg.flow")) {
  const name = svg.querySelector("title").textContent;
  const all = [...svg.querySelectorAll("text")].map((text) => [text, inkOf(text)]);
  texts += all.length;
  for (const [index, [text, ink]] of all.entries()) {
    for (const [other, beside] of all.slice(index + 1)) {
      if (meet(ink, beside)) problems.push(`${name}: ${text.textContent} over ${other.textContent}`);
    }
    const holders = text.closest(".flow-event, .flow-state").querySelectorAll(":scope > .flow-pill, :scope > .flow-box");
    const holder = [...holders].at(-1).getBBox();
    if (ink.x < holder.x - 1 || ink.right > holder.x + holder.width + 1) {
      problems.push(`${name}: ${text.textContent} sticks out`);
    }
  }
}
Object.assign(result, { texts, problems, fonts: [...document.fonts].map((font) => font.status) });
done();
