"""``vistrim serve``: trimmed models behind the chat API of OpenAI."""
