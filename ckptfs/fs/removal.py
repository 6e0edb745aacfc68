"""rm -r and rmdir of versions and ended jobs.  Pure.

``rmdir <version>`` removes a version although its directory is not empty, as
in cgroupfs.  ``rm -r`` first unlinks what is inside: inside a version an
unlink by somebody who may remove the version succeeds and changes nothing;
only the rmdir of the version itself removes it, whole.  So a file removed by
mistake is there again at the next look, and a version is never half there.
What cannot be removed says so (EBUSY) at the first unlink.
"""

from __future__ import annotations

from ..coordinator.api import Service
from ..errors import Busy, Forbidden, NotAuthorised, NotEmpty
from ..model import Caller, JobState
from .namespace import Children, Namespace
from .nodes import OF_A_VERSION, Kind, Node

ENDED = frozenset({JobState.DONE, JobState.FAILED})
MARKS_MAX = 100_000  # entries; a removal of more starts over
OF_A_JOB = frozenset({Kind.JOB_CTL, Kind.JOB_FILE, Kind.LATEST})


class Removals:
    """Which entries have been unlinked on the way to an rmdir."""

    def __init__(self, service: Service, namespace: Namespace) -> None:
        self._service = service
        self._namespace = namespace
        self._marks: set[Node] = set()

    def unlink(self, node: Node, caller: Caller) -> None:
        """Take note of an unlink inside a version or of an ended job's control file.

        Raises Busy when the removal that this belongs to cannot succeed,
        NotAuthorised, Forbidden for everything else.
        """
        self._check(node, caller)
        if len(self._marks) >= MARKS_MAX:
            self._marks.clear()
        self._marks.add(node)

    def rmdir(self, node: Node, children: Children, caller: Caller) -> None:
        """Take note of an rmdir below a version.  Raises NotEmpty unless all in it was unlinked."""
        self._check(node, caller)
        if any(child not in self._marks for _, child in children):
            raise NotEmpty("remove the whole version: rmdir works on it although it is not empty")
        self.unlink(node, caller)

    def finish(self, node: Node) -> None:
        """Forget the marks of a version or job that has been removed."""
        self._marks = {
            mark
            for mark in self._marks
            if mark.job != node.job or (node.version and mark.version != node.version)
        }

    def _check(self, node: Node, caller: Caller) -> None:
        if node.kind not in OF_A_VERSION and node.kind not in OF_A_JOB:
            raise Forbidden("this cannot be removed")
        job = self._namespace.job(node)
        if caller.uid not in (0, job.spec.owner.uid):
            raise NotAuthorised(f"{job.id} belongs to another user")
        if node.kind in OF_A_JOB:
            if job.state not in ENDED:
                raise Busy(f"{job.id} is {job.state}: end it first")
            return
        if self._service.store.pinned(node.job, node.version):
            raise Busy(f"version {node.version} is pinned: echo 0 > ctl/pin first")
        if job.restart and job.restart.word == "rebuilding" and job.restart.version == node.version:
            raise Busy(f"version {node.version} is being restarted")
