// The results on the page: columns, sliders, bars, chart and table.

import { drawBars } from "./bars.js";
import { drawChart } from "./chart.js";
import { Column } from "./column.js";
import { byId } from "./dom.js";
import { describeTimes } from "./notes.js";
import { Player } from "./player.js";
import { drawTable } from "./table.js";

export class ResultsView {
  constructor() {
    this.results = [];
    this.columns = [];
    this.layer = player("layer", (value, most) => `${value} of ${most}`, () => this.showTokens());
    this.step = player("step", (value, most) => (value ? `${value} of ${most}` : "prefill"), () => this.showStep());
    window.addEventListener("resize", () => this.showChart());
  }

  /** Begins a comparison, whose results are filled later. */
  begin(about, results) {
    Object.assign(this, { about, results });
    this.layer.pause();
    this.step.pause();
    this.columns = results.map((result, i) => new Column(result, i));
    byId("columns").replaceChildren(...this.columns.map((column) => column.element));
    byId("results").hidden = false;
    this.layer.setMax(about.layers - 1);
    this.showFigures();
  }

  /** Shows a complete answer. */
  finish(number, regions) {
    this.columns[number].finish(this.results[number].figures, regions, this.about.layers);
    this.showFigures();
  }

  showFigures() {
    const lengths = this.results.map((result) => (result.figures?.kv_bytes_per_step.length ?? 1) - 1);
    this.step.setMax(Math.max(0, ...lengths));
    drawTable(byId("table"), this.results);
    this.showTimes();
  }

  showTimes() {
    byId("bars").hidden = !this.results.some((result) => result.times.length);
    drawBars(byId("bars"), this.results);
    byId("times-note").textContent = describeTimes(this.about, this.results);
  }

  showTokens() {
    this.columns.forEach((column) => column.show(this.layer.value, this.step.value));
  }

  showStep() {
    this.showTokens();
    this.showChart();
  }

  showChart() {
    drawChart(byId("chart"), this.results, this.step.value);
  }
}

function player(name, describe, changed) {
  const slider = byId(name);
  const parts = { slider, output: byId(`${name}-text`), button: byId(`${name}-play`) };
  return new Player(parts, (value) => describe(value, slider.max), changed);
}
