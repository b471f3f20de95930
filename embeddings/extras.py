"""Optional packages: which extra of Rootnote installs a package that is missing."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

from embeddings.errors import MissingPackageError

# Packages whose name on PyPI differs from the name they are imported by.
_ON_PYPI = {"faiss": "faiss-cpu", "sklearn": "scikit-learn", "yaml": "pyyaml", "milvus_lite": "milvus-lite"}


def missing_package(what: str, error: ModuleNotFoundError) -> MissingPackageError:
    """The error for something that could not be imported, with the command that installs what it needs.

    Args:
        what: what cannot be used, such as the name of an embedder.
    """
    package = str(error.name or error).partition(".")[0]
    return MissingPackageError(f"'{what}' needs the package '{package}': pip install '{_installs(package)}'.")


def extra_of(package: str) -> str | None:
    """The extra of Rootnote that installs a package (the smallest, if several do), or `None`."""
    wanted = _ON_PYPI.get(package, package).replace("_", "-").lower()
    found: dict[str, int] = {}
    try:
        stated = requires("rootnote") or []
    except PackageNotFoundError:  # run from a source folder
        return None
    sizes: dict[str, int] = {}
    for line in stated:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name:
            sizes[extra[1]] = sizes.get(extra[1], 0) + 1
            if name[0].replace("_", "-").lower() == wanted:
                found[extra[1]] = 0
    return min(found, key=lambda extra: (sizes[extra], extra), default=None)


def _installs(package: str) -> str:
    extra = extra_of(package)
    return f"rootnote[{extra}]" if extra else _ON_PYPI.get(package, package)
