"""A tiny Qwen2.5-VL on disk as Qwen2.5-VL-7B-Instruct is on the Hub: files, classes, names of weights, shards."""

import json
from pathlib import Path
from typing import Any

import tiny_vlm
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

VISION: dict[str, Any] = {
    "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "in_chans": 3,
    "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "temporal_patch_size": 2,
}  # fmt: skip
CONFIG_7B: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "vision_start_token_id": 151652, "vision_end_token_id": 151653, "vision_token_id": 151654,
    "image_token_id": 151655, "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 3584,
    "initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 128000, "max_window_layers": 28,
    "model_type": "qwen2_5_vl", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": True, "use_sliding_window": False,
    "vision_config": VISION, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": 152064,
}  # fmt: skip
CONFIG_3B: dict[str, Any] = CONFIG_7B | {
    "hidden_size": 2048, "intermediate_size": 11008, "max_window_layers": 70, "num_attention_heads": 16,
    "num_hidden_layers": 36, "num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 151936,
    "vision_config": VISION | {"out_hidden_size": 2048},
}  # fmt: skip
"""What config.json holds: flat, the language model's values beside the tower's."""

CHAT_TEMPLATE = (
    "{% macro seen(name, number, pad) %}{% if add_vision_id %}{{ name }} {{ number }}: {% endif %}"
    "<|vision_start|><|{{ pad }}|><|vision_end|>{% endmacro %}"
    "{% set count = namespace(images=0, videos=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') or 'image' in part or 'image_url' in part %}"
    "{% set count.images = count.images + 1 %}{{ seen('Picture', count.images, 'image_pad') }}"
    "{% elif part['type'] == 'video' or 'video' in part %}"
    "{% set count.videos = count.videos + 1 %}{{ seen('Video', count.videos, 'video_pad') }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes what the stock template does, in all of its branches; worded anew."""


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def save_as_on_the_hub(folder: Path) -> Path:
    """Save random weights with fewer key heads than heads, an output head of their own, and a vocabulary with room."""
    processor = tiny_vlm.processor()
    tokenizer = processor.tokenizer
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>") for name, word in (
        ("bos", "endoftext"), ("eos", "im_end"), ("vision_start", "vision_start"), ("vision_end", "vision_end"),
        ("vision", "vision_pad"), ("image", "image_pad"), ("video", "video_pad"),
    )}  # fmt: skip
    vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 4, "out_hidden_size": 64}
    config = CONFIG_7B | ids | {
        "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "max_window_layers": 2, "vocab_size": len(tokenizer) + 40,
        "vision_config": VISION | vision | {"fullatt_block_indexes": [1]},
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {
        "bos_token_id": ids["bos_token_id"], "pad_token_id": ids["bos_token_id"], "do_sample": True,
        "eos_token_id": [ids["eos_token_id"], ids["bos_token_id"]], "repetition_penalty": 1.05, "temperature": 1e-6,
    })  # fmt: skip
    write_json(folder / "preprocessor_config.json", {
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
    })  # fmt: skip
    saved = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    named = {"tokenizer_class": "Qwen2Tokenizer", "processor_class": "Qwen2_5_VLProcessor"}
    write_json(folder / "tokenizer_config.json", saved | named | {"chat_template": CHAT_TEMPLATE})
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder
