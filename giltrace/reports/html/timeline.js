// The card of the lanes: what is in view, and by which buttons that changes.

// What the lanes show, as text: for those who cannot see the colours, and for the sums of what is in view.
function viewTable(lanes) {
  const room = element("div");
  const details = element("details", { id: "in-view" }, element("summary", {}, "What is in view, as a table"), room);
  const tell = () => {
    if (!details.open) return;
    const [from, to] = lanes.view;
    const rows = lanes.rows.map((row) => element("tr", {}, element("td", {}, row.label), element("td", { class: "left wrap" },
      sharesIn(row.lanes, from, to).slice(0, 8).map(({ value, share }) =>
        `${lanes.valueText(row, value)} ${percent(share)} (${duration(share * (to - from) * lanes.tick)})`).join(", "))));
    room.replaceChildren(table(["lane", ["shares of the time in view", "left"]], rows, { label: "what is in view" }).made);
  };
  details.addEventListener("toggle", tell);
  return { details, tell };
}

// `moved` is called once what is in view is another stretch.
function lanesCard(data, process, moved) {
  const shown = [...(process.has_sched ? STATES.slice(0, 7) : ["holding-running", "waiting", "off"]), ...(process.lock_blame.length ? ["in-lock"] : [])];
  const canvas = element("canvas", { tabindex: "0", role: "application", "aria-roledescription": "timeline", "aria-describedby": "view",
    "aria-label": "Who held the GIL and what each thread did. Plus and minus zoom, arrow keys move, Backspace leads back, 0 shows everything, U unfolds roles." });
  const lanes = new Lanes(canvas, data, process);
  const button = (text, label, act) => element("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
  const legend = shown.map((state) => element("li", {}, element("i", { style: { background: `var(--${state})` } }), STATE_TEXT[state]));
  if (process.path.length) legend.push(element("li", {}, element("i", { class: "path" }), "the end hung on this"));
  const left = process.threads.length + process.more_threads - process.thread_lanes.length;
  const view = element("p", { id: "view", class: "soft small", role: "status" });
  const inView = viewTable(lanes);
  const more = element("button", { type: "button", hidden: true, onclick: () => {
    lanes.all = !lanes.all;
    lanes.arrange();
  } });
  const fold = element("button", { type: "button", onclick: () => lanes.foldAll(!lanes.unfolded.size) });
  let before = "";
  lanes.shown = () => {
    more.hidden = !lanes.left_out && !lanes.all;
    more.textContent = lanes.all ? `The first ${MOST_LANES} lanes only` : `${plural(lanes.left_out, "lane")} more`;
    fold.hidden = !lanes.foldable.length;
    fold.textContent = lanes.unfolded.size ? "Fold roles" : "Unfold roles";
    const text = `In view: ${lanes.range()}`;
    if (before === text + lanes.rows.length) return;
    before = text + lanes.rows.length;
    view.textContent = text;
    inView.tell();
    moved();
  };
  const about = element("p", { class: "soft small" }, element("span", { class: "fine" }, "Drag over what to look at, Backspace leads back; Ctrl+wheel or + − to zoom, Shift+drag or arrows to move, 0 for everything"),
    element("span", { class: "coarse" }, "Pinch to zoom, drag to move, tap to ask"), `; resolution ${duration(data.tick_ns)}`,
    left ? `; ${plural(left, "thread")} that used the GIL less left out` : "");
  const made = card("Timeline", "", { id: "timeline" }, element("div", { class: "lanes" }, canvas), element("div", { class: "buttons" }, more, fold), view,
    element("ul", { class: "legend" }, ...legend), inView.details);
  made.firstChild.append(about, element("div", { class: "buttons" },
    button("+", "Zoom in", () => lanes.zoom(2)), button("−", "Zoom out", () => lanes.zoom(0.5)),
    button("←", "Earlier", () => lanes.pan(-0.3)), button("→", "Later", () => lanes.pan(0.3)),
    button("Back", "Back to what was looked at before", () => lanes.back()), button("All", "All of the recording", () => lanes.show(0, lanes.length))));
  made.lanes = lanes;
  return made;
}
