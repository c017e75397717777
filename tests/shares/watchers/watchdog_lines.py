"""watchdog_lines.py FOLDER: what Python's watchdog tells of it, a line for each event."""

import sys

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Lines(FileSystemEventHandler):
    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            print(event.event_type, event.src_path, event.dest_path, flush=True)


observer = Observer()
observer.schedule(Lines(), sys.argv[1], recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
