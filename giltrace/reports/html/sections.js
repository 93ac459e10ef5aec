// The sections of the page for one process, in the order in which a report answers.

const GOOD = ["parallel", "single-threaded", "io-bound-handoff", "idle", "free-threaded"];
const KIND_TEXT = {
  "cpu-bound-contention": "CPU-bound contention", "io-bound-handoff": "I/O-bound hand-off", convoy: "Convoy", hog: "GIL hog",
  parallel: "Parallel", "single-threaded": "Single-threaded", idle: "Idle", "free-threaded": "Free-threaded",
  "not-recorded": "Not recorded",
};

function card(title, about, options, ...children) {
  const head = title ? element("header", {}, element("h2", {}, title), about ? element("p", { class: "soft small" }, about) : null) : null;
  return element("section", { ...options, class: `card ${options.class || ""}` }, head, ...children);
}

// A table that scrolls by itself where it is too wide; headings are text, or text and a class.
function table(headings, rows, options = {}) {
  const head = headings.map((heading) => [heading].flat()).map(([text, kind]) => element("th", { scope: "col", class: kind }, text));
  const body = element("tbody", {}, ...rows);
  return { body, made: element("div", { class: "scroll" },
    element("table", options, element("thead", {}, element("tr", {}, ...head)), body)) };
}

const cells = (texts) => texts.map((text) => element("td", {}, text));

const narrow = () => matchMedia("(max-width: 560px)").matches;

const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);
const share = (part, all) => percent(part / Math.max(all, 1));

function verdictCard(process) {
  const { verdict } = process;
  const told = Object.entries(verdict.evidence).flatMap(([name, value]) => {
    const [term, value_] = figure(name, value);
    return [element("dt", {}, term), element("dd", {}, value_)];
  });
  const good = GOOD.includes(verdict.kind);
  return card("", "", { id: "verdict" }, element("div", { class: "verdict" },
    element("div", {},
      element("span", { class: `badge ${good ? "good" : "bad"}` }, KIND_TEXT[verdict.kind] || verdict.kind),
      element("p", { class: "summary" }, verdict.summary),
      verdict.advice ? element("p", { class: "advice" }, verdict.advice) : null,
      process.note ? element("p", { class: "soft small" }, process.note) : null),
    element("dl", { class: "evidence" }, ...told)));
}

function tiles(process) {
  const { threads, gils, what_if: whatIf } = process;
  const longest = Math.max(0, ...threads.map((thread) => thread.wait_max_ns));
  const all = [
    [duration(sum(threads, "waited_ns")), "waited, all threads together"],
    [share(sum(gils, "contended_ns"), process.duration_ns * Math.max(gils.length, 1)), "of the time somebody waited"],
    [share(sum(gils, "held_ns"), process.duration_ns * Math.max(gils.length, 1)), "of the time it was held"],
    [duration(longest), "the longest wait"],
    [whole(sum(gils, "handoffs")), "hand-offs"],
    [whole(sum(gils, "switch_requests")), "switch requests"],
    [`≤ ${whatIf.speedup_bound.toFixed(2)} x`, `without a GIL, on ${allowedText(whatIf)}`],
  ];
  return element("div", { class: "tiles" },
    ...all.map(([value, about]) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, about))));
}

function costCard(process) {
  const parts = process.wait_decomposition_ns;
  const past = process.has_sched ? "the holder was in C, past a switch request" : "past a switch request: in C, or no core";
  const offCore = [
    { name: "the holder was ready, but had no core", ns: parts.holder_no_core_ns, colour: "off-core" },
    { name: "the holder slept with the GIL", ns: parts.holder_blocked_ns, colour: "holding-blocked" },
  ];
  return card("Where the waited time went", "what the holder did meanwhile", { class: "half", id: "cost" }, ...stackedBar([
    { name: "the holder ran Python", ns: parts.holder_python_ns, colour: "python" },
    { name: past, ns: parts.holder_c_ns, colour: "native" },
    ...(process.has_sched ? offCore : []),
    { name: "nobody held it: wake-up latency", ns: parts.wake_up_ns, colour: "wake-up" },
  ]));
}

function findingsCard(process) {
  if (!process.findings.length) return null;
  const total = Math.max(sum(process.threads, "waited_ns"), 1);
  const row = (found) => element("tr", {}, element("td", { class: "left" }, tipped(element("b", {}, found.cause), found.cause, found.summary, found.advice)),
    ...cells([duration(found.ns), percent(found.ns / total), duration(found.path_ns), duration(found.since_ns)]),
    element("td", { class: "left wrap" }, siteName(found.victim) + (found.culprit ? `, to ${siteName(found.culprit)}` : "")));
  return card("What it was lost to", `and how much of that the end of the ${process.end_of} hung on (the critical path)`, { id: "findings" },
    table([["cause", "left"], "lost", "%", "critical path", "since", ["most of it by", "left"]], process.findings.map(row)).made);
}

const allowedText = (whatIf) => (whatIf.quota === null ? plural(whatIf.cores, "core") : `${whatIf.quota} CPUs`);

function whatIfCard(process) {
  const { what_if: whatIf } = process;
  const pointRow = (name, point) => [name, duration(point.makespan_ns), `≤ ${point.speedup_bound.toFixed(2)} x`];
  const points = whatIf.by_cores.map((point, at) =>
    pointRow(at === whatIf.by_cores.length - 1 ? allowedText(whatIf) : plural(point.cores, "core"), point));
  if (whatIf.on_all) points.push(pointRow(`all ${plural(whatIf.on_all.cores, "core")}, which it might not use`, whatIf.on_all));
  const woken = whatIf.woken_bound > 1.1 * whatIf.speedup_bound ? element("p", { class: "soft small" },
    `≤ ${whatIf.woken_bound.toFixed(2)} x on ${allowedText(whatIf)} if whoever was blocked in the program's own code, and went on while another `
    + "thread had the GIL, waited for that one (a lock, a queue, an answer) and not for the world.") : null;
  return card("Without a GIL", "a bound, not a prediction: the recording replayed without its waits, cores as the only limit",
    { class: "half", id: "what-if" }, table(["on", "at least", "faster by"],
      [["as recorded", duration(whatIf.measured_ns), "1 x"], ...points].map((row) => element("tr", {}, ...cells(row)))).made, woken);
}

// What the lanes show, as text: for those who cannot see the colours, and for the sums of what is in view.
function viewTable(lanes) {
  const room = element("div");
  const details = element("details", { id: "in-view" }, element("summary", {}, "What is in view, as a table"), room);
  const tell = () => {
    if (!details.open) return;
    const [from, to] = lanes.view;
    const rows = lanes.rows.map((row) => element("tr", {}, element("td", {}, row.label), element("td", { class: "left wrap" },
      sharesIn(row, from, to).slice(0, 8).map(({ value, share }) =>
        `${lanes.valueText(row, value)} ${percent(share)} (${duration(share * (to - from) * lanes.tick)})`).join(", "))));
    room.replaceChildren(table(["lane", ["shares of the time in view", "left"]], rows).made);
  };
  details.addEventListener("toggle", tell);
  return { details, tell };
}

function lanesCard(data, process) {
  const shown = process.has_sched ? STATES.slice(0, 7) : ["holding-running", "waiting", "off"];
  const canvas = element("canvas", { tabindex: "0", role: "application", "aria-roledescription": "timeline", "aria-describedby": "view",
    "aria-label": "Who held the GIL and what each thread did. Plus and minus zoom, arrow keys move, Backspace leads back, 0 shows everything." });
  const lanes = new Lanes(canvas, data, process);
  const button = (text, label, act) => element("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  const legend = shown.map((state) => element("li", {}, element("i", { style: { background: `var(--${state})` } }), STATE_TEXT[state]));
  const left = process.threads.length + process.more_threads - process.thread_lanes.length;
  const view = element("p", { id: "view", class: "soft small", role: "status" });
  const inView = viewTable(lanes);
  lanes.shown = () => {
    const text = `In view: ${lanes.range()}`;
    if (view.textContent === text) return;
    view.textContent = text;
    inView.tell();
  };
  const about = element("p", { class: "soft small" }, element("span", { class: "fine" }, "Drag over what to look at, Backspace leads back; Ctrl+wheel or + − to zoom, Shift+drag or arrows to move, 0 for everything"),
    element("span", { class: "coarse" }, "Pinch to zoom, drag to move, tap to ask"), `; resolution ${duration(data.tick_ns)}`,
    left ? `; ${plural(left, "thread")} that used the GIL less left out` : "");
  const made = card("Timeline", "", { id: "timeline" }, element("div", { class: "lanes" }, canvas), view,
    element("ul", { class: "legend" }, ...legend), inView.details);
  made.firstChild.append(about, element("div", { class: "buttons" },
    button("+", "Zoom in", () => lanes.zoom(2)), button("−", "Zoom out", () => lanes.zoom(0.5)),
    button("←", "Earlier", () => lanes.pan(-0.3)), button("→", "Later", () => lanes.pan(0.3)),
    button("Back", "Back to what was looked at before", () => lanes.back()), button("All", "Show everything", () => lanes.show(0, lanes.length))));
  made.lanes = lanes;
  return made;
}

function stateBar(name, states) {
  const parts = Object.entries(states).filter(([, ns]) => ns > 0);
  const total = Math.max(parts.reduce((all, [, ns]) => all + ns, 0), 1);
  const told = parts.map(([state, ns]) => `${STATE_TEXT[state]}: ${duration(ns)}, ${percent(ns / total)}`);
  return tipped(element("div", { class: "states", role: "img", "aria-label": told.join("; ") }, ...parts.map(([state, ns]) => element("span",
    { style: { width: `${(ns / total) * 100}%`, background: `var(--${state})` } }))), name, ...told);
}

// Rows that come below `row` once its button is pressed, and go when it is pressed again.
function unfolding(row, text, below) {
  const button = element("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) for (const one of rows) one.remove();
    else row.after(...rows);
  } }, text);
  const rows = below();
  row.firstChild.append(button);
  return row;
}

function threadsCard(process) {
  const names = ["thread", "holds", "held", "% of life", "waits", "waited", "% of life", "median", "p99", "longest", "forced", ["states", "left"], ["cores", "left"]];
  const row = (one, name, longest) => element("tr", {}, name,
    ...[whole(one.holds), duration(one.held_ns), (100 * one.held_ns / Math.max(one.life_ns, 1)).toFixed(0),
      whole(one.waits), duration(one.waited_ns), (100 * one.waited_ns / Math.max(one.life_ns, 1)).toFixed(0),
      ...["wait_p50_ns", "wait_p99_ns"].map((field) => duration(one.waits ? one[field] : null)), duration(longest),
      whole(one.forced)].map((text) => element("td", {}, text)),
    element("td", { class: "left" }, stateBar(one.name || `tid ${one.tid}`, one.states_ns)), element("td", { class: "left" }, ranges(one.cores)));
  const single = (at, kind) => {
    const thread = process.threads[at];
    const swatch = element("span", { class: "swatch", style: { background: `var(--${threadColour(at)})` } });
    return row(thread, element("td", { class: kind }, swatch, thread.name || `tid ${thread.tid}`), thread.waits ? thread.wait_max_ns : null);
  };
  const rows = process.thread_rows.filter((one) => one.threads.length).map((one) => (one.number === 1 ? single(one.threads[0])
    : unfolding(row(one, element("td"), one.wait_max_ns), one.name, () => one.threads.map((at) => single(at, "below")))));
  const more = process.more_threads ? `${plural(process.more_threads, "thread")} more have no row of their own` : "";
  const together = rows.length < process.threads.length ? "those that do the same work in one row" : "";
  return card("Threads", [together, more].filter(Boolean).join("; "), { id: "threads" }, table(names, rows, { class: "sticky" }).made);
}

// Who started whom; `show` shows a process by its place on the page.
function processesCard(data, show) {
  const row = (one, depth, shown) => {
    const name = one.at === null ? element("span", {}, shown) : element("button", { type: "button", class: "link", onclick: () => show(one.at) }, shown);
    const first = element("td", { class: "process", style: { paddingLeft: `${8 + 18 * depth}px` } }, ...(one.each.length ? [] : [name, " ", ...breakable(one.runs)]));
    const made = element("tr", one.at === null ? {} : { "data-at": one.at }, first, element("td", { class: "left" }, one.verdicts),
      ...cells([whole(one.threads), duration(one.held_ns), duration(one.waited_ns), duration(one.wait_max_ns)]));
    return one.each.length ? unfolding(made, `${one.which} ${one.runs}`, () => one.each.map((each) => row(each, depth + 1, each.which))) : made;
  };
  const first = 16;
  const { body, made } = table(["process", ["verdict", "left"], "threads", "held", "waited", "longest wait"],
    data.tree.slice(0, first).map((one) => row(one, one.depth, one.which)));
  const rest = data.tree.slice(first);
  const more = rest.length ? element("button", { type: "button", style: { marginTop: "8px" }, onclick: () => {
    body.append(...rest.map((one) => row(one, one.depth, one.which)));
    more.remove();
  } }, `${whole(rest.length)} more`) : null;
  return card(plural(data.process_count, "process", "processes"), `each below the one that started it, and with a GIL of its own; ${data.gils_at_once.toFixed(1)} GILs were held at once on average`,
    { id: "processes" }, made, more);
}

function stackOf(title, frames) {
  if (!frames || frames.length < 2) return null;
  return element("details", {}, element("summary", {}, title), element("ol", {}, ...frames.map((frame) => element("li", {}, frame))));
}

// The line, which opens the stack that it is the top of, and whose it is.
function siteCell(site, frames, label) {
  const line = breakable(place(site) || site.thread);
  return element("td", { class: "site", "data-label": label }, frames && frames.length > 1
    ? element("details", {}, element("summary", { title: "show the stack" }, ...line), element("ol", {}, ...frames.map((frame) => element("li", {}, frame))))
    : element("div", {}, ...line), site.function ? element("small", { title: site.file }, site.thread) : null);
}

function blameTable(blame) {
  const names = ["waited", "waits", "longest"];
  const row = (one) => element("tr", {}, siteCell(one.victim, one.victim_stack, "who waited"), siteCell(one.culprit, one.culprit_stack, "who held the GIL"),
    ...[duration(one.ns), whole(one.waits), duration(one.max_ns)].map((text, at) => element("td", { "data-label": names[at] }, text)));
  const first = narrow() ? 5 : 12;
  const { body, made } = table(["who waited", ["who held the GIL", "left"], ...names], blame.slice(0, first).map(row), { class: "blame" });
  const rest = blame.slice(first);
  const more = rest.length ? element("button", { type: "button", style: { marginTop: "8px" }, onclick: () => {
    body.append(...rest.map(row));
    more.remove();
  } }, `${whole(rest.length)} more`) : null;
  return [made, more];
}

function blameCard(process) {
  const { blame } = process;
  if (!blame.length) {
    return card("Who made whom wait", "", { id: "blame" }, element("p", { class: "soft" }, "Nobody waited for anybody."));
  }
  const room = element("div", { class: "scroll", id: "matrix" });
  const choices = [["threads", (site) => site.thread, blame]];
  if (process.has_stacks) choices.push(["lines", siteName, blame], ["functions", functionName, process.blame_by_function]);
  const buttons = choices.map(([text, name, rows]) => element("button", { type: "button", class: "choice", onclick: (event) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    room.replaceChildren(blameMatrix(rows, name));
  } }, text));
  const about = process.has_stacks ? `by line; those that waited took ${whole(process.holder_samples)} samples of what holders did` : "by thread; recorded without stacks";
  const made = card("Who made whom wait", process.more_blame ? `${about}; ${whole(process.more_blame)} smaller pairs left out` : about,
    { id: "blame" }, room, element("h3", {}, "Largest first"), ...blameTable(blame));
  if (buttons.length > 1) made.firstChild.append(element("div", { class: "buttons" }, ...buttons));
  // Lines need room: a phone shows threads first.
  buttons[narrow() ? 0 : buttons.length - 1].click();
  return made;
}

function inC(hog) {
  if (!hog.samples) return "";
  const told = hog.functions.map((one) => `${one.told} ${percent(one.samples / hog.samples)}`);
  return `; in C: ${told.join(", ")} (${plural(hog.samples, "sample")})`;
}

function patternsCard(process) {
  const found = [
    ...process.hogs.map((hog) => [`Hog: ${siteName(hog.site)}${hog.expression ? `, ${hog.expression}` : ""}`,
      `${plural(hog.count, "hold")} went on for ${duration(hog.ns)} in all after a switch request, ${duration(hog.max_ns)} at most${inC(hog)}`,
      hog.stack]),
    ...process.convoys.map((convoy) => [`Convoy: ${siteName(convoy.site)}`,
      `${plural(convoy.steps, "short step")} waited ${duration(convoy.wait_p50_ns)} (median) each, ${percent(convoy.waited_share)} of the thread's life; `
      + `${convoy.steps_per_s.toFixed(1)} steps per second`
      + (convoy.estimates.length ? `. Estimates for another switch interval: ${convoy.estimates.map((one) =>
        `${duration(one.switch_interval_ns)}: ${duration(one.wait_per_step_ns)} per step, ${one.steps_per_s.toFixed(0)} steps per second`).join("; ")}` : ""), convoy.stack]),
    ...process.event_loops.map((loop) => [`Event loop (${loop.loop}): ${loop.thread}`,
      loop.culprit ? `waited ${duration(loop.waited_ns)}, ${duration(loop.wait_max_ns)} at most; most of it for ${siteName(loop.culprit)} (${duration(loop.culprit_ns)})`
        : "never waited for another thread", loop.culprit_stack]),
  ];
  if (!found.length) return null;
  return card("Patterns", "hogs, convoys and event loops", { id: "patterns" }, element("ul", { class: "plain" },
    ...found.slice(0, 20).map(([title, text, stack]) => element("li", {}, element("b", {}, title), element("div", { class: "soft" }, text), stackOf("stack", stack)))));
}

function waitsCards(process) {
  if (!process.histogram.length) return [];
  const legend = element("ul", { class: "legend" },
    element("li", {}, element("i", { style: { background: "var(--off-running)" } }), "share of the waits"),
    element("li", {}, element("i", { style: { background: "var(--waiting)" } }), "share of the waited time"));
  return [
    card("How long the waits were", "logarithmic", { class: "half", id: "histogram" }, legend, histogram(process.histogram),
      element("details", {}, element("summary", {}, "As a table"), table(["from", "to", "waits", "waited"], process.histogram.map((bar) =>
        element("tr", {}, ...cells([duration(bar.low), duration(bar.high), whole(bar.waits), duration(bar.ns)])))).made)),
    card("Waiting", process.has_stacks ? "by thread and the stack that waited; click to enlarge"
      : "by thread and by who held the GIL; click to enlarge", { class: "half", id: "flame" }, flameGraph(process.flame)),
  ];
}

function qualityCard(data) {
  const { quality } = data;
  const line = (good, text) => element("li", {}, element("span", { class: good ? "ok" : "notok" }, good ? "✓ " : "✗ "), text);
  return card("How good the measurement is", "", { id: "quality" }, element("ul", { class: "plain small" },
    ...(quality.sampled ? [line(false, quality.sampled)] : []),
    line(quality.lost_events === 0, `${whole(quality.lost_events)} lost events`),
    ...(quality.lost_stacks ? [line(false, `${whole(quality.lost_stacks)} lost stacks: so many events have no line`)] : []),
    line(quality.invariant_violations === 0, `${whole(quality.invariant_violations)} broken invariants (one holder at a time; each thread's states add up to its life)`),
    ...quality.violations.slice(0, 10).map((text) => element("li", { class: "soft" }, text)),
    line(true, `clock error ${duration(quality.clock_error_ns)}`),
    ...(quality.own_held_ns ? [line(true, `code that giltrace runs in the program, for a collector, held the GIL for ${duration(quality.own_held_ns)}; threads waited ${duration(quality.own_waited_ns)} for that, at lines marked [giltrace]`)] : []),
    ...quality.collectors.map((one) => line(one.status === "ok", `${one.name}: ${one.status}${one.cost ? ` (${one.cost})` : ""}`))));
}
