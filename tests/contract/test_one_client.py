"""With one client, full rank and a server rate of 1, the server ends with that client's function.

This holds for every algorithm whose server step is a mean, with any α/r of client and server.
"""

import pytest
import torch

from contract.cases import CASES, PERSONAL, WHOLE, built
from contract.rounds import Sizes, first, rounds

NO_MEAN = {
    "feddyn": "its step takes h/α off the mean of the clients' tensors",
    "feddistill": "the server's model learns what the clients predict, step by step",
    "fedmkt": "so does this one",
}
NAMES = sorted({case.name for case in CASES} - NO_MEAN.keys() - WHOLE)
UNLIKE = {"alpha": Sizes((2, 2.0), (2, 0.5)), "alpha and r": Sizes((2, 4.0), (4, 1.0))}


@pytest.mark.parametrize("name", NAMES)
def test_the_server_ends_with_the_clients_function(name: str) -> None:
    case = first(name)
    algorithm = built(case)
    for made in rounds(algorithm, case):
        said, tensors = made.training.logits, made.training.end
        if name in PERSONAL:  # the server sees no more than what is sent
            model = algorithm.model(made.state)
            for shared in made.update.tensors:
                torch.testing.assert_close(model[shared], tensors[shared], atol=1e-6, rtol=1e-5)
        else:
            torch.testing.assert_close(made.server, said, atol=1e-5, rtol=1e-5)
            assert said.abs().max() > 0.1


@pytest.mark.parametrize("sizes", UNLIKE.values(), ids=UNLIKE.keys())
@pytest.mark.parametrize(
    "name", [name for name in NAMES if built(first(name)).clients_may_differ == "rank"]
)
def test_whatever_their_scalings_are(name: str, sizes: Sizes) -> None:
    case = first(name)
    for made in rounds(built(case), case, sizes):
        said = made.training.logits
        torch.testing.assert_close(made.server, said, atol=1e-5, rtol=1e-5)
        assert said.abs().max() > 0.1
