"""Adapters: map a variable number of audio tokens to a prompt of fixed length and width.

Each adapter is built from (token_width, length, embed_width, pooled_width) and its own options. It
maps (tokens (B, S, H), mask (B, S)) to standardized embeds (B, L, D), and pooled embeds (B, P) or
None. An adapter whose attribute `predicts_raw_embeds` is true predicts embeds in the pipeline's own
scale instead. Masked tokens have no effect.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from align.models.adapters.conv import Conv
from align.models.adapters.direct import Direct
from align.models.adapters.hierarchical import Hierarchical
from align.models.adapters.linear import LinearRepeat
from align.models.adapters.mlp import Mlp
from align.models.adapters.multiscale import Multiscale
from align.models.adapters.resampler import Resampler
from align.models.adapters.sonic import Sonic

ADAPTERS: dict[str, type[nn.Module]] = {
    "resampler": Resampler,
    "linear": LinearRepeat,
    "mlp": Mlp,
    "conv": Conv,
    "multiscale": Multiscale,
    "sonic": Sonic,
    "hierarchical": Hierarchical,
    "direct": Direct,
}
# Parameters of every adapter.
_SHARED_PARAMETERS = ("self", "token_width", "length", "embed_width", "pooled_width")


def default_adapter_kwargs(adapter_type: str) -> dict[str, Any]:
    """Returns an adapter's own options, besides the prompt's shape, with their defaults.

    Args:
        adapter_type: A key of `ADAPTERS`.

    Raises:
        ValueError: The adapter type is unknown.
    """
    if adapter_type not in ADAPTERS:
        raise ValueError(f"there is no adapter {adapter_type!r}; there are: {', '.join(ADAPTERS)}")
    given = inspect.signature(ADAPTERS[adapter_type].__init__).parameters
    return {name: size.default for name, size in given.items() if name not in _SHARED_PARAMETERS}


def check_adapter_kwargs(adapter_type: str, kwargs: dict[str, Any], prefix: str = "") -> None:
    """Validates the options of an adapter.

    Args:
        adapter_type: A key of `ADAPTERS`.
        kwargs: Options by name; None selects the default.
        prefix: Prefix of option names in messages, such as that of the command line.

    Raises:
        ValueError: The adapter type is unknown, it does not have an option, or a value is invalid.
    """
    own = default_adapter_kwargs(adapter_type)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    for name, value in kwargs.items():
        if name not in own:
            available = ", ".join(prefix + option for option in own) or "none"
            raise ValueError(
                f"the {adapter_type} adapter has no option {prefix + name!r}; it has: {available}"
            )
        if name == "dropout":
            if not 0 <= value < 1:
                raise ValueError(f"{prefix}dropout must be from 0 to below 1, not {value}")
        elif value < 1:
            raise ValueError(f"{prefix}{name} must be at least 1, not {value}")
    own |= kwargs
    if "width" in own and "heads" in own and own["width"] % own["heads"]:
        raise ValueError(
            f"{prefix}width must be a multiple of {prefix}heads: "
            f"{own['width']} is not divisible by {own['heads']}"
        )


def build_adapter(
    adapter_type: str,
    *,
    token_width: int,
    length: int,
    embed_width: int,
    pooled_width: int = 0,
    **kwargs: Any,
) -> nn.Module:
    """Builds an adapter by name.

    Args:
        adapter_type: A key of `ADAPTERS`.
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        **kwargs: The adapter's own options; others keep their defaults.

    Raises:
        ValueError: The adapter type is unknown, it does not have an option, or a value is invalid.
    """
    check_adapter_kwargs(adapter_type, kwargs)
    return ADAPTERS[adapter_type](token_width, length, embed_width, pooled_width, **kwargs)
