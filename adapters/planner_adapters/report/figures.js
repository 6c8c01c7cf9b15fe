"use strict";
// Draws the figures of the page in the colours of its style sheet, and again when these change.
(() => {
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const coloured = value => value.replace(/^(--[a-z]+)@?([\da-f]{2})?$/, (_, name, opacity = "") => css(name) + opacity);
  const coarse = matchMedia("(pointer: coarse)");

  function draw() {
    const text = document.getElementById("data").textContent;
    const figures = JSON.parse(text, (_, value) => typeof value === "string" ? coloured(value) : value);
    const axis = {gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true, separatethousands: true};
    for (const [id, {data, layout}] of Object.entries(figures)) {
      for (const name of Object.keys(layout).filter(each => each.includes("axis"))) Object.assign(layout[name], {...axis, ...layout[name]});
      Plotly.react(id, data, {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "same",
        font: {color: css("--text"), size: 12, family: "system-ui, sans-serif"},
        hoverlabel: {bgcolor: css("--raised"), bordercolor: css("--line"), font: {color: css("--text")}, align: "left"},
        margin: {l: 48, r: 16, t: 8, b: 40}, dragmode: coarse.matches ? false : "zoom",
        ...layout, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...layout.legend},
      }, {responsive: true, displayModeBar: false, doubleClick: "autosize"});
    }
    document.body.dataset.drawn = "yes";
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
