// Numbers with units.

const PREFIXES = ["", "k", "M", "G", "T", "P"];

function scaled(value, unit) {
  const power = value ? Math.min(PREFIXES.length - 1, Math.max(0, Math.floor(Math.log10(value) / 3))) : 0;
  return `${Number((value / 1000 ** power).toPrecision(3))} ${PREFIXES[power]}${unit}`;
}

export function bytes(value) {
  return scaled(value, "B");
}

export function flops(value) {
  return scaled(value, "FLOP");
}

export function seconds(value) {
  return value >= 1 ? `${Number(value.toPrecision(3))} s` : `${Number((1000 * value).toPrecision(3))} ms`;
}

export function share(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)} %` : "–";
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
