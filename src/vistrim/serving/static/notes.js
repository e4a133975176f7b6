// Sentences about the model and its times.

const SMALL_MODEL = 100e6;

export function describeModel({ model, parameters, layers, dtype, device }) {
  const size = parameters >= 1e9 ? `${(parameters / 1e9).toPrecision(2)} billion` : `${Math.round(parameters / 1e6)} million`;
  return `${model}: ${size} parameters, ${layers} layers, ${dtype} on ${device}`;
}

/** Says what the times are: of which machine, batch and number of runs. */
export function describeTimes(about, results) {
  const tiny = about.parameters < SMALL_MODEL
    ? ` ${about.model} is a tiny model: fixed costs dominate its times, so they do not show what trimming saves in a large one.`
    : "";
  const runs = Math.max(0, ...results.map((result) => result.times.length));
  if (!runs) return `Not measured yet.${tiny}`;
  const batch = Math.max(...results.flatMap((result) => result.times.map((times) => times.batch_size)));
  const together = batch > 1 ? `other requests ran in the same batches, of up to ${batch}` : "batches of one";
  const number = runs === 1 ? "One run" : `Medians of ${runs} runs`;
  return `${number} on the server's machine (${about.dtype} on ${about.device}), ${together}, without a trace. Other hardware has other times.${tiny}`;
}

export function describeEnd(results) {
  const complete = results.filter((result) => result.figures);
  const parts = complete.map(({ label, figures }) => `${label}: ${Math.round(figures.average_tokens)} of ${figures.visual_tokens}`);
  return `Done. Visual tokens per layer, mean: ${parts.join("; ")}.`;
}
