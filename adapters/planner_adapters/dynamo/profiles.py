"""Pre-deployment engine profiles: Dynamo's ``raw_data.npz`` and JSON files, read into performance models.

A profile says how long one engine takes to prefill a prompt and to decode one iteration of a batch. It is
found in any of these shapes:

- a directory with ``selected_prefill_interpolation/raw_data.npz`` and
  ``selected_decode_interpolation/raw_data.npz``;
- a directory with ``prefill_raw_data.json`` and ``decode_raw_data.json`` (the same keys);
- one NPZ or JSON file with both halves, as lists of points or, as Dynamo's mocker writes it, with decode times on
  a grid.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from planner_core.data.errors import ConfigError
from planner_core.data.fpm import Floats
from planner_core.perf import Profiled

_MEND = (
    "a profile is a directory with selected_{prefill,decode}_interpolation/raw_data.npz "
    "or {prefill,decode}_raw_data.json, or one .npz or .json with both halves"
)


class ProfileError(ValueError):
    """A profile that can't be used; one line that names the file, the key and the mend."""


class NoProfileError(ProfileError):
    """There is none, not even half of one."""


def load_profile(path: str | Path) -> Profiled:
    """The profile at ``path``; :class:`ProfileError` if there is none or it can't be used."""
    path = Path(path)
    if path.is_file():
        half = _Half(path, _read_json(path) if path.suffix == ".json" else _read_npz(path))
        return _profile(half, half)
    if not path.is_dir():
        raise NoProfileError(f"{path}: no such file or directory; {_MEND}")
    halves = {half: _half_of(path, half) for half in ("prefill", "decode")}
    missing = [half for half, found in halves.items() if found is None]
    if len(missing) == len(halves):
        raise NoProfileError(f"{path}: there is no profile; {_MEND}")
    if missing:
        raise ProfileError(f"{path}: there is no {missing[0]} half; {_MEND}")
    return _profile(*(found for found in halves.values() if found is not None))


@attrs.frozen
class _Half:
    """The arrays of one file."""

    file: Path
    arrays: Mapping[str, Any]

    def column(self, *keys: str, least: float = 0.0) -> Floats:
        """The first of ``keys`` that is there, flat, as finite floats >= ``least``."""
        key = next((k for k in keys if k in self.arrays), None)
        if key is None:
            have = ", ".join(sorted(self.arrays)) or "nothing"
            raise ProfileError(f"{self.file}: key {keys[0]!r} is missing; it has {have}")
        try:
            column = np.asarray(self.arrays[key], dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise ProfileError(
                f"{self.file}: key {key!r} holds no plain numbers; write a flat list of them"
            ) from None
        bad = np.flatnonzero(~(np.isfinite(column) & (column >= least)))
        if bad.size:
            want = "finite and positive" if least else "finite and not negative"
            raise ProfileError(
                f"{self.file}: key {key!r}, entry {bad[0]} is {column[bad[0]]}: "
                f"must be {want}; leave the point out"
            )
        if not column.size:
            raise ProfileError(f"{self.file}: key {key!r} is empty; profile at least two points")
        return column

    def same_length(self, **columns: Floats) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ProfileError(
                f"{self.file}: arrays differ in length ({told}); they are columns of one table"
            )


def _half_of(directory: Path, half: str) -> _Half | None:
    npz = directory / f"selected_{half}_interpolation" / "raw_data.npz"
    plain = directory / f"{half}_raw_data.json"
    if npz.is_file():
        return _Half(npz, _read_npz(npz))
    return _Half(plain, _read_json(plain)) if plain.is_file() else None


def _read_npz(file: Path) -> Mapping[str, Any]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile):
        raise ProfileError(f"{file}: not a readable NPZ; {_MEND}") from None


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"{file}: not readable JSON ({error}); write one object of arrays") from None
    if not isinstance(data, dict):
        raise ProfileError(f"{file}: holds a {type(data).__name__}; write one object of arrays")
    return data


def _profile(prefill: _Half, decode: _Half) -> Profiled:
    isl = prefill.column("prefill_isl", least=1.0)
    ttft = prefill.column("prefill_ttft", "prefill_ttft_ms", least=np.finfo(float).tiny)
    prefill.same_length(prefill_isl=isl, prefill_ttft=ttft)
    isl, first = np.unique(isl, return_index=True)
    if len(isl) < 2:
        raise ProfileError(f"{prefill.file}: key 'prefill_isl' has one length only; profile at least two")
    kv, context, itl, max_kv = (
        _decode_grid(decode) if "decode_itl" in decode.arrays else _decode_points(decode)
    )
    _, points = np.unique(context, return_counts=True)
    if (points > 1).sum() < 2:
        raise ProfileError(
            f"{decode.file}: fewer than two context lengths have two decode points or more; profile some, "
            "or the cost of a KV token can't be told from that of a request"
        )
    try:
        return Profiled(
            prefill_isl_tokens=isl,
            prefill_ttft_ms=ttft[first],
            decode_kv_tokens=kv,
            decode_context_tokens=context,
            decode_itl_ms=itl,
            max_kv_tokens=max_kv,
            num_gpus=_num_gpus(prefill, isl, ttft[first], first),
        )
    except ConfigError as error:
        raise ProfileError(f"{decode.file}: {error}") from None


def _decode_points(half: _Half) -> tuple[Floats, Floats, Floats, int | None]:
    usage = half.column("x_kv_usage")
    context = half.column("y_context_length", least=1.0)
    itl = half.column("z_itl", least=np.finfo(float).tiny)
    max_kv = float(half.column("max_kv_tokens", least=1.0)[0])
    half.same_length(x_kv_usage=usage, y_context_length=context, z_itl=itl)
    if usage.max() > 1.5:
        raise ProfileError(
            f"{half.file}: key 'x_kv_usage' reaches {usage.max():g}: must be a share of max_kv_tokens, 0 to 1"
        )
    some = usage > 0  # a batch of nothing says nothing
    return usage[some] * max_kv, context[some], itl[some], int(max_kv)


def _decode_grid(half: _Half) -> tuple[Floats, Floats, Floats, int | None]:
    """The mocker's grid: ``decode_itl[i, j]`` at ``decode_active_kv_tokens[i]`` and
    ``decode_context_length[j]``.
    """
    kv = half.column("decode_active_kv_tokens")
    context = half.column("decode_context_length", least=1.0)
    itl = half.column("decode_itl", least=np.finfo(float).tiny)
    if len(itl) != len(kv) * len(context):
        raise ProfileError(
            f"{half.file}: key 'decode_itl' has {len(itl)} entries; "
            f"decode_active_kv_tokens x decode_context_length is {len(kv)} x {len(context)}"
        )
    rows, columns = np.meshgrid(kv, context, indexing="ij")
    at_least_one_request = rows.ravel() >= columns.ravel()
    return (
        rows.ravel()[at_least_one_request],
        columns.ravel()[at_least_one_request],
        itl[at_least_one_request],
        int(kv.max()),
    )


def _num_gpus(half: _Half, isl: Floats, ttft_ms: Floats, rows: npt.NDArray[np.intp]) -> int | None:
    if "prefill_thpt_per_gpu" not in half.arrays:
        return None
    throughput = half.column("prefill_thpt_per_gpu")
    half.same_length(prefill_isl=isl, prefill_thpt_per_gpu=throughput)
    with np.errstate(divide="ignore"):
        gpus = np.median(isl / (ttft_ms / 1e3) / throughput[rows])
    return max(1, round(float(gpus))) if np.isfinite(gpus) else None
