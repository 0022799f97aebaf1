"""Models, adapters and how they are trained: the only home of transformers and PEFT."""

import logging

# Both import these where they are installed, and they say on stderr what they do without.
for _optional in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_optional).setLevel(logging.ERROR)
