// Flame graphs of the waited time: by who waited, by who held the GIL meanwhile, and each from the innermost frame.

// Flames narrower than this share of the whole are left out.
const NARROWEST = 0.0005;

// How long the waits between `from` and `to` took, as paths of names and their ns: by the role and the stack that
// waited, or by those that held the GIL.
function waitedPaths(data, process, from, to, chosen, byHolder) {
  const places = new Places(process);
  const sums = new Map();
  const add = (thread, stack, ticks) => {
    const key = places.role(thread) * 0x10000 + stack;
    sums.set(key, (sums.get(key) || 0) + ticks);
  };
  eachWait(process, from, to, chosen, (number, at, start, end) => {
    const lane = process.thread_lanes[number];
    const holder = process.gil_lanes[lane.values[at] >> 4];
    if (!byHolder || !holder) {
      add(number, lane.stacks[at], end - start);
      return;
    }
    eachLook(holder, start, end, (held, since, until) => {
      if (holder.values[held] !== FREE) add(holder.values[held], holder.stacks[held], until - since);
    });
  });
  return [...sums].map(([key, ticks]) => ({ role: places.names[Math.floor(key / 0x10000)], stack: key % 0x10000, ns: ticks * data.tick_ns }));
}

// Likewise the time without the GIL: below the innermost frame stands what was done there.
function withoutPaths(data, process, from, to, chosen) {
  const places = new Places(process);
  const sums = new Map();
  for (const number of chosen.filter((one) => process.python_lanes.includes(one))) {
    const lane = process.thread_lanes[number];
    eachStretch(lane, from, to, (at, start, end) => {
      const told = doingOf(process, lane.values[at]);
      if (!told) return;
      const key = `${places.role(number)} ${lane.stacks[at]} ${lane.values[at]}`;
      if (!sums.has(key)) sums.set(key, { role: places.names[places.role(number)], stack: lane.stacks[at], doing: doingText(told), ns: 0 });
      sums.get(key).ns += (end - start) * data.tick_ns;
    });
  }
  return [...sums.values()];
}

// The names of a stack's frames, innermost first; of the user's own code only, if that is wanted.
function flameNames(process, stack, own) {
  if (!own || stack < FIRST_STACK) return framesOf(process, stack);
  const mine = process.stacks[stack - FIRST_STACK].filter((at) => at >= 0 && !process.library.has(at));
  return mine.length ? mine.map((at) => frame(...process.frames[at])) : ["(library code)"];
}

// A tree of `name`, `ns` and `below`, largest first: the role first and then its stack outermost first, or, `inverted`,
// the innermost frame first and the role last.
function flameTree(process, paths, { own = false, inverted = false, all = "all waits" }) {
  const root = { name: all, ns: 0, below: new Map() };
  for (const { role, stack, ns, doing } of paths) {
    const inner = [...(doing ? [doing] : []), ...flameNames(process, stack, own)];
    let at = root;
    root.ns += ns;
    for (const name of inverted ? [...inner, role] : [role, ...inner.slice().reverse()]) {
      if (!at.below.has(name)) at.below.set(name, { name, ns: 0, below: new Map() });
      at = at.below.get(name);
      at.ns += ns;
    }
  }
  const told = (flame) => ({ name: flame.name, ns: flame.ns,
    below: [...flame.below.values()].filter((one) => one.ns >= root.ns * NARROWEST).sort((one, other) => other.ns - one.ns).map(told) });
  return told(root);
}

// Warm colours by name, so that the same function looks the same everywhere.
function flameColour(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${12 + (sum % 38)} ${72 + (sum >> 8) % 18}% ${62 + (sum >> 16) % 12}%)`;
}

// A click on a flame makes it as wide as the graph; a click on what is below it in the stack goes back. What has not
// `find` in its name is faint.
function flameGraph(root, find = "") {
  const graph = element("div", { class: "flame", role: "group", "aria-label": `Flame graph of ${root.name}` });
  const show = (path) => {
    graph.replaceChildren();
    const buttons = new Map();
    let deepest = 0;
    const add = (flame, depth, left, share, above) => {
      if (share < 0.0008) return;
      deepest = Math.max(deepest, depth);
      const made = element("button", { type: "button", class: has(flame.name, find) ? undefined : "faint", style: { top: `${depth * 22}px`, left: `${left * 100}%`,
        width: `calc(${share * 100}% - 1px)`, background: flameColour(flame.name),
        padding: share < 0.02 ? "0" : "0 6px" }, onclick: () => { tip.hide(); show(above.concat(flame)).focus(); } },
      share > 0.02 ? flame.name : "");
      made.setAttribute("aria-label", `${flame.name}, ${duration(flame.ns)}`);
      buttons.set(flame, made);
      graph.append(tipped(made, flame.name, `${duration(flame.ns)}, ${percent(flame.ns / Math.max(root.ns, 1))} of ${root.name}`));
    };
    const below = (flame, depth, left, share, above) => {
      let x = left;
      for (const next of flame.below) {
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
