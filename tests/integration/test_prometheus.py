"""What is documented for Prometheus and Grafana, in a real Prometheus that scrapes a real program."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from giltrace.metrics.families import FAMILIES, Kind
from tests.metrics_command import Counting
from tests.prometheus import Prometheus

pytestmark = pytest.mark.needs("prometheus")

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
RULES = (MONITORING / "rules.yml").read_text()
#: Says that figures are incomplete, which those of this program are not.
NEVER = {"PythonGilUncounted"}
WINDOW = "10s"
#: All that only grows.
GROWING = [f"{family.name}_total" for family in FAMILIES if family.kind is Kind.COUNTER] + [
    f"{family.name}_{part}"
    for family in FAMILIES
    if family.kind is Kind.HISTOGRAM
    for part in ("bucket", "count", "sum")
]


def quickly(rules: str) -> str:
    """The rules, without the minutes that make them steady."""
    return re.sub(r"\[5m\]", f"[{WINDOW}]", re.sub(r"\n +for: \d+m", "", rules))


def queries() -> dict[str, str]:
    """The queries of the dashboard by their panels, as Grafana would send them."""
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    found = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$job", ".*").replace("$instance", ".*")
            query = query.replace("$__rate_interval", WINDOW).replace("$__range", WINDOW)
            assert "$" not in query
            found[f"{panel['title']}: {target['legendFormat']}"] = query
    return found


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        Counting("--listen", "127.0.0.1:0") as counting,
        Prometheus(folder, [counting.address], quickly(RULES)) as prometheus,
    ):
        prometheus.wait_until(lambda: prometheus.query(f"rate(python_gil_held_seconds_total[{WINDOW}])"))
        yield prometheus


def test_the_rules_are_valid() -> None:
    subprocess.run(["promtool", "check", "rules", MONITORING / "rules.yml"], check=True, capture_output=True)


def test_what_is_scraped_is_without_fault(prometheus: Prometheus) -> None:
    # One that took longer than a second, on a machine that has other things to do, was without fault, too.
    prometheus.wait_until(lambda: prometheus.value("up") == 1)
    assert prometheus.value("max_over_time(scrape_samples_scraped[1h])") > 200


def test_the_exposition_passes_promtools_checks() -> None:
    with Counting("--listen", "127.0.0.1:0") as counting:
        told = counting.scrape()
    ran = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_every_query_of_the_dashboard_returns_something(prometheus: Prometheus) -> None:
    asked = queries()
    assert len(asked) > 20

    def unanswered() -> list[str]:
        return [panel for panel, query in asked.items() if not prometheus.query(query)]

    prometheus.wait_until(lambda: not unanswered(), unanswered)


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(queries().values())
    aside = {"giltrace_info"}
    assert [family.name for family in FAMILIES if family.name not in shown and family.name not in aside] == []


def test_every_alert_fires_that_should(prometheus: Prometheus) -> None:
    rules: list[dict[str, Any]] = [rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"]]
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert alerts > NEVER
    prometheus.wait_until(lambda: prometheus.alerts() == alerts - NEVER, prometheus.alerts)


def test_figures_are_those_of_the_program(prometheus: Prometheus) -> None:
    def line_of(metric: str, function: str) -> bool:
        return bool(prometheus.query(f'{metric}{{function="{function}", line=~"<string>:.+"}} > 0'))

    prometheus.wait_until(
        lambda: (
            line_of("python_gil_culprit_seconds_total", "compute")
            and line_of("python_gil_culprit_seconds_total", "hog")
            and line_of("python_lock_sleeper_seconds_total", "in_turn")
        )
    )
    assert prometheus.value('python_gil_threads{role="cpu-*"}') == 2
    assert prometheus.value('python_gil_threads{role="io-*"}') == 4
    assert prometheus.value("sum(python_gil_processes)") == 1
    # One GIL is held by one thread at a time; and the buckets of a histogram hold what was counted.
    assert prometheus.value("max_over_time(instance:python_gil_held:ratio[1h])") <= 1.05
    assert prometheus.value("sum(python_gil_holds_total - python_gil_hold_seconds_count)") == 0
    assert prometheus.value('sum(python_gil_wait_seconds_bucket{le="+Inf"} - on (role) python_gil_waits_total)') == 0


def test_no_counter_ever_shrinks(prometheus: Prometheus) -> None:
    assert [name for name in GROWING if prometheus.query(f"resets({name}[1h]) > 0")] == []
