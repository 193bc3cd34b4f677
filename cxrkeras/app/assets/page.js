// Sends files one by one, keeps files and answers in this tab's memory, and tells Dash what to show.
"use strict";
(() => {
  const AT_ONCE = 3;
  const KEPT_PICTURES = 12; // images whose heat maps stay in memory
  const THUMBNAIL = 96; // pixels
  const files = new Map();
  const results = [];
  const pictures = new Map();
  const view = { open: null, beside: null, insisted: [], sort: "order" };
  let nextId = 1, running = 0, pushing = null, label = null;
  const queue = [];

  const $ = (id) => document.getElementById(id);
  const control = (id) => ($(id).matches("input") ? $(id) : $(id).querySelector("input"));
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const find = (id) => results.find((one) => one.id === id);
  const showView = () => set("view", { data: { ...view, insisted: [...view.insisted] } });

  function showResults() {
    pushing ??= setTimeout(() => {
      pushing = null;
      const ended = results.filter((one) => one.state === "done").length;
      const bar = $("progress");
      bar.max = Math.max(results.length, 1);
      bar.value = ended;
      bar.classList.toggle("busy", ended < results.length);
      set("results", { data: results.map((one) => ({ ...one })) });
    }, 120);
  }

  // Files go to the interface for programs, each in a request of its own.

  async function post(path, file, fields) {
    for (;;) {
      const form = new FormData();
      form.append("file", file, file.name);
      for (const [name, value] of Object.entries(fields)) form.append(name, value);
      const reply = await fetch(path, { method: "POST", body: form, headers: { Accept: "application/json" } });
      if (reply.status !== 429) return reply;
      await pause(1000 * (Number(reply.headers.get("Retry-After")) || 1));
    }
  }

  async function read(reply) {
    try {
      return await reply.json();
    } catch {
      return { title: "No answer", status: reply.status, detail: `The server answered with status ${reply.status}.` };
    }
  }

  async function unpack(url) { // a data URL is kept once, outside of what Dash passes around
    return URL.createObjectURL(await (await fetch(url)).blob());
  }

  async function answer(id) {
    const one = find(id);
    if (!one) return true;
    one.state = "on its way";
    showResults();
    let content;
    const largest = window.cxrLimits.file;
    if (files.get(id).size > largest) {
      content = { problem: { status: 413, detail: `more than the ${largest / 2 ** 20} MB that a file may have` } };
    } else {
      try {
        const reply = await post("/api/v1/predictions", files.get(id), { picture: THUMBNAIL });
        const body = await read(reply);
        content = reply.ok ? body.results[0] : { problem: body };
        if (content.picture) content.picture = await unpack(content.picture);
      } catch {
        if (await isReadable(files.get(id))) return false; // the server is gone
        content = { problem: { status: 0, detail: "the file cannot be read any more; was it moved?" } };
      }
    }
    const { name, ...rest } = content;
    Object.assign(one, rest, { state: "done" });
    showResults();
    return true;
  }

  async function isReadable(file) {
    try {
      await file?.slice(0, 1).arrayBuffer();
      return Boolean(file);
    } catch {
      return false;
    }
  }

  async function work() {
    running += 1;
    while (queue.length) {
      const id = queue.shift();
      const isAnswered = await answer(id);
      $("offline").hidden = isAnswered;
      if (isAnswered) continue;
      if (find(id)) {
        find(id).state = "waiting for the server";
        queue.unshift(id);
      }
      await pause(2000);
    }
    running -= 1;
  }

  function add(given) {
    for (const file of given) {
      const id = nextId++;
      files.set(id, file);
      results.push({ id, name: file.name, state: "waiting" });
      queue.push(id);
    }
    showResults();
    while (running < AT_ONCE && queue.length > running) work();
    if (!running && queue.length) work();
  }

  function clear() {
    if (!window.confirm(`Remove all ${results.length} images from this page?`)) return;
    queue.length = 0;
    const urls = results.map((one) => one.picture).filter(Boolean);
    setTimeout(() => urls.forEach((url) => URL.revokeObjectURL(url)), 2000); // once they are no longer shown
    for (const id of [...pictures.keys()]) forget(id);
    set("search", { value: "" });
    set("show", { value: "all" });
    results.length = 0;
    files.clear();
    Object.assign(view, { open: null, beside: null, insisted: [] });
    showView();
    showResults();
  }

  // One image: its heat maps are asked for when it is opened.

  function forget(id) {
    const own = pictures.get(id);
    if (!own) return;
    pictures.delete(id);
    for (const url of [own.picture, ...Object.values(own.maps).map((one) => one.layer)]) URL.revokeObjectURL(url);
  }

  async function explain(id) {
    if (!pictures.has(id)) {
      let body;
      try {
        const reply = await post("/api/v1/explanations", files.get(id), { label: "all", picture: window.cxrLimits.picture });
        body = await read(reply);
        if (!reply.ok) throw new Error(body.detail);
      } catch (error) {
        $("caption-a").textContent = `no heat maps: ${error.message}`;
        return;
      }
      const maps = {};
      for (const one of body.maps) {
        maps[one.label] = { has_evidence: one.has_evidence, layer: await unpack(one.layer) };
      }
      pictures.set(id, { picture: await unpack(body.picture), maps });
      for (const old of [...pictures.keys()]) {
        if (pictures.size > KEPT_PICTURES && old !== view.open && old !== view.beside) forget(old);
      }
    }
    if (!find(id)) return forget(id); // removed meanwhile
    const shown = {};
    for (const key of [view.open, view.beside]) if (pictures.has(key)) shown[key] = pictures.get(key);
    set("pictures", { data: shown });
  }

  function open(id, keepLabel) {
    const one = find(id);
    if (!one || !one.labels) return;
    view.open = id;
    if (view.beside === id) view.beside = null;
    set("beside", { value: view.beside });
    if (!keepLabel || !label) {
      const apart = window.cxrLimits.apart; // they have no place in an image
      chooseLabel((one.labels.find((each) => !apart.includes(each.label)) ?? one.labels[0]).label);
    }
    showView();
    explain(id);
    setTimeout(() => {
      if (!keepLabel) window.scrollTo(0, 0);
      document.querySelector("#heading-a .stage").focus({ preventScroll: true });
    }, 200);
  }

  function back() {
    const id = view.open;
    Object.assign(view, { open: null, beside: null });
    showView();
    setTimeout(() => {
      const row = document.querySelector(`[data-open="${id}"]`);
      if (row) row.focus();
    }, 150);
  }

  function step(by) { // in the order of the list, as it is sorted and filtered now
    const ids = [...document.querySelectorAll("[data-open]")].map((one) => Number(one.dataset.open));
    const place = ids.indexOf(view.open);
    const next = ids[place + by];
    if (next !== undefined) open(next, true);
  }

  function chooseLabel(name) {
    label = name;
    set("label", { value: name });
    markTiles();
  }

  function markTiles() {
    for (const tile of document.querySelectorAll(".tile")) {
      tile.classList.toggle("chosen", tile.dataset.label === label);
      tile.setAttribute("aria-pressed", tile.dataset.label === label);
    }
  }

  function sort(key) {
    view.sort = view.sort === key ? "order" : key;
    for (const head of document.querySelectorAll(".results th[id]")) {
      const own = head.id === `head-${view.sort}`;
      head.setAttribute("aria-sort", own ? (view.sort === "name" ? "ascending" : "descending") : "none");
    }
    showView();
  }

  // Window and level, opacity, zoom.

  function adjust() {
    const level = 0.5 + (50 - control("level").value) / 100;
    const slope = 2 ** ((control("width").value - 50) / 17);
    for (const part of document.querySelectorAll("#window feComponentTransfer > *")) {
      part.setAttribute("slope", slope);
      part.setAttribute("intercept", 0.5 - slope * level);
    }
    document.documentElement.style.setProperty("--heat", control("opacity").value / 100);
    return { slope, intercept: 0.5 - slope * level };
  }

  let place = { scale: 1, x: 0, y: 0 }; // of both images, so that they are compared at the same place

  function move(stage, to) {
    const scale = Math.min(Math.max(to.scale, 1), 12);
    const room = { x: (stage.clientWidth * (scale - 1)) / 2, y: (stage.clientHeight * (scale - 1)) / 2 };
    const x = Math.min(Math.max(to.x, -room.x), room.x), y = Math.min(Math.max(to.y, -room.y), room.y);
    place = { scale, x, y };
    for (const film of document.querySelectorAll(".film")) {
      film.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    }
  }

  function zoom(stage, factor, at) {
    const old = place;
    const scale = Math.min(Math.max(old.scale * factor, 1), 12);
    const grown = scale / old.scale;
    const middle = stage.getBoundingClientRect();
    const x = at ? at.x - middle.left - middle.width / 2 : 0, y = at ? at.y - middle.top - middle.height / 2 : 0;
    move(stage, { scale, x: x + (old.x - x) * grown, y: y + (old.y - y) * grown });
  }

  const fit = () => move(document.querySelector(".stage"), { scale: 1, x: 0, y: 0 });

  function reset() {
    for (const [key, value] of [["level", 50], ["width", 50], ["opacity", 55]]) set(key, { value });
    fit();
    setTimeout(adjust, 100);
  }

  function drag(event) {
    const stage = event.target.closest(".stage");
    if (!stage) return;
    const isWindow = event.button === 2;
    const from = { x: event.clientX, y: event.clientY }, start = place;
    const before = { level: Number(control("level").value), width: Number(control("width").value) };
    stage.setPointerCapture(event.pointerId);
    const follow = (now) => {
      const dx = now.clientX - from.x, dy = now.clientY - from.y;
      if (!isWindow) return move(stage, { ...start, x: start.x + dx, y: start.y + dy });
      const clip = (value) => Math.round(Math.min(Math.max(value, 0), 100));
      set("width", { value: clip(before.width - dx / 5) }); // to the right the window widens
      set("level", { value: clip(before.level - dy / 5) });
      setTimeout(adjust, 30);
    };
    const end = () => stage.removeEventListener("pointermove", follow);
    stage.addEventListener("pointermove", follow);
    stage.addEventListener("pointerup", end, { once: true });
    stage.addEventListener("pointercancel", end, { once: true });
  }

  // What can be taken away.

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  const formatShare = (share) =>
    share < 0.001 ? "<0.1 %" : share > 0.999 ? ">99.9 %" : `${(100 * share).toFixed(1)} %`;
  const stem = (name) => name.replace(/\.[a-z0-9]{1,5}$/i, "").replace(/[^\w-]+/g, "_") || "image";

  async function load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  }

  async function savePicture() {
    const own = pictures.get(view.open), one = find(view.open);
    if (!own || !one) return;
    const grey = await load(own.picture), heat = own.maps[label];
    const larger = Math.max(1, 1024 / grey.naturalWidth); // so that the words fit under a small image
    const [width, height] = [Math.round(grey.naturalWidth * larger), Math.round(grey.naturalHeight * larger)];
    const line = Math.round(width / 48);
    const row = one.labels.find((each) => each.label === label);
    const share = formatShare(row.probability);
    const kind = heat?.has_evidence ? "heat map of" : "no heat map: nothing in the image speaks for";
    const words = [`${one.name}: ${kind} ${label.replaceAll("_", " ")}, ${share} (${window.cxrLimits.run})`];
    if (one.warnings.length) words.push(`May be no chest radiograph like the training images: ${one.warnings.join("; ")}.`);
    words.push(...window.cxrLimits.notices);
    const foot = Math.round(line * 1.5 * (words.length + 0.5));
    const canvas = Object.assign(document.createElement("canvas"), { width, height: height + foot });
    const pen = canvas.getContext("2d");
    pen.drawImage(grey, 0, 0, width, height);
    const { slope, intercept } = adjust();
    const film = pen.getImageData(0, 0, width, height);
    for (let i = 0; i < film.data.length; i += 4) {
      for (let k = i; k < i + 3; k += 1) film.data[k] = slope * film.data[k] + 255 * intercept;
    }
    pen.putImageData(film, 0, 0);
    pen.globalAlpha = control("opacity").value / 100;
    if (heat && heat.has_evidence) pen.drawImage(await load(heat.layer), 0, 0, width, height);
    pen.globalAlpha = 1;
    pen.fillStyle = "#000";
    pen.fillRect(0, height, width, foot);
    pen.fillStyle = "#fff";
    pen.font = `${line}px sans-serif`;
    words.forEach((text, number) => pen.fillText(text, line, height + line * 1.5 * (number + 1), width - 2 * line));
    canvas.toBlob((blob) => save(blob, `${stem(one.name)}-${label.replace(" ", "_")}.png`));
  }

  async function saveReport() {
    const one = find(view.open);
    try {
      const reply = await post("/api/v1/reports", files.get(view.open), {});
      if (!reply.ok) throw new Error((await read(reply)).detail);
      save(await reply.blob(), `${stem(one.name)}-report.html`);
    } catch (error) {
      $("caption-a").textContent = `no report: ${error.message}`;
    }
  }

  // Events.

  // The system's theme until somebody chooses one here.
  const light = window.matchMedia("(prefers-color-scheme: light)");
  const theme = () => localStorage.getItem("theme") ?? (light.matches ? "light" : "dark");

  function paint() {
    document.documentElement.dataset.theme = theme();
    if ($("theme")) $("theme").textContent = theme() === "dark" ? "Light theme" : "Dark theme";
  }

  function changeTheme() {
    localStorage.setItem("theme", theme() === "dark" ? "light" : "dark");
    paint();
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, [data-open]");
    if (!target) return;
    const data = target.dataset;
    if (data.open) open(Number(data.open));
    else if (data.sort) sort(data.sort);
    else if (data.label) chooseLabel(data.label);
    else if (data.go === "back") back();
    else if (data.go) step(data.go === "next" ? 1 : -1);
    else if (data.insist) {
      view.insisted.push(Number(data.insist));
      showView();
    } else if (target.id === "reset") reset();
    else if (target.id === "clear") clear();
    else if (target.id === "save-picture") savePicture();
    else if (target.id === "save-report") saveReport();
    else if (target.id === "theme") changeTheme();
  });
  document.addEventListener("input", (event) => {
    if (event.target.type === "range") adjust();
  });
  document.addEventListener("change", (event) => {
    if (event.target.type === "radio" && event.target.closest("#label")) {
      label = event.target.value;
      markTiles();
    }
    if (event.target.id === "files") {
      add(event.target.files);
      event.target.value = "";
    }
  });
  document.addEventListener("keydown", (event) => {
    if (view.open === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input:not([type=radio], [type=range])")) return;
    if (event.target.closest(".dash-dropdown, .dash-dropdown-content")) return;
    const stage = event.target.closest(".stage");
    const pan = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    const first = stage ?? document.querySelector("#heading-a .stage");
    if (event.key === "n") step(1);
    else if (event.key === "p") step(-1);
    else if (event.key === "Escape") back();
    else if (event.key === "+" || event.key === "=") zoom(first, 1.25);
    else if (event.key === "-") zoom(first, 0.8);
    else if (event.key === "0") fit();
    else if (stage && pan) {
      move(stage, { ...place, x: place.x + pan[0], y: place.y + pan[1] });
    } else return;
    event.preventDefault();
  });
  document.addEventListener("pointerdown", drag);
  window.addEventListener("beforeunload", (event) => { // the results are in this tab alone
    if (results.length) event.preventDefault();
  });
  document.addEventListener("contextmenu", (event) => {
    if (event.target.closest(".stage")) event.preventDefault();
  });
  document.addEventListener("wheel", (event) => {
    const stage = event.target.closest(".stage");
    if (!stage) return;
    event.preventDefault();
    zoom(stage, event.deltaY < 0 ? 1.15 : 1 / 1.15, { x: event.clientX, y: event.clientY });
  }, { passive: false });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop")?.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop")?.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop")?.classList.remove("over");
    add(event.dataTransfer.files);
  });

  // Dash draws the page after this script has run; a file input is none of its components.
  paint();
  light.addEventListener("change", paint);
  new MutationObserver((changes, observer) => {
    if (!$("drop") || !$("theme")) return;
    observer.disconnect();
    $("drop").innerHTML = '<label for="files">Choose radiographs, or drop them here</label>' +
      '<input id="files" type="file" multiple accept=".png,.jpg,.jpeg,.dcm,image/png,image/jpeg,application/dicom,*/*">';
    paint();
  }).observe(document.body, { childList: true, subtree: true });
  window.cxr = {
    beside: (id) => {
      if (view.beside !== (id ?? null)) {
        view.beside = id ?? null;
        showView();
        if (view.open !== null) explain(id ?? view.open);
      }
      return window.dash_clientside.no_update;
    },
    limits: (data) => {
      window.cxrLimits = data;
      return window.dash_clientside.no_update;
    },
  };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { cxr: window.cxr });
})();
