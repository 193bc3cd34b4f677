// Files on their way to the interface for programs, each in a request of its own.
"use strict";
(() => {
  const AT_ONCE = 3;
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  /** Post a file; where the server is busy, again after a while. */
  async function post(path, file, fields) {
    for (;;) {
      const form = new FormData();
      form.append("file", file, file.name);
      for (const [name, value] of Object.entries(fields)) form.append(name, value);
      const reply = await fetch(path, { method: "POST", body: form, headers: { Accept: "application/json" } });
      if (reply.status !== 429) return reply;
      await pause(Number(reply.headers.get("Retry-After")) || 1);
    }
  }

  /** The JSON of a reply, or problem details in its place. */
  async function read(reply) {
    try {
      return await reply.json();
    } catch {
      return { title: "No answer", status: reply.status, detail: `The server answered with status ${reply.status}.` };
    }
  }

  /** A data URL as the URL of a blob, which takes its memory once. */
  async function unpack(url) {
    return URL.createObjectURL(await (await fetch(url)).blob());
  }

  async function isReadable(file) {
    try {
      await file.slice(0, 1).arrayBuffer();
      return true;
    } catch {
      return false;
    }
  }

  /** The result of a file, with a small picture; null where the server cannot be reached. */
  async function predict(file, largest, side) {
    if (file.size > largest) {
      return { problem: { status: 413, detail: `more than the ${largest / 2 ** 20} MB that a file may have` } };
    }
    try {
      const reply = await post("/api/v1/predictions", file, { picture: side });
      const body = await read(reply);
      if (!reply.ok) return { problem: body };
      const { name, picture, ...content } = body.results[0];
      return picture ? { ...content, picture: await unpack(picture) } : content;
    } catch {
      if (await isReadable(file)) return null;
      return { problem: { status: 0, detail: "the file cannot be read any more; was it moved?" } };
    }
  }

  /** The picture of a file and the heat map of each label. Throws where there are none. */
  async function explain(file, side) {
    const reply = await post("/api/v1/explanations", file, { label: "all", picture: side });
    const body = await read(reply);
    if (!reply.ok) throw new Error(body.detail);
    const unpacked = body.maps.map(async (map) => [map.label, { ...map, layer: await unpack(map.layer) }]);
    return { picture: await unpack(body.picture), maps: Object.fromEntries(await Promise.all(unpacked)) };
  }

  /** Forget the pictures of an explanation. */
  function release({ picture, maps }) {
    for (const url of [picture, ...Object.values(maps).map((map) => map.layer)]) URL.revokeObjectURL(url);
  }

  /** A queue of results that `work` answers, a few at once; one for which it returns false is tried again. */
  function openQueue(work, showOffline) {
    const waiting = [];
    let running = 0;

    async function run() {
      running += 1;
      while (waiting.length) {
        const result = waiting.shift();
        const isDone = await work(result);
        showOffline(!isDone);
        if (isDone) continue;
        waiting.unshift(result);
        await pause(2);
      }
      running -= 1;
    }

    return {
      add(results) {
        waiting.push(...results);
        while (running < AT_ONCE && waiting.length) run();
      },
      clear: () => waiting.splice(0),
    };
  }

  window.cxr = { ...window.cxr, explain, openQueue, post, predict, read, release };
})();
