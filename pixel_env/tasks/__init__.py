"""What is asked: tasks, task sets, the procedural suites, and sets of tasks from files."""

from pixel_env.tasks.drawing import DrawnSource
from pixel_env.tasks.files import FORMATS, FileTasks, load_tasks, tasks_from_spec
from pixel_env.tasks.procedural import DEFAULT_LEVELS, LEVELS, MEDIA, PRESETS, SPLITS, SUITES, ProceduralTasks
from pixel_env.tasks.submission import submission
from pixel_env.tasks.task import Cue, Task, TaskList, TaskSet

__all__ = [
    "DEFAULT_LEVELS",
    "FORMATS",
    "LEVELS",
    "MEDIA",
    "PRESETS",
    "SPLITS",
    "SUITES",
    "Cue",
    "DrawnSource",
    "FileTasks",
    "ProceduralTasks",
    "Task",
    "TaskList",
    "TaskSet",
    "load_tasks",
    "submission",
    "tasks_from_spec",
]
