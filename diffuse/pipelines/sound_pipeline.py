"""`SoundPipeline`: image generation from audio with a base model, an encoder and an adapter."""

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

BATCH_SIZE = 8  # images per batch; each has its own generator


@dataclass(frozen=True)
class SoundPipelineOutput:
    """Output of a `SoundPipeline` call.

    Attributes:
        images: One PIL image per seed.
        metadata: All inputs and models as JSON values; audio and images by their file names.
        relation: Relation of the prompt to the audio; None without a prompt or for "none".
    """

    images: list[Image.Image]
    metadata: dict[str, Any]
    relation: Relation | None = None


class SoundPipeline:
    """Diffusion pipeline conditioned on audio; load it with `from_pretrained`.

    Attributes:
        pipeline: Diffusers pipeline of the base model.
        encoder: Aligned audio encoder.
        attached: Adapters attached to the UNet, or None: then the prompt embeds carry the audio.
        adapter: The adapters as they were given.
        prompt_space: Name of the encoder's prompt space for the base model.
        text_conditioner: Encodes prompts, and combines them with audio.
        relation_classifier: Classifies how prompts relate to audio.

    Args:
        pipeline: Diffusers pipeline of the base model.
        encoder: Aligned audio encoder.
        adapter: Audio adapter, its folder, or several of either by name; None for none.
        base_model: Name of the base model.
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
        """Load the base model, the encoder and the adapters.

        Args:
            base_model: Diffusers pipeline: short name, folder or Hub id.
            encoder: Aligned audio encoder, or its folder or Hub id.
            adapter: Audio adapter, its folder, or several of either by name; None for none.
            device: Device. "auto" selects a GPU if there is one.
            torch_dtype: Data type of the base model. Defaults to float16 on GPUs and float32
                elsewhere.
            scheduler: A key of `loading.SCHEDULERS`. Defaults to the base model's own.

        Raises:
            ValueError: If a model does not exist, or the models do not belong together.
        """
        check_scheduler(scheduler)
        torch_device = resolve_device(str(device))
        loaded = load_encoder(encoder) if isinstance(encoder, str) else encoder
        dtype = torch_dtype or (torch.float16 if torch_device.type == "cuda" else torch.float32)
        pipeline = load_base_pipeline(base_model, dtype).to(torch_device)
        if scheduler is not None:
            pipeline.scheduler = new_scheduler(scheduler, pipeline.scheduler)
        pipe = cls(pipeline, loaded.to(torch_device), adapter, base_model)
        pipe.model_names["encoder"] = encoder if isinstance(encoder, str) else "(given)"
        return pipe

    def set_adapter(self, adapter: Any = None) -> None:
        """Replace the attached adapters.

        All other adapters are detached from the UNet, so several pipelines can share a base model.

        Args:
            adapter: As in `from_pretrained`.

        Raises:
            ValueError: If an adapter does not exist or does not fit the base model.
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
        """Encode audio.

        Args:
            clips: Audio inputs as `align.audio.read` takes them.
        """
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
        """Generate images from audio.

        Args:
            audio: Audio input, list of audio inputs, or mapping from levels to audio inputs.
            prompt: Text prompt. None uses the prompt embeds of the audio; "" uses no text and
                requires an adapter.
            negative_prompt: Negative prompt. Defaults to the unconditional embeds.
            audio_scale: Strength of the audio conditioning: 0 disables it, 1 is as trained.
            guidance_scale: Classifier-free guidance scale.
            audio_guidance_scale: Separate guidance scale for the audio (requires an adapter).
            num_inference_steps: Number of denoising steps.
            seed: Seed of the first image; image i uses seed + i.
            num_images: Number of images.
            height: Image height in pixels. Defaults to the base model's own.
            width: Image width in pixels. Defaults to the base model's own.
            callback: Called with the completed steps and all steps; returns true to stop.
            audio_weights: Weight of each of several audio inputs.
            relation: How to combine prompt and audio: a key of `composition.RELATIONS`, "auto" to
                classify it from the embeds, or "none".
            level_scales: Scales of single levels.
            audio_interval: Fraction of the noise schedule with audio conditioning, from 0 (noise)
                to 1 (image).
            image: Image or path to start from, or an `inversion.Inversion`. Defaults to noise.
            strength: Amount of noise added to the image, above 0 and up to 1.

        Raises:
            AudioError: If an audio input cannot be read or is silent.
            ValueError: If an option does not fit the others.
        """
        inputs = {k: v for k, v in locals().items() if k not in ("self", "callback")}
        audio_inputs = AudioInputs.from_inputs(audio, audio_weights)
        check_inputs(inputs, bool(audio_inputs.levels), self.attached is not None)
        init_image = prepare_init_image(
            image, strength, self.pipeline, self.text_conditioner, inputs
        )
        if not isinstance(init_image, DDIMInversion):  # has its own scheduler
            check_steps(self.pipeline.scheduler, num_inference_steps)
        prompts, used_relation = self._condition(audio_inputs, inputs)
        negative = self.text_conditioner.encode_negative(negative_prompt, prompts)
        images, stopped = self._generate(prompts, negative, inputs, callback, init_image)
        metadata = {
            **inputs,
            "audio": audio_inputs.metadata(),
            "stopped": stopped,
            "audio_interval": [*audio_interval],
            "relation": None if used_relation is None else used_relation.name,
            "base_model": self.base_model,
            **self.model_names,
            **model_metadata(self.pipeline, self.attached),
            **image_metadata(image, strength),
        }
        return SoundPipelineOutput(images, metadata, used_relation)

    def _condition(
        self, audio_inputs: AudioInputs, options: Mapping[str, Any]
    ) -> tuple[PromptEmbeds, Relation | None]:
        """Condition the adapters on the audio; return the prompt embeds and the relation."""
        conditioning = self.encode_audio(audio_inputs.clips)
        audio_embeds = audio_inputs.combined_embeds(conditioning)
        prompt, text = options["prompt"], self.text_conditioner.encode(options["prompt"])
        relation = self.relation_classifier.classify(
            options["relation"] if prompt else "none", text, audio_embeds
        )
        scale, levels = options["audio_scale"], dict(options["level_scales"] or {})
        if relation is not None:
            scale *= relation.audio_scale
        if self.attached is None:
            return self.text_conditioner.combine(text, audio_embeds, scale), relation
        self.attached.set_audio_scale(
            scale, level_scales=levels, audio_interval=options["audio_interval"]
        )
        self.attached.set_audio_guidance_scale(options["audio_guidance_scale"])
        tokens = self.attached.project(conditioning)
        if (
            relation is not None
            and relation.audio_to_background
            and scale
            and not audio_inputs.levels
        ):
            relation = replace(relation, moved_to_background=True)
            tokens = {n: self.attached.adapters[n].move_to_background(t) for n, t in tokens.items()}
        self.attached.play(
            {name: audio_inputs.weighted_tokens(rows) for name, rows in tokens.items()}
        )
        return audio_embeds if text is None else text, relation

    def _generate(
        self,
        prompts: PromptEmbeds,
        negative: PromptEmbeds,
        options: Mapping[str, Any],
        callback: Callback | None,
        init_image: InitImage | DDIMInversion | None,
    ) -> tuple[list[Image.Image], bool]:
        steps, count = options["num_inference_steps"], options["num_images"]
        first_seed = options["seed"]
        starts = range(0, count, BATCH_SIZE)
        pipeline, num_steps = self.pipeline, steps
        extra: dict[str, Any] = image_size(pipeline, options["height"], options["width"])
        if init_image is not None:
            pipeline = init_image.pipeline
            extra = init_image.pipeline_kwargs(options["height"], options["width"])
            num_steps = init_image.num_denoising_steps(steps)
        if self.attached is not None:
            self.attached.set_pipeline(pipeline)
        progress = ProgressCallback(callback, num_steps * len(starts))
        to = {"device": self.pipeline.device, "dtype": self.pipeline.unet.dtype}
        embeds = {k: v.to(**to) for k, v in prompts.pipeline_kwargs(negative).items()}
        images: list[Image.Image] = []
        with (
            init_image.generation_context()
            if isinstance(init_image, DDIMInversion)
            else nullcontext()
        ):
            for start in starts:
                seeds = range(first_seed + start, first_seed + min(count, start + BATCH_SIZE))
                images += pipeline(
                    **embeds,
                    **extra,
                    num_images_per_prompt=len(seeds),
                    num_inference_steps=steps,
                    guidance_scale=options["guidance_scale"],
                    # CPU generators sample the same noise on every device.
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    callback_on_step_end=progress,
                ).images
                if progress.stopped:
                    break
        return images, progress.stopped


# Called with the completed steps and all steps; returns true to stop.
Callback = Callable[[int, int], Any]


class ProgressCallback:
    """Reports progress to a callback, and interrupts the pipeline if the callback returns true.

    Args:
        callback: Called with the completed steps and all steps, or None.
        steps: Number of all steps.
    """

    def __init__(self, callback: Callback | None, steps: int) -> None:
        self._callback, self._steps, self._done = callback, steps, 0
        self.stopped = False

    def __call__(self, pipeline: Any, step: int, time: Any, kwargs: dict[str, Any]) -> Any:
        """Implement `callback_on_step_end` of diffusers."""
        self._done += 1
        if self._callback is not None and self._callback(self._done, self._steps):
            self.stopped = pipeline._interrupt = True
        return kwargs
