// The theme button: light, dark, as the system. The server writes the chosen one into the page, so
// there is no flash; without this module the form asks the server to set the cookie.

const NEXT = { light: "dark", dark: "system", system: "light" };
const YEAR_S = 365 * 24 * 3600;

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-theme-switch]");
  if (!form) return;
  event.preventDefault();
  choose(form.querySelector("button").value);
});

function choose(theme) {
  const root = document.documentElement;
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  const maxAge = theme === "system" ? 0 : YEAR_S;
  document.cookie = `theme=${theme}; path=/; max-age=${maxAge}; samesite=lax`;
  for (const button of document.querySelectorAll("[data-theme-switch] button")) {
    button.value = NEXT[theme];
    button.setAttribute("aria-label", `Theme: ${theme}`);
  }
}
