from __future__ import annotations

import pytest

from cluster.settings import Settings
from jobs.spec import ScalingSpec
from jobs.training import energy

CPU = ScalingSpec(workers=2, cpus_per_worker=3)
GPU = ScalingSpec(workers=2, use_gpu=True)


def test_device_hours_are_time_by_devices() -> None:
    made = energy.used(1800, CPU, Settings())
    assert (made.cpu_hours, made.gpu_hours) == (3.0, 0.0)
    assert energy.used(1800, GPU, Settings()).gpu_hours == 1.0
    shared = ScalingSpec(workers=1, use_gpu=True, gpus_per_worker=0.25)
    assert energy.used(3600, shared, Settings()).gpu_hours == 0.25


def test_nothing_is_invented() -> None:
    made = energy.used(3600, CPU, Settings(grid_grams=400))
    assert (made.kwh, made.grams, made.price) == (None, None, None)
    made = energy.used(3600, GPU, Settings(cpu_watts=10, grid_grams=400, cpu_hour_price=1))
    assert (made.kwh, made.grams, made.price) == (None, None, None)
    assert energy.used(3600, CPU, Settings(cpu_watts=10)).grams is None


def test_what_is_known_is_counted() -> None:
    settings = Settings(cpu_watts=10, gpu_watts=300, grid_grams=400, cpu_hour_price=0.05, gpu_hour_price=2)
    made = energy.used(3600, GPU, settings)
    assert made.kwh == pytest.approx((2 * 10 + 2 * 300) / 1000)
    assert made.grams == pytest.approx(0.62 * 400)
    assert made.price == pytest.approx(2 * 0.05 + 2 * 2)


def test_a_cpu_training_needs_no_rate_of_gpus() -> None:
    assert energy.used(3600, CPU, Settings(cpu_watts=10)).kwh == pytest.approx(0.06)
