// Charts that need no axis to move: bars, the blame matrix, the histogram of waits and the flame graph.

function stackedBar(parts) {
  const total = parts.reduce((sum, part) => sum + part.ns, 0) || 1;
  const legend = parts.map((part) => element("li", {},
    element("i", { style: { background: `var(--${part.colour})` } }),
    `${part.name} `, element("b", {}, `${duration(part.ns)}, ${percent(part.ns / total)}`)));
  const bar = parts.filter((part) => part.ns > 0).map((part) => tipped(
    element("span", { style: { flex: `${part.ns / total} 1 0`, background: `var(--${part.colour})` } }),
    part.name, `${duration(part.ns)}, ${percent(part.ns / total)}`, part.about));
  return [element("div", { class: "bar", "aria-hidden": "true" }, ...bar), element("ul", { class: "legend" }, ...legend)];
}

// The largest `most` names by their sum; what is left is counted under `rest`.
function ranked(rows, nameOf, most) {
  const sums = new Map();
  for (const row of rows) sums.set(nameOf(row), (sums.get(nameOf(row)) || 0) + row.ns);
  const names = [...sums.keys()].sort((one, other) => sums.get(other) - sums.get(one));
  const kept = names.length > most ? names.slice(0, most - 1) : names;
  return { kept, rest: names.length > kept.length ? `${names.length - kept.length} others` : null, sums };
}

function blameMatrix(blame, name) {
  const victims = ranked(blame, (row) => name(row.victim), 10);
  const culprits = ranked(blame, (row) => name(row.culprit), 8);
  const cells = new Map();
  for (const row of blame) {
    const victim = victims.kept.includes(name(row.victim)) ? name(row.victim) : victims.rest;
    const culprit = culprits.kept.includes(name(row.culprit)) ? name(row.culprit) : culprits.rest;
    const key = JSON.stringify([victim, culprit]);
    const cell = cells.get(key) || { ns: 0, waits: 0, max_ns: 0 };
    cells.set(key, { ns: cell.ns + row.ns, waits: cell.waits + row.waits, max_ns: Math.max(cell.max_ns, row.max_ns) });
  }
  const most = Math.max(...[...cells.values()].map((cell) => cell.ns), 1);
  const columns = [...culprits.kept, culprits.rest].filter((at) => at !== null);
  const lines = [...victims.kept, victims.rest].filter((at) => at !== null);
  const cellOf = (victim, culprit) => {
    const cell = cells.get(JSON.stringify([victim, culprit]));
    if (!cell) return element("td", { class: "none" }, "·");
    const share = cell.ns / most;
    const made = element("td", { style: { background: `rgba(var(--heat), ${0.08 + 0.62 * Math.sqrt(share)})` } },
      duration(cell.ns));
    return tipped(made, `${victim} waited ${duration(cell.ns)}`, `for ${culprit}`,
      `in ${plural(cell.waits, "wait")}, ${duration(cell.max_ns)} at most`);
  };
  return element("table", { class: "matrix" },
    element("thead", {}, element("tr", {}, element("td", {}, "waits ↓   holds →"),
      ...columns.map((culprit) => element("th", { scope: "col" }, ...breakable(culprit))))),
    element("tbody", {}, ...lines.map((victim) => element("tr", {}, element("th", { scope: "row" }, ...breakable(victim)),
      ...columns.map((culprit) => cellOf(victim, culprit))))));
}

function histogram(bars) {
  const [wide, high, left, foot] = [560, 230, 40, 26];
  const total = bars.reduce((sum, bar) => ({ waits: sum.waits + bar.waits, ns: sum.ns + bar.ns }), { waits: 0, ns: 0 });
  const share = (bar, kind) => bar[kind] / Math.max(total[kind], 1);
  const most = Math.max(...bars.map((bar) => Math.max(share(bar, "waits"), share(bar, "ns"))));
  const step = (wide - left) / bars.length;
  const tall = high - foot - 8;
  const chart = drawn("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img",
    "aria-label": `Histogram of ${plural(total.waits, "wait")} on a logarithmic scale` });
  for (const part of [0, 0.5, 1]) {
    const y = high - foot - part * tall;
    chart.append(drawn("line", { class: "axis", x1: left, x2: wide, y1: y, y2: y }),
      drawn("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, `${(part * most * 100).toFixed(0)}%`));
  }
  bars.forEach((bar, at) => {
    const x = left + at * step;
    const group = drawn("g", {}, drawn("rect", { x, y: 0, width: step, height: high - foot, fill: "transparent" }));
    for (const [offset, kind, name] of [[0.1, "waits", "off-running"], [0.5, "ns", "waiting"]]) {
      const rise = (share(bar, kind) / most) * tall;
      group.append(drawn("rect", { x: x + offset * step, y: high - foot - rise, width: step * 0.4, height: rise, rx: 1.5,
        style: { fill: `var(--${name})` } }));
    }
    tipped(group, `${duration(bar.low)} to ${duration(bar.high)}`,
      `${plural(bar.waits, "wait")}, ${percent(share(bar, "waits"))} of all`,
      `${duration(bar.ns)} waited, ${percent(share(bar, "ns"))} of all`);
    chart.append(group);
    if (Number.isInteger(Math.round(Math.log10(bar.low) * 1e4) / 1e4)) {
      chart.append(drawn("line", { class: "axis", x1: x, x2: x, y1: high - foot, y2: high - foot + 5 }),
        drawn("text", { x, y: high - 7, "text-anchor": at ? "middle" : "start" }, duration(bar.low).replace(".00", "").replace(".0", "")));
    }
  });
  return chart;
}

// Warm colours by name, so that the same function looks the same everywhere.
function flameColour(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${12 + (sum % 38)} ${72 + (sum >> 8) % 18}% ${62 + (sum >> 16) % 12}%)`;
}

// A click on a flame makes it as wide as the graph; a click on what is below it in the stack goes back.
function flameGraph(root) {
  const graph = element("div", { class: "flame", role: "group", "aria-label": "Flame graph of the waited time" });
  const show = (path) => {
    graph.replaceChildren();
    const buttons = new Map();
    let deepest = 0;
    const add = (flame, depth, left, share, above) => {
      if (share < 0.0008) return;
      deepest = Math.max(deepest, depth);
      const made = element("button", { type: "button", style: { top: `${depth * 22}px`, left: `${left * 100}%`,
        width: `calc(${share * 100}% - 1px)`, background: flameColour(flame.name),
        padding: share < 0.02 ? "0" : "0 6px" }, onclick: () => { tip.hide(); show(above.concat(flame)).focus(); } },
      share > 0.02 ? flame.name : "");
      made.setAttribute("aria-label", `${flame.name}, ${duration(flame.ns)}`);
      buttons.set(flame, made);
      graph.append(tipped(made, flame.name, `${duration(flame.ns)}, ${percent(flame.ns / Math.max(root.ns, 1))} of all waiting`));
    };
    const below = (flame, depth, left, share, above) => {
      let x = left;
      for (const next of flame.below || []) {
        const wide = (next.ns / Math.max(flame.ns, 1)) * share;
        add(next, depth, x, wide, above);
        if (wide >= 0.0008) below(next, depth + 1, x, wide, above.concat(next));
        x += wide;
      }
    };
    path.forEach((flame, depth) => add(flame, depth, 0, 1, path.slice(0, depth)));
    below(path[path.length - 1], path.length, 0, 1, path);
    graph.style.height = `${(deepest + 1) * 22}px`;
    return buttons.get(path[path.length - 1]);
  };
  show([root]);
  return graph;
}
