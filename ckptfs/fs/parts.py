"""The parts a mount is made of, put together in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..coordinator.api import Service
from .attributes import Attributes
from .handles import Handles
from .inodes import Inodes
from .namespace import Namespace
from .notify import Invalidate, Notifier
from .removal import Removals
from .spool import Spool
from .staging import Staging
from .views import Recollection, Surroundings
from .xattrs import Xattrs


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the handlers work with."""

    service: Service
    around: Surroundings
    spool: Spool
    staging: Staging
    inodes: Inodes
    handles: Handles
    namespace: Namespace
    attributes: Attributes
    notifier: Notifier
    removals: Removals
    xattrs: Xattrs
    recollection: Recollection


def build_parts(
    service: Service,
    *,
    clock_ns: Callable[[], int],
    load: Callable[[], float],
    invalidate: Invalidate,
    hide_jobs: bool = False,
) -> Parts:
    """Return the parts over *service*, subscribed to its changes."""
    spool, staging, inodes = Spool(), Staging(service), Inodes()
    recollection = Recollection()
    namespace = Namespace(service, spool, staging, hide_jobs=hide_jobs)
    attributes = Attributes(namespace, service, spool, staging, mounted_ns=clock_ns())
    notifier = Notifier(service, inodes, attributes, recollection, invalidate)
    service.subscribe(notifier.changed)
    service.subscribe(staging.forget_ended)
    return Parts(
        service=service,
        around=Surroundings(service, spool, recollection, clock_ns, load, trio.sleep),
        spool=spool,
        staging=staging,
        inodes=inodes,
        handles=Handles(),
        namespace=namespace,
        attributes=attributes,
        notifier=notifier,
        removals=Removals(service, namespace),
        xattrs=Xattrs(service, namespace, attributes),
        recollection=recollection,
    )
