#!/usr/bin/env bash
# One question about an image, answered at a budget of visual tokens that the request sets. Needs curl.
set -euo pipefail

url=${VISTRIM_URL:-http://127.0.0.1:8000/v1}
key=${VISTRIM_API_KEY:-none}
model=${VISTRIM_MODEL:-reference}
image=$(base64 <"$(dirname "$0")/../images/scene-1.png" | tr -d '\n')

curl --fail-with-body --silent --show-error "$url/chat/completions" \
  -H 'content-type: application/json' -H "authorization: Bearer $key" -d @- <<JSON
{
  "model": "$model",
  "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,$image"}},
    {"type": "text", "text": "Describe the image."}
  ]}],
  "max_completion_tokens": 64,
  "vistrim": {"budget": "tokens=0.33"}
}
JSON
