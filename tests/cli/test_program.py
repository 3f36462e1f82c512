"""The program as people use it, in one process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import Ingot
from .world import DEFINITION, write_project


def test_alone_it_shows_the_overview(ingot: Ingot) -> None:
    said = ingot()
    assert said.code == 0
    assert "The usual path" in said.out
    assert said.out == ingot("--help").out


def test_build_then_reuse(ingot: Ingot, project: Path) -> None:
    first = ingot("build", "--json")
    assert first.code == 0, first.err
    node, big = first.document["outcomes"]
    assert (node["image"], node["status"], node["version"]) == ("node", "built", 1)
    assert [layer["status"] for layer in node["layers"]] == ["built"] * 4
    assert [layer["status"] for layer in big["layers"]] == ["reused"] * 3 + ["built"] * 2
    again = ingot("build", "--json").document["outcomes"]
    assert [one["status"] for one in again] == ["reused", "reused"]
    assert [one["digest"] for one in again] == [node["digest"], big["digest"]]
    assert [one["version"] for one in again] == [1, 1]


def test_an_outcome_has_what_was_promised(ingot: Ingot) -> None:
    (outcome,) = ingot("build", "node", "--json").document["outcomes"]
    promised = [
        "image",
        "target",
        "backend",
        "location",
        "version",
        "ref",
        "digest",
        "status",
        "seconds",
        "layers",
    ]
    assert set(promised) <= outcome.keys()
    assert {"name", "key", "status", "seconds", "bytes"} <= outcome["layers"][0].keys()


def test_names_are_globs(ingot: Ingot) -> None:
    assert [one["image"] for one in ingot("build", "n*", "--json").document["outcomes"]] == ["node"]
    said = ingot("build", "nod", "--json")
    assert said.code == 2
    assert "did you mean node" in said.document["error"]["hint"]


def test_options_before_the_verb_and_another_folder(
    ingot: Ingot, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.parent)
    assert ingot("-C", "project", "--json", "plan").document["plans"][0]["to_build"] == 4
    assert ingot("plan", "--json", "-C", "project").document["plans"][0]["to_build"] == 4


def test_plan_tells_what_changed(ingot: Ingot) -> None:
    assert ingot("plan", "--detailed-exitcode").code == 10
    ingot("build")
    assert ingot("plan", "--detailed-exitcode").code == 0
    changed = ingot("plan", "--detailed-exitcode", "--var", "greeting=hi")
    assert changed.code == 10
    assert "text: hello → hi" in changed.out
    assert ingot("plan", "--var", "greeting=hi").code == 0


def test_dry_run_makes_nothing(ingot: Ingot, project: Path, state: Path) -> None:
    said = ingot("build", "--dry-run", "--json")
    assert said.code == 0
    assert said.document["dry_run"] is True
    assert not (project / "ingot.lock").exists()
    assert not (state / "memory").exists()


def test_the_first_build_writes_the_lock_and_locked_refuses(ingot: Ingot, project: Path) -> None:
    refused = ingot("build", "--locked", "--json")
    assert refused.code == 2
    assert "no pins for tiny" in refused.document["error"]["message"]
    assert ingot("build", "node").code == 0
    assert "tiny" in (project / "ingot.lock").read_text()
    assert ingot("build", "--locked").code == 0


def test_packer_reads_along(ingot: Ingot, project: Path) -> None:
    ingot("build", "node")
    manifest = json.loads((project / "packer-manifest.json").read_text())
    (build,) = manifest["builds"]
    assert build["name"] == "node"
    assert build["packer_run_uuid"] == manifest["last_run_uuid"]
    before = (project / "packer-manifest.json").read_text()
    ingot("build", "node")
    assert (project / "packer-manifest.json").read_text() == before


def test_a_file_that_is_no_packer_manifest_is_left_alone_with_a_warning(ingot: Ingot, project: Path) -> None:
    (project / "packer-manifest.json").write_text("[]")
    said = ingot("build", "node")
    assert said.code == 0
    assert "warning: the project's manifest was not written" in said.err
    assert (project / "packer-manifest.json").read_text() == "[]"


def test_a_failed_build_tells_what_failed_and_how_to_go_on(ingot: Ingot, project: Path) -> None:
    write_project(project, DEFINITION.replace("hwloc", "broken"))
    said = ingot("build")
    assert said.code == 5
    assert "✓ node/local" in said.out
    for told in (
        "Install broken (roles/broken/tasks/main.yml:3)",
        "E: Unable to locate package broken",
        "step.log",
        "ingot build big-node",
        "hint: look for its name on the mirror",
    ):
        assert told in said.err


def test_a_failure_as_json(ingot: Ingot, project: Path) -> None:
    write_project(project, DEFINITION.replace("hwloc", "broken"))
    said = ingot("build", "--json")
    assert said.code == 5
    document = said.document
    assert [one["status"] for one in document["outcomes"]] == ["built", "failed"]
    assert document["outcomes"][1]["error"]["facts"]["task"] == "Install broken"
    assert [layer["name"] for layer in document["outcomes"][1]["layers"]]
    assert document["error"]["kind"] == "ProvisionError"
    assert document["error"]["code"] == 5


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_several_failures_are_a_partial_one_and_children_are_not_tried(
    ingot: Ingot, project: Path, jobs: str
) -> None:
    write_project(project, DEFINITION.replace("tmux", "broken"))
    said = ingot("build", "-j", jobs, "--json")
    assert said.code == 3
    assert said.document["error"]["kind"] == "PartialError"
    assert "node, which it continues, has failed" in said.document["outcomes"][1]["error"]["message"]


def test_finished_layers_are_kept_for_the_next_build(ingot: Ingot, project: Path) -> None:
    write_project(project, DEFINITION.replace("hwloc", "broken"))
    ingot("build")
    write_project(project, DEFINITION)
    outcome = ingot("build", "big-node", "--json").document["outcomes"][0]
    assert [layer["status"] for layer in outcome["layers"]].count("reused") == 3


def test_from_a_step_on_everything_is_made_anew_once(ingot: Ingot) -> None:
    before = ingot("build", "--json").document["outcomes"]
    said = ingot("build", "--from-step", "motd", "--json")
    node, big = said.document["outcomes"]
    statuses = [[layer["status"] for layer in one["layers"]] for one in (node, big)]
    # What `big-node` continues is the layer that this very run has made.
    assert statuses == [["reused", "reused", "built", "built"], ["reused"] * 3 + ["built"] * 2]
    assert [one["digest"] for one in before] != [node["digest"], big["digest"]]
    again = ingot("build", "--json").document["outcomes"]
    assert [one["digest"] for one in again] == [node["digest"], big["digest"]]


@pytest.mark.parametrize("name", ["packages", "packages htop tmux"])
def test_a_step_goes_by_its_layer_or_as_plans_show_it(ingot: Ingot, name: str) -> None:
    ingot("build", "node")
    (node,) = ingot("build", "node", "--from-step", name, "--json").document["outcomes"]
    assert [layer["status"] for layer in node["layers"]] == ["reused"] + ["built"] * 3


def test_a_step_that_no_image_has_is_told_before_anything_is_made(ingot: Ingot, state: Path) -> None:
    said = ingot("build", "--from-step", "motto")
    assert said.code == 2
    assert "'motto'" in said.err and "did you mean `motd`" in said.err
    assert not (state / "runs").exists()


def test_without_cache_a_child_stands_on_what_this_run_made(ingot: Ingot) -> None:
    ingot("build")
    node, big = ingot("build", "--no-cache", "--json").document["outcomes"]
    assert [layer["status"] for layer in node["layers"]] == ["built"] * 4
    assert [layer["status"] for layer in big["layers"]] == ["reused"] * 3 + ["built"] * 2


def test_a_deadline_ends_the_build_and_keeps_finished_layers(
    ingot: Ingot, project: Path, state: Path
) -> None:
    write_project(project, DEFINITION.replace("[hwloc]", "[endless]"))
    said = ingot("build", "--deadline", "2s", "--json")
    assert said.code == 7
    node, big = said.document["outcomes"]
    assert node["status"] == "built" and big["status"] == "failed"
    assert "did not end within 2.0s" in big["error"]["message"]
    assert [layer["status"] for layer in big["layers"]] == ["reused"] * 3
    assert not list((state / "memory" / "machines").glob("*.json"))
    assert ingot("build", "--deadline", "soon").code == 2


def test_events_are_appended_to_a_file(ingot: Ingot, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    ingot("build", "node", "--events", str(file))
    kinds = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert kinds[0] == "Progress"
    assert {"RunStarted", "BuildStarted", "LayerFinished", "BuildFinished", "RunFinished"} <= set(kinds)
    refused = ingot("build", "--events", str(tmp_path / "no" / "such"))
    assert refused.code == 2


def test_looking_at_what_was_built(ingot: Ingot) -> None:
    assert "nothing was built yet" in ingot("ls").out
    ingot("build")
    assert [one["image"] for one in ingot("ls", "--json").document["images"]] == ["big-node", "node"]
    assert "node@1" in ingot("inspect", "node").out
    seen = ingot("inspect", "node", "--json").document
    assert [package["name"] for package in seen["packages"]] == ["htop", "tmux"]
    history = ingot("history", "node", "--json").document
    assert [layer["status"] for layer in history["layers"]] == ["built"] * 4
    assert "tiny" in ingot("history", "node@1").out
    missing = ingot("inspect", "nod")
    assert missing.code == 4
    assert "built images: big-node, node" in missing.err


def test_logs_draw_a_run_again(ingot: Ingot) -> None:
    assert ingot("logs").code == 4
    built = ingot("build", "node", "--json").document
    said = ingot("logs")
    assert "==> node/local: " in said.out
    assert "doing packages" in ingot("logs", built["run"], "-vv").out
    assert ingot("logs", "--json").document["run"] == built["run"]
    (run,) = ingot("logs", "--list", "--json").document["runs"]
    assert (run["state"], run["verb"], run["plans"]) == ("done", "build", ["node/local"])


def test_gc_keeps_what_the_newest_images_stand_on(ingot: Ingot, state: Path) -> None:
    ingot("build", "--var", "greeting=old")
    ingot("build")
    for layer in (state / "memory" / "layers").iterdir():
        os.utime(layer, (0, 0))
    asked = ingot("gc", "--older-than", "1d", "--json")
    assert asked.code == 9
    assert "--yes" in asked.document["error"]["hint"]
    looked = ingot("gc", "--older-than", "1d", "--dry-run", "--json").document
    assert {drop["image"] for drop in looked["drops"]} == {"node@1", "big-node@1", ""}
    removed = ingot("gc", "--older-than", "1d", "--yes", "--json").document
    assert len(removed["drops"]) == len(looked["drops"])
    assert [one["version"] for one in ingot("ls", "--all", "--json").document["images"]] == [2, 2]
    again = ingot("build", "--json").document["outcomes"]
    assert [one["status"] for one in again] == ["reused", "reused"]
    assert ingot("gc", "--max-size", "20 apples").code == 2


def test_sweep_has_nothing_to_do_after_a_good_build(ingot: Ingot) -> None:
    ingot("build", "node")
    assert ingot("sweep", "--json").document == {"removed": [], "left": []}
    assert ingot("sweep", "no-such-run").code == 4


def test_validate_and_every_mistake_at_once(ingot: Ingot, project: Path) -> None:
    assert "2 images, no mistakes" in ingot("validate").out
    write_project(project, DEFINITION.replace("packages: [hwloc]", "packges: [hwloc]").replace("1 GiB", "1"))
    said = ingot("validate", "--json")
    assert said.code == 2
    problems = said.document["error"]["problems"]
    assert len(problems) == 2
    assert all(problem["line"] and problem["column"] for problem in problems)
    assert "^" in said.err


def test_places_are_told_from_where_we_stand(
    ingot: Ingot, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(project, DEFINITION.replace("packages: [hwloc]", "packges: [hwloc]"))
    monkeypatch.chdir(project.parent)
    assert "project/ingot.yaml:" in ingot("-C", "project", "validate").err


def test_init_makes_a_project_that_is_valid(ingot: Ingot, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert ingot("init", str(folder), "--dry-run").code == 0
    assert not folder.exists()
    assert "ingot.yaml" in ingot("init", str(folder)).out
    assert ingot("-C", str(folder), "validate").code == 0
    assert ingot("init", str(folder)).code == 2


def test_schema_is_json_and_needs_no_project(
    ingot: Ingot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "properties" in ingot("schema").document


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(ingot: Ingot, shell: str) -> None:
    assert "_INGOT_COMPLETE" in ingot("completion", shell).out


def test_usage_errors_are_sentences(ingot: Ingot) -> None:
    assert "did you mean `ingot build`" in ingot("buld").err
    said = ingot("build", "--targt", "x", "--json")
    assert said.code == 2
    assert "--target" in said.document["error"]["message"]
    assert ingot("build", "--var", "novalue").code == 2
    assert ingot("-C", "no/such/folder", "build", "--json").document["error"]["code"] == 2


def test_a_bug_leaves_its_traceback_in_a_file(ingot: Ingot, state: Path) -> None:
    from ingot.api import adapters

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    # Undone here: the fixture of the same name is undone after `world`, whose provisioner it would put back for good.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "provisioner", broken)
        said = ingot("build", "--json")
    assert said.code == 1
    assert "this is a bug in Ingot" in said.document["error"]["message"]
    (file,) = (state / "crashes").iterdir()
    assert str(file) in said.err
    assert "ZeroDivisionError" in file.read_text()
    assert "Traceback" not in said.err


def test_what_requirements_ask_for_is_fetched_before_the_definition_is_read(
    ingot: Ingot, project: Path, tmp_path: Path
) -> None:
    role = tmp_path / "elsewhere" / "motd" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text("- ansible.builtin.debug: {msg: hello}\n")
    (role.parent / "meta").mkdir()
    (role.parent / "meta" / "main.yml").write_text("galaxy_info: {role_name: motd}\n")
    subprocess.run(
        ["tar", "-czf", "motd.tar.gz", "-C", str(role.parent.parent), "motd"], cwd=project, check=True
    )
    (project / "requirements.yml").write_text("roles:\n  - {name: motd, src: ./motd.tar.gz}\n")
    write_project(project, DEFINITION.replace("packages: [hwloc]", "roles: [motd]"))
    assert ingot("validate").code == 2
    said = ingot("build", "--json")
    assert said.code == 0, said.err
    assert (project / ".ingot/galaxy/roles/motd/tasks/main.yml").is_file()
    assert ingot("plan", "--detailed-exitcode").code == 0


BROKEN = DEFINITION.replace("packages: [hwloc]", "packages: [broken]")


def test_a_kept_machine_is_listed_and_cancelled(ingot: Ingot, project: Path) -> None:
    (project / "ingot.yaml").write_text(BROKEN)
    failed = ingot("build", "--on-error", "keep", "--json")
    assert failed.code == 5
    facts = failed.document["outcomes"][1]["error"]["facts"]
    run = failed.document["run"]
    assert f"ingot ssh {run}" in facts["kept"] and facts["resume"] == f"ingot resume {run}"
    (seen,) = ingot("ps", "--json").document["runs"]
    assert seen["id"] == run and seen["kept_until"] and len(seen["held"]) == 1
    assert "kept until" in ingot("ps").out
    assert ingot("sweep", "--json").document["removed"] == []
    assert ingot("cancel", run).code == 0
    assert ingot("ps", "--json").document["runs"] == []
    assert ingot("ssh", run).code == 4, "its machine is gone"


def test_resume_builds_what_the_run_was_asked_for(ingot: Ingot, project: Path) -> None:
    (project / "ingot.yaml").write_text(BROKEN)
    failed = ingot("build", "big-node", "--var", "greeting=ahoy", "--on-error", "keep", "--json")
    run = failed.document["run"]
    (project / "ingot.yaml").write_text(DEFINITION)
    resumed = ingot("resume", run[:-2], "--json")
    assert resumed.code == 0, resumed.err
    (outcome,) = resumed.document["outcomes"]
    assert outcome["image"] == "big-node"
    assert [layer["status"] for layer in outcome["layers"]] == ["reused"] * 3 + ["built"] * 2
    assert ingot("ps", "--json").document["runs"] == [], "what was kept is removed"


def test_resume_has_the_variables_of_the_environment(
    ingot: Ingot, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "ingot.yaml").write_text(BROKEN)
    with monkeypatch.context() as environment:
        environment.setenv("INGOT_VAR_greeting", "ahoy")
        run = ingot("build", "big-node", "--json").document["run"]
    (project / "ingot.yaml").write_text(DEFINITION)
    (outcome,) = ingot("resume", run, "--json").document["outcomes"]
    assert [layer["status"] for layer in outcome["layers"]] == ["reused"] * 3 + ["built"] * 2


def test_a_resumed_build_keeps_where_it_was_to_ask(ingot: Ingot, project: Path) -> None:
    (project / "ingot.yaml").write_text(BROKEN)
    run = ingot("build", "big-node", "--json").document["run"]
    note = Path(os.environ["INGOT_STATE"]) / "runs" / run / "wish.json"
    note.write_text(note.read_text().replace('"on_error": "cleanup"', '"on_error": "ask"'))
    again = ingot("resume", run, "--json").document
    assert f"ingot cancel {again['run']}" in again["outcomes"][0]["error"]["facts"]["kept"]
    assert ingot("cancel", again["run"]).code == 0


def test_resume_wants_secrets_again(ingot: Ingot, project: Path) -> None:
    secret = "variables:\n  token: {type: string, sensitive: true}\n"
    (project / "ingot.yaml").write_text(BROKEN.replace("variables:\n", secret))
    run = ingot("build", "--var", "token=very-secret-indeed", "--json").document["run"]
    state = Path(os.environ["INGOT_STATE"])
    assert "very-secret" not in (state / "runs" / run / "wish.json").read_text()
    said = ingot("resume", run)
    assert said.code == 2 and "--var token=" in said.err
    assert ingot("resume", run, "--var", "token=very-secret-indeed").code == 5


def test_only_a_build_is_resumed(ingot: Ingot, project: Path) -> None:
    assert ingot("build").code == 0
    ingot("check")
    runs = ingot("logs", "--list", "--json").document["runs"]
    said = ingot("resume", next(run["id"] for run in runs if run["verb"] == "check"))
    assert said.code == 4 and "not a build" in said.err
    assert ingot("build", "--on-error", "ask").code == 2, "there is no terminal to ask on"
