"""What makes two things the same: one digest of all that running them reads.

Layers, functions and settings are described by content: tensors to the bit, code of a user
as bytecode with everything that it refers to, code of installed packages by their release.
Where that is impossible there is no description, so that nothing is taken for the same.
"""

from __future__ import annotations

from .code import KINDS_OF_CODE
from .digest import Digest, UndescribableError
from .releases import libraries
from .values import KINDS_OF_VALUES, add_instance

__all__ = ["describe", "libraries", "UndescribableError"]

KINDS = {**KINDS_OF_VALUES, **KINDS_OF_CODE}


def describe(value: object) -> str:
    """Return a digest that two things share, in any process, only if they are the same."""
    digest = Digest(KINDS, add_instance)
    try:
        digest.add(value)
    except RecursionError as error:
        raise UndescribableError("it is nested too deeply") from error
    except UndescribableError:
        raise
    except Exception as error:  # objects may do anything when they are looked at
        raise digest.refusal(f"it raised {type(error).__name__}: {error}") from error
    return digest.hexdigest()
