"""Does what a user does with an exported call: `use CALL`. Run by a Python that has dask-cloudprovider.

The cluster is the call's own, with one worker; what came of it is printed as JSON.
"""

import json
import os
import socket
import sys
from pathlib import Path

from distributed import Client


def main() -> None:
    names: dict = {"__name__": "call"}
    exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"), names)
    cluster = names["cluster"]
    try:
        with Client(cluster, timeout=60) as client:
            cluster.scale(1)
            client.wait_for_workers(1, timeout=120)
            told = {
                "sum": client.submit(sum, range(1000)).result(60),
                "worker": client.submit(socket.gethostname).result(60),
                "scheduler": client.run_on_scheduler(socket.gethostname),
                "workers": list(client.scheduler_info()["workers"]),
                "here": socket.gethostname(),
            }
    finally:
        cluster.close()
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what the cluster left running in threads is not waited for
