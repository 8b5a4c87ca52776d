"""What kinds of GPU are taken to do where none can be asked: published peaks, and a share of them.

Owns the table and the one assumption. A narrow network, whose steps are many small kernels, comes to less.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Operations a second of dense products, by the precision of a Recipe, from NVIDIA's data sheets.
PEAK_RATES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "L4": {"float32": 30.3e12, "tf32": 60e12, "bfloat16": 121e12},
        "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
        "H100": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12},
    }
)

# A plain ResNet-18 trains at 77 of an A100's 312 TFLOP/s in half precision (Jordan 2024, airbench).
ASSUMED_SHARE: Final = 0.25


def assumed_rates(precision: str) -> dict[str, float]:
    """Operations a second that training is taken to come to, by kind of GPU."""
    return {name: ASSUMED_SHARE * peaks[precision] for name, peaks in PEAK_RATES.items()}
