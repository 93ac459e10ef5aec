// The lanes: one per GIL and per thread, on a canvas that zooms and pans. A view is [from, to] in ticks.

const WAITING = 3;
const FREE = 0xffff;

const middle = (xs) => xs.reduce((total, x) => total + x, 0) / xs.length;
const apart = (xs) => Math.max(Math.abs(xs[0] - xs[1]), 8);

class Lanes {
  constructor(canvas, data, process) {
    this.canvas = canvas;
    this.process = process;
    this.shown = () => {};
    this.tick = data.tick_ns;
    this.length = Math.max(Math.ceil(data.duration_ns / this.tick), 1);
    this.view = [0, this.length];
    this.threads = process.threads;
    this.rows = [
      ...process.gil_lanes.map((lane, at) => ({
        ...lane, kind: "gil", label: process.gil_lanes.length > 1 ? `GIL ${at} holder` : "GIL holder",
      })),
      ...process.thread_lanes.map((lane, at) => ({
        ...lane, kind: "thread", thread: at, label: this.name(at),
      })),
    ];
    this.pointers = new Map();
    this.tap = null;
    this.cross = null;
    // What a mouse has drawn over, as two places on the canvas, and where that led from.
    this.chosen = null;
    this.earlier = [];
    this.listen();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
  }

  name(thread) {
    const known = this.threads[thread];
    return known ? known.name || `tid ${known.tid}` : "a thread without a lane";
  }

  get head() { return 24; }
  get foot() { return 14; }
  get step() { return 25; }
  get left() { return this.canvas.clientWidth < 520 ? 84 : 148; }
  get width() { return Math.max(this.canvas.clientWidth - this.left, 1); }
  get height() { return this.head + this.rows.length * this.step + this.foot; }

  timeAt(x) {
    return this.view[0] + ((x - this.left) / this.width) * (this.view[1] - this.view[0]);
  }

  // --- moving

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
      Backspace: () => this.back(), Escape: () => this.cancel(),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  }

  // --- drawing

  schedule() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    canvas.style.height = `${this.height}px`;
    const size = [Math.round(canvas.clientWidth * ratio), Math.round(this.height * ratio)];
    if (canvas.width !== size[0]) canvas.width = size[0];
    if (canvas.height !== size[1]) canvas.height = size[1];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colour("card");
    context.fillRect(0, 0, canvas.clientWidth, this.height);
    this.paint = {
      thread: [...STATES.map(colour)], gil: this.threads.map((_, at) => colour(threadColour(at))), ink: colour("ink"),
      soft: colour("soft"), line: colour("line"), free: colour("faint"), accent: colour("accent"),
      on: colour("on-thread"),
    };
    this.drawAxis(context);
    this.rows.forEach((row, at) => this.drawRow(context, row, this.head + at * this.step));
    this.drawPosition(context);
    if (this.chosen) {
      const [from, to] = [Math.min(...this.chosen), Math.max(...this.chosen)];
      context.globalAlpha = 0.25;
      context.fillStyle = this.paint.accent;
      context.fillRect(from, this.head - 4, to - from, this.rows.length * this.step + 4);
      context.globalAlpha = 1;
    }
    if (this.cross !== null) {
      context.fillStyle = this.paint.ink;
      context.fillRect(Math.round(this.cross), this.head - 4, 1, this.rows.length * this.step + 4);
    }
    this.shown();
  }

  colourOf(row, value) {
    if (row.kind === "gil") return this.paint.gil[value] || (value === FREE ? this.paint.free : this.paint.soft);
    return this.paint.thread[value % 16];
  }

  drawAxis(context) {
    const span = (this.view[1] - this.view[0]) * this.tick;
    const rough = span / Math.max(this.width / 110, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const first = Math.ceil((this.view[0] * this.tick) / step);
    for (let at = first; at * step <= this.view[1] * this.tick; at++) {
      const x = this.left + ((at * step) / this.tick - this.view[0]) / (this.view[1] - this.view[0]) * this.width;
      context.fillStyle = this.paint.line;
      context.fillRect(Math.round(x), this.head - 6, 1, this.rows.length * this.step + 6);
      context.fillStyle = this.paint.soft;
      const text = this.instant(at * step, step);
      context.textAlign = x + context.measureText(text).width > this.canvas.clientWidth ? "right" : "left";
      context.fillText(text, x + (context.textAlign === "right" ? -3 : 3), 8);
    }
  }

  // The stretch in view, with digits enough for a thousandth of it.
  range() {
    const [from, to] = this.view.map((time) => time * this.tick);
    const told = [from, to].map((ns) => this.instant(ns, (to - from) / 1000));
    return `${told[0]} to ${told[1]} (${duration(to - from)})`;
  }

  // An instant with as many digits as tell it from one `step` (ns) later.
  instant(ns, step = this.tick) {
    const [unit, size] = this.length * this.tick >= 1e9 ? ["s", 1e9] : ["ms", 1e6];
    return `${(ns / size).toFixed(Math.max(0, Math.ceil(-Math.log10(step / size) - 1e-9)))} ${unit}`;
  }

  drawRow(context, row, y) {
    const high = this.step - 5;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.font = `${row.kind === "gil" ? "600 " : ""}12px system-ui, sans-serif`;
    let x = 0;
    if (row.kind === "thread") {
      context.fillStyle = this.paint.gil[row.thread];
      context.fillRect(0, y + high / 2 - 5, 10, 10);
      x = 16;
    }
    context.fillStyle = this.paint.ink;
    context.fillText(this.fitted(context, row.label, this.left - x - 8), x, y + high / 2 + 0.5);
    const first = stretchAt(row, this.view[0]);
    const last = Math.min(stretchAt(row, this.view[1]), row.ends.length - 1);
    if (last - first > this.width / 3) this.drawShares(context, row, y, high, first);
    else this.drawStretches(context, row, y, high, first, last);
  }

  fitted(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let kept = text.length;
    while (kept > 1 && context.measureText(`${text.slice(0, kept)}…`).width > room) kept--;
    return `${text.slice(0, kept)}…`;
  }

  drawStretches(context, row, y, high, first, last) {
    const scale = this.width / (this.view[1] - this.view[0]);
    for (let at = first; at <= last; at++) {
      const fill = this.colourOf(row, row.values[at]);
      if (!fill) continue;
      const from = Math.max(at ? row.ends[at - 1] : 0, this.view[0]);
      const to = Math.min(row.ends[at], this.view[1]);
      const x = this.left + (from - this.view[0]) * scale;
      const wide = (to - from) * scale;
      const state = row.values[at] % 16;
      const thin = row.kind === "thread" && state >= 5 && state <= 7;
      context.fillStyle = fill;
      // What sleeps is drawn low, so that what happens stands out.
      context.fillRect(x, thin ? y + high * 0.36 : y, Math.max(wide - (wide > 4 ? 0.75 : 0), 0.4), thin ? high * 0.28 : high);
      if (row.kind === "gil" && wide > 46 && row.values[at] < this.threads.length) {
        context.fillStyle = this.paint.on;
        context.font = "11px system-ui, sans-serif";
        context.fillText(this.fitted(context, this.name(row.values[at]), wide - 10), x + 5, y + high / 2 + 0.5);
      }
    }
  }

  // Too many stretches to tell apart: each column is divided by their shares of its time.
  drawShares(context, row, y, high, first) {
    const column = 2;
    const span = ((this.view[1] - this.view[0]) / this.width) * column;
    // Values are small, or the two largest there are.
    const sums = new Float64Array(256);
    const seen = [];
    let at = first;
    for (let x = 0; x < this.width; x += column) {
      const from = this.view[0] + (x / column) * span;
      const to = from + span;
      for (; at < row.ends.length; at++) {
        const inside = Math.min(row.ends[at], to) - Math.max(at ? row.ends[at - 1] : 0, from);
        if (inside > 0) {
          const value = row.values[at] & 255;
          if (!sums[value]) seen.push(value);
          sums[value] += inside;
        }
        if (row.ends[at] >= to) break;
      }
      let top = y + high;
      for (const value of seen.sort((one, other) => one - other)) {
        const fill = this.colourOf(row, value > 253 ? value | 0xff00 : value);
        const tall = (sums[value] / span) * high;
        sums[value] = 0;
        top -= tall;
        if (!fill) continue;
        context.fillStyle = fill;
        context.fillRect(this.left + x, top, column, tall);
      }
      seen.length = 0;
    }
  }

  drawPosition(context) {
    const y = this.height - 7;
    context.fillStyle = this.paint.free;
    context.fillRect(this.left, y, this.width, 5);
    context.fillStyle = this.paint.accent;
    const scale = this.width / this.length;
    context.fillRect(this.left + this.view[0] * scale, y, Math.max((this.view[1] - this.view[0]) * scale, 3), 5);
  }

  // --- telling

  hover(event) {
    const row = this.rows[Math.floor((event.offsetY - this.head) / this.step)];
    this.cross = event.offsetX >= this.left ? event.offsetX : null;
    this.schedule();
    if (!row || event.offsetY < this.head) { tip.hide(); return; }
    if (this.cross === null) { tip.show(event, row.label, []); return; }
    const time = this.timeAt(event.offsetX);
    const at = stretchAt(row, time);
    if (at >= row.ends.length) { tip.hide(); return; }
    const pixel = (this.view[1] - this.view[0]) / this.width;
    const start = at ? row.ends[at - 1] : 0;
    const when = `at ${this.instant(time * this.tick, pixel * this.tick)}`;
    if (row.ends[at] - start < 2 * pixel) {
      tip.show(event, row.label, [when, ...this.shares(row, time - 2 * pixel, time + 2 * pixel, 5), "zoom in to tell them apart"]);
      return;
    }
    const lines = [`for ${duration((row.ends[at] - start) * this.tick)}, ${when}`, this.stack(row.stacks[at])];
    if (row.kind === "thread" && row.values[at] % 16 === WAITING) {
      const holder = this.rows.filter((other) => other.kind === "gil")[row.values[at] >> 4];
      if (holder) {
        const now = stretchAt(holder, time);
        lines.push(element("b", {}, `at this instant: ${this.valueText(holder, holder.values[now])}`), this.stack(holder.stacks[now]),
          element("b", {}, "during the whole wait"), ...this.shares(holder, start, row.ends[at], 4));
      }
    }
    tip.show(event, `${row.label}: ${this.valueText(row, row.values[at])}`, lines);
  }

  valueText(row, value) {
    if (row.kind === "thread") return STATE_TEXT[STATES[value % 16]] || "not alive";
    return value === FREE ? "the GIL is free" : this.name(value);
  }

  shares(row, from, to, most) {
    const found = sharesIn(row, from, to, true);
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
