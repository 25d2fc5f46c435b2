"""The one door for commands and the app: base, encoder and adapter in, pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from align.cli import resolve_device
from align.hub.run_record import load
from align.models.encoder import AudioPromptEncoder, load_encoder
from align.prompts.embeds import PromptEmbeds
from align.prompts.space import PromptSpace
from diffuse.models.attach import attach_adapters, detach_adapters, get_attached, model_metadata
from diffuse.models.conditioning import AudioConditioning, encode_audio
from diffuse.pipelines.composition import (
    Relation,
    RelationClassifier,
    TextConditioner,
    label_captions,
)
from diffuse.pipelines.image_inputs import InitImage
from diffuse.pipelines.inputs import AudioInputs, check_inputs, image_size
from diffuse.pipelines.inversion import DDIMInversion, image_metadata, prepare_init_image
from diffuse.pipelines.loading import (
    check_scheduler,
    check_steps,
    find_prompt_space,
    load_base_pipeline,
    new_scheduler,
)

BATCH_SIZE = 8  # pictures a batch; each has noise of its own


@dataclass(frozen=True)
class SoundPipelineOutput:
    """Pictures and how they came about.

    Attributes:
        images: one a seed.
        settings: all that made them, as JSON can hold it; recordings and pictures by their names.
        relation: of the text to the sound; None without either.
    """

    images: list[Image.Image]
    metadata: dict[str, Any]
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
        self, pipeline: Any, encoder: AudioPromptEncoder, adapter: Any = None, base_model: str = ""
    ) -> None:
        self.pipeline, self.encoder, self.base_model = pipeline, encoder.eval(), base_model
        self.prompt_space = find_prompt_space(encoder, base_model)
        self.attached, self.model_names = attach_adapters(pipeline, adapter)
        self.adapter = adapter
        head, texts = encoder.head(self.prompt_space), PromptSpace(pipeline, base_model)
        self.text_conditioner = TextConditioner(texts, head)
        captions = label_captions(load(str(encoder.config.name_or_path))[1].captions)
        known = texts.encode(captions).embeds if captions else None
        self.relation_classifier = RelationClassifier(head.statistics(), known)

    @classmethod
    def from_pretrained(
        cls,
        base_model: str = "mini",
        encoder: str | AudioPromptEncoder = "runs/align/mini",
        adapter: Any = None,
        *,
        device: str | torch.device = "auto",
        torch_dtype: torch.dtype | None = None,
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
        where = resolve_device(str(device))
        ready = load_encoder(encoder) if isinstance(encoder, str) else encoder
        precision = torch_dtype or (torch.float16 if where.type == "cuda" else torch.float32)
        pipeline = load_base_pipeline(base_model, precision).to(where)
        if scheduler is not None:
            pipeline.scheduler = new_scheduler(scheduler, pipeline.scheduler)
        made = cls(pipeline, ready.to(where), adapter, base_model)
        made.model_names["encoder"] = encoder if isinstance(encoder, str) else "(given)"
        return made

    def set_adapter(self, adapter: Any = None) -> None:
        """Lets the UNet hear by these adapters alone, as `adapter` of `from_pretrained` says.

        Whatever else is attached to it is taken off, by whomever it was attached. Several of
        these can so share one base and take turns.
        """
        if get_attached(self.pipeline) is self.attached and adapter == self.adapter:
            return
        detach_adapters(self.pipeline)
        self.attached, self.adapter = None, None
        self.model_names = {
            name: source for name, source in self.model_names.items() if name == "encoder"
        }
        self.attached, names = attach_adapters(self.pipeline, adapter)
        self.adapter, self.model_names = adapter, names | self.model_names

    def encode_audio(self, clips: Sequence[Any]) -> AudioConditioning:
        """What the encoder hears in recordings."""
        return encode_audio(self.encoder, clips, self.prompt_space)

    def __call__(
        self,
        audio: Any,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        *,
        audio_scale: float = 1.0,
        guidance_scale: float = 5.0,
        audio_guidance_scale: float | None = None,
        num_inference_steps: int = 20,
        seed: int = 0,
        num_images: int = 1,
        height: int | None = None,
        width: int | None = None,
        callback: Callback | None = None,
        audio_weights: Sequence[float] | None = None,
        relation: str = "auto",
        level_scales: Mapping[str, float] | None = None,
        audio_interval: tuple[float, float] = (0.0, 1.0),
        image: Any = None,
        strength: float = 0.6,
    ) -> SoundPipelineOutput:
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
        inputs = {k: v for k, v in locals().items() if k not in ("self", "callback")}
        audio_inputs = AudioInputs.from_inputs(audio, audio_weights)
        check_inputs(inputs, bool(audio_inputs.levels), self.attached is not None)
        init_image = prepare_init_image(
            image, strength, self.pipeline, self.text_conditioner, inputs
        )
        if not isinstance(init_image, DDIMInversion):  # which brings a scheduler of its own
            check_steps(self.pipeline.scheduler, num_inference_steps)
        prompts, found = self._condition(audio_inputs, inputs)
        negative = self.text_conditioner.encode_negative(negative_prompt, prompts)
        images, stopped = self._generate(prompts, negative, inputs, callback, init_image)
        metadata = {
            **inputs, "audio": audio_inputs.metadata(), "stopped": stopped, "audio_interval": [*audio_interval],
            "relation": None if found is None else found.name, "base_model": self.base_model, **self.model_names,
            **model_metadata(self.pipeline, self.attached), **image_metadata(image, strength),
        }  # fmt: skip
        return SoundPipelineOutput(images, metadata, found)

    def _condition(
        self, audio_inputs: AudioInputs, options: Mapping[str, Any]
    ) -> tuple[PromptEmbeds, Relation | None]:
        """Plays the sounds; what is read beside them, and how text and sound relate."""
        conditioning = self.encode_audio(audio_inputs.clips)
        audio_embeds = audio_inputs.combined_embeds(conditioning)
        prompt, text = options["prompt"], self.text_conditioner.encode(options["prompt"])
        found = self.relation_classifier.classify(
            options["relation"] if prompt else "none", text, audio_embeds
        )
        scale, levels = options["audio_scale"], dict(options["level_scales"] or {})
        if found is not None:
            scale *= found.audio_scale
        if self.attached is None:
            return self.text_conditioner.combine(text, audio_embeds, scale), found
        self.attached.set_audio_scale(
            scale, level_scales=levels, audio_interval=options["audio_interval"]
        )
        self.attached.set_audio_guidance_scale(options["audio_guidance_scale"])
        tokens = self.attached.project(conditioning)
        if found is not None and found.audio_to_background and scale and not audio_inputs.levels:
            found = replace(found, moved_to_background=True)
            tokens = {n: self.attached.adapters[n].move_to_background(t) for n, t in tokens.items()}
        self.attached.play(
            {name: audio_inputs.weighted_tokens(rows) for name, rows in tokens.items()}
        )
        return audio_embeds if text is None else text, found

    def _generate(
        self,
        prompts: PromptEmbeds,
        negative: PromptEmbeds,
        options: Mapping[str, Any],
        callback: Callback | None,
        init_image: InitImage | DDIMInversion | None,
    ) -> tuple[list[Image.Image], bool]:
        steps, count = options["num_inference_steps"], options["num_images"]
        first = options["seed"]
        starts = range(0, count, BATCH_SIZE)
        pipeline, num_steps = self.pipeline, steps
        extra: dict[str, Any] = image_size(pipeline, options["height"], options["width"])
        if init_image is not None:
            pipeline, extra = (
                init_image.pipeline,
                init_image.pipeline_kwargs(options["height"], options["width"]),
            )
            num_steps = init_image.num_denoising_steps(steps)
        if self.attached is not None:
            self.attached.set_pipeline(pipeline)
        progress = ProgressCallback(callback, num_steps * len(starts))
        where = {"device": self.pipeline.device, "dtype": self.pipeline.unet.dtype}
        embeds = {k: v.to(**where) for k, v in prompts.pipeline_kwargs(negative).items()}
        images: list[Image.Image] = []
        with (
            init_image.generation_context()
            if isinstance(init_image, DDIMInversion)
            else nullcontext()
        ):
            for start in starts:
                seeds = range(first + start, first + min(count, start + BATCH_SIZE))
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


class ProgressCallback:
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
