// Python and curl that send the same request as the demo.

import { address, needsKey } from "./api.js";

/** Request of the OpenAI client. Strings of JSON are strings of Python, too. */
export function pythonSnippet({ model, image, question, tokens, options }) {
  const [imports, key] = needsKey() ? ["import base64\nimport os", 'os.environ["VISTRIM_API_KEY"]'] : ["import base64", '"none"'];
  return `${imports}

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${key})
with open(${JSON.stringify(image.name)}, "rb") as file:
    url = "data:${image.type};base64," + base64.b64encode(file.read()).decode()
answer = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": ${JSON.stringify(question)}},
            ],
        }
    ],
    max_completion_tokens=${tokens},
    seed=0,
    extra_body={"vistrim": ${JSON.stringify(options)}},
)
print(answer.choices[0].message.content)
print(answer.vistrim["visual_tokens_per_layer"])
`;
}

export function curlSnippet({ model, image, question, tokens, options }) {
  // The shell would replace these, which must not happen outside of the command that reads the image.
  const plain = (text) => text.replace(/[\\$`]/g, "\\$&");
  const mark = "THE-IMAGE";
  const body = { model, messages: message(mark, question), max_completion_tokens: tokens, seed: 0, vistrim: options };
  const file = `'${image.name.replaceAll("'", "'\\''")}'`;
  const url = `data:${image.type};base64,$(base64 < ${file} | tr -d '\\n')`;
  const text = plain(JSON.stringify(body, null, 2)).replace(`"url": "${mark}"`, () => `"url": "${url}"`);
  const key = needsKey() ? ' -H "authorization: Bearer $VISTRIM_API_KEY"' : "";
  return `curl ${address("v1/chat/completions")} -H 'content-type: application/json'${key} -d @- <<END
${text}
END
`;
}

/** Messages with one image and a question. */
export function message(url, question) {
  const content = [{ type: "image_url", image_url: { url } }, { type: "text", text: question }];
  return [{ role: "user", content }];
}
