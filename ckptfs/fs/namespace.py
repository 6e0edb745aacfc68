"""The tree: who is whose child.  Pure, synchronous; reads the service's records.

No user-chosen name ever sits beside an interface file: jobs are
``<name>.<number>``, versions are numbers, spool files have a directory of
their own.
"""

from __future__ import annotations

from collections.abc import Callable

from ..coordinator.api import Job, Service
from ..errors import CkptfsError, NotFound
from ..ids import Version, is_among, parse_job_id, parse_version
from ..model import Caller, FileEntry, Head
from .interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from .nodes import SERVICE_CTL, SPOOL, STAGING, Kind, Node
from .spool import Spool
from .staging import SAVED, Staging

Children = list[tuple[str, Node]]
CTL = "ctl"
LATEST = "latest"
SUMS = "SHA256SUMS"
STAGING_NAME = ".staging"


class Namespace:
    """Lookup and listing over the service, the spool and the staging area."""

    def __init__(
        self, service: Service, spool: Spool, staging: Staging, *, hide_jobs: bool = False
    ) -> None:
        self._service = service
        self._spool = spool
        self._staging = staging
        self._hide_jobs = hide_jobs
        self._lookups: dict[Kind, Callable[[Node, str], Node]] = {
            Kind.ROOT: self._in_root,
            Kind.SERVICE_CTL: self._in_service_ctl,
            Kind.SPOOL: self._in_spool,
            Kind.JOB: self._in_job,
            Kind.STAGING: self._in_staging,
            Kind.STAGED_UNIT: self._in_staged_unit,
            Kind.STAGED_SAVED: self._in_staged_saved,
        }
        self._listings: dict[Kind, Callable[[Node], Children]] = {
            Kind.SERVICE_CTL: self._list_service_ctl,
            Kind.SPOOL: self._list_spool,
            Kind.JOB: self._list_job,
            Kind.JOB_CTL: self._list_job_ctl,
            Kind.VERSION: self._list_version,
            Kind.VERSION_CTL: self._list_version_ctl,
            Kind.UNIT: self._list_unit,
            Kind.SAVED: self._list_saved,
            Kind.STAGING: self._list_staging,
            Kind.STAGED_VERSION: self._list_staged_version,
            Kind.STAGED_UNIT: self._list_staged_unit,
            Kind.STAGED_SAVED: self._list_staged_saved,
        }

    def lookup(self, parent: Node, name: str, caller: Caller) -> Node:
        """Return the child of *parent* called *name*.  Raises NotFound (ENOENT)."""
        if name == STAGING_NAME and caller.uid != 0:
            raise NotFound(f"no job is called {name!r}")
        finder = self._lookups.get(parent.kind)
        if finder is not None:
            return finder(parent, name)
        for known, node in self.children(parent, caller):
            if known == name:
                return node
        raise NotFound(f"{name!r} is not there")

    def children(self, node: Node, caller: Caller) -> Children:
        """Return the entries of a directory in listing order, without ``.`` and ``..``."""
        if node.kind is Kind.ROOT:
            return self._list_root(caller)
        lister = self._listings.get(node.kind)
        return lister(node) if lister is not None else []

    # the service

    def job(self, node: Node) -> Job:
        """Return the record of the job that *node* belongs to.  Raises NotFound."""
        job = self._service.job(node.job)
        if job.removed:
            raise NotFound(f"{node.job} was removed")
        return job

    def head(self, node: Node) -> Head | None:
        """Return the head of the version that *node* belongs to; None when it is damaged.

        Raises NotFound when there is no such version.  A version with an
        unreadable head stays visible with ``ctl/`` alone, so that it can be
        understood and removed.
        """
        self.check_version(node)
        try:
            return self._service.head(node.job, node.version)
        except NotFound:
            raise
        except CkptfsError:
            return None

    def check_version(self, node: Node) -> None:
        """Raise NotFound when the version that *node* belongs to is not there."""
        if not is_among(node.version, self.job(node).versions):
            raise NotFound(f"{node.job} has no version {node.version}")

    def file(self, node: Node) -> FileEntry:
        """Return the entry of a sealed file.  Raises NotFound."""
        for entry in self.files(node):
            if entry.unit == node.unit and entry.name == node.name:
                return entry
        raise NotFound(f"{node.name!r} is not in version {node.version} of {node.job}")

    def files(self, node: Node) -> tuple[FileEntry, ...]:
        """Return all entries of the version that *node* belongs to."""
        head = self.head(node)
        return head.files if head is not None else ()

    def _list_root(self, caller: Caller) -> Children:
        found: Children = [(CTL, SERVICE_CTL)]
        for job in self._service.jobs():
            if not self._hide_jobs or caller.uid in (0, self._service.job(job).spec.owner.uid):
                found.append((job, Node(Kind.JOB, job)))
        return found

    def _in_root(self, node: Node, name: str) -> Node:
        fixed = {CTL: SERVICE_CTL, STAGING_NAME: STAGING}.get(name)
        if fixed is not None:
            return fixed
        found = Node(Kind.JOB, parse_job_id(name))
        self.job(found)
        return found

    def _list_service_ctl(self, node: Node) -> Children:
        files: Children = [(name, Node(Kind.SERVICE_FILE, name=name)) for name in SERVICE_FILES]
        return [*files, ("spool", SPOOL)]

    def _in_service_ctl(self, node: Node, name: str) -> Node:
        if name == "spool":
            return SPOOL
        return self._row(Kind.SERVICE_FILE, node, name)

    def _row(self, kind: Kind, parent: Node, name: str) -> Node:
        tables = {
            Kind.SERVICE_FILE: SERVICE_FILES,
            Kind.JOB_FILE: JOB_FILES,
            Kind.VERSION_FILE: VERSION_FILES,
        }
        if name not in tables[kind]:
            raise NotFound(f"no control file is called {name!r}")
        return Node(kind, parent.job, parent.version, name=name)

    def _list_spool(self, node: Node) -> Children:
        return [(file.name, Node(Kind.SPOOL_FILE, serial=file.serial)) for file in self._spool]

    def _in_spool(self, node: Node, name: str) -> Node:
        return Node(Kind.SPOOL_FILE, serial=self._spool.find(name).serial)

    # jobs and versions

    def _list_job(self, node: Node) -> Children:
        job = self.job(node)
        found: Children = [(CTL, Node(Kind.JOB_CTL, job.id))]
        if (
            self._service.latest(job.id) is not None
        ):  # first: rm -r takes the versions away after it
            found.append((LATEST, Node(Kind.LATEST, job.id)))
        found += [(str(version), Node(Kind.VERSION, job.id, version)) for version in job.versions]
        return found

    def _in_job(self, node: Node, name: str) -> Node:
        job = self.job(node)
        if name == CTL:
            return Node(Kind.JOB_CTL, job.id)
        if name == LATEST and self._service.latest(job.id) is not None:
            return Node(Kind.LATEST, job.id)
        version = parse_version(name)
        if not is_among(version, job.versions):
            raise NotFound(f"{job.id} has no version {name}")
        return Node(Kind.VERSION, job.id, version)

    def latest(self, node: Node) -> Version:
        """Return where the ``latest`` link of a job points.  Raises NotFound."""
        version = self._service.latest(node.job)
        if version is None:
            raise NotFound(f"{node.job} has no restartable version")
        return version

    def _list_job_ctl(self, node: Node) -> Children:
        self.job(node)
        return [(name, Node(Kind.JOB_FILE, node.job, name=name)) for name in JOB_FILES]

    def _list_version(self, node: Node) -> Children:
        found: Children = [(CTL, Node(Kind.VERSION_CTL, node.job, node.version))]
        head = self.head(node)
        if head is None:
            return found
        found += [
            (entry.name, Node(Kind.IMAGE, node.job, node.version, name=entry.name))
            for entry in head.files
            if not entry.unit
        ]
        found.append((SUMS, Node(Kind.SUMS, node.job, node.version)))
        units = dict.fromkeys(entry.unit for entry in head.files if entry.unit)
        found += [(unit, Node(Kind.UNIT, node.job, node.version, unit)) for unit in units]
        return found

    def _list_version_ctl(self, node: Node) -> Children:
        self.check_version(node)
        return [(name, self._row(Kind.VERSION_FILE, node, name)) for name in VERSION_FILES]

    def _list_unit(self, node: Node) -> Children:
        names = [entry.name for entry in self.files(node) if entry.unit == node.unit]
        return self._sealed(node, names, Kind.IMAGE, Kind.SAVED)

    def _list_saved(self, node: Node) -> Children:
        prefix = SAVED + "/"
        return [
            (entry.name.removeprefix(prefix), self._file(node, entry.name))
            for entry in self.files(node)
            if entry.unit == node.unit and entry.name.startswith(prefix)
        ]

    def _file(self, node: Node, name: str) -> Node:
        return Node(Kind.IMAGE, node.job, node.version, node.unit, name)

    def _sealed(self, node: Node, names: list[str], file: Kind, folder: Kind) -> Children:
        found: Children = []
        if any(name.startswith(SAVED + "/") for name in names):
            found.append((SAVED, Node(folder, node.job, node.version, node.unit)))
        found += [
            (name, Node(file, node.job, node.version, node.unit, name))
            for name in names
            if "/" not in name
        ]
        return found

    # the staging area

    def _list_staging(self, node: Node) -> Children:
        return [
            (key, Node(Kind.STAGED_VERSION, ingest.job, ingest.version))
            for key, ingest in self._staging.sessions()
        ]

    def _in_staging(self, node: Node, name: str) -> Node:
        ingest = self._staging.find_session(name)
        return Node(Kind.STAGED_VERSION, ingest.job, ingest.version)

    def _list_staged_version(self, node: Node) -> Children:
        ingest = self._staging.session(node.job, node.version)
        return [
            (unit, Node(Kind.STAGED_UNIT, node.job, node.version, unit))
            for unit in self._staging.units(ingest)
        ]

    def _list_staged_unit(self, node: Node) -> Children:
        names = self._staging.names(node.job, node.version, node.unit)
        found = [(name, self._staged(node, name)) for name in names if "/" not in name]
        if self._staging.has_saved(node.job, node.version, node.unit):
            found.append((SAVED, Node(Kind.STAGED_SAVED, node.job, node.version, node.unit)))
        return found

    def _list_staged_saved(self, node: Node) -> Children:
        prefix = SAVED + "/"
        names = self._staging.names(node.job, node.version, node.unit)
        return [
            (name.removeprefix(prefix), self._staged(node, name))
            for name in names
            if name.startswith(prefix)
        ]

    def _in_staged_unit(self, node: Node, name: str) -> Node:
        if name == SAVED and self._staging.has_saved(node.job, node.version, node.unit):
            return Node(Kind.STAGED_SAVED, node.job, node.version, node.unit)
        return self._staged(node, name)

    def _in_staged_saved(self, node: Node, name: str) -> Node:
        return self._staged(node, f"{SAVED}/{name}")

    def _staged(self, node: Node, name: str) -> Node:
        staged = self._staging.find(node.job, node.version, node.unit, name)
        return Node(Kind.STAGED_FILE, node.job, node.version, node.unit, serial=staged.serial)


def staged_name(parent: Node, name: str) -> str:
    """Return *name* below the staged directory *parent*, relative to its unit."""
    return f"{SAVED}/{name}" if parent.kind is Kind.STAGED_SAVED else name
