// Visual tokens that each layer held: the trace of an answer, which lists changes only.

/** Expands runs: [[4, 7], 9] becomes [4, 5, 6, 9]. */
export function expand(runs) {
  return runs.flatMap((run) => (Array.isArray(run) ? range(run[0], run[1]) : [run]));
}

function range(first, end) {
  return Array.from({ length: end - first }, (_, i) => first + i);
}

export class Trace {
  /** @param {object} plain the `trace` of an answer */
  constructor(plain) {
    const sample = plain.samples[0];
    this.layers = plain.layers;
    this.steps = plain.steps;
    this.visualTokens = sample.visual_tokens;
    this.groups = sample.groups.map((group) => ({ ...group, tokens: expand(group.tokens), cells: expand(group.cells) }));
    this.stages = sample.prefill.map((stage) => ({
      layer: stage.layer,
      kept: expand(stage.kept),
      merged: stage.stands_for.map(([token]) => token),
    }));
    this.changes = sample.decode.map((layer) =>
      layer.map((change) => ({ step: change.step, gone: expand(change.gone), back: expand(change.back) })),
    );
  }

  /** The trace of the untouched model, which keeps everything. */
  static untouched(visualTokens, layers, steps) {
    const sample = {
      visual_tokens: visualTokens,
      groups: [],
      prefill: [{ layer: 0, kept: [[0, visualTokens]], stands_for: [] }],
      decode: Array.from({ length: layers }, () => []),
    };
    return new Trace({ layers, steps, samples: [sample] });
  }

  stage(layer) {
    return this.stages.filter((stage) => stage.layer <= layer).at(-1);
  }

  /** Tokens of a layer: at step 0 those that it processed in prefill, later those in its cache after the step. */
  held(layer, step) {
    const held = new Set(this.stage(layer).kept);
    for (const change of step > 0 ? this.changes[layer] : []) {
      if (change.step > step) break;
      change.gone.forEach((token) => held.delete(token));
      change.back.forEach((token) => held.add(token));
    }
    return held;
  }

  /** Tokens of a layer that stand for several tokens. */
  merged(layer) {
    return new Set(this.stage(layer).merged);
  }
}
