// The page: settings, and one comparison at a time.

import { ApiError, get, post, useKey } from "./api.js";
import { copyText } from "./column.js";
import { answer, plan, time } from "./comparison.js";
import { byId, make } from "./dom.js";
import { ImageField } from "./image_field.js";
import { MethodList } from "./methods.js";
import { describeEnd, describeModel } from "./notes.js";
import { loadRegion } from "./overlay.js";
import { ResultsView } from "./results.js";
import { readSettings, writeSettings } from "./settings.js";
import { message } from "./snippets.js";

const QUESTIONS = ["Describe the image.", "What color is the circle?", "Which letter is on the circle?", "How many shapes are there?"];

const view = new ResultsView();
const field = new ImageField((reason) => say(reason, true));
let about = null, methods = null, running = null;

async function begin() {
  about = await get("demo/about.json");
  byId("about").textContent = describeModel(about);
  methods = new MethodList(byId("methods"), byId("add"), await get("v1/vistrim/methods"));
  await useLink();
  say("");
}

async function useLink() {
  const settings = readSettings(location.hash);
  for (const name of ["question", "tokens", "rounds"]) byId(name).value = settings[name];
  methods.set(settings.methods);
  await field.useExample(settings.image);
}

function currentSettings() {
  return {
    image: field.image?.name ?? "",
    question: byId("question").value,
    tokens: byId("tokens").valueAsNumber,
    rounds: byId("rounds").valueAsNumber,
    methods: methods.read(),
  };
}

function updateLink() {
  const settings = currentSettings();
  history.replaceState(null, "", writeSettings(settings));
  return settings;
}

async function run(event) {
  event.preventDefault();
  if (running || !methods || !field.image) return;
  running = new AbortController();
  setBusy(true);
  try {
    await compare(updateLink(), running.signal);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else fail(error);
  } finally {
    running = null;
    setBusy(false);
  }
}

async function compare(settings, signal) {
  const results = plan({ ...settings, model: about.model, image: field.image });
  view.begin(about, results);
  say("Reading the image…");
  const regions = await findRegions(signal);
  for (const [i, result] of results.entries()) {
    say(`${result.label} answers…`);
    try {
      await answer(result, (text) => view.columns[i].addText(text), signal);
      view.finish(i, regions);
    } catch (error) {
      if (!isAboutRequest(error)) throw error;
      view.columns[i].fail(error.message);
    }
  }
  for (let round = 1; round <= settings.rounds; round++) {
    say(`Timed run ${round} of ${settings.rounds}…`);
    for (const result of results.filter((one) => one.figures)) await time(result, signal);
    view.showTimes();
  }
  say(describeEnd(results));
}

/** The image as the model sees it. A model without grids of tokens has none. */
async function findRegions(signal) {
  try {
    const { regions } = await post("v1/vistrim/regions", { messages: message(field.image.url, "") }, signal);
    return await Promise.all(regions.map(loadRegion));
  } catch (error) {
    if (!isAboutRequest(error)) throw error;
    return [];
  }
}

/** Whether the server refused one request, so that others may succeed. */
function isAboutRequest(error) {
  return error instanceof ApiError && ![0, 401].includes(error.status);
}

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

function fail(error) {
  const needsKey = error.status === 401;
  if (needsKey) byId("key-field").hidden = false;
  say(needsKey ? "This server needs its API key: enter it above." : error.message, true);
}

function setBusy(isBusy) {
  // A button that is disabled loses the focus.
  byId("run").setAttribute("aria-disabled", String(isBusy));
  byId("stop").setAttribute("aria-disabled", String(!isBusy));
  byId("save").disabled = isBusy || !view.results.some((result) => result.figures);
  byId("columns").setAttribute("aria-busy", String(isBusy));
}

function save() {
  const plain = view.results.map(({ request, ...rest }) => ({ ...rest, request: { ...request, image: request.image.name } }));
  const url = URL.createObjectURL(new Blob([JSON.stringify(plain, null, 2)], { type: "application/json" }));
  make("a", { href: url, download: "vistrim-demo.json" }).click();
  URL.revokeObjectURL(url);
}

byId("questions").append(...QUESTIONS.map((value) => make("option", { value })));
byId("settings").addEventListener("submit", run);
byId("stop").addEventListener("click", () => running?.abort());
byId("save").addEventListener("click", save);
byId("link").addEventListener("click", ({ target }) => {
  if (methods) updateLink();
  copyText(location.href, target);
});
byId("key").addEventListener("change", ({ target }) => {
  useKey(target.value.trim());
  if (!methods) begin().catch(fail);
});
window.addEventListener("hashchange", () => methods && useLink());
begin().catch(fail);
