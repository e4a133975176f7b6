// Bytes of the KV cache after each forward pass.

import { make, makeSvg } from "./dom.js";
import { bytes } from "./numbers.js";

const MOST_WIDE = 760, HEIGHT = 240, LEFT = 76, RIGHT = 12, TOP = 14, BOTTOM = 34;

/** Draws a line per result, and a cursor at the step that the images show. */
export function drawChart(container, results, step) {
  const width = Math.min(MOST_WIDE, container.clientWidth || MOST_WIDE);
  const drawn = results.filter((result) => result.figures?.kv_bytes_per_step.length);
  const most = Math.max(1, ...drawn.flatMap((result) => result.figures.kv_bytes_per_step));
  const steps = Math.max(1, ...drawn.map((result) => result.figures.kv_bytes_per_step.length - 1));
  const x = (at) => LEFT + ((width - LEFT - RIGHT) * at) / steps;
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / most;
  const described = drawn.map((result) => {
    const { kv_bytes_per_step: kv } = result.figures;
    return `${result.label}: ${bytes(kv[0])} after prefill, ${bytes(kv.at(-1))} at the end`;
  });
  const svg = makeSvg("svg", {
    width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `KV cache. ${described.join("; ")}`,
  });
  for (const part of [0, 0.5, 1]) {
    svg.append(
      makeSvg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(most * part), y2: y(most * part) }),
      makeSvg("text", { x: LEFT - 8, y: y(most * part) + 4, "text-anchor": "end" }, bytes(most * part)),
    );
  }
  svg.append(
    makeSvg("text", { x: LEFT, y: HEIGHT - 12 }, "prefill"),
    makeSvg("text", { x: width - RIGHT, y: HEIGHT - 12, "text-anchor": "end" }, `step ${steps}`),
    makeSvg("line", { class: "cursor", x1: x(step), x2: x(step), y1: TOP, y2: HEIGHT - BOTTOM }),
  );
  for (const result of drawn) {
    const points = result.figures.kv_bytes_per_step.map((value, i) => `${x(i)},${y(value)}`);
    svg.append(makeSvg("polyline", { class: `s${results.indexOf(result)}`, points: points.join(" ") }));
  }
  const names = drawn.map((result, i) => {
    const sample = makeSvg("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" });
    sample.append(makeSvg("polyline", { class: `s${results.indexOf(result)}`, points: "0,5 34,5" }));
    return make("li", {}, sample, described[i]);
  });
  container.replaceChildren(svg, make("ul", {}, ...names));
}
