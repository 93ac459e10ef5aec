// The sections of the page, in the order in which a report answers: of a process, or of what is selected of it.

const GOOD = ["parallel", "single-threaded", "io-bound-handoff", "idle", "free-threaded"];
const KIND_TEXT = {
  "cpu-bound-contention": "CPU-bound contention", "io-bound-handoff": "I/O-bound hand-off", convoy: "Convoy", hog: "GIL hog",
  parallel: "Parallel", "single-threaded": "Single-threaded", idle: "Idle", "free-threaded": "Free-threaded",
  "not-recorded": "Not recorded", "lock-bound": "Lock-bound", "stop-the-world": "Stopped world", deadlock: "Deadlock",
};

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

// How long the threads that are asked about waited, all together.
const waitedOf = (process) => (process.waited_ns === undefined ? sum(process.threads, "waited_ns") : process.waited_ns);

function tiles(process) {
  const { threads, gils, what_if: whatIf } = process;
  const longest = process.longest_wait_ns === undefined ? Math.max(0, ...threads.map((thread) => thread.wait_max_ns)) : process.longest_wait_ns;
  const all = [
    [duration(waitedOf(process)), "waited, all threads together"],
    [share(sum(gils, "contended_ns"), process.duration_ns * Math.max(gils.length, 1)), "of the time somebody waited"],
    [share(sum(gils, "held_ns"), process.duration_ns * Math.max(gils.length, 1)), "of the time it was held"],
    [duration(longest), "the longest wait"],
    [whole(sum(gils, "handoffs")), "hand-offs"],
    ...(whatIf ? [[whole(sum(gils, "switch_requests")), "switch requests"],
      tellsNothing(whatIf) ? [`≤ ${duration(whatIf.untold_ns)}`, `of waiting gone without a GIL, on ${allowedText(whatIf)}`]
        : [`≤ ${whatIf.speedup_bound.toFixed(2)} x`, `without a GIL, on ${allowedText(whatIf)}`]] : []),
  ];
  return element("div", { class: "tiles" },
    ...all.map(([value, about]) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, about))));
}

function costCard(process) {
  const parts = process.wait_decomposition_ns;
  if (!parts) return null;
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
  const total = Math.max(waitedOf(process), 1);
  const onPath = process.findings[0].path_ns !== null;
  const row = (found) => element("tr", {}, element("td", { class: "left" }, tipped(element("b", {}, found.cause), found.cause, found.summary, found.advice)),
    ...cells([duration(found.ns), percent(found.ns / total), ...(onPath ? [duration(found.path_ns), duration(found.since_ns)] : [])]),
    element("td", { class: "left wrap" }, siteName(found.victim) + (found.culprit ? `, to ${siteName(found.culprit)}` : "")));
  return card("What it was lost to", onPath ? `and how much of that the end of the ${process.end_of} hung on (the critical path)` : "", { id: "findings" },
    table([["cause", "left"], "lost", "%", ...(onPath ? ["critical path", "since"] : []), ["most of it by", "left"]], process.findings.map(row), { label: "what waits were lost to" }).made);
}

const allowedText = (whatIf) => (whatIf.quota === null ? plural(whatIf.cores, "core") : `${whatIf.quota} CPUs`);

// The end hung on something else than waits that would be gone without a GIL: a factor would argue against them.
const tellsNothing = (whatIf) => whatIf.untold_ns > 0 && whatIf.speedup_bound < 1.1;

function untoldText(whatIf, endOf) {
  const why = whatIf.by_clock
    ? `The end of the ${endOf} hung on the clock or on what came from outside, so how long it took says nothing of how much got done.`
    : `The end of the ${endOf} hardly hung on waits for the GIL, so it would hardly come sooner `
      + `(${duration(whatIf.measured_ns)} would take at least ${duration(whatIf.makespan_ns)}).`;
  return `${why} But up to ${duration(whatIf.untold_ns)} of waiting for the GIL, all threads together, would be gone on `
    + `${plural(whatIf.cores, "core")}: what threads waited with would be done sooner.`;
}

function whatIfCard(process) {
  const { what_if: whatIf } = process;
  if (!whatIf) return null;
  const untold = whatIf.untold_ns ? element("p", { class: "soft small" }, untoldText(whatIf, process.end_of)) : null;
  if (tellsNothing(whatIf)) return card("Without a GIL", "", { class: "half", id: "what-if" }, untold);
  const pointRow = (name, point) => [name, duration(point.makespan_ns), `≤ ${point.speedup_bound.toFixed(2)} x`];
  const points = whatIf.by_cores.map((point, at) =>
    pointRow(at === whatIf.by_cores.length - 1 ? allowedText(whatIf) : plural(point.cores, "core"), point));
  if (whatIf.on_all) points.push(pointRow(`all ${plural(whatIf.on_all.cores, "core")}, which it might not use`, whatIf.on_all));
  const woken = whatIf.woken_bound > 1.1 * whatIf.speedup_bound ? element("p", { class: "soft small" },
    `≤ ${whatIf.woken_bound.toFixed(2)} x on ${allowedText(whatIf)} if whoever was blocked in the program's own code, and went on while another `
    + "thread had the GIL, waited for that one (a lock, a queue, an answer) and not for the world.") : null;
  return card("Without a GIL", "a bound, not a prediction: the recording replayed without its waits, with its CPU time, cores as the only limit",
    { class: "half", id: "what-if" }, table(["on", "at least", "faster by"],
      [["as recorded", duration(whatIf.measured_ns), "1 x"], ...points].map((row) => element("tr", {}, ...cells(row))), { label: "without a GIL" }).made, woken, untold);
}

function stateBar(name, states) {
  const parts = Object.entries(states).filter(([, ns]) => ns > 0);
  if (!parts.length) return "-";
  const total = Math.max(parts.reduce((all, [, ns]) => all + ns, 0), 1);
  const told = parts.map(([state, ns]) => `${STATE_TEXT[state]}: ${duration(ns)}, ${percent(ns / total)}`);
  return tipped(element("div", { class: "states", role: "img", "aria-label": told.join("; ") }, ...parts.map(([state, ns]) => element("span",
    { style: { width: `${(ns / total) * 100}%`, background: `var(--${state})` } }))), name, ...told);
}

// `ask` is called with the number of a thread whose name is clicked.
function threadsCard(process, ask) {
  const names = ["thread", "holds", "held", "% of life", "waits", "waited", "% of life", "median", "p99", "longest", "forced", ["states", "left"], ["cores", "left"]];
  const row = (one, name, longest) => element("tr", {}, name,
    ...[whole(one.holds), duration(one.held_ns), (100 * one.held_ns / Math.max(one.life_ns, 1)).toFixed(0),
      whole(one.waits), duration(one.waited_ns), (100 * one.waited_ns / Math.max(one.life_ns, 1)).toFixed(0),
      ...["wait_p50_ns", "wait_p99_ns"].map((field) => duration(one.waits ? one[field] : null)), duration(longest),
      whole(one.forced)].map((text) => element("td", {}, text)),
    element("td", { class: "left" }, stateBar(threadName(one), one.states_ns)), element("td", { class: "left" }, ranges(one.cores)));
  const single = (at, kind) => {
    const thread = process.threads[at];
    const swatch = element("span", { class: "swatch", style: { background: `var(--${threadColour(at)})` } });
    const name = threadName(thread);
    const asked = at < process.thread_lanes.length ? element("button", { type: "button", class: "link", title: `Show ${name} only`, onclick: () => ask(at) }, name) : name;
    return row(thread, element("td", { class: kind }, swatch, asked), thread.waits ? thread.wait_max_ns : null);
  };
  const rows = process.thread_rows.filter((one) => one.threads.length && (has(one.name, process.find) || one.threads.some((at) => has(process.threads[at].name, process.find)))).map((one) => (one.number === 1 ? single(one.threads[0])
    : unfolding(row(one, element("td"), one.wait_max_ns), one.name, () => one.threads.map((at) => single(at, "below")))));
  const more = process.more_threads ? `${plural(process.more_threads, "thread")} more have no row of their own` : "";
  if (!rows.length) return card("Threads", "", { id: "threads" }, element("p", { class: "soft" }, `No thread's name has "${process.find}".`));
  const together = rows.length < process.threads.length ? "those that do the same work in one row" : "";
  return card("Threads", [together, more].filter(Boolean).join("; "), { id: "threads" }, table(names, rows, { class: "sticky", label: "threads" }).made);
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
  const rows = firstRows(["process", ["verdict", "left"], "threads", "held", "waited", "longest wait"], data.tree, 16,
    (one) => row(one, one.depth, one.which), { label: "processes" });
  return card(plural(data.process_count, "process", "processes"), `each below the one that started it, and with a GIL of its own; ${data.gils_at_once.toFixed(1)} GILs were held at once on average`,
    { id: "processes" }, ...rows);
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
    ...labelled(names, [duration(one.ns), whole(one.waits), duration(one.max_ns)]));
  return firstRows(["who waited", ["who held the GIL", "left"], ...names], blame, narrow() ? 5 : 12, row, { class: "blame", label: "who made whom wait" });
}

const found = (row, find) => [row.victim, row.culprit].some((site) => has(siteName(site), find))
  || [...(row.victim_stack || []), ...(row.culprit_stack || [])].some((text) => has(text, find));

// What a person chose to see stays chosen when the selection changes.
const chosenView = { blame: null, flame: null, inverted: false };

function blameCard(process) {
  const own = process.own_only ? ownSite : (site) => site;
  const rows = merged(process.blame, own, siteName).filter((row) => found(row, process.find));
  if (!rows.length) {
    return card("Who made whom wait", "", { id: "blame" }, element("p", { class: "soft" }, process.blame.length ? `Nothing here has "${process.find}".` : "Nobody waited for anybody."));
  }
  const room = element("div", { class: "scroll", id: "matrix", tabindex: "0", role: "region", "aria-label": "Who made whom wait, as a matrix" });
  const choices = [["threads", (site) => site.thread, rows]];
  if (process.has_stacks) choices.push(["lines", siteName, rows], ["functions", functionName, merged(process.blame_by_function, own, functionName).filter((row) => found(row, process.find))]);
  const buttons = choices.map(([text, name, shown]) => element("button", { type: "button", class: "choice", onclick: (event) => {
    chosenView.blame = text;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    room.replaceChildren(blameMatrix(shown, name));
  } }, text));
  const seen = process.whole ? `; those that waited took ${whole(process.holder_samples)} samples of what holders did` : "";
  const about = process.has_stacks ? `by line${seen}` : "by thread; recorded without stacks";
  const made = card("Who made whom wait", process.more_blame ? `${about}; ${whole(process.more_blame)} smaller pairs left out` : about,
    { id: "blame" }, room, element("h3", {}, "Largest first"), ...blameTable(rows));
  if (buttons.length > 1) made.firstChild.append(element("div", { class: "buttons" }, ...buttons));
  // Lines need room: a phone shows threads first.
  const at = choices.findIndex(([text]) => text === chosenView.blame);
  buttons[at >= 0 ? at : narrow() ? 0 : buttons.length - 1].click();
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
      `${plural(hog.count, "hold")} went on for ${duration(hog.ns)} in all after a switch request, ${duration(hog.max_ns)} at most${inC(hog)}`
        + (hog.speedup_bound >= 1.1 ? `; if it released the GIL then, the whole would be at most ${hog.speedup_bound.toFixed(2)} x as fast` : "")
        + (hog.advice ? `. A collection cannot release the GIL. ${hog.advice}` : ""),
      hog.stack]),
    ...process.convoys.map((convoy) => [`Convoy: ${siteName(convoy.site)}`,
      `${convoy.threads > 1 ? `${convoy.threads} threads alike; of the one that waited most ` : ""}`
      + `${plural(convoy.steps, "short step")} waited ${duration(convoy.wait_p50_ns)} (median) each, ${percent(convoy.waited_share)} of the thread's life; `
      + `${convoy.steps_per_s.toFixed(1)} steps per second`
      + (convoy.estimates.length ? `. Estimates for another switch interval: ${convoy.estimates.map((one) =>
        `${duration(one.switch_interval_ns)}: ${duration(one.wait_per_step_ns)} per step, ${one.steps_per_s.toFixed(0)} steps per second`).join("; ")}` : ""), convoy.stack]),
    ...process.event_loops.map((loop) => [`Event loop (${loop.loop}): ${loop.thread}`,
      loop.culprit ? `waited ${duration(loop.waited_ns)}, ${duration(loop.wait_max_ns)} at most; most of it for ${siteName(loop.culprit)} (${duration(loop.culprit_ns)} in that function)`
        : "never waited for another thread", loop.culprit_stack]),
  ];
  if (!found.length) return null;
  return card("Patterns", "hogs, convoys and event loops", { id: "patterns" }, element("ul", { class: "plain" },
    ...found.slice(0, 20).map(([title, text, stack]) => element("li", {}, element("b", {}, title), element("div", { class: "soft" }, text), stackOf("stack", stack)))));
}

function histogramCard(process) {
  if (!process.histogram.length) return null;
  const legend = element("ul", { class: "legend" },
    element("li", {}, element("i", { style: { background: "var(--off-running)" } }), "share of the waits"),
    element("li", {}, element("i", { style: { background: "var(--waiting)" } }), "share of the waited time"));
  return card("How long the waits were", "logarithmic", { class: "half", id: "histogram" }, legend, histogram(process.histogram),
    element("details", {}, element("summary", {}, "As a table"), table(["from", "to", "waits", "waited"], process.histogram.map((bar) =>
      element("tr", {}, ...cells([duration(bar.low), duration(bar.high), whole(bar.waits), duration(bar.ns)]))), { label: "how long waits were" }).made));
}

// `pathsOf(of)` returns the waited time by stack (`waitedPaths`), or the time without the GIL.
function flamesCard(process, pathsOf) {
  const choices = [...(process.histogram.length ? ["who waited", "who held"] : []), ...(process.whereabouts.length ? ["without the GIL"] : [])];
  if (!choices.length) return null;
  const room = element("div");
  const chosen = () => (choices.includes(chosenView.flame) ? chosenView.flame : choices[0]);
  const paint = () => {
    for (const button of [...buttons, inverted]) button.setAttribute("aria-pressed", String(button === inverted ? chosenView.inverted : button.textContent === chosen()));
    const all = chosen() === "without the GIL" ? "all time without the GIL" : "all waits";
    room.replaceChildren(flameGraph(flameTree(process, pathsOf(chosen()), { own: process.own_only, inverted: chosenView.inverted, all }), process.find));
  };
  const button = (text, act) => element("button", { type: "button", class: "choice", onclick: () => { act(); paint(); } }, text);
  const buttons = choices.map((text) => button(text, () => { chosenView.flame = text; }));
  const inverted = button("inverted", () => { chosenView.inverted = !chosenView.inverted; });
  const made = card(process.histogram.length ? "Waiting, and without the GIL" : "Without the GIL", process.has_stacks ? "by role and stack; click to enlarge" : "by role; recorded without stacks",
    { class: process.histogram.length ? "half" : "", id: "flame" }, room);
  made.firstChild.append(element("div", { class: "buttons" }, ...buttons, inverted));
  paint();
  return made;
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
