"""A streamed answer with OpenAI's client, and what was trimmed."""

import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("VISTRIM_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("VISTRIM_API_KEY", "none"),
)
image = base64.b64encode((Path(__file__).parents[1] / "images" / "scene-1.png").read_bytes()).decode()
chunks = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                {"type": "text", "text": "Describe the image."},
            ],
        }
    ],
    max_completion_tokens=64,
    stream=True,
    extra_body={"vistrim": {"budget": "tokens=0.33"}},
)
for chunk in chunks:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
    # The chunk with the finish_reason has the figures.
    if figures := getattr(chunk, "vistrim", None):
        print(f"\n{figures['method']}: visual tokens per layer {figures['visual_tokens_per_layer']}")
