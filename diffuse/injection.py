"""Injection: the layout of a source picture kept in another that is drawn from the same noise.

Plug-and-Play (Tumanyan et al. 2023, arXiv 2211.12572), with SonicDiffusion's choice of layers
(arXiv 2405.00878): queries and keys of the self-attentions of the up blocks, and the residual
features of the second up block, are the source's own in the first steps. What is drawn there
stays where it was; what it is, the text and the sound decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

UP = "up_blocks."


def layout_layers(unet: Any) -> dict[str, Any]:
    """The layers whose outputs are the layout, by name.

    Raises:
        ValueError: the UNet's up blocks have no self-attention.
    """
    found = {
        f"{name}.{part}": getattr(attention, part)
        for name, attention in unet.named_modules()
        if name.startswith(UP) and name.endswith(".attn1")
        for part in ("to_q", "to_k")
    }
    if not found:
        raise ValueError(f"{type(unet).__name__} has no self-attention whose layout could be kept")
    block = 1 if len(unet.up_blocks) > 1 else 0
    # The last convolution of a residual: what it adds to its input.
    resnets = unet.up_blocks[block].resnets
    place = min(1, len(resnets) - 1)
    return found | {f"{UP}{block}.resnets.{place}.conv2": resnets[place].conv2}


class Injection:
    """While it is entered, a UNet's calls at some timesteps keep a source's layout.

    Args:
        unet: the one that draws.
        sources: the source's latents (1, C, h, w) by the timesteps at which it is kept.
        called: what else the UNet is called with for the source.
    """

    def __init__(
        self, unet: Any, sources: Mapping[int, torch.Tensor], called: Mapping[str, Any]
    ) -> None:
        self._unet, self._sources, self._called = unet, sources, called
        self._features: dict[str, torch.Tensor] = {}
        self._listening = False
        self._hooks: list[Any] = []

    def __enter__(self) -> Injection:
        self._hooks = [self._unet.register_forward_pre_hook(self._before, with_kwargs=True)]
        for name, layer in layout_layers(self._unet).items():
            self._hooks.append(layer.register_forward_hook(self._exchange(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _before(self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hears the source's features at this timestep."""
        time = args[1] if len(args) > 1 else kwargs["timestep"]
        self._features = {}
        source = self._sources.get(int(time.flatten()[0] if torch.is_tensor(time) else time))
        if source is None:
            return
        self._listening = True
        try:
            # Past the hooks on the whole UNet, by which a playing sound would come in.
            unet.forward(source, time, **self._called)
        finally:
            self._listening = False

    def _exchange(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            if self._listening:
                self._features[name] = output
                return None
            kept = self._features.get(name)
            return None if kept is None else kept.expand(len(output), *kept.shape[1:])

        return hook
