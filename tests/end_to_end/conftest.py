"""What tests on the real model have in common."""

import pytest

from hanse.errors import UserError
from hanse.learners.sources import locate


@pytest.fixture
def smollm2() -> None:
    """Skip without the packages that carry SmolLM2."""
    try:
        locate("smollm2-135m")
    except UserError as error:
        pytest.skip(str(error))
