"""Train the Runs of a study of transfer learning through double descent.

Importing this package loads neither torch nor Ray.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.api import StoredStudy, plan_study, run_study, study_status

__all__ = ["StoredStudy", "plan_study", "run_study", "study_status"]


def __getattr__(name: str) -> Any:
    # `study.api` is imported on first use: code that imports only `study.run` does not need it.
    if name in __all__:
        from study import api

        return getattr(api, name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
