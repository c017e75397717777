"""server.py FOLDER: a development server that reads FOLDER/app.py again when watchdog tells of it, and says what is in it."""

import sys
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

app = Path(sys.argv[1]) / "app.py"


class Reload(FileSystemEventHandler):
    last = ""

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        now = app.read_text() if app.exists() else "gone"
        if now != self.last:
            self.last = now
            print(f"serves {now.strip()}", flush=True)


observer = Observer()
observer.schedule(Reload(), sys.argv[1], recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
