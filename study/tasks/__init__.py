"""Images, decoded once into the store, and which of them a Run draws.

This page hands on what a search-space file names: a Task, and where its images come from.
"""

from study.tasks.images import Digits, ImageFolderImages
from study.tasks.parquet import HubImages, ParquetImages
from study.tasks.prepare import describe, prepare
from study.tasks.prepared_file import PreparedTask, TaskInfo, load, load_info
from study.tasks.task import BUILTIN, Task
from study.tasks.torchvision_sets import TinyImageNetImages, TorchvisionImages

__all__ = [
    "BUILTIN",
    "Digits",
    "HubImages",
    "ImageFolderImages",
    "ParquetImages",
    "PreparedTask",
    "Task",
    "TaskInfo",
    "TinyImageNetImages",
    "TorchvisionImages",
    "describe",
    "load",
    "load_info",
    "prepare",
]
