// Theme, the axis of the curves, highlighting an arm, and the values under the pointer. The page reads without it.
"use strict";
(() => {
  const root = document.documentElement;
  const wished = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } }; // no storage in some private windows
  const paint = () => { root.dataset.theme = kept() ?? (wished.matches ? "dark" : "light"); };
  paint();
  wished.addEventListener("change", paint);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* the choice then holds for this visit */ }
  });

  const curves = document.querySelector("#curves .panels");
  for (const input of document.querySelectorAll("input[name=axis]"))
    input.addEventListener("change", () => { curves.dataset.axis = input.value; });

  const buttons = [...document.querySelectorAll(".legend button")];
  let held = null; // the arm that a click keeps highlighted
  const highlight = (arm) => {
    const colour = arm === null ? null : `var(--arm-${arm})`;
    for (const chart of curves.querySelectorAll(".chart")) {
      chart.classList.toggle("dimmed", arm !== null);
      for (const mark of chart.querySelectorAll("[stroke^='var(--arm'], [fill^='var(--arm']"))
        mark.classList.toggle("lit", colour === (mark.getAttribute("stroke") ?? mark.getAttribute("fill")));
    }
  };
  for (const button of buttons) {
    const arm = Number(button.dataset.arm);
    button.addEventListener("click", () => {
      held = held === arm ? null : arm;
      for (const other of buttons) other.setAttribute("aria-pressed", String(Number(other.dataset.arm) === held));
      highlight(held);
    });
    button.addEventListener("mouseenter", () => highlight(arm));
    button.addEventListener("mouseleave", () => highlight(held));
  }

  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + height + 24 > innerHeight ? y - height - 12 : y + 16}px`;
  };
  const short = (value) => (Math.abs(value) >= 10000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));

  // The bold lines of a chart as points in the chart's own pixels, read off its paths once.
  const lines = new WeakMap();
  const linesOf = (chart, series) => {
    if (!lines.has(chart)) {
      const found = [];
      for (const path of chart.querySelectorAll("path[stroke-width='2.2']")) {
        const points = path.getAttribute("d").slice(1).split("L").map((pair) => pair.split(",").map(Number));
        if (points.every((pair) => pair.length === 2)) found.push({ name: series[path.getAttribute("stroke")], points, path });
      }
      lines.set(chart, found);
    }
    return lines.get(chart);
  };
  for (const chart of document.querySelectorAll(".chart[data-chart]")) {
    const { x, y, log, series, axis } = JSON.parse(chart.dataset.chart);
    const size = { width: 300, height: 170 };
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("pointermove", (event) => {
      const drawn = linesOf(chart, series);
      if (!drawn.length) return;
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawn[0].path.getScreenCTM().inverse()).x;
      if (at < -4 || at > size.width + 4) return hide();
      const rows = [];
      for (const { name, points } of drawn) {
        if (at > points.at(-1)[0] + 6) continue;
        const [, py] = points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
        const share = 1 - py / size.height;
        const value = log ? Math.exp(Math.log(y[0]) + share * (Math.log(y[1]) - Math.log(y[0]))) : y[0] + share * (y[1] - y[0]);
        rows.push([value, `${name}: ${short(value)}`]);
      }
      rows.sort((a, b) => b[0] - a[0]);
      const here = x[0] + Math.min(1, Math.max(0, at / size.width)) * (x[1] - x[0]);
      show([`${short(here)} ${axis}`, ...rows.map((row) => row[1])].join("\n"), event.clientX, event.clientY);
    });
  }
  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest?.("[data-tip]");
    if (token) show(token.dataset.tip, event.clientX, event.clientY);
    else if (!event.target.closest?.(".chart")) hide();
  });
})();
