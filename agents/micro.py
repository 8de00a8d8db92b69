"""The micro Qwen2.5-VL: the real classes at 2.6 million parameters, so that the whole method runs on a laptop.

Nothing here is special to training: the directory that `save` writes loads with plain transformers. What is made small
is the configuration and the vocabulary. The fixed sentences of the prompts are single tokens, so that the context of a
micro model is spent on pictures, questions and calls.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixel_env import prompts
from pixel_env.actions import SCHEMAS

MICRO_BASE = Path(__file__).parent / "micro_base"
FACTOR = 28
MAX_VIEW_PIXELS = 16384 * FACTOR * FACTOR

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
PADS = ("<|image_pad|>", "<|video_pad|>")
# Qwen keeps these visible to decode(skip_special_tokens=True): a parser has to see them.
CALL_TAGS = ("<tool_call>", "</tool_call>")

# Qwen2's splitting rule: digits one by one, words with their leading space, runs of punctuation.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_IDENTIFIERS = re.compile(r"(crop_image|select_frames|bbox_2d|target_image|target_frames|\{max_turns\})")

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string %}{{- message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""Qwen2.5-VL's own template without its default system message and its numbering of pictures."""


class ImageProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its video part, which needs torchvision; videos are shown as frames."""

    # transformers reads the parts of a processor off this signature.
    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kwargs: Any):
        self.image_token, self.video_token = PADS
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        super(Qwen2_5_VLProcessor, self).__init__(image_processor, tokenizer, chat_template=chat_template)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Save what loads as the stock processor, video part and all, where transformers of today and before look."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        stock = {"processor_class": Qwen2_5_VLProcessor.__name__}
        images = self.image_processor.to_dict()
        images = {name: value for name, value in images.items() if name != "processor_class"}
        videos = images | {"video_processor_type": "Qwen2VLVideoProcessor"}
        del videos["image_processor_type"]
        for name, config in {
            "processor_config.json": {"image_processor": images, "video_processor": videos},
            "preprocessor_config.json": images,
            "video_preprocessor_config.json": videos,
            "tokenizer_config.json": json.loads((Path(save_directory) / "tokenizer_config.json").read_text("utf-8")),
        }.items():
            text = json.dumps(config | stock, indent=2, sort_keys=True, ensure_ascii=False)
            (Path(save_directory) / name).write_text(f"{text}\n", encoding="utf-8")
        return saved


# Without this, AutoProcessor returns only the tokenizer, and a trainer would take the model for text only.
AutoProcessor.register(Qwen2_5_VLConfig, ImageProcessor, exist_ok=True)


def load_processor(path: str | Path) -> ImageProcessor:
    """Load the processor of any Qwen2.5-VL directory or id; views are passed through at the size they have."""
    processor = ImageProcessor.from_pretrained(path)
    processor.image_processor.size = {"shortest_edge": FACTOR * FACTOR, "longest_edge": MAX_VIEW_PIXELS}
    return processor


def load_model(path: str | Path, dtype: torch.dtype = torch.float32) -> Qwen2_5_VLForConditionalGeneration:
    """Load the weights of any Qwen2.5-VL directory or id and replace the slow parts of its vision tower by equals.

    Raises:
        OSError: There are none as safetensors; those of a pickle are not read.
    """
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=dtype, use_safetensors=True)
    return with_fast_vision(loaded)


def with_fast_vision(model: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    """Compute the patch embedding as a matrix product, and attention for all pictures of a size at once.

    The patch embedding is a 3-D convolution with kernel = stride, so a linear map of each patch; as a product on the
    same weights it is several times faster. Attention otherwise runs picture by picture. Names and values of the
    parameters stay as they are.
    """
    embed = model.model.visual.patch_embed
    embed.forward = partial(_embed_patches, embed)
    if model.config.vision_config._attn_implementation == "sdpa":
        for block in model.model.visual.blocks:
            block.attn.forward = partial(_attend_by_size, block.attn)
    return model


def _embed_patches(embed: Any, patches: torch.Tensor) -> torch.Tensor:
    """Patch embedding of the vision tower, (patches, pixels) to (patches, hidden)."""
    weight = embed.proj.weight
    return torch.nn.functional.linear(patches.view(-1, weight[0].numel()).to(weight.dtype), weight.flatten(1))


def _attend_by_size(
    attention: Any, hidden_states: torch.Tensor, cu_seqlens: torch.Tensor, position_embeddings: Any, **_: Any
) -> torch.Tensor:
    """Attention of the vision tower, (patches, hidden) to the same: one call for all pictures of the same size."""
    qkv = attention.qkv(hidden_states).view(len(hidden_states), 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.unbind(1)
    q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    rows, mixed = [], []
    for length in lengths.unique().tolist():
        rows.append((starts[lengths == length][:, None] + torch.arange(length, device=starts.device)).flatten())
        shape = (-1, length, attention.num_heads, attention.head_dim)
        one, two, three = (part[rows[-1]].view(shape).transpose(1, 2) for part in (q, k, v))
        found = torch.nn.functional.scaled_dot_product_attention(one, two, three, scale=attention.scaling)
        mixed.append(found.transpose(1, 2).reshape(-1, attention.dim))
    return attention.proj(torch.cat(mixed)[torch.cat(rows).argsort()])


def fixed_phrases() -> list[str]:
    """Sentences of the prompts that never change, cut at the names a policy has to copy."""
    descriptions = [d for schema in SCHEMAS for d in _descriptions(schema)]
    cut_blocks = re.compile("|".join([_IDENTIFIERS.pattern, *(re.escape(d) for d in descriptions)]))
    blocks = [prompts.instructions(c) for c in prompts.COORDINATES] + [f"{json.dumps(s)}\n" for s in SCHEMAS]
    pieces = {piece for block in blocks for piece in cut_blocks.split(block) if piece}
    guideline = prompts.GUIDELINE.replace("{{", "{").replace("}}", "}")
    pieces |= {piece for piece in re.split(_IDENTIFIERS.pattern + r"|(?<=\.) ", guideline) if piece}
    return sorted(p for p in pieces | set(descriptions) if len(p) > 11 and not _IDENTIFIERS.fullmatch(p))


def _descriptions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "description":
                yield value
            else:
                yield from _descriptions(value)


def build_processor(corpus: Iterable[str], phrases: Iterable[str], vocabulary: int = 768) -> ImageProcessor:
    """Train the byte-level BPE on `corpus` and put tokenizer, picture processor and chat template together."""
    phrases = sorted(phrases, key=len, reverse=True)
    rest = re.compile("|".join(map(re.escape, phrases)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator((rest.sub("\n", text) for text in corpus), trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL + PADS])
    tokenizer.add_tokens([AddedToken(s, special=False, normalized=False) for s in (*CALL_TAGS, *phrases)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    size = {"shortest_edge": FACTOR * FACTOR, "longest_edge": MAX_VIEW_PIXELS}
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2, size=size)
    return ImageProcessor(images, fast, chat_template=CHAT_TEMPLATE)


def build_model(
    processor: ImageProcessor, hidden: int = 128, layers: int = 6, depth: int = 4
) -> Qwen2_5_VLForConditionalGeneration:
    """A micro Qwen2.5-VL with random weights (from torch's global generator)."""
    tokenizer = processor.tokenizer
    heads = hidden // 32
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            # M-RoPE hands its frequencies out from fast to slow: time, height, width. Width gets the most, so that its
            # fastest shows a column of a 4x4 grid, and half of all barely turn within a conversation: only through
            # these can a head find an image token by what it shows, wherever it stands.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 13]},
            # The usual 0.02 suits widths of thousands: at 128 every layer would begin as almost nothing.
            "initializer_range": 0.06,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": depth,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_heads": heads,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": list(range(depth)),
            "initializer_range": 0.06,
        },
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return with_fast_vision(model)


def save(
    model: Qwen2_5_VLForConditionalGeneration, processor: ImageProcessor, path: str | Path, half: bool = False
) -> None:
    """Write a Hugging Face directory; `half` stores 16-bit weights without touching the model."""
    state = model.state_dict()
    state = {k: v.to(torch.float16) if half and v.is_floating_point() else v for k, v in state.items()}
    model.save_pretrained(path, state_dict=state)
    processor.save_pretrained(path)
