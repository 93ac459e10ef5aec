// Charts that need no axis to move: bars, the blame matrix and the histogram of waits.

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
