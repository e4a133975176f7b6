// Table of tokens, FLOPs and bytes.

import { make } from "./dom.js";
import { bytes, flops, share } from "./numbers.js";

const ROWS = [
  ["Visual tokens per layer, mean", (f) => `${Number(f.average_tokens.toFixed(1))} of ${f.visual_tokens}`],
  ["Prefill FLOPs", (f) => `${flops(f.prefill_flops)} (${share(f.prefill_flops, f.prefill_flops_full)})`],
  ["FLOPs of the method", (f) => flops(f.method_flops)],
  ["KV cache at the end", (f) => `${bytes(f.kv_bytes)} (${share(f.kv_bytes, f.kv_bytes_full)})`],
  ["KV cache, most", (f) => bytes(f.kv_bytes_peak)],
  ["Prompt tokens", (f) => f.usage.prompt_tokens],
  ["Answer tokens", (f) => f.usage.completion_tokens],
];

export function drawTable(table, results) {
  const head = results.map((result) => make("th", { scope: "col", textContent: result.label }));
  const rows = ROWS.map(([title, text]) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: title }),
      ...results.map((result) => make("td", { textContent: result.figures ? text(result.figures) : "–" })),
    ),
  );
  table.replaceChildren(
    make("thead", {}, make("tr", {}, make("td"), ...head)),
    make("tbody", {}, ...rows),
  );
}
