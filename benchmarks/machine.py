"""The machine that figures were taken on, as their pages name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Returns its cores, the units of its processor that decide how fast bfloat16 is, and its
    system.
    """
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores{vector_units()} ({system})"


def vector_units() -> str:
    """Names the widest of the processor's units for vectors, as Linux lists them."""
    listed = Path("/proc/cpuinfo")
    words = listed.read_text(encoding="utf-8").split() if listed.is_file() else []
    if "avx512_bf16" in words:
        return " with AVX-512 and its bfloat16"
    if "avx512f" in words:
        return " with AVX-512, without its bfloat16"
    return " with AVX2" if "avx2" in words else ""
