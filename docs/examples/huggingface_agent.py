"""An agent that runs any chat model of transformers that reads images; `agents.vlm_policy` is faster for Qwen2.5-VL."""

from typing import Any

from agents.micro import load_model, load_processor
from pixel_env.chat import template_messages
from pixel_env.evaluation import evaluate
from pixel_env.rollout import Conversation, rollout


class Agent:
    """Writes the likeliest turn; a function of one conversation, too."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    def __call__(self, conversation: Conversation) -> str:
        added = self.processor.tokenizer.added_tokens_decoder.values()
        chat = template_messages(conversation, [token.content for token in added if token.special])
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
        inputs = self.processor.apply_chat_template(chat, **options).to(self.model.device)
        ids = self.model.generate(**inputs, max_new_tokens=160, do_sample=False)
        return self.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


if __name__ == "__main__":
    # Other models: AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path).
    agent = Agent(load_model("agents/micro_base"), load_processor("agents/micro_base"))
    played = rollout(agent, "PixelReason-Zoom-v0", range(4), split="test", preset="micro")
    print(evaluate(played).to_markdown())
