"""Prints, for every real processor, whether the server can put its prompts into batches.

Run by `tests.serving.test_processors` in a process that finds torchvision.
"""

import json
from dataclasses import replace

from tests.processors.torchvision_copy import declare_operators


def main() -> None:
    """Try every processor, and print the results as JSON."""
    library = declare_operators()
    # transformers looks for torchvision when it is imported.
    from tests.families.zoo import FAMILIES
    from tests.processors.zoo import CHECKPOINTS
    from vistrim.engine import describe
    from vistrim.serving.preparing import Preparer

    found = {}
    for name, made in CHECKPOINTS.items():
        processor = made.processor()
        processor.tokenizer.padding_side = "left"
        model = replace(FAMILIES[name], config=made._config).build()
        found[name] = Preparer(processor, describe(model)).can_batch
    del library
    print(json.dumps(found))


if __name__ == "__main__":
    main()
