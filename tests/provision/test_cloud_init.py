"""What cloud-init's own words mean, release by release. Real machines: `tests/test_cloud_init_builds.py`."""

from __future__ import annotations

import json

from ingot.provision.cloud_init import Fault, read_status

STAGE = {"errors": [], "start": 1.0, "finished": 2.0}
FAILED = "('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))"


def status(**stages: object) -> str:
    whole = dict.fromkeys(("init-local", "init", "modules-config", "modules-final"), STAGE)
    about = {"datasource": "DataSourceNoCloud [seed=x][dsmode=net]", "stage": None, **whole, **stages}
    return json.dumps({"v1": about})


def test_all_is_well() -> None:
    found = read_status(status())
    assert (found.faults, found.warnings) == ((), ())
    assert "NoCloud" in found.datasource


def test_a_module_that_failed_is_named_in_its_stage() -> None:
    found = read_status(status(**{"modules-final": {**STAGE, "errors": [FAILED]}}))
    words = "RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands')"
    assert found.faults == (Fault(stage="modules-final", module="cc_scripts_user", words=words),)


def test_older_releases_write_dashes() -> None:
    found = read_status(status(init={**STAGE, "errors": ["('write-files', OSError('full'))", "lost"]}))
    assert [fault.module for fault in found.faults] == ["cc_write_files", ""]
    assert found.faults[1].words == "lost"


def test_recoverable_errors_are_warnings_but_for_deprecations() -> None:
    listed = {"WARNING": ["Failed to set the locale"], "DEPRECATED": ["Old key"]}
    found = read_status(
        status(init={**STAGE, "recoverable_errors": listed}), logged="x - y[WARNING]: again\n"
    )
    assert found.warnings == ("Failed to set the locale",)


def test_before_they_were_recorded_the_log_tells() -> None:
    logged = (
        "2026-01-01 00:00:00,000 - util.py[WARNING]: Failed to set the locale\n"
        "2026-01-01 00:00:00,000 - schema.py[WARNING]: Invalid cloud-config provided: see the schema\n"
    )
    assert read_status(status(), logged=logged).warnings == ("Failed to set the locale",)


def test_without_a_status_it_did_not_run() -> None:
    found = read_status("", said="status: disabled\ndetail:\nCloud-init disabled by cloud-init-generator\n")
    assert found.datasource == ""
    assert found.said == "status: disabled detail: Cloud-init disabled by cloud-init-generator"
