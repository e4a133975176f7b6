// Requests to the server. Paths are relative, so that the demo works behind a proxy with a prefix.

import { events } from "./events.js";

let key = "";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Uses an API key from now on. It is kept in this page only. */
export function useKey(value) {
  key = value;
}

export function needsKey() {
  return key !== "";
}

export function address(path) {
  return new URL(path, document.baseURI).href;
}

export async function get(path) {
  return (await send(path, {})).json();
}

export async function post(path, body, signal) {
  return (await send(path, { method: "POST", body: JSON.stringify(body), signal })).json();
}

/**
 * Streams an answer.
 * @returns {Promise<object>} the `vistrim` object of the answer, with `usage` and `reason`
 */
export async function stream(body, onText, signal) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", { method: "POST", body: JSON.stringify(asked), signal });
  let figures = null, usage = null, reason = null;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 500);
    usage = chunk.usage ?? usage;
    figures = chunk.vistrim ?? figures;
    const choice = chunk.choices[0];
    if (choice?.delta.content) onText(choice.delta.content);
    reason = choice?.finish_reason ?? reason;
  }
  if (!figures) throw new ApiError("the answer broke off", 500);
  return { ...figures, usage, reason };
}

async function send(path, options) {
  const headers = { ...(options.body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(address(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server cannot be reached", 0);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw new ApiError(answer?.error?.message ?? `status ${response.status}`, response.status);
}
