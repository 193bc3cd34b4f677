// What can be saved: pictures with their heat map, and files of any kind.
"use strict";
(() => {
  const { displayName, formatShare } = window.cxr;
  const LEAST_WIDTH = 1024; // pixels, so that the words fit beneath a small image
  const stem = (name) => name.replace(/\.[a-z0-9]{1,5}$/i, "").replace(/[^\w-]+/g, "_") || "image";

  /** Save a blob as a file, which is named by the image and an ending. */
  function save(blob, name, ending) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = stem(name) + ending;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async function load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  }

  /** What is written beneath a saved picture. */
  function describePicture({ name, labels, warnings }, label, map, { run, notices }) {
    const share = formatShare(labels.find((row) => row.label === label).probability);
    const kind = map.has_evidence ? "heat map of" : "no heat map, no region raised the score of";
    const words = [`${name}: ${kind} ${displayName(label)}, ${share} (${run})`];
    if (warnings.length) {
      words.push(`May not be a chest radiograph like the training images: ${warnings.join("; ")}.`);
    }
    return [...words, ...notices];
  }

  /** An image as it is looked at, with a heat map and lines of words beneath, as a canvas. */
  async function paintPicture(picture, map, words, { slope, intercept, opacity }) {
    const grey = await load(picture);
    const larger = Math.max(1, LEAST_WIDTH / grey.naturalWidth);
    const [width, height] = [Math.round(grey.naturalWidth * larger), Math.round(grey.naturalHeight * larger)];
    const line = Math.round(width / 48), foot = Math.round(line * 1.5 * (words.length + 0.5));
    const canvas = Object.assign(document.createElement("canvas"), { width, height: height + foot });
    const pen = canvas.getContext("2d");
    pen.drawImage(grey, 0, 0, width, height);
    const pixels = pen.getImageData(0, 0, width, height);
    for (let k = 0; k < pixels.data.length; k += 1) { // every fourth value is the opacity
      if (k % 4 !== 3) pixels.data[k] = slope * pixels.data[k] + 255 * intercept;
    }
    pen.putImageData(pixels, 0, 0);
    pen.globalAlpha = opacity;
    if (map.has_evidence) pen.drawImage(await load(map.layer), 0, 0, width, height);
    pen.globalAlpha = 1;
    pen.fillStyle = "#000";
    pen.fillRect(0, height, width, foot);
    pen.fillStyle = "#fff";
    pen.font = `${line}px sans-serif`;
    words.forEach((text, row) => pen.fillText(text, line, height + line * 1.5 * (row + 1), width - 2 * line));
    return canvas;
  }

  window.cxr = { ...window.cxr, describePicture, paintPicture, save, stem };
})();
