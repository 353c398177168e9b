// Light or dark: as the system says, unless chosen here; the choice is kept.

import { byId } from "./dom.js";

const KEPT = "tidefeed-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function startTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const show = () => {
    const kept = localStorage.getItem(KEPT);
    const dark = kept ? kept === "dark" : system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
  };
  button.addEventListener("click", () => {
    localStorage.setItem(KEPT, root.dataset.theme === "dark" ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
}
