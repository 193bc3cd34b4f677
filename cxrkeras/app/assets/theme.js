// The system's theme, until somebody chooses one here.
"use strict";
(() => {
  const light = window.matchMedia("(prefers-color-scheme: light)");
  const theme = () => localStorage.getItem("theme") ?? (light.matches ? "light" : "dark");

  function paint() {
    document.documentElement.dataset.theme = theme();
  }

  paint();
  light.addEventListener("change", paint);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    localStorage.setItem("theme", theme() === "dark" ? "light" : "dark");
    paint();
  });
})();
