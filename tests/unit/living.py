# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The objects that are in memory."""

import gc
from typing import Any


def living(*types: type) -> list[Any]:
    """Objects of these types and their subclasses, those that nothing uses any more included.

    `isinstance` would ask a weak proxy for the class of its object, and fail where the object is gone.
    """
    return [one for one in gc.get_objects() if issubclass(type(one), types)]
