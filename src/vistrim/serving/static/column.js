// One answer: text, images with kept tokens, and code that does the same.

import { byId, make } from "./dom.js";
import { draw, fit } from "./overlay.js";
import { curlSnippet, pythonSnippet } from "./snippets.js";
import { Trace } from "./trace.js";

export class Column {
  /** @param {{label: string, request: object}} result filled while the answer arrives */
  constructor(result, number) {
    this.result = result;
    this.answer = make("p", { className: "answer" });
    this.ran = make("p", { className: "ran" });
    this.images = make("div");
    this.count = make("p", { className: "count" });
    this.element = make(
      "article",
      { className: `column k${number}`, "aria-label": result.label },
      make("header", {}, make("h3", { textContent: result.label }), this.ran),
      this.answer,
      this.images,
      this.count,
      this.code(),
    );
    this.trace = null;
    this.shown = [];
  }

  addText(text) {
    this.answer.append(text);
  }

  fail(message) {
    this.answer.classList.add("error");
    this.answer.textContent = message;
  }

  /** Shows the figures of the complete answer. */
  finish(figures, regions, layers) {
    this.ran.textContent = figures.method === this.result.label ? "" : figures.method;
    const steps = Math.max(0, figures.kv_bytes_per_step.length - 1);
    this.trace = figures.trace ? new Trace(figures.trace) : Trace.untouched(figures.visual_tokens, layers, steps);
    const fitted = fit(regions, this.trace) ?? [];
    this.shown = fitted.map((region) => ({ region, canvas: make("canvas", { role: "img" }) }));
    this.images.replaceChildren(
      ...this.shown.map(({ region, canvas }) => {
        const size = `${region.name}: ${region.width} × ${region.height} pixels, ${region.columns} × ${region.rows} tokens`;
        return make("figure", {}, canvas, make("figcaption", { textContent: size }));
      }),
    );
    if (!fitted.length && figures.visual_tokens) this.note("The visual tokens of this answer form no grid on the image.");
    figures.warnings.forEach((warning) => this.note(warning));
  }

  note(text) {
    this.images.append(make("p", { className: "note", textContent: text }));
  }

  /** Shows the tokens of a layer at a step; an answer that is shorter shows its last step. */
  show(layer, step) {
    if (!this.trace) return;
    const at = Math.min(step, this.trace.steps);
    const held = this.trace.held(layer, at), merged = this.trace.merged(layer);
    const when = at ? `after step ${at}${at < step ? ", its last" : ""}` : "in prefill";
    const count = `${held.size} of ${this.trace.visualTokens} visual tokens ${when}`;
    this.count.textContent = count;
    for (const { region, canvas } of this.shown) {
      draw(canvas, region, held, merged);
      canvas.setAttribute("aria-label", `${region.name}, layer ${layer}: ${count}`);
    }
  }

  code() {
    const { request, label } = this.result;
    const samples = [["Python", pythonSnippet(request)], ["curl", curlSnippet(request)]];
    return make(
      "details",
      {},
      make("summary", { textContent: "Python and curl" }),
      ...samples.flatMap(([language, text]) => {
        const title = `Copy ${language}`;
        const copy = make("button", { type: "button", textContent: title, "aria-label": `${title} of ${label}` });
        copy.addEventListener("click", () => copyText(text, copy));
        return [copy, make("pre", { textContent: text, tabIndex: 0 })];
      }),
    );
  }
}

/** Copies a text, and tells it on the button. */
export async function copyText(text, button) {
  const title = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Browsers allow it on localhost and https only.
    button.textContent = "Copying is not allowed here";
  }
  byId("status").textContent = `${button.textContent}.`;
  setTimeout(() => (button.textContent = title), 1500);
}
