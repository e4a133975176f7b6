// Requests of one comparison.

import { stream } from "./api.js";
import { message } from "./snippets.js";

const TIMES = ["encode_seconds", "prefill_seconds", "first_token_seconds", "step_seconds", "batch_size"];

/** Makes the results of a comparison, without answers yet: the untouched model first. */
export function plan({ model, image, question, tokens, methods }) {
  const all = [{ method: "untouched", budget: "" }, ...methods];
  return all.map(({ method, budget }) => ({
    label: budget ? `${method} at ${budget}` : method,
    request: { model, image, question, tokens, options: { method, ...(budget && { budget }) } },
    text: "",
    figures: null,
    times: [],
  }));
}

/** Streams the answer of a result, with the trace of its tokens. */
export async function answer(result, onText, signal) {
  const add = (text) => {
    result.text += text;
    onText(text);
  };
  result.figures = await stream(body(result.request, true), add, signal);
}

/** Repeats a request without a trace, which takes time itself, and notes its times. */
export async function time(result, signal) {
  const figures = await stream(body(result.request, false), () => {}, signal);
  result.times.push(Object.fromEntries(TIMES.map((name) => [name, figures[name]])));
}

function body({ model, image, question, tokens, options }, trace) {
  return {
    model,
    messages: message(image.url, question),
    max_completion_tokens: tokens,
    seed: 0,
    vistrim: { ...options, trace },
  };
}
