// The list of methods that are compared with the untouched model.

import { make } from "./dom.js";

const MOST = 3;
const UNTOUCHED = "untouched";

export class MethodList {
  /**
   * @param {HTMLOListElement} list
   * @param {HTMLButtonElement} addButton
   * @param {object} known answer of /v1/vistrim/methods
   */
  constructor(list, addButton, known) {
    Object.assign(this, { list, addButton });
    this.served = known.served.map((entry) => entry.label).filter((label) => label !== UNTOUCHED);
    this.summaries = new Map(known.allowed.map((entry) => [entry.name, entry.summary]));
    addButton.addEventListener("click", () => this.add(this.unused()[0]).querySelector("select").focus());
  }

  /** Methods that are not on the list yet: those of the server first. */
  unused() {
    const used = this.read().map((entry) => entry.method.split(":")[0]);
    const served = this.served.map((method) => ({ method, budget: "" }));
    const allowed = [...this.summaries.keys()].map((method) => ({ method, budget: "tokens=0.33" }));
    const all = [...served, ...allowed.filter(({ method }) => !this.served.includes(method))];
    const free = all.filter(({ method }) => !used.includes(method));
    return free.length ? free : all;
  }

  set(methods) {
    this.list.replaceChildren();
    (methods.length ? methods : this.unused().slice(0, 2)).forEach((entry) => this.add(entry));
    this.update();
  }

  read() {
    return [...this.list.children].map((item) => {
      const [name, parameters, budget] = item.querySelectorAll("select, input");
      const own = parameters.disabled ? "" : parameters.value.trim();
      return { method: own ? `${name.value}:${own}` : name.value, budget: budget.value.trim() };
    });
  }

  add({ method, budget }) {
    const colon = this.served.includes(method) ? -1 : method.indexOf(":");
    const [chosen, own] = colon < 0 ? [method, ""] : [method.slice(0, colon), method.slice(colon + 1)];
    const name = make("select", {}, ...this.options(chosen));
    name.value = chosen;
    const plain = { autocomplete: "off", spellcheck: false };
    const parameters = make("input", { ...plain, value: own, placeholder: "default" });
    const amount = make("input", { ...plain, value: budget, placeholder: "none" });
    amount.setAttribute("list", "budgets");
    const remove = make("button", { type: "button", textContent: "Remove" });
    const fields = [["Method", name], ["Parameters", parameters], ["Budget", amount]];
    const item = make("li", {}, ...fields.map(([title, field]) => make("label", {}, title, field)), remove);
    name.addEventListener("change", () => this.update());
    remove.addEventListener("click", () => {
      item.remove();
      this.update();
      this.addButton.focus();
    });
    this.list.append(item);
    this.update();
    return item;
  }

  options(chosen) {
    const names = new Set([...this.served, ...this.summaries.keys(), chosen]);
    return [...names].map((name) => make("option", { value: name, textContent: name, title: this.summaries.get(name) ?? "" }));
  }

  /** Requests may set parameters of allowed methods only; entries of the server's list have their own. */
  update() {
    [...this.list.children].forEach((item, i) => {
      const [name, parameters] = item.querySelectorAll("select, input");
      parameters.disabled = !this.summaries.has(name.value);
      item.className = `k${i + 1}`;
      item.querySelector("button").setAttribute("aria-label", `Remove ${name.value}`);
    });
    this.addButton.disabled = this.list.children.length >= MOST || this.served.length + this.summaries.size === 0;
  }
}
