"""Define the tasks of search-space files: images, decoded once into the store."""

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
