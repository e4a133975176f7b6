"""A chain of LangChain whose model is trimmed."""

import base64
import os
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model=os.environ.get("VISTRIM_MODEL", "reference"),
    base_url=os.environ.get("VISTRIM_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("VISTRIM_API_KEY", "none"),
    max_tokens=64,
    extra_body={"vistrim": {"budget": "tokens=0.33"}},
)
image = base64.b64encode((Path(__file__).parents[1] / "images" / "scene-1.png").read_bytes()).decode()
question = HumanMessage(
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": "Describe the image."},
    ]
)
for part in model.stream([question]):
    print(part.content, end="", flush=True)
print()
