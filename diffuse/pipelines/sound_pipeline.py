"""The one door for commands and the app: base, encoder and adapter in, pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from align.cli import chosen_device
from align.hub.run_record import told
from align.models.encoder import AudioPromptEncoder, load_encoder
from align.prompts.embeds import Prompts
from align.prompts.space import PromptSpace
from diffuse.models.attach import put_on, take_off, told_models, worn
from diffuse.models.conditioning import Heard, hear
from diffuse.pipelines.composition import Composer, Relation, Wording, label_captions
from diffuse.pipelines.image_inputs import Beginning
from diffuse.pipelines.inputs import Sounds, check_drawing, size_of
from diffuse.pipelines.inversion import Reversal, beginning_of, told_image
from diffuse.pipelines.loading import (
    check_scheduler,
    check_steps,
    load_base,
    new_scheduler,
    space_of,
)

AT_ONCE = 8  # pictures a batch; each has noise of its own


@dataclass(frozen=True)
class Drawn:
    """Pictures and how they came about.

    Attributes:
        images: one a seed.
        settings: all that made them, as JSON can hold it; recordings and pictures by their names.
        relation: of the text to the sound; None without either.
    """

    images: list[Image.Image]
    settings: dict[str, Any]
    relation: Relation | None = None


class SoundPipeline:
    """A stock diffusion pipeline that draws what is heard; `from_pretrained` loads it.

    Attributes:
        pipeline: the stock diffusers pipeline.
        encoder: the aligned encoder.
        attachment: the sound adapters on its UNet, or None: then the prompt embeds carry the sound.
        adapter: what they were given as.
        space: the encoder's prompt space of this base.
    """

    def __init__(
        self, pipeline: Any, encoder: AudioPromptEncoder, adapter: Any = None, base: str = ""
    ) -> None:
        self.pipeline, self.encoder, self.base = pipeline, encoder.eval(), base
        self.space = space_of(encoder, base)
        self.attachment, self.names = put_on(pipeline, adapter)
        self.adapter = adapter
        head, texts = encoder.head(self.space), PromptSpace(pipeline, base)
        self.wording = Wording(texts, head)
        captions = label_captions(told(str(encoder.config.name_or_path))[1].captions)
        known = texts.encode(captions).embeds if captions else None
        self.composer = Composer(head.statistics(), known)

    @classmethod
    def from_pretrained(
        cls,
        base: str = "mini",
        encoder: str | AudioPromptEncoder = "runs/align/mini",
        adapter: Any = None,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype | None = None,
        scheduler: str | None = None,
    ) -> SoundPipeline:
        """Loads everything.

        Args:
            base: a short name, a folder or a hub id of a pipeline.
            encoder: an aligned encoder, or its folder or hub id.
            adapter: a sound adapter, its folder, or several of either by name; None for none.
            device: "auto" is a GPU where there is one.
            dtype: of the base; float16 on a GPU and float32 elsewhere by default.
            scheduler: a key of `bases.SCHEDULERS`; the base's own by default.

        Raises:
            ValueError: something does not exist, or does not belong together.
        """
        check_scheduler(scheduler)
        where = chosen_device(str(device))
        ready = load_encoder(encoder) if isinstance(encoder, str) else encoder
        precision = dtype or (torch.float16 if where.type == "cuda" else torch.float32)
        pipeline = load_base(base, precision).to(where)
        if scheduler is not None:
            pipeline.scheduler = new_scheduler(scheduler, pipeline.scheduler)
        made = cls(pipeline, ready.to(where), adapter, base)
        made.names["encoder"] = encoder if isinstance(encoder, str) else "(given)"
        return made

    def exchange(self, adapter: Any = None) -> None:
        """Lets the UNet hear by these adapters alone, as `adapter` of `from_pretrained` says.

        Whatever else is attached to it is taken off, by whomever it was attached. Several of
        these can so share one base and take turns.
        """
        if worn(self.pipeline) is self.attachment and adapter == self.adapter:
            return
        take_off(self.pipeline)
        self.attachment, self.adapter = None, None
        self.names = {name: said for name, said in self.names.items() if name == "encoder"}
        self.attachment, names = put_on(self.pipeline, adapter)
        self.adapter, self.names = adapter, names | self.names

    def hear(self, recordings: Sequence[Any]) -> Heard:
        """What the encoder hears in recordings."""
        return hear(self.encoder, recordings, self.space)

    def __call__(
        self,
        sounds: Any,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        *,
        audio_scale: float = 1.0,
        guidance_scale: float = 5.0,
        audio_guidance: float | None = None,
        num_inference_steps: int = 20,
        seed: int = 0,
        num_images: int = 1,
        height: int | None = None,
        width: int | None = None,
        callback: Callback | None = None,
        weights: Sequence[float] | None = None,
        relation: str = "auto",
        level_scales: Mapping[str, float] | None = None,
        audio_steps: tuple[float, float] = (0.0, 1.0),
        image: Any = None,
        strength: float = 0.6,
    ) -> Drawn:
        """Draws pictures of sounds.

        Args:
            sounds: a recording, a list of them, or recordings by level.
            prompt: text beside the sound. None: the sound's own prompt embeds are read in its
                place. "": no text; only the adapter hears the sound.
            negative_prompt: what is guided away from; the base's unconditional prompt by default.
            audio_scale: 0 draws without the sound, 1 as trained, more is louder.
            guidance_scale: away from the negative prompt, to text and sound.
            audio_guidance: if given, of the sound apart from the text (see `playing`).
            num_inference_steps: denoising steps.
            seed: of the first picture; the others count on from it.
            num_images: pictures.
            height: in pixels; the base's own by default.
            width: in pixels; the base's own by default.
            callback: called with the steps that are done and all steps; true stops.
            weights: how much each of several sounds counts.
            relation: how text and sound are composed: a key of `composition.RELATIONS`, "auto" to
                judge it from their embeds, or "none" to compose nothing.
            level_scales: how much single levels count.
            audio_steps: the share of the noise schedule in which the adapter hears.
            image: a picture, or its path, to begin from, or an `inversion.Inversion`; noise by
                default.
            strength: how much of such a picture is drawn anew, up to 1.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: an option does not fit the others.
        """
        settings = {k: v for k, v in locals().items() if k not in ("self", "callback")}
        given = Sounds.of(sounds, weights)
        check_drawing(settings, bool(given.levels), self.attachment is not None)
        begin = beginning_of(image, strength, self.pipeline, self.wording, settings)
        if not isinstance(begin, Reversal):  # which brings a scheduler of its own
            check_steps(self.pipeline.scheduler, num_inference_steps)
        prompts, found = self._compose(given, settings)
        null = self.wording.null(negative_prompt, prompts)
        images, stopped = self._draw(prompts, null, settings, callback, begin)
        story = {
            **settings, "sounds": given.told(), "stopped": stopped, "audio_steps": [*audio_steps],
            "relation": None if found is None else found.name, "base": self.base, **self.names,
            **told_models(self.pipeline, self.attachment), **told_image(image, strength),
        }  # fmt: skip
        return Drawn(images, story, found)

    def _compose(
        self, given: Sounds, options: Mapping[str, Any]
    ) -> tuple[Prompts, Relation | None]:
        """Plays the sounds; what is read beside them, and how text and sound relate."""
        heard = self.hear(given.recordings)
        sound = given.together(heard)
        prompt, text = options["prompt"], self.wording.of(options["prompt"])
        found = self.composer.relation(options["relation"] if prompt else "none", text, sound)
        scale, levels = options["audio_scale"], dict(options["level_scales"] or {})
        if found is not None:
            scale *= found.audio_scale
        if self.attachment is None:
            return self.wording.blended(text, sound, scale), found
        self.attachment.set_audio_scale(scale, levels=levels, steps=options["audio_steps"])
        self.attachment.set_audio_guidance(options["audio_guidance"])
        tokens = self.attachment.project(heard)
        if found is not None and found.behind and scale and not given.levels:
            found = replace(found, put_behind=True)
            tokens = {n: self.attachment.adapters[n].behind(t) for n, t in tokens.items()}
        self.attachment.play({name: given.parts(rows) for name, rows in tokens.items()})
        return sound if text is None else text, found

    def _draw(
        self,
        prompts: Prompts,
        null: Prompts,
        options: Mapping[str, Any],
        callback: Callback | None,
        begin: Beginning | Reversal | None,
    ) -> tuple[list[Image.Image], bool]:
        steps, count = options["num_inference_steps"], options["num_images"]
        first = options["seed"]
        starts = range(0, count, AT_ONCE)
        pipeline, drawn = self.pipeline, steps
        extra: dict[str, Any] = size_of(pipeline, options["height"], options["width"])
        if begin is not None:
            pipeline, extra = begin.pipeline, begin.arguments(options["height"], options["width"])
            drawn = begin.steps(steps)
        if self.attachment is not None:
            self.attachment.follow(pipeline)
        progress = Progress(callback, drawn * len(starts))
        where = {"device": self.pipeline.device, "dtype": self.pipeline.unet.dtype}
        embeds = {k: v.to(**where) for k, v in prompts.arguments(null).items()}
        images: list[Image.Image] = []
        with begin.drawing() if isinstance(begin, Reversal) else nullcontext():
            for start in starts:
                seeds = range(first + start, first + min(count, start + AT_ONCE))
                images += pipeline(
                    **embeds,
                    **extra,
                    num_images_per_prompt=len(seeds),
                    num_inference_steps=steps,
                    guidance_scale=options["guidance_scale"],
                    # Noise drawn on the CPU is the same on every machine.
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    callback_on_step_end=progress,
                ).images
                if progress.stopped:
                    break
        return images, progress.stopped


# Called with the steps that are done and all steps; true stops.
Callback = Callable[[int, int], Any]


class Progress:
    """Tells a callback the steps that are done, and stops a pipeline when it asks for that."""

    def __init__(self, callback: Callback | None, steps: int) -> None:
        self._callback, self._steps, self._done = callback, steps, 0
        self.stopped = False

    def __call__(self, pipeline: Any, step: int, time: Any, given: dict[str, Any]) -> Any:
        """As diffusers' callback_on_step_end."""
        self._done += 1
        if self._callback is not None and self._callback(self._done, self._steps):
            self.stopped = pipeline._interrupt = True
        return given
