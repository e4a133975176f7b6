// Bars of the times of each answer.

import { make } from "./dom.js";
import { median, seconds } from "./numbers.js";

const PHASES = [
  ["encode_seconds", "Encoding the image"],
  ["prefill_seconds", "Prefill"],
  ["first_token_seconds", "First token, from the request"],
  ["step_seconds", "Decoding step, mean"],
];

/** Median of a time over the timed runs of a result; null if it was not measured. */
export function medianTime(result, phase) {
  const values = result.times.map((times) => times[phase]).filter((value) => value !== null);
  return values.length ? median(values) : null;
}

export function drawBars(container, results) {
  container.replaceChildren(
    ...PHASES.map(([phase, title]) => {
      const values = results.map((result) => medianTime(result, phase));
      const most = Math.max(...values.map((value) => value ?? 0));
      const rows = results.map((result, i) => row(result.label, values[i], most, i));
      return make("div", {}, make("h3", { textContent: title }), make("ul", {}, ...rows));
    }),
  );
}

function row(label, value, most, number) {
  const fill = make("div", { className: `fill f${number}` });
  fill.style.width = most ? `${(100 * (value ?? 0)) / most}%` : "0";
  return make(
    "li",
    {},
    make("span", { className: "name", textContent: label, title: label }),
    make("div", { className: "track", "aria-hidden": "true" }, fill),
    make("span", { className: "value", textContent: value === null ? "–" : seconds(value) }),
  );
}
