"""What the kernel side can fail with.

KernelError           one sentence for the operator, our words
  ├ Missing           the machine lacks something (libbpf, sk_lookup, bpffs, a capability); `holdfast proxy` needs none of it
  ├ NoNamespace       the --netns asked for does not exist, or vanished
  └ NotOurs           somebody else stands in the way: another sk_lookup program, connections that cannot be ended
"""

from __future__ import annotations


class KernelError(Exception):
    """The kernel would not do what enforcing needs. `str()` is for the operator."""


class Missing(KernelError):
    """This machine lacks something that steering needs."""


class NoNamespace(KernelError):
    """There is no such network namespace."""


class NotOurs(KernelError):
    """Somebody else's program or connection stands in the way."""
