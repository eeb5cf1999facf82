import { toPng } from "/static/flow/png.js";
import { done, result } from "/scripts/helpers.js";

const blob = await toPng("/export.svg", {
  Inter: "/static/site/fonts/inter.woff2",
  "JetBrains Mono": "/static/site/fonts/jetbrains-mono.woff2",
});
const bitmap = await createImageBitmap(blob);
const { width, height } = bitmap;
const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
context.drawImage(bitmap, 0, 0);
const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
Object.assign(result, { type: blob.type, width, height, colours: new Set(pixels).size });
done();
