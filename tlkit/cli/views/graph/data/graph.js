"use strict";
// The page of `tlkit inspect --graph`: which nodes are shown is ours, where they stand is dagre's.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NAME = 0, TYPE = 1, MODULE = 2, READ = 3, MADE = 4, WEIGHTS = 5, MACS = 6, ALIVE = 7, UNIT = 8;
  const operations = data.operations, groups = data.groups;
  const opened = new Set();
  const totals = groups.map(() => ({ macs: 0, weights: 0, types: new Map(), units: new Map() }));
  let macs = 0, picked = null, box = null, placed = new Map();

  operations.forEach((op, index) => {
    macs += op[MACS] || 0;
    for (let group = data.group[index]; group >= 0; group = groups[group][1]) {
      totals[group].macs += op[MACS] || 0;
      totals[group].weights += op[WEIGHTS];
      totals[group].types.set(op[TYPE], (totals[group].types.get(op[TYPE]) || 0) + 1);
      totals[group].units.set(op[UNIT], (totals[group].units.get(op[UNIT]) || 0) + 1);
    }
  });
  if (operations.length <= 60) groups.forEach((_, group) => opened.add(group));

  // The node that stands for an operation: itself, or the outermost closed group around it.
  function shownAs(index) {
    let shown = "o" + index;
    for (let group = data.group[index]; group >= 0; group = groups[group][1]) if (!opened.has(group)) shown = "g" + group;
    return shown;
  }
  const parentOf = (id) => (id[0] === "o" ? data.group[+id.slice(1)] : groups[+id.slice(1)][1]);
  const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  function count(number) {
    for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (number >= size) return (number / size).toPrecision(3) + unit;
    return String(number);
  }

  function layout() {
    const graph = new dagre.graphlib.Graph({ compound: true, multigraph: false });
    graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: 34, marginx: 16, marginy: 16 });
    graph.setDefaultEdgeLabel(() => ({}));
    const ids = new Set(operations.map((_, index) => shownAs(index)));
    for (const id of ids) {
      const index = +id.slice(1), op = operations[index];
      const lines = id[0] === "o" ? [op[TYPE], op[NAME]] : [groups[index][0], groups[index][2] + " operations"];
      const shown = lines.map((line) => short(line, 30));
      graph.setNode(id, { lines: shown, width: 16 + 7 * Math.max(...shown.map((line) => line.length)), height: 38 });
      for (let below = id, above = parentOf(id); above >= 0; below = "c" + above, above = groups[above][1]) {
        if (!graph.hasNode("c" + above)) graph.setNode("c" + above, { lines: [short(groups[above][0], 40)] });
        graph.setParent(below, "c" + above);
      }
    }
    for (const [start, end, value] of data.edges) {
      const from = shownAs(start), to = shownAs(end);
      if (from === to) continue;
      const known = graph.edge(from, to);
      if (known) known.values.add(value);
      else graph.setEdge(from, to, { values: new Set([value]) });
    }
    dagre.layout(graph);
    return graph;
  }

  function make(kind, attributes, ...inside) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  }

  function fill(id) {
    const way = document.getElementById("colour").value, index = +id.slice(1), single = id[0] === "o";
    if (way === "cost") {
      const share = macs ? (single ? operations[index][MACS] || 0 : totals[index].macs) / macs : 0;
      return share ? `color-mix(in srgb, #d9480f ${Math.round(8 + 80 * Math.sqrt(share))}%, var(--panel))` : "var(--panel)";
    }
    if (way === "unit") {
      const units = single ? [operations[index][UNIT]] : [...totals[index].units].sort((a, b) => b[1] - a[1]).map((item) => item[0]);
      const mixed = units.length > 1 ? 30 : 60;
      return units[0] ? `color-mix(in srgb, var(--${units[0]}) ${mixed}%, var(--panel))` : "var(--panel)";
    }
    const type = single ? operations[index][TYPE] : [...totals[index].types].sort((a, b) => b[1] - a[1])[0][0];
    let hue = 7;
    for (const letter of type) hue = (hue * 31 + letter.charCodeAt(0)) % 360;
    return `color-mix(in srgb, hsl(${hue} 60% 50%) 35%, var(--panel))`;
  }

  function node(id, at) {
    const group = make("g", { class: "node" + (id[0] === "g" ? " group" : "") + (id === picked ? " picked" : ""), transform: `translate(${at.x} ${at.y})`, "data-id": id });
    group.append(make("rect", { x: -at.width / 2, y: -at.height / 2, width: at.width, height: at.height, rx: 6, style: `fill: ${fill(id)}` }));
    at.lines.forEach((line, row) => group.append(make("text", { class: row ? "small" : "", "text-anchor": "middle", y: row ? 12 : -3 }, line)));
    group.addEventListener("click", () => (id[0] === "g" ? toggle(+id.slice(1)) : pick(id)));
    return group;
  }

  const MOST = 300; // nodes that dagre lays out while one waits
  function say(text) {
    const told = document.createElement("p");
    told.textContent = text;
    document.getElementById("about").replaceChildren(told);
  }
  // Open groups; where that would show too much at once, say so and leave all as it was.
  function openAll(wanted) {
    const before = [...opened];
    wanted.forEach((group) => opened.add(group));
    if (new Set(operations.map((_, index) => shownAs(index))).size > MOST) {
      opened.clear();
      before.forEach((group) => opened.add(group));
      say(`That would be over ${MOST} boxes: open modules one by one, or find an operation.`);
      return false;
    }
    return true;
  }

  function draw() {
    const view = document.getElementById("view"), graph = layout();
    placed = new Map();
    view.replaceChildren(make("defs", {}, make("marker", { id: "end", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, make("path", { d: "M0 0L8 4L0 8z" }))));
    const ids = graph.nodes();
    for (const id of ids.filter((item) => item[0] === "c")) {
      const at = graph.node(id);
      const cluster = make("g", { class: "cluster", "data-id": id });
      cluster.append(make("rect", { x: at.x - at.width / 2, y: at.y - at.height / 2, width: at.width, height: at.height, rx: 8 }));
      cluster.append(make("text", { class: "small", x: at.x - at.width / 2 + 6, y: at.y - at.height / 2 + 12 }, at.lines[0]));
      cluster.addEventListener("click", () => toggle(+id.slice(1)));
      view.append(cluster);
    }
    for (const edge of graph.edges()) {
      const { points, values } = graph.edge(edge);
      const touched = edge.v === picked || edge.w === picked;
      const path = make("path", { class: "edge" + (touched ? " picked" : ""), "marker-end": "url(#end)", d: "M" + points.map((point) => `${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("L") });
      path.append(make("title", {}, [...values].slice(0, 8).join("\n")));
      view.append(path);
    }
    for (const id of ids.filter((item) => item[0] !== "c")) {
      placed.set(id, graph.node(id));
      view.append(node(id, graph.node(id)));
    }
    const size = graph.graph();
    if (!box) box = { x: 0, y: 0, width: size.width || 100, height: size.height || 100 };
    whole = size;
    frame();
  }
  let whole = null;
  const frame = () => document.getElementById("view").setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
  // The whole, never larger than life; less of it, from its top, where `least` pixels a unit leave no room for all.
  function fit(least = 0) {
    const area = document.getElementById("view").getBoundingClientRect(), { width, height } = whole;
    const scale = Math.max(Math.min(area.width / width || 1, area.height / height || 1, 1), least);
    const seen = [area.width / scale || width, area.height / scale || height];
    box = { x: (width - seen[0]) / 2, y: Math.min(0, (height - seen[1]) / 2), width: seen[0], height: seen[1] };
    frame();
  }
  function toggle(group) {
    const before = placed.get("g" + group);
    if (opened.has(group)) opened.delete(group);
    else if (!openAll([group])) return;
    draw();
    if (!before) centre("g" + group);
  }
  function centre(id) {
    const at = placed.get(id);
    if (!at) return;
    const width = Math.min(whole.width, 900), height = Math.min(whole.height, 600);
    box = { x: at.x - width / 2, y: at.y - height / 2, width, height };
    frame();
  }
  function pick(id) {
    picked = id;
    const op = operations[+id.slice(1)];
    const share = macs && op[MACS] ? ` (${((100 * op[MACS]) / macs).toPrecision(3)} %)` : "";
    const rows = [["operation", op[NAME]], ["type", op[TYPE]], ["module", op[MODULE]], ["inputs", op[READ]], ["outputs", op[MADE]], ["weights", op[WEIGHTS] ? count(op[WEIGHTS]) : ""], ["MACs", op[MACS] === null ? "not known" : op[MACS] ? count(op[MACS]) + share : ""], ["bytes alive", op[ALIVE] === null ? "" : count(op[ALIVE]) + "B"], ["predicted unit", op[UNIT]]];
    const list = document.createElement("dl");
    for (const [name, value] of rows) if (value) {
      const term = document.createElement("dt"), about = document.createElement("dd");
      term.textContent = name;
      about.textContent = value;
      list.append(term, about);
    }
    document.getElementById("about").replaceChildren(list);
    draw();
  }
  function reveal(index) {
    const around = [];
    for (let group = data.group[index]; group >= 0; group = groups[group][1]) around.push(group);
    if (!openAll(around)) { // make room: nothing else stays open
      opened.clear();
      openAll(around);
    }
    pick("o" + index);
    centre("o" + index);
  }
  function find() {
    const wanted = document.getElementById("find").value.trim().toLowerCase(), found = document.getElementById("found");
    found.replaceChildren();
    if (!wanted) return;
    let more = 0;
    operations.forEach((op, index) => {
      if (![op[NAME], op[TYPE], op[MODULE]].some((text) => text.toLowerCase().includes(wanted))) return;
      if (found.childElementCount >= 24) { more += 1; return; }
      const button = document.createElement("button");
      button.textContent = `${op[TYPE]} ${short(op[NAME], 40)}`;
      button.addEventListener("click", () => reveal(index));
      found.append(button);
    });
    const said = document.createElement("span");
    said.textContent = found.childElementCount ? (more ? `and ${more} more` : "") : "nothing is named so";
    found.append(said);
  }

  document.getElementById("find").addEventListener("input", find);
  document.getElementById("colour").addEventListener("change", draw);
  document.getElementById("fit").addEventListener("click", () => fit());
  document.getElementById("close").addEventListener("click", () => { opened.clear(); box = null; draw(); });
  document.getElementById("open").addEventListener("click", () => {
    const closed = new Set(operations.map((_, index) => shownAs(index)).filter((id) => id[0] === "g"));
    if (!openAll([...closed].map((id) => +id.slice(1)))) return;
    box = null;
    draw();
  });
  const view = document.getElementById("view");
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const by = event.deltaY > 0 ? 1.15 : 1 / 1.15, area = view.getBoundingClientRect();
    const x = (event.clientX - area.left) / area.width, y = (event.clientY - area.top) / area.height;
    box = { x: box.x + box.width * x * (1 - by), y: box.y + box.height * y * (1 - by), width: box.width * by, height: box.height * by };
    frame();
  }, { passive: false });
  let held = null;
  view.addEventListener("pointerdown", (event) => { held = { x: event.clientX, y: event.clientY, box }; });
  view.addEventListener("pointermove", (event) => {
    if (!held || !(event.buttons & 1)) return;
    const area = view.getBoundingClientRect(), scale = Math.max(held.box.width / area.width, held.box.height / area.height);
    box = { ...held.box, x: held.box.x - (event.clientX - held.x) * scale, y: held.box.y - (event.clientY - held.y) * scale };
    frame();
  });
  view.addEventListener("pointerup", () => { held = null; });
  if (operations.every((op) => !op[UNIT])) document.querySelector("#colour option[value=unit]").remove();
  // A graph within one module shows that module's parts at once.
  for (let shown = ["g"]; shown.length === 1 && shown[0][0] === "g";) {
    if (shown[0].length > 1) opened.add(+shown[0].slice(1));
    shown = [...new Set(operations.map((_, index) => shownAs(index)))];
  }
  draw();
  fit(0.9);
})();
