"""Play PixelReason with any OpenAI-compatible endpoint through verifiers; docs/verifiers.md says more.

python docs/examples/verifiers_play.py MODEL http://127.0.0.1:8000/v1
"""

import asyncio
import sys

import verifiers.v1 as vf

from pixel_env.evaluation import evaluate
from pixel_env.trajectory import Trajectory, save_jsonl

CONFIG = {
    "taskset": {"id": "pixel-env", "settings": {"preset": "micro", "split": "test"}, "num_tasks": 4},
    "attempts": 8,
    "max_concurrent_agents": None,  # the attempts at a task all at once
}


async def play(model: str, base_url: str) -> list[vf.Episode]:
    """Return one episode a task, each of eight attempts."""
    env = vf.load_environment(vf.resolve_env_config(CONFIG))
    client = vf.EvalClientConfig(base_url=base_url, api_key_var="OPENAI_API_KEY")
    context = vf.ModelContext(model, client, vf.SamplingConfig(temperature=1.0))
    async with env.serving():
        slots = [slot for task in env.taskset for slot in env.slots(task)]
        return await asyncio.gather(*(env.run_slot(slot, context) for slot in slots))


episodes = asyncio.run(play(*sys.argv[1:]))
traces = [trace for episode in episodes for trace in episode.traces if trace.ok]
print({name: sum(trace.rewards[name].value for trace in traces) for name in traces[0].rewards})
trajectories = [Trajectory.from_json(trace.info["trajectory"]) for trace in traces]
save_jsonl("played.jsonl", trajectories)  # for python -m pixel_env.view
print(evaluate(trajectories).to_markdown())
