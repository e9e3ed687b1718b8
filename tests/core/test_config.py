"""Settings of the pipeline."""

import pytest

from segzero_core.config import PipelineConfig
from segzero_core.errors import ConfigError
from segzero_core.prompt import TEMPLATES


@pytest.mark.parametrize("template", ["", *TEMPLATES])
def test_every_prompt_template_can_be_set(template: str) -> None:
    assert PipelineConfig(template=template).template == template


def test_an_unknown_prompt_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="'poem' is none of '', 'multi_object'"):
        PipelineConfig(template="poem")
