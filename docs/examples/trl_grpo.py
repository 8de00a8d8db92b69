"""Train a VLM on PixelReason with TRL's own `GRPOTrainer`; docs/trl.md says what this gives and what it loses.

python docs/examples/trl_grpo.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct --output_dir runs/trl \
    --num_generations 8 --per_device_train_batch_size 8 --max_completion_length 4096 --gradient_checkpointing
"""

from dataclasses import dataclass

from datasets import Dataset
from transformers import AutoProcessor
from trl import GRPOConfig, GRPOTrainer, ModelConfig, TrlParser
from trl.chat_template_utils import qwen3_vl_chat_template

from pixel_env.adapters.trl import ToolEnvironment, reward_funcs, rows


@dataclass
class Tasks:
    """What is trained on."""

    env_id: str = "PixelReason-Zoom-v0"
    preset: str = "standard"
    num_tasks: int = 1024


tasks, config, model = TrlParser((Tasks, GRPOConfig, ModelConfig)).parse_args_and_config()
processor = AutoProcessor.from_pretrained(model.model_name_or_path)
processor.chat_template = qwen3_vl_chat_template  # that of Qwen2.5-VL knows no functions
config.max_tool_calling_iterations = 4  # the prompt promises five turns
config.generation_kwargs = {"suppress_tokens": [processor.image_token_id, processor.video_token_id]}
# Without torchvision TRL would else stop at the first batch in which no call shows an image.
config.chat_template_kwargs = {"processor_kwargs": {"images_kwargs": {"return_tensors": "pt"}}}
settings = {"preset": tasks.preset, "max_turns": 5}
trainer = GRPOTrainer(
    model.model_name_or_path,
    reward_funcs(config.num_generations),
    args=config,
    train_dataset=Dataset.from_list(rows(tasks.env_id, range(tasks.num_tasks), **settings)),
    processing_class=processor,
    environment_factory=lambda: ToolEnvironment(tasks.env_id, **settings),
)
trainer.train()
trainer.save_model()
