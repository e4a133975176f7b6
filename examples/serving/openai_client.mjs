// A streamed answer with OpenAI's client, and what was trimmed.

import { readFile } from "node:fs/promises";

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.VISTRIM_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.VISTRIM_API_KEY ?? "none",
});
const image = await readFile(process.argv[2] ?? "examples/images/scene-1.png", "base64");
const models = await client.models.list();
const chunks = await client.chat.completions.create({
  model: models.data[0].id,
  messages: [
    {
      role: "user",
      content: [
        { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } },
        { type: "text", text: "Describe the image." },
      ],
    },
  ],
  max_completion_tokens: 64,
  stream: true,
  // Fields that the client does not know are sent as they are.
  vistrim: { budget: "tokens=0.33" },
});
for await (const chunk of chunks) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
  // The chunk with the finish_reason has the figures.
  if (chunk.vistrim) console.log(`\n${chunk.vistrim.method}: visual tokens per layer ${chunk.vistrim.visual_tokens_per_layer}`);
}
