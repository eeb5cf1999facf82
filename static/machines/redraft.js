// The form of a new migration: other versions get another draft, unless somebody has changed this one.

const pair = document.querySelector("[data-pair]");
const code = document.querySelector("[data-code]");
const button = pair.querySelector("[data-redraft]");

button.hidden = "isDraft" in pair.dataset;
code.addEventListener("input", () => (button.hidden = false));
pair.addEventListener("change", () => {
  const isUntouched = "isDraft" in pair.dataset && code.value === code.defaultValue;
  if (isUntouched) button.click();
  else button.hidden = false;
});
