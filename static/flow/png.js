// Saves a picture as PNG. The browser draws the exported SVG into a canvas; a picture in a picture
// can't load anything, so the fonts are put into it.

const SCALE = 2, SIDE_MAX = 8192; // px per unit of the picture; more than some canvases can hold

/**
 * @param {string} address of the exported SVG
 * @param {string} name of the file
 * @param {Record<string, string>} fonts family → address of its woff2 file
 */
export async function savePng(address, name, fonts) {
  const link = document.createElement("a");
  const url = URL.createObjectURL(await toPng(address, fonts));
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** @returns {Promise<Blob>} */
export async function toPng(address, fonts) {
  const faces = await Promise.all(Object.entries(fonts).map(([family, file]) => fontFace(family, file)));
  // As text: a parsed document would fall under the page's policy, which knows no inline styles.
  const svg = (await (await fetch(address)).text()).replace("<style>", () => `<style>${faces.join("")}`);
  const [width, height] = ["width", "height"].map((name) => Number(new RegExp(` ${name}="([\\d.]+)"`).exec(svg)[1]));
  const scale = Math.min(SCALE, SIDE_MAX / Math.max(width, height));
  const image = new Image();
  image.src = await dataUrl(new Blob([svg], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob === null ? reject(new Error("the picture is too large")) : resolve(blob)), "image/png");
  });
}

async function fontFace(family, file) {
  const data = await dataUrl(await (await fetch(file)).blob());
  return `@font-face { font-family: "${family}"; src: url(${data}) format("woff2"); font-weight: 100 800; }`;
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
