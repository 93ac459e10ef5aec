// The lanes under a hand: which of them there are, what is in view, and what is told of a place that is pointed at.

const middle = (xs) => xs.reduce((total, x) => total + x, 0) / xs.length;
const apart = (xs) => Math.max(Math.abs(xs[0] - xs[1]), 8);

// So many lanes of threads are there at first.
const MOST_LANES = 24;

class Lanes extends LaneDrawing {
  constructor(canvas, data, process) {
    super(canvas, process, data.tick_ns, Math.max(Math.ceil(data.lanes_ns / data.tick_ns), 1));
    this.shown = () => {};
    this.causeNames = data.causes;
    this.pointers = new Map();
    this.tap = null;
    // `chosen` is what a mouse has drawn over, as two places on the canvas; where that led from is in `earlier`.
    this.earlier = [];
    // Which threads are asked about (lanes of `process`), which roles are unfolded, and whether all lanes are shown.
    this.who = null;
    this.unfolded = new Set();
    this.all = false;
    this.arrange();
    this.listen();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
  }

  // --- which lanes

  // Those that lost most come first; threads of a role share a lane until it is unfolded.
  arrange() {
    const { gil_lanes: gils, thread_lanes: lanes, thread_rows: roles } = this.process;
    const single = (at, below) => ({ kind: "thread", thread: at, threads: [at], label: this.name(at), below, lanes: [lanes[at]] });
    const asked = roles.map((role) => ({ ...role, threads: role.threads.filter((at) => at < lanes.length && (!this.who || this.who.has(at))) }))
      .filter((role) => role.threads.length).sort((one, other) => other.waited_ns - one.waited_ns || other.held_ns - one.held_ns);
    const rows = asked.flatMap((role) => {
      if (role.threads.length === 1) return [single(role.threads[0], false)];
      const open = this.unfolded.has(role.name);
      const folded = { kind: "role", role: role.name, threads: role.threads, label: `${open ? "▾" : "▸"} ${role.name}`, lanes: role.threads.map((at) => lanes[at]) };
      return open ? [folded, ...role.threads.map((at) => single(at, true))] : [folded];
    });
    this.left_out = this.all ? 0 : Math.max(rows.length - MOST_LANES, 0);
    this.foldable = asked.filter((role) => role.threads.length > 1).map((role) => role.name);
    this.rows = [
      ...gils.map((lane, at) => ({ kind: "gil", label: gils.length > 1 ? `GIL ${at} holder` : "GIL holder", lanes: [lane] })),
      ...rows.slice(0, rows.length - this.left_out),
    ];
    this.schedule();
  }

  ask(who) {
    this.who = who;
    this.arrange();
  }

  fold(role) {
    if (!this.unfolded.delete(role)) this.unfolded.add(role);
    this.arrange();
  }

  foldAll(open) {
    this.unfolded = new Set(open ? this.foldable : []);
    this.arrange();
  }

  draw() {
    super.draw();
    this.shown();
  }

  // --- moving

  get whole() {
    return this.view[0] <= 0 && this.view[1] >= this.length;
  }

  // Whether that is in view, in ns, to a thousandth of it.
  shows(from, to) {
    const near = (this.view[1] - this.view[0]) / 1000;
    return [from, to].every((ns, at) => Math.abs(ns / this.tick - this.view[at]) <= near);
  }

  // What is in view, as `--window` takes it.
  windowText() {
    const [from, to] = this.view.map((time) => time * this.tick);
    return [from, to].map((ns) => this.instant(ns, (to - from) / 1000).replace(/(\.\d*?)0+ /, "$1 ").replace(/\.? /, "")).join("..");
  }

  get least() { return Math.min(20, this.length); }

  show(from, to) {
    const span = Math.min(Math.max(to - from, this.least), this.length);
    const start = Math.min(Math.max(from, 0), this.length - span);
    this.view = [start, start + span];
    this.schedule();
  }

  // As `show`, and `back` leads to where one was.
  look(from, to) {
    this.earlier.push(this.view);
    this.show(from, to);
  }

  back() {
    this.show(...(this.earlier.pop() || [0, this.length]));
  }

  cancel() {
    this.chosen = null;
    this.pointers.clear();
    this.schedule();
  }

  // What is at `around` stays where it is.
  zoom(factor, around = (this.view[0] + this.view[1]) / 2) {
    const [from, to] = this.view;
    const span = Math.min(Math.max((to - from) / factor, this.least), this.length);
    const start = around - ((around - from) / (to - from)) * span;
    this.show(start, start + span);
  }

  pan(share) {
    const by = share * (this.view[1] - this.view[0]);
    this.show(this.view[0] + by, this.view[1] + by);
  }

  listen() {
    const on = (name, handler, options) => this.canvas.addEventListener(name, handler.bind(this), options);
    on("wheel", this.wheeled, { passive: false });
    on("pointerdown", this.pressed);
    on("pointermove", this.moved);
    on("pointerup", this.lifted);
    on("pointercancel", this.lifted);
    // A finger leaves when it is lifted: what it tapped on stays told.
    on("pointerleave", (event) => { if (event.pointerType !== "touch") this.forget(); });
    on("blur", this.forget);
    on("dblclick", (event) => this.zoom(3, this.timeAt(event.offsetX)));
    on("keydown", this.typed);
  }

  forget() {
    this.cross = null;
    tip.hide();
    this.schedule();
  }

  wheeled(event) {
    // Some browsers count lines, not pixels.
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      event.preventDefault();
      this.pan((((event.deltaX || event.deltaY) * unit) / this.width) * 1.5);
      return;
    }
    // A wheel alone scrolls the page. Two fingers on a touch pad that move apart come as a wheel with the control key.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * unit * 0.0022), this.timeAt(event.offsetX));
  }

  pressed(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    const row = this.rows[Math.floor((event.offsetY - this.head) / this.step)];
    if (event.offsetX < this.left && row && row.kind === "role") {
      this.fold(row.role);
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    this.tap = this.pointers.size ? null : event.offsetX;
    this.pointers.set(event.pointerId, event.offsetX);
  }

  moved(event) {
    if (!this.pointers.has(event.pointerId)) {
      this.hover(event);
      return;
    }
    const before = [...this.pointers.values()];
    this.pointers.set(event.pointerId, event.offsetX);
    const after = [...this.pointers.values()];
    if (this.tap !== null && Math.abs(event.offsetX - this.tap) < 4) return;
    const from = this.tap === null ? middle(before) : this.tap;
    this.tap = null;
    if (event.pointerType === "mouse" && (this.chosen || !event.shiftKey)) {
      this.chosen = [this.chosen ? this.chosen[0] : Math.max(from, this.left), Math.max(event.offsetX, this.left)];
      this.schedule();
      tip.hide();
      return;
    }
    this.pan((from - middle(after)) / this.width);
    if (after.length === 2) this.zoom(apart(after) / apart(before), this.timeAt(middle(after)));
    tip.hide();
  }

  lifted(event) {
    this.pointers.delete(event.pointerId);
    if (this.chosen && event.type === "pointerup") this.look(...this.chosen.map((x) => this.timeAt(x)).sort((one, other) => one - other));
    this.chosen = null;
    if (this.tap !== null && event.type === "pointerup") this.hover(event);
    this.tap = null;
  }

  typed(event) {
    const moves = {
      "+": () => this.zoom(1.6), "=": () => this.zoom(1.6), w: () => this.zoom(1.6), ArrowUp: () => this.zoom(1.6),
      "-": () => this.zoom(1 / 1.6), s: () => this.zoom(1 / 1.6), ArrowDown: () => this.zoom(1 / 1.6),
      ArrowLeft: () => this.pan(-0.2), a: () => this.pan(-0.2), ArrowRight: () => this.pan(0.2), d: () => this.pan(0.2),
      0: () => this.show(0, this.length), Home: () => this.show(0, this.length),
      Backspace: () => this.back(), Escape: () => this.cancel(), u: () => this.foldAll(!this.unfolded.size),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  }

  // --- telling

  hover(event) {
    const row = this.rows[Math.floor((event.offsetY - this.head) / this.step)];
    this.cross = event.offsetX >= this.left ? event.offsetX : null;
    this.canvas.classList.toggle("folds", this.cross === null && row !== undefined && row.kind === "role");
    this.schedule();
    if (!row || event.offsetY < this.head) { tip.hide(); return; }
    if (this.cross === null) { tip.show(event, row.label, [row.kind === "role" ? "click to fold or unfold" : null]); return; }
    const time = this.timeAt(event.offsetX);
    const pixel = (this.view[1] - this.view[0]) / this.width;
    const when = `at ${this.instant(time * this.tick, pixel * this.tick)}`;
    const [lane] = row.lanes;
    const at = stretchAt(lane, time);
    if (at >= lane.ends.length) { tip.hide(); return; }
    const [first, last] = sameValue(lane, at);
    const [start, end] = [first ? lane.ends[first - 1] : 0, lane.ends[last]];
    if (row.lanes.length > 1 || end - start < 2 * pixel) {
      const zoom = row.lanes.length > 1 ? "click on the name to tell them apart" : "zoom in to tell them apart";
      tip.show(event, row.label, [when, ...this.shares(row, time - 2 * pixel, time + 2 * pixel, 5), zoom]);
      return;
    }
    const lines = [`for ${duration((end - start) * this.tick)}, ${when}`, this.stack(lane.stacks[at])];
    if (row.kind === "thread" && lane.values[at] % 16 === WAITING) lines.push(...this.whyWaiting(lane, at, start, end, time));
    if (row.kind === "thread" && lane.values[at] % 16 === IN_LOCK) lines.push(this.untilWhen(lane.mixes[at]));
    if (row.kind === "thread" && (this.path.get(row.thread) || []).some(([from, to]) => from <= time && time < to)) lines.push("the end hung on this");
    tip.show(event, `${row.label}: ${this.valueText(row, lane.values[at])}`, lines);
  }

  whyWaiting(lane, at, start, end, time) {
    const holder = this.rows.filter((other) => other.kind === "gil")[lane.values[at] >> 4];
    if (!holder) return [];
    const now = stretchAt(holder.lanes[0], time);
    return [element("b", {}, `at this instant: ${this.valueText(holder, holder.lanes[0].values[now])}`), this.stack(holder.lanes[0].stacks[now]),
      element("b", {}, "during the whole wait"), ...this.shares(holder, start, end, 4), `lost to: ${this.causes(lane.mixes[at])}`];
  }

  untilWhen(wake) {
    if (!wake) return "until its time was up, or to the end";
    const waker = this.process.wakes[wake - 1];
    return `until ${waker.by}${waker.function ? `: ${place(waker)}` : " ended"}`;
  }

  causes(mix) {
    const parts = mix ? this.process.mixes[mix - 1] : [];
    const all = parts.reduce((total, part) => total + part, 0);
    const told = parts.map((part, cause) => [part, this.causeNames[cause]]).filter(([part]) => part).sort((one, other) => other[0] - one[0]);
    return told.map(([part, cause]) => `${cause} ${Math.round((100 * part) / all)}%`).join(", ") || "not known";
  }

  valueText(row, value) {
    if (row.kind !== "gil" && value % 16 === IN_LOCK) return `blocked ${BLOCK_TEXT[BLOCK_CAUSES[value >> 4]]}`;
    if (row.kind !== "gil" && value % 16 === OFF_BLOCKED && value >> 4) return `blocked ${ASLEEP_TEXT[ASLEEP_CAUSES[value >> 4]]}`;
    if (row.kind !== "gil") return STATE_TEXT[STATES[value % 16]] || "not alive";
    return value === FREE ? "the GIL is free" : this.name(value);
  }

  shares(row, from, to, most) {
    const found = sharesIn(row.lanes, from, to, true);
    const told = found.slice(0, most).map(({ value, stack, share }) => {
      const [site] = framesOf(this.process, stack);
      return `${percent(share)} ${this.valueText(row, value)}${site ? `: ${site}` : ""}`;
    });
    return found.length > most ? [...told, `and ${found.length - most} more`] : told;
  }

  stack(number) {
    const frames = framesOf(this.process, number);
    if (!frames.length) return null;
    const told = frames.slice(0, 6);
    if (frames.length > told.length) told.push("…");
    return element("ol", { class: "frames" }, ...told.map((frame) => element("li", {}, frame)));
  }
}
