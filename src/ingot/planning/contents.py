"""Fills into the steps of a definition what they read from disk: the digests that a plan's keys are made of."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from ingot.errors import Problem
from ingot.model.digest import Digest, digest, digest_bytes
from ingot.model.reference import reference
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    PlaybookStep,
    RebootStep,
    RolesStep,
    ScriptStep,
    SealStep,
    Step,
)
from ingot.planning.roles import Content, ContentReader
from ingot.ports import Tree


class Contents:
    """Resolves steps over one tree, reading each file once. What is not there gathers in `problems`.

    `digests` are those that the lock has for container images.
    """

    def __init__(self, tree: Tree, *, digests: Mapping[str, str] = {}) -> None:
        self.problems: list[Problem] = []
        self._digests = digests
        self._tree = tree
        self._reader = ContentReader(tree)
        self._resolved: dict[tuple[str, ...], Content] = {}

    def take_problems(self) -> tuple[Problem, ...]:
        """The problems so far, each once; forgotten here."""
        found = tuple(dict.fromkeys(self.problems))
        self.problems.clear()
        return found

    def resolve(self, step: Step, *, ansible: str, epoch: str) -> Step:
        """The step as a plan has it. The epoch counts for those that may fetch something from outside."""
        minor = ".".join(ansible.split(".")[:2])
        match step:
            case PackagesStep():
                return replace(step, epoch=epoch)
            case RolesStep():
                content = self._ansible(step)
                return replace(step, ansible=minor, content=content.digest, reads=content.reads, epoch=epoch)
            case PlaybookStep():
                content = self._ansible(step)
                return replace(step, ansible=minor, content=content.digest, reads=content.reads, epoch=epoch)
            case ScriptStep():
                program = self._bytes(step, "script") if step.path else step.content
                return replace(step, content=program, epoch=epoch)
            case CloudInitStep():
                return replace(step, content=self._bytes(step, "user-data file")) if step.path else step
            case FilesStep():
                return replace(step, content=self._files(step)) if step.src else step
            case ContainersStep():
                found = (reference(image).digest or self._digests.get(image, "") for image in step.images)
                return replace(step, digests=tuple(found))
            case RebootStep() | SealStep():
                return step
        assert_never(step)

    def _ansible(self, step: RolesStep | PlaybookStep) -> Content:
        names = step.roles if isinstance(step, RolesStep) else (step.path,)
        wanted = (step.kind, *names, "/", *step.groups)
        if wanted not in self._resolved:
            if isinstance(step, RolesStep):
                self._resolved[wanted] = self._reader.roles(step.roles, groups=step.groups)
            else:
                path = posixpath.normpath(step.path)
                self._resolved[wanted] = self._reader.playbook(path, groups=step.groups)
        content = self._resolved[wanted]
        for missing in content.missing:
            self._report(step, missing, hint=self._near(missing))
        return content

    def _near(self, missing: str) -> str:
        known = [name for name in self._reader.search().role_names(["roles"]) if name]
        if not missing.startswith("the role"):
            return "paths are relative to the project's folder"
        listed = f"roles of this project: {', '.join(known[:12])}; " if known else ""
        return f"{listed}`roles_path` of ansible.cfg and installed collections are searched too"

    def _bytes(self, step: ScriptStep | CloudInitStep, what: str) -> Digest:
        data = self._tree.read(step.path)
        if data is None:
            self._report(step, f'the {what} "{step.path}" is not there')
            return step.content
        return digest_bytes(data)

    def _files(self, step: FilesStep) -> Digest:
        """A file by bytes and, where it keeps its own, permission bits; a folder by all that is below it."""
        data = self._tree.read(step.src)
        # Copied into a folder (`dest: /etc/`), a file keeps its name.
        name = posixpath.basename(step.src) if step.dest.endswith("/") else ""
        if data is not None:
            return digest([name, digest_bytes(data), None if step.mode else self._tree.mode(step.src)])
        folder = step.src.rstrip("/")
        if not self._tree.mode(folder):
            self._report(step, f'the file or folder "{step.src}" is not there')
        return digest(
            [
                [path, kind, mode, digest_bytes(self._tree.read(f"{folder}/{path}") or b"")]
                if kind == "file"
                else [path, kind, mode]
                for path, kind, mode in self._tree.listing(folder)
            ]
        )

    def _report(
        self, step: Step, message: str, *, hint: str = "paths are relative to the project's folder"
    ) -> None:
        place = step.place
        self.problems.append(
            Problem(message=message, hint=hint, file=place.file, line=place.line, column=place.column)
        )
