// What the scripts of test_browser.py share: they put what they have seen into `result`.

export const $ = (selector) => document.querySelector(selector);
export const $$ = (selector) => [...document.querySelectorAll(selector)];
export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const result = {};

/** Send the result; everything that follows is not seen any more. */
export function done() {
  return fetch("/result", { method: "POST", body: JSON.stringify(result) });
}

export function press(key, target = document.activeElement) {
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

export function click(element) {
  element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
}

addEventListener("unhandledrejection", (event) => fail(event.reason));
addEventListener("error", (event) => fail(event.error));

function fail(error) {
  result.error = String(error?.stack ?? error);
  done();
}
