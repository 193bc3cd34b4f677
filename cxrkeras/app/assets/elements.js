// The elements that show results: rows of the list, and the parts of the view of one image.
"use strict";
(() => {
  const { displayName, formatShare, isWithheld, rankLabels } = window.cxr;
  const NUM_HIGHEST = 3, NUM_FOUND = 10; // labels in a row of the list

  /** A new element; attributes that are false are left out, and texts become text whatever is in them. */
  function create(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== false) element.setAttribute(name, value);
    element.append(...children.flat());
    return element;
  }

  /** A row of the list; a withheld result has its reason in place of its labels. */
  function createRow(result, noFinding) {
    const picture = result.picture ? create("img", { src: result.picture, alt: "" }) : [];
    const name = result.labels ? create("button", { class: "link", "data-open": result.id }, result.name) : result.name;
    const cells = [create("td", { class: "thumbnail" }, picture), create("td", { class: "name" }, name)];
    if (result.problem) cells.push(create("td", { colspan: 2, class: "problem" }, result.problem.detail));
    else if (!result.labels) cells.push(create("td", { colspan: 2, class: "quiet" }, result.state));
    else if (isWithheld(result)) {
      cells.push(create("td", { colspan: 2, class: "problem" }, `Not shown: ${result.warnings.join("; ")}.`));
    } else cells.push(...createLabelCells(result, noFinding));
    return create("tr", {}, cells);
  }

  function createLabelCells(result, noFinding) {
    const rows = rankLabels(result, noFinding);
    const above = rows.filter((row) => row.is_found);
    const found = above
      .slice(0, NUM_FOUND)
      .map((row) => create("span", { class: row.label === noFinding ? "tag plain" : "tag" }, displayName(row.label)));
    if (above.length > NUM_FOUND) found.push(`and ${above.length - NUM_FOUND} more `);
    if (result.warnings.length) found.push(create("span", { class: "tag problem" }, "unlike the training images"));
    const [first, ...others] = rows
      .slice(0, NUM_HIGHEST)
      .map((row) => `${displayName(row.label)} ${formatShare(row.probability)}`);
    const rest = create("span", { class: "others" }, others.map((text) => `, ${text}`));
    return [
      create("td", { class: "found" }, found.length ? found : "none"),
      create("td", { class: "highest" }, first, rest),
    ];
  }

  /** Why an image may not be a chest radiograph, and the button that overrides it. */
  function createWarning(result) {
    const reasons = result.warnings.join("; ");
    const text = `${result.name} may not be a chest radiograph like the training images: ${reasons}.`;
    const button = create("button", { "data-override": result.id }, "Show the result anyway");
    return create("div", { class: "warning" }, create("p", {}, text), isWithheld(result) ? button : []);
  }

  /** The labels as choices, each with its probability as a bar and its threshold as a mark; of two results, both. */
  function createChoices(result, other, { no_finding: noFinding, unseen }) {
    const compared = new Map(other?.labels.map((row) => [row.label, row]));
    return rankLabels(result, noFinding).map((row) => {
      const { label } = row;
      const note = unseen.includes(label) ? " (no example in training)" : "";
      const rows = compared.has(label) ? [row, compared.get(label)] : [row];
      const name = create("span", { class: "label" }, displayName(label) + note);
      const text = create("span", { class: "row" }, name, rows.map(createBar));
      const choice = create("input", { type: "radio", name: "label", value: label });
      return create("label", { class: label === noFinding ? "choice apart" : "choice" }, choice, text);
    });
  }

  function createBar({ probability, threshold, is_found: isFound }) {
    const hasThreshold = threshold !== null;
    const text = hasThreshold ? `threshold ${formatShare(threshold)}` : "no threshold";
    const fill = create("span", { class: "fill", style: `width: ${100 * probability}%` });
    const mark = hasThreshold ? create("span", { class: "mark", style: `left: ${100 * threshold}%`, title: text }) : [];
    return create(
      "span",
      { class: isFound ? "bar-row above" : "bar-row", title: isFound && "above its threshold" },
      create("span", { class: "track" }, fill, mark),
      create("span", { class: "number" }, formatShare(probability)),
      create("span", { class: "threshold" }, text),
    );
  }

  const createLayer = (url, kind, alt) => create("img", { src: url, alt, class: kind, draggable: "false" });

  /** An image with a heat map stretched over all of it; a map without evidence is not drawn. */
  function createImage(result, picture, map, label) {
    const layers = [createLayer(picture, "grey", `radiograph ${result.name}`)];
    if (map?.has_evidence) layers.push(createLayer(map.layer, "heat", `heat map of ${displayName(label)}`));
    const ratio = result.width / result.height;
    const style = `aspect-ratio: ${ratio}; width: min(100cqw, 100cqh * ${ratio})`;
    return create("div", { class: "frame", style }, layers);
  }

  /** A small image with the heat map of one label, which it chooses. */
  function createTile(result, picture, map, { label, probability }) {
    const layers = [createLayer(picture, "grey", ""), map.has_evidence ? createLayer(map.layer, "heat", "") : []];
    return create(
      "button",
      { class: "tile", "data-label": label },
      create("span", { class: "frame", style: `aspect-ratio: ${result.width / result.height}` }, layers.flat()),
      create("span", {}, `${displayName(label)} ${formatShare(probability)}`),
      map.has_evidence ? [] : create("span", { class: "quiet empty" }, "no region raised its score"),
    );
  }

  window.cxr = { ...window.cxr, create, createChoices, createImage, createRow, createTile, createWarning };
})();
