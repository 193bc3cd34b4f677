"""The server in a process of its own, which prints the files that it opens for writing and what it logs."""

import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main(folder: str) -> None:
    from cxrkeras.predict.memory import share_memory_pools

    share_memory_pools()
    from cxrkeras.app.server import create_app, make_server
    from cxrkeras.predict.predictor import Predictor
    from cxrkeras.scoring.run import open_fold

    server = make_server(create_app(Predictor(open_fold(folder))), "127.0.0.1", 0)

    def watch(event: str, arguments: tuple) -> None:
        if event == "open" and arguments[2] & WRITES:
            print(f"opened for writing: {arguments[0]}", flush=True)
        elif event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp", "shutil.copyfile"):
            print(f"{event}: {arguments}", flush=True)

    sys.addaudithook(watch)
    print(server.effective_port, flush=True)
    server.run()


if __name__ == "__main__":
    main(sys.argv[1])
