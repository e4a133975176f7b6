// Settings in the link. Images of the user and API keys are not part of it.

const DEFAULTS = { image: "scene-1.png", question: "Describe the image.", tokens: 64, rounds: 3 };

/**
 * Reads settings from the part of the link after "#".
 * Methods are written as their notation, "@" and the budget: "fastv:layer=2@tokens=0.33".
 */
export function readSettings(hash) {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (name, most) => {
    const value = Number.parseInt(found.get(name), 10);
    return value >= 0 && value <= most ? value : DEFAULTS[name];
  };
  return {
    image: found.get("image") ?? DEFAULTS.image,
    question: found.get("question") ?? DEFAULTS.question,
    tokens: Math.max(1, number("tokens", 4096)),
    rounds: number("rounds", 9),
    methods: found.getAll("method").slice(0, 3).map(readMethod),
  };
}

export function writeSettings({ image, question, tokens, rounds, methods }) {
  const written = new URLSearchParams({ image, question, tokens, rounds });
  for (const { method, budget } of methods) written.append("method", budget ? `${method}@${budget}` : method);
  return `#${written}`;
}

function readMethod(text) {
  const at = text.lastIndexOf("@");
  return at < 0 ? { method: text, budget: "" } : { method: text.slice(0, at), budget: text.slice(at + 1) };
}
