// The page: one process at a time, and of that what is selected; light or dark.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const main = document.getElementById("main");
  const selection = new Selection(data);
  // What stands above the lanes, and below: it follows the selection.
  const [above, below] = [element("div", { class: "room above" }), element("div", { class: "room" })];
  let chosen = null;
  let lanes = null;
  let tree = null;
  let together = [];
  let asking = null;
  let waiting = 0;
  // What was counted on the lanes for a selection; what is searched for, and whose code is shown, does not change that.
  let counted = { of: null };

  function paint() {
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    const button = document.getElementById("theme");
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`);
    button.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
  }

  const process = () => data.processes[selection.process];

  // What the lanes show becomes what is selected, once they are at rest.
  function moved() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const before = selection.window;
      const range = windowOf(before);
      if (range && lanes.shows(...range)) return;
      selection.window = lanes.whole ? null : lanes.windowText();
      if (selection.window !== before) follow();
    }, 150);
  }

  // The lanes stay where they are on the screen, however much more or less is told above them.
  function follow(stay = true) {
    const at = lanes.canvas.getBoundingClientRect().top;
    const [from, to] = lanes.view;
    const who = selection.who(process());
    const asked = [...(who || process().thread_lanes.keys())];
    const of = JSON.stringify([selection.process, from, to, selection.role, selection.thread]);
    if (counted.of !== of) counted = { of, figures: selection.narrowed ? selected(data, process(), from, to, asked) : process(), paths: new Map() };
    const shown = { ...counted.figures, whole: !selection.narrowed, find: selection.find, own_only: selection.own };
    const { paths } = counted;
    const pathsOf = (of) => {
      if (!paths.has(of)) paths.set(of, of === "without the GIL" ? withoutPaths(data, process(), from, to, asked) : waitedPaths(data, process(), from, to, asked, of === "who held"));
      return paths.get(of);
    };
    above.replaceChildren(...[shown.whole ? verdictCard(shown) : selectionCard(selection, shown, process()), tiles(shown)]);
    // What outweighs the other comes first, as in a terminal.
    const without = [whereaboutsCard(shown), locksCard(shown)];
    const first = shown.whereabouts_ns > waitedOf(shown);
    below.replaceChildren(...[...(first ? without : []), costCard(shown), whatIfCard(shown), findingsCard(shown), threadsCard(shown, ask), blameCard(shown),
      ...(first ? [] : without), patternsCard(shown), pathCard(shown), histogramCard(shown), flamesCard(shown, pathsOf), qualityCard(data)].filter(Boolean));
    asking.show();
    tellAddress(selection.link());
    above.style.minHeight = `${above.offsetHeight}px`;
    if (stay) scrollBy(0, lanes.canvas.getBoundingClientRect().top - at);
  }

  // In the address, where there is one: a page within another, as editors show it, has none of its own.
  function tellAddress(link) {
    try {
      history.replaceState(null, "", link ? `#${link}` : location.pathname + location.search);
    } catch { /* It is there without. */ }
  }

  function ask(thread) {
    Object.assign(selection, { role: null, thread: threadName(process().threads[thread]) });
    apply();
  }

  // Shows what is selected, whoever selected it.
  function apply(stay = true) {
    lanes.ask(selection.who(process()));
    const range = windowOf(selection.window);
    if (range) lanes.show(...range.map((ns) => ns / data.tick_ns));
    else lanes.show(0, lanes.length);
    follow(stay);
  }

  function show(at) {
    selection.process = at;
    // What was drawn before must not be drawn again.
    if (lanes) lanes.observer.disconnect();
    const one = process();
    document.getElementById("subtitle").textContent =
      [`process ${one.pid}`, one.python ? `Python ${one.python.split(" ")[0]}` : "", duration(one.duration_ns),
        plural(one.threads.length + one.more_threads, "thread"),
        one.limits, one.became ? `then became ${one.became}` : "", one.cmdline].filter(Boolean).join("  ·  ");
    const timeline = lanesCard(data, one, moved);
    lanes = timeline.lanes;
    asking.fill(one);
    document.getElementById("process").value = String(at);
    for (const row of tree ? tree.querySelectorAll("[data-at]") : []) row.toggleAttribute("data-shown", Number(row.dataset.at) === at);
    above.style.minHeight = "";
    main.replaceChildren(...[...together, tree, asking.made, above, timeline, below].filter(Boolean));
    apply(false);
    lanes.draw();
  }

  // Another process is shown as a whole.
  function choose(at) {
    Object.assign(selection, { window: null, role: null, thread: null });
    show(at);
  }

  function start() {
    document.title = `${data.title} - giltrace report`;
    document.getElementById("title").textContent = data.part ? `${data.title}: ${data.part}` : data.title;
    if (!data.processes.length) {
      main.replaceChildren(card("No Python process was recorded", "", {}), qualityCard(data));
      return;
    }
    const choice = document.getElementById("process");
    choice.append(...data.processes.map((one, at) =>
      element("option", { value: at }, `${one.pid} · ${KIND_TEXT[one.verdict.kind] || one.verdict.kind}`)));
    document.getElementById("choose").hidden = data.processes.length < 2;
    choice.addEventListener("change", () => choose(Number(choice.value)));
    if (data.process_count > 1) tree = processesCard(data, choose);
    together = tasksCards(data, choose);
    asking = controls(selection, () => apply());
    selection.read(location.hash);
    show(selection.process);
    addEventListener("hashchange", () => {
      selection.read(location.hash);
      show(selection.process);
    });
  }

  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    paint();
    if (lanes) lanes.draw();
  });
  addEventListener("resize", () => { above.style.minHeight = ""; });
  dark.addEventListener("change", () => { paint(); if (lanes) lanes.draw(); });
  paint();
  unpackAll(data).then(start, (error) => {
    main.replaceChildren(card("This browser cannot show the report", "", {}, element("p", {}, String(error)),
      element("p", {}, "Use a newer one, or giltrace report in a terminal.")));
  });
})();
