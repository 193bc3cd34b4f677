// The owner of the page's state: which files there are, what was answered, what is listed and what is open. The server
// gets files, and the results only where they are wanted as CSV.
"use strict";
(() => {
  const { chooseResults, describeProgress, displayName, formatCount, isAnswered, isWithheld, rankLabels } = window.cxr;
  const { create, createChoices, createImage, createRow, createTile, createWarning } = window.cxr;
  const { describePicture, explain, openQueue, paintPicture, post, predict, read, release, save } = window.cxr;
  const { fit, pan, readSliders, reset, zoom } = window.cxr;
  const NUM_EXPLAINED = 12; // images whose heat maps stay in memory
  const THUMBNAIL = 96; // pixels
  const DRAWN_AFTER = 100; // milliseconds, in which changes of the list come together

  const results = new Map(); // by id, in the order in which the files came
  const explained = new Map(); // by id: picture and heat maps, the problem that there was, or nothing yet
  const listing = { text: "", kind: "all", sort: "order" };
  const changed = new Set(); // results whose rows are out of date
  let facts; // of the network and the server
  let listed = [], opened = null, compared = null, label = null, labelText = "";
  let nextId = 1, drawing = null;

  const $ = (id) => document.getElementById(id);
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const queue = openQueue(answer, (isOffline) => ($("offline").hidden = !isOffline));
  const nothing = create("tr", {}, create("td", { colspan: 4 }, "No image matches."));

  // Files and their answers.

  function add(files) {
    const added = [...files].map((file) => ({ id: nextId++, file, name: file.name, state: "waiting" }));
    for (const result of added) {
      results.set(result.id, result);
      update(result, {});
    }
    queue.add(added);
  }

  function update(result, content) {
    Object.assign(result, content);
    changed.add(result);
    drawing ??= setTimeout(drawList, DRAWN_AFTER);
  }

  async function answer(result) {
    if (!results.has(result.id)) return true; // removed
    update(result, { state: "uploading" });
    const content = await predict(result.file, facts.file_bytes, THUMBNAIL);
    update(result, content ?? { state: "waiting for the server" });
    return content !== null;
  }

  function clear() {
    if (!window.confirm(`Remove all ${formatCount(results.size, "image")} from this page?`)) return;
    queue.clear();
    for (const { picture } of results.values()) if (picture) URL.revokeObjectURL(picture);
    for (const id of [...explained.keys()]) forget(id);
    results.clear();
    changed.clear();
    set("search", { value: "" });
    set("show", { value: "all" });
    drawList();
  }

  // The list.

  function drawList() {
    clearTimeout(drawing);
    drawing = null;
    for (const result of changed) result.row = createRow(result, facts.no_finding);
    changed.clear();
    const all = [...results.values()], ended = all.filter(isAnswered).length;
    listed = chooseResults(all, listing, facts.no_finding);
    arrange($("rows"), listed.length ? listed.map((result) => result.row) : [nothing]);
    $("overview").hidden = !all.length;
    $("count").textContent = `${listed.length.toLocaleString("en")} of ${formatCount(all.length, "image")}`;
    $("state").textContent = describeProgress(all);
    Object.assign($("progress"), { max: Math.max(all.length, 1), value: ended });
    $("progress").classList.toggle("busy", ended < all.length);
    if (opened) drawPosition();
  }

  /** Give an element these children. Those that stay in place are not touched, and keep the focus. */
  function arrange(parent, children) {
    const kept = new Set(children);
    for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
    let next = parent.firstChild;
    for (const child of children) {
      if (child === next) next = next.nextSibling;
      else parent.insertBefore(child, next);
    }
  }

  function sort(key) {
    listing.sort = listing.sort === key ? "order" : key;
    for (const head of document.querySelectorAll(".results th[id]")) {
      const isSorted = head.id === `head-${listing.sort}`;
      head.setAttribute("aria-sort", isSorted ? (listing.sort === "name" ? "ascending" : "descending") : "none");
    }
    drawList();
  }

  // One image, or two next to each other.

  // Whether a label has a place in an image, and was learned.
  const hasPlace = ({ label: name }) => name !== facts.no_finding && !facts.unseen.includes(name);

  function open(result, keepsLabel) {
    opened = result;
    if (compared === opened) compared = null;
    if (!keepsLabel) {
      label = (result.labels.find(hasPlace) ?? result.labels[0]).label;
      window.scrollTo(0, 0);
    }
    drawDetail();
    focusStage();
    loadMaps(result);
  }

  function back() {
    const { row } = opened;
    opened = compared = null;
    drawDetail();
    row.querySelector("button")?.focus();
  }

  const browsable = () => listed.filter((result) => result.labels);

  function step(by) { // in the order of the list, as it is sorted and filtered now
    const order = browsable();
    const next = order[order.indexOf(opened) + by];
    if (next) open(next, true);
  }

  function compare(id) {
    const result = results.get(id) ?? null;
    if (result === compared) return;
    compared = result;
    if (!opened) return;
    drawDetail();
    if (compared) loadMaps(compared);
  }

  function override(result) {
    update(result, { isOverridden: true });
    drawDetail();
    focusStage();
  }

  const focusStage = () => document.querySelector("#pane-a .stage").focus({ preventScroll: true });

  function drawDetail() {
    $("detail").hidden = !opened;
    if (!opened) return;
    const shown = compared && !isWithheld(compared) ? compared : null;
    const others = [...results.values()].filter((result) => result.labels && result !== opened);
    const options = others.map(({ id, name }) => ({ label: name, value: id }));
    set("compare", { value: compared?.id ?? null, options });
    drawPosition();
    $("about").replaceChildren(create("h2", {}, opened.name), create("p", { class: "quiet" }, describeSize(opened)));
    const warned = [opened, compared].filter((result) => result?.warnings.length);
    $("warnings").replaceChildren(...warned.map(createWarning));
    $("answer").hidden = $("save-picture").disabled = $("save-report").disabled = isWithheld(opened);
    $("compared").textContent = shown ? `Upper bars: ${opened.name}. Lower bars: ${shown.name}.` : "";
    $("pane-b").hidden = !compared;
    $("labels").replaceChildren(...createChoices(opened, shown, facts));
    filterLabels(labelText);
    $("find-label").hidden = !labelText && $("labels").scrollHeight <= $("labels").clientHeight;
    drawImages();
    drawTiles();
  }

  function drawPosition() {
    const order = browsable();
    const place = order.indexOf(opened) + 1;
    $("position").textContent = place ? `image ${place} of ${order.length}` : "";
  }

  function describeSize({ width, height }) {
    const size = `${width.toLocaleString("en")} x ${height.toLocaleString("en")} pixels`;
    const isShrunk = Math.max(width, height) > facts.picture_side;
    return isShrunk ? `${size}, shown with ${facts.picture_side.toLocaleString("en")} on the longer side` : size;
  }

  // Heat maps, which are asked for when an image is opened.

  async function loadMaps(result) {
    const own = explained.get(result.id);
    if (own && !own.problem) return; // there, or on their way
    explained.set(result.id, {});
    const found = await explain(result.file, facts.picture_side).catch((error) => ({ problem: error.message }));
    explained.set(result.id, found);
    for (const id of [...explained.keys()]) {
      const isShown = id === opened?.id || id === compared?.id;
      if (!results.has(id) || (explained.size > NUM_EXPLAINED && !isShown)) forget(id);
    }
    if (result === compared) drawImages();
    if (result !== opened) return;
    drawImages();
    drawTiles();
  }

  function forget(id) {
    const own = explained.get(id);
    explained.delete(id);
    if (own.maps) release(own);
  }

  function drawImages() {
    for (const [pane, result] of [["a", opened], ["b", compared]]) {
      const own = explained.get(result?.id) ?? {};
      const map = result && !isWithheld(result) ? own.maps?.[label] : undefined;
      $(`image-${pane}`).replaceChildren(...(own.picture ? [createImage(result, own.picture, map, label)] : []));
      $(`caption-${pane}`).textContent = result ? describeImage(result, own, map) : "";
    }
  }

  function describeImage({ name }, { picture, problem }, map) {
    if (problem) return `no heat maps: ${problem}`;
    if (!picture) return "loading";
    if (!map) return name;
    return `${name}: ${map.has_evidence ? "heat map of" : "no region raised the score of"} ${displayName(label)}`;
  }

  function drawTiles() {
    const { picture, maps } = explained.get(opened.id) ?? {};
    const seen = rankLabels(opened, facts.no_finding).filter(hasPlace).slice(0, facts.num_top);
    $("top").replaceChildren(...(picture ? seen.map((row) => createTile(opened, picture, maps[row.label], row)) : []));
    markLabel();
  }

  function chooseLabel(name) {
    label = name;
    drawImages();
    markLabel();
  }

  function markLabel() {
    for (const tile of document.querySelectorAll(".tile")) {
      tile.classList.toggle("chosen", tile.dataset.label === label);
      tile.setAttribute("aria-pressed", tile.dataset.label === label);
    }
    const list = $("labels");
    const chosen = [...list.querySelectorAll("input")].find((input) => input.value === label);
    if (!chosen) return;
    chosen.checked = true;
    const choice = chosen.parentElement; // in sight, without moving the page
    list.scrollTop = Math.min(list.scrollTop, choice.offsetTop);
    list.scrollTop = Math.max(list.scrollTop, choice.offsetTop + choice.offsetHeight - list.clientHeight);
  }

  function filterLabels(text) {
    labelText = text.toLowerCase();
    for (const choice of $("labels").children) {
      choice.hidden = !displayName(choice.querySelector("input").value).toLowerCase().includes(labelText);
    }
  }

  // What can be saved.

  async function savePicture() {
    const result = opened, { picture, maps } = explained.get(result.id) ?? {};
    if (!picture) return;
    const words = describePicture(result, label, maps[label], facts);
    const ending = `-${label.replace(/[^\p{L}\p{N}_.-]+/gu, "_")}.png`;
    const canvas = await paintPicture(picture, maps[label], words, readSliders());
    canvas.toBlob((blob) => save(blob, result.name, ending));
  }

  async function saveReport() {
    const result = opened;
    try {
      const reply = await post("/api/v1/reports", result.file, {});
      if (!reply.ok) throw new Error((await read(reply)).detail);
      save(await reply.blob(), result.name, "-report.html");
    } catch (error) {
      $("caption-a").textContent = `no report: ${error.message}`;
    }
  }

  /** What the table as CSV is made of. */
  function listAnswered() {
    const answered = [...results.values()].filter(isAnswered);
    return answered.map(({ name, labels, warnings, problem }) => ({ name, labels, warnings, problem }));
  }

  // Events.

  const BUTTONS = { back, clear, reset, "save-picture": savePicture, "save-report": saveReport };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button");
    if (!target) return;
    const { open: toOpen, override: toOverride, sort: key, label: name, step: by } = target.dataset;
    if (toOpen) open(results.get(Number(toOpen)));
    else if (toOverride) override(results.get(Number(toOverride)));
    else if (key) sort(key);
    else if (name) chooseLabel(name);
    else if (by) step(Number(by));
    else BUTTONS[target.id]?.();
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("#labels input")) chooseLabel(event.target.value);
    if (event.target.id !== "files") return;
    add(event.target.files);
    event.target.value = "";
  });
  document.addEventListener("keydown", (event) => {
    if (!opened || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input:not([type=radio], [type=range])")) return;
    if (event.target.closest(".dash-dropdown, .dash-dropdown-content")) return;
    const inside = event.target.closest(".stage"), stage = inside ?? document.querySelector(".stage");
    const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (event.key === "n") step(1);
    else if (event.key === "p") step(-1);
    else if (event.key === "Escape") back();
    else if (event.key === "+" || event.key === "=") zoom(stage, 1.25);
    else if (event.key === "-") zoom(stage, 0.8);
    else if (event.key === "0") fit();
    else if (inside && moves[event.key]) pan(stage, ...moves[event.key]);
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { // the results are in this tab alone
    if (results.size) event.preventDefault();
  });
  const markDrop = (isOver) => $("drop")?.classList.toggle("dragged", isOver);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    markDrop(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) markDrop(false);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    markDrop(false);
    add(event.dataTransfer.files);
  });

  // Dash draws the page after this script has run; a file input is not among its components.
  new MutationObserver((changes, observer) => {
    if (!$("drop")) return;
    observer.disconnect();
    facts = JSON.parse($("page").dataset.facts);
    const accept = ".png,.jpg,.jpeg,.dcm,image/png,image/jpeg,application/dicom,*/*";
    $("drop").append(
      create("label", { for: "files" }, "Choose radiographs, or drop them here"),
      create("input", { id: "files", type: "file", multiple: "", accept }),
    );
  }).observe(document.body, { childList: true, subtree: true });

  /** What Dash calls where its own components change. */
  const page = {
    compare,
    filterLabels: (text) => filterLabels(text ?? ""),
    filterList(text, kind) {
      Object.assign(listing, { text: text ?? "", kind });
      drawList();
    },
    listAnswered,
  };
  window.dash_clientside = { ...window.dash_clientside, page };
})();
