"""The catalog: versions of images, where each is, what it holds, how its checks went, what builds came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import Row, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from ingot.errors import BackendError, NotFoundError
from ingot.model.digest import plain
from ingot.model.image import CheckRun, Image, Manifest, Outcome
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.stores import documents, tables

T = TypeVar("T")
_BUSY = 30.0  # seconds that one writer waits for another


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image of one version, at one location of one backend."""

    project: str
    image: str
    version: int
    target: str
    backend: str
    location: str
    ref: str
    digest: ContentId
    key: LayerKey
    arch: str
    size: Bytes
    status: str
    created: str
    run: str


class Catalog:
    """Open it with a path (SQLite) or a SQLAlchemy URL; close it, or use it as a context manager."""

    def __init__(self, place: Path | str) -> None:
        """Opens the catalog, making its tables where there are none.

        Raises BackendError for a file of a newer Ingot, and for one that cannot be opened.
        """
        self._place = str(place)
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
        with self._translated():
            self._engine = _engine(place)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def record(
        self, project: str, image: Image, *, target: str, run: str, manifest: Manifest | None = None
    ) -> int:
        """Records an image and returns its version's number.

        The same content for the same target is the version that it was already. New content joins the version
        that this run made for another target, or else begins the next one.
        """

        def work(connection: Connection) -> int:
            if manifest is not None:
                _put_manifest(connection, manifest)
            known = _version_with(connection, project, image, target)
            if known is not None:
                _renew(connection, known.id, image, target)
                return int(known.number)
            version_id, number = _version_for(connection, project, image, target=target, run=run)
            values = _image_values(image, target)
            connection.execute(insert(tables.images).values(version_id=version_id, **values))
            return number

        return self._write(work)

    def record_outcome(self, outcome: Outcome, *, project: str, run: str, created: str) -> None:
        """Keeps what one plan's build came to; `created` is UTC, ISO 8601."""
        values = {
            name: getattr(outcome, name)
            for name in ("image", "target", "backend", "location", "status", "seconds", "version", "digest")
        }
        document = plain(outcome)
        self._write(
            lambda connection: connection.execute(
                insert(tables.outcomes).values(
                    run=run, project=project, created=created, document=document, **values
                )
            )
        )

    def record_checks(self, run: CheckRun) -> None:
        """Keeps one run of an image's checks."""
        self._write(
            lambda connection: connection.execute(
                insert(tables.checks).values(
                    digest=run.digest,
                    run=run.run,
                    created=run.created,
                    passed=int(run.passed),
                    document=plain(run),
                )
            )
        )

    def projects(self) -> tuple[str, ...]:
        """The names of all projects that have images here."""
        query = select(tables.versions.c.project).distinct().order_by(tables.versions.c.project)
        with self._translated(), self._engine.connect() as connection:
            return tuple(connection.execute(query).scalars().all())

    def images(self, project: str, pattern: str = "*") -> tuple[Entry, ...]:
        """Images whose name the glob matches, by name, newest version first."""
        query = _entries().where(tables.versions.c.project == project)
        if not any(sign in pattern for sign in "*?["):
            query = query.where(tables.versions.c.image == pattern)
        return tuple(entry for entry in self._read(query) if fnmatchcase(entry.image, pattern))

    def find(self, project: str, name: str, *, target: str = "") -> Entry:
        """The newest version of an image, or `name@7`'s; of `target` where one is named.

        Raises NotFoundError, which tells what there is.
        """
        image, _, number = name.partition("@")
        found = [
            entry
            for entry in self.images(project, image)
            if (not number or number == str(entry.version)) and (not target or entry.target == target)
        ]
        if found:
            return found[0]
        known = sorted({entry.image for entry in self.images(project)})
        there = f"built images: {', '.join(known)}" if known else "nothing has been built yet: `ingot build`"
        of_target = f" for target {target!r}" if target else ""
        raise NotFoundError(f"no built image {name!r}{of_target} in project {project!r}", hint=there)

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest of the image with this content."""
        query = select(tables.manifests.c.document).where(tables.manifests.c.digest == digest)
        with self._translated(), self._engine.connect() as connection:
            found = connection.execute(query).scalar()
        return documents.manifest(found) if found else None

    def checks(self, digest: str) -> tuple[CheckRun, ...]:
        """All recorded check runs of the image with this content, newest first."""
        query = (
            select(tables.checks.c.document)
            .where(tables.checks.c.digest == digest)
            .order_by(tables.checks.c.id.desc())
        )
        with self._translated(), self._engine.connect() as connection:
            found = connection.execute(query).scalars().all()
        return tuple(documents.check_run(document) for document in found)

    def outcomes(self, project: str, *, limit: int = 100) -> tuple[dict[str, Any], ...]:
        """The last outcomes as plain data with `run` and `created`, newest first."""
        table = tables.outcomes
        query = select(table).where(table.c.project == project).order_by(table.c.id.desc()).limit(limit)
        with self._translated(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple({"run": row.run, "created": row.created, **row.document} for row in rows)

    def forget(self, entry: Entry) -> None:
        """Takes an image out of the catalog; its version with the last one, its manifest when no copy is left."""

        def work(connection: Connection) -> None:
            ours = _versions_of(entry.project, entry.image).where(tables.versions.c.number == entry.version)
            ids = [row.id for row in connection.execute(ours)]
            table = tables.images
            connection.execute(
                delete(table).where(
                    table.c.version_id.in_(ids),
                    table.c.target == entry.target,
                    table.c.backend == entry.backend,
                    table.c.location == entry.location,
                )
            )
            left = select(table.c.version_id)
            connection.execute(
                delete(tables.versions).where(
                    tables.versions.c.id.in_(ids), tables.versions.c.id.not_in(left)
                )
            )
            if not connection.execute(select(table.c.id).where(table.c.digest == entry.digest)).first():
                for other in (tables.manifests, tables.checks):
                    connection.execute(delete(other).where(other.c.digest == entry.digest))

        self._write(work)

    def _read(self, query: Any) -> Iterator[Entry]:
        with self._translated(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return (_entry(row) for row in rows)

    def _write(self, work: Callable[[Connection], T]) -> T:
        """One transaction; again where another writer took the number that this one wanted."""
        writing = self._engine.execution_options(writes=True)
        with self._translated():
            for _ in range(4):
                try:
                    with writing.begin() as connection:
                        return work(connection)
                except IntegrityError:
                    continue
            with writing.begin() as connection:
                return work(connection)

    def _prepare(self) -> None:
        with self._engine.connect() as connection:
            if not self._engine.dialect.has_table(connection, "schema"):
                version = None
            else:
                version = connection.execute(select(tables.schema.c.version)).scalar()
        if version is None:
            self._create()
        elif version > tables.SCHEMA:
            raise BackendError(
                f"the catalog {self._place} was written by a newer Ingot (layout {version}, this one knows "
                f"{tables.SCHEMA})",
                hint="use that Ingot, or another state folder (`INGOT_STATE`)",
            )

    def _create(self) -> None:
        with self._engine.execution_options(writes=True).begin() as connection:
            tables.metadata.create_all(connection)
            if connection.execute(select(func.count()).select_from(tables.schema)).scalar() == 0:
                connection.execute(insert(tables.schema).values(version=tables.SCHEMA))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise BackendError(
                f"the catalog {self._place} cannot be used: {error.orig}",
                hint="look at the disk's space and the file's owner; a damaged file can be moved away",
            ) from error
        except DBAPIError as error:
            raise BackendError(
                f"the catalog {self._place} is not what it should be: {error.orig}",
                hint="move the file away; a new one is begun",
            ) from error


def _engine(place: Path | str) -> Engine:
    url = f"sqlite:///{place}" if isinstance(place, Path) else make_url(place)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, record: object) -> None:
    """SQLite as several processes need it: a writer does not stop readers, and writers wait for each other."""
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    settings = (
        f"busy_timeout={round(_BUSY * 1000)}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    )
    try:
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()  # nobody else knows of it yet
        raise


def _on_begin(connection: Connection) -> None:
    """A writer takes its lock at once: one that reads first and writes later may find that it cannot any more."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _versions_of(project: str, image: str) -> Any:
    table = tables.versions
    return select(table.c.id, table.c.number).where(table.c.project == project, table.c.image == image)


def _version_with(connection: Connection, project: str, image: Image, target: str) -> Row[Any] | None:
    query = (
        _versions_of(project, image.name)
        .join(tables.images, tables.images.c.version_id == tables.versions.c.id)
        .where(tables.images.c.digest == image.digest, tables.images.c.target == target)
        .order_by(tables.versions.c.number.desc())
    )
    found: Row[Any] | None = connection.execute(query).first()
    return found


def _version_for(
    connection: Connection, project: str, image: Image, *, target: str, run: str
) -> tuple[int, int]:
    """(id, number) of the version of this run that still lacks the target, or of a new one."""
    table = tables.versions
    taken = select(tables.images.c.version_id).where(tables.images.c.target == target)
    open_ones = _versions_of(project, image.name).where(table.c.run == run, table.c.id.not_in(taken))
    found = connection.execute(open_ones).first()
    if found:
        return found.id, found.number
    highest = select(func.max(table.c.number)).where(table.c.project == project, table.c.image == image.name)
    number = (connection.execute(highest).scalar() or 0) + 1
    done = connection.execute(
        insert(table).values(
            project=project, image=image.name, number=number, recipe=image.key, run=run, created=image.created
        )
    )
    assert done.inserted_primary_key
    return done.inserted_primary_key[0], number


def _renew(connection: Connection, version_id: int, image: Image, target: str) -> None:
    """The image's latest ref and place, where it was registered anew; a further location is a further row."""
    table = tables.images
    ours = (
        table.c.version_id == version_id,
        table.c.target == target,
        table.c.backend == image.backend,
        table.c.location == image.location,
    )
    done = connection.execute(update(table).where(*ours).values(**_image_values(image, target)))
    if done.rowcount == 0:
        connection.execute(insert(table).values(version_id=version_id, **_image_values(image, target)))


def _image_values(image: Image, target: str) -> dict[str, Any]:
    names = ("backend", "location", "ref", "digest", "key", "arch", "size", "created")
    return {"target": target, "status": "ready", **{name: getattr(image, name) for name in names}}


def _put_manifest(connection: Connection, manifest: Manifest) -> None:
    table = tables.manifests
    if not connection.execute(select(table.c.digest).where(table.c.digest == manifest.digest)).first():
        connection.execute(
            insert(table).values(digest=manifest.digest, created=manifest.created, document=plain(manifest))
        )


def _entries() -> Any:
    version, image = tables.versions, tables.images
    return (
        select(image, version.c.project, version.c.image, version.c.number, version.c.run)
        .join(version, image.c.version_id == version.c.id)
        .order_by(version.c.image, version.c.number.desc(), image.c.id)
    )


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        project=row.project,
        image=row.image,
        version=row.number,
        target=row.target,
        backend=row.backend,
        location=row.location,
        ref=row.ref,
        digest=ContentId(row.digest),
        key=LayerKey(row.key),
        arch=row.arch,
        size=Bytes(row.size),
        status=row.status,
        created=row.created,
        run=row.run,
    )
