"""``python -m icmbench cost``: what a run would cost, before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from icmbench.config.cost import COSTS, Cost, plan_costs
from icmbench.config.load import load_given
from icmbench.config.plan import Plan, load_plan
from icmbench.plugins import load_modules
from icmbench.registry import CODECS

_HEADINGS = ("GPU h, training", "GPU h, evaluation", "CPU h, coding", "disk, GB")


def planned(settings: Sequence[str]) -> Plan:
    """Return the plan of a configuration with every variant, whatever programs are installed.

    Args:
        settings: ``key=value`` or files, laid over config.yaml.

    Raises:
        UserError: for faults of the configuration.
    """
    load_modules([])
    classical = [name for name in CODECS.names() if CODECS[name].kind == "classical"]
    run = load_given([*settings, "variants=all"])
    return load_plan(run.model_copy(update={"classical_codecs": classical}), programs=False)


def cost_table(plan: Plan) -> str:
    """Return a table of every variant, study and the run.

    Raises:
        UserError: for scales of which no costs are known.
    """
    costs, missing = plan_costs(plan)
    lines = [_row("", *_HEADINGS)]
    for study in dict.fromkeys(study for study, _ in costs):
        own = {variant: cost for (of, variant), cost in costs.items() if of == study}
        lines += ["", *(_costs(f"  {variant}", cost) for variant, cost in own.items())]
        lines.append(_costs(study, sum(own.values(), Cost())))
    lines += ["", _costs("in all", sum(costs.values(), Cost())), "", _assumptions(plan)]
    lines += _not_counted(missing)
    return "\n".join(lines)


def cost_summary(plan: Plan) -> list[str]:
    """Return a line for each study, in the order of the plan."""
    costs, missing = plan_costs(plan)
    totals: dict[str, Cost] = {}
    for (study, _), cost in costs.items():
        totals[study] = totals.get(study, Cost()) + cost
    return [
        f"cost of {study}, estimated: {cost.gpu_h:.0f} GPU hours, {cost.cpu_h:.0f} CPU hours, "
        f"{cost.disk_gb:.0f} GB (`python -m icmbench cost`)"
        for study, cost in totals.items()
    ] + _not_counted(missing)


def _not_counted(missing: list[str]) -> list[str]:
    return [f"not counted: {', '.join(missing)}, of which costs.yaml has no numbers"] * bool(
        missing
    )


def _assumptions(plan: Plan) -> str:
    return (
        f"Estimates by counted work, for {len(plan.run.seeds)} seed(s), without downloads; work "
        f"and speeds are in {COSTS.parent.name}/{COSTS.name}. Work that variants share is counted "
        "for the first of them."
    )


def _costs(name: str, cost: Cost) -> str:
    values = (cost.train_gpu_h, cost.evaluate_gpu_h, cost.cpu_h, cost.disk_gb)
    return _row(name, *(f"{value:.1f}" if value else "" for value in values))


def _row(name: str, *cells: str) -> str:
    return (f"{name:58}" + "".join(f"{cell:>19}" for cell in cells)).rstrip()
