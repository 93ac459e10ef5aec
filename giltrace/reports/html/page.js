// The page: one process at a time, light or dark.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const main = document.getElementById("main");
  let chosen = null;
  let lanes = null;
  let tree = null;

  function paint() {
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    const button = document.getElementById("theme");
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`);
    button.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
  }

  function show(at) {
    const process = data.processes[at];
    // What was drawn before must not be drawn again.
    if (lanes) lanes.observer.disconnect();
    document.getElementById("subtitle").textContent =
      [`process ${process.pid}`, process.python ? `Python ${process.python.split(" ")[0]}` : "", duration(process.duration_ns),
        plural(process.threads.length + process.more_threads, "thread"),
        process.limits, process.became ? `then became ${process.became}` : "", process.cmdline].filter(Boolean).join("  ·  ");
    const timeline = lanesCard(data, process);
    lanes = timeline.lanes;
    document.getElementById("process").value = String(at);
    for (const row of tree ? tree.querySelectorAll("[data-at]") : []) row.toggleAttribute("data-shown", Number(row.dataset.at) === at);
    main.replaceChildren(...[tree, verdictCard(process), tiles(process), timeline, costCard(process), whatIfCard(process), findingsCard(process),
      threadsCard(process), blameCard(process), patternsCard(process), ...waitsCards(process), qualityCard(data)]
      .filter(Boolean));
    lanes.draw();
    return process;
  }

  function start() {
    document.title = `${data.title} - giltrace report`;
    document.getElementById("title").textContent = data.part ? `${data.title}: ${data.part}` : data.title;
    if (!data.processes.length) {
      main.replaceChildren(card("No Python process was recorded", "", {}), qualityCard(data));
      return;
    }
    const choice = document.getElementById("process");
    choice.append(...data.processes.map((process, at) =>
      element("option", { value: at }, `${process.pid} · ${KIND_TEXT[process.verdict.kind] || process.verdict.kind}`)));
    document.getElementById("choose").hidden = data.processes.length < 2;
    choice.addEventListener("change", () => show(Number(choice.value)));
    if (data.process_count > 1) tree = processesCard(data, show);
    show(0);
  }

  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    paint();
    if (lanes) lanes.draw();
  });
  dark.addEventListener("change", () => { paint(); if (lanes) lanes.draw(); });
  paint();
  unpackAll(data).then(start, (error) => {
    main.replaceChildren(card("This browser cannot show the report", "", {}, element("p", {}, String(error)),
      element("p", {}, "Use a newer one, or giltrace report in a terminal.")));
  });
})();
