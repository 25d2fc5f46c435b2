"""Adapters: audio tokens of any number to a prompt's sequence of stated length and width.

Each is made of (token_width, length, embed_width, pooled_width) and sizes of its own, and answers
(tokens (B, S, H), mask (B, S)) with standardised embeds (B, L, D), and pooled ones (B, P) or None.
One whose attribute `predicts_raw_embeds` is true answers with embeds as the pipeline reads them. Tokens that
the mask leaves out change nothing.
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
_SHARED_PARAMETERS = (
    "self",
    "token_width",
    "length",
    "embed_width",
    "pooled_width",
)  # every adapter's


def default_adapter_kwargs(adapter_type: str) -> dict[str, Any]:
    """The sizes that an adapter takes beside the prompt's shape, with their defaults.

    Raises:
        ValueError: no adapter has this name.
    """
    if adapter_type not in ADAPTERS:
        raise ValueError(f"no adapter is called {adapter_type!r}; there are: {', '.join(ADAPTERS)}")
    given = inspect.signature(ADAPTERS[adapter_type].__init__).parameters
    return {name: size.default for name, size in given.items() if name not in _SHARED_PARAMETERS}


def check_adapter_kwargs(adapter_type: str, kwargs: dict[str, Any], prefix: str = "") -> None:
    """Refuses sizes that an adapter does not take.

    Args:
        kind: the adapter's name.
        sizes: by name.
        prefix: of the names in the message, as the command line has them.

    Raises:
        ValueError: no adapter has this name, or it has no such size.
    """
    own = default_adapter_kwargs(adapter_type)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    for name, value in kwargs.items():
        if name not in own:
            there = ", ".join(prefix + size for size in own) or "none"
            raise ValueError(
                f"the {adapter_type} adapter does not take these sizes: {prefix + name!r}; it has: {there}"
            )
        if name == "dropout":
            if not 0 <= value < 1:
                raise ValueError(f"{prefix}dropout is a share from 0 to below 1, not {value}")
        elif value < 1:
            raise ValueError(f"{prefix}{name} must be at least 1, not {value}")
    own |= kwargs
    if "width" in own and "heads" in own and own["width"] % own["heads"]:
        raise ValueError(
            f"{prefix}width must be a multiple of {prefix}heads: "
            f"{own['width']} is none of {own['heads']}"
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
    """An adapter by name.

    Args:
        kind: a key of `ADAPTERS`.
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        embed_width: D, the prompt's width.
        pooled_width: P of the pooled embeds, 0 where the pipeline takes none.
        sizes: the adapter's own; what is not given has its default.

    Raises:
        ValueError: no adapter has this name, or it has no such size.
    """
    check_adapter_kwargs(adapter_type, kwargs)
    return ADAPTERS[adapter_type](token_width, length, embed_width, pooled_width, **kwargs)
