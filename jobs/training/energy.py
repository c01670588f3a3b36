"""What a training has used: device-hours, and from those energy, carbon and price where the settings know the rates.

Device-hours are reserved time, wall clock times devices, as a cluster bills them. Energy is device-hours times the
watts given, carbon energy times the grid's intensity (Lacoste et al. 2019, without an offset). What is not given is not
known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.settings import Settings
from jobs.spec import ScalingSpec

_HOUR = 3600
_KILO = 1000


@dataclass(frozen=True)
class Energy:
    """Hours of one CPU core and of one GPU; `price` is in the currency of the settings."""

    cpu_hours: float
    gpu_hours: float
    kwh: float | None
    grams: float | None
    price: float | None


def used(seconds: float, scaling: ScalingSpec, settings: Settings) -> Energy:
    """Of `seconds` on all workers of the scaling, at the most it could have had."""
    hours = {
        "cpu": seconds / _HOUR * scaling.most_workers * scaling.cpus_per_worker,
        "gpu": seconds / _HOUR * scaling.most_workers * scaling.gpus,
    }
    watts = _total(hours, {"cpu": settings.cpu_watts, "gpu": settings.gpu_watts})
    kwh = None if watts is None else watts / _KILO
    grams = None if kwh is None or settings.grid_grams is None else kwh * settings.grid_grams
    price = _total(hours, {"cpu": settings.cpu_hour_price, "gpu": settings.gpu_hour_price})
    return Energy(hours["cpu"], hours["gpu"], kwh, grams, price)


def _total(hours: Mapping[str, float], rates: Mapping[str, float | None]) -> float | None:
    """None when a device was used whose rate is not known."""
    total = 0.0
    for device, spent in hours.items():
        rate = rates[device]
        if spent and rate is None:
            return None
        total += spent * (rate or 0)
    return total
