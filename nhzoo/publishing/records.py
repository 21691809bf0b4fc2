"""Results for other programs: records of Every Eval Ever, and tables as Parquet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from nhzoo import __version__
from nhzoo.agents import registry
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results, statistics
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.statistics import Statistic
from nhzoo.runtime import files

SCHEMA: Final = "0.3.0"
"""The version of eval.schema.json (of the package every-eval-ever) that records are of."""

Relationship = Literal["first_party", "third_party", "collaborative", "other"]
"""Who evaluated, seen from the agent's author."""


def evaluation_record(
    folder: Path,
    evaluator: str = "unknown",
    relationship: Relationship = "other",
    created: float | None = None,
) -> dict[str, Any]:
    """A result as one record of Every Eval Ever: mean and median score, and progression.

    Figures are computed from the games, with 95 % intervals. `evaluator` names who played them,
    `created` is the time of the record (s, Unix; now by default). Scores have no maximum, so their
    metric has no type there. InputError for what is no result, CheckFailed if every game crashed.
    """
    folder = Path(folder)
    result, protocol, rows = results.read_result(folder)
    results.need_score(rows, folder)
    stamp = f"{time.time() if created is None else created:.0f}"
    model = _model(result)
    name = f"nhzoo-{protocol.id}"
    scores = [float(row["score"]) for row in rows]
    progression = [float(row["progression"]) for row in rows]
    metrics = [
        _metric(result, protocol, "mean_score", scores, "mean", "points"),
        _metric(result, protocol, "median_score", scores, "median", "points"),
        _metric(result, protocol, "mean_progression", progression, "mean", "proportion"),
    ]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{name}/{model['id'].replace('/', '_')}/{stamp}",
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "nhzoo",
            "source_type": "evaluation_run",
            "source_organization_name": evaluator,
            "evaluator_relationship": relationship,
        },
        "eval_library": {
            "name": "nhzoo",
            "version": str(files.as_object(result.get("versions")).get("nhzoo", __version__)),
            "additional_details": _texts(files.as_object(result.get("versions"))),
        },
        "model_info": model,
        "evaluation_results": metrics,
    }


def _model(result: Mapping[str, Any]) -> dict[str, Any]:
    agent, source = str(result.get("agent")), result.get("source")
    open_weights = False
    identifier = f"unknown/{agent}"
    if isinstance(source, str) and source.startswith("hf://"):
        identifier = source.removeprefix("hf://").partition("@")[0]
        open_weights = True
    elif agent in registry.BUILT_IN or registry.find(agent) is not None:
        identifier = f"nhzoo/{agent}"
        open_weights = result.get("weights_sha256") is not None
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights" if open_weights else "unknown",
    }
    facts = ("revision", "source", "weights_sha256", "params")
    details |= _texts({name: result.get(name) for name in facts})
    return {"name": agent, "id": identifier, "additional_details": details}


def _metric(
    result: Mapping[str, Any],
    protocol: Protocol,
    name: str,
    values: Sequence[float],
    statistic: Statistic,
    unit: str,
) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": len(values)}
    ends = statistics.mean_ci95(values) if statistic == "mean" else _median_ends(values)
    if ends:
        few = len(values) < statistics.LEAST_VALUES
        method = "Student's t" if few else "BCa bootstrap over games"
        uncertainty["confidence_interval"] = {
            "lower": ends[0],
            "upper": ends[1],
            "confidence_level": 1 - statistics.ALPHA,
            "method": method,
        }
        uncertainty |= {} if few else {"num_bootstrap_samples": statistics.RESAMPLES}
    config: dict[str, Any] = {
        "evaluation_description": f"{name.replace('_', ' ')} of a NetHack agent, "
        f"{protocol.games:,} games in full",
        "metric_id": f"nhzoo.{name}",
        "metric_name": name.replace("_", " "),
        "metric_kind": "score" if unit == "points" else "progression",
        "metric_unit": unit,
        "lower_is_better": False,
    }
    if unit == "proportion":
        config |= {"score_type": "continuous", "min_score": 0.0, "max_score": 1.0}
    more = (
        "device",
        "batch",
        "patience",
        "min_p",
        "limits",
        "machine",
        "numerics",
        "exempt",
        "shard",
    )
    generation: dict[str, Any] = {
        "additional_details": _texts({key: result.get(key) for key in more})
    }
    if isinstance(result.get("temperature"), (int, float)):
        generation["generation_args"] = {"temperature": result["temperature"]}
    return {
        "evaluation_result_id": f"{protocol.id}.{name}",
        "evaluation_name": protocol.id,
        "source_data": {
            "dataset_name": protocol.id,
            "source_type": "other",
            "additional_details": {
                "environment": "NetHackChallenge-v0 of NLE 1.3",
                "character": protocol.character,
                "games_of_the_protocol": str(protocol.games),
                "games_played": str(len(values)),
                "step_cap": str(protocol.step_cap),
                "no_progress": str(protocol.no_progress),
                "seeds_of_game_i": f"SHA-256 of nhzoo:{protocol.id}:i",
            },
        },
        "metric_config": config,
        "score_details": {
            "score": statistics.estimate(values, statistic),
            "uncertainty": uncertainty,
        },
        "generation_config": generation,
    }


def _median_ends(values: Sequence[float]) -> statistics.Ends | None:
    return None if len(values) < statistics.LEAST_VALUES else statistics.ci95(values, "median")


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as the schema wants them: known ones, as text."""
    return {name: str(value) for name, value in facts.items() if value is not None}


def game_rows(folder: Path) -> list[dict[str, Any]]:
    """The games of a result as rows of a table: who played what, and a column for each field."""
    result, protocol, rows = results.read_result(Path(folder))
    who = {
        "agent": str(result.get("agent")),
        "revision": result.get("revision"),
        "protocol": protocol.id,
    }
    return [who | _flat(row) for row in rows]


def _flat(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if isinstance(value, (str, int, float))}


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as a Parquet file of plain columns, which any reader knows without a schema.

    Columns are in the order in which they first appear; those without any value are left out.
    Needs the extra `parquet`. InputError without it, for no rows, or for columns of mixed types.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError("pyarrow is missing: pip install 'nhzoo[parquet]'") from None
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name in row:
            columns.setdefault(name, [])
    for name, values in columns.items():
        values.extend(row.get(name) for row in rows)
    kept = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    if not kept:
        raise InputError(f"{path}: there is nothing to write")
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(kept), sink)
    files.atomic_write(Path(path), sink.getvalue().to_pybytes())
