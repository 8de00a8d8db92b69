"""What TRL asks of vLLM, answered by a small model with transformers: a server with vLLM's routes, and its `LLM`.

TRL's own client and its own colocate class do the asking. What they may send and what they get has the names of vLLM's
own routes and classes, in vllm_names.json: others are errors. Weights are handed over without NCCL.
"""

import base64
import contextlib
import hashlib
import io
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import tiny_vlm
import torch
import uvicorn
from fastapi import Body, FastAPI
from PIL import Image
from trl.generation import vllm_client, vllm_generation

NAMES: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_names.json").read_text(encoding="utf-8"))
ENCODER = tiny_vlm.encoder()
Message = Annotated[dict[str, Any], Body()]
Part = Annotated[dict[str, Any], Body(embed=True)]


def known(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """A message of vLLM's class `name`: fields that it does not have are not read, so they must not be sent."""
    unknown = value.keys() - set(NAMES["fields"][name])
    assert not unknown, f"{name} has no {sorted(unknown)}"
    return value


class Speaker:
    """The model behind vLLM; its vocabulary is whole.

    Attributes:
        asked: Conversations it was asked to continue, pads expanded, and how.
        shortest_edge: Smallest size of a picture, in pixels, of its processor.
    """

    def __init__(self, end_bias: float = 2.0) -> None:
        self.model = tiny_vlm.talking_model(end_bias, scale=3.0)  # until the trainer hands over its weights
        self.model.lm_head.bias[ENCODER.forbidden] = 0.0
        self.asked: list[tuple[list[int], dict[str, Any]]] = []
        self.synchronized = 0
        self.shortest_edge = ENCODER.factor**2
        self._lock = threading.Lock()

    def process(self, images: Sequence[Image.Image]) -> Any:
        """What the processor of the model makes of pictures."""
        processor = ENCODER.processor.image_processor
        size = {"shortest_edge": self.shortest_edge, "longest_edge": processor.size["longest_edge"]}
        return processor(images=list(images), size=size, return_tensors="pt")

    def pads(self, image: Image.Image) -> int:
        """Tokens of a picture."""
        return int(self.process([image])["image_grid_thw"].prod()) // 4

    def write(
        self, ids: list[int], images: Sequence[Image.Image], sampling: dict[str, Any]
    ) -> tuple[list[int], list[float]]:
        """Continue one conversation; pads stand in runs, one an image."""
        runs = "".join("x" if token == ENCODER.image_pad else " " for token in ids).split()
        assert [len(run) for run in runs] == [self.pads(image) for image in images]
        prompt, bias = torch.tensor([ids]), {int(token): value for token, value in sampling["logit_bias"].items()}
        assert sampling["n"] == 1 and sampling["logprobs"] == 0
        warmth = {"do_sample": True, "temperature": sampling["temperature"]} if sampling["temperature"] else {}
        with self._lock:
            self.asked.append((ids, sampling))
            out = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                mm_token_type_ids=(prompt == ENCODER.image_pad).int(),
                **self.process(images),
                max_new_tokens=sampling["max_tokens"],
                **(warmth or {"do_sample": False}),
                sequence_bias={(token,): value for token, value in bias.items()},
                return_dict_in_generate=True,
                output_scores=True,
            )
        written = out.sequences[0, len(ids) :]
        logps = torch.cat(out.scores).log_softmax(-1).gather(1, written[:, None])[:, 0]
        return written.tolist(), logps.tolist()

    def load(self, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        """Take weights by their names in transformers."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in zip(names, tensors, strict=True):
                parameters[name].copy_(tensor)
        self.synchronized += names[-1] == list(parameters)[-1]


# --- server ---------------------------------------------------------------------------------------------------------


def app(speaker: Speaker, wire: "queue.Queue[torch.Tensor]") -> FastAPI:
    """The routes of `vllm serve` that TRL's client uses."""
    served, updating = FastAPI(), threading.Event()

    @served.get("/health")
    def health() -> None:
        pass

    @served.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": "tiny"}]}

    @served.get("/server_info")
    def server_info() -> dict[str, Any]:
        model = {"logprobs_mode": "processed_logprobs"}
        return {"vllm_config": {"weight_transfer_config": {"backend": "nccl"}, "model_config": model}}

    @served.get("/get_world_size")
    def world_size() -> dict[str, int]:
        return {"world_size": 1}

    @served.post("/v1/chat/completions/render")
    def render(body: Message) -> dict[str, Any]:
        [message] = known("ChatCompletionRequest", body)["messages"]
        data = [part["image_url"]["url"].removeprefix("data:image/png;base64,") for part in message["content"]]
        lengths = [speaker.pads(picture(one)) for one in data]
        features = {
            "mm_hashes": {"image": [hashlib.sha256(one.encode()).hexdigest() for one in data]},
            # Where they stand in a conversation of their own, which says nothing about ours.
            "mm_placeholders": {"image": [{"offset": sum(lengths[:k]), "length": n} for k, n in enumerate(lengths)]},
            "kwargs_data": {"image": data},
        }
        return {"token_ids": [0], "features": known("MultiModalFeatures", features)}

    @served.post("/inference/v1/generate")
    def generate(body: Message) -> dict[str, Any]:
        known("GenerateRequest", body)
        features, ids = known("MultiModalFeatures", body["features"]), body["token_ids"]
        for place in features["mm_placeholders"]["image"]:
            known("PlaceholderRangeInfo", place)
            run = ids[place["offset"] : place["offset"] + place["length"]]
            assert set(run) == {ENCODER.image_pad} and len(run) == place["length"]
        sampling = known("SamplingParams", body["sampling_params"])
        written, logps = speaker.write(ids, [picture(one) for one in features["kwargs_data"]["image"]], sampling)
        content = [
            known("ChatCompletionLogProbsContent", {"token": f"token_id:{t}", "logprob": p, "top_logprobs": []})
            for t, p in zip(written, logps, strict=True)
        ]
        choice = {"index": 0, "finish_reason": "stop", "token_ids": written, "logprobs": {"content": content}}
        return known("GenerateResponse", {"choices": [known("GenerateResponseChoice", choice)]})

    @served.post("/init_weight_transfer_engine")
    def init(init_info: Part) -> dict[str, str]:
        known("NCCLWeightTransferInitInfo", init_info)
        return {"message": "Weight transfer initialized"}

    @served.post("/start_weight_update")
    def start() -> dict[str, str]:
        updating.set()
        return {"message": "Weight update started"}

    @served.post("/update_weights")
    def update(update_info: Part) -> dict[str, str]:
        known("NCCLWeightTransferUpdateInfo", update_info)
        assert updating.is_set()
        tensors = [wire.get(timeout=60) for _ in update_info["names"]]
        assert [str(tensor.dtype) for tensor in tensors] == [f"torch.{name}" for name in update_info["dtype_names"]]
        assert [list(tensor.shape) for tensor in tensors] == update_info["shapes"]
        speaker.load(update_info["names"], tensors)
        return {"message": "Weights updated"}

    @served.post("/finish_weight_update")
    def finish() -> dict[str, str]:
        updating.clear()
        return {"message": "Weight update finished"}

    @served.post("/reset_prefix_cache")
    def reset() -> dict[str, bool]:
        return {"success": True}

    return served


def picture(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


@contextlib.contextmanager
def server(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on a free port of this machine, and TRL made to believe that vLLM 0.31 is installed; yields its URL."""
    wire: queue.Queue[torch.Tensor] = queue.Queue()

    def broadcast(iterator: Any, group: Any, src: int, post_iter_func: Any) -> None:
        assert group.wire is wire and src == 0
        for item in iterator:
            wire.put(post_iter_func(item))

    init = vllm_client.VLLMClient.init_communicator
    endpoint = SimpleNamespace(wire=wire, group=SimpleNamespace())
    for module in (vllm_client, vllm_generation):
        monkeypatch.setattr(module, "is_vllm_available", lambda min_version=None: True)
    monkeypatch.setattr(vllm_client, "_HAS_STATEFUL_TRAINER_ENGINE", True)
    monkeypatch.setattr(vllm_client, "_HAS_RESET_PREFIX_CACHE_SUCCESS", True)
    monkeypatch.setattr(vllm_client, "get_ip", lambda: "127.0.0.1", raising=False)
    monkeypatch.setattr(vllm_client, "open_trainer_endpoint", lambda _: endpoint, raising=False)
    monkeypatch.setattr(vllm_client, "packed_nccl_broadcast_producer", broadcast, raising=False)
    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: init(self, "cuda"))
    monkeypatch.setattr(vllm_client.atexit, "register", lambda *_: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = uvicorn.Server(uvicorn.Config(app(speaker, wire), port=0, log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(30)


# --- in the process of the trainer ----------------------------------------------------------------------------------


def install(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an `LLM` in the place of vLLM's in TRL's colocate class."""

    class LLM:
        def __init__(self, **settings: Any) -> None:
            known("LLM", settings)
            load = SimpleNamespace(load_weights=lambda pairs: speaker.load(*zip(*pairs, strict=True)))
            runner = SimpleNamespace(model_runner=SimpleNamespace(model=load))
            self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))

        def generate(self, prompts: list[dict[str, Any]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
            outputs = []
            for prompt in prompts:
                images = prompt["multi_modal_data"]["image"]
                images = images if isinstance(images, list) else [images]
                ids = expanded(prompt["prompt_token_ids"], [speaker.pads(image) for image in images])
                written, logps = speaker.write(ids, images, sampling_params)
                logprobs = [{t: SimpleNamespace(logprob=p, rank=1)} for t, p in zip(written, logps, strict=True)]
                output = SimpleNamespace(token_ids=written, logprobs=logprobs)
                outputs.append(SimpleNamespace(prompt_token_ids=ids, outputs=[output]))
            return outputs

        def reset_prefix_cache(self) -> None:
            pass

    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda min_version=None: True)
    monkeypatch.setattr(vllm_generation, "LLM", LLM, raising=False)
    monkeypatch.setattr(
        vllm_generation, "SamplingParams", lambda **settings: known("SamplingParams", settings), raising=False
    )
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # TRL sets them; they are put back
        monkeypatch.delenv(name)


def expanded(ids: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """As vLLM's processor of Qwen2.5-VL: the k-th pad becomes the run of the k-th image, further ones stay."""
    counts = iter(lengths)
    return [token for one in ids for token in [one] * (next(counts, 1) if one == ENCODER.image_pad else 1)]
