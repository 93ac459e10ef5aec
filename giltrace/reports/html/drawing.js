// How lanes are drawn: one per GIL, thread or role, on a canvas. A view is [from, to] in ticks.

const WAITING = 3;
const OFF_RUNNING = 4;
const OFF_BLOCKED = 6;
const IN_LOCK = 8;
const FREE = 0xffff;

// Sums by value, in one column.
const columnSums = new Float64Array(0x10000);

class LaneDrawing {
  constructor(canvas, process, tick, length) {
    Object.assign(this, { canvas, process, tick, length, threads: process.threads, rows: [], cross: null, chosen: null });
    this.view = [0, length];
    // The critical path by lane, as far as it lies in one.
    this.path = new Map();
    for (const [lane, ...stretch] of process.path) {
      if (!this.path.has(lane)) this.path.set(lane, []);
      this.path.get(lane).push(stretch);
    }
  }

  name(thread) {
    const known = this.threads[thread];
    return known ? threadName(known) : "a thread without a lane";
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
    let x = row.below ? 12 : 0;
    if (row.kind === "thread") {
      context.fillStyle = this.paint.gil[row.thread];
      context.fillRect(x, y + high / 2 - 5, 10, 10);
      x += 16;
    }
    context.fillStyle = row.kind === "role" ? this.paint.accent : this.paint.ink;
    context.fillText(this.fitted(context, row.label, this.left - x - 8), x, y + high / 2 + 0.5);
    const [lane] = row.lanes;
    const first = stretchAt(lane, this.view[0]);
    const last = Math.min(stretchAt(lane, this.view[1]), lane.ends.length - 1);
    if (row.lanes.length > 1 || last - first > this.width / 3) this.drawShares(context, row, y, high);
    else this.drawStretches(context, row, y, high, first, last);
    if (row.kind !== "gil") this.drawPath(context, row, y + high + 1);
  }

  // What the end hung on: a line below the lane.
  drawPath(context, row, y) {
    const scale = this.width / (this.view[1] - this.view[0]);
    context.fillStyle = this.paint.ink;
    for (const thread of row.threads) {
      for (const [from, to] of this.path.get(thread) || []) {
        if (to <= this.view[0] || from >= this.view[1]) continue;
        const x = this.left + (Math.max(from, this.view[0]) - this.view[0]) * scale;
        context.fillRect(x, y, Math.max((Math.min(to, this.view[1]) - Math.max(from, this.view[0])) * scale, 0.5), 2);
      }
    }
  }

  fitted(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let kept = text.length;
    while (kept > 1 && context.measureText(`${text.slice(0, kept)}…`).width > room) kept--;
    return `${text.slice(0, kept)}…`;
  }

  drawStretches(context, row, y, high, first, last) {
    const scale = this.width / (this.view[1] - this.view[0]);
    const [{ ends, values }] = row.lanes;
    for (let at = first; at <= last; at++) {
      const from = Math.max(at ? ends[at - 1] : 0, this.view[0]);
      while (at < last && values[at + 1] === values[at]) at++;
      const fill = this.colourOf(row, values[at]);
      if (!fill) continue;
      const to = Math.min(ends[at], this.view[1]);
      const x = this.left + (from - this.view[0]) * scale;
      const wide = (to - from) * scale;
      const state = values[at] % 16;
      const thin = row.kind === "thread" && state >= 5 && state <= IN_LOCK;
      context.fillStyle = fill;
      // What sleeps is drawn low, so that what happens stands out.
      context.fillRect(x, thin ? y + high * 0.36 : y, Math.max(wide - (wide > 4 ? 0.75 : 0), 0.4), thin ? high * 0.28 : high);
      if (row.kind === "gil" && wide > 46 && values[at] < this.threads.length) {
        context.fillStyle = this.paint.on;
        context.font = "11px system-ui, sans-serif";
        context.fillText(this.fitted(context, this.name(values[at]), wide - 10), x + 5, y + high / 2 + 0.5);
      }
    }
  }

  // Too many stretches, or lanes, to tell apart: each column is divided by their shares of its time.
  drawShares(context, row, y, high) {
    const column = 2;
    const span = ((this.view[1] - this.view[0]) / this.width) * column;
    const next = row.lanes.map((lane) => stretchAt(lane, this.view[0]));
    const seen = [];
    for (let x = 0; x < this.width; x += column) {
      const from = this.view[0] + (x / column) * span;
      const to = from + span;
      row.lanes.forEach(({ ends, values }, number) => {
        for (let at = next[number]; at < ends.length; at++) {
          next[number] = at;
          const inside = Math.min(ends[at], to) - Math.max(at ? ends[at - 1] : 0, from);
          if (inside > 0) {
            const value = row.kind === "gil" ? values[at] : values[at] % 16;
            if (!columnSums[value]) seen.push(value);
            columnSums[value] += inside;
          }
          if (ends[at] >= to) break;
        }
      });
      let top = y + high;
      for (const value of seen.sort((one, other) => one - other)) {
        const fill = this.colourOf(row, value);
        const tall = (columnSums[value] / span / row.lanes.length) * high;
        columnSums[value] = 0;
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
}
