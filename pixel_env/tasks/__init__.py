"""What is asked: tasks, task sets and the procedural suites."""

from pixel_env.tasks.drawing import DrawnSource
from pixel_env.tasks.procedural import LEVELS, PRESETS, SPLITS, SUITES, ProceduralTasks
from pixel_env.tasks.task import Cue, Task, TaskList, TaskSet

__all__ = [
    "LEVELS",
    "PRESETS",
    "SPLITS",
    "SUITES",
    "Cue",
    "DrawnSource",
    "ProceduralTasks",
    "Task",
    "TaskList",
    "TaskSet",
]
