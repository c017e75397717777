"""The verbs as short scripts over the layers below. Nothing here prints; what happens goes to a Reporter.

Heavy imports are inside the functions that need them: `control_path` is on the way of every `wherry docker`.
"""

from launcher.machine.create import UpOptions, init
from launcher.machine.disk import forget_repair, new_disk, open_read_only, repair_disk, undo_repair
from launcher.machine.inspect import engine_version, ip, list_machines, logs_path, status
from launcher.machine.run import UpResult, control_path, restart, up
from launcher.machine.stop import delete, stop, what_delete_removes
from launcher.machine.suspend import Suspended, suspend

__all__ = [
    "Suspended", "UpOptions", "UpResult", "control_path", "delete", "engine_version", "forget_repair", "init", "ip",
    "list_machines", "logs_path", "new_disk", "open_read_only", "repair_disk", "restart", "status", "stop", "suspend",
    "undo_repair", "up", "what_delete_removes",
]  # fmt: skip
