"""Models, adapters and their training; only this package imports transformers and PEFT."""

import logging

# Transformers and PEFT import these if they are installed, and these write to stderr then.
for _optional in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_optional).setLevel(logging.ERROR)
