// How images are looked at: brightness and contrast, opacity of the heat map, zoom; of two images alike.
"use strict";
(() => {
  const MOST = 12; // times larger
  const DEFAULTS = { level: 50, width: 50, opacity: 55 };
  let place = { scale: 1, x: 0, y: 0 };

  const clip = (value, least, most) => Math.min(Math.max(value, least), most);
  const read = (id) => Number(document.querySelector(`input#${id}, #${id} input`).value);
  const setSlider = (id, value) => window.dash_clientside.set_props(id, { value });

  /** Slope and intercept of grey levels from 0 to 1, and opacity, as the sliders are. */
  function readSliders() {
    const level = 0.5 + (50 - read("level")) / 100;
    const slope = 2 ** ((read("width") - 50) / 17);
    return { slope, intercept: 0.5 - slope * level, opacity: read("opacity") / 100 };
  }

  function adjust() {
    const { slope, intercept, opacity } = readSliders();
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    document.documentElement.style.setProperty("--heat", opacity);
  }

  function move(stage, to) {
    const scale = clip(to.scale, 1, MOST);
    const room = { x: (stage.clientWidth * (scale - 1)) / 2, y: (stage.clientHeight * (scale - 1)) / 2 };
    place = { scale, x: clip(to.x, -room.x, room.x), y: clip(to.y, -room.y, room.y) };
    for (const image of document.querySelectorAll(".image")) {
      image.style.transform = `translate(${place.x}px, ${place.y}px) scale(${scale})`;
    }
  }

  const pan = (stage, x, y) => move(stage, { ...place, x: place.x + x, y: place.y + y });

  /** Enlarge around a point of the window, or around the middle. */
  function zoom(stage, factor, at) {
    const scale = clip(place.scale * factor, 1, MOST), grown = scale / place.scale;
    const box = stage.getBoundingClientRect();
    const x = at ? at.x - box.left - box.width / 2 : 0, y = at ? at.y - box.top - box.height / 2 : 0;
    move(stage, { scale, x: x + (place.x - x) * grown, y: y + (place.y - y) * grown });
  }

  const fit = () => move(document.querySelector(".stage"), { scale: 1, x: 0, y: 0 });

  function reset() {
    for (const [id, value] of Object.entries(DEFAULTS)) setSlider(id, value);
    fit();
    setTimeout(adjust, 100); // once Dash has moved the sliders
  }

  /** The left button moves, the right one changes brightness and contrast. */
  function drag(event) {
    const stage = event.target.closest(".stage");
    if (!stage) return;
    const from = { x: event.clientX, y: event.clientY }, start = place;
    const before = { level: read("level"), width: read("width") };
    stage.setPointerCapture(event.pointerId);
    const follow = (now) => {
      const dx = now.clientX - from.x, dy = now.clientY - from.y;
      if (event.button !== 2) return move(stage, { ...start, x: start.x + dx, y: start.y + dy });
      setSlider("width", Math.round(clip(before.width - dx / 5, 0, 100))); // to the right the window widens
      setSlider("level", Math.round(clip(before.level - dy / 5, 0, 100)));
      setTimeout(adjust, 30);
    };
    const end = () => stage.removeEventListener("pointermove", follow);
    stage.addEventListener("pointermove", follow);
    stage.addEventListener("pointerup", end, { once: true });
    stage.addEventListener("pointercancel", end, { once: true });
  }

  document.addEventListener("input", (event) => {
    if (event.target.type === "range") adjust();
  });
  document.addEventListener("pointerdown", drag);
  document.addEventListener("contextmenu", (event) => {
    if (event.target.closest(".stage")) event.preventDefault();
  });
  document.addEventListener("wheel", (event) => {
    const stage = event.target.closest(".stage");
    if (!stage) return;
    event.preventDefault();
    zoom(stage, event.deltaY < 0 ? 1.15 : 1 / 1.15, { x: event.clientX, y: event.clientY });
  }, { passive: false });

  window.cxr = { ...window.cxr, fit, pan, readSliders, reset, zoom };
})();
